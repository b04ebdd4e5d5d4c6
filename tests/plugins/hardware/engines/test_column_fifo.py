"""The column-FIFO engine: shapes, exact and expected cycles, memories, skipping."""

from fractions import Fraction

import numpy as np
import pytest
from column_ticks import tick
from harness_plugins.hardware.engines._drawn import drawn
from harness_plugins.hardware.engines.column_fifo import DRAIN, ColumnFifo
from harness_plugins.hardware.engines.column_fifo.recurrence import pe_counts
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from harness.api import Conditions, EngineShape, Part, Product

CONDITIONS = Conditions()

masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 12)))
sizes = st.integers(1, 24)
engines = st.builds(
    ColumnFifo,
    fifo_depth=st.integers(2, 8),
    full_flag=st.sampled_from(["registered", "same_cycle", "late"]),
    index_bits=st.sampled_from([None, 1, 3]),
    trailing_runs=st.sampled_from(["padded", "not_padded"]),
    empty_column_cycles=st.sampled_from([0, 1]),
)
activation_densities = st.sampled_from([0.0, 0.3, 0.8, 1.0])


def product_of(*matrices, banks=None, **given_):
    parts = tuple(
        Part(f"part_{index}", *mask.shape, mask, int(mask.sum()), banks) for index, mask in enumerate(matrices)
    )
    return Product("layer", parts, **given_)


def statistics_of(rows, cols, kept, banks=None, **given_):
    return Product("layer", (Part("part", rows, cols, None, kept, banks),), **given_)


def shape_of(pes, groups=1, channels=1):
    return EngineShape((("pes", pes), ("groups", groups)), pes * groups * channels)


def unstructured(rows, cols, kept, seed=0):
    mask = np.zeros(rows * cols, dtype=np.bool_)
    mask[np.random.default_rng(seed).permutation(rows * cols)[:kept]] = True
    return mask.reshape(rows, cols)


def ram(run, purpose):
    return next(ram for ram in run.rams if ram.purpose == purpose)


@settings(deadline=None)
@given(mask=masks, pes=sizes, groups=sizes, depth=st.integers(1, 6))
def test_cycles_are_those_of_the_slowest_group_that_ticks(mask, pes, groups, depth):
    run = ColumnFifo(fifo_depth=depth).simulate(product_of(mask), shape_of(pes, groups), CONDITIONS)

    counts = pe_counts(mask, pes).T.tolist()
    slowest = max(tick(counts[group::groups], depth).cycles for group in range(groups))
    assert run.cycles == slowest + -(-len(mask) // pes) + DRAIN  # the sums are read out, of one group too


@settings(deadline=None)
@given(engine=engines, mask=masks, pes=sizes, groups=sizes, density=activation_densities)
def test_the_parts_are_exact_and_none_is_negative(engine, mask, pes, groups, density):
    product = product_of(mask, activation_density=density)

    run = engine.simulate(product, shape_of(pes, groups), CONDITIONS)

    assert run.cycles.denominator == 1
    assert all(isinstance(part, Fraction) and part >= 0 for part in run.parts.values())
    assert run.busy.shape == (pes * groups,)
    assert run.busy.max() <= run.cycles
    assert run.cycles >= engine.least_cycles(product, shape_of(pes, groups))
    assert 0 <= run.last <= run.issue_cycles
    assert run.stored_words >= product.nnz


@settings(deadline=None)
@given(mask=masks, pes=sizes, groups=sizes)
def test_no_multiplier_takes_more_than_one_weight_per_cycle(mask, pes, groups):
    run = ColumnFifo().simulate(product_of(mask), shape_of(pes, groups), CONDITIONS)

    assert run.parts["compute"] == Fraction(int(mask.sum()), pes * groups)
    assert run.cycles >= -(-int(mask.sum()) // (pes * groups))


@settings(deadline=None)
@given(mask=masks, pes=st.integers(1, 6), groups=st.integers(1, 4), data=st.data())
def test_permuting_the_rows_of_a_pe_changes_nothing(mask, pes, groups, data):
    rows = np.arange(len(mask))
    for pe in range(min(pes, len(mask))):
        rows[pe::pes] = data.draw(st.permutations(rows[pe::pes].tolist()))

    before = ColumnFifo().simulate(product_of(mask), shape_of(pes, groups), CONDITIONS)

    assert ColumnFifo().simulate(product_of(mask[rows]), shape_of(pes, groups), CONDITIONS) == before


@settings(deadline=None)
@given(mask=masks, pes=sizes, groups=sizes, depth=st.integers(1, 6), data=st.data())
def test_weights_more_are_never_faster(mask, pes, groups, depth, data):
    more = mask | data.draw(hnp.arrays(np.bool_, mask.shape))
    engine = ColumnFifo(fifo_depth=depth)

    cycles = engine.simulate(product_of(mask), shape_of(pes, groups), CONDITIONS).cycles

    assert engine.simulate(product_of(more), shape_of(pes, groups), CONDITIONS).cycles >= cycles


@settings(deadline=None)
@given(mask=masks, pes=sizes, groups=sizes)
def test_deeper_fifos_are_never_slower_and_stall_no_more_once_they_hold_every_column(mask, pes, groups):
    runs = [
        ColumnFifo(fifo_depth=depth).simulate(product_of(mask), shape_of(pes, groups), CONDITIONS)
        for depth in (1, 2, 4, mask.shape[1])
    ]

    assert [run.cycles for run in runs] == sorted((run.cycles for run in runs), reverse=True)
    assert runs[-1].parts["fifo_stall"] == 0
    assert runs[-1].issue_cycles - runs[-1].parts["reduction"] == runs[-1].busy.max()


def test_a_layer_of_two_matrices_is_one_product():
    left, right = unstructured(40, 20, 90), unstructured(40, 10, 300, seed=1)

    together = ColumnFifo().simulate(product_of(left, right), shape_of(8, 3), CONDITIONS)

    assert together == ColumnFifo().simulate(product_of(np.hstack([left, right])), shape_of(8, 3), CONDITIONS)


def test_columns_go_to_the_groups_in_turn_so_that_a_dense_matrix_beside_a_sparse_one_loads_them_equally():
    product = product_of(np.ones((16, 16), dtype=np.bool_), np.zeros((16, 16), dtype=np.bool_))

    run = ColumnFifo(fifo_depth=32).simulate(product, shape_of(4, 2), CONDITIONS)

    assert run.busy.tolist() == [8 * 4 + 8] * 8  # eight full columns of four rows, eight empty ones of a cycle each


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (4, 4)])
@pytest.mark.parametrize("kept", [0, 1])
def test_a_mask_of_one_weight_or_none_runs(shape, kept):
    mask = np.zeros((5, 4), dtype=np.bool_)
    mask[:kept, 0] = True

    run = ColumnFifo(index_bits=1).simulate(product_of(mask), shape_of(*shape), CONDITIONS)

    assert run.parts["compute"] == Fraction(kept, shape[0] * shape[1])
    assert run.parts["empty_columns"] > 0


def test_a_dense_matrix_keeps_every_pe_busy():
    run = ColumnFifo().simulate(product_of(np.ones((32, 10), dtype=np.bool_)), shape_of(8), CONDITIONS)

    assert run.parts == {
        "compute": 40,
        "index_padding": 0,
        "empty_columns": 0,
        "pe_imbalance": 0,
        "fifo_stall": 0,
        "reduction": 4,
        "fill_drain": 1 + DRAIN,
    }


def test_a_vector_of_zeros_takes_no_broadcast():
    product = product_of(np.ones((8, 10), dtype=np.bool_), activation_density=0.0)

    assert ColumnFifo().simulate(product, shape_of(4), CONDITIONS).cycles == 2 + DRAIN


def test_skipping_leaves_out_as_many_columns_as_the_vector_has_zeros():
    mask = np.ones((8, 10), dtype=np.bool_)
    product = product_of(mask, activation_density=0.3)

    run = ColumnFifo().simulate(product, shape_of(8), CONDITIONS)

    assert run.parts["compute"] == 3
    assert run.notes[0].startswith("7 of 10 vector elements are taken as zero and skipped, drawn with seed 0")


def test_which_columns_are_skipped_depends_on_the_seed_alone():
    product = product_of(unstructured(64, 50, 600), activation_density=0.5)

    cycles = [
        ColumnFifo(activation_seed=seed).simulate(product, shape_of(8), CONDITIONS).cycles for seed in (0, 0, 1, 2, 3)
    ]

    assert cycles[0] == cycles[1]
    assert len(set(cycles)) > 1


def test_an_engine_that_does_not_skip_takes_no_notice_of_zeros():
    mask = unstructured(64, 50, 600)
    plain = ColumnFifo(skip=False)

    run = plain.simulate(product_of(mask, activation_density=0.5), shape_of(8, 2), CONDITIONS)

    assert run == plain.simulate(product_of(mask), shape_of(8, 2), CONDITIONS)
    assert run.notes == ()


def test_a_narrow_search_for_live_columns_takes_longer_than_a_wide_one():
    product = product_of(unstructured(64, 200, 600), activation_density=0.05)

    narrow, wide = (
        ColumnFifo(scan_width=width).simulate(product, shape_of(64), CONDITIONS).cycles for width in (1, 200)
    )

    assert narrow > 100 > wide


def test_padding_takes_time_and_room():
    product = product_of(unstructured(640, 30, 700))

    plain = ColumnFifo().simulate(product, shape_of(10), CONDITIONS)
    padded = ColumnFifo(index_bits=2).simulate(product, shape_of(10), CONDITIONS)

    assert plain.parts["index_padding"] == 0
    assert padded.parts["index_padding"] > 0
    assert padded.stored_words == plain.stored_words + padded.parts["index_padding"] * 10
    assert ram(plain, "weights").width == 16 + 6 + 1  # a weight, one of 64 rows, the end of the column
    assert ram(padded, "weights").width == 16 + 2 + 1


def test_the_memories_of_a_small_shape_worked_by_hand():
    mask = np.zeros((8, 6), dtype=np.bool_)
    mask[[0, 2, 4, 1], [0, 0, 1, 5]] = True  # even rows on PE 0, odd ones on PE 1; even columns in group 0

    run = ColumnFifo(channels=2).simulate(product_of(mask), shape_of(2, 2, channels=2), CONDITIONS)

    # Words of PE 0: columns 0, 2, 4 hold 2 weights and two dummies; 1, 3, 5 one weight and two dummies.
    assert [(ram.purpose, ram.width, ram.depth, ram.count) for ram in run.rams] == [
        ("weights", 16 + 2 + 1, 4, 4),
        ("accumulators", 32, 4, 8),
        ("vector", 16, 6, 4),
        ("fifo", 32, 8, 4),
    ]
    assert run.stored_words == 4 + 3 + 3 + 3
    assert run.stored_bits == 13 * 19


def test_columns_that_are_skipped_are_found_by_pointers():
    mask = np.zeros((8, 6), dtype=np.bool_)
    mask[[0, 2, 4, 1], [0, 0, 1, 5]] = True

    run = ColumnFifo().simulate(product_of(mask, activation_density=0.5), shape_of(2, 2), CONDITIONS)

    assert ram(run, "weights").width == 16 + 2
    assert ram(run, "weights").depth == 2
    assert (ram(run, "pointers").width, ram(run, "pointers").depth, ram(run, "pointers").count) == (2, 3 + 1, 4)
    assert ram(run, "fifo").width == 16 + 2  # the vector element and which of three columns
    assert run.stored_bits == 4 * 18 + 4 * 2 * 4


def test_the_sums_of_a_group_on_its_own_are_read_out_too():
    run = ColumnFifo().simulate(product_of(unstructured(64, 50, 600)), shape_of(8), CONDITIONS)

    assert run.parts["reduction"] == 8
    assert (run.last, run.last_rows) == (run.issue_cycles - 7, 8)


def test_the_sums_of_several_groups_leave_one_row_of_each_pe_per_cycle():
    run = ColumnFifo().simulate(product_of(unstructured(60, 50, 600)), shape_of(16, 4), CONDITIONS)

    assert run.parts["reduction"] == 4
    assert run.last == run.issue_cycles - 3
    assert run.last_rows == 60 - 3 * 16


@pytest.mark.parametrize(
    ("pes", "groups", "cycles"),
    # hardware models, sections 1 and 8: 6000 x 1500, 10 % kept, before the sums are read out [simulated]
    [(32, 1, 28_590), (1024, 1, 1_845), (4096, 1, 1_533 + 1)],
)
def test_cycles_of_a_large_mask_are_near_the_known_ones(pes, groups, cycles):
    product = drawn((6000, ((1500, 900_000, None),)), 0)

    run = ColumnFifo(full_flag="same_cycle").simulate(product, shape_of(pes, groups), CONDITIONS)

    assert float(run.cycles) == pytest.approx(cycles + -(-6000 // pes) + DRAIN, rel=0.01)


def test_groups_make_wide_arrays_fast_on_unstructured_masks():
    product = drawn((6000, ((1500, 900_000, None),)), 0)

    run = ColumnFifo(full_flag="same_cycle").simulate(product, shape_of(256, 16), CONDITIONS)

    # hardware models, section 1: 280-281 cycles, 24 of reduction, 1.04 words stored per weight
    assert float(run.issue_cycles - run.parts["reduction"]) == pytest.approx(281, rel=0.03)
    assert run.parts["reduction"] == 24
    assert float(run.stored_words / product.nnz) == pytest.approx(1.04, abs=0.005)


@pytest.mark.parametrize("depth", [1, 8])
@pytest.mark.parametrize(("pes", "groups"), [(32, 1), (128, 8), (16, 64), (100, 7)])
@pytest.mark.parametrize("density", [0.05, 0.3])
def test_expected_cycles_are_those_of_random_masks(density, pes, groups, depth):
    engine, rows, cols = ColumnFifo(fifo_depth=depth), 800, 200
    kept = round(rows * cols * density)
    simulated = [
        engine.simulate(product_of(unstructured(rows, cols, kept, seed)), shape_of(pes, groups), CONDITIONS).cycles
        for seed in range(10)
    ]

    expected = engine.expect(statistics_of(rows, cols, kept), shape_of(pes, groups), CONDITIONS).cycles

    assert float(expected) == pytest.approx(float(np.mean(simulated)), rel=0.03)


@pytest.mark.parametrize("given_", [{"index_bits": 3}, {"index_bits": 3, "trailing_runs": "padded"}])
def test_expected_cycles_know_of_padding(given_):
    engine, shape = ColumnFifo(**given_), shape_of(16, 2)
    simulated = [
        engine.simulate(product_of(unstructured(800, 100, 4000, seed)), shape, CONDITIONS).cycles for seed in range(10)
    ]

    run = engine.expect(statistics_of(800, 100, 4000), shape, CONDITIONS)

    assert run.parts["index_padding"] > 0
    assert float(run.cycles) == pytest.approx(float(np.mean(simulated)), rel=0.03)


def test_expected_cycles_know_that_equal_banks_load_the_pes_equally(make):
    rng, engine, shape = np.random.default_rng(0), ColumnFifo(), shape_of(64)
    simulated = [
        engine.simulate(product_of(make.bank_balanced_mask(rng, 640, 20, 10, 2)), shape, CONDITIONS).cycles
        for _ in range(10)
    ]

    balanced = engine.expect(statistics_of(640, 200, 640 * 40, banks=20), shape, CONDITIONS).cycles

    assert float(balanced) == pytest.approx(float(np.mean(simulated)), rel=0.02)
    assert balanced < engine.expect(statistics_of(640, 200, 640 * 40), shape, CONDITIONS).cycles


@settings(max_examples=30, deadline=None)
@given(engine=engines, rows=sizes, cols=sizes, pes=sizes, groups=sizes, density=activation_densities, data=st.data())
def test_what_is_expected_needs_no_mask_and_sums_up(engine, rows, cols, pes, groups, density, data):
    kept = data.draw(st.integers(0, rows * cols))

    run = engine.expect(statistics_of(rows, cols, kept, activation_density=density), shape_of(pes, groups), CONDITIONS)

    assert all(part >= 0 for part in run.parts.values())
    assert 0 <= run.last <= run.issue_cycles


@settings(deadline=None)
@given(rows=sizes, banks=st.integers(1, 6), longer=st.integers(0, 5), data=st.data())
def test_drawn_masks_keep_equally_many_in_every_bank_ragged_or_not(rows, banks, longer, data):
    short = data.draw(st.integers(1, 6))
    cols, quota = banks * short + longer % banks, data.draw(st.integers(0, short))

    mask = drawn((rows, ((cols, rows * banks * quota, banks),)), 0).mask

    starts = np.array([bank * short + min(bank, longer % banks) for bank in range(banks)])
    assert (np.add.reduceat(mask, starts, axis=1, dtype=np.int64) == quota).all()


def test_drawn_masks_favour_no_column_of_a_bank():
    mask = drawn((20_000, ((10, 20_000 * 2 * 2, 2),)), 0).mask

    assert mask.mean(axis=0).tolist() == pytest.approx([0.4] * 10, abs=0.02)


@settings(deadline=None)
@given(kept=st.integers(0, 300))
def test_drawn_masks_keep_exactly_as_many_weights_as_asked(kept):
    assert drawn((20, ((15, kept, None),)), 0).mask.sum() == kept


@settings(deadline=None)
@given(
    rows=st.integers(1, 3000),
    cols=st.integers(1, 3000),
    budget=st.integers(1, 5000),
    channels=st.sampled_from([1, 4]),
)
def test_shapes_stay_within_the_budget_and_the_matrix(rows, cols, budget, channels):
    products = [statistics_of(rows, cols, rows * cols // 10)]

    shapes = ColumnFifo(channels=channels).shapes(products, budget)

    assert 1 <= len(shapes) <= 24
    assert len({str(shape) for shape in shapes}) == len(shapes)
    for shape in shapes:
        assert shape.multipliers == shape["pes"] * shape["groups"] * channels <= max(budget, channels)
        assert shape["pes"] <= rows
        assert shape["groups"] <= cols


def test_the_search_tries_groups_that_beat_one_wide_group():
    product = drawn((1200, ((300, 36_000, None),)), 0)
    engine = ColumnFifo()

    best = min(engine.simulate(product, shape, CONDITIONS).cycles for shape in engine.shapes([product], 512))

    assert best < 0.5 * engine.simulate(product, engine.fixed_shape([product], 512), CONDITIONS).cycles


def test_sizes_that_are_given_are_kept_even_beyond_the_budget():
    products = [statistics_of(100, 100, 500)]

    assert [str(shape) for shape in ColumnFifo(pes=8, groups=4).shapes(products, 16)] == ["pes=8 groups=4"]
    assert {shape["pes"] for shape in ColumnFifo(pes=8).shapes(products, 64)} == {8}
    assert {shape["groups"] for shape in ColumnFifo(groups=4).shapes(products, 64)} == {4}
    assert str(ColumnFifo(pes=8, groups=4).fixed_shape(products, 16)) == "pes=8 groups=4"


def test_the_fixed_shape_is_one_group_of_all_pes():
    products = [statistics_of(1000, 100, 500)]

    assert str(ColumnFifo().fixed_shape(products, 256)) == "pes=256 groups=1"
    assert str(ColumnFifo().fixed_shape(products, 4096)) == "pes=1000 groups=1"
    assert ColumnFifo(channels=4).fixed_shape(products, 256).multipliers == 256


def test_channels_serve_more_inputs_in_the_same_cycles():
    product = product_of(unstructured(64, 50, 600))

    wide = ColumnFifo(channels=4)

    assert wide.streams == 4
    one = ColumnFifo().simulate(product, shape_of(8, 2), CONDITIONS)
    assert wide.simulate(product, shape_of(8, 2, channels=4), CONDITIONS).parts == one.parts


def test_a_late_flag_on_a_fifo_of_one_is_refused():
    with pytest.raises(ValidationError, match="a FIFO with a late full flag needs fifo_depth >= 2, got 1"):
        ColumnFifo(full_flag="late", fifo_depth=1)
