"""How long a stream of (value, index) pairs takes, and the start-up time and rate that two measured points give."""

from dataclasses import dataclass
from math import prod, sqrt
from statistics import NormalDist

_REACH, _STEPS = 6, 256
"""Standard deviations within which a normal sum is taken to lie, and the steps of the integral over them."""


@dataclass(frozen=True)
class StreamFit:
    """A straight line through two measurements.

    Args:
        start_up_us: time that no pair explains.
        pairs_per_us: pairs per microsecond beyond it.
    """

    start_up_us: float
    pairs_per_us: float


def fit(first: tuple[float, float], second: tuple[float, float]) -> StreamFit:
    """Start-up and rate from two points.

    Args:
        first: pairs, and the microseconds that they took.
        second: the same of the other point.

    Raises:
        ValueError: more pairs do not take more time, so there is no such line.
    """
    (few, short), (many, long) = sorted((first, second))
    if many == few or long <= short:
        raise ValueError(f"{many:g} pairs in {long:g} us and {few:g} in {short:g} us have no rate")
    rate = (many - few) / (long - short)
    # The line's value at no pairs.
    return StreamFit(start_up_us=short - few / rate, pairs_per_us=rate)


def expected_largest(*groups: tuple[float, float, int]) -> float:
    """The expected largest of independent sums, taken as normal.

    Args:
        groups: mean, standard deviation and number of sums of equal distribution.
    """
    low = min(mean - _REACH * deviation for mean, deviation, _ in groups)
    high = max(mean + _REACH * deviation for mean, deviation, _ in groups)
    step = (high - low) / _STEPS
    # Middle of each step: the midpoint rule, whose error falls with the square of their number.
    points = (low + (index + 0.5) * step for index in range(_STEPS))
    return low + step * sum(1 - prod(_below(point, *group) for group in groups) for point in points)


def _below(point: float, mean: float, deviation: float, count: int) -> float:
    """The probability that all sums of a group are below a point."""
    if deviation == 0:
        return float(point >= mean)
    return NormalDist(mean, deviation).cdf(point) ** count


def binomial_deviation(trials: float, chance: float) -> float:
    """The standard deviation of a binomial sum."""
    return sqrt(max(0.0, trials * chance * (1 - chance)))
