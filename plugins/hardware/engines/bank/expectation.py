"""The bank engine from statistics alone: what is known of its banks, and the cycles to expect of them."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from harness.api import Product

from .._expectation import BankFill, expected_cycles, row_distribution
from .counts import BankMap, Banks, Issue


class ExpectedRows:
    """Row costs expected from the fill of the banks."""

    def __init__(self, banks: tuple[BankFill, ...], lanes: int, rows: int, nnz: int) -> None:
        """Take the fill of every bank of a row."""
        self._banks, self._lanes, self._rows, self._nnz = banks, lanes, rows, nnz
        self.varies = len({bank.count for bank in banks}) > 1 or banks[0].count is None

    def issue(self, pes: int, *, lockstep: bool) -> Issue:
        """The expected cycles on so many PEs."""
        row = row_distribution(self._banks, self._lanes)
        alone = expected_cycles(self._banks, self._lanes, self._rows, pes, False)
        expected = expected_cycles(self._banks, self._lanes, self._rows, pes, True) if lockstep else alone
        compute = Fraction(self._nnz, pes * self._lanes)
        # A row whose tensors are filled very differently may be expected a hair below the work that there is.
        cycles = max(Fraction(expected).limit_denominator(1 << 20), compute)
        in_last = self._rows - (-(-self._rows // pes) - 1) * pes
        return Issue(
            cycles=cycles,
            last=Fraction(row.largest_of(in_last)).limit_denominator(1 << 20),
            # Memories are as deep whether PEs wait for each other or not.
            depth=int(np.ceil(alone - 1e-6)),
            words=Fraction(self._rows * row.mean).limit_denominator(1 << 20),
            parts={"compute": compute, "imbalance": cycles - compute},
        )


def bank_fills(banks: Banks, bank_map: BankMap) -> tuple[BankFill, ...]:
    """What the statistics of a product say of every bank.

    A bank whose count is the same in every row has that count; any other has the density of its tensor (of the tensors
    it spans, by columns). Without masks, the banks that a tensor is said to have are taken as equally filled where
    their count comes out whole.
    """
    product = banks.product
    least: Sequence[int | None]
    most: Sequence[int | None]
    if product.is_dense:
        least = most = bank_map.lengths
    elif product.has_masks:
        counts = banks.counts(bank_map)
        least, most = counts.min(axis=0).tolist(), counts.max(axis=0).tolist()
    else:
        least = most = [_told(product, start) for start in bank_map.starts]
    fills = []
    for start, length, low, high in zip(bank_map.starts, bank_map.lengths, least, most, strict=True):
        # A count that all rows share is known exactly, mask or not: only others are taken as random.
        fills.append(BankFill(length, _density(product, start, start + length), low if low == high else None))
    return tuple(fills)


def _told(product: Product, start: int) -> int | None:
    """The count of the bank that starts here, as far as the number of non-zeros and of banks tell it."""
    # The last part that begins at or before it: a bank may reach over the border of two tensors.
    index = max(i for i, left in enumerate(product.offsets[:-1]) if left <= start)
    part = product.parts[index]
    if part.is_dense or part.banks is None:
        return None
    count, rest = divmod(part.kept, part.rows * part.banks)
    return None if rest else count


def _density(product: Product, start: int, end: int) -> float:
    kept = 0.0
    for part, left in zip(product.parts, product.offsets, strict=False):
        # A bank across two tensors has the mean of both densities, each by its columns in it.
        overlap = max(0, min(end, left + part.cols) - max(start, left))
        kept += overlap * part.kept / part.size
    return kept / (end - start)
