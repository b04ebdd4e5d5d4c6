"""How long a stream of (value, index) pairs takes, and the start-up time and rate that two measured points give."""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist


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
    return StreamFit(start_up_us=short - few / rate, pairs_per_us=rate)


def expected_largest(mean: float, deviation: float, count: int) -> float:
    """The expected largest of so many independent sums, by Blom's approximation of normal order statistics."""
    if count == 1 or deviation == 0:
        return mean
    return mean + deviation * NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def binomial_deviation(trials: float, chance: float) -> float:
    """The standard deviation of a binomial sum."""
    return sqrt(max(0.0, trials * chance * (1 - chance)))
