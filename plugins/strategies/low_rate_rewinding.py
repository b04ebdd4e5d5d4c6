"""Weight rewinding at a low rate: earlier weights, retrained at the last learning rate."""

from typing import ClassVar

from harness.api import Constant, Phase, Recipe, Rewind, Strategy, Train, hookimpl

from ._shared import Retraining


class LowRateRewinding(Retraining):
    """Train for T epochs, prune, put weights and optimiser back to epoch T-t, and train t epochs at the last rate.

    An ablation: beside weight rewinding it tells what the weights do and what the learning rates.

    Source:
        Renda, Frankle and Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning", ICLR 2020.
    """

    name: ClassVar[str] = "low_rate_rewinding"

    def retraining(self, recipe: Recipe) -> tuple[Phase, ...]:
        """The way back, and training at a constant rate.

        Raises:
            SpecError: `epochs` is as long as the recipe, or longer.
        """
        # To epoch 0 would be the lottery ticket's experiment under another name.
        self.require_epochs_up_to(recipe.epochs - 1, recipe, "it must not go back to the initial weights")
        return Rewind(to=recipe.epochs - self.epochs), Train(epochs=self.epochs, lr=Constant(rate=recipe.last_rate))


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return LowRateRewinding
