"""Wanda: prune the trained model once by weight times input norm, and leave it as it is."""

from typing import ClassVar

from pydantic import Field

from harness.api import Phase, Prune, Recipe, Strategy, hookimpl

from ..scores.wanda import WandaScore
from . import _shared


class Wanda(Strategy):
    """Train the dense model, prune it once by |w| ||x||, without retraining and without touching a weight.

    The authors compare within rows: Wanda as published is this with pattern `row_balanced`, or `n_m`. The score serves
    any strategy: `{name: fine_tuning, score: wanda}`.

    Source:
        Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024; 128 calibration
        sequences there, training batches of the task here.
    """

    name: ClassVar[str] = "wanda"
    batches: int = Field(default=4, gt=0, description="training batches that input norms are taken over")

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """Dense training and one pruning."""
        return _shared.dense_training(recipe), Prune(sparsity=sparsity, score=WandaScore(batches=self.batches))


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return Wanda
