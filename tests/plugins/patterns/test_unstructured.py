"""Unstructured sparsity."""

import numpy as np
from harness_plugins.patterns.block import Block
from harness_plugins.patterns.unstructured import Unstructured
from hypothesis import given, settings

from harness.api import keep_count
from harness.testing import score_matrices, sparsities


def test_the_best_weights_stay_wherever_they_are():
    scores = np.array([[9.0, 8.0, 7.0], [1.0, 2.0, 3.0]])

    assert Unstructured().mask(scores, 0.5).tolist() == [[True, True, True], [False, False, False]]


@given(scores=score_matrices(), sparsity=sparsities())
@settings(deadline=None)
def test_the_count_is_exact_and_no_kept_weight_scores_below_a_dropped_one(scores, sparsity):
    mask = Unstructured().mask(scores, sparsity)

    assert mask.sum() == keep_count(scores.size, sparsity)
    assert mask.all() or not mask.any() or scores[mask].min() >= scores[~mask].max()


@given(scores=score_matrices(), sparsity=sparsities())
@settings(deadline=None)
def test_it_is_block_sparsity_with_blocks_of_one_weight(scores, sparsity):
    np.testing.assert_array_equal(
        Unstructured().mask(scores, sparsity), Block(height=1, width=1).mask(scores, sparsity)
    )


def test_it_spans_tensors_and_has_no_banks():
    assert Unstructured.spans_tensors
    assert Unstructured().banks_per_row(8, 20) is None
