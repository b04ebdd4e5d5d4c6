"""The dense systolic array against published counts of tiles, an array that ticks, and laws."""

from fractions import Fraction

import numpy as np
import pytest
from harness_plugins.hardware.engines.dense_systolic import DenseSystolic
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Conditions, EngineShape, Part, Product

CONDITIONS = Conditions(weight_bits=16, activation_bits=8, accumulator_bits=24)
DATAFLOWS = ("output_stationary", "weight_stationary", "input_stationary")


def product_of(rows, cols, kept=None, pixels=1):
    return Product("layer", (Part("kernel", rows, cols, None, rows * cols if kept is None else kept),), pixels=pixels)


def shape_of(rows, cols):
    return EngineShape((("array_rows", rows), ("array_cols", cols)), rows * cols)


def ticking_tile(weights, vectors):
    """One output-stationary tile: operands enter at the left and upper edge, skewed, and move one PE per cycle.

    Shapes:
        weights (high, inputs), vectors (inputs, wide) -> cycles until every PE has had its last pair, and its sums.
    """
    (high, inputs), wide = weights.shape, vectors.shape[1]
    right, down, sums = np.zeros((high, wide)), np.zeros((high, wide)), np.zeros((high, wide))
    pairs, tick = np.zeros((high, wide), int), 0  # weights and elements are odd numbers: 0 is an empty register
    while (pairs < inputs).any():
        right[:, 1:], down[1:] = right[:, :-1].copy(), down[:-1].copy()
        right[:, 0] = [weights[row, tick - row] if 0 <= tick - row < inputs else 0 for row in range(high)]
        down[0] = [vectors[tick - col, col] if 0 <= tick - col < inputs else 0 for col in range(wide)]
        sums += right * down
        pairs += right * down != 0
        tick += 1
    return tick, sums


def ticking_array(weights, vectors, high, wide):
    """Cycles and result of tile after tile; one at the edge is filled up with ones, for the array is clocked whole."""
    clock, result = 0, np.zeros((len(weights), vectors.shape[1]))
    for top in range(0, len(weights), high):
        for left in range(0, vectors.shape[1], wide):
            rows, cols = weights[top : top + high], vectors[:, left : left + wide]
            full_rows, full_cols = np.ones((high, rows.shape[1])), np.ones((cols.shape[0], wide))
            full_rows[: len(rows)], full_cols[:, : cols.shape[1]] = rows, cols
            ticks, sums = ticking_tile(full_rows, full_cols)
            result[top : top + high, left : left + wide] = sums[: len(rows), : cols.shape[1]]
            clock += ticks
    return clock, result


extents = st.integers(1, 9)
sides = st.integers(1, 4)


@given(outputs=extents, inputs=extents, pixels=extents, high=sides, wide=sides)
def test_output_stationary_tiles_equal_an_array_that_ticks(outputs, inputs, pixels, high, wide):
    rng = np.random.default_rng(outputs + 10 * inputs + 100 * pixels)
    weights, vectors = (2 * rng.integers(-5, 5, size) + 1 for size in ((outputs, inputs), (inputs, pixels)))
    cycles, result = ticking_array(weights, vectors, high, wide)
    run = DenseSystolic().simulate(product_of(outputs, inputs, pixels=pixels), shape_of(high, wide), CONDITIONS)

    assert (result == weights @ vectors).all()
    assert run.cycles == cycles


@pytest.mark.parametrize(
    ("dataflow", "cycles"),
    [
        ("output_stationary", 152_844),  # 94 tiles of 1,626 cycles
        ("weight_stationary", 430_896),  # 24 x 94 tiles of 191
        ("input_stationary", 148_560),  # 24 tiles of 6,190
    ],
)
def test_one_vector_through_64_by_64_is_a_straw_man(dataflow, cycles):
    engine = DenseSystolic(dataflow=dataflow)
    run = engine.simulate(product_of(6000, 1500), shape_of(64, 64), CONDITIONS)

    assert run.cycles == cycles
    assert engine.least_cycles(product_of(6000, 1500), shape_of(64, 64)) == cycles
    assert run.parts["compute"] / run.cycles < Fraction(1, 64)


@given(
    outputs=extents,
    inputs=extents,
    kept=st.integers(0, 81),
    pixels=extents,
    batch=extents,
    high=sides,
    wide=sides,
    dataflow=st.sampled_from(DATAFLOWS),
)
def test_the_parts_sum_to_tiles_times_their_length_and_none_is_negative(
    outputs, inputs, kept, pixels, batch, high, wide, dataflow
):
    product = product_of(outputs, inputs, min(kept, outputs * inputs), pixels)
    engine = DenseSystolic(dataflow=dataflow, batch=batch)
    run = engine.simulate(product, shape_of(high, wide), CONDITIONS)

    assert min(run.parts.values()) >= 0
    assert run.cycles == engine.least_cycles(product, shape_of(high, wide))
    assert run.parts["compute"] == Fraction(product.nnz * pixels * batch, high * wide)
    assert 0 < run.last <= run.issue_cycles
    assert 1 <= (run.last_rows or outputs) <= outputs
    assert run.stored_words >= product.size
    assert run == engine.expect(product, shape_of(high, wide), CONDITIONS)


def test_one_vector_keeps_one_column_busy_and_a_batch_fills_the_others():
    product = product_of(640, 640)
    shape = shape_of(16, 16)
    alone, batch = DenseSystolic(), DenseSystolic(batch=16)

    assert alone.streams == 1
    assert batch.streams == 16
    assert alone.simulate(product, shape, CONDITIONS).cycles == batch.simulate(product, shape, CONDITIONS).cycles
    assert (
        "at most 16 of 16 rows and 1 of 16 columns of PEs work" in alone.simulate(product, shape, CONDITIONS).notes[0]
    )


def test_pixels_of_a_convolution_are_vectors_like_those_of_a_batch():
    shape = shape_of(8, 8)
    pixels = DenseSystolic().simulate(product_of(32, 27, pixels=100), shape, CONDITIONS)
    batch = DenseSystolic(batch=100).simulate(product_of(32, 27), shape, CONDITIONS)

    assert DenseSystolic.whole_layer
    assert pixels.cycles == batch.cycles == 4 * 13 * (27 + 8 + 8 - 2)


def test_zeros_gain_nothing():
    dense, sparse = product_of(40, 30), product_of(40, 30, kept=120)
    runs = [DenseSystolic().simulate(product, shape_of(4, 4), CONDITIONS) for product in (dense, sparse)]

    assert runs[0].cycles == runs[1].cycles
    assert runs[1].parts["zeros"] == Fraction(1200 - 120, 16)


@pytest.mark.parametrize(
    ("dataflow", "rams"),
    [
        ("output_stationary", [("weights", 4 * 16, 3 * 7), ("vector", 2 * 8, 2 * 7)]),
        ("weight_stationary", [("weights", 4 * 16, 2 * 3 * 4), ("vector", 4 * 8, 2 * 2 * 2), ("accumulators", 96, 2)]),
        ("input_stationary", [("weights", 4 * 16, 2 * 10), ("vector", 2 * 8, 2 * 2 * 4), ("accumulators", 48, 10)]),
    ],
)
def test_memories_are_as_wide_as_the_edge_they_feed(dataflow, rams):
    engine = DenseSystolic(dataflow=dataflow, batch=2)  # 10 outputs, 7 inputs, 2 vectors on 4 x 4
    run = engine.simulate(product_of(10, 7), shape_of(4, 4), CONDITIONS)

    assert [(ram.purpose, ram.width, ram.depth) for ram in run.rams] == rams
    assert run.stored_bits == rams[0][1] * rams[0][2]


@given(outputs=st.integers(1, 60), inputs=extents, pixels=st.integers(1, 60), budget=st.integers(1, 100))
def test_all_shapes_stay_within_the_budget(outputs, inputs, pixels, budget):
    engine, products = DenseSystolic(), [product_of(outputs, inputs, pixels=pixels), product_of(3, 5)]

    shapes = (*engine.shapes(products, budget), engine.fixed_shape(products, budget))
    assert 2 <= len(shapes) <= 17
    assert max(shape.multipliers for shape in shapes) <= budget


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize(("outputs", "inputs", "pixels"), [(60, 20, 1), (24, 27, 50), (7, 100, 3)])
def test_the_search_comes_close_to_trying_every_array(dataflow, outputs, inputs, pixels):
    engine, product = DenseSystolic(dataflow=dataflow), product_of(outputs, inputs, pixels=pixels)
    arrays = [shape_of(high, wide) for high in range(1, 65) for wide in range(1, 64 // high + 1)]

    found = min(engine.least_cycles(product, shape) for shape in engine.shapes([product], 64))
    assert found <= 1.02 * min(engine.least_cycles(product, shape) for shape in arrays)


def test_fixed_sizes_win_over_the_budget():
    product = product_of(40, 40)

    both, one = DenseSystolic(array_rows=6, array_cols=3), DenseSystolic(array_rows=6)
    assert {str(shape) for shape in (*both.shapes([product], 4), both.fixed_shape([product], 4))} == {
        "array_rows=6 array_cols=3"
    }
    assert {shape["array_rows"] for shape in one.shapes([product], 60)} == {6}
    assert str(one.fixed_shape([product], 60)) == "array_rows=6 array_cols=10"
    assert str(DenseSystolic(array_cols=4).fixed_shape([product], 60)) == "array_rows=15 array_cols=4"
    assert str(DenseSystolic().fixed_shape([product], 70)) == "array_rows=8 array_cols=8"
