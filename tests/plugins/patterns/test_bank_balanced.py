"""Bank-balanced sparsity."""

import numpy as np
import pytest
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.n_m import NM
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.api import ShapeError, keep_count
from harness.testing import check_pattern, score_matrices, sparsities


def test_every_bank_keeps_its_own_best_weights():
    scores = np.array([[9.0, 8.0, 1.0, 2.0], [1.0, 3.0, 5.0, 4.0]])

    mask = BankBalanced(banks=2).mask(scores, 0.5)

    assert mask.tolist() == [[True, False, False, True], [False, True, True, False]]


@given(scores=score_matrices(cols_multiple_of=4), sparsity=sparsities())
@settings(deadline=None)
def test_every_bank_keeps_exactly_the_same_count(scores, sparsity):
    mask = BankBalanced(bank_size=4).mask(scores, sparsity)

    assert set(mask.reshape(-1, 4).sum(axis=1).tolist()) == {keep_count(4, sparsity)}


@given(scores=score_matrices(cols_multiple_of=4))
@settings(deadline=None)
def test_four_weights_a_bank_at_one_half_are_2_to_4(scores):
    np.testing.assert_array_equal(BankBalanced(bank_size=4).mask(scores, 0.5), NM(n=2, m=4).mask(scores, 0.5))


@given(scores=score_matrices(cols_multiple_of=8), kept=st.integers(1, 7))
@settings(deadline=None)
def test_keeping_n_of_a_bank_of_m_is_n_to_m(scores, kept):
    sparsity = 1 - kept / 8

    np.testing.assert_array_equal(
        BankBalanced(bank_size=8).mask(scores, sparsity), NM(n=kept, m=8).mask(scores, sparsity)
    )


def test_banks_and_their_size_say_the_same_where_they_divide():
    scores = np.random.default_rng(0).random((6, 40))

    np.testing.assert_array_equal(BankBalanced(banks=8).mask(scores, 0.6), BankBalanced(bank_size=5).mask(scores, 0.6))


@pytest.mark.parametrize("banks", [7, 10, 16])
def test_ragged_banks_keep_the_same_count(banks):
    check_pattern(BankBalanced(banks=banks), [(3, 61), (2, 243)])


def test_a_full_row_of_a_language_model_in_ragged_banks():
    mask = BankBalanced(banks=64).mask(np.random.default_rng(0).random((8, 650)), 0.9)

    banks = np.array_split(mask, 64, axis=1)  # the longer ones first
    assert {int(count) for bank in banks for count in bank.sum(axis=1)} == {1}


def test_ten_banks_are_the_default():
    assert BankBalanced() == BankBalanced(banks=10)
    assert BankBalanced().banks_per_row(8, 200) == 10
    assert BankBalanced(bank_size=50).banks_per_row(8, 200) == 4


@pytest.mark.parametrize(
    ("pattern", "label"),
    [
        (BankBalanced(), "bank_balanced"),
        (BankBalanced(banks=10), "bank_balanced"),
        (BankBalanced(banks=20), "bank_balanced(banks=20)"),
        (BankBalanced(bank_size=50), "bank_balanced(bank_size=50)"),
        (BankBalanced(banks=20, label="BBS"), "BBS"),
    ],
)
def test_the_label_shows_the_parameter_in_use(pattern, label):
    assert pattern.label() == label
    assert BankBalanced(**pattern.parameters()).parameters() == pattern.parameters()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"banks": 4, "bank_size": 5}, "either `banks` or `bank_size`, got banks=4 and bank_size=5"),
        ({"banks": 0}, "greater than 0"),
        ({"bank_size": -1}, "greater than 0"),
        ({"bank": 4}, "Extra inputs are not permitted"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, sentence):
    with pytest.raises(ValidationError, match=sentence):
        BankBalanced(**parameters)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        (BankBalanced(banks=10), r"got banks=10 for a matrix of 4 x 9; set `banks` to at most 9"),
        (
            BankBalanced(bank_size=4),
            r"bank_size=4, got a matrix of 4 x 9; set `bank_size` to a divisor of 9: 3, 9$",
        ),
    ],
)
def test_a_row_that_cannot_be_cut_so_is_refused_with_the_way_out(pattern, sentence):
    with pytest.raises(ShapeError, match=sentence):
        pattern.mask(np.ones((4, 9)), 0.5)
