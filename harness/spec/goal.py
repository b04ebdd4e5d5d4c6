"""What the sparsity of a cell is to reach in hardware, and what came of it."""

from dataclasses import dataclass, field

from harness._text import figure
from harness.api import Cost, HardwareModel

AT_LEAST = ("steps_per_s",)
"""Targets that are reached from below: more of it is better."""


@dataclass(frozen=True)
class Goal:
    """What the sparsity of a cell is to reach in hardware: solved where the task's shapes are known.

    Args:
        what: a field of costs, or `storage_kib`.
        limit: that it may need at most, or has to make at least; 1 of `fits`.
        on: label of the hardware entry that says so; of a storage the width of its weights.
        models: the variants of that entry, one per engine; none for a storage.
        weight_bits: of a storage.
    """

    what: str
    limit: float
    on: str
    models: tuple[HardwareModel, ...] = field(default=(), compare=False, repr=False)
    weight_bits: int = 0

    def label(self) -> str:
        """What tables call it."""
        return f"{self.asked} on {self.on}"

    @property
    def asked(self) -> str:
        """The quantity with its limit, on whatever hardware."""
        # Twelve digits: limits that differ are never one label.
        return self.what if self.what == "fits" else f"{self.what} {self.limit:.12g}"

    @property
    def words(self) -> tuple[str, ...]:
        """What `exclude` and `--only` may call it: the whole, without its hardware, or the quantity alone."""
        return (self.label(), self.asked, self.what)

    def value_of(self, cost: Cost) -> float | None:
        """What a cost says of the quantity; None where it says nothing."""
        found = getattr(cost, self.what)
        return None if found is None else float(found)

    def distance(self, value: float) -> float:
        """How far a value is from the limit: above 0 where it misses it; lower is better."""
        return self.limit - value if self.what in (*AT_LEAST, "fits") else value - self.limit

    def is_met(self, value: float) -> bool:
        """Whether a value reaches the limit."""
        return self.distance(value) <= 0


@dataclass(frozen=True)
class Solved:
    """What came of a goal for one pattern.

    Args:
        goal: its label.
        sparsity: the lowest that reaches it, or the one that comes nearest.
        value: what is needed there, on masks of random weights; dense: what the dense model needs.
        engine: which engine of the entry needs it.
        fits: whether that engine fits its device.
        reason: why no sparsity reaches it; empty where one does.
    """

    goal: str
    sparsity: float = 0.0
    value: float | None = None
    dense: float | None = None
    engine: str = ""
    fits: bool = True
    reason: str = ""


def quantity(goal: str, value: float) -> str:
    """A value of a goal's quantity, for people.

    Args:
        goal: the goal's label.
        value: of it.
    """
    if goal.startswith("fits "):
        return "fits" if value else "does not fit"
    return figure(value)
