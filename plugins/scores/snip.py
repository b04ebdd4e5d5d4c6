"""SNIP: the sensitivity of the loss to every connection."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from harness.api import Matrix, Need, Score, ScoreInput, hookimpl


class SnipSensitivity(Score):
    """|g w| of one batch: SNIP's sensitivity, up to the division by its sum, which ranks nothing anew.

    Source:
        Lee, Ajanthan and Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019.
    """

    name: ClassVar[str] = "snip"
    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    batches: int = Field(default=1, gt=0, description="training batches that the gradient is averaged over")

    def scores(self, given: ScoreInput) -> Matrix:
        """The absolute product of weight and gradient."""
        return np.abs(given.weights.astype(np.float64) * given.needed["gradients"])


@hookimpl
def register_score() -> type[Score]:
    """Offer this score to the harness."""
    return SnipSensitivity
