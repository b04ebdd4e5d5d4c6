"""The dense array on packed columns."""

import numpy as np
import pytest
from harness_plugins.hardware.engines.dense_mvm import DenseMvm
from harness_plugins.hardware.engines.dense_packed import DensePacked, packing
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import Conditions, Convolution, EngineShape, Part, Product
from harness.testing import check_engine

SHAPE = EngineShape((("pes", 4), ("lanes", 2)), 8)


def product(*masks, units=None):
    return Product("layer", tuple(Part("w", *mask.shape, mask, int(mask.sum())) for mask in masks), units)


def combined(rows, packed, columns, seed=0):
    """Every row has one weight in each of `packed` groups of `columns` columns that lie anywhere; no row is empty."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((rows, packed, columns), bool)
    np.put_along_axis(mask, rng.integers(0, columns, (rows, packed, 1)), True, axis=2)
    return mask.reshape(rows, -1)[:, rng.permutation(packed * columns)]


def test_packed_columns_cost_what_so_many_dense_columns_cost():
    mask = combined(400, packed=6, columns=4)
    shape = EngineShape((("pes", 8), ("lanes", 3)), 24)

    ours = DensePacked(columns=4).simulate(product(mask), shape, Conditions())
    theirs = DenseMvm().simulate(product(np.ones((400, 6), bool)), shape, Conditions())

    assert ours.notes == ("24 columns are packed into 6",)
    assert ours.parts == theirs.parts and ours.parts["zeros"] == 0
    # Two bits beside every weight, and the place of 24 columns among 24.
    assert ours.stored_bits == theirs.stored_bits + 400 * 6 * 2 + 24 * 5
    weights, vector = ours.rams
    assert weights.width == theirs.rams[0].width + 3 * 2
    assert vector.count == 4 * theirs.rams[1].count


def test_both_matrices_of_an_lstm_are_packed_each_by_itself():
    kernel, recurrent = combined(32, packed=2, columns=2), combined(32, packed=3, columns=2, seed=1)

    run = DensePacked(columns=2).simulate(product(kernel, recurrent, units=8), SHAPE, Conditions())

    assert run.notes == ("10 columns are packed into 5",)
    assert run.issue_cycles == 8 * 3  # 32 rows of 4 at a time, 5 columns of 2


@given(seed=st.integers(0, 999), density=st.sampled_from([0.02, 0.1, 0.4]), most=st.integers(1, 9))
@settings(deadline=None, max_examples=60)
def test_no_two_columns_that_are_packed_into_one_share_a_row(seed, density, most):
    mask = np.random.default_rng(seed).random((70, 24)) < density
    group = packing(mask, most)

    assert ((group >= 0) == mask.any(axis=0)).all()
    for each in range(group.max() + 1):
        mine = mask[:, group == each]
        assert 1 <= mine.shape[1] <= most
        assert mine.sum(axis=1).max() <= 1


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (product(np.ones((4, 8), bool)), "no columns of layer can share one"),
        (product(np.eye(8, dtype=bool)[:1]), "no columns of layer can share one"),
        (product(np.zeros((4, 8), bool)), "nothing of layer is left"),
        (Product("layer", (Part("w", 4, 8, None, 9),)), "only a number of weights is known"),
        (
            Product(
                "layer", product(np.eye(8, dtype=bool)).parts, convolution=Convolution(16, (1, 1), 1, (2, 2), groups=2)
            ),
            "see inputs of 2 groups",
        ),
    ],
)
def test_what_it_cannot_gain_from_is_refused(case, reason):
    assert reason in DensePacked().refusal(case)


@given(seed=st.integers(0, 999), density=st.sampled_from([0.02, 0.1, 0.3]), budget=st.integers(1, 200))
@settings(deadline=None, max_examples=30)
def test_it_is_never_slower_than_the_whole_dense_array_and_keeps_its_contract(seed, density, budget):
    one = product(np.random.default_rng(seed).random((12, 20)) < density)
    if DensePacked().refusal(one) is not None:
        return
    check_engine(DensePacked(), [one], [budget])

    ours, theirs = (engine.simulate(one, SHAPE, Conditions()).cycles for engine in (DensePacked(), DenseMvm()))

    assert ours <= theirs
