"""The dot-product array: hand-worked cases, the search for a split, and the bank engine on dense weights."""

import numpy as np
import pytest
from harness_plugins.hardware.engines.bank import Bank
from harness_plugins.hardware.engines.dense_mvm import DenseMvm
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import Conditions

sizes = st.integers(1, 40)


def only_shape(engine, product):
    (shape,) = engine.shapes([product], 1)
    return shape


def test_6000_by_1500_on_64_by_64_takes_2256_cycles_and_ten_more(make):
    product = make.dense_product(6000, 1500)
    engine = DenseMvm(pes=64, lanes=64)
    run = engine.simulate(product, only_shape(engine, product), Conditions())

    assert run.issue_cycles == 94 * 24 == 2256
    assert run.parts["fill_drain"] == 6 + 4
    assert run.stored_bits == 6000 * 24 * 64 * 16  # the last wave of every row is stored in full


def test_its_weight_memories_hold_the_words_of_every_row_group(make):
    product = make.dense_product(10, 7)
    engine = DenseMvm(pes=4, lanes=3)
    weights, vector = engine.simulate(product, only_shape(engine, product), Conditions(weight_bits=8)).rams

    assert (weights.width, weights.depth, weights.count, weights.stacked) == (3 * 8, 3 * 3, 4, True)
    assert (vector.width, vector.depth, vector.count, vector.small) == (16, 2 * 3, 3, True)


@given(rows=sizes, cols=sizes, pes=sizes, lanes=sizes)
def test_rows_and_columns_in_groups_decide_and_the_parts_say_what_is_left_over(make, rows, cols, pes, lanes):
    product = make.dense_product(rows, cols)
    engine = DenseMvm(pes=pes, lanes=lanes)
    run = engine.simulate(product, only_shape(engine, product), Conditions())

    assert run.issue_cycles == -(-rows // pes) * -(-cols // lanes)
    assert run.parts["compute"] * pes * lanes == rows * cols
    assert run.last == -(-cols // lanes)
    assert run.last_rows == (rows - 1) % pes + 1
    assert (run.parts["tail"] == 0) == (rows % pes == cols % lanes == 0)


@given(rows=sizes, cols=sizes, pes=sizes, lanes=sizes)
def test_dense_weights_take_as_long_on_the_bank_engine_with_a_bank_per_lane(make, rows, cols, pes, lanes):
    product = make.product_of(np.ones((rows, cols), bool))
    bank, dense = Bank(pes=pes, lanes=lanes, banks=min(lanes, cols)), DenseMvm(pes=pes, lanes=lanes)
    shape = only_shape(dense, product)
    found, baseline = (engine.simulate(product, shape, Conditions()) for engine in (bank, dense))

    assert found.cycles == baseline.cycles
    assert found.stored_words == baseline.stored_words
    assert bank.expect(product, shape, Conditions()).cycles == baseline.cycles


def test_zeros_gain_nothing_and_are_told_apart(make):
    mask = np.random.default_rng(0).random((40, 60)) < 0.25
    engine = DenseMvm(pes=8, lanes=4)
    sparse = engine.simulate(make.product_of(mask), only_shape(engine, make.product_of(mask)), Conditions())
    dense = engine.simulate(make.dense_product(40, 60), only_shape(engine, make.dense_product(40, 60)), Conditions())

    assert sparse.cycles == dense.cycles
    assert sparse.parts["zeros"] * 32 == 2400 - mask.sum()
    assert dense.parts["zeros"] == 0


@given(rows=sizes, cols=sizes, budget=st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_the_search_finds_the_fastest_of_all_splits(make, rows, cols, budget):
    product = make.dense_product(rows, cols)
    found = min(DenseMvm().least_cycles(product, shape) for shape in DenseMvm().shapes([product], budget))

    splits = ((pes, lanes) for pes in range(1, rows + 1) for lanes in range(1, cols + 1) if pes * lanes <= budget)
    assert found == min(-(-rows // pes) * -(-cols // lanes) for pes, lanes in splits)


@pytest.mark.parametrize(("fixed", "expected"), [({"lanes": 8}, ("lanes", 8)), ({"pes": 5}, ("pes", 5))])
def test_a_size_that_is_given_stays_and_the_rest_is_searched(make, fixed, expected):
    engine, products = DenseMvm(**fixed), [make.dense_product(50, 30)]

    for shape in (*engine.shapes(products, 64), engine.fixed_shape(products, 64)):
        assert shape[expected[0]] == expected[1]
        assert shape.multipliers <= 64
