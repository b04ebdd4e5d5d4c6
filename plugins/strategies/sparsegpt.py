"""SparseGPT: prune the trained model once and let the kept weights make up for it, layer by layer."""

from typing import ClassVar

from pydantic import Field

from harness.api import Phase, Prune, Recipe, Strategy, hookimpl

from ..scores.sparsegpt import SparseGPTScore
from . import _shared


class SparseGPT(Strategy):
    """Train the dense model, prune it once by its inputs' second moments, and update the kept weights; no retraining.

    The second moments are those of the dense model in all layers; the authors take them layer by layer, each behind the
    pruned ones before it.

    Source:
        Frantar and Alistarh, "SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot", ICML 2023.
    """

    name: ClassVar[str] = "sparsegpt"
    batches: int = Field(default=4, gt=0, description="training batches that second moments are summed over")
    damping: float = Field(default=0.01, gt=0, allow_inf_nan=False, description="of the mean of the Hessian's diagonal")

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """Dense training and one pruning."""
        score = SparseGPTScore(batches=self.batches, damping=self.damping)
        return _shared.dense_training(recipe), Prune(sparsity=sparsity, score=score)


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return SparseGPT
