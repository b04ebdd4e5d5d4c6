"""RigL: a sparse network whose smallest weights give way to those with the largest gradients."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from harness.api import Matrix, Need, Score, ScoreInput, Strategy, hookimpl

from ._regrowth import Regrown, SparseTraining


class GrownByGradient(Regrown):
    """Pruned weights by |g|."""

    name: ClassVar[str] = "grown_by_gradient"
    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    batches: int = Field(default=1, gt=0, description="training batches that the gradient is averaged over")

    def candidates(self, given: ScoreInput) -> Matrix:
        """The absolute gradient."""
        gradient: Matrix = given.needed["gradients"]
        return np.abs(gradient)


class RigL(SparseTraining):
    """Train a network of a fixed density from a random mask; smallest weights give way to the largest gradients.

    The gradient is that of one batch by default, also of weights that are pruned. Layer densities are an allocation:
    `uniform` or `erk`.

    Source:
        Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020: every 100 steps, 30 %, falling along
        a cosine, to step 25,000 of 32,000; here scaled to the recipe.
    """

    name: ClassVar[str] = "rigl"
    anneal: Literal["constant", "cosine"] = Field(
        default="cosine", description="whether the dropped fraction stays, or falls to 0 along a cosine"
    )
    batches: int = Field(default=1, gt=0, description="training batches that the gradient is averaged over")

    def grown(self) -> Score:
        """Growth by gradients."""
        return GrownByGradient(batches=self.batches)


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return RigL
