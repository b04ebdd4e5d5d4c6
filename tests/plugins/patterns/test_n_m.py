"""N:M sparsity."""

import numpy as np
import pytest
from harness_plugins.patterns.n_m import NM
from hypothesis import given, settings
from pydantic import ValidationError

from harness.api import ShapeError
from harness.testing import score_matrices, sparsities


def test_two_of_every_four_stay():
    scores = np.array([[1.0, 4.0, 2.0, 3.0, 5.0, 5.0, 5.0, 5.0]])

    assert NM().mask(scores, 0.5).astype(int).tolist() == [[0, 1, 0, 1, 1, 1, 0, 0]]


@given(scores=score_matrices(cols_multiple_of=4), sparsity=sparsities())
@settings(deadline=None)
def test_no_group_ever_keeps_fewer_than_n(scores, sparsity):
    kept = NM(n=1).mask(scores, sparsity).reshape(-1, 4).sum(axis=1)

    assert len(set(kept.tolist())) == 1
    assert kept.min() >= 1


def test_groups_keep_more_while_a_schedule_is_on_its_way():
    pattern, scores = NM(), np.random.default_rng(0).random((2, 8))

    kept = [int(pattern.mask(scores, sparsity)[0, :4].sum()) for sparsity in (0.0, 0.1, 0.25, 0.4, 0.5)]

    assert kept == [4, 4, 3, 2, 2]


def test_only_its_own_sparsity_is_a_target():
    assert NM(n=1, m=4).why_not(8, 20, 0.75) is None
    assert NM(n=1, m=4).why_not(8, 20, 0.5) == "would keep more than 1 of 4; 1:4 is a sparsity of 0.75"


def test_groups_are_banks_to_the_hardware():
    assert NM().banks_per_row(8, 20) == 5


@pytest.mark.parametrize("parameters", [{"n": 4, "m": 4}, {"n": 5}, {"n": 0}, {"m": 1}])
def test_n_must_be_between_nothing_and_m(parameters):
    with pytest.raises(ValidationError, match=r"n must be less than m|greater than"):
        NM(**parameters)


def test_a_row_that_m_does_not_divide_is_refused():
    with pytest.raises(ShapeError, match="n_m: cols must be a multiple of m=4, got a matrix of 8 x 21; set `m` to a"):
        NM().mask(np.ones((8, 21)), 0.5)
