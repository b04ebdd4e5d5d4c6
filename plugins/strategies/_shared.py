"""What strategies that prune a trained model have in common: the rounds, and the training in front of them."""

import math
from abc import abstractmethod

from pydantic import Field, model_validator

from harness.api import AnyScore, Magnitude, Phase, Prune, Recipe, SpecError, Strategy, Train


class Retraining(Strategy):
    """Train the dense model, then prune and retrain it, once or in rounds.

    Rounds make the density shrink by the same factor each time. With `rounds` their number is given; with `rate` the
    factor is 1 - rate, and the last round is cut so that it ends at the target.

    Source:
        Rounds of 20 %: Renda, Frankle and Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning",
        ICLR 2020.
    """

    epochs: int = Field(default=5, gt=0, description="epochs of retraining in every round")
    rounds: int = Field(default=1, gt=0, description="rounds of pruning and retraining")
    rate: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="fraction of the remaining weights that every round prunes; instead of `rounds`",
    )
    score: AnyScore = Field(default_factory=Magnitude, description="how weights are ranked")

    @model_validator(mode="after")
    def _one_of_the_two(self) -> "Retraining":
        # A default of 1 cannot be told from a written one: only more rounds can contradict a rate.
        if self.rounds > 1 and self.rate is not None:
            raise ValueError(
                f"{self.name} takes either `rounds` or `rate`, got rounds={self.rounds} and rate={self.rate}; "
                "leave one of them out"
            )
        return self

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """Dense training, then as many rounds of pruning and retraining as asked for.

        Raises:
            SpecError: the retraining does not fit the recipe.
        """
        retraining = self.retraining(recipe)
        phases: list[Phase] = [dense_training(recipe)]
        for reached in self.sparsities(sparsity):
            phases += [Prune(sparsity=reached, score=self.score), *retraining]
        return tuple(phases)

    def sparsities(self, target: float) -> tuple[float, ...]:
        """The sparsity of every round, ascending to the target."""
        if self.rate is not None:
            return sparsities_by_rate(self.rate, target)
        return sparsities_in_rounds(self.rounds, target)

    def hyper_parameters(self) -> tuple[str, ...]:
        """The choices; `rounds` and `rate` exclude each other and are one of them."""
        other = "rounds" if self.rate is not None else "rate"
        return tuple(name for name in super().hyper_parameters() if name != other)

    @abstractmethod
    def retraining(self, recipe: Recipe) -> tuple[Phase, ...]:
        """What follows every pruning.

        Raises:
            SpecError: it does not fit the recipe.
        """

    def require_epochs_up_to(self, most: int, recipe: Recipe, reason: str) -> None:
        """Refuse more epochs of retraining than the strategy can take from the recipe.

        Raises:
            SpecError: there are more; the sentence ends with the way out.
        """
        if self.epochs > most:
            remedy = f"set `epochs` to at most {most}" if most else "lengthen the recipe"
            raise SpecError(
                f"{self.name}: `epochs` must be at most {most} for a recipe of {recipe.epochs} epochs, got "
                f"{self.epochs}: {reason}; {remedy}"
            )


def dense_training(recipe: Recipe) -> Train:
    """The recipe as it stands."""
    return Train(epochs=recipe.epochs, lr=recipe.learning_rate)


def require_training(strategy: str, recipe: Recipe, reason: str) -> None:
    """Refuse a recipe without epochs, such as that of a model that comes trained.

    Raises:
        SpecError: it has none.
    """
    if recipe.epochs == 0:
        raise SpecError(
            f"{strategy}: the recipe must have epochs, got 0: {reason}; set the task's `epochs`, or take a strategy "
            "that prunes what is trained"
        )


def sparsities_in_rounds(rounds: int, target: float) -> tuple[float, ...]:
    """Sparsities whose densities fall by equal factors, the last being the target itself."""
    # Equal factors rather than equal steps: every round then takes the same fraction of what is left, the last one no
    # more.
    density = 1 - target
    return (*(_rounded(1 - density ** (done / rounds)) for done in range(1, rounds)), target)


def sparsities_by_rate(rate: float, target: float) -> tuple[float, ...]:
    """Sparsities when every round prunes `rate` of what is left, the last round cut at the target."""
    # A target that is itself a power of the rate must not get a round of its own for the last bits of a logarithm.
    rounds = max(1, math.ceil(math.log(1 - target) / math.log(1 - rate) - 1e-9))
    return (*(_rounded(1 - (1 - rate) ** done) for done in range(1, rounds)), target)


def _rounded(sparsity: float) -> float:
    """Without the noise of the last bits, which `keep_count`, exact in decimals, would otherwise see."""
    return round(sparsity, 12)
