"""What crosses the chip's border, and the roofline made of it."""

import itertools
import re

import numpy as np
import pytest
from harness_plugins.hardware._design.design import design
from harness_plugins.hardware._design.numerics import Budget, Numerics
from harness_plugins.hardware._design.traffic import Traffic, layer_traffic
from harness_plugins.hardware._devices import device
from harness_plugins.hardware.engines.csr_stream import CsrStream
from harness_plugins.hardware.engines.mcbbs_systolic import McbbsSystolic
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import Conditions, Convolution, Cost, Part, Product
from harness.costing.roofline import Roof, roofline
from harness.discovery.finding import discover

REGISTRY = discover()
SIZES = {"bank": {"pes": 4, "lanes": 4}, "dense_mvm": {"pes": 4, "lanes": 4}, "csr_stream": {"channels": 2}}


def cost(workload, engine="bank", **parameters):
    model = REGISTRY.create(
        "hardware",
        {"name": "cycle_simulator", "multipliers": 16, "engine": {"name": engine, **SIZES[engine]}, **parameters},
    )
    return model.cost(workload)


def masked(make, rows, cols, seed=0, density=0.25):
    return make.matrix_workload(np.random.default_rng(seed).random((rows, cols)) < density)


def test_a_layer_on_chip_moves_its_inputs_and_outputs_and_no_weight(make):
    system = cost(masked(make, 24, 40)).details["memory_system"]

    assert system["weight_bytes"] == 0
    assert system["vector_bytes"] == 2 * (24 + 40)  # 16 bits each


def test_intensity_and_the_bandwidth_that_is_needed_are_those_of_bytes_operations_and_cycles():
    moved = Traffic(operations=1200, weight_bytes=100.0, vector_bytes=50.0, cycles=40.0, busy_cycles=30.0)
    still = Traffic(operations=1200, weight_bytes=0.0, vector_bytes=0.0, cycles=40.0, busy_cycles=0.0)

    # 150 bytes in 30 cycles at 200 MHz: 5 bytes a cycle, 1 GB/s.
    assert (moved.read_bytes, moved.intensity, moved.needed_gbytes_per_s(200.0)) == (150.0, 8.0, 1.0)
    assert (still.intensity, still.needed_gbytes_per_s(200.0)) == (None, 0.0)


def test_the_memory_system_of_a_cost_is_in_the_units_of_its_names(make):
    workload = masked(make, 24, 400)
    found = cost(workload, bandwidth_gbytes_per_s=0.001)
    system, kept = found.details["memory_system"], int(next(iter(workload.masks.values())).sum())
    cycles = sum(found.details["parts"].values())
    needed = 2 * (24 + 400) / cycles * found.clock_mhz * 1e6 / 1e9

    assert system["operations"] == 2 * kept
    assert system["intensity"] == pytest.approx(2 * kept / (2 * (24 + 400)), abs=1e-6)
    assert system["needed_gbytes_per_s"] == pytest.approx(needed, abs=1e-6)
    assert (system["gbytes_per_s"], system["origin"]) == (0.001, "given")
    assert system["peak_gops"] == pytest.approx(2 * 16 * found.clock_mhz / 1e3)
    assert f"inputs and outputs alone need {needed:.3g} GB/s off chip, 0.001 GB/s are there" in " ".join(found.notes)


def test_vectors_between_layers_stay_on_chip(make):
    found = cost(make.lstm_workload(16, lambda rows, cols: np.ones((rows, cols), bool), layers=3))
    moved = [layer["traffic"]["vector_bytes"] for layer in found.details["layers"].values()]

    assert moved == [32, 0, 32]  # 16 inputs of the first, 16 outputs of the last


def test_a_recurrent_layer_reads_its_inputs_and_gives_its_outputs_in_every_step():
    product = Product("rnn", (Part("w", 16, 6, None, 96), Part("u", 16, 4, None, 64)), 4, steps=3)
    engine, numerics = CsrStream(channels=2), Numerics(conditions=Conditions())
    shape = engine.fixed_shape([product], 16)
    made = design(engine, shape, [product], engine.simulate, device("stratix10_gx2800"), numerics, Budget())

    assert layer_traffic(made, 0, numerics).vector_bytes == 3 * (6 + 4) * 16 / 8


def test_streamed_weights_are_moved_as_they_are_stored(make):
    found = cost(masked(make, 24, 40), engine="csr_stream")
    (layer,) = found.details["layers"].values()

    assert found.details["memory_system"]["weight_bytes"] * 8 == layer["stored_bits"]


def test_a_design_that_waits_for_memory_needs_more_than_there_is_and_one_that_does_not_wait_less(make):
    workload = masked(make, 96, 128)
    slow = cost(workload, engine="csr_stream", bandwidth_gbytes_per_s=0.01)
    fast = cost(workload, engine="csr_stream", bandwidth_gbytes_per_s=1000.0)

    assert slow.details["parts"]["memory_stall"] > 0
    assert slow.details["memory_system"]["needed_gbytes_per_s"] > 0.01
    assert fast.details["parts"]["memory_stall"] == 0
    assert fast.details["memory_system"]["needed_gbytes_per_s"] < 1000


@given(rows=st.integers(1, 40), cols=st.integers(1, 60), density=st.floats(0.05, 1), gbytes=st.floats(0.01, 100))
@settings(deadline=None, max_examples=8)
def test_no_engine_computes_above_its_flat_roof_nor_above_what_its_weights_allow(make, rows, cols, density, gbytes):
    workload = masked(make, rows, cols, density=density)
    costs = [cost(workload, engine, bandwidth_gbytes_per_s=gbytes) for engine in ("bank", "dense_mvm", "csr_stream")]
    found = roofline(costs)

    for roof, each in zip(found.roofs, costs, strict=True):
        (whole, *_) = found.of(roof.engine)
        system = each.details["memory_system"]
        assert whole.gops <= roof.peak_gops * (1 + 1e-6)
        if system["weight_bytes"]:
            assert whole.gops <= gbytes * system["operations"] / system["weight_bytes"] * (1 + 1e-6)


def test_layers_have_points_of_their_own_and_their_operations_add_up(make):
    found = cost(make.lstm_workload(16, lambda rows, cols: np.ones((rows, cols), bool), layers=2))
    line = roofline([found])

    assert [point.layer for point in line.of(found.engine)] == ["", "lstm_0", "lstm_1"]
    layers = found.details["layers"].values()
    assert sum(layer["traffic"]["operations"] for layer in layers) == found.details["memory_system"]["operations"]


def test_the_ridge_is_where_both_roofs_meet():
    roof = Roof("bank", peak_gops=400.0, gbytes_per_s=16.0, origin="given")

    assert roof.attainable(roof.ridge) == roof.peak_gops
    assert roof.attainable(roof.ridge / 2) == roof.peak_gops / 2


def test_without_a_bandwidth_only_the_flat_roof_is_left():
    roof = Roof("bank", peak_gops=400.0, gbytes_per_s=None, origin="")

    assert roof.ridge is None
    assert roof.attainable(0.001) == 400


def test_costs_of_stored_records_are_drawn_as_well_and_older_ones_left_out(make):
    made = cost(masked(make, 24, 40))
    stored = Cost.model_validate_json(made.model_dump_json())
    older = made.model_copy(update={"details": {}})

    assert roofline([stored, older]) == roofline([made])


@pytest.mark.parametrize(("given_gbytes", "origin"), [(5.0, "given"), (None, "assumed")])
def test_the_bandwidth_says_where_it_comes_from(make, given_gbytes, origin):
    parameters = {} if given_gbytes is None else {"bandwidth_gbytes_per_s": given_gbytes}
    system = cost(masked(make, 24, 40), **parameters).details["memory_system"]

    assert system["origin"] == origin


def test_inputs_that_come_faster_than_the_memory_gives_are_told(make):
    workload = masked(make, 24, 400)
    slow, fast = (cost(workload, bandwidth_gbytes_per_s=gbytes) for gbytes in (0.001, 100.0))

    assert any("inputs and outputs alone need" in note for note in slow.notes)
    assert not any("inputs and outputs alone need" in note for note in fast.notes)
    assert slow.cycles == fast.cycles


# --- engines that read their weights anew ---------------------------------------------------------------------------


def convolved(kernel, inputs, rows, output, stride=1):
    """A dense convolution, padded so that its output is as given."""
    image = tuple(stride * (size - 1) + each for size, each in zip(output, kernel, strict=True))
    geometry = Convolution(inputs, kernel, stride, output, image=image)
    cols = inputs * kernel[0] * kernel[1]
    return Product("conv", (Part("kernel", rows, cols, None, rows * cols),), pixels=output[0] * output[1],
                   convolution=geometry)  # fmt: skip


def tile_by_tile(product, columns, width, height):
    """Words that tiles of so many rows and pixels per PE column read and write, counted pixel by pixel."""
    geometry = product.convolution
    (high, wide), (kernel_high, kernel_wide) = geometry.output, geometry.kernel
    filters = inputs = outputs = 0
    tops, lefts = range(0, high, height), []
    left = 0
    while left < wide:
        across = min(width * columns, wide - left)
        lefts.append((left, across))
        left += across
    for top, (left, across) in itertools.product(tops, lefts):
        down = min(height, high - top)
        filters += product.size
        seen = {
            (y * geometry.stride + dy, x * geometry.stride + dx)
            for y in range(top, top + down)
            for x in range(left, left + across)
            for dy in range(kernel_high)
            for dx in range(kernel_wide)
        }
        inputs += geometry.inputs * len(seen)
        outputs += product.rows * down * across
    return filters, inputs, outputs


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (3, 1)])
@pytest.mark.parametrize("output", [(9, 9), (40, 14), (2, 3)])
@pytest.mark.parametrize(("pe_rows", "pe_columns"), [(2, 2), (4, 3), (1, 1)])
def test_a_systolic_array_reads_its_weights_for_every_tile_and_what_tiles_share_of_the_input_with_each(
    kernel, output, pe_rows, pe_columns
):
    engine = McbbsSystolic(pe_rows=pe_rows, pe_columns=pe_columns, parallel_clusters=4)
    product = convolved(kernel, 16, 6, output)
    shape, numerics = engine.fixed_shape([product], 4 * pe_rows * pe_columns), Numerics(conditions=Conditions())
    made = design(engine, shape, [product], engine.simulate, device("stratix10_gx2800"), numerics, Budget())
    (layer,) = made.layers
    rows, width = (int(word) for word in re.findall(r"tiles of (\d+) rows and (\d+) pixels", layer.run.notes[0])[0])

    filters, inputs, outputs = tile_by_tile(product, pe_columns, width, rows)
    found = layer_traffic(made, 0, numerics)

    # 16 bits of a weight, and 4 of its index beside them.
    assert found.weight_bytes == filters * (16 + 4) / 8
    assert found.vector_bytes == (inputs + outputs) * 16 / 8
    assert made.streamed_bits == 8 * found.read_bytes


def test_an_engine_that_streams_reads_its_weights_for_every_position(make):
    vector, image = (convolved((1, 1), 8, 8, output) for output in ((1, 1), (4, 3)))
    engine, numerics = CsrStream(channels=2), Numerics(conditions=Conditions())

    def moved(product):
        shape = engine.fixed_shape([product], 16)
        made = design(engine, shape, [product], engine.simulate, device("stratix10_gx2800"), numerics, Budget())
        return layer_traffic(made, 0, numerics).weight_bytes

    assert moved(image) == 12 * moved(vector)
