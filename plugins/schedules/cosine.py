"""The cosine schedule: slow at both ends."""

import math
from typing import ClassVar

from harness.api import Schedule, hookimpl


class CosineSchedule(Schedule):
    """s(p) = final + (initial - final) (1 + cos(pi p)) / 2."""

    name: ClassVar[str] = "cosine"

    def sparsity(self, progress: float, initial: float, final: float) -> float:
        """Half a wave."""
        return final + (initial - final) * (1 + math.cos(math.pi * progress)) / 2


@hookimpl
def register_schedule() -> type[Schedule]:
    """Offer this schedule to the harness."""
    return CosineSchedule
