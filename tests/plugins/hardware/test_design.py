"""Engines on devices: element-wise part, steps, convolutions, streaming and overheads against small simulations."""

from dataclasses import replace
from fractions import Fraction
from itertools import product as tuples

import numpy as np
import pytest
from harness_plugins.hardware._design.design import design, elementwise
from harness_plugins.hardware._design.numerics import Budget, Numerics
from harness_plugins.hardware._design.products import recurrent
from harness_plugins.hardware._devices import device
from harness_plugins.hardware.engines.bank import Bank
from harness_plugins.hardware.engines.dense_mvm import DenseMvm
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import Conditions, Convolution, EngineShape, Run
from harness.discovery.finding import discover
from harness.testing import engine_products

ENGINES = [row.component for row in discover().rows if row.kind == "engine" and row.component is not None]


def on(engine, product, chip="stratix10_gx2800", speed=64.0, **options):
    """One product on an engine of fixed sizes, simulated."""
    shape = engine.fixed_shape([product], 64)
    numerics = Numerics(conditions=Conditions(bytes_per_cycle=speed), **options)
    return design(engine, shape, [product], engine.simulate, device(chip), numerics, Budget())


def lstm(make, units, inputs, kept_x, kept_h, banks=2):
    """[W_x | W_h] of one layer, each bank-balanced."""
    rng = np.random.default_rng([units, inputs])
    return make.product_of(
        make.bank_balanced_mask(rng, 4 * units, banks, inputs // banks, kept_x),
        make.bank_balanced_mask(rng, 4 * units, banks, units // banks, kept_h),
        banks=banks,
        units=units,
    )


# --- the element-wise part --------------------------------------------------------------------------------------------


def updates_finish(product, run, pes, per_cycle, latency):
    """Tick: units whose rows are done queue up, `per_cycle` of them are taken every cycle."""
    row_cycles = run.issue_cycles / -(-product.rows // pes)  # all rows take as long
    ready = [((4 * unit + 3) // pes + 1) * row_cycles for unit in range(product.units)]
    clock = done = 0
    while done < product.units:
        # Units of a group leave when the group ends, and are taken in the cycles after it.
        done += min(per_cycle, sum(moment <= clock for moment in ready) - done)
        clock += 1
    return clock + latency


@given(
    units=st.sampled_from([2, 4, 6, 10, 16]),
    pes=st.integers(1, 70),
    kept=st.integers(1, 3),
    per_cycle=st.integers(1, 9),
    latency=st.integers(0, 5),
)
@settings(deadline=None)
def test_what_is_left_of_the_element_wise_part_is_what_a_queue_of_units_leaves(
    make, units, pes, kept, per_cycle, latency
):
    product = lstm(make, units, 6, kept, 1)
    run = Bank().simulate(product, EngineShape((("pes", pes), ("lanes", 4)), 4 * pes), Conditions())
    numerics = Numerics(conditions=Conditions(), elementwise_units=per_cycle, elementwise_latency=latency)
    found = run.issue_cycles + elementwise(product, run, numerics)
    ticked = updates_finish(product, run, pes, per_cycle, latency)

    assert found == ticked


def test_of_the_1500_unit_layer_one_cycle_is_left_or_the_backlog_of_too_few_units():
    # 81 PEs, 75 groups of 6 cycles; the six rows of the last group belong to two units.
    run = Run(parts={"compute": Fraction(450)}, last=Fraction(6), last_rows=6000 - 74 * 81)
    product = next(each for each in engine_products(rows=6000, cols=16) if each.layer == "lstm")
    quick, slow = (Numerics(conditions=Conditions(), elementwise_units=each, elementwise_latency=0) for each in (4, 1))

    assert elementwise(product, run, quick) == 1
    assert elementwise(product, run, slow) == 1500 - 450 + 6


def test_a_product_without_units_has_no_element_wise_part(make):
    product = make.dense_product(8, 8)
    engine = DenseMvm()
    run = engine.simulate(product, engine.fixed_shape([product], 8), Conditions())

    assert elementwise(product, run, Numerics(conditions=Conditions())) == 0


# --- one step of a layer ----------------------------------------------------------------------------------------------


def steady_period(t_x, t_h, wait, *, known_ahead, steps=40):
    """Cycles per step once it has settled: one engine, W_h of a step needs the output of the step before."""
    engine = output = Fraction(0)
    ends = []
    for _ in range(steps):
        if known_ahead:
            engine = max(engine + t_x, output) + t_h  # W_x fills the wait for the output
        else:
            engine = max(engine, output) + t_x + t_h
        output = engine + wait
        ends.append(output)
    return ends[-1] - ends[-2]


def step_options():
    return {
        "units": st.sampled_from([2, 4, 8, 12]),
        "inputs": st.sampled_from([2, 8, 40]),
        "kept": st.integers(1, 2),
        "pes": st.integers(1, 50),
        "per_cycle": st.integers(1, 16),
        "latency": st.integers(0, 60),
    }


@given(**step_options())
@settings(max_examples=60, deadline=None)
def test_a_closed_loop_takes_both_products_and_the_whole_wait(make, units, inputs, kept, pes, per_cycle, latency):
    product = lstm(make, units, inputs, min(kept, inputs // 2), min(kept, units // 2))
    engine = Bank(pes=pes, lanes=2)
    options = {"elementwise_units": per_cycle, "elementwise_latency": latency}
    (layer,) = on(engine, product, **options).layers
    run = layer.run
    wait = run.parts["fill_drain"] + elementwise(product, run, Numerics(conditions=Conditions(), **options))
    t_h = engine.simulate(recurrent(product), engine.fixed_shape([product], 64), Conditions()).issue_cycles

    assert layer.cycles == steady_period(run.issue_cycles - t_h, t_h, wait, known_ahead=False)


@given(**step_options())
@settings(max_examples=60, deadline=None)
def test_inputs_known_ahead_fill_the_wait_with_the_next_step(make, units, inputs, kept, pes, per_cycle, latency):
    product = lstm(make, units, inputs, min(kept, inputs // 2), min(kept, units // 2))
    engine = Bank(pes=pes, lanes=2)
    options = {"elementwise_units": per_cycle, "elementwise_latency": latency}
    (layer,) = on(engine, product, inputs="known_ahead", **options).layers
    waiting = engine.simulate(recurrent(product), engine.fixed_shape([product], 64), Conditions())
    own = elementwise(recurrent(product), waiting, Numerics(conditions=Conditions(), **options))
    wait = waiting.parts["fill_drain"] + own
    t_x = layer.run.issue_cycles - waiting.issue_cycles

    assert layer.cycles == steady_period(t_x, waiting.issue_cycles, wait, known_ahead=True)
    assert layer.cycles <= on(engine, product, **options).cycles


def test_sums_of_inputs_known_ahead_are_stored(make):
    product = lstm(make, 8, 8, 1, 1)
    closed, ahead = (on(Bank(pes=4, lanes=2), product, inputs=inputs) for inputs in ("closed_loop", "known_ahead"))

    assert ahead.memory.placement.of("accumulators") == closed.memory.placement.of("accumulators") + 13
    # 32 sums of 32 bits for 16 units at once: one RAM of 512 bits, two words deep; M20K are at most 40 bits wide.


@pytest.mark.parametrize(("gates", "memories"), [(4, 2), (3, 1)])
def test_an_lstm_keeps_a_state_beside_its_output_and_a_gru_does_not(make, gates, memories):
    product = make.dense_product(gates * 16, 24, units=16)
    found = on(DenseMvm(pes=4, lanes=4), product)

    assert found.memory.placement.of("state") == memories * 7  # 256 bits wide, in M20K of 40 bits
    assert found.layers[0].parts["elementwise"] == elementwise(
        product, found.layers[0].run, Numerics(conditions=Conditions())
    )


# --- convolutions -----------------------------------------------------------------------------------------------------


def entered_words(convolution, copies, layout):
    """The most words that enter one copy's window from one position to the next, by enumeration."""
    (height, width), stride = convolution.kernel, convolution.stride
    step = stride if layout == "strips" else copies * stride

    def window(position):
        columns = range(position * step, position * step + width)
        return set(tuples(range(convolution.inputs), range(height), columns))

    return len(window(1) - window(0))


conv_shapes = st.builds(
    Convolution,
    inputs=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 5),
    output=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)


@given(
    convolution=conv_shapes,
    copies=st.integers(1, 5),
    layout=st.sampled_from(["strips", "neighbours"]),
    load=st.integers(1, 20),
    pes=st.integers(1, 4),
)
@settings(deadline=None)
def test_a_convolution_waits_for_the_words_that_enter_its_window(make, convolution, copies, layout, load, pes):
    (height, width), (down, across) = convolution.kernel, convolution.output
    cols = convolution.inputs * height * width
    product = make.dense_product(4, cols, pixels=down * across, convolution=convolution)
    engine = DenseMvm(pes=pes, lanes=2)
    (layer,) = on(engine, product, pixel_copies=copies, copy_layout=layout, load_words=load).layers
    each = max(-(-4 // pes) * -(-cols // 2), -(-entered_words(convolution, copies, layout) // load))

    assert layer.cycles == -(-down * across // copies) * each + layer.run.parts["fill_drain"]


def test_copies_multiply_the_multipliers_and_the_vectors_and_share_the_weights(make):
    product = make.dense_product(16, 18, pixels=12, convolution=Convolution(2, (3, 3), 1, (3, 4)))
    engine = DenseMvm(pes=4, lanes=3)
    one, three = (on(engine, product, vector_memory="block", pixel_copies=copies) for copies in (1, 3))

    assert (one.multipliers, three.multipliers) == (12, 36)
    assert three.dsp == 3 * one.dsp
    assert three.memory.placement.of("vector") == 3 * one.memory.placement.of("vector")
    assert three.memory.placement.of("weights") == one.memory.placement.of("weights")


# --- memory -----------------------------------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_waited_for_as_far_as_their_product_does_not_hide_it(make):
    product = make.dense_product(3000, 1500)
    engine = DenseMvm(pes=8, lanes=8)
    hidden = on(engine, product, chip="xc7z020", speed=16.0)
    waiting = on(engine, product, chip="xc7z020", speed=16.0, overlap=False)
    (layer,) = hidden.layers
    needed = Fraction(layer.streamed * layer.run.stored_bits / 8 / 16).__ceil__()

    assert 0 < layer.streamed < 1 and not hidden.fits and not hidden.is_resident
    assert hidden.parts()["memory_stall"] == max(0, needed - layer.run.issue_cycles)
    assert waiting.parts()["memory_stall"] == needed
    assert all(usage.fits for usage in hidden.usage.values() if not usage.indicative)


def test_what_is_streamed_is_the_deepest_product_first(make):
    small, large = make.dense_product(64, 64), make.dense_product(3000, 1500)
    engine = DenseMvm(pes=8, lanes=8)
    shape = EngineShape((("pes", 8), ("lanes", 8)), 64)
    numerics = Numerics(conditions=Conditions(bytes_per_cycle=8.0))
    found = design(engine, shape, [small, large], engine.simulate, device("xc7z020"), numerics, Budget())

    assert [layer.streamed > 0 for layer in found.layers] == [False, True]


@pytest.mark.parametrize(("blocks", "fits"), [(None, True), (32, True), (31, False), (2, False)])
def test_a_budget_of_ram_blocks_is_a_ceiling_like_any_other(make, blocks, fits):
    product = make.dense_product(64, 64)  # 8 RAMs of 8 x 16 bits, 64 words deep: 4 blocks each
    engine = DenseMvm(pes=8, lanes=8)
    shape = EngineShape((("pes", 8), ("lanes", 8)), 64)
    numerics = Numerics(conditions=Conditions())
    found = design(engine, shape, [product], engine.simulate, device("xc7z020"), numerics, Budget(ram_blocks=blocks))

    assert found.fits == fits


@pytest.mark.parametrize("engine", [pytest.param(engine, id=engine.name) for engine in ENGINES])
def test_more_multipliers_never_take_fewer_resources(engine):
    numerics = Numerics(conditions=Conditions())
    for product in (each for each in engine_products() if engine().refusal(each) is None):
        found = []
        for budget in (16, 64, 256):
            shape = engine().fixed_shape([product], budget)
            found.append(design(engine(), shape, [product], engine().expect, device("xcku060"), numerics, Budget()))
        found.sort(key=lambda each: each.multipliers)
        dsp = [each.dsp for each in found]
        luts = [each.logic.high.lut for each in found if each.logic is not None]

        assert dsp == sorted(dsp)
        assert luts == sorted(luts)


# --- overheads --------------------------------------------------------------------------------------------------------


def test_overheads_are_paid_per_item_per_product_and_per_step(make):
    product = lstm(make, 8, 8, 1, 1)
    plain = on(Bank(pes=4, lanes=2), product)
    cost = on(Bank(pes=4, lanes=2), product, launch_us=0.5, layer_us=0.1, write_back_cycles=7)  # at 200 MHz

    assert cost.parts()["launch"] == 100
    assert cost.parts()["layer_overhead"] == 20
    assert cost.parts()["write_back"] == 7
    assert cost.cycles == plain.cycles + 127


def test_the_launch_is_paid_once_however_many_products_there_are(make):
    products = [make.dense_product(8, 8), make.dense_product(8, 4)]
    engine = DenseMvm(pes=2, lanes=2)
    numerics = Numerics(conditions=Conditions(), launch_us=1.0, layer_us=0.5)
    shape = EngineShape((("pes", 2), ("lanes", 2)), 4)
    found = design(engine, shape, products, engine.simulate, device("xcku060"), numerics, Budget())

    assert found.parts()["launch"] == 200
    assert found.parts()["layer_overhead"] == 2 * 100
    assert found.cycles == 4 * (4 + 2) + 2 * 5 + 400


@given(floor_us=st.floats(0, 3))
@settings(max_examples=30, deadline=None)
def test_a_recurrent_step_is_never_shorter_than_its_chain(make, floor_us):
    product = lstm(make, 8, 8, 2, 2)
    plain, floored = (on(Bank(pes=4, lanes=2), product, chain_us=floor) for floor in (0.0, floor_us))
    floor = Numerics(conditions=Conditions()).cycles(floor_us)

    assert floored.cycles == max(plain.cycles, floor)
    assert floored.parts().get("chain_stall", 0) == max(0, floor - plain.cycles)


def test_a_layer_without_recurrence_has_no_chain(make):
    product = make.dense_product(8, 8)

    assert on(DenseMvm(pes=2, lanes=2), product, chain_us=9.0).cycles == on(DenseMvm(pes=2, lanes=2), product).cycles


def test_parts_of_a_design_are_exact_fractions_that_sum_to_its_cycles(make):
    product = lstm(make, 6, 8, 3, 1)
    found = on(Bank(pes=7, lanes=3), product, launch_us=0.3, chain_us=2.5)

    assert sum(found.parts().values()) == found.cycles
    assert found.cycles == sum(layer.cycles for layer in found.layers) + found.launch
    assert all(isinstance(cycles, Fraction) for cycles in found.parts().values())


def test_another_clock_changes_microseconds_into_other_cycles():
    slow = Numerics(conditions=Conditions(clock_mhz=100.0))
    fast = slow.model_copy(update={"conditions": replace(slow.conditions, clock_mhz=250.0)})

    assert (slow.cycles(1.5), fast.cycles(1.5)) == (150, 375)
    assert slow.cycles(0.001) == 1  # a cycle that has begun counts
