"""Lottery tickets: iterative magnitude pruning that goes back to an early epoch after every round."""

from typing import ClassVar

from pydantic import Field

from harness.api import AnyScore, Magnitude, Phase, Prune, Recipe, Rewind, SpecError, Strategy, Train, hookimpl

from . import _shared


class LotteryTicket(Strategy):
    """Train, prune a fifth of what is left, put weights and optimiser back to epoch k, train on to the end; in rounds.

    Every round repeats the epochs k to T of the dense recipe, the last round ending at the target. Its controls are
    `random_at_init` and `reinitialise`.

    Source:
        Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML 2020: rewinding to an early
        iteration k > 0, 20 % per round. Here k is one epoch, the smallest that is kept.
    """

    name: ClassVar[str] = "lottery_ticket"
    rewind_to: int = Field(default=1, gt=0, description="epochs trained when the weights were as they are put back, k")
    rate: float = Field(default=0.2, gt=0, lt=1, description="fraction of the remaining weights that a round prunes")
    score: AnyScore = Field(default_factory=Magnitude, description="how weights are ranked")

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """The dense training, then round after round.

        Raises:
            SpecError: there is nothing left of the recipe after epoch k.
        """
        if self.rewind_to >= recipe.epochs:
            raise SpecError(
                f"{self.name}: `rewind_to` must be below the recipe's {recipe.epochs} epochs, got {self.rewind_to}; "
                f"{f'set it to at most {recipe.epochs - 1}' if recipe.epochs > 1 else 'lengthen the recipe'}"
            )
        # The same object for every round: equal phases after equal masks are the same stages, planned and run once.
        rest = Train(epochs=recipe.epochs - self.rewind_to, lr=recipe.learning_rate.from_epoch(self.rewind_to))
        phases: list[Phase] = [_shared.dense_training(recipe)]
        for reached in _shared.sparsities_by_rate(self.rate, sparsity):
            phases += [Prune(sparsity=reached, score=self.score), Rewind(to=self.rewind_to), rest]
        return tuple(phases)


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return LotteryTicket
