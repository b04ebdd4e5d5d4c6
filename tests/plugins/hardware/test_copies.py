"""Copies of an array on different output positions: searched within the budget, never worse than given ones."""

import numpy as np
import pytest

from harness.api import Conv2D, Network, Workload
from harness.discovery.finding import discover

REGISTRY = discover()


def convolutions(seed=0):
    """Two convolutions of few filters at many positions, and one of more at fewer."""
    layers, inputs, source = [], 3, "pixels"
    for place, (outputs, stride) in enumerate([(8, 1), (12, 2), (24, 2)]):
        name = f"conv_{place}"
        layers.append(
            Conv2D(
                name=name, inputs=inputs, outputs=outputs, kernel=(3, 3), padding=1, stride=stride, input_label=source
            )
        )
        inputs, source = outputs, f"{name}.channels"
    network = Network(layers=tuple(layers), input_shape=(3, 12, 12))
    tensors = tuple(tensor for layer in layers for tensor in layer.tensors() if tensor.role == "conv")
    rng = np.random.default_rng(seed)
    return Workload(network, tensors, {tensor.name: rng.random(tensor.shape) < 0.3 for tensor in tensors})


def cost(workload, engine, copies, device="arria10_gx1150", budget=512, **more):
    entry = {"name": "cycle_simulator", "device": device, "multipliers": budget, "pixel_copies": copies, **more}
    return REGISTRY.create("hardware", {**entry, "engine": {"name": engine}}).cost(workload)


LARGE, SMALL = ("arria10_gx1150", {}), ("pynq_z2", {"ram_blocks": 60})


@pytest.mark.parametrize(
    ("engine", "left", "on"),
    [("bank", 0.001, LARGE), ("bank", 0.001, SMALL), ("column_fifo", 0.03, LARGE), ("dense_mvm", 0.0, SMALL)],
)
def test_no_number_of_copies_given_by_hand_beats_the_search(engine, left, on):
    workload, (device, limits) = convolutions(), on
    found = cost(workload, engine, "search", device, **limits)

    for copies in (1, 3, 8, 18, 72):
        given = cost(workload, engine, copies, device, **limits)
        assert (not found.fits, not found.can_run) <= (not given.fits, not given.can_run), copies
        if given.fits == found.fits:
            assert found.cycles <= given.cycles * (1 + left) + 3, (found.shape, given.shape)


def test_copies_are_told_stay_within_the_budget_and_the_baseline_has_its_own():
    workload = convolutions()
    single, found = cost(workload, "bank", 1), cost(workload, "bank", "search")

    assert found.cycles < single.cycles
    assert " copies=" in found.shape and " copies=" in found.details["dense"]["shape"]
    assert found.multipliers <= found.details["budget"] == single.details["budget"] == 512
    assert found.dense_cycles <= single.dense_cycles
    assert cost(workload, "dense_mvm", "search").speedup == 1


def test_a_larger_budget_is_never_slower_with_copies():
    workload, before = convolutions(), None
    for budget in (16, 90, 500):
        found = cost(workload, "bank", "search", budget=budget)
        assert before is None or found.cycles <= before.cycles + 1
        before = found


@pytest.mark.parametrize("engine", ["dense_systolic", "weight_broadcast"])
def test_engines_that_spread_over_positions_by_themselves_have_no_copies(engine):
    workload = convolutions()
    single = cost(workload, engine, 1)

    for copies in (4, "search"):
        other = cost(workload, engine, copies)
        assert (other.shape, other.cycles, other.multipliers) == (single.shape, single.cycles, single.multipliers)


def test_where_there_is_one_position_there_is_one_copy(make):
    workload = make.matrix_workload(np.random.default_rng(0).random((60, 40)) < 0.2)

    assert cost(workload, "bank", "search") == cost(workload, "bank", 1)


def test_copies_of_a_given_shape_stay_within_the_budget():
    entry = {"name": "cycle_simulator", "multipliers": 512, "pixel_copies": "search"}
    for lanes, most in ((4, 16), (200, 1)):
        engine = {"name": "bank", "pes": 8, "lanes": lanes}
        found = REGISTRY.create("hardware", {**entry, "engine": engine}).cost(convolutions())

        assert found.multipliers <= max(512, 8 * lanes)
        assert found.multipliers // (8 * lanes) <= most
