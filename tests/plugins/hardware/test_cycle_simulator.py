"""The exact model on the bank engine: hand-worked cases, laws of a cost, the search for a shape, speed."""

import json
import time

import numpy as np
import pytest
from harness_plugins.hardware.cycle_simulator import CycleSimulator
from harness_plugins.hardware.engines.bank import Bank
from harness_plugins.hardware.engines.dense_mvm import DenseMvm
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import Workload


def unstructured(density, seed=0):
    rng = np.random.default_rng(seed)
    return lambda rows, cols: rng.random((rows, cols)) < density


def bank(*, lockstep=False, pes=None, lanes=None, **options):
    """The model on a bank engine of this shape."""
    return CycleSimulator(engine=Bank(pes=pes, lanes=lanes, lockstep=lockstep), **options)


def sizes(shape):
    """The sizes of a shape as the cost prints it."""
    return {name: int(size) for name, size in (each.split("=") for each in shape.split())}


def balanced(make, banks, kept, seed=0):
    rng = np.random.default_rng(seed)
    return lambda rows, cols: make.bank_balanced_mask(rng, rows, banks, cols // banks, kept)


def test_bank_balanced_6000_by_1500_takes_282_issue_cycles_and_ten_more_on_64_by_64(make):
    mask = make.bank_balanced_mask(np.random.default_rng(0), 6000, banks=50, size=30, kept=3)
    cost = bank(pes=64, lanes=64).cost(make.matrix_workload(mask, banks=50))

    assert cost.cycles == 94 * 3 + 10  # ceil(6000 / 64) * k + log2(64) + 4
    assert cost.utilisation == pytest.approx(0.752, abs=5e-4)
    assert cost.details["layers"]["dense"]["notes"] == ["50 banks of at most 30: the equally filled banks of the mask"]


@given(
    hidden=st.sampled_from([4, 6, 12]),
    pes=st.integers(1, 40),
    lanes=st.integers(1, 9),
    lockstep=st.booleans(),
    density=st.sampled_from([0.02, 0.2, 0.7]),
)
@settings(max_examples=40, deadline=None)
def test_the_parts_of_a_cost_sum_to_its_cycles(make, hidden, pes, lanes, lockstep, density):
    workload = make.lstm_workload(hidden, unstructured(density), layers=2)
    cost = bank(pes=pes, lanes=lanes, lockstep=lockstep).cost(workload)

    rounding = 1e-6 * len(cost.details["parts"])  # parts are printed to six decimals
    assert sum(cost.details["parts"].values()) == pytest.approx(cost.cycles, abs=rounding)
    assert sum(layer["cycles"] for layer in cost.details["layers"].values()) == pytest.approx(cost.cycles, abs=rounding)
    assert cost.cycles >= cost.details["ideal_cycles"]
    assert 0 <= cost.utilisation <= 1


def test_a_masked_lstm_worked_by_hand(make):
    # 8 units: 32 rows of 8 + 8 columns in 4 banks of 4, one weight each; M = 8, N = 4.
    model = bank(pes=8, lanes=4, elementwise_units=2, elementwise_latency=3)
    cost = model.cost(make.lstm_workload(8, balanced(make, 2, 1), banks=2))

    parts = cost.details["parts"]
    assert parts["compute"] == 32 * 4 / 32  # ceil(32 / 8) groups of one cycle
    assert parts["fill_drain"] == 2 + 4
    assert parts["elementwise"] == 1 + 3  # two units of the last group; 4 + 1 - 4 left over is no more
    assert cost.cycles == 4 + 6 + 4


def test_a_dense_model_is_its_own_baseline(make):
    cost = CycleSimulator(engine=DenseMvm()).cost(make.lstm_workload(20))

    assert cost.engine == "dense_mvm"
    assert cost.speedup == 1.0
    assert cost.cycles == cost.dense_cycles == cost.engine_dense_cycles
    assert cost.gops == cost.effective_gops


def test_the_dense_baseline_is_the_same_for_every_mask(make):
    model = bank()
    dense = CycleSimulator(engine=DenseMvm()).cost(make.lstm_workload(20))
    costs = [model.cost(make.lstm_workload(20, unstructured(density))) for density in (0.1, 0.5)]

    assert {cost.dense_cycles for cost in costs} == {dense.cycles}
    assert {cost.engine_dense_cycles for cost in costs} == {model.cost(make.lstm_workload(20)).cycles}


def test_the_dense_array_takes_its_own_best_split(make):
    cost = CycleSimulator(engine=DenseMvm(), multipliers=1000).cost(make.matrix_workload(np.ones((1000, 100), bool)))

    assert cost.details["parts"]["tail"] == 0
    assert cost.details["parts"]["compute"] == 100


def test_speed_and_rates_follow_from_cycles_and_clock(make):
    mask = make.bank_balanced_mask(np.random.default_rng(0), 600, banks=10, size=10, kept=1)
    cost = bank(clock_mhz=125).cost(make.matrix_workload(mask, banks=10))

    assert cost.latency_us == cost.cycles / 125
    assert cost.speedup == cost.dense_cycles / cost.cycles
    assert cost.gops == pytest.approx(2 * 6000 / cost.latency_us / 1e3)
    assert cost.effective_gops == pytest.approx(10 * cost.gops)
    assert cost.details["clock"] == {"value": 125.0, "origin": "given"}
    assert (cost.clock_mhz, cost.clock_origin) == (125, "given")


def test_every_pattern_gets_the_same_multipliers_and_its_own_shape(make):
    model = bank(multipliers=256)
    bank_balanced = model.cost(make.lstm_workload(60, balanced(make, 6, 1), banks=6))
    free = model.cost(make.lstm_workload(60, unstructured(0.1)))

    assert max(bank_balanced.multipliers, free.multipliers) <= 256
    assert sizes(bank_balanced.shape)["lanes"] in (12, 6, 4, 3, 2, 1)
    assert bank_balanced.cycles < free.cycles


def test_a_searched_shape_is_no_slower_than_any_shape_of_the_same_lanes(make):
    workload = make.lstm_workload(60, unstructured(0.1))
    best = bank(multipliers=256).cost(workload)
    fixed = [bank(pes=256 // lanes, lanes=lanes).cost(workload).cycles for lanes in (1, 4, 16, 64)]

    assert best.cycles <= min(fixed)


def test_a_number_of_lanes_that_is_given_is_kept_and_the_rest_is_searched(make):
    cost = bank(multipliers=100, lanes=8).cost(make.lstm_workload(20, unstructured(0.3)))

    assert sizes(cost.shape)["lanes"] == 8
    assert sizes(cost.shape)["pes"] <= 12


def test_a_number_of_pes_that_is_given_is_kept_and_the_rest_is_searched(make):
    cost = bank(multipliers=100, pes=10).cost(make.lstm_workload(20, unstructured(0.3)))

    assert sizes(cost.shape)["pes"] == 10
    assert sizes(cost.shape)["lanes"] <= 10


def test_both_arrays_stay_below_the_multipliers_of_a_small_device(make):
    model = bank(device="xc7z020")
    cost = model.cost(make.lstm_workload(40, balanced(make, 4, 1), banks=4))

    assert cost.multipliers + 3 * model.elementwise_units <= 176  # 0.80 of 220
    assert cost.fits and cost.ram_kind == "bram_18k"


def test_the_same_workload_costs_the_same_every_time(make):
    workload = make.lstm_workload(20, unstructured(0.3))

    assert bank().cost(workload) == bank().cost(workload)


def test_details_are_plain_json_with_an_origin(make):
    cost = bank(device="xcku060").cost(make.lstm_workload(20, unstructured(0.3)))

    assert json.loads(json.dumps(cost.details)) == cost.details
    assert cost.origin == "modelled"
    assert cost.clock_origin == cost.details["clock"]["origin"] == "assumed"


def test_a_layer_that_lost_all_its_weights_still_costs_a_cycle_per_row_group(make):
    cost = bank(pes=4, lanes=2).cost(make.matrix_workload(np.zeros((8, 6), bool)))

    assert cost.details["parts"]["empty_rows"] == 2
    assert cost.gops == 0


def test_dense_layers_beside_pruned_ones_run_on_the_same_engine(make):
    network = make.language_model(8, words=20, layers=1)
    rng = np.random.default_rng(0)
    masks = {
        tensor.name: rng.random(tensor.shape) < 0.2
        for tensor in network.tensors()
        if tensor.role == "lstm" and tensor.cols
    }
    cost = bank(pes=5, lanes=4).cost(Workload(network, network.tensors(), masks))

    assert cost.details["layers"]["softmax"]["issue_cycles"] == 4 * 2  # 20 rows of 8 on 5 x 4
    assert any("not costed: embedding.table" in note for note in cost.notes)


def test_a_launch_of_more_than_half_of_the_time_is_said_so(make):
    cost = bank(write_back_cycles=5000).cost(make.lstm_workload(20, unstructured(0.3)))

    assert cost.bound_by == "serial"
    assert any("more than half of the latency" in note for note in cost.notes)


def test_a_mask_of_6000_by_1500_is_costed_in_well_under_a_tenth_of_a_second(make):
    workload = make.matrix_workload(np.random.default_rng(0).random((6000, 1500)) < 0.1)
    model = bank(pes=64, lanes=64)
    model.cost(workload)  # the dense baseline and the device table are kept from here on
    seconds = []
    for _ in range(5):
        start = time.process_time()
        model.cost(workload)
        seconds.append(time.process_time() - start)

    assert min(seconds) < 0.1
