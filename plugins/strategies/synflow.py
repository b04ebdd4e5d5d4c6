"""SynFlow: prune before training, without data, in many small steps."""

from typing import ClassVar

from pydantic import Field

from harness.api import MaskUpdate, Phase, Recipe, Strategy, Train, hookimpl

from ..scores.synflow import SynFlowScore
from . import _shared


class SynFlow(Strategy):
    """Prune before the first step in `iterations` steps of equal factors, by synaptic flow, and train.

    After iteration i of n the density is d^(i/n). The small steps are what keeps layers from being cut off: as
    published the allocation is `global`.

    Source:
        Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow", NeurIPS
        2020; 100 iterations there (recalled).
    """

    name: ClassVar[str] = "synflow"
    needs_dense_model: ClassVar[bool] = False
    iterations: int = Field(default=100, gt=0, description="prunings before the first step, n")

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """One training, all mask updates before its first step.

        Raises:
            SpecError: the recipe trains nothing.
        """
        _shared.require_training(self.name, recipe, "it prunes before the first step of a training")
        density, done = 1 - sparsity, range(1, self.iterations)
        # The target itself at the end, not a power of a root of it: rounding would ask for another sparsity.
        reached = [*(round(1 - density ** (each / self.iterations), 12) for each in done), sparsity]
        updates = tuple(MaskUpdate(step=0, sparsity=each, score=SynFlowScore()) for each in reached)
        return (Train(epochs=recipe.epochs, lr=recipe.learning_rate, updates=updates),)


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return SynFlow
