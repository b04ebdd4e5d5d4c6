"""Canonical signed digits, and values for weights of which only the places are known."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

_POOL = 1 << 14
"""Magnitudes that weights are drawn from: their digits' mean moves by less than 1 % between such pools."""


def signed_digits(values: Integers) -> tuple[Integers, Integers, Integers]:
    """The canonical signed digits of integers: no two neighbours are both set, so that no other form needs fewer.

    Args:
        values: any integers.

    Returns:
        Of every digit that is set, the place of its value, its power of two, and its sign.

    Source:
        Reitwiesner, "Binary Arithmetic", Advances in Computers 1, 1960.

    Example:
        >>> signed_digits(np.array([7]))  # 8 - 1, and not 4 + 2 + 1
        (array([0, 0]), array([0, 3]), array([-1,  1]))
    """
    places: list[Integers] = []
    powers: list[Integers] = []
    signs: list[Integers] = []
    live = np.flatnonzero(values)
    left = values[live].astype(np.int64)
    power = 0
    while live.size:
        # An odd number ends in 1 or, where the next bit is set too, in -1 with a carry.
        digit = np.where(left & 1, 2 - (left & 3), 0)
        found = np.flatnonzero(digit)
        places.append(live[found])
        powers.append(np.full(found.size, power, dtype=np.int64))
        signs.append(digit[found])
        left = (left - digit) >> 1
        live, left = live[left != 0], left[left != 0]
        power += 1
    if not places:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, nothing
    return np.concatenate(places), np.concatenate(powers), np.concatenate(signs)


def digit_counts(values: Integers) -> Integers:
    """How many canonical signed digits every integer has.

    Example:
        >>> digit_counts(np.array([0, 7, -5, 64]))
        array([0, 2, 2, 1])
    """
    magnitudes = np.abs(values.astype(np.int64))
    # The digits of x stand where 3x and x differ: the classical closed form.
    return np.bitwise_count((3 * magnitudes) ^ magnitudes).astype(np.int64)


def drawn_values(mask: NDArray[np.bool_], bits: int, density: float) -> Integers:
    """Values for kept weights that nobody told: those that magnitude pruning leaves of normally distributed ones.

    Drawn from a seed that the shape gives, so that equal masks have equal circuits; 0 where nothing is kept. The step
    is the power of two with which the largest magnitude fits, as in the number formats.

    Shapes:
        mask (rows, cols) -> (rows, cols).
    """
    pool = _magnitudes(bits, round(max(density, 1 / _POOL), 6))
    rng = np.random.default_rng([*mask.shape, bits])
    values = np.zeros(mask.shape, dtype=np.int64)
    kept = int(np.count_nonzero(mask))
    # Drawn place by place and not weight by weight: two masks that share a weight share its value.
    drawn = pool[rng.integers(0, len(pool), size=mask.shape)] * (2 * rng.integers(0, 2, size=mask.shape) - 1)
    if kept:
        values[mask] = drawn[mask]
    return values


@lru_cache(maxsize=64)
def _magnitudes(bits: int, density: float) -> Integers:
    """The largest magnitudes of normally distributed values, as integers of so many bits, none of them zero."""
    size = int(_POOL / density) if density > 0.05 else 20 * _POOL
    values = np.abs(np.random.default_rng(0).standard_normal(size))
    kept = np.sort(values)[-max(1, round(size * density)) :]
    top = (1 << (bits - 1)) - 1
    step = 2.0 ** np.ceil(np.log2(kept[-1] / top))
    # A weight that is kept is there: one that rounds to nothing would make another mask.
    found: Integers = np.maximum(1, np.floor(kept / step + 0.5)).astype(np.int64)
    return found
