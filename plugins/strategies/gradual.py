"""Gradual pruning: the sparsity rises while the model trains for the first time."""

from typing import ClassVar

from pydantic import Field

from harness.api import (
    AnySchedule,
    AnyScore,
    CubicSchedule,
    Magnitude,
    Phase,
    Ramp,
    Recipe,
    SpecError,
    Strategy,
    Train,
    hookimpl,
)

_EVERY, _UPDATES = 100, 20
"""Steps between two updates where nothing is said, and how many updates a span should have at least."""


class Gradual(Strategy):
    """Train once, as long as the dense model, and prune along a schedule on the way, by default a cubic one.

    Pruning begins once some epochs are trained and ends early enough to recover: by default from epoch 3 (or a quarter
    of a recipe shorter than twelve epochs) to three quarters of the recipe. The masks of one update are kept until the
    next; a pruned weight does not come back. A hundred steps between two updates suit thousands of steps; where the
    whole span has few, the default makes twenty updates of it.

    Source:
        Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017,
        equation 1; a frequency of 100 steps is the default of the TensorFlow Model Optimization Toolkit.
    """

    name: ClassVar[str] = "gradual"
    needs_dense_model: ClassVar[bool] = False

    begin_epoch: int | None = Field(
        default=None, ge=0, description="epochs trained before pruning begins; None: 3, or a quarter of a short recipe"
    )
    end_epoch: int | None = Field(
        default=None, gt=0, description="epochs trained when the target is reached; None: three quarters of the recipe"
    )
    every: int | None = Field(
        default=None,
        gt=0,
        description="steps between two updates of the masks; None: 100, or a twentieth of a shorter span",
    )
    initial: float = Field(default=0.0, ge=0, lt=1, description="sparsity of the first update")
    schedule: AnySchedule = Field(default_factory=CubicSchedule, description="how the sparsity rises on the way")
    score: AnyScore = Field(default_factory=Magnitude, description="how weights are ranked")

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """One training with the whole schedule in it.

        Raises:
            SpecError: begin, end and recipe are not in order, or `initial` is above the target.
        """
        begin, end = self.span(recipe)
        # A schedule may only rise: weights that an update prunes do not come back under this score.
        if self.initial > sparsity:
            raise SpecError(
                f"gradual: `initial` must not exceed the target sparsity {sparsity}, got {self.initial}; "
                f"set `initial` to at most {sparsity}"
            )
        every = self.steps_between(recipe)
        ramp = Ramp(schedule=self.schedule, initial=self.initial, final=sparsity, begin=begin, end=end, every=every)
        return (Train(epochs=recipe.epochs, lr=recipe.learning_rate, sparsity=ramp, score=self.score),)

    def steps_between(self, recipe: Recipe) -> int:
        """Steps between two updates."""
        begin, end = self.span(recipe)
        # At least 20 updates in any span: with the usual 100 steps, an epoch of 49 steps would be pruned in one go.
        return self.every or min(_EVERY, max(1, (end - begin) * recipe.steps_per_epoch // _UPDATES))

    def span(self, recipe: Recipe) -> tuple[int, int]:
        """The epochs between which the sparsity rises.

        Raises:
            SpecError: they do not follow one another within the recipe.
        """
        begin = min(3, recipe.epochs // 4) if self.begin_epoch is None else self.begin_epoch
        # A quarter of the recipe is left to recover in at the target, as far as it has so many epochs.
        end = max(begin + 1, recipe.epochs * 3 // 4) if self.end_epoch is None else self.end_epoch
        if not begin < end <= recipe.epochs:
            raise SpecError(
                f"gradual: pruning must begin before it ends, and end within the recipe's {recipe.epochs} epochs, got "
                f"begin_epoch={begin} and end_epoch={end}; set them so that begin_epoch < end_epoch <= {recipe.epochs}"
            )
        return begin, end


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return Gradual
