"""Tasks: data, initial weights, recipe, loss, metric, and which model."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer

from harness.api.component import Component, Frozen, JsonValue
from harness.api.network import Network, Tensor
from harness.api.program import Recipe
from harness.arrays import Array

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class Batch:
    """One step's data.

    Shapes:
        inputs: (batch, steps) int32 token ids, or (batch, *input_shape) float32.
        targets: (batch, steps) or (batch,) int32 class ids.
    """

    inputs: Array
    targets: NDArray[np.int32]


class Evaluation(Frozen):
    """Totals over the items of a split (never means over batches).

    Args:
        nats: summed cross-entropy, in nats; not finite where it overflowed.
        correct: items whose highest logit is the target; None where the metric does not need it.
        items: number of predicted items (tokens or images).
        activation_density: fraction of a layer's inputs that are not exactly zero, by the name of a layer with matrices
            (not embeddings); each input element counts once, the padding of a convolution not at all. The inputs of an
            LSTM layer are those of `[W_x | W_h]`, its own outputs among them (the last one instead of the zeros it
            starts with). Backends count it on the test split; empty where it was not counted.
        value: the metric over the whole split, where the task's own code computes it in the backend.
        wrapped: sums that did not fit an accumulator, where the model was evaluated in fixed point.
        in_float: layers with trained parameters that were not, where it was: their framework computed them in float32.
        folded: layer -> the norm whose scale and shift were in its weights and bias, where it was.
    """

    nats: float
    items: int
    correct: int | None = None
    activation_density: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    value: float | None = None
    wrapped: int | None = None
    in_float: tuple[str, ...] = ()
    folded: dict[str, str] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _only_what_was_counted(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, JsonValue]:
        # Without densities the JSON is that of evaluations before there were any: stored stages keep their checksums.
        values: dict[str, JsonValue] = handler(self)
        if not self.activation_density:
            values.pop("activation_density", None)
        if self.value is None:
            values.pop("value", None)
        if self.wrapped is None:
            values.pop("wrapped", None)
        if not self.in_float:
            values.pop("in_float", None)
        if not self.folded:
            values.pop("folded", None)
        # Else a finished training whose loss overflowed could not be written down, nor read back as what it was.
        if info.mode == "json":  # which has no infinity: as text it comes back as what it was
            for name in ("nats", "value"):
                number = values.get(name)
                if isinstance(number, float) and not math.isfinite(number):
                    values[name] = str(number)
        return values


class Metric(Frozen):
    """What a task's result is called and which way is better.

    Args:
        name: e.g. `perplexity`.
        unit: e.g. `` or `%`; printed in headers.
        better: `lower` or `higher`.
        digits: decimals in tables.
        needs_correct: whether backends have to count correct items.
    """

    name: str
    unit: str = ""
    better: Literal["lower", "higher"]
    digits: int = Field(default=2, ge=0, le=15)
    needs_correct: bool = False


class Problem(ABC):
    """A task with its data loaded: everything a backend needs, as plain data.

    The loss is always cross-entropy in nats over softmax logits, summed over the target positions of a batch and
    divided by the batch size (the first axis): for images the mean, for text the sum over time and mean over streams.
    """

    network: Network
    recipe: Recipe
    metric: Metric

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of everything that decides data, batches and initial weights (not of the recipe's length)."""

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, JsonValue]:
        """What every record should say of the data: corpus, tokens used, vocabulary, best possible value, ..."""

    @abstractmethod
    def initial_weights(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """The weights of every tensor of the network, by tensor name, in harness orientation."""

    @abstractmethod
    def batches(self, split: Split, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """The batches of one epoch (train) or of one evaluation (valid, test), the same for every cell of a seed.

        Recurrent state is zero before the first batch and carried from each to the next. For `train` exactly
        `recipe.steps_per_epoch` batches of one shape.
        """

    @abstractmethod
    def value(self, evaluation: Evaluation) -> float:
        """The metric."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Every trainable tensor."""
        return self.network.tensors()


class Task(Component):
    """A data set with a model and its dense recipe."""

    kind: ClassVar[Literal["task"]] = "task"
    fixed_point_modules: ClassVar[tuple[str, ...]] = ()
    """Modules of a built-in task's package that only evaluate finished models in fixed point: their code enters the
    keys of such evaluations, and of no training."""

    @abstractmethod
    def load(self, data_dir: Path | None) -> Problem:
        """Read the data.

        Args:
            data_dir: the folder that holds the data sets, or None for embedded data only.

        Raises:
            DataError: a file is missing or is not what it should be; one sentence that says where it looked.
        """

    def smoke(self) -> "Task":
        """The same task, cut so short that a whole grid takes seconds: a test of the path, not of the numbers."""
        return self
