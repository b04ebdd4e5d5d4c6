"""Density-bound blocks: no block of a row keeps more than a bound."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from harness.api import Frame, Mask, Matrix, Pattern, hookimpl, keep_best, keep_count


class DensityBoundBlock(Pattern):
    """Keep the highest scores of the matrix, but at most `most` of every `size` consecutive weights of a row.

    First the best k of every block of b, then the best of those over the whole matrix: a block may keep fewer than k.
    At a sparsity of 1 - k/b it is N:M sparsity; while a schedule is below that, blocks keep more, as there.

    Storage: k values and a bit mask of b bits per block, whatever it holds. Engines: `n_m`.

    Source:
        Liu, Whatmough, Zhu and Mattina, "S2TA: Exploiting Structured Sparsity for Energy-Efficient Mobile CNN
        Acceleration", HPCA 2022 (recalled): density-bound blocks of 8.
    """

    name: ClassVar[str] = "density_bound_block"
    most: int = Field(default=2, gt=0, description="weights a block keeps at most, k")
    size: int = Field(default=4, gt=1, description="consecutive weights of a block, b; divides the columns")

    def frame(self, rows: int, cols: int) -> Frame:
        """Single weights, compared within their block first."""
        return Frame(group=(1, self.size), at_least=self.most)

    def mask(self, scores: Matrix, sparsity: float) -> Mask:
        """The best of each block, and of those the best of the matrix."""
        rows, cols = scores.shape
        # With the floor `at_least`, this keeps the best k of every block, however sparse the target is.
        bounded = super().mask(scores, sparsity)
        # Below the sparsity of 1 - k/b the blocks must keep more than k: then the balanced mask alone is what is asked
        # for.
        if self.layout(rows, cols).quota(sparsity) > self.most:
            return bounded
        kept = min(keep_count(rows * cols, sparsity), int(bounded.sum()))
        return keep_best(np.where(bounded, scores, -np.inf), kept)

    def reachable(self, rows: int, cols: int, sparsity: float) -> float:
        """Any sparsity from 1 - k/b on."""
        layout = self.layout(rows, cols)
        bound = layout.reached(sparsity)
        if layout.quota(sparsity) > self.most:
            return bound
        return max(bound, 1 - keep_count(rows * cols, sparsity) / (rows * cols))


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return DensityBoundBlock
