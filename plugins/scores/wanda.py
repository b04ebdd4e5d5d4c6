"""Wanda: the weight times the norm of its input."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from harness.api import Matrix, Need, Score, ScoreInput, hookimpl


class WandaScore(Score):
    """|w_ij| ||x_j||, x_j the j-th input over all positions of the calibration batches.

    The authors compare within a row, so Wanda as published is this score with pattern `row_balanced`.

    Source:
        Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024;
        locuslab/wanda @ 8e8fc87, with 128 sequences.
    """

    name: ClassVar[str] = "wanda"
    needs: ClassVar[tuple[Need, ...]] = ("input_norms",)
    batches: int = Field(default=4, gt=0, description="training batches that input norms are taken over")

    def scores(self, given: ScoreInput) -> Matrix:
        """The absolute weight times the norm of its column's input."""
        norms: Matrix = given.needed["input_norms"]
        return np.abs(given.weights) * norms[np.newaxis, :]


@hookimpl
def register_score() -> type[Score]:
    """Offer this score to the harness."""
    return WandaScore
