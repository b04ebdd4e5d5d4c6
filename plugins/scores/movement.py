"""Movement: whether training moves a weight away from zero."""

from typing import ClassVar

from harness.api import Matrix, Need, Score, ScoreInput, hookimpl


class MovementScore(Score):
    """-sum over steps of g w: high where steps have moved a weight away from zero. Pruned weights may come back.

    It is summed up by straight-through training alone; in other phases it is zero, and ties stay at the lower index.

    Source:
        Sanh, Wolf and Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", NeurIPS 2020: dL/dS = dL/dW W;
        huggingface/transformers @ a321baf, examples/research_projects/movement-pruning.
    """

    name: ClassVar[str] = "movement"
    needs: ClassVar[tuple[Need, ...]] = ("movement",)
    revives: ClassVar[bool] = True

    def scores(self, given: ScoreInput) -> Matrix:
        """The sum that training has kept."""
        movement: Matrix = given.needed["movement"]
        return movement


@hookimpl
def register_score() -> type[Score]:
    """Offer this score to the harness."""
    return MovementScore
