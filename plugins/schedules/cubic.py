"""The cubic schedule: one of the interface itself, offered by its name."""

from harness.api import CubicSchedule, Schedule, hookimpl


@hookimpl
def register_schedule() -> type[Schedule]:
    """Offer this schedule to the harness."""
    return CubicSchedule
