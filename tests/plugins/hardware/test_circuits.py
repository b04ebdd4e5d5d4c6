"""Emitted designs: in a simulator every product and every cycle is what the integers and the model say."""

import shutil
import subprocess

import numpy as np
import pytest
from harness_plugins.hardware._design import products as _products
from harness_plugins.hardware._rtl.circuits import engine_rows
from harness_plugins.hardware._rtl.lstm import units_at_once
from harness_plugins.hardware._rtl.running import find_for_benches, run_bench
from harness_plugins.hardware._rtl.simulate import is_installed
from harness_plugins.hardware._rtl.synthesis import find_yosys
from harness_plugins.hardware.cycle_simulator import CycleSimulator
from harness_plugins.hardware.engines.bank import Bank
from harness_plugins.hardware.engines.column_fifo import ColumnFifo
from harness_plugins.hardware.engines.dense_mvm import DenseMvm
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.api import CellOperands, NumberFormat, Operands, SpecError, lstm_outputs, requantised

needs_simulator = pytest.mark.skipif(find_for_benches() is None, reason="neither Icarus nor Verilator 5 is installed")
needs_verilator = pytest.mark.skipif(not is_installed("verilator"), reason="Verilator 5 is not installed")
needs_yosys = pytest.mark.skipif(find_yosys() is None, reason="yosys is not installed")

PLAIN = NumberFormat()
SMALL = NumberFormat(weight_bits=4, activation_bits=8, accumulator_bits=14, scaling="row")


def operands(mask, form=PLAIN, *, per_row=False, output_bits=16, vectors=2, seed=0):
    """Integers over the whole range of a format: sums may wrap around, and results saturate."""
    rng = np.random.default_rng(seed)
    rows, cols = mask.shape
    top, high = 1 << (form.weight_bits - 1), 1 << (form.activation_bits - 1)
    room = 1 << (form.accumulator_bits - 2)
    return Operands(
        layer="dense",
        weights=rng.integers(1 - top, top, mask.shape) * mask,  # a kept weight may be zero, and stays stored
        bias=rng.integers(-room, room, rows) if per_row else np.zeros(rows, dtype=np.int64),
        shifts=rng.integers(-3, form.accumulator_bits + 3, rows) if per_row else np.full(rows, 9),
        output_bits=output_bits,
        vectors=rng.integers(-high, high, (vectors, cols)),
        number_format=form,
    )


def model_of(engine, form=PLAIN, **parameters):
    return CycleSimulator(
        engine=engine,
        weight_bits=form.weight_bits,
        activation_bits=form.activation_bits,
        accumulator_bits=form.accumulator_bits,
        scaling=form.scaling,
        **parameters,
    )


def put(circuit, folder):
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in circuit.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@st.composite
def designs(draw):
    rows, cols = draw(st.integers(1, 14)), draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    mask = rng.random((rows, cols)) < draw(st.sampled_from((0.05, 0.3, 0.9)))
    pes = draw(st.integers(1, 4))
    if draw(st.booleans()):
        lockstep, banks = draw(st.booleans()), draw(st.none() | st.integers(1, cols))
        engine = Bank(pes=pes, lanes=draw(st.integers(1, 5)), banks=banks, lockstep=lockstep)
    else:
        depth, flag = draw(st.sampled_from(((1, "registered"), (1, "same_cycle"), (2, "late"), (5, "registered"))))
        engine = ColumnFifo(pes=pes, groups=draw(st.integers(1, 3)), fifo_depth=depth, full_flag=flag)
    per_row = draw(st.booleans())
    return mask, engine, SMALL if per_row else PLAIN, per_row


@pytest.mark.rtl
@needs_simulator
@settings(
    max_examples=8,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(designs())
def test_any_mask_on_any_shape_gives_every_product_in_the_cycles_of_the_model(make, tmp_path, design):
    mask, engine, form, per_row = design
    given_to_it = operands(mask, form, per_row=per_row, output_bits=7 if per_row else 16)

    made = model_of(engine, form).circuit(make.matrix_workload(mask), given_to_it)
    found = run_bench(put(made, tmp_path / "design"))

    assert (found.wrong, found.off, found.products) == (0, 0, 4), found
    assert found.cycles == made.cycles
    assert found.holds


@pytest.mark.rtl
@needs_simulator
@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        (Bank(pes=3, lanes=5), "balanced"),
        (Bank(pes=4, lanes=3, banks=7), "ragged"),
        (ColumnFifo(pes=4, groups=2), "any"),
    ],
    ids=["bank-balanced", "ragged banks, odd sizes", "unstructured"],
)
def test_an_lstm_layer_runs_unit_by_unit_whatever_its_mask(make, tmp_path, engine, kind):
    rng = np.random.default_rng(1)

    def mask(rows, cols):
        return (
            make.bank_balanced_mask(rng, rows, 5, cols // 5, 1)
            if kind == "balanced"
            else rng.random((rows, cols)) < 0.2
        )

    workload = make.lstm_workload(10 if kind == "balanced" else 9, mask)
    both = np.hstack([workload.masks[tensor.name] for tensor in workload.tensors])
    given_to_it = operands(both, seed=3)

    made = model_of(engine).circuit(workload, given_to_it)
    found = run_bench(put(made, tmp_path / "design"))

    assert found.holds, found
    assert "unit-major" in made.files["README.md"]


def test_rows_of_an_lstm_layer_are_ordered_unit_by_unit(make):
    product = make.product_of(np.ones((12, 2), dtype=bool), units=3)

    assert engine_rows(product).tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]


FAULTS = {
    "bias left out": ("rtl/requantise.v", "total <= sum + bias", "total <= sum"),
    "rounded down": ("rtl/requantise.v", "moved[OUT_BITS:0]} + 1'b1", "moved[OUT_BITS:0]}"),
    "not saturated": ("rtl/requantise.v", "fits && !carries ?", "1'b1 ?"),
    "halves mixed up": ("rtl/sequencer.v", "read_half <= !read_half;", ""),
    "a pause loses a beat": ("rtl/output_lane.v", ".take(take)", ".take(valid)"),
}


@pytest.mark.rtl
@needs_simulator
@pytest.mark.parametrize(("file", "line", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_the_design_is_found_by_its_bench(make, tmp_path, file, line, fault):
    mask = np.random.default_rng(0).random((10, 12)) < 0.5
    made = model_of(Bank(pes=2, lanes=3), SMALL).circuit(
        make.matrix_workload(mask), operands(mask, SMALL, per_row=True, output_bits=7)
    )
    folder = put(made, tmp_path / "design")
    text = (folder / file).read_text()
    assert line in text
    (folder / file).write_text(text.replace(line, fault))

    found = run_bench(folder)

    assert not found.holds
    assert found.wrong > 0


@pytest.mark.rtl
@needs_simulator
def test_a_design_that_takes_a_cycle_more_than_it_should_fails(make, tmp_path):
    mask = np.random.default_rng(0).random((6, 8)) < 0.5
    made = model_of(Bank(pes=2, lanes=3)).circuit(make.matrix_workload(mask), operands(mask))
    folder = put(made, tmp_path / "design")
    header = folder / "rtl/design.vh"
    header.write_text(header.read_text().replace(f"`define CYCLES {made.cycles}", f"`define CYCLES {made.cycles - 1}"))

    found = run_bench(folder)

    assert (found.wrong, found.off) == (0, 4)
    assert not found.holds


@pytest.mark.rtl
@needs_yosys
@pytest.mark.parametrize("engine", [Bank(pes=2, lanes=3), ColumnFifo(pes=2, groups=2)], ids=lambda engine: engine.name)
def test_yosys_reads_a_design_and_keeps_its_multipliers(make, tmp_path, engine):
    mask = np.random.default_rng(0).random((6, 40)) < 0.5
    made = model_of(engine, device="xc7z020").circuit(make.matrix_workload(mask), operands(mask, per_row=True))
    folder = put(made, tmp_path / "design")
    # Mapping to primitives takes a minute; what is there to map shows before.
    script = made.files["synth/yosys.ys"].replace("synth_xilinx -family xc7 -flatten", "prep -flatten")
    (folder / "prep.ys").write_text(script)

    subprocess.run(["yosys", "-q", "prep.ys"], cwd=folder, check=True, capture_output=True, timeout=600)

    counted = (folder / "yosys_resources.txt").read_text().split()
    assert int(counted[counted.index("$mul") + 1]) == made.cost.multipliers
    assert "prep -flatten" in script


@pytest.mark.rtl
@needs_yosys
def test_yosys_reads_a_whole_layer(make, tmp_path):
    workload = make.lstm_workload(5, lambda rows, cols: np.ones((rows, cols), dtype=bool))
    made = model_of(Bank(pes=4, lanes=1), SMALL, device="xc7z020").circuit(
        workload, lstm_operands(np.ones((20, 10), dtype=bool), 5, SMALL)
    )
    folder = put(made, tmp_path / "design")
    script = made.files["synth/yosys.ys"].replace("synth_xilinx -family xc7 -flatten", "prep -flatten")
    (folder / "prep.ys").write_text(script)

    subprocess.run(["yosys", "-q", "prep.ys"], cwd=folder, check=True, capture_output=True, timeout=600)

    counted = (folder / "yosys_resources.txt").read_text().split()
    assert int(counted[counted.index("$mul") + 1]) >= made.cost.multipliers + 3  # f * c, i * g and o * tanh(c)


def test_memories_have_the_style_that_the_cost_gives_them(make):
    mask = np.random.default_rng(0).random((64, 400)) < 0.5
    small = {name: model_of(Bank(pes=2, lanes=3), device=name) for name in ("xc7z020", "arria10_gx1150")}

    tops = {
        name: model.circuit(make.matrix_workload(mask), operands(mask)).files["rtl/top.v"]
        for name, model in small.items()
    }

    assert '.WEIGHT_STYLE("block")' in tops["xc7z020"] and '.VECTOR_STYLE("distributed")' in tops["xc7z020"]
    assert '.WEIGHT_STYLE_INTEL("M20K")' in tops["arria10_gx1150"]
    assert '.VECTOR_STYLE_INTEL("MLAB")' in tops["arria10_gx1150"]


@pytest.mark.parametrize(
    ("engine", "parameters", "message"),
    [
        (DenseMvm(), {}, "engine dense_mvm has no Verilog; name bank or column_fifo"),
        (Bank(), {"codebook": 16}, "holds weights and no codebook, got codebook=16"),
        (ColumnFifo(channels=2), {}, "column_fifo has channels=1, got 2"),
        (ColumnFifo(index_bits=4), {}, "column_fifo has index_bits=None, got 4"),
    ],
)
def test_what_has_no_verilog_is_refused(make, engine, parameters, message):
    mask = np.random.default_rng(0).random((6, 8)) < 0.5
    model = CycleSimulator(engine=engine, **parameters)

    with pytest.raises(SpecError, match=message):
        model.circuit(make.matrix_workload(mask), operands(mask, model.number_format()))


def test_a_circuit_is_that_of_one_layer(make):
    workload = make.lstm_workload(8, lambda rows, cols: np.ones((rows, cols), dtype=bool), layers=2)

    with pytest.raises(SpecError, match="a circuit is that of one layer, got 2"):
        model_of(Bank()).circuit(workload, operands(np.ones((32, 16), dtype=bool)))


@given(
    total=st.integers(-(1 << 31), (1 << 31) - 1),
    shift=st.integers(-20, 70),
    bits=st.integers(2, 16),
)
def test_requantising_rounds_half_up_and_saturates(total, shift, bits):
    exact = (2 * total + (1 << shift)) // (1 << (shift + 1)) if shift > 0 else total << -shift

    found = requantised(np.array([[total]]), np.array([shift]), bits)

    assert found.item() == min(max(exact, -(1 << (bits - 1))), (1 << (bits - 1)) - 1)


# --- whole LSTM layers ----------------------------------------------------------------------------------------------


def lstm_operands(mask, units, form=PLAIN, *, steps=4, seed=0):
    """Integers of a layer whose gates leave the middle of the tables, with a bias and inputs over their whole range."""
    rng = np.random.default_rng(seed)
    bits, rows = form.activation_bits, len(mask)
    top, high = 1 << (form.weight_bits - 1), 1 << (bits - 1)
    entries = np.arange(-2048, 2048) / 256
    tables = [
        np.clip(np.floor(f * high + 0.5), -high, high - 1) for f in (1 / (1 + np.exp(-entries)), np.tanh(entries))
    ]
    sigmoid, tanh = (entry.astype(np.int64) for entry in tables)
    # Weights within (-2, 2), rows with steps of their own where the format has them.
    units_of_sums = 3 - form.weight_bits - bits + (rng.integers(-1, 2, rows) if form.scaling == "row" else 0)
    return Operands(
        layer="lstm_0",
        weights=rng.integers(1 - top, top, mask.shape) * mask,
        bias=rng.integers(-top, top, rows) << (bits - 2),
        shifts=np.broadcast_to(-8 - units_of_sums, rows),
        output_bits=12,
        vectors=rng.integers(-high, high, (steps, mask.shape[1])),
        number_format=form,
        cell=CellOperands(units, 1 - bits, 4 - bits, sigmoid, tanh, 256),
    )


@st.composite
def layers(draw):
    units, groups, lanes = draw(st.integers(1, 14)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    banks = draw(st.none() | st.integers(1, units))
    form = draw(st.sampled_from((PLAIN, NumberFormat(weight_bits=6, activation_bits=8, scaling="row"))))
    engine = Bank(pes=4 * groups, lanes=lanes, banks=banks, lockstep=draw(st.booleans()))
    return units, draw(st.sampled_from((0.1, 0.5, 1.0))), engine, form, draw(st.integers(0, 99))


@pytest.mark.rtl
@needs_simulator
@settings(
    max_examples=6,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(layers())
def test_a_whole_lstm_layer_equals_its_integers_over_many_steps(make, tmp_path, layer):
    units, density, engine, form, seed = layer
    rng = np.random.default_rng(seed)
    workload = make.lstm_workload(units, lambda rows, cols: rng.random((rows, cols)) < density)
    both = np.hstack([workload.masks[tensor.name] for tensor in workload.tensors])
    operands_of_it = lstm_operands(both, units, form, steps=6, seed=seed)

    made = model_of(engine, form).circuit(workload, operands_of_it)
    found = run_bench(put(made, tmp_path / "design"))

    assert np.abs(lstm_outputs(operands_of_it)).max() > 0
    assert (found.wrong, found.off, found.products) == (0, 0, 12), found
    assert found.cycles == made.cycles


@pytest.mark.rtl
@needs_verilator
def test_a_whole_lstm_layer_equals_its_integers_in_verilator_too(make, tmp_path):
    rng = np.random.default_rng(4)
    workload = make.lstm_workload(10, lambda rows, cols: rng.random((rows, cols)) < 0.4)
    both = np.hstack([workload.masks[tensor.name] for tensor in workload.tensors])
    form = NumberFormat(weight_bits=6, activation_bits=8, scaling="row")

    made = model_of(Bank(pes=8, lanes=3, lockstep=True), form).circuit(workload, lstm_operands(both, 10, form, steps=6))
    found = run_bench(put(made, tmp_path / "design"), "verilator")

    assert (found.wrong, found.off, found.products) == (0, 0, 12), found
    assert found.holds and found.simulator.startswith("Verilator")


LINTED = {
    "bank, one lane": (Bank(pes=1, lanes=1), PLAIN),
    "bank, more PEs than rows": (Bank(pes=40, lanes=3, lockstep=True), SMALL),
    "columns, one of each": (ColumnFifo(pes=1, groups=1, fifo_depth=1), SMALL),
    "columns, several groups": (ColumnFifo(pes=5, groups=3, full_flag="late"), PLAIN),
    "whole layer, one lane": (Bank(pes=4, lanes=1), PLAIN),
    "whole layer, several units at once": (Bank(pes=16, lanes=4), SMALL),
}


@pytest.mark.rtl
@needs_verilator
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("engine", "form"), LINTED.values(), ids=LINTED)
def test_a_design_and_its_bench_are_clean_for_verilator_s_lint(make, tmp_path, request, engine, form):
    rng = np.random.default_rng(4)
    if "whole" in request.node.callspec.id:
        workload = make.lstm_workload(9, lambda rows, cols: rng.random((rows, cols)) < 0.4)
        both = np.hstack([workload.masks[tensor.name] for tensor in workload.tensors])
        made = model_of(engine, form).circuit(workload, lstm_operands(both, 9, form))
    else:
        mask = rng.random((13, 20)) < 0.4
        made = model_of(engine, form).circuit(make.matrix_workload(mask), operands(mask, form, per_row=form is SMALL))

    lint = subprocess.run(
        ["make", "-C", put(made, tmp_path / "design"), "lint"], check=False, capture_output=True, text=True, timeout=600
    )

    assert lint.returncode == 0, lint.stderr


def test_no_two_units_of_a_cycle_are_written_to_one_lane(make):
    rng = np.random.default_rng(0)
    workload = make.lstm_workload(
        50, lambda rows, cols: make.bank_balanced_mask(rng, rows, 10, cols // 10, 1), banks=10
    )
    product = next(iter(_products.products(workload, ("lstm",))))
    starts = Bank().bank_map(product, 5).starts

    each, order = units_at_once(product, 64, starts, 5, 16)

    assert each == 4  # of 16 units that leave together at most 5 have a lane of their own, and 4 divides 16
    assert sorted(order.tolist()) == list(range(50))
    banks = (np.searchsorted(starts, order + 50, side="right") - 1) % 5
    assert all(
        len(set(banks[first : first + each])) == len(banks[first : first + each]) for first in range(0, 50, each)
    )


LSTM_FAULTS = {
    "h written a lane too far": (
        "rtl/lstm_accelerator.v",
        "+PLACE+:LANE_BITS] == lane[",
        "+PLACE+:LANE_BITS] + 1 == lane[",
    ),
    "the state is forgotten": ("rtl/lstm_cell.v", "of_c <= sigmoid_f * old;", "of_c <= 0;"),
    "x and h collide": ("rtl/lstm_accelerator.v", "wire waits = issued[6];", "wire waits = 1'b0;"),
    "h is kept over a reset": ("rtl/lstm_accelerator.v", "fresh <= 1;", ""),
}


@pytest.mark.rtl
@needs_simulator
@pytest.mark.parametrize(("file", "line", "fault"), LSTM_FAULTS.values(), ids=LSTM_FAULTS)
def test_a_fault_in_a_whole_layer_is_found_by_its_bench(make, tmp_path, file, line, fault):
    rng = np.random.default_rng(0)
    workload = make.lstm_workload(12, lambda rows, cols: rng.random((rows, cols)) < 0.5)
    both = np.hstack([workload.masks[tensor.name] for tensor in workload.tensors])
    made = model_of(Bank(pes=4, lanes=3)).circuit(workload, lstm_operands(both, 12, steps=12))
    folder = put(made, tmp_path / "design")
    text = (folder / file).read_text()
    assert line in text
    (folder / file).write_text(text.replace(line, fault))

    assert not run_bench(folder).holds
