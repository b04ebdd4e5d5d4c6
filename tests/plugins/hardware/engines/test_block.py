"""The block engine against hand-worked cases, laws, and an engine that ticks."""

from fractions import Fraction
from itertools import chain

import numpy as np
import pytest
from harness_plugins.hardware.engines.block import Block
from harness_plugins.hardware.engines.block.blocks import binomial, expected_largest, kept_blocks, largest_block
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from harness.api import Conditions, EngineShape, Part, Product

CONDITIONS = Conditions(weight_bits=16, activation_bits=8, accumulator_bits=24)


def part_of(mask, name="kernel"):
    return Part(name, *mask.shape, mask, int(mask.sum()))


def product_of(*masks, units=None):
    return Product("layer", tuple(part_of(mask, f"part_{index}") for index, mask in enumerate(masks)), units=units)


def shape_of(block, arrays, lanes):
    sizes = (("arrays", arrays), ("lanes", lanes), ("block_rows", block[0]), ("block_cols", block[1]))
    return EngineShape(sizes, arrays * lanes)


def blocks_of(kept, block, rows=None, cols=None):
    """A mask of whole blocks, cut to (rows, cols)."""
    return np.kron(kept, np.ones(block, np.bool_)).astype(np.bool_)[:rows, :cols]


def ticking_engine(product, shape, lockstep):
    """Count clock cycles one by one: the slow oracle."""
    height, width = shape["block_rows"], shape["block_cols"]
    queues = []  # multiplications left in every kept block of every row of blocks
    for top in range(0, product.rows, height):
        tiles = [
            part.mask[top : top + height, left : left + width]
            for part in product.parts
            for left in range(0, part.cols, width)
        ]
        queues.append([height * width for tile in tiles if tile.any()])
    arrays = shape["arrays"]
    groups = [queues[start : start + arrays] for start in range(0, len(queues), arrays)]
    rounds = groups if lockstep else [[list(chain(*queues[array::arrays])) for array in range(arrays)]]
    clock = 0
    for waiting in rounds:
        while any(waiting):
            clock += 1
            for queue in filter(None, waiting):
                queue[0] -= shape["lanes"]
                if queue[0] <= 0:
                    del queue[0]
    return clock


masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))
shapes = st.builds(shape_of, st.tuples(st.integers(1, 4), st.integers(1, 4)), st.integers(1, 5), st.integers(1, 9))


@given(mask=masks, shape=shapes, lockstep=st.booleans())
def test_the_closed_form_equals_an_engine_that_ticks(mask, shape, lockstep):
    product = product_of(mask, ~mask)
    run = Block(block=(1, 1), lockstep=lockstep).simulate(product, shape, CONDITIONS)

    assert run.issue_cycles == ticking_engine(product, shape, lockstep)


@given(mask=masks, shape=shapes, lockstep=st.booleans(), expected=st.booleans())
def test_the_parts_are_what_they_say_and_no_array_works_longer_than_the_engine(mask, shape, lockstep, expected):
    engine, product = Block(block=(1, 1), lockstep=lockstep), product_of(mask)
    run = (engine.expect if expected else engine.simulate)(product, shape, CONDITIONS)

    assert min(run.parts.values()) >= 0
    assert run.parts["compute"] == Fraction(product.nnz, shape.multipliers)
    assert run.cycles >= engine.least_cycles(product, shape) >= run.parts["compute"]
    assert run.last == run.issue_cycles
    if run.busy is not None:
        assert run.busy.max() <= run.issue_cycles
        assert run.busy.sum() == run.stored_words / shape["lanes"]


def test_three_rows_of_blocks_on_two_arrays_worked_by_hand():
    kept = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 1]], np.bool_)
    mask = blocks_of(kept, (2, 4))
    shape = shape_of((2, 4), 2, 4)  # two cycles per block
    run = Block().simulate(product_of(mask), shape, CONDITIONS)

    assert run.parts == {
        "compute": 6,
        "zeros": 0,
        "lane_mismatch": 0,
        "tail": 0,
        "pe_imbalance": 0,
        "fill_drain": 6,  # two levels of adders and four registers
    }
    assert run.busy.tolist() == [6, 6]  # rows 0 and 2; row 1
    assert run.stored_words == 48
    assert Block(lockstep=True).simulate(product_of(mask), shape, CONDITIONS).issue_cycles == 8  # max(2, 3) + 1 blocks
    assert [(ram.purpose, ram.width, ram.depth, ram.count) for ram in run.rams] == [
        ("weights", 4 * 16, 6, 2),
        ("pointers", 2 + 1, 3, 2),  # one of three columns of blocks, one of two rows of an array
        ("vector", 4 * 8, 2 * 3, 2),
        ("accumulators", 2 * 24, 2, 2),
    ]
    assert run.stored_bits == 48 * 16 + 6 * 3


def test_single_weights_on_scalar_arrays_take_the_non_zeros_of_the_slowest_array():
    mask = np.random.default_rng(1).random((23, 40)) < 0.3
    run = Block(block=(1, 1)).simulate(product_of(mask), shape_of((1, 1), 7, 1), CONDITIONS)

    assert run.issue_cycles == max(mask[array::7].sum() for array in range(7))


@pytest.mark.parametrize("block", [(4, 4), (1, 4), (4, 1), (2, 8), (3, 5), (16, 16)])
def test_the_block_of_a_mask_is_found_ragged_edges_included(block):
    kept = np.random.default_rng(2).random((5, 6)) < 0.5
    mask = blocks_of(kept, block, block[0] * 5 - (block[0] > 1), block[1] * 6 - (block[1] > 1))

    assert largest_block([part_of(mask)]) == block


def test_larger_blocks_are_cut_to_sixteen():
    mask = blocks_of(np.array([[1, 0, 1], [0, 1, 0]], np.bool_), (40, 24))

    assert largest_block([part_of(mask)]) == (10, 12)


def test_whole_rows_and_whole_columns_are_blocks_too():
    columns = np.tile(np.random.default_rng(3).random(64) < 0.5, (48, 1))

    assert largest_block([part_of(columns)]) == (16, 1)
    assert largest_block([part_of(columns.T.copy())]) == (1, 16)


def test_single_weights_are_refused_unless_the_block_is_given():
    mask = np.random.default_rng(4).random((40, 40)) < 0.3

    assert Block().refusal(product_of(mask)) == (
        "it runs masks of whole blocks, and no block larger than 1 x 1 is kept or dropped whole throughout part_0; set "
        "its `block` to have blocks with any kept weight computed whole"
    )
    assert Block(block=(4, 4)).refusal(product_of(mask)) is None


def test_a_number_of_kept_weights_without_mask_needs_a_block():
    product = Product("layer", (Part("kernel", 8, 8, None, 16),))

    assert "of kernel only their number is known" in Block().refusal(product)
    assert Block(block=(4, 4)).refusal(product) is None
    assert Block(block=(4, 4)).expect(product, shape_of((4, 4), 1, 16), CONDITIONS).issue_cycles == 1


def test_a_given_block_is_computed_whole_and_its_zeros_are_counted():
    mask = np.zeros((4, 8), np.bool_)
    mask[0, 0] = mask[3, 3] = mask[2, 7] = True
    run = Block(block=(4, 4)).simulate(product_of(mask), shape_of((4, 4), 1, 8), CONDITIONS)

    assert run.issue_cycles == 4  # two blocks of two cycles
    assert run.parts["zeros"] == Fraction(32 - 3, 8)
    assert "with 29 zeros among 32 weights" in run.notes[0]


def test_blocks_at_the_edge_take_as_long_as_any_other():
    mask = np.ones((5, 5), np.bool_)
    run = Block(block=(4, 4)).simulate(product_of(mask), shape_of((4, 4), 1, 16), CONDITIONS)

    assert run.issue_cycles == 4
    assert run.parts["lane_mismatch"] == Fraction(4 * 16 - 25, 16)


def test_the_blocks_of_an_lstm_are_those_of_its_tensors_and_its_element_wise_part_waits():
    kept = np.random.default_rng(5).random((6, 3)) < 0.5
    kernel = blocks_of(kept, (4, 4))  # 24 rows: gate after gate of 6 units
    product = product_of(kernel, ~kernel, units=6)
    run = Block().simulate(product, shape_of((4, 4), 2, 16), CONDITIONS)

    assert Block().refusal(product) is None
    assert largest_block([part_of(product.mask)]) != (4, 4)  # unit after unit they are torn apart
    assert run.stored_words == product.nnz
    assert run.last == run.issue_cycles
    assert "the element-wise part waits for the last row" in run.notes[1]


def test_no_kept_weight_takes_no_cycles_but_the_constant():
    product = product_of(np.zeros((6, 9), np.bool_))
    shape = Block().fixed_shape([product], 64)

    for run in (Block().simulate(product, shape, CONDITIONS), Block().expect(product, shape, CONDITIONS)):
        assert run.issue_cycles == 0
        assert run.cycles == run.parts["fill_drain"]
        assert min(ram.depth for ram in run.rams) >= 1


@pytest.mark.parametrize(("rows", "cols"), [(1, 40), (40, 1), (1, 1), (17, 5)])
def test_a_dense_matrix_runs_as_blocks_that_fit(rows, cols):
    product = product_of(np.ones((rows, cols), np.bool_))
    engine = Block()

    for shape in engine.shapes([product], 64):
        run = engine.simulate(product, shape, CONDITIONS)

        assert run.issue_cycles >= Fraction(rows * cols, shape.multipliers)
        assert run.cycles == engine.expect(product, shape, CONDITIONS).cycles


@given(mask=masks, budget=st.integers(1, 300))
def test_all_shapes_stay_within_the_budget(mask, budget):
    shapes = Block().shapes([product_of(mask)], budget)

    assert 1 <= len(shapes) <= 20
    assert max(shape.multipliers for shape in shapes) <= budget


def test_fixed_sizes_win_over_the_budget():
    product = product_of(blocks_of(np.eye(4, dtype=np.bool_), (4, 4)))

    engine = Block(arrays=6, lanes=3)
    assert {str(shape) for shape in (*engine.shapes([product], 4), engine.fixed_shape([product], 4))} == {
        "arrays=6 lanes=3 block_rows=4 block_cols=4"
    }


def test_products_with_different_blocks_try_the_common_one_and_each_of_theirs():
    rng = np.random.default_rng(6)
    products = [product_of(blocks_of(rng.random((6, 6)) < 0.5, block)) for block in ((4, 4), (1, 8))]

    shapes = Block().shapes(products, 64)
    assert {(shape["block_rows"], shape["block_cols"]) for shape in shapes} == {(1, 4), (4, 4), (1, 8)}


@pytest.mark.parametrize("lockstep", [False, True])
@pytest.mark.parametrize(("arrays", "lanes"), [(1, 16), (8, 16), (20, 4), (150, 2)])
def test_the_expectation_meets_the_mean_of_random_masks(arrays, lanes, lockstep):
    rng = np.random.default_rng(7)
    engine, shape = Block(lockstep=lockstep), shape_of((4, 4), arrays, lanes)
    runs = []
    for _ in range(10):
        order = rng.permutation(100 * 50).reshape(100, 50)
        product = product_of(blocks_of(order < 750, (4, 4), 398, 199))
        runs.append((engine.simulate(product, shape, CONDITIONS), engine.expect(product, shape, CONDITIONS)))
    simulated = np.mean([float(run.cycles) for run, _ in runs])
    expected = np.mean([float(run.cycles) for _, run in runs])

    assert expected == pytest.approx(simulated, rel=0.03)


def test_tensors_of_different_density_are_expected_apart():
    dense, empty = np.ones((40, 20), np.bool_), np.zeros((40, 20), np.bool_)
    engine, shape = Block(block=(4, 4)), shape_of((4, 4), 3, 16)
    product = product_of(dense, empty)

    expected = engine.expect(product, shape, CONDITIONS)
    assert expected.cycles == engine.simulate(product, shape, CONDITIONS).cycles


def test_counting_blocks_agrees_with_cutting_the_mask_tile_by_tile():
    mask = np.random.default_rng(8).random((11, 14)) < 0.1
    kept = kept_blocks(part_of(mask), (3, 4))

    tiles = [[mask[top : top + 3, left : left + 4] for left in range(0, 14, 4)] for top in range(0, 11, 3)]
    assert kept.per_row.tolist() == [sum(tile.any() for tile in row) for row in tiles]
    assert kept.inside == sum(tile.size for row in tiles for tile in row if tile.any())


def test_the_binomial_is_the_textbook_one():
    counts = binomial(6, 0.25)

    assert counts.low == 0
    assert counts.mass == pytest.approx(
        [0.177979, 0.355957, 0.296631, 0.131836, 0.032959, 0.004395, 0.000244], abs=1e-6
    )


def test_the_largest_of_two_coins_is_heads_three_times_in_four():
    assert expected_largest([(binomial(1, 0.5), 2)]) == pytest.approx(0.75)
    assert expected_largest([(binomial(1, 0.5), 1), (binomial(1, 1.0), 0)]) == pytest.approx(0.5)


def test_a_block_has_positive_sides():
    with pytest.raises(ValidationError, match="greater than 0"):
        Block(block=(0, 4))
