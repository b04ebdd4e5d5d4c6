"""AC/DC: dense and sparse phases of one training take turns."""

from typing import ClassVar

from pydantic import Field

from harness.api import Magnitude, Phase, Prune, Recipe, SpecError, Strategy, Train, hookimpl


class Released(Magnitude):
    """|w|, and every pruned weight may come back."""

    name: ClassVar[str] = "released"
    revives: ClassVar[bool] = True


class ACDC(Strategy):
    """Train dense, then alternate: prune by magnitude and train, release all weights and train; the end is sparse.

    A released weight starts again from zero. The authors' 100 epochs on ImageNet are scaled to the recipe, in whole
    epochs, of at least one each: 10 % dense at first, phases of 5 %, a sparse end of 15 %; what does not divide
    lengthens the last dense phase, as theirs is longer, too.

    Source:
        Peste et al., "AC/DC: Alternating Compressed/DeCompressed Training of Deep Neural Networks", NeurIPS 2021, and
        its configurations for ImageNet.
    """

    name: ClassVar[str] = "acdc"
    needs_dense_model: ClassVar[bool] = False
    warm_up: int | None = Field(default=None, gt=0, description="dense epochs at first; None: a tenth of the recipe")
    phase: int | None = Field(default=None, gt=0, description="epochs of a phase; None: a twentieth of the recipe")
    end: int | None = Field(default=None, gt=0, description="sparse epochs at the end; None: 15 % of the recipe")

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """One training of the recipe's length, pruned and released on its way.

        Raises:
            SpecError: the phases do not fit into the recipe.
        """
        warm_up = self.warm_up or max(1, round(recipe.epochs / 10))
        phase = self.phase or max(1, round(recipe.epochs / 20))
        end = self.end or max(1, round(recipe.epochs * 0.15))
        turns, left = divmod(recipe.epochs - warm_up - end, 2 * phase)
        if turns < 1:
            raise SpecError(
                f"{self.name}: a recipe must hold {warm_up} dense epochs, two phases of {phase} and {end} sparse ones, "
                f"got one of {recipe.epochs}; train for at least {warm_up + 2 * phase + end} epochs, or set `warm_up`, "
                "`phase` and `end`"
            )
        # Sparsity 0 under a score that revives is the release: all weights come back, the pruned ones at zero.
        prune, release = Prune(sparsity=sparsity), Prune(sparsity=0.0, score=Released())
        phases: list[Phase] = [Train(epochs=warm_up, lr=recipe.learning_rate)]
        trained = warm_up
        # The last dense phase is longer by what does not divide, as the sparse end has a length of its own.
        for turn in range(1, turns + 1):
            for change, epochs in ((prune, phase), (release, phase + (left if turn == turns else 0))):
                # The rate goes on as if nothing had been pruned: the phases are parts of one training.
                phases += [change, Train(epochs=epochs, lr=recipe.learning_rate.from_epoch(trained))]
                trained += epochs
        return (*phases, prune, Train(epochs=end, lr=recipe.learning_rate.from_epoch(trained)))


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return ACDC
