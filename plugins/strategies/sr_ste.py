"""SR-STE: train with masks that are drawn anew from dense weights which live on beneath them."""

from typing import ClassVar

from pydantic import Field

from harness.api import Magnitude, MaskUpdate, Phase, Recipe, StraightThrough, Strategy, Train, hookimpl

from . import _shared


class DenseMagnitude(Magnitude):
    """|w| of all weights, those under the mask too."""

    name: ClassVar[str] = "dense_magnitude"
    revives: ClassVar[bool] = True


class SrSte(Strategy):
    """Train once with masks by magnitude, the gradient g + decay (1 - mask) w moving all weights: masks may change.

    The loss sees the masked weights only; what is pruned decays and may come back. The authors make masks anew in every
    step, for N:M sparsity; so does this for up to 100 steps per epoch, and 100 times per epoch beyond.

    Source:
        Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch", ICLR 2021;
        aojunzz/NM-sparsity @ a557d6b, with decay 2e-4.
    """

    name: ClassVar[str] = "sr_ste"
    needs_dense_model: ClassVar[bool] = False
    decay: float = Field(default=2e-4, ge=0, allow_inf_nan=False, description="lambda, of weights under the mask")
    every: int | None = Field(
        default=None, gt=0, description="steps between two masks; None: 1, or a hundredth of a longer epoch"
    )

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """One straight-through training, sparse from its first step.

        Raises:
            SpecError: the recipe trains nothing.
        """
        _shared.require_training(self.name, recipe, "it is a training of its own")
        # A mask for every step would make the plan of a long epoch thousands of updates, each with a place in the
        # stage's key.
        every = self.every or max(1, recipe.steps_per_epoch // 100)
        # From step 0 on: there is no dense training before, the first mask is of the initial weights.
        score, steps = DenseMagnitude(), range(0, recipe.epochs * recipe.steps_per_epoch, every)
        updates = tuple(MaskUpdate(step=step, sparsity=sparsity, score=score) for step in steps)
        through = StraightThrough(decay=self.decay)
        return (Train(epochs=recipe.epochs, lr=recipe.learning_rate, updates=updates, through=through),)


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return SrSte
