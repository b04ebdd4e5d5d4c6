"""Layers on engines of their own: the division by brute force, what they share, and what they gain."""

from fractions import Fraction
from itertools import product as tuples

import numpy as np
import pytest
from harness_plugins.hardware._design.design import Layer
from harness_plugins.hardware._design.pipeline import Stage, divide
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Conv2D, Convolution, Dense, EngineShape, Flatten, Network, Part, Pool2D, Product, Run, Workload
from harness.discovery.finding import discover

REGISTRY = discover()


def stage(multipliers, cycles, blocks=0):
    part = Part("kernel", 1, 1, None, 1)
    layer = Layer(Product("layer", (part,)), Run({}), {"compute": Fraction(cycles)}, Fraction(0), 1)
    return Stage(EngineShape((("pes", multipliers),), multipliers), layer, blocks)


class Joined:
    """Stages on a device of so many RAM blocks."""

    def __init__(self, room=10**9):
        self.room = room

    def __call__(self, stages):
        found = Joined()
        found.fits = sum(each.blocks for each in stages) <= self.room
        return found


some_stages = st.lists(
    st.builds(stage, st.integers(1, 9), st.integers(1, 30), st.integers(0, 9)), min_size=1, max_size=5
)


@given(choices=st.lists(some_stages, min_size=1, max_size=4), budget=st.integers(1, 30))
def test_no_other_division_of_the_multipliers_has_a_faster_slowest_stage(choices, budget):
    possible = [d for d in tuples(*choices) if sum(each.shape.multipliers for each in d) <= budget]
    found = divide(choices, budget, Joined())
    if not possible:
        assert found is None
        return

    assert sum(each.shape.multipliers for each in found) <= budget
    best = min(max(each.cycles for each in division) for division in possible)
    assert max(each.cycles for each in found) == best


@given(choices=st.lists(some_stages, min_size=1, max_size=4), room=st.integers(0, 36))
def test_stages_that_are_said_to_fit_fit_and_with_multipliers_to_spare_a_division_that_fits_is_found(choices, room):
    found = divide(choices, 36, Joined(room))
    possible = [d for d in tuples(*choices) if sum(each.blocks for each in d) <= room]

    # 4 stages of at most 9 multipliers stay within 36 whatever is chosen: blocks alone decide.
    assert Joined(room)(found).fits == bool(possible)
    if possible:
        best = min(max(each.cycles for each in division) for division in possible)
        assert max(each.cycles for each in found) == best


def network():
    layers = (
        Conv2D(name="one", inputs=1, outputs=8, kernel=(3, 3), padding=1, input_label="image"),
        Pool2D(size=2),
        Conv2D(name="two", inputs=8, outputs=16, kernel=(3, 3), padding=1, input_label="one.channels"),
        Conv2D(name="three", inputs=16, outputs=16, kernel=(3, 3), stride=2, input_label="two.channels"),
        Flatten(),
        Dense(name="out", inputs=16 * 9, units=10, input_label="three.channels", input_repeat=9),
    )
    return Network(layers=layers, input_shape=(1, 14, 14))


def cost(engine, budget=64, device="xc7z020", density=0.3, **options):
    found = network()
    tensors = tuple(tensor for tensor in found.tensors() if tensor.is_prunable)
    rng = np.random.default_rng(1)
    masks = {tensor.name: rng.random(tensor.shape) < density for tensor in tensors}
    entry = {"name": "cycle_simulator", "device": device, "multipliers": budget, "engine": engine, **options}
    return REGISTRY.create("hardware", {**entry, "pipelined": True}).cost(Workload(found, tensors, masks))


@pytest.mark.parametrize("engine", ["bank", "column_fifo", "dense_mvm", "weight_broadcast"])
def test_stages_share_the_budget_and_the_slowest_sets_the_pace(engine):
    found = cost(engine)
    piped = found.details["pipelined"]
    stages = piped["stages"]

    assert list(stages) == ["one", "two", "three", "out"]
    assert sum(each["multipliers"] for each in stages.values()) == piped["multipliers"] <= 64
    assert piped["cycles"] == max(each["cycles"] for each in stages.values()) == stages[piped["slowest"]]["cycles"]
    assert piped["steps_per_s"] == pytest.approx(found.clock_mhz * 1e6 / piped["cycles"])
    # An item takes at least as long as its slowest stage, and at most as all of them one after the other.
    assert piped["cycles"] <= piped["latency_us"] * found.clock_mhz
    assert piped["latency_us"] * found.clock_mhz <= sum(each["cycles"] for each in stages.values()) + 1
    assert piped["fits"] and 0 < piped["ram_share"] <= 1
    assert piped["dsp"] == piped["multipliers"]  # 16 bits and no LSTM: a block each


@pytest.mark.parametrize("engine", ["bank", "weight_broadcast"])
@pytest.mark.parametrize(("less", "more"), [(8, 64), (64, 200)])
def test_more_multipliers_never_slow_the_slowest_stage_down(engine, less, more):
    few, many = (cost(engine, budget).details["pipelined"] for budget in (less, more))

    assert many["cycles"] <= few["cycles"]


@pytest.mark.parametrize(
    ("engine", "budget", "reason"),
    [
        ("csr_stream", 64, "would share"),
        ("static_dataflow", 64, "circuits of their own already"),
        ("bank", 3, "3 multipliers are too few for 4 engines"),
    ],
)
def test_engines_that_cannot_be_divided_say_why(engine, budget, reason):
    assert reason in cost(engine, budget).details["pipelined"]["reason"]


def test_nobody_who_does_not_ask_pays_for_it(make):
    workload = make.matrix_workload(np.ones((4, 4), bool))
    model = REGISTRY.create("hardware", {"name": "cycle_simulator", "engine": "bank"})

    assert "pipelined" not in model.cost(workload).details


def test_a_convolution_begins_when_its_first_lines_are_there_and_a_matrix_when_all_is():
    """Three stages by hand: 8 lines in 80 cycles, a window of 3 lines of them, then a matrix."""
    from harness_plugins.hardware._design.pipeline import Pipeline

    def of(cycles, geometry):
        product = Product("layer", (Part("kernel", 1, 9, None, 9),), convolution=geometry)
        return Stage(
            EngineShape((("pes", 1),), 1), Layer(product, Run({}), {"compute": Fraction(cycles)}, Fraction(0), 1)
        )

    first = of(80, Convolution(1, (3, 3), 1, (8, 8), image=(8, 8)))
    second = of(24, Convolution(1, (3, 3), 1, (6, 6), image=(8, 8)))
    found = Pipeline((first, second, of(7, None)), None, {}, 3, 3)

    assert found.interval == 80
    # The second starts at 30, could be done at 54, and ends a line (4 cycles) after the first ends at 80.
    assert found.latency == 80 + 4 + 7
