"""What a task of a user's own needs from the framework of its model: tensors, batches, loss and what a model holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from harness.api import Array, LayerArithmetic, NativeModel, OwnModel

from .folding import Computed

PACKAGES = {
    "torch": ("PyTorch", "torch"),
    "tensorflow": ("TensorFlow", "keras"),
    "tf_keras": ("Keras 2", "keras"),
    "keras": ("Keras 2 (`import tf_keras`)", "keras"),
}
"""Modules that users' files begin with: the framework, and the extra that installs it."""


@dataclass(frozen=True)
class Wishes:
    """What a user says of the tensors of their model.

    Args:
        prunable: names of further matrices.
        same: labels of axes that are to be other ones.
    """

    prunable: Sequence[str] = ()
    same: Mapping[str, str] | None = None


class Way(ABC):
    """One framework. Models, tensors and batches are its own objects, `Any` to everybody else."""

    framework: ClassVar[Literal["torch", "keras"]]
    modules: ClassVar[frozenset[str]]
    """What is loaded where a process has imported it."""
    model_class: ClassVar[str]
    """What a user's model has to be, for messages."""
    ignored: ClassVar[int | None] = None
    """The class of items that the default loss leaves out."""

    @abstractmethod
    def seed(self, seed: int) -> None:
        """Seed every generator that a user's code may draw from."""

    def kept(self) -> AbstractContextManager[None]:
        """What user code sets for the whole process, and a result depends on, is as it was when the context is left."""
        return nullcontext()

    @abstractmethod
    def is_model(self, found: object) -> bool:
        """Whether it is a model of this framework."""

    def check(self, own: OwnModel) -> None:  # noqa: B027  # most frameworks have nothing to say here
        """Pass if what the user gives can do what they mean with a model of this framework.

        Raises:
            SpecError: it cannot, and no number would tell.
        """

    def check_model(self, model: Any, own: OwnModel) -> None:  # noqa: B027  # likewise
        """Pass if a model is trained by what the user gives beside it.

        Raises:
            SpecError: a part of its own training would be left out.
        """

    def check_outputs(self, outputs: Any) -> None:  # noqa: B027  # likewise
        """Pass if the default loss and metric may count everything in a batch of outputs.

        Raises:
            SpecError: they may not.
        """

    def plain(self, model: Any) -> Any:
        """The model itself, out of what compiles or speeds it up."""
        return model

    @abstractmethod
    def trained(self, model: Any) -> Mapping[str, Any]:
        """What a model trains, as the framework's own objects, by name."""

    @abstractmethod
    def completed(self, model: Any, inputs: Any) -> None:
        """Bring a fresh model to where it has all of its parameters, in float32."""

    @abstractmethod
    def start(self, model: Any, path: Path) -> None:
        """Load a checkpoint; nothing in it is executed.

        Raises:
            Exception: whatever the framework says of a checkpoint of another model.
        """

    def start_files(self, path: Path) -> list[Path]:
        """All files of a checkpoint."""
        return [path]

    @abstractmethod
    def parameters(self, model: Any) -> dict[str, NDArray[np.float32]]:
        """Every trainable parameter as the framework lays it out, by name."""

    @abstractmethod
    def traced(self, model: Any, inputs: Any) -> tuple[Any, Any]:
        """Send a batch through the model as in an evaluation.

        Returns:
            The outputs, and what was seen on the way, for `found`.
        """

    @abstractmethod
    def found(self, model: Any, seen: Any, items: int, wishes: Wishes) -> NativeModel:
        """What the model holds.

        Raises:
            SpecError: a wish names what is not there.
        """

    @abstractmethod
    def forward(self, model: Any, inputs: Any, *, training: bool) -> Any:
        """The model on a batch."""

    @abstractmethod
    def filled(self, model: Any, parameters: Mapping[str, Array], buffers: Mapping[str, Array]) -> None:
        """Give a model these parameters and buffers, as the framework lays them out."""

    @abstractmethod
    def norms_in_layers(self, model: Any, run: Callable[[], None]) -> dict[str, str]:
        """Layer -> the batch norm that alone reads its sums, as `run` shows, which sends a batch through the model."""

    @abstractmethod
    def computed_by(
        self, model: Any, arithmetic: LayerArithmetic, folds: Mapping[str, str]
    ) -> AbstractContextManager[Computed]:
        """Have another arithmetic compute the layers that are known, norms in them; yields what it has computed."""

    def called(self, function: Callable[..., Any], outputs: Any, targets: Any, *, mean: bool) -> Any:
        """A loss (`mean`) or a metric that the user gives, on a batch."""
        return function(outputs, targets)

    @abstractmethod
    def cross_entropy(self, outputs: Any, targets: Any) -> Any:
        """The mean over the items of a batch, in nats."""

    @abstractmethod
    def array(self, values: Any) -> NDArray[Any]:
        """A tensor's values."""

    def logits(self, outputs: Any) -> Any:
        """What the default loss takes of a model's outputs."""
        return outputs

    @abstractmethod
    def twice(self, values: Any) -> Any:
        """A batch with every item twice, at any depth."""

    def schedule(self, rate: Callable[[int], Any], steps: int) -> Callable[[int], Any]:
        """A user's function of the epoch, or what stands for it in the framework."""
        return rate

    @abstractmethod
    def is_scalar(self, loss: object) -> bool:
        """Whether it is one number of the framework."""

    @abstractmethod
    def items(self, targets: Any, ignored: int | None) -> int:
        """Every element of integer targets but the ignored, or else the length of their first axis."""

    @abstractmethod
    def correct(self, outputs: Any, targets: Any) -> Any:
        """How many items have their highest logit at the target."""

    @abstractmethod
    def tensor(self, value: Any) -> Any:
        """A leaf of a user's data as what models take: doubles as float32."""

    @abstractmethod
    def taken(self, values: Any, chosen: NDArray[np.intp]) -> Any:
        """Some items of a tensor."""

    @abstractmethod
    def together(self, items: list[Any]) -> Any:
        """Items of a map-style data set as one batch."""

    def is_stream(self, source: object) -> bool:
        """Whether a source yields whole batches."""
        # A data set with items has both; an iterator, a loader or a generator lacks one of them.
        return not (hasattr(source, "__getitem__") and hasattr(source, "__len__"))

    def stream(self, source: Any) -> Iterable[Any]:
        """The batches of a stream, in one pass."""
        return source  # type: ignore[no-any-return]  # an iterable, as the data set checks

    def is_endless(self, source: object) -> bool:
        """Whether a stream is known never to end."""
        return False
