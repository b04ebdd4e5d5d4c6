"""SynFlow: the synaptic flow through a weight, without any data."""

from typing import ClassVar

import numpy as np

from harness.api import Matrix, Need, Score, ScoreInput, hookimpl


class SynFlowScore(Score):
    """|w| dR/d|w|, R the summed outputs of the network with weights |w| on an input of ones.

    Defined for networks of dense and convolutional layers; a network with embeddings or LSTMs has no input of ones.

    Source:
        Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow", NeurIPS 2020;
        ganguli-lab/Synaptic-Flow @ 9dfa57a.
    """

    name: ClassVar[str] = "synflow"
    needs: ClassVar[tuple[Need, ...]] = ("synaptic_flow",)

    def scores(self, given: ScoreInput) -> Matrix:
        """The absolute weight times the derivative of the flow by it."""
        return np.abs(given.weights.astype(np.float64) * given.needed["synaptic_flow"])


@hookimpl
def register_score() -> type[Score]:
    """Offer this score to the harness."""
    return SynFlowScore
