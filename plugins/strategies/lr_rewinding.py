"""Learning-rate rewinding: prune the trained model and repeat the last part of its learning-rate schedule."""

from typing import ClassVar

from harness.api import Phase, Recipe, Strategy, Train, hookimpl

from ._shared import Retraining


class LrRewinding(Retraining):
    """Train for T epochs, prune, and retrain for t epochs with the learning rates of the dense epochs T-t to T.

    The weights stay as they were at the end of training; only the schedule goes back. With t = T the whole training is
    repeated with the masks fixed, which is how 2:4 networks are made.

    Source:
        Renda, Frankle and Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning", ICLR 2020.
    """

    name: ClassVar[str] = "lr_rewinding"

    def retraining(self, recipe: Recipe) -> tuple[Phase, ...]:
        """Training with the end of the dense schedule.

        Raises:
            SpecError: `epochs` is longer than the recipe.
        """
        self.require_epochs_up_to(recipe.epochs, recipe, "there is no more schedule to go back over")
        return (Train(epochs=self.epochs, lr=recipe.learning_rate.from_epoch(recipe.epochs - self.epochs)),)


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return LrRewinding
