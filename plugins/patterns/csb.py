"""CSB-RNN's compressed structured blocks: every block keeps some of its rows and some of its columns."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from harness.api import Frame, Mask, Matrix, Pattern, ShapeError, hookimpl

from .bank_balanced import BankBalanced
from .vector import Vector


class CSB(Pattern):
    """Prune whole rows and whole columns inside every block, so that a small dense kernel is left of each.

    A block of h x w keeps k_r rows and k_c columns of its own, those with the highest sums: density k_r k_c / (h w).
    The pair is the one nearest to the target on the way from (h, w) that shortens the longer side first. Here all
    kernels have one size; the published method lets sizes vary, shares the work in hardware, and trains by ADMM.

    Storage: dense kernels and two short lists per block. Engines: `csr_stream`, `column_fifo`.

    Source:
        Shi et al., "CSB-RNN: A Faster-than-Realtime RNN Acceleration Framework with Compressed Structured Blocks",
        ICS 2020. Not Cao's Compressed Sparse Banks.
    """

    name: ClassVar[str] = "csb"
    height: int = Field(default=4, gt=0, description="rows of a block, h; divides the rows")
    width: int = Field(default=4, gt=0, description="columns of a block, w; divides the columns")

    def frame(self, rows: int, cols: int) -> Frame:
        """Blocks; within them `mask` keeps rows and columns."""
        if rows % self.height or cols % self.width:
            raise ShapeError(
                f"{self.name}: blocks of {self.height} x {self.width} must divide the matrix, got {rows} x {cols}; set "
                f"`height` to a divisor of {rows} and `width` to a divisor of {cols}"
            )
        return Frame(group=(self.height, self.width), at_least=1)

    def mask(self, scores: Matrix, sparsity: float) -> Mask:
        """The best rows and the best columns of every block, pruned weights (-inf) adding nothing to either."""
        rows, cols = scores.shape
        self.frame(rows, cols)  # refuses what does not divide
        high, wide = self.kernel(sparsity)
        # Two balanced patterns on the sums: of every block's rows in its columns, and of its columns in its rows.
        by_row = Vector(length=self.height) if self.height > 1 else None
        by_col = BankBalanced(bank_size=self.width)
        blocks = (rows, cols // self.width, self.width), (rows // self.height, self.height, cols)
        sums = [_sums(scores.reshape(shape), axis) for shape, axis in zip(blocks, (2, 1), strict=True)]
        kept_rows = np.ones(sums[0].shape, np.bool_)
        if by_row is not None:
            kept_rows = by_row.mask(sums[0], 1 - high / self.height)
        kept_cols = by_col.mask(sums[1], 1 - wide / self.width)
        kept: Mask = kept_rows.repeat(self.width, axis=1)
        kept.reshape(-1, self.height, cols)[...] &= kept_cols[:, None]
        return kept

    def kernel(self, sparsity: float) -> tuple[int, int]:
        """Rows and columns that every block keeps."""
        # One way down from the whole block instead of all pairs: higher sparsities are then subsets of lower ones.
        pairs = [(self.height, self.width)]
        while pairs[-1] != (1, 1):
            high, wide = pairs[-1]
            # Shorten the side that is longer for its block; a side of 1 stays, or the block would be empty.
            lower = wide == 1 or (high > 1 and high * self.width >= wide * self.height)
            pairs.append((high - 1, wide) if lower else (high, wide - 1))
        size, target = self.height * self.width, 1 - sparsity
        # Rounded, so that of two pairs equally far off the first, which keeps more, wins on every machine.
        return min(pairs, key=lambda pair: round(abs(pair[0] * pair[1] / size - target), 12))

    def reachable(self, rows: int, cols: int, sparsity: float) -> float:
        """Products of two counts alone."""
        high, wide = self.kernel(sparsity)
        return 1 - high * wide / (self.height * self.width)


def _sums(values: Matrix, axis: int) -> Matrix:
    """Sums in double precision, pruned weights (-inf) adding nothing; -inf where nothing else is left."""
    if np.isfinite(values.min()):
        whole: Matrix = values.sum(axis=axis, dtype=np.float64)
        return whole
    live = np.isfinite(values)
    sums = np.where(live, values, 0.0).sum(axis=axis, dtype=np.float64)
    left: Matrix = np.where(live.any(axis=axis), sums, -np.inf)
    return left


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return CSB
