"""The exponential schedule: equal fractions of what is left."""

from typing import ClassVar

from harness.api import Schedule, hookimpl


class ExponentialSchedule(Schedule):
    """1 - s(p) = (1 - initial) ((1 - final) / (1 - initial))^p: every update prunes an equal fraction of what is left.

    Iterative pruning by a rate and SynFlow's iterations follow it.
    """

    name: ClassVar[str] = "exponential"

    def sparsity(self, progress: float, initial: float, final: float) -> float:
        """The density falls by equal factors."""
        left = (1 - final) / (1 - initial)
        return float(1 - (1 - initial) * left**progress)


@hookimpl
def register_schedule() -> type[Schedule]:
    """Offer this schedule to the harness."""
    return ExponentialSchedule
