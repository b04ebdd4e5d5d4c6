"""Weights and ranges as fixed point: which step, which multiples of it, and codebooks of shared values."""

import math

import numpy as np
from numpy.typing import NDArray

from harness.api import NumberFormat

_ROUNDS = 100
"""Rounds of k-means at most; in one dimension it settles long before."""

Values = NDArray[np.float64]


def exponent(largest: float, bits: int) -> int:
    """The smallest e for which `largest` is at most (2^(bits - 1) - 1) * 2^e: the step is 2^e.

    Example:
        >>> exponent(1.0, 8)  # 127 * 2^-7 is a little below 1
        -6
    """
    top = (1 << (bits - 1)) - 1
    if not largest:
        # Nothing but zeros: any step holds them, and the finest gives the bias most bits.
        return 1 - bits
    found = math.ceil(math.log2(largest / top))
    while largest > math.ldexp(top, found):  # the logarithm is rounded
        found += 1
    while largest <= math.ldexp(top, found - 1):
        found -= 1
    return found


def within(values: Values, percentile: float) -> float:
    """The absolute value below which so many percent of the values lie; 0 of nothing."""
    # Pruned weights would drag a percentile to zero, though they take no part in rounding.
    magnitudes = np.abs(values[values != 0]) if percentile < 100 else np.abs(values)
    if not magnitudes.size:
        return 0.0
    return float(magnitudes.max() if percentile >= 100 else np.percentile(magnitudes, percentile))


def quantised(weights: Values, number_format: NumberFormat) -> tuple[Values, NDArray[np.int64]]:
    """The integers of a product's weights, and the exponent of every row's step.

    Pruned weights are zero and stay zero; they count neither for a percentile nor for a codebook.

    Shapes:
        weights (rows, cols) -> (rows, cols), (rows,).
    """
    top = (1 << (number_format.weight_bits - 1)) - 1
    if number_format.codebook is not None:
        weights = shared(weights, number_format.codebook)
    if number_format.scaling == "row":
        ranges = [within(row, number_format.percentile) for row in weights]
    else:
        ranges = [within(weights, number_format.percentile)] * len(weights)
    exponents = np.array([exponent(each, number_format.weight_bits) for each in ranges], dtype=np.int64)
    steps = np.ldexp(1.0, exponents)[:, None]
    # Symmetric, without the lowest integer: a weight and its negative round alike.
    return np.clip(np.floor(weights / steps + 0.5), -top, top), exponents


def _spread(kept: Values, count: int) -> Values:
    """Evenly spaced values where weights are: pruning leaves none around zero, and no value should be lost there."""
    below, above = kept[kept < 0], kept[kept > 0]
    if not below.size or not above.size:
        return np.linspace(kept[0], kept[-1], count)
    widths = below[-1] - below[0], above[-1] - above[0]
    # Both sides get values in proportion to their width, and at least one each.
    negative = min(count - 1, max(1, round(count * widths[0] / max(sum(widths), 1e-300))))
    return np.concatenate(
        [np.linspace(below[0], below[-1], negative), np.linspace(above[0], above[-1], count - negative)]
    )


def shared(weights: Values, count: int) -> Values:
    """Every kept weight replaced by one of `count` values: k-means on a line, begun with evenly spaced values.

    Source:
        Han et al., "Deep Compression", ICLR 2016, section 3 (linear initialisation keeps the large weights).
    """
    kept = np.unique(weights[weights != 0])
    if len(kept) <= count:
        return weights
    values = np.sort(weights[weights != 0])
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centres = _spread(kept, count)
    for _ in range(_ROUNDS):
        # On a line the values of a centre are a stretch: its mean comes from sums over beginnings.
        edges = np.searchsorted(values, (centres[:-1] + centres[1:]) / 2)
        first, last = np.concatenate([[0], edges]), np.concatenate([edges, [len(values)]])
        sizes = last - first
        # A centre without values stays where it is: k-means would divide by nothing.
        moved = np.where(sizes > 0, (sums[last] - sums[first]) / np.maximum(sizes, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    places = np.searchsorted((centres[:-1] + centres[1:]) / 2, weights)
    # Pruned weights stay zero, however near a centre lies.
    return np.where(weights == 0, 0.0, centres[places])
