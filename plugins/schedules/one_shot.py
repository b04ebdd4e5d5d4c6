"""The one-shot schedule: everything at one moment of the span."""

from typing import ClassVar

from pydantic import Field

from harness.api import Schedule, hookimpl


class OneShotSchedule(Schedule):
    """`initial` before the part `at` of the span, `final` from then on."""

    name: ClassVar[str] = "one_shot"
    at: float = Field(default=0.5, ge=0, le=1, description="part of the span at which everything is pruned")

    def sparsity(self, progress: float, initial: float, final: float) -> float:
        """A step."""
        return initial if progress < self.at else final


@hookimpl
def register_schedule() -> type[Schedule]:
    """Offer this schedule to the harness."""
    return OneShotSchedule
