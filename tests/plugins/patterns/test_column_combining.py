"""Column combining: groups of columns that keep one weight of a row between them."""

import numpy as np
import pytest
from harness_plugins.patterns.column_combining import ColumnCombining, winners
from harness_plugins.patterns.unstructured import Unstructured
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.testing import check_pattern, score_matrices, sparsities

MATRICES = score_matrices(max_rows=12, max_cols=24)
PATTERNS = st.builds(ColumnCombining, columns=st.integers(2, 6), conflicts=st.sampled_from([0.0, 0.5, 1.75, 4.0]))


def random_scores(seed, rows, cols):
    return np.abs(np.random.default_rng(seed).normal(size=(rows, cols))).astype(np.float32)


def per_row_and_group(mask, group):
    return np.stack([mask[:, group == each].sum(axis=1) for each in range(group.max() + 1)])


@given(scores=MATRICES, sparsity=sparsities())
@settings(deadline=None, max_examples=40)
def test_one_column_by_itself_and_a_single_row_are_unstructured(scores, sparsity):
    wanted = Unstructured().mask(scores, sparsity)

    assert np.array_equal(ColumnCombining(columns=1).mask(scores, sparsity), wanted)
    if sparsity >= 0.5:
        row = scores[:1]
        assert np.array_equal(
            ColumnCombining(columns=2, conflicts=0).mask(row, sparsity), Unstructured().mask(row, sparsity)
        )


@given(pattern=PATTERNS, scores=MATRICES, sparsity=sparsities())
@settings(deadline=None, max_examples=80)
def test_what_fits_into_packed_columns_has_one_weight_per_row_and_group(pattern, scores, sparsity):
    mask, group = pattern.mask(scores, sparsity), pattern.groups(scores)

    assert np.bincount(group).max() <= pattern.columns
    if mask.sum() <= pattern.capacity(*scores.shape):
        assert per_row_and_group(mask, group).max() <= 1


@given(pattern=PATTERNS, seed=st.integers(0, 999), steps=st.lists(st.floats(0.05, 0.95), min_size=1, max_size=5))
@settings(deadline=None, max_examples=80)
def test_that_stays_so_after_any_number_of_updates_on_other_scores(pattern, seed, steps):
    rows, cols = 9, 20
    mask = np.ones((rows, cols), bool)
    for place, sparsity in enumerate(sorted(steps)):
        scores = np.where(mask, random_scores([seed, place], rows, cols), -np.inf)
        before, mask = mask, pattern.mask(scores, sparsity)

        assert not (mask & ~before).any()
        assert mask.sum() == Unstructured().mask(scores, sparsity).sum()
        if mask.sum() <= pattern.capacity(rows, cols):
            assert per_row_and_group(mask, pattern.groups(scores)).max() <= 1


@given(pattern=PATTERNS, seed=st.integers(0, 999))
@settings(deadline=None, max_examples=40)
def test_groups_lose_no_more_candidates_to_a_larger_weight_of_a_row_than_is_allowed(pattern, seed):
    rows, cols = 16, 24
    scores = random_scores(seed, rows, cols)
    room = pattern.capacity(rows, cols)
    candidates = Unstructured().mask(scores, max(0.0, 1 - int(room * (1 + pattern.conflicts)) / scores.size))

    lost = np.maximum(per_row_and_group(candidates, pattern.groups(scores)) - 1, 0).sum(axis=1)

    assert lost.max() <= pattern.conflicts * rows + 1e-9
    assert candidates.sum() - lost.sum() >= min(room, candidates.sum())


@given(pattern=PATTERNS, seed=st.integers(0, 999), sparsity=sparsities())
@settings(deadline=None, max_examples=40)
def test_rows_in_another_order_keep_the_same_weights(pattern, seed, sparsity):
    scores = random_scores(seed, 12, 16)
    order = np.random.default_rng(seed).permutation(12)

    assert np.array_equal(pattern.mask(scores[order], sparsity), pattern.mask(scores, sparsity)[order])


@pytest.mark.parametrize("columns", [2, 4, 8])
def test_columns_that_were_packed_once_are_found_again_wherever_they_lie(columns):
    rng = np.random.default_rng(columns)
    rows, packed = 300, 6
    large = np.zeros((rows, packed, columns), bool)
    np.put_along_axis(large, rng.integers(0, columns, (rows, packed, 1)), True, axis=2)
    order = rng.permutation(packed * columns)
    large = large.reshape(rows, -1)[:, order]
    scores = np.where(large, 2.0, 1.0) + rng.random(large.shape) / 2

    pattern = ColumnCombining(columns=columns, conflicts=0)

    assert np.array_equal(pattern.mask(scores, 1 - 1 / columns), large)
    group, of = pattern.groups(scores), order // columns
    assert len({(one, other) for one, other in zip(group.tolist(), of.tolist(), strict=True)}) == packed


def test_conflicts_pack_random_columns_tightly_and_cost_little_of_their_weight():
    scores = random_scores(0, 200, 160)
    free = scores[Unstructured().mask(scores, 0.9)].sum()
    tight, strict = ColumnCombining(), ColumnCombining(conflicts=0)

    assert tight.groups(scores).max() + 1 <= 1.2 * 160 / 8
    assert strict.groups(scores).max() + 1 >= 3 * 160 / 8
    assert 0.9 * free <= scores[tight.mask(scores, 0.9)].sum() < free


def test_of_a_row_and_group_the_highest_wins_ties_at_the_lower_column_and_pruned_weights_never():
    scores = np.array([[1.0, 3, 3, 5], [-np.inf, -np.inf, 2, 1]])

    won = winners(scores, np.array([0, 0, 0, 1]))

    assert won.tolist() == [[False, True, False, True], [False, False, True, True]]
    assert not winners(np.full((2, 2), -np.inf), np.array([0, 1])).any()


def test_a_target_that_no_packing_has_room_for_is_none_of_this_pattern():
    pattern = ColumnCombining(columns=4)

    assert pattern.why_not(8, 16, 0.75) is None
    assert "4 columns are combined from a sparsity of 0.75 on" in pattern.why_not(8, 16, 0.7)


@pytest.mark.parametrize("pattern", [ColumnCombining(columns=3), ColumnCombining(columns=2, conflicts=0)])
def test_the_contract_holds_for_other_parameters(pattern):
    check_pattern(pattern, follows_frame=False)
