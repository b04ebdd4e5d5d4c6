"""Weights that are streamed: pieces and bursts, and a buffer that is filled ahead, against a simulation."""

from fractions import Fraction

import numpy as np
import pytest
from harness_plugins.hardware._design.bursts import Bursts, reading_share
from harness_plugins.hardware._design.streaming import Demand, stalls
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import Run
from harness.discovery.finding import discover

REGISTRY = discover()

layers = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 12), st.integers(0, 8)).map(lambda each: Demand(*each, 4)),
    min_size=1,
    max_size=4,
)


def ticked(demands, room, overlap, items=60, steps=8):
    """Waits of the last item, ticking in small steps; the memory fills the buffer whenever it has room."""
    level, waits = 0.0, []
    for _ in range(items):
        waits = []
        for each in demands:
            step, wait = each.bits_per_cycle / steps, 0
            if each.bits and not overlap:
                while level < each.bits - 1e-9:  # what is missing comes past the buffer
                    level, wait = level + step, wait + 1
                level -= each.bits
            left = each.bits if overlap else 0.0
            for tick in range(int(each.computing * steps)):
                rate = left / (each.computing * steps - tick)
                while level + step < rate - 1e-9:  # the datapath stands still until its words are there
                    level, wait = level + step, wait + 1
                # What a step brings beyond what is used is not lost, however small the buffer is.
                level = min(room + step, level + step - rate)
                left -= rate
            level = min(room, level + each.rest * each.bits_per_cycle)
            waits.append(wait / steps)
    return waits


@given(demands=layers, room=st.integers(0, 80), overlap=st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_buffer_hides_what_a_simulation_says(demands, room, overlap):
    found, simulated = stalls(demands, room, overlap=overlap), ticked(demands, room, overlap)

    for mine, wanted in zip(found, simulated, strict=True):
        assert mine == pytest.approx(wanted, abs=0.5)


@given(demands=layers, small=st.integers(0, 80), large=st.integers(0, 80), overlap=st.booleans())
@settings(deadline=None)
def test_a_larger_buffer_never_waits_longer_and_no_buffer_beats_the_memory(demands, small, large, overlap):
    small, large = sorted((small, large))
    less, more = (sum(stalls(demands, room, overlap=overlap)) for room in (small, large))
    busy = sum(each.computing + each.rest for each in demands)
    reading = sum(each.bits / each.bits_per_cycle for each in demands)

    assert more <= less + 1e-9
    assert busy + more >= reading - 1e-6


def test_a_buffer_as_large_as_all_weights_leaves_what_the_memory_needs_beyond_computing():
    demands = [Demand(100, 5, 0, 4), Demand(0, 30, 0, 4), Demand(60, 3, 0, 4)]

    assert sum(stalls(demands, 0, overlap=True)) == (100 / 4 - 5) + (60 / 4 - 3)
    assert sum(stalls(demands, 1000, overlap=True)) == pytest.approx(max(0, 160 / 4 - 38))


@given(piece=st.floats(1, 5000), size=st.sampled_from([32, 64]), jump=st.integers(0, 100))
def test_pieces_are_read_in_whole_bursts_and_long_ones_nearly_at_full_speed(piece, size, jump):
    bursts = Bursts(size=size, jump=jump)

    assert 0 < bursts.share(piece) <= 1
    assert bursts.share(size) == pytest.approx(size / (size + jump))
    assert bursts.share(1000 * size) > 0.89


def test_the_layout_decides_the_pieces():
    run = Run(parts={}, stored_bits=Fraction(8 * 6400), stored_words=Fraction(3200))
    bursts = Bursts(size=64, jump=64)

    assert reading_share(run, 10, "in_order", bursts) == 1
    assert reading_share(run, 10, "rows", bursts) == pytest.approx(640 / (640 + 64))
    assert reading_share(run, 10, "values", bursts) == pytest.approx(2 / 128)
    assert reading_share(run, 10, "values", None) == 1


def cost(workload, **parameters):
    entry = {"name": "cycle_simulator", "engine": {"name": "bank", "pes": 8, "lanes": 4}, "device": "xc7z020"}
    return REGISTRY.create("hardware", {**entry, "ram_blocks": 24, "multipliers": 32, **parameters}).cost(workload)


@pytest.fixture(scope="module")
def large(make):
    """A layer that finds no room in 24 RAM blocks, behind one that does."""
    return make.lstm_workload(128, lambda rows, cols: np.random.default_rng(0).random((rows, cols)) < 0.4, layers=2)


def test_a_prefetch_buffer_shortens_a_step_and_takes_blocks(large):
    bare, ahead = cost(large), cost(large, prefetch_kib=4)

    assert bare.details["parts"]["memory_stall"] > ahead.details["parts"]["memory_stall"]
    assert ahead.details["ram"]["bram_18k"].get("fifo", 0) > 0
    assert ahead.cycles < bare.cycles


def test_weights_that_lie_apart_are_waited_for_longer(large):
    stalls_of = [
        cost(large, weight_layout=each).details["parts"]["memory_stall"] for each in ("in_order", "rows", "values")
    ]

    assert stalls_of == sorted(stalls_of)
    assert stalls_of[0] < stalls_of[1] < stalls_of[2]


def test_where_everything_is_on_chip_neither_changes_anything(make):
    workload = make.matrix_workload(np.random.default_rng(0).random((24, 40)) < 0.3)
    plain, other = cost(workload), cost(workload, prefetch_kib=4, weight_layout="values")

    assert (plain.cycles, plain.ram_blocks) == (other.cycles, other.ram_blocks)
