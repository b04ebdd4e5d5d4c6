"""Statistics over seeds, against scipy.stats and against laws."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats  # noqa: TID253  # the reference, wanted in every test

from harness.results import statistics
from harness.results.statistics import (
    Comparison,
    Interval,
    compare,
    difference_p,
    equivalence_p,
    holm,
    interaction,
    interval,
    seeds_to_settle,
    signed_rank_floor,
    standings,
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


# Student 1908, "The probable error of a mean", table of Cushny and Peebles: hours of sleep gained by ten patients with
# one drug and with the other. The paired test is a textbook's: t = 4.0621 with 9 degrees of freedom, p = 0.002833, and
# the interval 0.7001 to 2.4599 (R, `t.test` of its data set `sleep`).
ONE_DRUG = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
THE_OTHER = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_the_textbooks_example_of_a_paired_test():
    found = compare(dict(enumerate(THE_OTHER)), dict(enumerate(ONE_DRUG)))

    assert found.p_difference == pytest.approx(0.002833, abs=5e-7)
    low, high = (found.difference.mean + sign * found.difference.half for sign in (-1, 1))
    assert (low, high) == (pytest.approx(0.7001, abs=5e-5), pytest.approx(2.4599, abs=5e-5))


@given(
    total=st.sampled_from([100, 10_000, 50_000, 10**6]),
    right=st.lists(st.floats(0.5, 0.9), min_size=2, max_size=9),
    step=st.integers(0, 50),
)
def test_accuracies_that_are_equally_many_images_apart_have_no_spread_and_prove_no_more_than_their_number_can(
    total, right, step
):
    # As a task computes them: the same number of images apart, which floats show up to their rounding only.
    counts = [int(part * total) for part in right]
    ours, theirs = ({seed: 100 * (n + more) / total for seed, n in enumerate(counts)} for more in (step, 0))
    n, margin = len(counts), 100 * step / total

    found = compare(ours, theirs, margin or None)
    wider = compare(ours, theirs, 2 * margin or 1.0)

    assert found.difference.half <= 1e-12 * abs(found.difference.mean)
    assert found.p_difference == (signed_rank_floor(n) if step else 1.0)
    assert found.p_equivalence == (1.0 if step else None)  # on the margin, and so not within it
    assert wider.p_equivalence == signed_rank_floor(n) / 2


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


@given(p=st.dictionaries(st.integers(0, 9), st.sampled_from([0.0, 0.004, 0.01, 0.02, 0.3, 1.0]), max_size=5))
def test_holm_is_the_closed_test_of_bonferronis(p):
    # A hypothesis falls if every set of hypotheses that holds it does, each by its smallest p times its size.
    expected = {
        one: max(
            min(1.0, size * min(p[each] for each in some))
            for size in range(1, len(p) + 1)
            for some in combinations(p, size)
            if one in some
        )
        for one in p
    }

    assert holm(p) == pytest.approx(expected)


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


def test_each_comparison_of_a_family_may_have_its_own_better_way():
    less = compare(dict(enumerate([-5.0, -5.1, -4.9, -5.05])), dict.fromkeys(range(4), 0.0))

    assert verdicts({"loss": less, "accuracy": less}, {"loss": "lower", "accuracy": "higher"}) == {
        "loss": "better", "accuracy": "worse",
    }  # fmt: skip


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


# --- more than two settings -----------------------------------------------------------------------------------------


def settings_at(means, spread=0.1, seeds=6, start=0):
    """Values by setting and seed: a common effect of the seed, and noise of its own that is no rounding."""
    draw = np.random.default_rng(start)
    common = draw.normal(0, 5, seeds)
    return {
        name: dict(enumerate((mean + common + draw.normal(0, spread, seeds)).tolist())) for name, mean in means.items()
    }


def test_settings_far_apart_have_ranks_and_letters_of_their_own():
    found = standings(settings_at({"c": 30, "a": 10, "b": 20}), "lower")

    assert {name: (each.first, each.last, each.letters) for name, each in found.items()} == {
        "a": (1, 1, "a"), "b": (2, 2, "b"), "c": (3, 3, "c"),
    }  # fmt: skip
    assert list(found) == ["a", "b", "c"]
    assert list(standings(settings_at({"c": 30, "a": 10, "b": 20}), "higher")) == ["c", "b", "a"]


def test_a_setting_between_two_others_shares_a_letter_with_both():
    seeds = range(6)
    values = {
        "low": {s: 10 + 0.3 * (-1) ** s for s in seeds},
        "middle": {s: 10.4 + 0.9 * (-1) ** (s // 2) for s in seeds},
        "high": {s: 11.2 + 0.3 * (-1) ** (s + 1) for s in seeds},
    }

    found = standings(values, "lower")

    assert [(each.letters, each.first, each.last) for each in found.values()] == [
        ("a", 1, 2),
        ("ab", 1, 3),
        ("b", 2, 3),
    ]


def test_what_is_equivalent_within_the_margin_is_tied_however_significant():
    values = settings_at({"a": 10.0, "b": 10.5}, spread=0.01)

    assert {each.letters for each in standings(values, "lower").values()} == {"a", "b"}
    assert {each.letters for each in standings(values, "lower", margin=1.0).values()} == {"a"}


def test_one_seed_tells_nothing_apart():
    found = standings({"a": {0: 1.0}, "b": {0: 9.0}, "c": {1: 50.0}}, "lower")

    assert {(each.first, each.last, each.letters) for each in found.values()} == {(1, 3, "a")}


@given(
    count=st.integers(1, 7),
    pairs=st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda p: p[0] < p[1])),
)
def test_two_settings_share_a_letter_if_and_only_if_they_are_tied(count, pairs):
    apart = {pair for pair in pairs if max(pair) < count}

    letters = statistics._letters(count, apart)

    for one in range(count):
        for other in range(one + 1, count):
            assert bool(set(letters[one]) & set(letters[other])) is ((one, other) not in apart)
    assert all(letters)
    # As few as can be: a letter stands at settings of which no two are told apart, and to which none can be added.
    groups = [{place for place, each in enumerate(letters) if letter in each} for letter in set("".join(letters))]
    tied = [
        set(some)
        for size in range(1, count + 1)
        for some in combinations(range(count), size)
        if not any(pair in apart for pair in combinations(some, 2))
    ]
    assert sorted(map(sorted, groups)) == sorted(sorted(some) for some in tied if not any(some < more for more in tied))


def test_letters_beyond_the_alphabet_do_not_run_into_each_other():
    letters = statistics._letters(60, set(combinations(range(60), 2)))

    assert len(set(letters)) == 60 and letters[0] == "a" and letters[26] == "A" and letters[59] == "(60)"
    assert all(len(each) == 1 or each[0] + each[-1] == "()" for each in letters)


def test_of_equal_settings_some_are_told_apart_in_five_percent_of_studies_at_most():
    studies = [settings_at(dict.fromkeys("abcd", 10.0), spread=1.0, seeds=5, start=place) for place in range(400)]

    wrong = sum(len({each.letters for each in standings(study, "lower").values()}) > 1 for study in studies)

    assert wrong <= 0.05 * 400 + 3 * math.sqrt(0.05 * 0.95 * 400)


# Values by strategy, pattern and seed, and what `statsmodels.stats.anova.AnovaRM` (0.14) says of them.
ANOVA = [
    [
        [102.04, 98.44, 102.42, 102.43, 103.55], [99.78, 98.98, 101.77, 102.13, 107.32],
        [100.23, 100.65, 101.72, 102.33, 102.94],
    ],
    [
        [100.11, 101.98, 102.26, 104.46, 104.3], [100.52, 103.05, 103.05, 102.99, 104.32],
        [101.04, 103.44, 102.23, 103.26, 105.5],
    ],
    [
        [100.11, 101.71, 103.88, 104.58, 105.09], [103.17, 100.67, 105.52, 104.54, 104.83],
        [101.28, 102.7, 102.56, 102.92, 105.03],
    ],
]  # fmt: skip
ANOVA_F = 0.349606


def by_strategy(table):
    return {s: {p: dict(enumerate(cell)) for p, cell in enumerate(row)} for s, row in enumerate(table)}


def test_the_interaction_is_that_of_a_two_way_analysis_within_seeds():
    found = interaction(by_strategy(ANOVA))

    assert found.f == pytest.approx(ANOVA_F, abs=1e-6)
    assert (found.n, found.strategies, found.patterns) == (5, 3, 3)
    # Uncorrected: F(4, 16), p = 0.840468; the correction takes the same part of both.
    assert stats.f.sf(found.f, 4, 16) == pytest.approx(0.840468, abs=1e-6)
    assert found.degrees == pytest.approx((4 * found.epsilon, 16 * found.epsilon))
    assert found.p == pytest.approx(stats.f.sf(found.f, *found.degrees), rel=1e-9)
    # Greenhouse and Geisser's: of the covariance of all nine cells, centred by rows and columns of the design.
    centred = np.kron(np.eye(3) - 1 / 3, np.eye(3) - 1 / 3)
    covariance = centred @ np.cov(np.reshape(ANOVA, (9, 5))) @ centred
    assert found.epsilon == pytest.approx(np.trace(covariance) ** 2 / (4 * (covariance**2).sum()), rel=1e-9)


@pytest.mark.parametrize(("a", "b", "n"), [(2, 2, 2), (2, 4, 2), (3, 2, 3), (3, 3, 10), (4, 3, 2)])
def test_the_interaction_is_that_of_its_sums_of_squares(a, b, n):
    x = np.random.default_rng(a * b * n).normal(100, 1, (a, b, n)) + np.arange(n)

    found = interaction(by_strategy(x.tolist()))

    cells, by_row, by_column = x.mean(2, keepdims=True), x.mean(1, keepdims=True), x.mean(0, keepdims=True)
    rows, columns = x.mean((1, 2), keepdims=True), x.mean((0, 2), keepdims=True)
    seeds, whole = x.mean((0, 1), keepdims=True), x.mean()
    between = n * ((cells - rows - columns + whole) ** 2).sum()
    within = ((x - cells - by_row - by_column + rows + columns + seeds - whole) ** 2).sum()
    assert found.f == pytest.approx(between / (within / (n - 1)), rel=1e-9)
    assert found.degrees[1] == pytest.approx((n - 1) * found.degrees[0])
    if n == 2:  # one deviation: the fewest degrees of freedom there can be
        assert found.degrees == pytest.approx((1, 1))


def test_of_two_patterns_and_two_strategies_the_interaction_is_a_paired_t_test_of_differences():
    (a, b), (c, d) = (row[:2] for row in ANOVA[:2])
    contrast = [(w - x) - (y - z) for w, x, y, z in zip(a, b, c, d, strict=True)]

    found = interaction(by_strategy([row[:2] for row in ANOVA[:2]]))

    reference = stats.ttest_1samp(contrast, 0)
    assert found.f == pytest.approx(reference.statistic**2, rel=1e-9)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-9) and found.epsilon == 1


def test_patterns_that_swap_places_between_strategies_interact_and_a_constant_shift_does_not():
    draw = np.random.default_rng(1)
    noise = draw.normal(0, 0.1, (2, 2, 5))
    swapped = np.array([[[10.0], [12.0]], [[12.0], [10.0]]]) + noise
    shifted = np.array([[[10.0], [12.0]], [[20.0], [22.0]]]) + noise

    assert interaction(by_strategy(swapped.tolist())).p < 0.001
    assert interaction(by_strategy(shifted.tolist())).p > 0.05


def test_without_a_true_interaction_one_is_seen_in_five_percent_of_studies_at_most():
    draw = np.random.default_rng(5)
    found = [
        interaction(by_strategy((draw.normal(0, 1, (3, 3, 5)) + draw.normal(0, 9, 5)).tolist())) for _ in range(600)
    ]

    assert sum(each.p < 0.05 for each in found) <= 0.05 * 600 + 3 * math.sqrt(0.05 * 0.95 * 600)


@pytest.mark.parametrize(
    "values",
    [{}, {"s": {"p": {0: 1.0}, "q": {0: 1.0}}}, {"s": {"p": {0: 1, 1: 2}}, "t": {"p": {0: 1, 1: 2}}},
     {"s": {"p": {0: 1}, "q": {0: 1}}, "t": {"p": {0: 1}, "q": {0: 1}}}],
)  # fmt: skip
def test_there_is_no_interaction_of_one_strategy_one_pattern_or_one_seed(values):
    assert interaction(values) is None


def test_without_any_spread_an_interaction_has_the_p_of_a_sign_flip_test():
    values = by_strategy([[[1.0] * 4, [2.0] * 4], [[2.0] * 4, [1.0] * 4]])

    assert interaction(values).p == signed_rank_floor(4)
    assert interaction(by_strategy([[[1.0] * 4, [2.0] * 4], [[3.0] * 4, [4.0] * 4]])).p == 1.0


def compared(mean, deviation, n=4):
    """A comparison whose differences have exactly this mean and standard deviation."""
    half = stats.t.ppf(0.975, n - 1) * deviation / math.sqrt(n)
    return Comparison(Interval(n, mean, half), 0.5, None, signed_rank_floor(n))


@pytest.mark.parametrize(
    ("effect", "comparisons", "wanted"),
    [(0.8, 1, 15), (0.5, 12, 60)],  # statsmodels' TTestPower.solve_power at 80 %: 14.30 and 59.09 seeds
)
def test_the_seeds_that_settle_a_difference_are_those_of_its_power(effect, comparisons, wanted):
    assert seeds_to_settle(compared(effect * 2.0, 2.0), None, comparisons) == wanted


def test_the_seeds_that_settle_an_equivalence_do_so_in_eighty_percent_of_studies():
    n = seeds_to_settle(compared(0.1, 1.0), 1.0)
    draw = np.random.default_rng(2)

    rates = []
    for seeds in (n, n - 2):
        studies = draw.normal(0.1, 1.0, (1500, seeds))
        rates.append(sum(equivalence_p(study.tolist(), 1.0) <= 0.05 for study in studies) / 1500)

    assert rates[0] >= 0.77 and rates[1] < 0.84


def test_two_seeds_are_enough_to_tell_how_many_settle_it_and_none_beyond_the_most_is_named():
    wanted = seeds_to_settle(compared(0.8, 1.0, n=2), None)

    assert wanted == seeds_to_settle(compared(0.8, 1.0, n=5), None)
    assert seeds_to_settle(compared(0.8, 1.0, n=2), None, most=wanted) == wanted
    assert seeds_to_settle(compared(0.8, 1.0, n=2), None, most=wanted - 1) is None


def test_what_cannot_be_settled_has_no_number_of_seeds():
    assert seeds_to_settle(compared(1e-4, 5.0), None) is None
    assert seeds_to_settle(Comparison(Interval(1, 3.0, None), None, None, 1.0), 1.0) is None
    assert seeds_to_settle(compared(0.0, 0.0), 1.0) is None


def test_holm_is_that_of_statsmodels():
    # statsmodels.stats.multitest.multipletests(method="holm")
    assert list(holm(dict(enumerate([0.01, 0.04, 0.03, 0.005, 0.2]))).values()) == pytest.approx(
        [0.04, 0.09, 0.09, 0.025, 0.2]
    )
