"""The weight-broadcast engine against a machine that ticks, hand-worked cases and laws."""

from fractions import Fraction

import numpy as np
import pytest
from harness_plugins.hardware._design.design import design
from harness_plugins.hardware._design.numerics import Budget, Numerics
from harness_plugins.hardware._devices import device
from harness_plugins.hardware.engines.weight_broadcast import WeightBroadcast
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Conditions, Convolution, EngineShape, Part, Product

CONDITIONS = Conditions(weight_bits=8, activation_bits=8)
SIZES = st.integers(1, 5)


def shape_of(filters, splits, pixels):
    sizes = (("filters", filters), ("splits", splits), ("pixels", pixels))
    return EngineShape(sizes, filters * splits * pixels)


@st.composite
def convolutions(draw):
    """A small convolution with a random mask; groups now and then."""
    groups, inputs, outputs = draw(st.sampled_from([1, 1, 2])), draw(SIZES), draw(SIZES)
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    output = draw(st.tuples(st.integers(1, 4), st.integers(1, 9)))
    seed, density = draw(st.integers(0, 999)), draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
    mask = np.random.default_rng(seed).random((groups * outputs, inputs * kernel[0] * kernel[1])) < density
    stride = draw(st.integers(1, 3))
    geometry = Convolution(groups * inputs, kernel, stride, output, groups=groups)
    part = Part("kernel", *mask.shape, mask, int(mask.sum()))
    return Product("layer", (part,), pixels=geometry.positions, convolution=geometry)


def ticked(product, filters, splits, pixels):
    """Cycles of a machine with queues of weights: a split takes one per cycle, a filter waits for all of its splits."""
    geometry = product.convolution
    taps = geometry.kernel[0] * geometry.kernel[1]
    channels = np.array_split(np.arange(product.cols // taps), splits)
    columns = [[c * taps + t for c in each for t in range(taps)] for each in channels]
    incoming = max(map(len, channels)) * geometry.groups * geometry.stride
    clock = multiplied = 0
    for _ in range(geometry.output[0]):
        for left in range(0, geometry.output[1], pixels):
            queues = [
                [[int(product.mask[row, cols].sum()) for cols in columns] for row in range(f, product.rows, filters)]
                for f in range(filters)
            ]
            writing = incoming
            while any(queues) or writing:
                clock += 1
                writing = max(0, writing - 1)
                for rows in queues:
                    if not rows:
                        continue
                    taken = sum(left > 0 for left in rows[0])
                    multiplied += taken * min(pixels, geometry.output[1] - left)
                    rows[0] = [max(0, count - 1) for count in rows[0]]
                    if not any(rows[0]):
                        rows.pop(0)
    return clock, multiplied


@given(product=convolutions(), filters=SIZES, splits=SIZES, pixels=SIZES)
def test_it_takes_as_long_as_a_machine_that_ticks(product, filters, splits, pixels):
    clock, multiplied = ticked(product, filters, splits, pixels)
    run = WeightBroadcast().simulate(product, shape_of(filters, splits, pixels), CONDITIONS)

    assert run.issue_cycles == clock
    assert multiplied == product.nnz * product.pixels == run.parts["compute"] * filters * splits * pixels
    assert all(cycles >= 0 for cycles in run.parts.values())
    assert run.busy.max() <= run.issue_cycles


@given(product=convolutions(), filters=SIZES, splits=SIZES, pixels=SIZES)
def test_every_memory_holds_its_weights_and_none_is_deeper_than_its_filter_is_busy(product, filters, splits, pixels):
    run = WeightBroadcast().simulate(product, shape_of(filters, splits, pixels), CONDITIONS)
    weights, lines = run.rams

    assert weights.depth * weights.count >= run.stored_words >= product.nnz
    assert run.stored_bits == run.stored_words * weights.width
    once = -(-product.convolution.output[1] // pixels) * product.convolution.output[0]
    assert weights.depth <= max(1, run.busy.max() // once)
    # A channel's lines under the window lie in the buffer of its split, once for every filter.
    assert lines.depth * lines.count * lines.width >= (
        filters * product.convolution.inputs * product.convolution.window[0] * 8
    )


@given(product=convolutions(), filters=SIZES, splits=SIZES, pixels=SIZES, place=st.integers(0, 10**6))
def test_one_weight_more_is_never_faster(product, filters, splits, pixels, place):
    more = product.mask.copy()
    more.flat[place % more.size] = True
    fuller = Product("layer", (Part("kernel", *more.shape, more, int(more.sum())),), None, product.pixels,
                     product.convolution)  # fmt: skip
    shape = shape_of(filters, splits, pixels)
    few, many = (WeightBroadcast().simulate(each, shape, CONDITIONS) for each in (product, fuller))

    assert few.cycles <= many.cycles


@given(product=convolutions(), filters=SIZES, splits=SIZES, pixels=SIZES)
def test_more_outputs_at_once_are_never_slower(product, filters, splits, pixels):
    one, more = (
        WeightBroadcast().simulate(product, shape_of(filters, splits, wide), CONDITIONS)
        for wide in (pixels, pixels + 1)
    )

    assert more.cycles <= one.cycles


@given(product=convolutions(), filters=SIZES, splits=SIZES, pixels=SIZES)
def test_the_bound_of_a_search_is_one(product, filters, splits, pixels):
    shape = shape_of(filters, splits, pixels)

    assert (
        WeightBroadcast().least_cycles(product, shape) <= WeightBroadcast().simulate(product, shape, CONDITIONS).cycles
    )


def test_six_rows_of_two_splits_worked_by_hand():
    mask = np.zeros((3, 8), bool)
    mask[0, :3] = True  # three weights in the first split, none in the second
    mask[1, 4:6] = True
    mask[2] = True
    geometry = Convolution(4, (1, 2), 1, (2, 5))
    product = Product("layer", (Part("kernel", 3, 8, mask, 13),), pixels=10, convolution=geometry)
    run = WeightBroadcast().simulate(product, shape_of(2, 2, 4), CONDITIONS)

    # Rows take 3, 2 and 4 cycles; the first and the third are on one filter; two passes for each of two lines.
    assert run.issue_cycles == 4 * (3 + 4)
    assert run.parts["compute"] == Fraction(13 * 10, 16)
    assert run.parts["fill_drain"] == 1 + 4
    weights, lines = run.rams
    assert (weights.width, weights.depth, weights.count) == (8 + 2 + 1, 3 + 4, 4)
    assert (lines.width, lines.depth, lines.count) == (8 * (3 + 2), 2 * 2 * 2, 4)
    assert (run.last, run.last_rows) == (4, 1)
    assert run.stored_words == 13 + 2  # an empty split of a row holds a word that ends it, twice


def test_a_filter_waits_until_the_lines_have_come_in():
    mask = np.zeros((1, 64), bool)
    mask[0, 0] = True
    product = Product(
        "layer", (Part("kernel", 1, 64, mask, 1),), pixels=8, convolution=Convolution(64, (1, 1), 1, (2, 4))
    )
    run = WeightBroadcast().simulate(product, shape_of(1, 2, 4), CONDITIONS)

    assert run.issue_cycles == 2 * 32  # 32 channels of a split come in for every line
    assert run.parts["feed_stall"] == 2 * 31


def convolution_of(mask):
    part = Part("kernel", *mask.shape, mask, int(mask.sum()))
    return Product("layer", (part,), pixels=24, convolution=Convolution(6, (3, 3), 1, (4, 6)))


@pytest.mark.parametrize(("rows", "kept"), [(8, 60), (20, 300), (40, 1900)])
@pytest.mark.parametrize(("filters", "splits"), [(1, 1), (1, 4), (3, 2), (5, 6)])
def test_the_expectation_is_the_mean_of_random_masks(rows, kept, filters, splits):
    rng = np.random.default_rng([rows, filters, splits])
    masks = [(rng.permutation(rows * 54) < kept).reshape(rows, 54) for _ in range(40)]
    told = Product("layer", (Part("kernel", rows, 54, None, kept),), pixels=24,
                   convolution=Convolution(6, (3, 3), 1, (4, 6)))  # fmt: skip
    shape, engine = shape_of(filters, splits, 3), WeightBroadcast()
    runs = [engine.simulate(convolution_of(mask), shape, CONDITIONS) for mask in masks]
    expected = engine.expect(told, shape, CONDITIONS)

    assert float(expected.cycles) == pytest.approx(np.mean([float(run.cycles) for run in runs]), rel=0.05)
    assert float(expected.stored_words) == pytest.approx(np.mean([float(run.stored_words) for run in runs]), rel=0.05)


def test_pairs_of_outputs_share_the_weight_that_an_8_bit_dsp_block_multiplies_them_with():
    product = Product(
        "layer", (Part("kernel", 8, 36, None, 288),), pixels=64, convolution=Convolution(4, (3, 3), 1, (8, 8))
    )
    chip, numerics = device("xcu280"), Numerics(conditions=CONDITIONS)
    engine = WeightBroadcast()
    even, odd = (
        design(engine, shape_of(1, 2, pixels), [product], engine.expect, chip, numerics, Budget()).dsp
        for pixels in (4, 7)
    )

    assert (even, odd) == (4, 14)


def test_recurrent_layers_are_refused(make):
    assert "has one" in WeightBroadcast().refusal(make.dense_product(16, 8, units=4))
