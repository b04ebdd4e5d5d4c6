"""Means, paired differences and verdicts over seeds.

Seeds are the unit of replication, and comparisons are paired: equal seeds mean equal initial weights and equal batches.
Intervals and tests are Student's t; `signed_rank_floor` says what a test without its assumption of normally distributed
differences could reach at best.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, TypeVar, cast

import numpy as np

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE

Verdict = Literal["better", "worse", "equivalent", "not enough evidence"]

_Key = TypeVar("_Key", bound=Hashable)

# Differences whose spread is below this part of their size differ by rounding only.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """A mean over n values with its confidence interval, `mean - half` to `mean + half`; no `half` for n = 1."""

    n: int
    mean: float
    half: float | None


@dataclass(frozen=True)
class Comparison:
    """Paired differences between two settings.

    Args:
        difference: mean difference (this minus the other) over the common seeds, with its interval.
        p_difference: two-sided p of "no difference"; None for n = 1.
        p_equivalence: p of "at least the margin apart" (TOST); None without margin or for n = 1.
        floor: the smallest p that a signed-rank test can reach with n pairs.
    """

    difference: Interval
    p_difference: float | None
    p_equivalence: float | None
    floor: float


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The mean and its t interval.

    Raises:
        ValueError: no value, or a value that is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"statistics: expected at least one value, all finite, got {list(values)}; drop missing ones")
    n = len(values)
    # Summed exactly, so that neither the order of seeds nor a common offset moves the mean.
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(n, mean, None)
    return Interval(n, mean, _t_quantile((1 + confidence) / 2, n - 1) * _standard_error(values))


def compare(
    values: Mapping[_Key, float], others: Mapping[_Key, float], margin: float | None = None
) -> Comparison | None:
    """The paired difference `values - others` over the keys (seeds) that both have; None if they share none."""
    common = [key for key in values if key in others]
    if not common:
        return None
    differences = [values[key] - others[key] for key in common]
    return Comparison(
        difference=interval(differences),
        p_difference=difference_p(differences),
        p_equivalence=None if margin is None else equivalence_p(differences, margin),
        floor=signed_rank_floor(len(differences)),
    )


def difference_p(differences: Sequence[float]) -> float | None:
    """The two-sided p of a paired t-test against no difference; None for n = 1.

    Differences without spread (accuracies over few images) would give p = 0 from two seeds: there the exact p of a
    sign-flip test stands in.
    """
    n = len(differences)
    if n == 1:
        return None
    mean, error = math.fsum(differences) / n, _standard_error(differences)
    if error <= _ROUNDING * max(map(abs, differences)):
        return 1.0 if mean == 0 else signed_rank_floor(n)
    return 2 * _t_tail(abs(mean) / error, n - 1)


def equivalence_p(differences: Sequence[float], margin: float) -> float | None:
    """The p of two one-sided paired t-tests (TOST): small if the mean difference is within +-margin; None for n = 1.

    Raises:
        ValueError: the margin is not positive.

    Source: Schuirmann's two one-sided tests; p is the larger of the two.
    """
    if not margin > 0:
        raise ValueError(f"statistics: an equivalence margin is a positive number, got {margin}; name one in the spec")
    n = len(differences)
    if n == 1:
        return None
    mean, error = math.fsum(differences) / n, _standard_error(differences)
    if error <= _ROUNDING * max(map(abs, differences)):
        return signed_rank_floor(n) / 2 if abs(mean) < margin else 1.0
    return _t_tail((margin - abs(mean)) / error, n - 1)


def holm(p_values: Mapping[_Key, float]) -> dict[_Key, float]:
    """The p values adjusted for their number (Holm's step-down), never above 1, in the order given.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted: dict[_Key, float] = {}
    largest = 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[key]))
        adjusted[key] = largest
    return {key: adjusted[key] for key in p_values}


def signed_rank_floor(n: int) -> float:
    """The smallest two-sided p of an exact signed-rank (or sign-flip) test of n pairs: two of 2^n sign patterns."""
    return min(1.0, 2.0 ** (1 - n))


def verdicts(
    comparisons: Mapping[_Key, Comparison], better: Literal["lower", "higher"], alpha: float = ALPHA
) -> dict[_Key, Verdict]:
    """A verdict on every comparison, with Holm's correction over all of them.

    Equivalence within the margin is decided first: a difference that is real but smaller than the margin named
    beforehand is "equivalent". A missing significance alone is "not enough evidence".
    """
    differ = holm({key: c.p_difference for key, c in comparisons.items() if c.p_difference is not None})
    equal = holm({key: c.p_equivalence for key, c in comparisons.items() if c.p_equivalence is not None})
    return {
        key: _verdict(comparison.difference.mean, differ.get(key, 1.0), equal.get(key, 1.0), better, alpha)
        for key, comparison in comparisons.items()
    }


def _verdict(mean: float, differ: float, equal: float, better: Literal["lower", "higher"], alpha: float) -> Verdict:
    if equal <= alpha:
        return "equivalent"
    if differ > alpha:
        return "not enough evidence"
    return "better" if (mean < 0) == (better == "lower") else "worse"


def _standard_error(values: Sequence[float]) -> float:
    array = np.asarray(values, dtype=np.float64)
    return float(array.std(ddof=1)) / math.sqrt(len(values))


def _t_quantile(probability: float, degrees: int) -> float:
    return float(_special().stdtrit(degrees, probability))


def _t_tail(t: float, degrees: int) -> float:
    """P(T > t)."""
    return float(_special().stdtr(degrees, -t))


def _special() -> ModuleType:
    # Not scipy.stats, which takes seconds to import; and late, so that listing plugins loads no scipy.
    from scipy import special

    return cast(ModuleType, special)
