"""Row-balanced sparsity."""

import numpy as np
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.row_balanced import RowBalanced
from hypothesis import given, settings

from harness.api import keep_count
from harness.testing import score_matrices, sparsities


def test_every_row_keeps_its_own_best_weights():
    scores = np.array([[9.0, 8.0, 7.0, 6.0], [1.0, 3.0, 2.0, 4.0]])

    assert RowBalanced().mask(scores, 0.5).tolist() == [[True, True, False, False], [False, True, False, True]]


@given(scores=score_matrices(), sparsity=sparsities())
@settings(deadline=None)
def test_every_row_keeps_exactly_the_same_count(scores, sparsity):
    mask = RowBalanced().mask(scores, sparsity)

    assert set(mask.sum(axis=1).tolist()) == {keep_count(scores.shape[1], sparsity)}


@given(scores=score_matrices(), sparsity=sparsities())
@settings(deadline=None)
def test_it_is_bank_balanced_sparsity_with_one_bank(scores, sparsity):
    expected = BankBalanced(banks=1).mask(scores, sparsity)

    np.testing.assert_array_equal(RowBalanced().mask(scores, sparsity), expected)
    np.testing.assert_array_equal(BankBalanced(bank_size=scores.shape[1]).mask(scores, sparsity), expected)


def test_a_row_is_one_bank_and_a_tensor_is_not_shared_out():
    assert RowBalanced().banks_per_row(8, 20) == 1
    assert not RowBalanced.spans_tensors
