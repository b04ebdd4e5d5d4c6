"""SNIP: prune before training by the sensitivity of the loss to every connection."""

from typing import ClassVar

from pydantic import Field

from harness.api import Gradient, Phase, Prune, Recipe, Strategy, hookimpl

from . import _shared


class Snip(Strategy):
    """Prune before the first step, keeping the highest |g w| of a few batches, and train with the masks fixed.

    The authors compare all layers together: SNIP as published is this with allocation `global` and an unstructured
    pattern. On recurrent networks such scores have been found to do worse than random ones (arXiv 1912.00120).

    Source:
        Lee, Ajanthan and Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019: one
        batch at initialisation.
    """

    name: ClassVar[str] = "snip"
    needs_dense_model: ClassVar[bool] = False
    batches: int = Field(default=1, gt=0, description="training batches that the gradient is averaged over")

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """One pruning and one training."""
        return Prune(sparsity=sparsity, score=Gradient(batches=self.batches)), _shared.dense_training(recipe)


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return Snip
