"""Energy by events: worked by hand, monotone, and with the constants of whoever describes the device."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from harness_plugins.hardware._design.design import design
from harness_plugins.hardware._design.events import events
from harness_plugins.hardware._design.numerics import Budget, Numerics
from harness_plugins.hardware._devices import device
from harness_plugins.hardware.engines.block import Block
from harness_plugins.hardware.engines.column_fifo import ColumnFifo
from harness_plugins.hardware.engines.dense_systolic import DenseSystolic
from harness_plugins.hardware.engines.mcbbs_systolic import McbbsSystolic
from harness_plugins.hardware.engines.weight_broadcast import WeightBroadcast
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import Conditions, Convolution, Part, Product
from harness.discovery.finding import discover

REGISTRY = discover()
SIZES = {
    "bank": {"pes": 4, "lanes": 4},
    "dense_mvm": {"pes": 4, "lanes": 4},
    "static_dataflow": {},
    "csr_stream": {"channels": 2},
}

DEVICE = """
version: 1
sources: {mine: measured on my desk}
device:
  family: made up
  logic: {kind: lut, count: {value: 600000, origin: assumed, source: mine}}
  ff: {value: 1200000, origin: assumed, source: mine}
  dsp: {kind: dsp48e2, count: {value: 4100, origin: assumed, source: mine}}
  rams:
    - {kind: bram_18k, count: {value: 2400, origin: assumed, source: mine}}
  clock_mhz: {value: 200, origin: assumed, source: mine}
  energy:
    mac_pj_w16: {value: 3, origin: measured, source: mine}
    ram_pj_per_bit: {value: 0.5, origin: measured, source: mine}
    dram_pj_per_bit: {value: 11, origin: measured, source: mine}
    adder_pj_per_bit: {value: 0.25, origin: measured, source: mine}
"""
STATIC = "    static_w: {value: 2, origin: measured, source: mine}\n"


def cost(workload, engine="bank", **parameters):
    entry = {"name": "cycle_simulator", "multipliers": 16, "engine": {"name": engine, **SIZES[engine]}, **parameters}
    return REGISTRY.create("hardware", entry).cost(workload)


def masked(make, rows=24, cols=40, density=0.3, seed=0):
    return make.matrix_workload(np.random.default_rng(seed).random((rows, cols)) < density)


@pytest.fixture
def desk(tmp_path):
    path = tmp_path / "desk.yaml"
    path.write_text(DEVICE)
    return str(path)


def test_a_dense_array_worked_by_hand(make, desk):
    found = cost(make.matrix_workload(np.ones((8, 8), np.bool_)), "dense_mvm", device=desk)
    events = found.details["energy_events"]

    assert events["macs"]["count"] == 64
    # 64 weights of 16 bits, and in each of 2 x 2 cycles a word of the vector for each of 4 inputs, shared by all rows.
    assert events["ram_bits"]["count"] == 64 * 16 + 4 * 4 * 16
    assert events["dram_bits"]["count"] == (8 + 8) * 16
    assert found.event_energy_uj == pytest.approx((64 * 3 + 1280 * 0.5 + 256 * 11) / 1e6)
    # A multiplier grows with the square of its wider operand, which 16 bits are the reference of.
    both, one = (
        cost(
            make.matrix_workload(np.ones((8, 8), np.bool_)), "dense_mvm", device=desk, weight_bits=8, activation_bits=b
        )
        for b in (8, 16)
    )
    assert [each.details["energy_events"]["macs"]["pj_each"] for each in (both, one)] == [0.75, 3.0]


def test_a_bank_engine_reads_a_word_of_the_vector_for_every_weight(make, desk):
    mask = make.bank_balanced_mask(np.random.default_rng(0), 8, 4, 4, 1)
    events = cost(make.matrix_workload(mask), device=desk).details["energy_events"]

    assert events["macs"]["count"] == 32
    assert events["ram_bits"]["count"] == pytest.approx(
        32 * 16 + 32 * (16 + 2), abs=32
    )  # an index of two bits beside a weight


def test_a_circuit_has_adder_bits_and_no_weight_memory(make, desk):
    found = cost(masked(make), "static_dataflow", device=desk)
    events = found.details["energy_events"]

    assert "macs" not in events
    assert events["adder_bits"]["count"] == found.lut
    assert events["ram_bits"]["count"] == 0


def test_weights_that_are_streamed_cost_what_the_off_chip_memory_asks(make, desk):
    found = cost(masked(make), "csr_stream", device=desk)
    system = found.details["memory_system"]

    assert found.details["energy_events"]["dram_bits"]["count"] == pytest.approx(
        8 * (system["weight_bytes"] + system["vector_bytes"])
    )


def test_static_power_counts_where_the_device_gives_it(make, desk, tmp_path):
    other = tmp_path / "static.yaml"
    other.write_text(DEVICE.rstrip("\n") + "\n" + STATIC)
    without, having = cost(masked(make), device=desk), cost(masked(make), device=str(other))

    assert having.event_energy_uj == pytest.approx(without.event_energy_uj + 2 * having.latency_us)


def test_constants_of_the_table_are_assumed_and_those_of_a_file_are_its_own(make, desk):
    ours, mine = cost(masked(make)), cost(masked(make), device=desk)

    assert {event["origin"] for event in ours.details["energy_events"].values() if isinstance(event, dict)} == {
        "assumed"
    }
    assert {event["origin"] for event in mine.details["energy_events"].values() if isinstance(event, dict)} == {
        "measured"
    }


def test_a_device_that_gives_one_constant_has_the_others_of_the_table(make, tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text("\n".join(line for line in DEVICE.splitlines() if "pj" not in line or "mac" in line))
    events = cost(masked(make), device=str(path)).details["energy_events"]

    assert (events["macs"]["origin"], events["ram_bits"]["origin"]) == ("measured", "assumed")


@given(density=st.floats(0.05, 0.9), more=st.floats(0.0, 0.1))
@settings(deadline=None, max_examples=15)
def test_more_weights_never_take_less(make, density, more):
    scores = np.random.default_rng(0).random((24, 40))
    few, many = (make.matrix_workload(scores < each) for each in (density, density + more))

    assert cost(few).event_energy_uj <= cost(many).event_energy_uj + 1e-12


@pytest.mark.parametrize("engine", SIZES)
def test_narrower_numbers_take_less(make, engine):
    wide, narrow = (cost(masked(make), engine, weight_bits=bits, activation_bits=bits) for bits in (16, 8))

    assert narrow.event_energy_uj < wide.event_energy_uj


# --- convolutions ---------------------------------------------------------------------------------------------------

ENGINES = [row.component for row in REGISTRY.rows if row.kind == "engine" and row.component is not None]


def convolution(kernel=(1, 1), inputs=8, rows=8, output=(4, 4), mask=None):
    """One product per position of an image; padded so that its output is as given."""
    cols = inputs * kernel[0] * kernel[1]
    image = tuple(size + each - 1 for size, each in zip(output, kernel, strict=True))
    kept = rows * cols if mask is None else int(mask.sum())
    geometry = Convolution(inputs, kernel, 1, output, image=image)
    part = Part("kernel", rows, cols, mask, kept)
    return Product("conv", (part,), pixels=output[0] * output[1], convolution=geometry)


def counted(engine, product, **options):
    """The number of every event of one product on an engine of fixed sizes."""
    shape, numerics = engine.fixed_shape([product], 16), Numerics(conditions=Conditions(bytes_per_cycle=64.0))
    made = design(engine, shape, [product], engine.simulate, device("stratix10_gx2800"), numerics, Budget())
    return {event.name: event.count for event in events(made, device("stratix10_gx2800"), numerics)}


def layerwise(engine):
    """The same engine, whose run covers all positions of a layer."""

    class Whole(type(engine)):
        whole_layer = True

        def simulate(self, product, shape, conditions):
            run = super().simulate(product, shape, conditions)
            times = {name: product.pixels if name != "fill_drain" else 1 for name in run.parts}
            parts = {name: Fraction(each) * times[name] for name, each in run.parts.items()}
            return replace(run, parts=parts, fetches=Fraction(product.pixels))

    Whole.__name__ = type(engine).__name__
    return Whole(**engine.parameters())


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
@pytest.mark.parametrize(
    "engine",
    [cls for cls in ENGINES if not cls.whole_layer],
    ids=lambda cls: cls.name,
)
def test_energy_does_not_depend_on_whether_a_run_covers_a_position_or_a_layer(engine, kernel):
    made = engine(block=(2, 2)) if engine is Block else engine()
    # Two of four kept, with whole rows and columns left out, or in turns: something for everybody.
    whole, turns = (np.zeros((8, 8 * kernel[0] * kernel[1]), bool) for _ in range(2))
    whole[:4, ::2] = turns[::2, ::2] = turns[1::2, 1::2] = True
    ran = 0
    for mask in (None, whole, turns):
        product = convolution(kernel, mask=mask)
        if made.refusal(product) is None:
            ran += 1
            assert counted(layerwise(made), product) == pytest.approx(counted(made, product))
    assert ran


@pytest.mark.parametrize("engine", ENGINES, ids=lambda cls: cls.name)
def test_a_dense_convolution_takes_a_multiplication_per_weight_and_position_on_every_engine(engine):
    made = engine(block=(2, 2)) if engine is Block else engine()
    product = convolution(inputs=64, rows=64, output=(4, 8))

    if made.refusal(product) is not None or made.unrolled:
        pytest.skip("it runs no dense product, or has no multipliers")

    assert counted(made, product)["macs"] == 64 * 64 * 32


@given(
    kernel=st.sampled_from([(1, 1), (3, 3), (1, 3)]),
    density=st.floats(0.1, 0.9),
    high=st.integers(1, 5),
    wide=st.integers(1, 6),
)
@settings(deadline=None, max_examples=40)
def test_twice_as_many_lines_of_output_take_twice_the_multiplications_wherever_layers_run_whole(
    kernel, density, high, wide
):
    mask = np.random.default_rng(0).random((8, 8 * kernel[0] * kernel[1])) < density
    for engine in (DenseSystolic(array_rows=4, array_cols=1), WeightBroadcast(filters=2, splits=2, pixels=2)):
        once, twice = (counted(engine, convolution(kernel, output=(n, wide), mask=mask)) for n in (high, 2 * high))

        assert twice["macs"] == 2 * once["macs"]
        assert once["macs"] >= mask.sum() * high * wide
        # Of the tiles of an array only the first fills beside the others: three words more.
        assert once["ram_bits"] < twice["ram_bits"] <= 2 * once["ram_bits"] + 3 * 16


def test_a_systolic_convolution_worked_by_hand():
    product = convolution(inputs=4, rows=4, output=(2, 4))
    found = {
        flow: counted(DenseSystolic(array_rows=4, array_cols=4, dataflow=flow), product)
        for flow in ("output_stationary", "weight_stationary")
    }

    # Maps: 4 x 8 words in and out. Weights once for each of two tiles, or once. A word of 4 vectors in each of 2 x 4
    # cycles, none in those in which a tile fills; where weights stay, in each of 8 cycles, none in those that load
    # them, and as many sums of 32 bits read and written.
    assert found["output_stationary"]["ram_bits"] == 16 * (2 * 32 + 2 * 16 + 4 * 2 * 4)
    assert found["weight_stationary"]["ram_bits"] == 16 * (2 * 32 + 16 + 4 * 8) + 2 * 4 * 32 * 8
    assert {each["macs"] for each in found.values()} == {16 * 8}


def test_lines_and_maps_of_a_convolution_count():
    one = convolution((1, 1), inputs=4, rows=1, output=(4, 4))
    high = convolution((3, 3), inputs=4, rows=1, output=(4, 4))
    engine = REGISTRY.create("engine", {"name": "dense_mvm", "pes": 1, "lanes": 1})

    def beside(product):
        """Bits beyond those of weights, and of a word of the vector for each of them."""
        return counted(engine, product)["ram_bits"] - 2 * 16 * product.cols * product.pixels

    # A window of one line reads the map itself; of three lines, the map is read into lines, and every position takes a
    # column of three words of each of four inputs.
    assert beside(one) == 16 * (4 * 16 + 16)
    assert beside(high) == 16 * (2 * 4 * 6 * 6 + 3 * 4 * 16 + 16)


def test_maps_that_leave_the_chip_are_read_there():
    product = convolution((3, 3), inputs=64, rows=64, output=(256, 256))
    numerics = Numerics(conditions=Conditions(bytes_per_cycle=64.0))
    engine, chip = REGISTRY.create("engine", {"name": "dense_mvm"}), device("pynq_z2")
    shape = engine.fixed_shape([product], 16)
    made = design(engine, shape, [product], engine.simulate, chip, numerics, Budget())

    assert made.memory.streams_maps
    found = {event.name: event.count for event in events(made, chip, numerics)}
    assert found["dram_bits"] >= 16 * 64 * (258 * 258 + 256 * 256)


def test_fifos_that_hold_streamed_weights_are_no_fifos_of_inputs():
    product = convolution((3, 3), inputs=64, rows=64, output=(8, 8))
    found = counted(McbbsSystolic(), product)

    # One PE column of 16 multipliers: 512 bits of inputs a cycle, of every weight 16 and an index of two, and maps.
    assert found["ram_bits"] <= (512 / 16 + 16 + 2 + 6) * found["macs"]
    assert counted(ColumnFifo(), product)["macs"] == found["macs"]


def words_of_vectors(dataflow, outputs, inputs, vectors, high, wide):
    """Elements of the vectors that enter a systolic array of high x wide PEs, cycle by cycle of every tile."""
    found = 0
    if dataflow == "output_stationary":
        for _ in itertools.product(range(0, outputs, high), range(0, vectors, wide)):
            # Column j gets the element of cycle t - j; outside of the vector nothing is read.
            for cycle, column in itertools.product(range(inputs + high + wide - 2), range(wide)):
                found += 0 <= cycle - column < inputs
        return found / wide
    if dataflow == "weight_stationary":
        for _ in itertools.product(range(0, inputs, high), range(0, outputs, wide)):
            for cycle, row in itertools.product(range(vectors + high + wide - 2), range(high)):
                found += 0 <= cycle - row < vectors
        return found / high
    for _ in itertools.product(range(0, inputs, high), range(0, vectors, wide)):
        found += high  # a row of inputs a cycle while the tile is loaded
    return found


@given(
    dataflow=st.sampled_from(["output_stationary", "weight_stationary", "input_stationary"]),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
@settings(deadline=None, max_examples=40)
def test_a_systolic_array_reads_vectors_while_they_enter_and_not_while_it_drains(dataflow, sizes, shape):
    outputs, inputs, vectors = sizes
    # No more PEs than there is work for, so that every edge is as wide as the array.
    along = {"output_stationary": (outputs, vectors), "weight_stationary": (inputs, outputs)}
    high, wide = (min(each, most) for each, most in zip(shape, along.get(dataflow, (inputs, vectors)), strict=True))
    engine = DenseSystolic(array_rows=high, array_cols=wide, dataflow=dataflow)
    product = Product("fc", (Part("fc.kernel", outputs, inputs, None, outputs * inputs),), pixels=vectors)

    run = engine.simulate(product, engine.fixed_shape([product], high * wide), Conditions())

    assert run.words["vector"] == words_of_vectors(dataflow, outputs, inputs, vectors, high, wide)


def test_the_energy_of_a_systolic_array_does_not_grow_with_the_way_through_it():
    """Two tiles of one vector each: eight inputs are read twice, whatever the skew of the array is."""
    product = Product("fc", (Part("fc.kernel", 8, 8, None, 64),), pixels=1)
    found = counted(DenseSystolic(array_rows=4, array_cols=1), product)

    weights, vectors, outputs = 64 * 16, 2 * 8 * 16, 0
    assert found["ram_bits"] == weights + vectors + outputs


@pytest.mark.parametrize(("gates", "carried"), [(4, 2), (3, 1)])
def test_a_lstm_carries_two_vectors_from_step_to_step_and_a_gru_one(gates, carried):
    def product(units):
        parts = (Part("w", gates * 4, 3, None, gates * 12), Part("u", gates * 4, 4, None, gates * 16))
        return Product("rnn", parts, units)

    engine = REGISTRY.create("engine", {"name": "dense_mvm", "pes": 1, "lanes": 1})
    recurrent, plain = (counted(engine, product(units))["ram_bits"] for units in (4, None))

    assert recurrent - plain == carried * 2 * 4 * 16  # each element read and written


def test_a_step_of_a_gru_and_of_a_projected_lstm_worked_by_hand():
    """One multiplier: a weight a cycle; then the last unit's element-wise part, a cycle and eight to its output."""
    engine = REGISTRY.create("engine", {"name": "dense_mvm", "pes": 1, "lanes": 1})

    def parts(*products):
        shape, numerics = engine.fixed_shape(products, 1), Numerics(conditions=Conditions(bytes_per_cycle=64.0))
        made = design(engine, shape, products, engine.simulate, device("stratix10_gx2800"), numerics, Budget())
        return [(layer.run.issue_cycles, layer.parts.get("elementwise", 0)) for layer in made.layers]

    gru = Product("gru", (Part("w", 12, 3, None, 36), Part("u", 12, 4, None, 48)), 4)
    lstm = Product("lstm", (Part("w", 16, 3, None, 48), Part("u", 16, 2, None, 32)), 4)
    projection = Product("lstm.projection", (Part("p", 2, 4, None, 8),))

    assert parts(gru) == [(12 * 7, 1 + 8)]
    assert parts(lstm, projection) == [(16 * 5, 1 + 8), (2 * 4, 0)]
