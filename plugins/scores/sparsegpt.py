"""SparseGPT: what removing a weight costs the layer's outputs, and the weights that make up for it."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.api import Mask, Matrix, Need, ScoreInput, Solver, hookimpl


class SparseGPTScore(Solver):
    """w^2 / d^2, d the diagonal of U, H^-1 = U^T U, H = 2 X X^T + damping; kept weights make up for pruned ones.

    Column by column from the left, the error of the pruned weights over d is taken off the columns to the right, along
    the rows of U. The authors choose masks in blocks of 128 columns, each after the columns before it; here the pattern
    chooses once, over whole rows: their rule with one block. Damping is a fraction of the mean of H's diagonal.

    Source:
        Frantar and Alistarh, "SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot", ICML 2023;
        IST-DASLab/sparsegpt @ 147d215, with damping .01 and 128 sequences.
    """

    name: ClassVar[str] = "sparsegpt"
    needs: ClassVar[tuple[Need, ...]] = ("input_moments",)
    batches: int = Field(default=4, gt=0, description="training batches that second moments are summed over")
    damping: float = Field(default=0.01, gt=0, allow_inf_nan=False, description="of the mean of the Hessian's diagonal")
    block: int = Field(default=128, gt=0, description="columns whose errors are spread at once; changes no result")

    def scores(self, given: ScoreInput) -> Matrix:
        """The squared weight over the squared diagonal; inputs that never fire score nothing."""
        factor, live = self._factor(given)
        # The columns' inputs that never fire have no Hessian: their weights do nothing and go first.
        scores: Matrix = np.where(live, given.weights, 0) ** 2 / np.diag(factor)[np.newaxis, :] ** 2
        return scores

    def solved(self, given: ScoreInput, mask: Mask) -> Matrix:
        """The kept weights after all columns."""
        factor, live = self._factor(given)
        weights = np.where(live, given.weights, 0).astype(np.float64)
        cols = weights.shape[1]
        # Blocks of columns as the authors do it: errors within a block at once, on the columns behind it as one matrix
        # product.
        for start in range(0, cols, self.block):
            stop = min(start + self.block, cols)
            errors = np.zeros((len(weights), stop - start))
            for col in range(start, stop):
                # A kept weight makes no error: only what is set to zero has to be made up for.
                error = np.where(mask[:, col], 0, weights[:, col]) / factor[col, col]
                weights[:, col:stop] -= np.outer(error, factor[col, col:stop])
                errors[:, col - start] = error
            weights[:, stop:] -= errors @ factor[start:stop, stop:]
        return np.where(mask, weights, 0.0)

    def _factor(self, given: ScoreInput) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The upper Cholesky factor of the inverse Hessian, and which inputs are ever other than zero."""
        hessian = 2 * given.needed["input_moments"].astype(np.float64)
        live = np.diag(hessian) > 0
        # 1 on the diagonal of a dead input keeps the matrix invertible; its weights are set to zero beside it.
        hessian[~live, ~live] = 1
        hessian[np.diag_indices_from(hessian)] += self.damping * np.mean(np.diag(hessian))
        # Upper, as H^-1 = U^T U: row i of U holds how the error of column i is spread over the columns behind it.
        return np.linalg.cholesky(np.linalg.inv(hessian)).T, live


@hookimpl
def register_score() -> type[Solver]:
    """Offer this score to the harness."""
    return SparseGPTScore
