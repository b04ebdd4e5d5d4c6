"""Rows of banks from statistics alone: expected cycles, exact where every bank of every row is filled equally.

A bank keeps either a known count (the same in every row) or a binomial one (its length, the density of its tensor).
All by probability mass, no normal approximation:

    one wave    P(max <= t) = product over its banks of their distribution functions
    one row     sum of its waves (convolution), at least 1
    a lockstep group of n rows      E[max] = sum over t of (1 - F_row(t)^n)
    PEs on their own                the same over PEs; their sums of rows are powers of the row's Fourier transform
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

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
    for start in range(0, len(banks), lanes):
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
