"""Taylor: the squared first-order effect of removing a weight."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from harness.api import Matrix, Need, Score, ScoreInput, hookimpl


class Taylor(Score):
    """(w g)^2, g the mean gradient of the loss: what removing a weight changes, to first order, squared.

    Ranks single weights as `gradient` does; units of several weights by the mean of squares, the authors' sum over a
    filter up to a constant. Their running mean over minibatches is here the mean over `batches`.

    Source:
        Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019;
        NVlabs/Taylor_pruning @ 4b70120.
    """

    name: ClassVar[str] = "taylor"
    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    batches: int = Field(default=30, gt=0, description="training batches that the gradient is averaged over")

    def scores(self, given: ScoreInput) -> Matrix:
        """The square of weight times gradient."""
        product = given.weights.astype(np.float64) * given.needed["gradients"]
        return np.square(product)


@hookimpl
def register_score() -> type[Score]:
    """Offer this score to the harness."""
    return Taylor
