"""Pruning in two steps: half of the sparsity, a little retraining, then the rest."""

from typing import ClassVar

from pydantic import Field

from harness.api import Constant, Phase, Prune, Recipe, Strategy, Train, hookimpl


class TwoStep(Strategy):
    """Train, prune to half of the sparsity, retrain, prune to all of it, retrain; at the last learning rate."""

    name: ClassVar[str] = "two_step"
    epochs: int = Field(default=2, gt=0, description="retraining epochs after each pruning")

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """Dense training, then twice pruning and retraining."""
        dense = Train(epochs=recipe.epochs, lr=recipe.learning_rate)
        retrain = Train(epochs=self.epochs, lr=Constant(rate=recipe.last_rate))
        return dense, Prune(sparsity=sparsity / 2), retrain, Prune(sparsity=sparsity), retrain


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return TwoStep
