"""Random masks before any training: the control of everything that prunes early."""

from typing import ClassVar

from harness.api import Phase, Prune, Random, Recipe, Strategy, hookimpl

from . import _shared


class RandomAtInit(Strategy):
    """Prune at random before the first step, exactly to the target, and train by the dense recipe with the masks fixed.

    Source:
        Frankle et al., "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?", ICLR 2021: the
        baseline of pruning at initialisation.
    """

    name: ClassVar[str] = "random_at_init"
    needs_dense_model: ClassVar[bool] = False

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """One pruning and one training."""
        return Prune(sparsity=sparsity, score=Random()), _shared.dense_training(recipe)


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return RandomAtInit
