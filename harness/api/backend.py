"""Backends: how to build, train and evaluate a model in one framework."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from harness.api.component import Component, Frozen
from harness.api.operations import NumPyOperations, Operations
from harness.api.program import Epoch, MaskUpdate
from harness.api.score import Measurement, Need
from harness.api.task import Evaluation, Problem, Split
from harness.arrays import Array, Mask
from harness.errors import PluginContractError

Device = str
"""`cpu`, `cuda:0`, ...: a real device; `auto` is resolved before a session is opened."""


class Settings(Frozen):
    """How a session computes.

    Args:
        seed: the cell's seed; everything random inside a stage is derived from it and the epoch.
        device: a real device, never `auto`.
        precision: `float32`, or `bfloat16` for matrix products (weights, loss, optimiser stay float32).
        threads: CPU threads the framework may use.
        arithmetic: what the backend's `arithmetic` said where the experiment was planned; a session computes in this
            way or is not opened. Empty where nothing was planned: the machine's own way.
    """

    seed: int = 0
    device: Device = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int = 1
    arithmetic: str = ""


@dataclass
class State:
    """Everything that has to survive from one stage to the next, in harness orientation.

    Args:
        weights: every tensor of the network, by name, float32.
        masks: masks by tensor name; a tensor without one is dense. True = kept.
        slots: optimiser slots, `slot/tensor` (e.g. `momentum/lstm_0.kernel`), float32; scalars as 0-d arrays.
        extra: what else a framework has to keep (e.g. `pruning_step/lstm_0`), 0-d or n-d arrays.
    """

    weights: dict[str, NDArray[np.float32]]
    masks: dict[str, Mask] = field(default_factory=dict)
    slots: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    extra: dict[str, Array] = field(default_factory=dict)


class EpochResult(Frozen):
    """What one training epoch tells.

    Args:
        nats: cross-entropy summed over the epoch's items, in nats.
        items: items trained on.
    """

    nats: float
    items: int


class Session(ABC):
    """A built model in a worker process; one stage at a time. Arrays handed out are copies, in harness orientation.

    Rules every session obeys: masked weights and their optimiser slots are zero after every step; the gradients of
    masked weights are zeroed before the clip norm; the clip norm is over all trainable tensors, repeated embedding
    rows summed first; state of recurrent layers is zero at the start of every epoch and evaluation.
    """

    @abstractmethod
    def load(self, state: State) -> None:
        """Take over weights, masks, optimiser slots and extras."""

    @abstractmethod
    def state(self) -> State:
        """A copy of everything that `load` takes."""

    @abstractmethod
    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The weights of every tensor."""

    @abstractmethod
    def masks(self) -> dict[str, Mask]:
        """The masks set so far, by tensor name."""

    @abstractmethod
    def set_masks(self, masks: Mapping[str, Mask]) -> None:
        """Replace the masks of these tensors, and zero the masked weights and their optimiser slots."""

    def set_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Replace the weights of these tensors; masks and optimiser slots stay."""
        # Through the whole state by default: a backend that can write weights in place overrides it.
        state = self.state()
        state.weights.update(weights)
        self.load(state)

    @abstractmethod
    def gradients(self, batches: int, epoch: int) -> dict[str, NDArray[np.float32]]:
        """The mean gradient of the loss over the first `batches` training batches, for every 2-D tensor.

        Without dropout, without clipping, unmasked (a masked weight has a gradient too), recurrent state zero before
        the first batch and carried; the model is left as it was, a training epoch under way too.
        """

    def measured(self, asked: Measurement, epoch: int) -> Mapping[str, NDArray[np.floating]]:
        """What a score needs of the model as it stands, by tensor name; the model is left as it was.

        Data is that of `gradients`: the first training batches of an epoch, without dropout. A tensor of which there
        is no such thing is left out.

        Args:
            asked: what, and over how many batches.
            epoch: epochs trained before.

        Raises:
            PluginContractError: the backend does not supply it; its `supplies` says so before anything runs.
        """
        # An old backend measures gradients alone, which it has a method of its own for.
        if asked.what != "gradients" or asked.temperature != 1:
            raise PluginContractError(
                f"{type(self).__name__} does not measure {asked.what}; its backend must leave it out of `supplies`"
            )
        return self.gradients(asked.batches, epoch)

    @abstractmethod
    def train_epoch(self, epoch: Epoch, index: int, masker: "Masker", progress: Callable[[int], None]) -> EpochResult:
        """Run one epoch.

        Args:
            epoch: learning rates and mask updates; an update at step n happens before step n, one at the number of
                steps after the last step. At each, call `masker(update, index, self)` and set the masks it returns.
            index: epochs trained before this one in the chain; seeds batches and dropout.
            masker: turns an update into masks of the whole scope.
            progress: call now and then with the number of steps done.

        Raises:
            DivergedError: the loss is NaN or infinite.
        """

    @abstractmethod
    def evaluate(self, split: Split) -> Evaluation:
        """Totals over a whole split, without dropout; the recurrent state of training is not touched."""

    def operations(self) -> Operations:
        """Array operations where the model lives, for its evaluation in a hardware entry's number format.

        NumPy's where a backend has none of its own: the result is the same bit for bit, and slower on large models.
        """
        return NumPyOperations()

    def close(self) -> None:  # noqa: B027  # most sessions hold nothing that has to be freed by hand
        """Free what the session holds."""


Masker = Callable[[MaskUpdate, int, Session], dict[str, Mask]]
"""(update, epoch index, session) -> new masks of every tensor in the scope. Given to a session by the worker."""


def batch_rng(seed: int, epoch: int) -> np.random.Generator:
    """The generator handed to `Problem.batches` for an epoch: the same for every cell of a seed."""
    # 0xBA7C4 ("BATCH") keeps this stream apart from the others of the same seed and epoch.
    return np.random.default_rng([seed, epoch, 0xBA7C4])


class Backend(Component):
    """A framework that can build and train a task's network."""

    kind: ClassVar[Literal["backend"]] = "backend"
    frameworks: ClassVar[tuple[str, ...]] = ()
    """Frameworks of users' own models (`NativeModel.framework`) that this backend trains."""

    supplies: ClassVar[tuple[Need, ...]] = ("gradients",)
    """What its sessions measure for scores that need it; a cell whose score needs more is skipped with that reason."""
    supplies_of_own: ClassVar[tuple[Need, ...]] = ("gradients",)
    """The same for models of a user's own (`NativeModel`)."""
    trains_through: ClassVar[bool] = False
    """Whether its sessions train networks with masked weights alive (`Epoch.through`)."""

    @abstractmethod
    def why_unavailable(self) -> str | None:
        """Why the framework cannot be used on this machine, with the remedy; None if it can. Imports nothing heavy."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of the framework and its numeric libraries, from package metadata; they enter every key."""

    def why_not(self, problem: Problem, settings: Settings) -> str | None:
        """Why this problem or setting cannot run here (a declared skip), or None."""
        return None

    def arithmetic(self, settings: Settings) -> str:
        """How this machine computes these settings, where machines of a device kind differ by more than rounding order.

        Such as a precision that some processors have instructions for and others have to imitate. It enters every key
        and stands in the records: results of both kinds are never mixed up in one store. Where `settings.arithmetic`
        is set, that is the answer if this machine can compute it. Empty for settings that all machines compute alike:
        the rule. Imports nothing heavy.
        """
        return ""

    def devices(self) -> tuple[Device, ...]:
        """The devices this framework can use here, best first; may import the framework. Called in a worker only."""
        return ("cpu",)

    @abstractmethod
    def open(self, problem: Problem, settings: Settings) -> Session:
        """Build the network. Called in a worker process of its own, which imports no other framework."""
