"""Narang's gradual pruning by a threshold that ramps up, told as a sparsity."""

from typing import ClassVar

from pydantic import Field

from harness.api import Phase, Ramp, Recipe, Strategy, Train, hookimpl

from ..schedules.threshold_ramp import ThresholdRamp
from .gradual import Gradual


class Narang(Strategy):
    """Train once; from epoch `begin_epoch` a threshold rises by theta, from `ramp_epochs` later on by `steeper` theta.

    theta = 2 q f / (2 (ramp - start) + 3 (end - ramp)), for updates every f steps and a final threshold q. The authors
    take q from a trained model and get what sparsity it gives; here the threshold is told as the sparsity that it gives
    on normal weights, and ends at the target (schedule `threshold_ramp`). Begin and end are those of `gradual`.

    Source:
        Narang et al., "Exploring Sparsity in Recurrent Neural Networks", ICLR 2017; three epochs from start to ramp as
        in Distiller's language model (IntelLabs/distiller @ d859fc8).
    """

    name: ClassVar[str] = "narang"
    needs_dense_model: ClassVar[bool] = False
    begin_epoch: int | None = Field(default=None, ge=0, description="epochs before pruning begins, as `gradual`")
    end_epoch: int | None = Field(default=None, gt=0, description="epochs trained at the target, as `gradual`")
    ramp_epochs: int | None = Field(
        default=None,
        ge=0,
        description="epochs of the slow rise; None: 3, or a third of a span below nine epochs",
    )
    steeper: float = Field(default=1.5, ge=1, le=10, description="slope of the ramp to that before it")
    every: int | None = Field(default=None, gt=0, description="steps between two updates, as `gradual`")

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """One training with the whole ramp in it.

        Raises:
            SpecError: begin, end and recipe are not in order.
        """
        # The timing of `gradual`, so that the two differ in the shape of the ramp alone.
        timing = Gradual(begin_epoch=self.begin_epoch, end_epoch=self.end_epoch, every=self.every)
        begin, end = timing.span(recipe)
        length = end - begin
        slow = min(3.0, length / 3) if self.ramp_epochs is None else min(self.ramp_epochs, length)
        # The schedule takes a ramp below 1 alone: a slow rise over the whole span comes next to that.
        schedule = ThresholdRamp(ramp=min(slow / length, 1 - 1e-9), steeper=self.steeper)
        ramp = Ramp(schedule=schedule, final=sparsity, begin=begin, end=end, every=timing.steps_between(recipe))
        return (Train(epochs=recipe.epochs, lr=recipe.learning_rate, sparsity=ramp),)


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return Narang
