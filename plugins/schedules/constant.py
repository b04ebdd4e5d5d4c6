"""The constant schedule: the final sparsity from the first update on."""

from typing import ClassVar

from harness.api import Schedule, hookimpl


class ConstantSchedule(Schedule):
    """s(p) = final: the whole pruning at the beginning of the span."""

    name: ClassVar[str] = "constant"

    def sparsity(self, progress: float, initial: float, final: float) -> float:
        """The final sparsity."""
        return final


@hookimpl
def register_schedule() -> type[Schedule]:
    """Offer this schedule to the harness."""
    return ConstantSchedule
