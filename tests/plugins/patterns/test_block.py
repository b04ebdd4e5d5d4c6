"""Block sparsity."""

import numpy as np
import pytest
from harness_plugins.patterns.block import Block
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import ShapeError, keep_count
from harness.testing import check_pattern, score_matrices, sparsities


def test_blocks_stay_or_go_as_a_whole():
    scores = np.array([[1.0, 1.0, 0.0, 9.0], [1.0, 1.0, 0.0, 0.0]])

    by_mean = Block(height=2, width=2).mask(scores, 0.5)
    by_least = Block(height=2, width=2).mask(np.where(scores == 9, 3, scores), 0.5)

    assert by_mean.tolist() == [[False, False, True, True]] * 2
    assert by_least.tolist() == [[True, True, False, False]] * 2


def test_pooling_by_the_maximum_prefers_a_single_high_score():
    scores = np.array([[1.0, 1.0, 0.0, 3.0], [1.0, 1.0, 0.0, 0.0]])

    assert Block(height=2, width=2, pooling="max").mask(scores, 0.5).tolist() == [[False, False, True, True]] * 2


@given(
    scores=score_matrices(rows_multiple_of=2, cols_multiple_of=3),
    sparsity=sparsities(),
    pooling=st.sampled_from(["mean", "max"]),
)
@settings(deadline=None)
def test_the_quota_of_blocks_is_exact(scores, sparsity, pooling):
    mask = Block(height=2, width=3, pooling=pooling).mask(scores, sparsity)

    blocks = mask.reshape(scores.shape[0] // 2, 2, -1, 3).sum(axis=(1, 3))
    assert set(blocks.ravel().tolist()) <= {0, 6}
    assert (blocks == 6).sum() == keep_count(blocks.size, sparsity)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_matrix_that_blocks_do_not_divide_has_smaller_ones_at_its_edges(pooling):
    check_pattern(Block(height=4, width=4, pooling=pooling), [(10, 100), (61, 43), (6, 25)])


def test_the_sparsity_reached_with_edge_blocks_is_close_and_counted_on_the_mask():
    mask = Block().mask(np.random.default_rng(0).random((61, 243)), 0.75)

    assert 1 - mask.mean() == pytest.approx(0.75, abs=0.01)


def test_a_block_larger_than_the_matrix_is_refused():
    with pytest.raises(ShapeError, match="blocks of 4 x 4 for a matrix of 3 x 40; set `height` to at most 3"):
        Block().mask(np.ones((3, 40)), 0.5)


def test_block_rows_are_not_filled_equally():
    assert Block().banks_per_row(8, 20) is None
