"""GraSP: prune before training so that the gradient flow is kept."""

from typing import ClassVar

from pydantic import Field

from harness.api import Phase, Prune, Recipe, Strategy, hookimpl

from ..scores.grasp import GraspScore
from . import _shared


class GraSP(Strategy):
    """Prune before the first step, dropping the weights with the highest -w (H g), and train with the masks fixed.

    The authors compare all layers together: as published it is this with allocation `global` and an unstructured
    pattern. They take 25 samples per class.

    Source:
        Wang, Zhang and Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020.
    """

    name: ClassVar[str] = "grasp"
    needs_dense_model: ClassVar[bool] = False
    batches: int = Field(default=1, gt=0, description="training batches that gradient and Hessian are taken over")
    temperature: float = Field(default=200.0, gt=0, allow_inf_nan=False, description="what logits are divided by")

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """One pruning and one training."""
        score = GraspScore(batches=self.batches, temperature=self.temperature)
        return Prune(sparsity=sparsity, score=score), _shared.dense_training(recipe)


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return GraSP
