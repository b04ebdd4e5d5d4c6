"""The linear schedule."""

from typing import ClassVar

from harness.api import Schedule, hookimpl


class LinearSchedule(Schedule):
    """s(p) = initial + (final - initial) p: equally many weights at every update."""

    name: ClassVar[str] = "linear"

    def sparsity(self, progress: float, initial: float, final: float) -> float:
        """A straight line."""
        return initial + (final - initial) * progress


@hookimpl
def register_schedule() -> type[Schedule]:
    """Offer this schedule to the harness."""
    return LinearSchedule
