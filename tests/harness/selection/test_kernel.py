"""The selection kernel against a plain sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import keep_count
from harness.selection.kernel import select
from harness.selection.layout import Layout
from harness.testing import score_matrices, sparsities

SHARES = [
    {},
    {"group": (1, None)},
    {"group": (None, 1)},
    {"group": (1, None), "banks": 3},
    {"group": (None, None), "banks": 2},
    {"unit": (2, 3)},
    {"unit": (4, 4)},
    {"unit": (1, 2), "group": (1, 4)},
    {"unit": (2, 1), "group": (2, 4)},
]


def by_sorting(scores, layout, sparsity, pooling="mean"):
    """The slow way: every group's units in a list, sorted by score and then by place."""
    if sparsity == 0:
        return np.ones(scores.shape, bool)
    mask = np.zeros(scores.shape, bool)
    height, width = layout.unit
    for rows, cols in layout.groups():
        units = []
        for top in range(rows.start, rows.stop, height):
            for left in range(cols.start, cols.stop, width):
                unit = slice(top, min(top + height, rows.stop)), slice(left, min(left + width, cols.stop))
                values = scores[unit].astype(np.float64)
                units.append((-(values.max() if pooling == "max" else values.mean()), len(units), unit))
        for _, _, unit in sorted(units, key=lambda entry: entry[:2])[: layout.quota(sparsity)]:
            mask[unit] = True
    return mask


@pytest.mark.parametrize("share", SHARES, ids=str)
@given(
    scores=score_matrices(rows_multiple_of=2, cols_multiple_of=4),
    sparsity=sparsities(),
    pooling=st.sampled_from(["mean", "max"]),
)
@settings(max_examples=40, deadline=None)
def test_the_mask_is_the_one_a_sort_would_give(share, scores, sparsity, pooling):
    layout = Layout.of(*scores.shape, **share)

    mask = select(scores, layout, sparsity, pooling=pooling)

    np.testing.assert_array_equal(mask, by_sorting(scores, layout, sparsity, pooling))


@pytest.mark.parametrize(
    "share", [{}, {"group": (1, None)}, {"group": (1, None), "banks": 10}, {"unit": (4, 4)}], ids=str
)
@pytest.mark.parametrize("kind", ["equal", "int8-like", "mostly zero", "continuous"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_odd_shapes_and_many_ties_give_exact_counts(share, kind, dtype):
    rng = np.random.default_rng(3)
    scores = {
        "equal": np.full((61, 243), 0.5),
        "int8-like": rng.integers(0, 128, (61, 243)) / 128,
        "mostly zero": np.where(rng.random((61, 243)) < 0.95, 0.0, rng.random((61, 243))),
        "continuous": rng.random((61, 243)),
    }[kind].astype(dtype)
    layout = Layout.of(61, 243, **share)

    mask = select(scores, layout, 0.9)

    np.testing.assert_array_equal(mask, by_sorting(scores, layout, 0.9))


@pytest.mark.parametrize("levels", [3, 200, None])
@pytest.mark.parametrize("sparsity", [0.0001, 0.5, 0.9, 0.99999])
def test_a_large_matrix_is_selected_as_a_stable_sort_would(levels, sparsity):
    rng = np.random.default_rng(5)
    drawn = rng.standard_normal((500, 400)) if levels is None else rng.integers(0, levels, (500, 400))
    scores = np.abs(drawn).astype(np.float32)  # beyond the size from which the threshold is bracketed
    order = np.argsort(-scores.ravel(), kind="stable")

    mask = select(scores, Layout.of(500, 400), sparsity)

    assert set(np.flatnonzero(mask)) == set(order[: keep_count(scores.size, sparsity)])


def by_stable_sort(scores, size, sparsity):
    """Groups of `size` scores laid end to end, each sorted whole; a sort that keeps equal scores in their order."""
    groups = scores.reshape(-1, size)
    mask = np.zeros(groups.shape, bool)
    best = np.argsort(-groups.astype(np.float64), axis=1, kind="stable")[:, : keep_count(size, sparsity)]
    np.put_along_axis(mask, best, True, axis=1)
    return mask.reshape(scores.shape)


@pytest.mark.parametrize("step", range(1, 60, 2))
@pytest.mark.parametrize("seen", [-1.0, 1e6], ids=["too low", "too high"])
def test_a_sample_that_misleads_does_not_change_the_mask(step, seen):
    scores = np.random.default_rng(0).random((100, 120), dtype=np.float32)
    scores.reshape(-1)[::step] = seen  # whatever stride the sample has, one of these deceives it

    mask = select(scores, Layout.of(100, 120), 0.9)

    np.testing.assert_array_equal(mask, by_stable_sort(scores, scores.size, 0.9))


def drawn(kind, shape, rng):
    magnitudes = np.abs(rng.standard_normal(shape))
    return {
        "continuous": magnitudes,
        "signed": rng.standard_normal(shape),
        "tied": np.round(magnitudes * 8) / 8,
        "all equal": np.full(shape, 0.5),
        "zeros of both signs": np.where(rng.random(shape) < 0.5, 0.0, -0.0),
        "mostly zero": np.where(rng.random(shape) < 0.95, 0.0, magnitudes),
        "pruned before": np.where(rng.random(shape) < 0.8, -np.inf, magnitudes),
        "pruned too far": np.where(rng.random(shape) < 0.95, -np.inf, magnitudes),
        "ascending": np.sort(magnitudes, axis=None).reshape(shape),
    }[kind]


KINDS = [
    "continuous", "signed", "tied", "all equal", "zeros of both signs", "mostly zero", "pruned before",
    "pruned too far", "ascending",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [2, 4, 16, 17, 60, 512, 520, 8190, 8192])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_groups_of_any_size_are_selected_as_a_stable_sort_would(kind, size, dtype):
    scores = drawn(kind, (3, size), np.random.default_rng(size)).astype(dtype)

    for quota in sorted({1, max(1, size // 10), size // 2, size - 1}):
        sparsity = round(1 - quota / size, 9)
        mask = select(scores, Layout.of(3, size, group=(1, size)), sparsity)

        np.testing.assert_array_equal(mask, by_stable_sort(scores, size, sparsity), err_msg=f"quota {quota}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [4, 60, 12_000])
def test_matrices_of_several_pieces_are_selected_as_a_stable_sort_would(kind, size):
    scores = drawn(kind, (30, 12_000), np.random.default_rng(1)).astype(np.float32)

    mask = select(scores, Layout.of(30, 12_000, group=(1, size)), 0.75)

    np.testing.assert_array_equal(mask, by_stable_sort(scores, size, 0.75))
    np.testing.assert_array_equal(
        select(scores, Layout.of(30, 12_000), 0.75), by_stable_sort(scores, scores.size, 0.75)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", [(4, 4), (1, 8), (3, 5), (8, 2)], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-36, 1e37])
def test_blocks_are_chosen_by_their_means_in_double_precision(kind, unit, scale):
    scores = (drawn(kind, (24, 240), np.random.default_rng(2)) * scale).astype(np.float32)
    layout = Layout.of(24, 240, unit=unit)

    for sparsity in (0.3, 0.9):
        np.testing.assert_array_equal(select(scores, layout, sparsity), by_sorting(scores, layout, sparsity))


@pytest.mark.parametrize("place", [0, 1, 3])
def test_blocks_that_single_precision_cannot_tell_apart_are_told_apart(place):
    scores = np.full((4, 800), 0.125, np.float32)  # 200 blocks: four alike but for a trace, 99 above, 97 below
    scores[:, 400:796] = 2.0
    scores[:, :16] = 0.0
    scores[0, :16] = 1.0
    scores[1, :16:4] = 2.0**-25  # lost when it is added to 1 in float32
    scores[1, 4 * place] = 2.0**-24

    mask = select(scores, Layout.of(4, 800, unit=(4, 4)), 0.5)

    assert mask[:, 400:796].all()
    assert mask[:, 4 * place : 4 * place + 4].all()
    assert mask.sum() == 100 * 16


@pytest.mark.parametrize(
    "share", [{}, {"group": (1, 4)}, {"group": (1, 60)}, {"unit": (4, 4)}, {"unit": (5, 7)}], ids=str
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_no_way_of_selecting_lets_scores_pass_that_are_not_finite(share, value, pooling):
    scores = np.random.default_rng(0).random((40, 8400), dtype=np.float32)
    scores[17, 4321] = value
    scores[18, 4321] = -np.inf  # whose sum with +inf is NaN

    with pytest.raises(ValueError, match=r"NaN or \+inf"):
        select(scores, Layout.of(40, 8400, **share), 0.5, pooling=pooling)


def test_pruned_weights_rank_below_all_others_even_below_zeros():
    scores = np.array([[-np.inf, 0.0, -np.inf, 0.0, 2.0, -np.inf]])

    mask = select(scores, Layout.of(1, 6), 0.5)

    assert mask.tolist() == [[False, True, False, True, True, False]]


def test_ties_stay_at_the_lower_row_major_index():
    mask = select(np.ones((2, 4)), Layout.of(2, 4), 0.375)

    assert mask.tolist() == [[True, True, True, True], [True, False, False, False]]


def test_scores_in_another_memory_order_give_the_same_mask():
    scores = np.random.default_rng(0).integers(0, 4, (12, 30)).astype(np.float32)
    layout = Layout.of(12, 30, group=(1, None), banks=7)
    strided = np.repeat(scores, 2, axis=1)[:, ::2]

    mask = select(scores, layout, 0.6)

    np.testing.assert_array_equal(select(np.asfortranarray(scores), layout, 0.6), mask)
    np.testing.assert_array_equal(select(strided, layout, 0.6), mask)


def test_the_scores_are_left_alone():
    scores = np.random.default_rng(0).random((6, 20))
    scores.flags.writeable = False

    assert select(scores, Layout.of(6, 20, unit=(2, 2)), 0.5).sum() == 60


@given(scores=score_matrices(cols_multiple_of=4), sparsity=sparsities(), seed=st.integers(0, 9))
@settings(deadline=None)
def test_permuting_groups_permutes_the_mask(scores, sparsity, seed):
    layout = Layout.of(*scores.shape, group=(1, 4))
    order = np.random.default_rng(seed).permutation(scores.size // 4)

    shuffled = scores.reshape(-1, 4)[order].reshape(scores.shape)

    expected = select(scores, layout, sparsity).reshape(-1, 4)[order].reshape(scores.shape)
    np.testing.assert_array_equal(select(shuffled, layout, sparsity), expected)


@given(scores=score_matrices(), sparsity=sparsities(), scale=st.sampled_from([0.125, 2.0, 1024.0]))
@settings(deadline=None)
def test_scaling_all_scores_changes_nothing(scores, sparsity, scale):
    layout = Layout.of(*scores.shape)

    np.testing.assert_array_equal(
        select((scores * scale).astype(scores.dtype), layout, sparsity), select(scores, layout, sparsity)
    )


@pytest.mark.parametrize("share", SHARES, ids=str)
@given(scores=score_matrices(rows_multiple_of=2, cols_multiple_of=4), low=sparsities(), high=sparsities())
@settings(max_examples=30, deadline=None)
def test_a_higher_sparsity_keeps_a_subset_also_when_pruned_step_by_step(share, scores, low, high):
    low, high = sorted((low, high))
    layout = Layout.of(*scores.shape, **share)
    wide, narrow = select(scores, layout, low), select(scores, layout, high)

    stepwise = select(np.where(wide, scores, -np.inf), layout, high)

    assert not (narrow & ~wide).any()
    np.testing.assert_array_equal(stepwise, narrow)


@given(scores=score_matrices())
@settings(deadline=None)
def test_sparsity_zero_keeps_everything(scores):
    assert select(scores, Layout.of(*scores.shape, group=(1, None), banks=1), 0.0).all()


def test_an_edge_cell_is_pooled_over_the_weights_it_has():
    scores = np.zeros((1, 5))
    scores[0, 4] = 1.0  # the mean of its own unit is 1, of a padded one it would be 0.25
    scores[0, 0:4] = 0.5

    mask = select(scores, Layout.of(1, 5, unit=(1, 4)), 0.5)

    assert mask.tolist() == [[False, False, False, False, True]]


@pytest.mark.parametrize("sparsity", [1.0, -0.1, 90.0, float("nan")])
def test_a_sparsity_outside_its_range_is_refused(sparsity):
    with pytest.raises(ValueError, match=r"in \[0, 1\), got"):
        select(np.ones((2, 2)), Layout.of(2, 2), sparsity)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(value):
    scores = np.ones((4, 4))
    scores[2, 1] = value

    with pytest.raises(ValueError, match="NaN or"):
        select(scores, Layout.of(4, 4), 0.5)


def test_a_layout_for_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\), got scores of shape \(3, 2\)"):
        select(np.ones((3, 2)), Layout.of(2, 3), 0.5)
