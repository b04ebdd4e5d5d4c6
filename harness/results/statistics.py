"""Means, paired differences and verdicts over seeds.

Seeds are the unit of replication, and comparisons are paired: equal seeds mean equal initial weights and equal batches.
Intervals and tests are Student's t; `signed_rank_floor` says what a test without its assumption of normally distributed
differences could reach at best.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_letters
from types import ModuleType
from typing import Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE

Verdict = Literal["better", "worse", "equivalent", "not enough evidence"]
Better = Literal["lower", "higher"]

_Key = TypeVar("_Key", bound=Hashable)
_Other = TypeVar("_Other", bound=Hashable)

# What differs by less than this part of its size differs by rounding only.
_ROUNDING = 1e-12
# What lies beyond a bound by less than this part of it lies on it: differences of rounded values are not exact.
_EDGE = 1e-9


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
    # Paired by seed: equal seeds have equal initial weights and batches, so their difference has less noise than
    # either.
    common = [key for key in values if key in others]
    if not common:
        return None
    differences = paired_differences([values[key] for key in common], [others[key] for key in common])
    return Comparison(
        difference=interval(differences),
        p_difference=difference_p(differences),
        p_equivalence=None if margin is None else equivalence_p(differences, margin),
        floor=signed_rank_floor(len(differences)),
    )


def paired_differences(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """The differences `values - others`, those that rounding alone tells apart made equal.

    Accuracies of 94.31 and 94.30, and of 92.07 and 92.06, are one step apart, and not quite the same in floats: with a
    spread of 1e-14 three seeds would show whatever one likes.
    """
    differences = [value - other for value, other in zip(values, others, strict=True)]
    # Rounding errors are of the size of the values, however small their difference is.
    least = _ROUNDING * max(map(abs, (*values, *others)), default=0.0)
    if differences and max(differences) - min(differences) <= least:
        mean = math.fsum(differences) / len(differences)
        return [0.0 if abs(mean) <= least else mean] * len(differences)
    return differences


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
        # All differences are equal, to rounding: the t statistic is infinite, and n pairs can show no more than n
        # signs.
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
        # One-sided, hence half of the two-sided floor. What is the margin but for rounding is not within it.
        return signed_rank_floor(n) / 2 if is_beyond(-abs(mean), -margin) else 1.0
    return _t_tail((margin - abs(mean)) / error, n - 1)


def holm(p_values: Mapping[_Key, float]) -> dict[_Key, float]:
    """The p values adjusted for their number (Holm's step-down), never above 1, in the order given.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted: dict[_Key, float] = {}
    largest = 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        # Never below an earlier one: the step-down would otherwise pass a hypothesis that a smaller p has failed.
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[key]))
        adjusted[key] = largest
    return {key: adjusted[key] for key in p_values}


def signed_rank_floor(n: int) -> float:
    """The smallest two-sided p of an exact signed-rank (or sign-flip) test of n pairs: two of 2^n sign patterns."""
    return min(1.0, 2.0 ** (1 - n))


def verdicts(
    comparisons: Mapping[_Key, Comparison], better: Better | Mapping[_Key, Better], alpha: float = ALPHA
) -> dict[_Key, Verdict]:
    """A verdict on every comparison, with Holm's correction over all of them.

    Args:
        comparisons: of one family.
        better: which way is better, of all or of each.
        alpha: level of the family.

    Equivalence within the margin is decided first: a difference that is real but smaller than the margin named
    beforehand is "equivalent". A missing significance alone is "not enough evidence".
    """
    # Each family by itself: a difference and an equivalence of one pair exclude each other.
    differ = holm({key: c.p_difference for key, c in comparisons.items() if c.p_difference is not None})
    equal = holm({key: c.p_equivalence for key, c in comparisons.items() if c.p_equivalence is not None})
    return {
        key: _verdict(
            comparison.difference.mean,
            differ.get(key, 1.0),
            equal.get(key, 1.0),
            better if isinstance(better, str) else better[key],
            alpha,
        )
        for key, comparison in comparisons.items()
    }


def _verdict(mean: float, differ: float, equal: float, better: Better, alpha: float) -> Verdict:
    # Equivalence first: within the margin a difference may be significant and still not matter.
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


# --- more than two settings -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """Where one of several settings stands.

    Args:
        first, last: the best and the worst rank that the evidence allows; equal where all others are told apart.
        letters: settings that share a letter are not told apart (compact letter display).
    """

    first: int
    last: int
    letters: str


def standings(
    values: Mapping[_Key, Mapping[int, float]],
    better: Better,
    margin: float | None = None,
    alpha: float = ALPHA,
) -> dict[_Key, Standing]:
    """Ranks as intervals, from paired comparisons of all pairs with Holm's correction over them.

    Two settings are told apart where one is better or worse; what is equivalent within the margin, or for want of
    evidence undecided, is tied. A pair with fewer than two common seeds is undecided.

    Args:
        values: by setting, the metric by seed.
        better: which way is better.
        margin: of equivalence, or None.
        alpha: level of the family of all pairs.
    """
    order = sorted(values, key=lambda key: _mean_of(values[key]), reverse=better == "higher")
    pairs: dict[tuple[int, int], Comparison] = {}
    for one in range(len(order)):
        for other in range(one + 1, len(order)):
            found = compare(values[order[one]], values[order[other]], margin)
            if found is not None and found.p_difference is not None:
                pairs[one, other] = found
    judged = verdicts(pairs, better, alpha)
    # (better, worse) as places in the order of means; the better mean comes first, so a verdict is "better".
    apart = {(a, b) if verdict == "better" else (b, a) for (a, b), verdict in judged.items() if verdict in _DECIDED}
    letters = _letters(len(order), apart)
    return {
        key: Standing(
            # The best place it can have is behind all that are better for certain, the last one before all that are
            # worse.
            first=1 + sum(worse == place for _, worse in apart),
            last=len(order) - sum(better_one == place for better_one, _ in apart),
            letters=letters[place],
        )
        for place, key in enumerate(order)
    }


_DECIDED: frozenset[Verdict] = frozenset(("better", "worse"))


def _mean_of(values: Mapping[int, float]) -> float:
    return math.fsum(values.values()) / len(values)


def _letters(count: int, apart: Iterable[tuple[int, int]]) -> list[str]:
    """A compact letter display: two of `count` share a letter if and only if they are not told apart.

    Source: Piepho 2004, "An algorithm for a letter-based representation of all-pairwise comparisons" (insert, absorb).
    """
    columns: list[frozenset[int]] = [frozenset(range(count))]
    for one, other in sorted(tuple(sorted(pair)) for pair in apart):
        # A column that holds a pair which is told apart becomes two, one without the one and one without the other.
        split = [column for column in columns if one in column and other in column]
        columns = [column for column in columns if column not in split]
        for new in (column - {gone} for column in split for gone in (one, other)):
            # Absorbed: what lies within another column says nothing that the other does not.
            if not any(new <= column for column in columns):
                columns = [column for column in columns if not column < new] + [new]
    columns.sort(key=sorted)
    return ["".join(_letter(place) for place, column in enumerate(columns) if each in column) for each in range(count)]


def _letter(place: int) -> str:
    """Small letters, capitals, then numbers in brackets: whatever stands side by side, one can tell where each ends."""
    return ascii_letters[place] if place < len(ascii_letters) else f"({place + 1})"


@dataclass(frozen=True)
class Interaction:
    """Whether the differences between patterns depend on the strategy.

    Args:
        n: seeds that every combination has; strategies, patterns: levels of the two factors.
        f: the statistic; degrees: its degrees of freedom, corrected by `epsilon` (Greenhouse and Geisser).
        p: of no interaction; `n` seeds without any spread get the p of a sign-flip test.
    """

    n: int
    strategies: int
    patterns: int
    f: float
    degrees: tuple[float, float]
    epsilon: float
    p: float


def interaction(values: Mapping[_Key, Mapping[_Other, Mapping[int, float]]]) -> Interaction | None:
    """Test whether the differences between patterns are the same under every strategy.

    A two-way analysis of variance with both factors within a seed. Its F test assumes that the contrasts of the
    interaction spread alike (sphericity), which few seeds cannot show: the degrees of freedom are corrected for that.

    Args:
        values: by strategy and pattern, the metric by seed.

    Returns:
        None with fewer than two strategies, patterns that all strategies have, or seeds that all of those have.

    Source: Greenhouse and Geisser 1959, "On methods in the analysis of profile data".
    """
    strategies = list(values)
    shared = [p for p in (values[strategies[0]] if strategies else {}) if all(p in values[s] for s in strategies)]
    cells = [[values[strategy][pattern] for pattern in shared] for strategy in strategies]
    sets = [set(cell) for row in cells for cell in row]
    seeds = sorted(set.intersection(*sets)) if sets else []
    if len(strategies) < 2 or len(shared) < 2 or len(seeds) < 2:
        return None
    data = np.array(
        [[[cell[seed] for seed in seeds] for cell in row] for row in cells]
    )  # (strategies, patterns, seeds)
    a, b, n = data.shape
    # Columns are repetitions: each seed's differences of differences, in an orthonormal base of them.
    contrasts = np.kron(_helmert(a), _helmert(b)) @ data.reshape(a * b, n)  # ((a-1)(b-1), seeds), orthonormal
    rank = (a - 1) * (b - 1)
    means = contrasts.mean(axis=1)
    spread = contrasts - means[:, None]
    between, within = n * float(means @ means), float((spread**2).sum())
    covariance = spread @ spread.T / (n - 1)
    # Box's epsilon of the covariance says how far it is from spherical; it shrinks both degrees of freedom.
    squares = float((covariance**2).sum())
    if within <= _ROUNDING * max(between, float((data**2).sum()) * _ROUNDING):
        # Squares on both sides: rounding errors are a part of the values themselves.
        p = 1.0 if between <= _ROUNDING**2 * float((data**2).sum()) else signed_rank_floor(n)
        return Interaction(n, a, b, math.inf if p < 1 else 0.0, (float(rank), float(rank * (n - 1))), 1.0, p)
    epsilon = float(np.trace(covariance)) ** 2 / (rank * squares)
    # Its bounds: rank one at worst, spherical at best; rounding may step over either.
    epsilon = min(1.0, max(epsilon, 1 / rank))
    f = (between / rank) / (within / (rank * (n - 1)))
    degrees = (rank * epsilon, rank * (n - 1) * epsilon)
    return Interaction(n, a, b, f, degrees, epsilon, float(_special().fdtrc(*degrees, f)))


def _helmert(levels: int) -> NDArray[np.float64]:
    """Orthonormal contrasts of a factor, one fewer than its levels.

    Shapes: (levels - 1, levels).
    """
    rows = np.zeros((levels - 1, levels))
    for row in range(levels - 1):
        rows[row, : row + 1] = 1.0
        rows[row, row + 1] = -(row + 1.0)
        rows[row] /= np.linalg.norm(rows[row])
    return rows


def seeds_to_settle(
    comparison: Comparison, margin: float | None, comparisons: int = 1, *, alpha: float = ALPHA, power: float = 0.8,
    most: int = 200,
) -> int | None:  # fmt: skip
    """How many seeds would settle an open verdict, if the difference and its spread are what they seem to be now.

    Args:
        comparison: two seeds or more.
        margin: of equivalence, or None.
        comparisons: that the verdict is corrected for; the whole correction is asked of this one, which is too much
            rather than too little.
        alpha: level of the tests.
        power: with which they should show it.
        most: seeds beyond which none is named.

    Returns:
        The smallest number for which either the difference or the equivalence shows with this power; None if that is
        more than `most`, or cannot be told: one seed, or no spread.

    Source: power of Student's t from the noncentral t distribution; of two one-sided tests by their sum less one.
    """
    interval_ = comparison.difference
    if interval_.n < 2 or interval_.half is None or interval_.half <= _ROUNDING * max(abs(interval_.mean), 1e-300):
        return None
    # The interval's half width is t times the standard error: turned back into a standard deviation of differences.
    deviation = interval_.half * math.sqrt(interval_.n) / _t_quantile((1 + CONFIDENCE) / 2, interval_.n - 1)
    # The strictest step of Holm's correction: what settles under it does under any.
    level = alpha / max(comparisons, 1)

    def is_enough(n: int) -> bool:
        scale = math.sqrt(n) / deviation
        # The power of the two-sided test, its far tail left out, which is nothing where the power is worth asking for.
        found = _power(abs(interval_.mean) * scale, n - 1, level / 2)
        if margin is not None and abs(interval_.mean) < margin:
            upper = _power((margin - interval_.mean) * scale, n - 1, level)
            found = max(found, upper + _power((margin + interval_.mean) * scale, n - 1, level) - 1)
        return found >= power

    low, high = 2, most
    if not is_enough(high):
        return None
    # By bisection: more seeds never lower the power.
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return low


def _power(noncentrality: float, degrees: int, level: float) -> float:
    """P(T > its quantile at 1 - level) of a noncentral t."""
    found = float(_special().nctdtr(degrees, noncentrality, _t_quantile(1 - level, degrees)))
    # Where the noncentral t has no number left no power is claimed: more seeds are named then, never fewer.
    return 0.0 if math.isnan(found) else 1 - found


def is_beyond(number: float, bound: float) -> bool:
    """Whether a number lies above a bound, and by more than rounding."""
    return number - bound > _EDGE * abs(bound)


def exceeds_p(values: Sequence[float], bound: float) -> float | None:
    """The one-sided p of "the mean is at most the bound"; small if it lies above. None for n = 1.

    Values without spread get the p of a sign-flip test, as in `difference_p`.
    """
    n = len(values)
    if n == 1:
        return None
    mean, error = math.fsum(values) / n, _standard_error(values)
    if error <= _ROUNDING * max(abs(bound), *map(abs, values)):
        return signed_rank_floor(n) / 2 if is_beyond(mean, bound) else 1.0
    return _t_tail((mean - bound) / error, n - 1)
