"""Fine-tuning: prune the trained model and go on training it at a small, constant learning rate."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from harness.api import Constant, Phase, Recipe, Strategy, Train, hookimpl

from ._shared import Retraining


class FineTuning(Retraining):
    """Train, prune, and retrain at the last learning rate of the dense training, or at a given one.

    That last rate may be very small (0.002 after the 13 epochs of the small PTB recipe): a weak column can be the
    rate's doing and not the pattern's.

    Source:
        Renda, Frankle and Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning", ICLR 2020.
    """

    name: ClassVar[str] = "fine_tuning"
    lr: Literal["last"] | Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default="last", description="`last`, the dense training's last learning rate, or a number above 0"
    )

    def retraining(self, recipe: Recipe) -> tuple[Phase, ...]:
        """Training at a constant rate."""
        rate = recipe.last_rate if self.lr == "last" else self.lr
        return (Train(epochs=self.epochs, lr=Constant(rate=rate)),)


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return FineTuning
