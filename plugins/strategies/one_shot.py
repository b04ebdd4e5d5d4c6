"""One-shot pruning without retraining: the floor of every comparison."""

from typing import ClassVar

from pydantic import Field

from harness.api import AnyScore, Magnitude, Phase, Prune, Recipe, Strategy, hookimpl

from . import _shared


class OneShot(Strategy):
    """Train the dense model, prune it once and leave it as it is.

    What retraining gains is the distance to this row; with the score `random` it is the baseline that is there to be
    beaten.

    Source:
        Blalock et al., "What is the State of Neural Network Pruning?", MLSys 2020: accuracy before any retraining is
        logged beside the final one.
    """

    name: ClassVar[str] = "one_shot"
    score: AnyScore = Field(default_factory=Magnitude, description="how weights are ranked")

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """Dense training and one pruning."""
        return _shared.dense_training(recipe), Prune(sparsity=sparsity, score=self.score)


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return OneShot
