"""Weight rewinding: prune the trained model, go back to its weights of some epochs earlier, and train on from there."""

from typing import ClassVar

from harness.api import Phase, Recipe, Rewind, Strategy, Train, hookimpl

from ._shared import Retraining


class WeightRewinding(Retraining):
    """Train for T epochs, prune, put weights and optimiser back to epoch T-t, and repeat the epochs T-t to T.

    The masks come from the trained weights, the weights from before. In rounds, every round goes back to the same
    epoch of the dense training.

    Source:
        Renda, Frankle and Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning", ICLR 2020: going
        back to the initial weights (t = T) costs far more accuracy than any other t.
    """

    name: ClassVar[str] = "weight_rewinding"

    def retraining(self, recipe: Recipe) -> tuple[Phase, ...]:
        """The way back, and the end of the dense training once more.

        Raises:
            SpecError: `epochs` is as long as the recipe, or longer.
        """
        self.require_epochs_up_to(
            recipe.epochs - 1,
            recipe,
            "it must not go back to the initial weights, from which a pruned network trains far worse",
        )
        start = recipe.epochs - self.epochs
        return Rewind(to=start), Train(epochs=self.epochs, lr=recipe.learning_rate.from_epoch(start))


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return WeightRewinding
