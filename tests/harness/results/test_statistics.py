"""Statistics over seeds, against scipy.stats and against laws."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats  # noqa: TID253  # the reference, wanted in every test

from harness.results.statistics import (
    Comparison,
    Interval,
    compare,
    difference_p,
    equivalence_p,
    holm,
    interval,
    signed_rank_floor,
    verdicts,
)

A = {0: 91.2, 1: 92.8, 2: 90.9, 3: 91.7, 4: 92.1}
B = {0: 90.1, 1: 91.9, 2: 90.4, 3: 90.2, 4: 91.3}
DIFFERENCES = [A[seed] - B[seed] for seed in A]

numbers = st.floats(-1000, 1000).map(lambda number: round(number, 3))
samples = st.lists(numbers, min_size=2, max_size=8)
p_values = st.dictionaries(st.integers(0, 20), st.floats(0, 1), min_size=1, max_size=8)


def test_the_interval_is_students():
    low, high = stats.t.interval(0.95, df=4, loc=stats.tmean(list(A.values())), scale=stats.sem(list(A.values())))

    found = interval(list(A.values()))

    assert found.n == 5
    assert found.mean - found.half == pytest.approx(low, rel=1e-12)
    assert found.mean + found.half == pytest.approx(high, rel=1e-12)


def test_one_seed_has_no_interval():
    assert interval([3.5]) == Interval(n=1, mean=3.5, half=None)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_a_mean_of_missing_values_is_refused(values):
    with pytest.raises(ValueError, match="expected at least one value, all finite"):
        interval(values)


@given(values=samples, shift=numbers)
def test_a_shift_of_all_values_moves_the_mean_and_not_the_width(values, shift):
    plain, shifted = interval(values), interval([value + shift for value in values])

    assert shifted.mean == pytest.approx(plain.mean + shift, abs=1e-6)
    assert shifted.half == pytest.approx(plain.half, abs=1e-6)


@given(values=samples, order=st.randoms())
def test_the_order_of_seeds_does_not_matter(values, order):
    shuffled = list(values)
    order.shuffle(shuffled)

    assert interval(shuffled).mean == interval(values).mean


def test_the_p_of_a_difference_is_the_paired_t_tests():
    reference = stats.ttest_rel(list(A.values()), list(B.values())).pvalue

    assert difference_p(DIFFERENCES) == pytest.approx(reference, rel=1e-9)


@pytest.mark.parametrize("margin", [0.2, 1.0, 2.5])
def test_the_p_of_equivalence_is_the_larger_of_two_one_sided_tests(margin):
    above = stats.ttest_1samp(DIFFERENCES, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(DIFFERENCES, margin, alternative="less").pvalue

    assert equivalence_p(DIFFERENCES, margin) == pytest.approx(max(above, below), rel=1e-9)


@pytest.mark.parametrize("margin", [0, -1.0, math.nan])
def test_a_margin_is_positive(margin):
    with pytest.raises(ValueError, match="a positive number"):
        equivalence_p(DIFFERENCES, margin)


def test_only_common_seeds_are_compared():
    found = compare({0: 5.0, 1: 6.0, 7: 100.0}, {1: 5.5, 0: 4.0, 8: -100.0})

    assert found.difference.n == 2
    assert found.difference.mean == pytest.approx(0.75)


def test_nothing_in_common_is_no_comparison():
    assert compare({0: 5.0}, {1: 5.0}) is None


def test_one_common_seed_gives_a_difference_and_no_test():
    found = compare({0: 5.0}, {0: 4.0}, margin=1.0)

    assert found == Comparison(Interval(1, 1.0, None), p_difference=None, p_equivalence=None, floor=1.0)


@given(pairs=st.lists(st.tuples(numbers, numbers), min_size=2, max_size=8))
def test_exchanging_the_two_sides_turns_the_sign_and_keeps_the_p(pairs):
    left = {seed: pair[0] for seed, pair in enumerate(pairs)}
    right = {seed: pair[1] for seed, pair in enumerate(pairs)}

    there, back = compare(left, right, margin=1.0), compare(right, left, margin=1.0)

    assert there.difference.mean == -back.difference.mean
    assert there.p_difference == pytest.approx(back.p_difference)
    assert there.p_equivalence == pytest.approx(back.p_equivalence)


@given(values=samples, margin=st.floats(0.001, 100))
def test_a_p_is_a_probability(values, margin):
    assert 0 <= difference_p(values) <= 1
    assert 0 <= equivalence_p(values, margin) <= 1


@given(values=samples, margin=st.floats(0.001, 100))
def test_a_wider_margin_is_never_harder_to_meet(values, margin):
    assert equivalence_p(values, 2 * margin) <= equivalence_p(values, margin) + 1e-12


def test_differences_without_spread_do_not_prove_more_than_their_number_can():
    assert difference_p([0.5, 0.5]) == 0.5
    assert difference_p([0.1, 0.3 - 0.2, 0.1]) == 0.25  # equal but for rounding
    assert difference_p([0.0, 0.0, 0.0]) == 1.0
    assert equivalence_p([0.5] * 6, margin=1.0) == 0.5**6
    assert equivalence_p([0.5] * 6, margin=0.5) == 1.0


@pytest.mark.parametrize("n", [2, 3, 5, 6, 8])
def test_the_floor_is_what_an_exact_signed_rank_test_reaches_at_best(n):
    best = stats.wilcoxon([1.0 + i for i in range(n)], method="exact").pvalue

    assert signed_rank_floor(n) == pytest.approx(best)


def test_five_seeds_cannot_reach_five_percent_and_six_can():
    assert signed_rank_floor(5) > 0.05 > signed_rank_floor(6)


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_the_next_by_one_less():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})

    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]


@given(p=p_values)
def test_holm_only_raises_keeps_the_order_and_stays_a_probability(p):
    adjusted = holm(p)

    assert all(p[key] <= adjusted[key] <= 1 for key in p)
    assert all(adjusted[a] <= adjusted[b] for a in p for b in p if p[a] < p[b])


@given(p=st.floats(0, 1))
def test_holm_leaves_a_single_test_alone(p):
    assert holm({"only": p}) == {"only": p}


def _verdict(differences, better="lower", margin=None):
    found = compare(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0), margin)
    return verdicts({"it": found}, better)["it"]


def test_less_is_better_where_lower_is_better_and_worse_where_higher_is():
    clearly_less = [-5.0, -5.1, -4.9, -5.05]

    assert _verdict(clearly_less, "lower") == "better"
    assert _verdict(clearly_less, "higher") == "worse"
    assert _verdict([-d for d in clearly_less], "lower") == "worse"


def test_a_missing_significance_is_not_equivalence():
    assert _verdict([3.0, -3.0, 0.5]) == "not enough evidence"
    assert _verdict([3.0, -3.0, 0.5], margin=1.0) == "not enough evidence"


def test_a_real_difference_within_the_margin_is_equivalence():
    small = [0.10, 0.11, 0.09, 0.105]

    assert _verdict(small) == "worse"
    assert _verdict(small, margin=1.0) == "equivalent"


def test_one_seed_proves_nothing():
    assert _verdict([-50.0], margin=1.0) == "not enough evidence"


def test_more_comparisons_ask_for_more_evidence():
    borderline = compare(dict(enumerate([1.0, 1.5, 0.4, 1.2])), dict.fromkeys(range(4), 0.0))
    noise = compare(dict(enumerate([1.0, -1.0, 0.3, -0.2])), dict.fromkeys(range(4), 0.0))

    alone = verdicts({"it": borderline}, "lower")
    among_many = verdicts({"it": borderline} | {f"noise {i}": noise for i in range(20)}, "lower")

    assert alone["it"] == "worse"
    assert among_many["it"] == "not enough evidence"
