"""GraSP: what removing a weight does to the flow of gradients."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from harness.api import Matrix, Need, Score, ScoreInput, hookimpl


class GraspScore(Score):
    """w (H g), H the Hessian of the loss: weights whose removal lowers the gradient's norm most are kept.

    The authors drop the highest -w (H g), with logits divided by a temperature of 200.

    Source:
        Wang, Zhang and Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020;
        alecwangcq/GraSP @ f17d87a.
    """

    name: ClassVar[str] = "grasp"
    needs: ClassVar[tuple[Need, ...]] = ("hessian_gradients",)
    batches: int = Field(default=1, gt=0, description="training batches that gradient and Hessian are taken over")
    temperature: float = Field(default=200.0, gt=0, allow_inf_nan=False, description="what logits are divided by")

    def scores(self, given: ScoreInput) -> Matrix:
        """The weight times the Hessian's product with the gradient."""
        product: Matrix = given.weights.astype(np.float64) * given.needed["hessian_gradients"]
        return product


@hookimpl
def register_score() -> type[Score]:
    """Offer this score to the harness."""
    return GraspScore
