"""Unrolled circuits: they compute what they stand for, need no more adders than they must, and zeros vanish."""

import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from harness_plugins.hardware._validation.unrolled import pruned
from harness_plugins.hardware.engines import static_dataflow
from harness_plugins.hardware.engines.static_dataflow import StaticDataflow, solver
from harness_plugins.hardware.engines.static_dataflow.circuit import circuit, widths
from harness_plugins.hardware.engines.static_dataflow.digits import digit_counts, drawn_values, signed_digits
from harness_plugins.hardware.engines.static_dataflow.solver import solved
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from harness.api import Conditions, Part, Product, SpecError, Workload
from harness.discovery.finding import discover
from harness.fixed_point.quantise import quantised
from harness.testing import check_engine, engine_products

matrices = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.sampled_from([0, 0, 0, 1, -1, 3, -7, 11, 85, -128, 127]))
)


def valued(values):
    """One product with these integers as its weights."""
    mask = values != 0
    return Product("layer", (Part("fc", *values.shape, mask, int(mask.sum()), values=values),))


def run(product, bits=8, engine=None):
    engine = engine or StaticDataflow()
    conditions = Conditions(weight_bits=bits, activation_bits=bits)
    return engine.simulate(product, engine.fixed_shape([product], 1), conditions)


# --- digits ---------------------------------------------------------------------------------------------------------


@given(values=arrays(np.int64, st.integers(1, 20), elements=st.integers(-(2**15), 2**15 - 1)))
def test_signed_digits_add_up_have_no_neighbours_and_are_as_many_as_the_closed_form_says(values):
    place, power, sign = signed_digits(values)
    total = np.zeros_like(values)
    np.add.at(total, place, sign << power)

    assert (total == values).all()
    assert (np.bincount(place, minlength=len(values)) == digit_counts(values)).all()
    order = np.lexsort((power, place))
    neighbours = np.diff(power[order])[np.diff(place[order]) == 0]
    assert (neighbours >= 2).all()


def test_drawn_values_stand_where_weights_are_kept_and_are_the_same_for_the_same_mask():
    mask = np.random.default_rng(0).random((20, 30)) < 0.3
    values = drawn_values(mask, 6, 0.3)

    assert ((values != 0) == mask).all()
    assert np.abs(values).max() <= 31
    assert (drawn_values(mask, 6, 0.3) == values).all()


def test_of_kept_weights_more_pruning_leaves_larger_ones():
    mask = np.ones((100, 100), np.bool_)

    assert np.abs(drawn_values(mask, 8, 0.1)).mean() > np.abs(drawn_values(mask, 8, 0.9)).mean()


# --- circuits -------------------------------------------------------------------------------------------------------


@given(weights=matrices, share=st.booleans(), seed=st.integers(0, 9))
@settings(deadline=None)
def test_a_circuit_computes_the_product(weights, share, seed):
    vectors = np.random.default_rng(seed).integers(-128, 128, size=(weights.shape[1], 3))

    assert (circuit(weights, 8, share=share).evaluate(vectors) == weights @ vectors).all()


@given(weights=matrices)
@settings(deadline=None)
def test_no_value_leaves_the_range_that_its_width_was_chosen_for(weights):
    found = circuit(weights, 8)
    cols = weights.shape[1]
    extremes = np.array([np.where(row >= 0, 127, -128) for row in weights]).T
    sums = found.evaluate(extremes.reshape(cols, -1))

    wide = widths(found.low, found.high)[found.outputs]
    limit = 1 << (wide + found.output_shift - 1)
    assert (np.abs(sums) <= limit[:, None])[found.outputs >= 0].all()


@given(weights=matrices)
@settings(deadline=None)
def test_without_sharing_a_row_takes_an_adder_less_than_it_has_digits(weights):
    plain = circuit(weights, 8, share=False)
    digits = digit_counts(weights).sum(axis=1)
    negative = int((plain.output_sign < 0).sum())  # rows of which every digit is negative

    assert plain.adders == np.maximum(digits - 1, 0).sum() + negative
    assert negative <= ((weights <= 0).all(axis=1) & weights.any(axis=1)).sum()


@given(weights=matrices)
@settings(deadline=None)
def test_sharing_never_takes_more_adders(weights):
    assert len(circuit(weights, 8).left) <= len(circuit(weights, 8, share=False).left)


def test_the_tree_is_as_deep_as_the_digits_ask_for():
    ones = np.ones((1, 37), dtype=np.int64)

    assert circuit(ones, 8, share=False).levels == 6  # ceil(log2(37))


def test_a_worked_example_shares_the_pair_that_all_rows_have():
    # x0 + 2 x1 stands in all rows; the third has it four times as large and subtracts x2.
    weights = np.array([[1, 2, 0], [1, 2, 1], [4, 8, -1]])
    found = circuit(weights, 8)

    assert found.digits == 8
    assert found.shared == 1
    assert found.adders == 3
    assert found.levels == 2
    # x0 + 2 x1 is in [-384, 381]: 10 bits, one of which passes; adding x2: 10; times 4 minus x2: 12, none passes.
    assert found.luts == 9 + 10 + 12


def test_registers_cut_every_path_and_hold_what_waits():
    one = circuit(np.array([[1, 1, 1, 1, 1, 1, 1, 1]]), 4, share=False)

    assert [one.stages(levels) for levels in (1, 2, 3, 9)] == [3, 2, 1, 1]
    assert one.registers(9) == 8 * 4 + 7  # inputs, and one output of three bits more
    assert one.registers(1) == 8 * 4 + 4 * 5 + 2 * 6 + 7
    assert one.registers(2) == 8 * 4 + 2 * 6 + 7


@pytest.mark.parametrize("seed", range(2))
def test_in_a_circuit_banks_buy_nothing_and_blocks_share_more(seed):
    sizes = {kind: circuit(pruned(kind, seed, 64, 0.75, 8), 8).luts for kind in ("blocks", "unstructured", "banks")}

    assert sizes["blocks"] < 0.9 * sizes["unstructured"]
    assert abs(sizes["banks"] / sizes["unstructured"] - 1) < 0.05


@pytest.mark.skipif(
    find_spec("alkaid") is None, reason="alkaid is not installed: `harness hardware validate` has what it found"
)
@pytest.mark.parametrize("kind", ["blocks", "unstructured", "banks"])
def test_live_the_solver_finds_what_was_recorded_of_it(kind):
    weights = pruned(kind, 1, 32, 0.5, 8)

    assert circuit(weights, 8).luts == pytest.approx(solved(weights, 8).luts, rel=0.1)


# --- a solver in the place of our own search ------------------------------------------------------------------------


def step(opcode, *addresses, data=()):
    return SimpleNamespace(opcode=opcode, addr=addresses, data=data)


def solution(ops, outputs, inputs=(0, 0)):
    """A stage of a solution: its operations, and (place, shift, negated) of its outputs."""
    places, shifts, negated = zip(*outputs, strict=True)
    return SimpleNamespace(ops=ops, out_idxs=places, out_shifts=shifts, out_negs=negated, inp_shifts=list(inputs))


FIRST = solution(
    [
        step(-1, data=(0,)), step(-1, data=(1,)),
        step(0, 0, 0, data=(1,)),  # x + 2x
        step(1, 2, 1, data=(0,)),  # 3x - y
        step(0, 1, 0, data=(-1,)),  # y + x / 2
        step(-2, 1),  # -y
        step(1, 5, 0, data=(1,)),  # -y - 2x
    ],
    [(3, 0, False), (-1, 0, False), (4, 1, True), (6, 0, False)],
)  # fmt: skip
SECOND = solution(
    [step(-1, data=(0,)), step(-1, data=(2,)), step(-1, data=(3,)), step(-1, data=(1,)), step(0, 3, 2, data=(2,))],
    [(0, 0, False), (-1, 0, True), (1, 1, False), (4, 0, True)],
    inputs=(0, 0, 0, 0),
)
SOLVED = np.array([[3, -1], [0, 0], [-2, -4], [8, 4]])


@pytest.fixture
def a_solver(monkeypatch):
    """What is installed as alkaid; it answers the same, and notes what it was asked."""
    asked = []

    def cmvm_solve(kernel, qintervals):
        asked.append((kernel.copy(), kernel.flags.c_contiguous, qintervals))
        return FIRST, SECOND

    monkeypatch.setitem(sys.modules, "alkaid", ModuleType("alkaid"))
    monkeypatch.setitem(sys.modules, "alkaid.cmvm", SimpleNamespace(cmvm_solve=cmvm_solve))
    monkeypatch.setattr(solver, "find_spec", lambda name: object())
    return asked


def test_a_solution_is_the_circuit_of_its_matrix(a_solver):
    found = solved(SOLVED, 4)

    vectors = np.random.default_rng(1).integers(-8, 8, size=(2, 50))
    assert np.array_equal(found.evaluate(vectors), SOLVED @ vectors)
    ((kernel, is_row_by_row, intervals),) = a_solver
    assert np.array_equal(kernel, SOLVED.T) and is_row_by_row
    assert intervals == [(-8, 7, 1)] * 2
    # x + 2x, 3x - y, x + 2y and 2x + y; what is negated twice is not negated, and one output is.
    assert (len(found.left), found.adders, found.levels, found.digits) == (4, 5, 2, 7)


def test_a_solution_of_another_matrix_is_refused(a_solver):
    with pytest.raises(SpecError, match=r"alkaid.* found a circuit for 4 x 2 weights that computes other sums"):
        solved(SOLVED + 1, 4)


def test_the_engine_asks_the_solver_and_says_so(a_solver):
    found = run(valued(SOLVED), engine=StaticDataflow(solver="alkaid"))

    assert found.logic.lut == solved(SOLVED, 8).luts
    assert any("found by alkaid" in note for note in found.notes)


def test_a_solver_is_not_asked_for_more_than_it_can_do_soon(a_solver, monkeypatch):
    monkeypatch.setattr(static_dataflow, "_SOLVED_DIGITS", 6)
    found = run(valued(SOLVED), engine=StaticDataflow(solver="alkaid"))

    assert not a_solver
    assert found.logic.lut == run(valued(SOLVED)).logic.lut
    assert any("without alkaid" in note for note in found.notes)


def test_a_solver_that_is_not_installed_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(solver, "find_spec", lambda name: None)

    assert StaticDataflow().refusal(valued(SOLVED)) is None
    assert StaticDataflow(solver="alkaid").refusal(valued(SOLVED)) == (
        "`solver: alkaid` needs alkaid, which is not installed here; run `pip install alkaid`, or leave it out"
    )


def test_a_solver_that_is_not_to_share_is_a_contradiction():
    with pytest.raises(ValidationError, match="adds shared pairs once, got `share: false`"):
        StaticDataflow(solver="alkaid", share=False)


# --- the engine -----------------------------------------------------------------------------------------------------


def test_it_keeps_the_promises_of_engines():
    check_engine(StaticDataflow())
    check_engine(StaticDataflow(adders_per_stage=1, share=False))


@given(values=matrices, seed=st.integers(0, 5))
@settings(deadline=None)
def test_a_zero_vanishes_wherever_it_stands(values, seed):
    rng = np.random.default_rng(seed)
    padded = np.zeros((values.shape[0] + 2, values.shape[1] + 3), dtype=np.int64)
    padded[: values.shape[0], : values.shape[1]] = values
    shuffled = padded[rng.permutation(padded.shape[0])]

    assert run(valued(shuffled)).parts["fill_drain"] == run(valued(values)).parts["fill_drain"]
    inputs = 3 * 8  # those beside have registers, and feed nothing
    assert run(valued(padded)).logic.lut == run(valued(values)).logic.lut
    assert run(valued(padded)).logic.ff == run(valued(values)).logic.ff + inputs


def test_every_cycle_takes_an_input_and_the_tree_is_waited_for_once():
    found = run(valued(np.ones((3, 37), dtype=np.int64)), engine=StaticDataflow(adders_per_stage=2, share=False))

    assert found.issue_cycles == 1
    assert found.parts["fill_drain"] == 3  # six adders on every path, a register behind every two


def test_narrower_weights_and_inputs_take_less():
    product = next(each for each in engine_products(64, 64) if each.layer == "unstructured")
    sizes = [run(product, bits=bits).logic.lut for bits in (4, 6, 8, 16)]

    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 4


def test_of_a_huge_product_some_rows_stand_for_all_and_it_says_so():
    rng = np.random.default_rng(0)
    mask = rng.random((1200, 600)) < 0.2
    product = Product("huge", (Part("fc", 1200, 600, mask, int(mask.sum())),))
    found = run(product)
    values = drawn_values(mask, 8, product.density)

    assert found.logic.lut == pytest.approx(circuit(values, 8, share=False).luts, rel=0.03)
    assert any("stand for all" in note for note in found.notes)


def test_an_expectation_is_close_to_random_masks():
    mask = np.random.default_rng(1).random((64, 64)) < 0.25
    product = Product("layer", (Part("fc", 64, 64, mask, int(mask.sum())),))
    engine = StaticDataflow()
    told = Product("layer", (Part("fc", 64, 64, None, int(mask.sum())),))
    expected = engine.expect(told, engine.fixed_shape([told], 1), Conditions())
    counted = engine.simulate(product, engine.fixed_shape([product], 1), Conditions())

    assert expected.logic.lut == pytest.approx(counted.logic.lut, rel=0.05)


# --- on a device ----------------------------------------------------------------------------------------------------

REGISTRY = discover()


def cost(workload, **parameters):
    entry = {"name": "cycle_simulator", "engine": {"name": "static_dataflow"}, "multipliers": 64, **parameters}
    return REGISTRY.create("hardware", entry).cost(workload)


def test_weights_that_are_known_are_the_circuit_and_others_are_drawn_with_a_note(make):
    weights = np.random.default_rng(0).standard_normal((32, 32)) * (np.random.default_rng(1).random((32, 32)) < 0.3)
    bare = make.matrix_workload(weights != 0)
    (name,) = bare.masks
    known = Workload(bare.network, bare.tensors, bare.masks, weights={name: weights}, quantise=quantised)
    entry = REGISTRY.create("hardware", {"name": "cycle_simulator", "engine": {"name": "static_dataflow"}})
    integers, _ = quantised(weights, entry.number_format())

    assert cost(known).lut == circuit(integers.astype(np.int64), 16).luts
    assert "drawn" not in str(cost(known).details["layers"])
    assert "values are drawn" in str(cost(bare).details["layers"])


def test_no_multiplier_takes_a_dsp_block_and_no_weight_a_memory(make):
    found = cost(make.matrix_workload(np.random.default_rng(0).random((24, 40)) < 0.3))

    assert (found.dsp, found.ram_blocks, found.resident) == (0, 0, True)
    assert found.details["hardware_class"] == "unrolled"


def test_the_budget_of_multipliers_bounds_no_circuit_and_is_that_of_its_baseline(make):
    workload = make.matrix_workload(np.random.default_rng(0).random((64, 64)) < 0.3)
    small, large = cost(workload, multipliers=16), cost(workload, multipliers=256)

    assert (small.cycles, small.lut) == (large.cycles, large.lut)
    assert small.dense_cycles > large.dense_cycles


def test_it_fits_by_its_logic_alone(make):
    workload = make.matrix_workload(np.random.default_rng(0).random((96, 96)) < 0.5)

    assert cost(workload, device="alveo_u280").fits
    assert not cost(workload, device="xc7z020").fits


def test_layers_without_a_loop_take_an_item_every_cycle_and_recurrent_ones_wait_for_themselves(make):
    mask = np.random.default_rng(0).random((24, 40)) < 0.3
    forward, recurrent = cost(make.matrix_workload(mask)), cost(make.lstm_workload(8, lambda r, c: np.ones((r, c)) > 0))

    assert forward.steps_per_s == pytest.approx(forward.clock_mhz * 1e6)
    assert recurrent.steps_per_s == pytest.approx(1e6 / recurrent.latency_us)
