"""The model from statistics on the bank engine: device limits, streaming, and agreement with the exact model."""

import numpy as np
import pytest
from harness_plugins.hardware.cycle_simulator import CycleSimulator
from harness_plugins.hardware.engines.bank import Bank
from harness_plugins.hardware.fpga_analytic import FpgaAnalytic

from harness.api import LSTM, Network, Workload

SIZES = ("pes", "lanes", "banks", "lockstep")


def on_bank(model, **options):
    """A model on a bank engine; sizes go to the engine, all else to the model."""
    return model(engine=Bank(**{key: options.pop(key) for key in SIZES if key in options}), **options)


def analytic(**options):
    """The model under test on a bank engine."""
    return on_bank(FpgaAnalytic, **options)


def simulator(**options):
    """The exact model on a bank engine."""
    return on_bank(CycleSimulator, **options)


def balanced(make, banks, kept, seed=0):
    rng = np.random.default_rng(seed)
    return lambda rows, cols: make.bank_balanced_mask(rng, rows, banks, cols // banks, kept)


def one_large_layer(make):
    """One layer of the 1500-unit LSTM at 90 %: [W_x | W_h] 6000 x 3000, 100 banks of 30, k = 3."""
    return make.lstm_workload(1500, balanced(make, 50, 3), banks=50)


def test_bank_40_by_50_holds_one_layer_of_the_large_lstm_on_arria_10(make):
    model = analytic(pes=40, lanes=50, vector_memory="distributed", elementwise_units=4)
    cost = model.cost(one_large_layer(make))

    assert cost.fits and cost.resident
    assert cost.details["layers"]["lstm_0"]["issue_cycles"] == 900
    assert cost.details["ram"]["m20k"]["weights"] == 40 * 53
    assert cost.multipliers == 2000
    assert cost.details["ram"]["distributed"] == {"vector": 8000}  # MLABs, two vectors deep


def test_bank_64_by_50_does_not_fit_although_its_bits_would(make):
    cost = analytic(pes=64, lanes=50).cost(one_large_layer(make))

    assert not cost.fits
    assert any("weights do not fit on chip" in note for note in cost.notes)
    assert any("does not fit arria10_gx1150" in note and "dsp" in note for note in cost.notes)


def test_the_whole_medium_lstm_fits_as_60_by_26(make):
    workload = make.lstm_workload(650, balanced(make, 13, 5), banks=13, layers=2)
    cost = analytic(pes=60, lanes=26).cost(workload)

    assert cost.fits
    assert cost.details["ram"]["m20k"]["weights"] == 900
    assert [layer["issue_cycles"] for layer in cost.details["layers"].values()] == [220, 220]


def test_a_depth_that_just_misses_a_shape_costs_nearly_twice_the_blocks(make):
    workload = make.lstm_workload(650, balanced(make, 13, 5), banks=13, layers=2)

    assert analytic(pes=46, lanes=26).cost(workload).details["ram"]["m20k"]["weights"] == 1334


def test_with_4_element_wise_units_one_cycle_is_left_of_the_large_lstm(make):
    model = analytic(pes=81, lanes=50, elementwise_units=4, elementwise_latency=0)
    cost = model.cost(one_large_layer(make))

    assert cost.details["parts"]["elementwise"] == 1


def test_equally_filled_banks_cost_the_same_in_both_models(make):
    workload = make.lstm_workload(60, balanced(make, 6, 2), banks=6, layers=2)
    expected, simulated = analytic().cost(workload), simulator().cost(workload)

    assert expected.cycles == simulated.cycles
    assert expected.ram_blocks == simulated.ram_blocks
    assert expected.shape == simulated.shape


@pytest.mark.parametrize("lockstep", [False, True])
@pytest.mark.parametrize(("pes", "lanes"), [(16, 16), (64, 4), (8, 50)])
def test_both_models_agree_on_unstructured_masks(make, pes, lanes, lockstep):
    rng = np.random.default_rng(3)
    workloads = [make.lstm_workload(200, lambda rows, cols: rng.random((rows, cols)) < 0.1) for _ in range(4)]
    shape = {"pes": pes, "lanes": lanes, "lockstep": lockstep}
    expected = np.mean([analytic(**shape).cost(workload).cycles for workload in workloads])
    simulated = np.mean([simulator(**shape).cost(workload).cycles for workload in workloads])

    assert expected == pytest.approx(simulated, rel=0.03)


def test_row_balanced_masks_are_exact_on_one_lane(make):
    rng = np.random.default_rng(0)
    workload = make.lstm_workload(40, lambda rows, cols: rng.random((rows, cols)).argsort(axis=1) < 4, banks=1)

    assert analytic(pes=32, lanes=1).cost(workload).cycles == simulator(pes=32, lanes=1).cost(workload).cycles


def test_unstructured_masks_of_64_by_64_lanes_store_2_66_words_per_weight(make):
    mask = np.random.default_rng(0).random((6000, 1500)) < 0.1
    cost = analytic(pes=64, lanes=64, device="stratix10_gx2800").cost(make.matrix_workload(mask))

    assert cost.details["layers"]["dense"]["words_per_nonzero"] == pytest.approx(2.66, abs=0.03)
    assert cost.details["ram"][cost.ram_kind]["weights"] == 4352


def test_weights_that_do_not_fit_are_streamed_every_step(make):
    mask = np.random.default_rng(0).random((6000, 3000)) < 0.3
    cost = analytic(pes=32, lanes=32).cost(make.matrix_workload(mask))
    layer = cost.details["layers"]["dense"]
    streamed_bits = layer["stored_bits"] * (1 - layer["resident_share"])
    stream_us = streamed_bits / 8 / (17e3 * 0.8)  # 17 GB/s of the board at an efficiency of 0.80

    assert not cost.fits and not cost.resident
    assert cost.bound_by == "memory"
    assert 0 < layer["resident_share"] < 1
    assert cost.latency_us == pytest.approx(stream_us, rel=1e-3)
    assert cost.details["parts"]["memory_stall"] > 0


def test_reading_15_6_mbit_twice_as_fast_takes_half_the_time(make):
    mask = np.random.default_rng(0).random((6000, 3000)) < 0.3
    shape = {"pes": 32, "lanes": 32}
    slow, fast = (analytic(**shape, bandwidth_gbytes_per_s=speed).cost(make.matrix_workload(mask)) for speed in (4, 8))

    assert slow.latency_us == pytest.approx(2 * fast.latency_us, rel=1e-3)


def test_a_device_without_a_board_says_that_reading_weights_is_not_counted(make):
    mask = np.random.default_rng(0).random((6000, 3000)) < 0.9
    cost = analytic(device="xc7z100", pes=16, lanes=32).cost(make.matrix_workload(mask))

    assert not cost.fits
    assert cost.details["parts"]["memory_stall"] == 0
    assert any("set `bandwidth_gbytes_per_s`" in note for note in cost.notes)


def test_a_dense_baseline_that_does_not_fit_is_named_beside_the_speed_up(make):
    workload = make.lstm_workload(650, balanced(make, 13, 5), banks=13, layers=2)
    cost = analytic().cost(workload)

    assert not cost.details["dense"]["fits"]
    assert cost.details["speedup_compute_only"] < 10 < cost.speedup
    assert any("without that the speed-up is" in note for note in cost.notes)


def test_eight_bit_lanes_share_nothing_and_so_save_no_dsp(make):
    workload = make.lstm_workload(40, balanced(make, 4, 1), banks=4)
    shape = {"pes": 10, "lanes": 8, "device": "xczu9eg"}
    wide = analytic(**shape).cost(workload)
    narrow = analytic(**shape, weight_bits=8, activation_bits=8).cost(workload)

    assert wide.dsp == narrow.dsp == 10 * 8 + 3 * 16
    assert narrow.ram_blocks <= wide.ram_blocks


def test_arria_10_makes_two_products_per_block(make):
    workload = make.lstm_workload(40, balanced(make, 4, 1), banks=4)

    assert analytic(pes=10, lanes=8).cost(workload).dsp == (10 * 8 + 3 * 16) // 2


def test_more_lanes_never_take_fewer_resources(make):
    workload = make.lstm_workload(40, balanced(make, 4, 1), banks=4)
    costs = [analytic(pes=8, lanes=lanes, vector_memory="block").cost(workload) for lanes in (1, 2, 4, 8)]

    assert [cost.dsp for cost in costs] == sorted(cost.dsp for cost in costs)
    assert [cost.ram_blocks for cost in costs] == sorted(cost.ram_blocks for cost in costs)


def test_vectors_go_to_ram_blocks_when_asked_for(make):
    workload = make.lstm_workload(40, balanced(make, 4, 1), banks=4)
    cost = analytic(pes=10, lanes=8, vector_memory="block").cost(workload)

    assert cost.details["ram"]["m20k"]["vector"] == 80
    assert cost.details["ram"]["distributed"] == {}


def test_an_lstm_of_other_widths_keeps_the_banks_of_both_matrices(make):
    layer = LSTM(name="cell", inputs=20, units=12, input_label="x")
    rng = np.random.default_rng(0)
    masks = {
        "cell.kernel": make.bank_balanced_mask(rng, 48, 4, 5, 2),
        "cell.recurrent_kernel": make.bank_balanced_mask(rng, 48, 4, 3, 1),
    }
    workload = Workload(Network(layers=(layer,)), layer.tensors(), masks, dict.fromkeys(masks, 4))
    cost = analytic(pes=48, lanes=4).cost(workload)

    assert cost.details["layers"]["cell"]["notes"] == ["8 banks of at most 5: the equally filled banks of the mask"]
    assert cost.details["layers"]["cell"]["issue_cycles"] == 2 + 1


def test_a_label_names_the_parameters_that_differ_from_the_defaults():
    assert FpgaAnalytic(device="xcku060").label() == "fpga_analytic(device=xcku060)"
    assert FpgaAnalytic().label() == "fpga_analytic"
