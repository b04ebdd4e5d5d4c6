"""SET: sparse evolutionary training, which drops small weights and grows random ones."""

from typing import ClassVar

from harness.api import Matrix, Score, ScoreInput, Strategy, hookimpl

from ._regrowth import Regrown, SparseTraining


class GrownAtRandom(Regrown):
    """Pruned weights at random."""

    name: ClassVar[str] = "grown_at_random"

    def candidates(self, given: ScoreInput) -> Matrix:
        """Uniform noise."""
        return given.rng.random(given.weights.shape)


class SET(SparseTraining):
    """Train a network of a fixed density from a random mask; smallest weights give way to random new ones.

    Updates as in RigL's code (every 100 steps, 30 %, to step 25,000 of 32,000), scaled to the recipe. With allocation
    `erk` this is SET as compared there.

    Source:
        Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity inspired by
        network science", Nature Communications 2018.
    """

    name: ClassVar[str] = "set"

    def grown(self) -> Score:
        """Random growth."""
        return GrownAtRandom()


@hookimpl
def register_strategy() -> type[Strategy]:
    """Offer this strategy to the harness."""
    return SET
