"""The dense array on compacted matrices."""

import numpy as np
import pytest
from harness_plugins.hardware.engines.dense_compact import DenseCompact
from harness_plugins.hardware.engines.dense_mvm import DenseMvm
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import Conditions, EngineShape, Part, Product
from harness.testing import check_engine

SHAPE = EngineShape((("pes", 4), ("lanes", 8)), 32)


def product(mask, units=None, name="layer"):
    return Product(name, (Part("w", *mask.shape, mask, int(mask.sum())),), units)


def grid(rows, cols, total=(16, 32)):
    mask = np.zeros(total, bool)
    mask[np.ix_(rows, cols)] = True
    return mask


def test_what_is_pruned_whole_costs_what_the_smaller_dense_matrix_costs():
    mask = grid([1, 4, 5, 9, 12, 15], [0, 3, 4, 5, 8, 9, 10, 20, 21, 30])
    small = np.ones((6, 10), bool)

    ours = DenseCompact().simulate(product(mask), SHAPE, Conditions())
    theirs = DenseMvm().simulate(product(small), SHAPE, Conditions())

    assert ours.parts == theirs.parts
    assert ours.rams == theirs.rams
    # Six row numbers of 4 bits and ten column numbers of 5.
    assert ours.stored_bits == theirs.stored_bits + 6 * 4 + 10 * 5
    assert ours.notes == ("6 of 16 rows and 10 of 32 columns are left",)


def test_zeros_among_what_is_left_are_multiplied():
    mask = grid([0, 1, 2, 3], range(8))
    mask[0, 0] = False

    run = DenseCompact().simulate(product(mask), SHAPE, Conditions())

    assert run.issue_cycles == 1
    assert run.parts["zeros"] > 0


def test_hidden_units_shrink_both_matrices_of_an_lstm():
    units, kept = 8, [1, 2, 6]
    rows = [gate * units + unit for gate in range(4) for unit in kept]
    kernel, recurrent = grid(rows, range(12), (32, 12)), grid(rows, kept, (32, 8))
    parts = tuple(Part(name, *mask.shape, mask, int(mask.sum())) for name, mask in (("k", kernel), ("r", recurrent)))

    run = DenseCompact().simulate(Product("lstm", parts, units), SHAPE, Conditions())

    assert run.issue_cycles == 3 * 2  # 12 rows of 4 at a time, 15 columns of 8
    assert run.notes == ("12 of 32 rows and 15 of 20 columns are left",)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (product(np.ones((4, 8), bool)), "no row or column of layer is pruned whole"),
        (product(np.eye(8, dtype=bool)), "no row or column of layer is pruned whole"),
        (product(np.zeros((4, 8), bool)), "nothing of layer is left"),
        (Product("layer", (Part("w", 4, 8, None, 9),)), "only a number of weights is known"),
    ],
)
def test_what_it_cannot_gain_from_is_refused(case, reason):
    assert reason in DenseCompact().refusal(case)


@given(seed=st.integers(0, 999), density=st.sampled_from([0.02, 0.1, 0.3]), budget=st.integers(1, 200))
@settings(deadline=None, max_examples=40)
def test_it_is_never_slower_than_the_whole_dense_array_and_keeps_its_contract(seed, density, budget):
    rng = np.random.default_rng(seed)
    mask = np.outer(rng.random(12) < 0.6, rng.random(20) < 0.6) & (rng.random((12, 20)) < density * 3)
    one = product(mask)
    if DenseCompact().refusal(one) is not None:
        return
    check_engine(DenseCompact(), [one], [budget])

    ours, theirs = (engine.simulate(one, SHAPE, Conditions()).cycles for engine in (DenseCompact(), DenseMvm()))

    assert ours <= theirs
