"""Units wider than the kernel adds slice by slice: whole rows, as filters are, and ragged ones."""

import numpy as np
import pytest

from harness.selection.kernel import select
from harness.selection.layout import Layout


@pytest.mark.parametrize(("cols", "width"), [(257, None), (1000, None), (1000, 300)])
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_the_best_wide_units_stay_and_edges_pool_over_what_they_have(cols, pooling, width):
    scores = np.abs(np.random.default_rng(cols).normal(size=(12, cols)))
    layout = Layout.of(12, cols, unit=(1, width))

    mask = select(scores, layout, 0.5, pooling=pooling)

    step = width or cols
    pooled = [
        [getattr(row[left : left + step], pooling)() for left in range(0, cols, step)] for row in scores.astype(float)
    ]
    order = np.argsort(-np.array(pooled), axis=None, kind="stable")
    kept = np.zeros(order.size, bool)
    kept[order[: layout.quota(0.5)]] = True
    expected = kept.reshape(12, -1).repeat(step, axis=1)[:, :cols]
    np.testing.assert_array_equal(mask, expected)


def test_equal_wide_units_stay_at_the_lower_index():
    mask = select(np.ones((6, 500), np.float32), Layout.of(6, 500, unit=(1, None)), 0.5)

    assert mask.any(axis=1).tolist() == [True] * 3 + [False] * 3


def test_pruned_weights_keep_a_wide_unit_below_all_others():
    scores = np.ones((4, 500))
    scores[0] = -np.inf

    mask = select(scores, Layout.of(4, 500, unit=(1, None)), 0.5)

    assert mask.any(axis=1).tolist() == [False, True, True, False]
