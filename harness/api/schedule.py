"""Schedules: how a sparsity rises with the progress of pruning, as a pure function."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, WithJsonSchema

from harness.api.component import Component, Frozen, nested
from harness.api.score import entry_of


class Schedule(Component):
    """Sparsity as a function of progress: a plugin that strategies name. It never sees steps, weights or a model.

    Example:
        >>> class Straight(Schedule):
        ...     name = "straight"
        ...     def sparsity(self, progress, initial, final):
        ...         return initial + (final - initial) * progress
        >>> Straight().sparsity(0.5, 0.0, 0.9)
        0.45
    """

    kind: ClassVar[Literal["schedule"]] = "schedule"

    @abstractmethod
    def sparsity(self, progress: float, initial: float, final: float) -> float:
        """The sparsity at some point of the span.

        Args:
            progress: part of the span that is over, in [0, 1).
            initial: sparsity that the span begins with.
            final: sparsity that it ends with, reached at progress 1 whatever this answers before.

        Returns:
            A sparsity between the two that never falls as progress grows.
        """


class CubicSchedule(Schedule):
    """s(p) = final + (initial - final) (1 - p)^3: fast while there is much to prune, slow towards the end.

    Source:
        Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017,
        equation 1.
    """

    name: ClassVar[str] = "cubic"

    def sparsity(self, progress: float, initial: float, final: float) -> float:
        """The third power of what is left of the span."""
        return final + (initial - final) * (1 - progress) ** 3


def _made(value: object, info: ValidationInfo) -> object:
    if value == CubicSchedule.name:
        return CubicSchedule()
    found = nested("schedule", value, info)
    if not isinstance(found, Schedule):
        raise ValueError(f"expected the name of a schedule, or a mapping with `name` and parameters, got {value!r}")
    return found


AnySchedule = Annotated[
    Schedule,
    BeforeValidator(_made),
    PlainSerializer(entry_of),
    WithJsonSchema({"component": "schedule"}),
]
"""The field of a strategy that holds a schedule."""


class SparsitySchedule(Frozen):
    """Sparsity over the steps of one `Train` phase; subclass it where a `Schedule` over a span is not enough."""

    @abstractmethod
    def updates(self, steps_per_epoch: int) -> Sequence[tuple[int, float]]:
        """(step, sparsity), steps counted from the phase's start and strictly increasing.

        An update at step n happens before the n-th step (0-based) is taken; the last one is the schedule's end.
        """


class Ramp(SparsitySchedule):
    """A schedule laid over a span of a phase: an update every `every` steps and one at the end.

    Begin and end are epochs of the phase; `every` is in steps. Updates that change nothing are left out.
    """

    schedule: AnySchedule = Field(default_factory=CubicSchedule)
    initial: float = Field(default=0.0, ge=0, lt=1)
    final: float = Field(ge=0, lt=1)
    begin: int = Field(ge=0, description="epoch at which pruning begins")
    end: int = Field(gt=0, description="epoch at which the final sparsity is reached")
    every: int = Field(gt=0, description="steps between two updates")

    def updates(self, steps_per_epoch: int) -> Sequence[tuple[int, float]]:
        """The updates from begin to end; the one at the end is always listed."""
        first, last = self.begin * steps_per_epoch, self.end * steps_per_epoch
        found: list[tuple[int, float]] = []
        for step in range(first, last, self.every):
            sparsity = self.schedule.sparsity((step - first) / (last - first), self.initial, self.final)
            if not found or sparsity != found[-1][1]:
                found.append((step, sparsity))
        return [*found, (last, self.final)]


class Cubic(Ramp):
    """A `Ramp` of the cubic schedule."""
