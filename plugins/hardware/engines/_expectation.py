"""The bank engine from statistics alone: expected cycles, exact where every bank of every row is filled equally.

A bank keeps either a known count (the same in every row) or a binomial one (its length, the density of its tensor).
All by probability mass, no normal approximation:

    one wave    P(max <= t) = product over its banks of their distribution functions
    one row     sum of its waves (convolution), at least 1
    a lockstep group of n rows      E[max] = sum over t of (1 - F_row(t)^n)
    PEs on their own                the same over PEs; their sums of rows are powers of the row's Fourier transform
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.api import Product

from .bank.counts import BankMap, Banks, Issue, wave_starts

Probabilities = NDArray[np.float64]

_NEGLIGIBLE = 1e-15
"""Tails of a distribution below this are cut: they are smaller than the rounding of the sums over them."""


@dataclass(frozen=True)
class BankFill:
    """What is known of one bank: a count that holds in every row, or its length and density."""

    length: int
    density: float
    count: int | None = None

    def distribution(self) -> Probabilities:
        """P(kept <= t) for t = 0 .. length."""
        if self.count is not None:
            return (np.arange(self.length + 1) >= self.count).astype(np.float64)
        return _binomial_cdf(self.length, self.density)


@lru_cache(maxsize=512)
def _binomial_cdf(trials: int, chance: float) -> Probabilities:
    # Without chance: the logarithms below would be infinite.
    if chance <= 0 or chance >= 1:
        return (np.arange(trials + 1) >= (trials if chance >= 1 else 0)).astype(np.float64)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])  # log n!
    hits = np.arange(trials + 1)
    # In logarithms: the factorials of a bank's columns overflow.
    mass = np.exp(logs[-1] - logs - logs[::-1] + hits * np.log(chance) + (trials - hits) * np.log1p(-chance))
    return _cumulated(mass / mass.sum())


@dataclass(frozen=True)
class Distribution:
    """Probabilities of the integers from `low` on."""

    low: int
    mass: Probabilities

    @property
    def mean(self) -> float:
        """The expectation."""
        return self.low + float(self.mass @ np.arange(len(self.mass)))

    def largest_of(self, count: int) -> float:
        """The expected maximum of so many independent draws."""
        # E[max] = low + sum over t of P(max > t).
        return self.low + float((1 - _cumulated(self.mass) ** count).sum())


def _cumulated(mass: Probabilities) -> Probabilities:
    return np.clip(np.cumsum(mass), 0.0, 1.0)


def _trimmed(low: int, mass: Probabilities) -> Distribution:
    kept = np.flatnonzero(mass > _NEGLIGIBLE)
    mass = mass[kept[0] : kept[-1] + 1]
    return Distribution(low + int(kept[0]), mass / mass.sum())


@lru_cache(maxsize=256)
def row_distribution(banks: tuple[BankFill, ...], lanes: int) -> Distribution:
    """Cycles of one row on a PE with so many lanes."""
    row = Distribution(0, np.ones(1))
    for start in wave_starts(len(banks), lanes).tolist():
        wave = _wave(banks[start : start + lanes])
        # Waves follow one another, so that the distribution of a row is the convolution of theirs.
        row = _trimmed(row.low + wave.low, np.convolve(row.mass, wave.mass))
    if row.low > 0:
        return row
    mass = row.mass[1:].copy() if len(row.mass) > 1 else np.zeros(1)
    mass[0] += row.mass[0]  # an empty row takes a cycle all the same
    return Distribution(1, mass)


def _wave(banks: tuple[BankFill, ...]) -> Distribution:
    size = max(bank.length for bank in banks) + 1
    below = np.ones(size)
    for bank in set(banks):
        cdf = np.ones(size)
        cdf[: bank.length + 1] = bank.distribution()
        # Below t if all banks are: the product over the banks, alike ones at once.
        below *= cdf ** banks.count(bank)
    return _trimmed(0, np.diff(below, prepend=0.0))


@lru_cache(maxsize=1024)
def expected_cycles(banks: tuple[BankFill, ...], lanes: int, rows: int, pes: int, lockstep: bool) -> float:
    """Expected issue cycles of so many rows on so many PEs."""
    row = row_distribution(banks, lanes)
    groups, extra = divmod(rows, pes)
    # Every row takes the same: no distribution of sums is needed.
    if len(row.mass) == 1:
        return float(row.low * -(-rows // pes))
    if lockstep:
        return groups * row.largest_of(pes) + (row.largest_of(extra) if extra else 0.0)
    # Both sums on one axis that begins at `groups * low`: a PE with one row more starts `low` later.
    size = (groups + 1) * (len(row.mass) - 1) + row.low + 1
    # The sum of many rows by the power of a transform: convolving them one by one takes too long.
    spectrum = np.fft.rfft(row.mass, 1 << (size - 1).bit_length())
    fewer = _power(spectrum, groups, size)
    more = np.concatenate([np.zeros(row.low), _power(spectrum, groups + 1, size)])[:size]
    # The slowest PE is done by t if all of them are.
    finished = _cumulated(fewer) ** (pes - extra) * _cumulated(more) ** extra
    return groups * row.low + float((1 - finished).sum())


def _power(spectrum: NDArray[np.complex128], exponent: int, size: int) -> Probabilities:
    mass: Probabilities = np.fft.irfft(spectrum**exponent)[:size]
    # A transform leaves values a rounding below zero, which are no probabilities.
    return np.maximum(mass, 0.0)


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
