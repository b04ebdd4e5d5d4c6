"""Reinitialise: the mask of the trained network, on new random weights."""

from typing import ClassVar

from pydantic import Field

from harness.api import AnyScore, Magnitude, Phase, Prune, Recipe, Rewind, Strategy, hookimpl

from . import _shared


class Reinitialise(Strategy):
    """Train, prune, draw new initial weights, and train them with the masks fixed by the whole dense recipe.

    An ablation: it tells what the masks alone are worth. The new weights come from a seed of their own, derived from
    the cell's; optimiser and batches start again.

    Source:
        Renda, Frankle and Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning", ICLR 2020; Frankle
        and Carbin, "The Lottery Ticket Hypothesis", ICLR 2019: the control of a ticket.
    """

    name: ClassVar[str] = "reinitialise"
    score: AnyScore = Field(default_factory=Magnitude, description="how weights are ranked")

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """Two trainings, the second of new weights under the masks of the first."""
        dense = _shared.dense_training(recipe)
        # `weights="new"` draws by a seed of its own: with the cell's seed the "new" weights would be the old initial
        # ones.
        return dense, Prune(sparsity=sparsity, score=self.score), Rewind(to=0, weights="new"), dense


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return Reinitialise
