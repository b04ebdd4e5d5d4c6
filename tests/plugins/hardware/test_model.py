"""What both models share: entries of an experiment, labels, the search, and laws of a cost on every engine."""

import json
from fractions import Fraction

import numpy as np
import pytest
from harness_plugins.hardware.cycle_simulator import CycleSimulator
from harness_plugins.hardware.engines.bank import Bank
from harness_plugins.hardware.engines.dense_mvm import DenseMvm
from harness_plugins.hardware.fpga_analytic import FpgaAnalytic
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.api import (
    Axis,
    Conditions,
    EngineShape,
    HarnessError,
    NativeModel,
    NumberFormat,
    Place,
    ShapeError,
    SpecError,
    Tensor,
    Workload,
)
from harness.discovery.finding import discover
from harness.spec import loads, schema

REGISTRY = discover()
ENGINES = [REGISTRY.get("engine", name) for name in REGISTRY.names("engine")]
MODELS = [CycleSimulator, FpgaAnalytic]

each_engine = pytest.mark.parametrize("engine", [pytest.param(engine, id=engine.name) for engine in ENGINES])
each_model = pytest.mark.parametrize("model", [pytest.param(model, id=model.name) for model in MODELS])

SPEC = """\
name: hardware
task: {name: lstm_lm, corpus: ptb, size: small}
matrix:
  backend: torch
hardware:
"""


def read(*entries):
    """An experiment with these entries below `hardware:`, the first of them in line 6."""
    return loads(SPEC + "".join(f"  - {entry}\n" for entry in entries), REGISTRY)


def labels(*entries):
    return [model.label() for model in read(*entries).hardware]


# --- entries of an experiment -----------------------------------------------------------------------------------------


def test_an_engine_is_named_like_any_other_plugin():
    assert labels("{name: cycle_simulator, engine: bank}") == ["cycle_simulator[bank]"]
    (model,) = read("{name: cycle_simulator, engine: bank}").hardware
    assert model.engine == Bank()


def test_an_engine_may_have_parameters_and_a_label():
    sized = "{name: cycle_simulator, engine: {name: bank, pes: 8, lanes: 4}}"
    named = "{name: cycle_simulator, engine: {name: bank, lanes: 2, label: narrow}}"

    assert labels(sized, named) == ["cycle_simulator[bank(pes=8, lanes=4)]", "cycle_simulator[narrow]"]


@pytest.mark.parametrize("entry", ["fpga_analytic", "{name: fpga_analytic, engine: all}"])
def test_an_entry_without_an_engine_stands_for_all_that_share_a_budget(entry):
    shared = [engine.name for engine in ENGINES if not engine.unrolled]

    assert labels(entry) == [f"fpga_analytic[{name}]" for name in shared]
    assert "static_dataflow" not in shared


def test_a_circuit_that_no_budget_bounds_is_costed_where_it_is_named():
    assert labels("{name: fpga_analytic, engine: static_dataflow}") == ["fpga_analytic[static_dataflow]"]


def test_parameters_of_the_model_stand_before_the_engine_in_its_label():
    entry = "{name: fpga_analytic, device: xcku060, multipliers: 64, engine: dense_mvm}"

    assert labels(entry) == ["fpga_analytic(device=xcku060, multipliers=64)[dense_mvm]"]
    assert labels("{name: fpga_analytic, label: small, engine: bank}") == ["small[bank]"]


def test_the_same_engine_twice_is_refused_with_both_lines():
    with pytest.raises(SpecError, match=r"spec:7:5 .*once, got cycle_simulator\[bank\] again \(first in line 6\)"):
        read("{name: cycle_simulator, engine: bank}", "{name: cycle_simulator, engine: {name: bank}}")


def test_an_engine_that_is_named_may_not_be_one_of_all():
    with pytest.raises(SpecError, match=r"got cycle_simulator\[bank\] again"):
        read("{name: cycle_simulator, engine: bank}", "cycle_simulator")


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ("bnk", r"spec:6:37 hardware\[0\].engine: unknown engine 'bnk'; did you mean 'bank'\?"),
        ("{name: bnk}", r"spec:6:37 hardware\[0\].engine: unknown engine 'bnk'; did you mean 'bank'\?"),
        ("{name: bank, pse: 8}", r"spec:6:37 hardware\[0\].engine: pse: .*got 8"),
        ("{name: bank, pes: 0}", r"spec:6:37 hardware\[0\].engine: pes: .*greater than 0, got 0"),
        ("{name: bank, pes: '8'}", r"spec:6:37 hardware\[0\].engine: pes: .*valid integer, got '8'"),
        ("7", r"spec:6:37 hardware\[0\].engine: expected the name of an engine, or a mapping .*got 7"),
        ("[bank]", r"expected the name of an engine, or a mapping .*got \['bank'\]"),
        ("{name: n_m, n: 3, m: 2}", r"spec:6:37 hardware\[0\].engine: .*n=3 and m=2"),
    ],
)
def test_a_wrong_engine_is_told_with_its_place(engine, sentence):
    with pytest.raises(SpecError, match=sentence):
        read(f"{{name: cycle_simulator, engine: {engine}}}")


def test_an_unknown_device_is_told_with_its_place_and_those_that_are_known():
    with pytest.raises(SpecError, match=r"spec:6:37 .*'arria11'; did you mean 'arria10_gx1150'\?.*xcku060"):
        read("{name: cycle_simulator, device: arria11}")


def test_the_document_written_out_names_the_engines_and_is_read_again_to_the_same():
    experiment = read("{name: fpga_analytic, multipliers: 64}", "{name: cycle_simulator, engine: {name: bank, pes: 3}}")
    again = loads(json.dumps(experiment.document), REGISTRY)

    assert again.digest == experiment.digest
    assert again.hardware == experiment.hardware


def test_the_schema_of_experiments_describes_engines():
    described = json.loads(json.dumps(schema(REGISTRY)))
    definitions = described["$defs"]

    assert definitions["engine.bank"]["properties"]["pes"]["description"]
    for model in ("cycle_simulator", "fpga_analytic"):
        assert "#/$defs/engine" in json.dumps(definitions[f"hardware.{model}"]["properties"]["engine"])
    references = set(_references(described))
    assert {reference.removeprefix("#/$defs/") for reference in references} <= definitions.keys()


def _references(node):
    if isinstance(node, dict):
        yield from ([node["$ref"]] if isinstance(node.get("$ref"), str) else [])
        node = list(node.values())
    for inner in node if isinstance(node, list) else ():
        yield from _references(inner)


# --- components -------------------------------------------------------------------------------------------------------


def test_made_in_python_a_model_takes_an_engine_and_no_name():
    assert CycleSimulator(engine=Bank(pes=2)).label() == "cycle_simulator[bank(pes=2)]"
    with pytest.raises(ValidationError, match="give an object of a class of kind engine"):
        CycleSimulator(engine="bank")


@each_model
def test_a_model_with_an_engine_goes_to_json_and_back(model):
    made = model(engine=Bank(pes=8, lanes=4), device="xcku060")

    assert REGISTRY.create("hardware", {"name": made.name, **made.parameters()}) == made
    assert json.loads(json.dumps(made.identity())) == made.identity()
    assert made.identity() != model(engine=Bank(pes=8), device="xcku060").identity()


def test_variants_keep_everything_but_the_engine():
    variants = FpgaAnalytic(multipliers=64).variants(ENGINES)

    assert [variant.engine for variant in variants] == [engine() for engine in ENGINES]
    assert {variant.multipliers for variant in variants} == {64}
    assert variants[0].variants(ENGINES) == (variants[0],)


def test_without_an_engine_nothing_is_costed(make):
    with pytest.raises(SpecError, match="cycle_simulator costs one engine at a time: set `engine`"):
        CycleSimulator().cost(make.lstm_workload(4))


# --- workloads that cannot be costed ----------------------------------------------------------------------------------


@each_model
@pytest.mark.parametrize("shape", [(32,), (32, 8, 1), (8, 32), (31, 8)], ids=str)
def test_a_mask_of_another_shape_or_rank_is_refused(make, model, shape):
    workload = make.lstm_workload(8)
    wrong = Workload(workload.network, workload.tensors, {"lstm_0.kernel": np.ones(shape, bool)})

    with pytest.raises(ShapeError, match=r"mask of shape \(32, 8\) for 'lstm_0.kernel', got \("):
        model(engine=Bank()).cost(wrong)


@each_model
def test_an_unknown_device_is_refused_whoever_asks(model):
    with pytest.raises((ValidationError, HarnessError), match="unknown device 'virtex'"):
        model(engine=Bank(), device="virtex")


def test_the_exact_model_needs_masks_and_the_other_does_not(make):
    workload = make.lstm_workload(8)
    told = Workload(workload.network, workload.tensors, {}, kept={tensor.name: 64 for tensor in workload.tensors})

    assert FpgaAnalytic(engine=Bank()).cost(told).cycles > 0
    with pytest.raises(SpecError, match="counts on masks, got only the number of non-zeros of 'lstm_0'; give masks"):
        CycleSimulator(engine=Bank()).cost(told)


def test_a_refusal_names_the_engine_the_layer_and_the_reason(make):
    mask = np.random.default_rng(0).random((12, 30)) < 0.4
    model = CycleSimulator(engine=REGISTRY.create("engine", "block"))

    with pytest.raises(SpecError, match="engine block cannot run 'dense': it runs masks of whole blocks"):
        model.cost(make.matrix_workload(mask))


# --- laws on every engine ---------------------------------------------------------------------------------------------


def blocks(rng, rows, cols):
    """Whole 4 x 4 blocks, half of them in every row of blocks: two of four blocks, so that most engines take it."""
    kept = np.tile([True, False], (-(-rows // 4), -(-cols // 8)))
    return np.kron(kept, np.ones((4, 4), bool))[:rows, :cols]


def two_of_four(rng, rows, cols):
    return (rng.random((rows, -(-cols // 4), 4)).argsort(axis=2) < 2).reshape(rows, -1)[:, :cols]


def free(rng, rows, cols):
    return rng.random((rows, cols)) < 0.2


MASKS = {
    "blocks": blocks,
    "two_of_four": two_of_four,
    "free": free,
    "empty": lambda rng, rows, cols: free(rng, rows, cols) & False,
}


def cost_or_none(model, workload):
    """The cost, or None where the engine says why it cannot run it."""
    try:
        return model.cost(workload)
    except SpecError as error:
        assert "cannot run" in str(error)
        return None


@each_engine
@each_model
@pytest.mark.parametrize("kind", MASKS)
def test_a_cost_keeps_the_laws_of_costs(make, model, engine, kind):
    rng = np.random.default_rng(3)
    workload = make.lstm_workload(16, lambda rows, cols: MASKS[kind](rng, rows, cols), layers=2)
    made = model(engine=engine(), multipliers=64, device="xcku060")
    cost = cost_or_none(made, workload)
    if cost is None:
        return

    assert cost.cycles >= -(
        -sum(int(mask.sum()) for mask in workload.masks.values()) * cost.streams // cost.multipliers
    )
    assert 0 <= cost.utilisation <= 1
    assert cost.multipliers <= 64 or engine.unrolled  # constants are no multipliers that a budget counts
    assert sum(cost.details["parts"].values()) <= cost.cycles + 1e-4
    assert min(cost.details["parts"].values()) >= 0
    assert cost.latency_us == pytest.approx(cost.cycles / cost.clock_mhz)
    assert cost.speedup == pytest.approx(cost.streams * cost.dense_cycles / cost.cycles)
    assert cost.gops <= cost.effective_gops
    assert cost.engine == engine.name and cost.shape and cost.fixed_shape
    assert made.cost(workload) == cost
    assert json.loads(json.dumps(cost.details)) == cost.details


@each_engine
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 40), (40, 1), (7, 5)])
def test_thin_matrices_are_costed_or_refused(make, engine, rows, cols):
    for fill in (True, False):
        mask = np.full((rows, cols), fill)
        costs = [cost_or_none(model(engine=engine()), make.matrix_workload(mask)) for model in MODELS]

        for cost in filter(None, costs):
            assert cost.cycles >= 1
            assert 0 <= cost.utilisation <= 1


@each_engine
def test_the_dense_model_costs_both_models_the_same(make, engine):
    workload = make.lstm_workload(12, layers=2)
    exact, expected = (cost_or_none(model(engine=engine()), workload) for model in MODELS)
    if exact is None:
        return

    assert (exact.cycles, exact.shape, exact.ram_blocks) == (expected.cycles, expected.shape, expected.ram_blocks)
    assert exact.engine_dense_cycles == exact.cycles


@each_engine
def test_a_searched_shape_is_no_slower_than_the_fixed_one(make, engine):
    rng = np.random.default_rng(1)
    workload = make.lstm_workload(24, lambda rows, cols: two_of_four(rng, rows, cols))
    cost = cost_or_none(CycleSimulator(engine=engine(), multipliers=128, device="xcu250"), workload)

    if cost is not None:
        assert cost.cycles <= cost.fixed_cycles


# --- the bank engine --------------------------------------------------------------------------------------------------


def run_on_bank(make, mask, pes, lanes, **options):
    engine = Bank(**options)
    return engine.simulate(
        make.product_of(mask), EngineShape((("pes", pes), ("lanes", lanes)), pes * lanes), Conditions()
    )


@given(
    seed=st.integers(0, 999),
    rows=st.integers(1, 20),
    pes=st.integers(1, 6),
    lanes=st.integers(1, 6),
    lock=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_permuting_rows_within_a_pe_or_groups_of_rows_changes_no_cycle(make, seed, rows, pes, lanes, lock):
    rng = np.random.default_rng(seed)
    mask = rng.random((rows * pes, 24)) < 0.3
    order = rng.permutation(rows)
    shuffled = mask.reshape(rows, pes, 24)[order].reshape(mask.shape)  # the row groups change places
    before, after = (run_on_bank(make, each, pes, lanes, lockstep=lock, banks=4) for each in (mask, shuffled))

    assert (after.parts, after.stored_words) == (before.parts, before.stored_words)
    assert (after.busy == before.busy).all()


@given(seed=st.integers(0, 999), pes=st.integers(1, 6), lanes=st.integers(1, 6), lock=st.booleans())
@settings(deadline=None, max_examples=40)
def test_permuting_whole_banks_within_a_wave_changes_no_cycle(make, seed, pes, lanes, lock):
    rng = np.random.default_rng(seed)
    mask = rng.random((17, 6 * 5)) < 0.3
    order = np.concatenate([start + rng.permutation(min(lanes, 6 - start)) for start in range(0, 6, lanes)])
    shuffled = mask.reshape(17, 6, 5)[:, order].reshape(mask.shape)
    before, after = (run_on_bank(make, each, pes, lanes, lockstep=lock, banks=6) for each in (mask, shuffled))

    assert after.parts == before.parts


@given(seed=st.integers(0, 99), lanes=st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_permuting_the_columns_inside_a_bank_changes_nothing(make, seed, lanes):
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 6, 5)) < 0.3
    shuffled = rng.permuted(mask, axis=2)
    before, after = (run_on_bank(make, each.reshape(9, 30), 4, lanes, banks=6) for each in (mask, shuffled))

    assert after.parts == before.parts


@pytest.mark.parametrize("lanes", [7, 16, 49, 51])
def test_lanes_that_do_not_divide_the_banks_run_one_wave_more(make, lanes):
    mask = make.bank_balanced_mask(np.random.default_rng(0), 40, banks=50, size=6, kept=2)
    run = run_on_bank(make, mask, 8, lanes)

    assert run.issue_cycles == 5 * -(-50 // lanes) * 2
    assert run.parts["lane_mismatch"] == 5 * 2 * (-(-50 // lanes) - Fraction(50, lanes))


@pytest.mark.parametrize(("pes", "lanes"), [(4, 8), (5, 7), (64, 64)])
def test_density_one_with_a_bank_per_lane_costs_what_the_dense_array_of_that_shape_costs(make, pes, lanes):
    workload = make.matrix_workload(np.ones((50, 60), bool))
    banks = min(lanes, 60)
    bank = CycleSimulator(engine=Bank(pes=pes, lanes=lanes, banks=banks)).cost(workload)
    dense = CycleSimulator(engine=DenseMvm(pes=pes, lanes=lanes)).cost(workload)

    assert bank.cycles == dense.cycles
    assert bank.details["layers"]["dense"]["words_per_nonzero"] == dense.details["layers"]["dense"]["words_per_nonzero"]


def test_more_banks_than_columns_are_a_clear_error_of_the_model_too(make):
    with pytest.raises(ShapeError, match="got banks=9 for the 8 columns of 'dense'; set `banks` to at most 8"):
        CycleSimulator(engine=Bank(banks=9)).cost(make.matrix_workload(np.eye(8, dtype=bool)))


# --- streams and clocks -----------------------------------------------------------------------------------------------


def test_a_clock_of_the_model_goes_before_that_of_the_engine_and_that_before_the_device(make):
    workload = make.lstm_workload(8)
    device_clock = CycleSimulator(engine=Bank(), device="xc7z100").cost(workload)
    engine_clock = CycleSimulator(engine=Bank(clock_mhz=300), device="xc7z100").cost(workload)
    model_clock = CycleSimulator(engine=Bank(clock_mhz=300), device="xc7z100", clock_mhz=90).cost(workload)

    assert [cost.clock_mhz for cost in (engine_clock, model_clock)] == [300, 90]
    assert [cost.clock_origin for cost in (device_clock, engine_clock, model_clock)] == ["assumed", "given", "given"]
    assert device_clock.cycles == engine_clock.cycles == model_clock.cycles
    assert engine_clock.latency_us * 300 == pytest.approx(model_clock.latency_us * 90)


# --- number formats ---------------------------------------------------------------------------------------------------


def test_an_entry_names_its_number_format_and_models_are_evaluated_in_it_unless_told_otherwise():
    plain, narrow, silent = read(
        "{name: fpga_analytic, engine: bank}",
        "{name: fpga_analytic, engine: bank, weight_bits: 4, activation_bits: 8, scaling: row, label: narrow}",
        "{name: fpga_analytic, engine: bank, evaluated: false, label: silent}",
    ).hardware

    assert plain.number_format() == NumberFormat()
    assert narrow.number_format().label() == "w4 a8 per row"
    assert silent.number_format() is None


def test_a_codebook_stores_places_and_multiplies_values(make):
    workload = make.matrix_workload(np.random.default_rng(0).random((600, 400)) < 0.1)

    def found(**numbers):
        return CycleSimulator(engine=DenseMvm(pes=60, lanes=4), **numbers).cost(workload)

    values, places, four = found(), found(codebook=16), found(weight_bits=4)
    assert places.details["ram"] == four.details["ram"] != values.details["ram"]
    assert places.dsp == values.dsp


def test_a_codebook_with_as_many_values_as_there_are_weights_is_refused():
    with pytest.raises(
        SpecError, match=r"hardware.*fewer values than `weight_bits` can tell apart, got 16 values of 4"
    ):
        read("{name: fpga_analytic, engine: bank, weight_bits: 4, codebook: 16}")


# --- items of several time steps ------------------------------------------------------------------------------------

SIZED = {
    "bank": {"pes": 4, "lanes": 2},
    "dense_mvm": {"pes": 4, "lanes": 2},
    "column_fifo": {"pes": 4, "groups": 2},
    "csr_stream": {"channels": 2},
    "dense_systolic": {"array_rows": 4, "array_cols": 1},
}


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("inputs", ["closed_loop", "known_ahead"])
def test_an_item_of_several_steps_takes_each_of_them_and_its_other_layers_once(make, name, inputs):
    rng = np.random.default_rng(0)
    network = make.language_model(8, words=12, layers=1)
    tensors = tuple(tensor for tensor in network.tensors() if tensor.is_prunable and tensor.role != "embedding")
    masks = {tensor.name: rng.random(tensor.shape) < 0.5 for tensor in tensors}
    model = CycleSimulator(
        engine=REGISTRY.create("engine", {"name": name, **SIZED[name]}), device="alveo_u280", inputs=inputs,
        write_back_cycles=3, layer_us=0.05,
    )  # fmt: skip

    def cost(role, **known):
        chosen = tuple(tensor for tensor in tensors if role in ("", tensor.role))
        return model.cost(Workload(network, chosen, {each.name: masks[each.name] for each in chosen}, **known))

    step, head = cost("lstm"), cost("softmax")
    item = cost("", steps={"lstm_0": 7}, output_pixels={"softmax": 1})

    assert item.cycles == pytest.approx(7 * step.cycles + head.cycles, abs=8)  # rounded up once, not eight times
    assert item.details["layers"]["lstm_0"]["runs"] == 7
    counts = [each.details["energy_events"]["macs"]["count"] for each in (item, step, head)]
    assert counts[0] == 7 * counts[1] + counts[2]
    operations = [each.details["memory_system"]["operations"] for each in (item, step, head)]
    assert operations[0] == 7 * operations[1] + operations[2]
    weights = [each.details["memory_system"]["weight_bytes"] for each in (item, step, head)]
    assert weights[0] == pytest.approx(7 * weights[1] + weights[2], abs=0.01)
    assert any("of a whole item" in note and "lstm_0 7" in note for note in item.notes)


def test_steps_that_differ_from_item_to_item_are_noted_where_other_layers_stand_beside_them(make):
    tensors = (
        Tensor(name="w", layer="rnn", role="lstm", rows=Axis(label="rnn.units", size=16, repeat=4, order="blocks"),
               cols=Axis(label="x", size=4)),
        Tensor(name="out", layer="out", role="dense", rows=Axis(label="y", size=3), cols=Axis(label="z", size=4)),
    )  # fmt: skip
    places = tuple(Place(tensor=each.name, parameter=each.name) for each in tensors)
    network = NativeModel(framework="torch", trained=tensors, places=places, steps={"rnn": None})
    model = CycleSimulator(engine=Bank(pes=2, lanes=2))

    both, alone = (model.cost(Workload(network, chosen, {})) for chosen in (tensors, tensors[:1]))

    assert any("rnn runs differs from item to item" in note for note in both.notes)
    assert not any("differs" in note for note in alone.notes)
