"""Movement pruning: while it is fine-tuned, a model loses the weights that training moves towards zero."""

from typing import ClassVar

from pydantic import Field

from harness.api import CubicSchedule, MaskUpdate, Phase, Recipe, SpecError, StraightThrough, Strategy, Train, hookimpl

from ..scores.movement import MovementScore
from . import _shared


class Movement(Strategy):
    """Train the dense model, then train it on straight-through, keeping the weights with the highest -sum g w.

    The sparsity is 0 during a warm-up, rises along a cubic schedule, and stays during a cool-down in which masks still
    follow the scores. Scores start from zero and follow plain gradient descent, whose rate ranks nothing anew. The
    learning rates are those of the end of the dense recipe; the lengths of warm-up and cool-down are this project's.

    Source:
        Sanh, Wolf and Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", NeurIPS 2020.
    """

    name: ClassVar[str] = "movement"
    epochs: int = Field(default=5, gt=0, description="epochs of straight-through training")
    warm_up: float = Field(default=0.1, ge=0, lt=1, description="part of them before pruning begins")
    cool_down: float = Field(default=0.3, ge=0, lt=1, description="part of them at the target")
    every: int | None = Field(
        default=None, gt=0, description="steps between two masks; None: 100, or a fortieth of a shorter span"
    )

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """The dense training, then the pruning one.

        Raises:
            SpecError: the recipe is shorter than `epochs`, or warm-up and cool-down leave nothing between them.
        """
        if self.epochs > recipe.epochs:
            raise SpecError(
                f"{self.name}: `epochs` must be at most {recipe.epochs}, the epochs of the recipe whose end is "
                f"repeated, got {self.epochs}; set `epochs` to at most {recipe.epochs}"
            )
        if self.warm_up + self.cool_down >= 1:
            raise SpecError(
                f"{self.name}: `warm_up` and `cool_down` must leave a part for the pruning, got {self.warm_up} and "
                f"{self.cool_down}; lower one of them"
            )
        total = self.epochs * recipe.steps_per_epoch
        # At least one step apart, or the cubic would be divided by nothing where the spans are short.
        begin, end = (
            round(self.warm_up * total),
            max(round(self.warm_up * total) + 1, round(total * (1 - self.cool_down))),
        )
        every = self.every or max(1, min(100, total // 40))
        cubic, score = CubicSchedule(), MovementScore()
        # Masks are made anew at the target too: under straight-through training the weights beneath them go on moving.
        steps = sorted({*range(begin, end, every), *range(end, total, every), min(end, total)})
        updates = tuple(
            MaskUpdate(
                step=step,
                sparsity=sparsity if step >= end else cubic.sparsity((step - begin) / (end - begin), 0.0, sparsity),
                score=score,
            )
            for step in steps
        )
        # The recipe's last epochs, so that the training ends at the rate at which the dense one ended.
        rates = recipe.learning_rate.from_epoch(recipe.epochs - self.epochs)
        training = Train(epochs=self.epochs, lr=rates, updates=updates, through=StraightThrough())
        return _shared.dense_training(recipe), training


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return Movement
