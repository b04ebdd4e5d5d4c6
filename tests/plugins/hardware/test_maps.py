"""Feature maps and line buffers: what they hold by brute force, and where they lie."""

from dataclasses import replace

import numpy as np
import pytest
from harness_plugins.hardware._design.design import design
from harness_plugins.hardware._design.maps import line_buffers, map_memories, map_words
from harness_plugins.hardware._design.numerics import Budget, Numerics
from harness_plugins.hardware._design.traffic import vector_shortage
from harness_plugins.hardware._devices import device
from harness_plugins.hardware.engines.bank import Bank
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Conditions, Convolution, Part, Product

SMALL = st.integers(1, 4)


@st.composite
def geometries(draw):
    kernel, dilation = (draw(st.tuples(SMALL, SMALL)) for _ in range(2))
    return Convolution(draw(SMALL), kernel, draw(st.integers(1, 3)), draw(st.tuples(SMALL, SMALL)), dilation=dilation)


def convolution(geometry, rows=3, kept=None):
    cols = geometry.inputs // geometry.groups * geometry.kernel[0] * geometry.kernel[1]
    part = Part("kernel", rows, cols, None, rows * cols if kept is None else kept)
    return Product("layer", (part,), pixels=geometry.positions, convolution=geometry)


def seen(geometry):
    """Every (line, column) that some output sees, by walking over all outputs and taps."""
    down, across = geometry.strides
    return {
        (y * down + i * geometry.dilation[0], x * across + j * geometry.dilation[1])
        for y in range(geometry.output[0]) for x in range(geometry.output[1])
        for i in range(geometry.kernel[0]) for j in range(geometry.kernel[1])
    }  # fmt: skip


@given(geometries())
def test_an_image_is_as_large_as_what_all_outputs_see(geometry):
    places = seen(geometry)

    assert geometry.read == (max(y for y, _ in places) + 1, max(x for _, x in places) + 1)
    assert replace(geometry, image=(40, 50)).read == (40, 50)


@given(geometries(), st.integers(1, 7))
def test_a_line_buffer_holds_the_lines_that_one_line_of_outputs_sees(geometry, words):
    one_line = seen(replace(geometry, output=(1, geometry.output[1])))
    lines = {y for y, _ in one_line}
    buffers = line_buffers([convolution(geometry)], Numerics(conditions=Conditions(), load_words=words), 1)
    if geometry.window[0] == 1:
        assert buffers == []
        return
    (ram,) = buffers

    held = geometry.inputs * (max(lines) + 1) * geometry.read[1]
    assert held <= ram.depth * words < held + words
    assert (ram.width, ram.count) == (16 * words, 1)


@given(geometries(), st.integers(2, 5))
def test_strips_hold_what_their_windows_see_and_neighbours_share_one_buffer(geometry, copies):
    strips = line_buffers([convolution(geometry)], Numerics(conditions=Conditions(), load_words=1), copies)
    shared = line_buffers(
        [convolution(geometry)], Numerics(conditions=Conditions(), load_words=1, copy_layout="neighbours"), copies
    )
    if not strips:
        return
    whole = line_buffers([convolution(geometry)], Numerics(conditions=Conditions(), load_words=1), 1)[0]

    assert strips[0].count == copies and shared == [whole]
    assert whole.depth <= strips[0].depth * copies and strips[0].depth <= whole.depth


@given(st.lists(st.tuples(geometries(), SMALL), min_size=1, max_size=5))
def test_layers_take_turns_between_two_memories_that_hold_their_largest_maps(layers):
    products = [convolution(geometry, rows) for geometry, rows in layers]
    memories = {"even": [0], "odd": [0]}
    for place, product in enumerate(products):
        read, write = ("even", "odd") if place % 2 == 0 else ("odd", "even")
        given_words, taken_words = map_words(product)
        memories[read].append(given_words)
        memories[write].append(taken_words)

    rams = map_memories(products, Numerics(conditions=Conditions(), load_words=1))

    assert [ram.depth for ram in rams] == [max(words) for words in memories.values() if max(words)]


def built(products, copies=1, **given):
    shape = Bank(pes=2, lanes=2).shapes(products, 4)[0]
    numerics = Numerics(conditions=Conditions(bytes_per_cycle=given.pop("speed", 1.0)), pixel_copies=copies)
    return design(Bank(), shape, products, Bank().expect, device("xc7z020"), numerics, Budget(**given))


LARGE = convolution(Convolution(64, (3, 3), 1, (112, 112), image=(112, 112)), rows=64, kept=1000)
FITTING = convolution(Convolution(4, (3, 3), 1, (14, 14), image=(14, 14)), rows=8)


def test_maps_that_fit_lie_on_chip_and_count_as_memory():
    found = built([FITTING])
    purposes = {purpose for taken in found.memory.placement.blocks.values() for purpose in taken}

    assert {"maps", "lines"} <= purposes
    assert not found.memory.streams_maps and found.streamed_bits == 0 and found.fits


def test_maps_that_do_not_fit_are_streamed_beside_the_product_and_its_weights_stay():
    found = built([LARGE])
    layer = found.layers[0]
    moved = 16 * 2 * 64 * 112 * 112

    assert found.memory.streams_maps and found.is_resident and found.fits
    assert found.streamed_bits == layer.map_bits == moved
    assert layer.parts["memory_stall"] == max(0, -(-moved // 8) - layer.run.issue_cycles * layer.repeats)
    # They are waited for: nobody has to be told that the memory is too slow for them.
    slow = Numerics(conditions=Conditions(bytes_per_cycle=0.01))
    assert vector_shortage(built([LARGE], speed=0.01), slow) is None
    assert vector_shortage(built([FITTING], speed=0.01), slow) is not None


@pytest.mark.parametrize(("slow", "fast"), [(0.01, 0.1), (0.1, 1.0), (1.0, 64.0)])
def test_a_faster_memory_never_waits_longer_for_maps(slow, fast):
    assert built([LARGE], speed=fast).cycles <= built([LARGE], speed=slow).cycles


def test_maps_off_chip_need_a_known_bandwidth():
    assert not built([LARGE], speed=None).fits


def test_products_without_images_have_neither_maps_nor_lines(make):
    assert map_memories([make.dense_product(4, 8)], Numerics(conditions=Conditions())) == []
    assert line_buffers([make.dense_product(4, 8, pixels=9)], Numerics(conditions=Conditions()), 2) == []
    assert np.prod(map_words(make.dense_product(4, 8))) == 0
