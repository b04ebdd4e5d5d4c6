"""How the input channels of a product are dealt to splits, and what every row then takes."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.api import Product

from .._expectation import BankFill
from ..bank.counts import ExactRows, split
from ..bank.expectation import ExpectedRows


class Splits:
    """Counts of one product, by number of splits; each split holds neighbouring channels with all their taps."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self._counts: dict[int, NDArray[np.int32]] = {}
        self._rows: dict[int, ExactRows] = {}
        self._least: dict[int, int] = {}
        self._words: dict[int, int] = {}

    @cached_property
    def taps(self) -> int:
        """Weights of a channel in a row."""
        found = self.product.convolution
        return 1 if found is None else found.kernel[0] * found.kernel[1]

    @cached_property
    def channels(self) -> int:
        """Input channels that a row sees; matrices without geometry have one per column."""
        return self.product.cols // self.taps

    def longest(self, splits: int) -> int:
        """Channels of the longest split."""
        return -(-self.channels // min(splits, self.channels))

    def starts(self, splits: int) -> NDArray[np.intp]:
        """First column of every split; splits beyond the channels have none."""
        return np.array(split(self.channels, min(splits, self.channels))) * self.taps

    def counts(self, splits: int) -> NDArray[np.int32]:
        """Weights kept in every split of every row, (rows, splits)."""
        if splits not in self._counts:
            starts = self.starts(splits)
            # Stretches that a product counts never cross the border between two of its tensors.
            edges = np.union1d(starts, self.product.offsets[:-1])
            fine = self.product.counts(edges)
            merged: NDArray[np.int32] = np.add.reduceat(fine, np.searchsorted(edges, starts), axis=1, dtype=np.int32)
            self._counts[splits] = merged
        return self._counts[splits]

    def exact(self, splits: int) -> ExactRows:
        """What every row takes: as long as its fullest split, at least a cycle."""
        if splits not in self._rows:
            self._rows[splits] = ExactRows(self.counts(splits), splits)
        return self._rows[splits]

    def expected(self, splits: int) -> ExpectedRows:
        """The same expected from the density of the tensors; exact where all rows of a split keep equally many."""
        product, starts = self.product, self.starts(splits)
        lengths = np.diff(starts, append=product.cols).tolist()
        if product.is_dense:
            fills = [BankFill(length, 1.0, length) for length in lengths]
        elif product.has_masks:
            counts = self.counts(splits)
            low, high = counts.min(axis=0).tolist(), counts.max(axis=0).tolist()
            fills = [
                BankFill(length, self._density(start, length), least if least == most else None)
                for start, length, least, most in zip(starts.tolist(), lengths, low, high, strict=True)
            ]
        else:
            fills = [BankFill(n, self._density(start, n)) for start, n in zip(starts.tolist(), lengths, strict=True)]
        return ExpectedRows(tuple(fills), splits, product.rows, product.nnz)

    def _density(self, start: int, length: int) -> float:
        """Of the tensors that a stretch of columns spans, by columns."""
        kept = 0.0
        for part, left in zip(self.product.parts, self.product.offsets, strict=False):
            overlap = max(0, min(start + length, left + part.cols) - max(start, left))
            kept += overlap * part.kept / part.size
        return kept / length

    def deepest(self, splits: int, filters: int) -> int:
        """Words in the fullest weight memory: one per kept weight, and one that ends a row without any."""
        words = np.maximum(self.counts(splits), 1)  # (rows, splits)
        groups = -(-len(words) // filters)
        padded = np.zeros((groups * filters, words.shape[1]), dtype=np.int64)
        padded[: len(words)] = words
        return int(padded.reshape(groups, filters, -1).sum(axis=0).max())

    def expected_words(self, splits: int) -> int:
        """Words expected from the density: a row without a weight in a split has one there that ends it."""
        starts = self.starts(splits)
        lengths = np.diff(starts, append=self.product.cols).tolist()
        empty = sum((1 - self._density(start, n)) ** n for start, n in zip(starts.tolist(), lengths, strict=True))
        return self.product.nnz + round(self.product.rows * float(empty))

    def words(self, splits: int) -> int:
        """Words in all weight memories."""
        if splits not in self._words:
            self._words[splits] = int(np.maximum(self.counts(splits), 1).sum(dtype=np.int64))
        return self._words[splits]

    def least(self, splits: int) -> int:
        """A lower bound on the cycles of all rows together, without counting splits; needs masks."""
        if splits not in self._least:
            self._least[splits] = int(np.maximum(1, -(-self.product.row_counts // splits)).sum())
        return self._least[splits]
