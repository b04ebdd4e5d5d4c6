"""What the fullest PE of a column engine is expected to do, from statistics alone.

A column keeps a binomial number of weights on a PE. The load of a PE is the sum of max(c, 1) over its group's columns:
a power of that distribution's Fourier transform. The fullest of all PEs then follows from their distribution functions.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._drawn import Statistics
from .._expectation import BankFill

_DEVIATIONS = 12
_MARGIN = 16
"""The transform covers so many standard deviations and a few cycles beyond: what is outside is below rounding."""


@dataclass(frozen=True)
class _Alike:
    """So many PEs whose load is the sum of independent columns: of each kind a distribution, and how many."""

    pes: int
    columns: tuple[tuple[NDArray[np.float64], int], ...]

    def mean(self) -> float:
        """Of the load."""
        return sum(count * float(mass @ np.arange(len(mass))) for mass, count in self.columns)

    def variance(self) -> float:
        """Of the load."""
        squares = [float(mass @ np.arange(len(mass)) ** 2) for mass, _ in self.columns]
        means = [float(mass @ np.arange(len(mass))) for mass, _ in self.columns]
        counts = [count for _, count in self.columns]
        return sum(n * (square - mean**2) for n, square, mean in zip(counts, squares, means, strict=True))

    def all_below(self, low: int, size: int) -> NDArray[np.float64]:
        """Chance that none of these PEs has a load above low, low + 1, ..."""
        spectrum = np.ones(size // 2 + 1, dtype=np.complex128)
        for mass, count in self.columns:
            # Wrapped around a circle of `size`: what lies outside is below rounding (see above).
            folded = np.bincount(np.arange(len(mass)) % size, weights=mass, minlength=size)
            spectrum *= np.fft.rfft(folded) ** count
        # The circle is turned until `low` stands first.
        below = np.cumsum(np.roll(np.fft.irfft(spectrum, size), -low))
        powers: NDArray[np.float64] = np.clip(below, 0.0, 1.0) ** self.pes
        return powers


def fullest_load(given: Statistics, pes: int, groups: int) -> float | None:
    """Expected cycles of the fullest PE, a column without weights taking one too.

    None where banks are filled equally: the columns of a bank then depend on each other.
    """
    rows, parts = given
    # Equal banks are no binomial columns: there is no closed form for them.
    if any(banks is not None and kept < rows * cols for cols, kept, banks in parts):
        return None
    alike = _alike(given, pes, groups)
    reach = _DEVIATIONS * max(kind.variance() for kind in alike) ** 0.5 + _MARGIN
    low = int(min(kind.mean() for kind in alike) - reach)
    span = max(kind.mean() for kind in alike) + reach - low
    # A power of two, as transforms like them.
    size = 1 << int(span).bit_length()
    chance = np.prod([kind.all_below(low, size) for kind in alike], axis=0)
    return low + float((1 - chance).sum())


def _alike(given: Statistics, pes: int, groups: int) -> list[_Alike]:
    """All PEs, those together that have as many rows, and as many columns of every tensor."""
    rows, parts = given
    ends = np.cumsum([0, *(cols for cols, _, _ in parts)])
    # Group g has the columns g, g + G, ... of the whole row, whatever tensor they are of.
    dealt = (ends[:, None] + groups - 1 - np.arange(groups)) // groups  # columns of each group up to there
    kinds = Counter(map(tuple, np.diff(dealt, axis=0).T.tolist()))
    found = []
    # Rows that do not divide leave some PEs with one more.
    for height, count in ((rows // pes, pes - rows % pes), (rows // pes + 1, rows % pes)):
        masses = [_column(height, kept / (rows * cols)) for cols, kept, _ in parts]
        for columns, same in kinds.items():
            found.append(_Alike(count * same, tuple(zip(masses, columns, strict=True))))
    return [kind for kind in found if kind.pes]


def _column(height: int, density: float) -> NDArray[np.float64]:
    """Chances of the cycles that a PE takes for a column of which it has so many rows."""
    mass = np.diff(BankFill(height, density).distribution(), prepend=0.0)
    if height == 0:
        return np.array([0.0, 1.0])
    # An empty column takes a cycle, too: its chance goes to one.
    mass[1] += mass[0]
    mass[0] = 0.0
    return mass
