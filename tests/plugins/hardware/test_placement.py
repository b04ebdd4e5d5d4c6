from pathlib import Path

import numpy as np
import pytest
from harness_plugins.hardware._design.placement import deepest, place
from harness_plugins.hardware._devices import device, load_device
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import Ram

memories = st.builds(
    Ram,
    purpose=st.sampled_from(["weights", "pointers", "accumulators", "vector", "fifo"]),
    width=st.integers(1, 1200),
    depth=st.integers(1, 6000),
    count=st.integers(1, 400),
    small=st.booleans(),
)
targets = st.sampled_from(["arria10_gx1150", "stratix10_gx2800", "xc7z020", "alveo_u280", "xcu250"])


def flagship(pes, lanes=50, layers=2):
    """Two LSTM layers of 1500 units at 90 %: [W_x | W_h] of 6000 x 3000, 100 banks of 30 with 3 kept, 21 bits each."""
    words = -(-6000 // pes) * (100 // lanes) * 3 * layers
    state = [Ram("accumulators", 16 * 16, -(-1500 // 16), 2 * layers)]
    vectors = Ram("vector", 16, 2 * (100 // lanes) * 30, pes * lanes, small=True)
    return [Ram("weights", lanes * (16 + 5), words, pes, stacked=True), vectors, *state]


def test_small_memories_go_to_distributed_ram_and_the_others_to_blocks():
    placed = place([Ram("weights", 40, 512, 3), Ram("vector", 16, 32, 10, small=True)], device("arria10_gx1150"))

    assert placed.blocks == {"m20k": {"weights": 3}}
    assert placed.distributed == {"vector": 10}
    assert placed.usage["mlab"].used == 10 and placed.fits


def test_small_memories_take_blocks_where_there_is_no_distributed_ram():
    placed = place([Ram("vector", 16, 32, 10, small=True)], device("stratix10_gx2800"))

    assert placed.blocks == {"m20k_stratix10": {"vector": 10}}
    assert placed.distributed == {}


def test_distributed_ram_is_filled_up_to_its_ceiling_and_the_rest_takes_blocks():
    placed = place([Ram("vector", 16, 32, 10_000, small=True)], device("arria10_gx1150"))

    assert placed.distributed == {"vector": 9921}  # half of 19,843
    assert placed.blocks["m20k"] == {"vector": 79}
    assert placed.fits


def test_the_small_memories_that_save_most_blocks_are_the_first_in_distributed_ram():
    deep, shallow = Ram("accumulators", 20, 512, 600, small=True), Ram("fifo", 20, 8, 9000, small=True)

    placed = place([deep, shallow], device("arria10_gx1150"))

    assert placed.distributed == {"fifo": 9000, "accumulators": 16 * 57}


@pytest.mark.parametrize(("small", "distributed", "blocks"), [("distributed", 12_000, 0), ("block", 0, 12_000)])
def test_what_small_memories_are_made_of_can_be_asked_for_even_if_it_does_not_fit(small, distributed, blocks):
    placed = place([Ram("vector", 16, 32, 12_000, small=True)], device("arria10_gx1150"), small=small)

    assert (placed.distributed.get("vector", 0), placed.of("vector")) == (distributed, blocks)
    assert not placed.fits


def test_ultra_ram_stays_empty_while_block_ram_suffices():
    placed = place([Ram("weights", 72, 4096, 100)], device("alveo_u280"))

    assert placed.blocks == {"bram_18k": {"weights": 1600}, "uram": {}}
    assert placed.notes == ()


def test_as_many_copies_as_must_move_to_ultra_ram_and_a_note_says_so():
    placed = place([Ram("weights", 72, 4096, 200)], device("alveo_u280"))

    assert placed.blocks == {"bram_18k": {"weights": 175 * 16}, "uram": {"weights": 25}}  # 2,803 under the ceiling
    assert placed.notes == (
        "25 of 200 weights memories lie in uram: bram_18k has 2803 blocks left for the 3200 needed",
    )


def test_wide_deep_memories_move_before_narrow_ones():
    wide, narrow = Ram("weights", 72, 4096, 100), Ram("pointers", 9, 2048, 1500)

    placed = place([narrow, wide], device("alveo_u280"))

    assert placed.blocks["uram"] == {"weights": 19}
    assert placed.fits


def test_what_is_over_the_ceilings_does_not_fit_and_is_still_counted():
    placed = place([Ram("weights", 40, 512, 2171)], device("arria10_gx1150"))

    assert not placed.fits
    assert placed.usage["m20k"].used == placed.taken == 2171
    assert placed.free == {"m20k": 0}


def test_memories_without_a_bit_take_nothing():
    empty = [Ram("weights", 21, 0, 64), Ram("vector", 16, 30, 0, small=True), Ram("fifo", 0, 8, 4, small=True)]

    assert place(empty, device("alveo_u280")).taken == 0


def test_a_budget_of_blocks_limits_the_preferred_kind():
    placed = place([Ram("weights", 72, 4096, 100)], device("alveo_u280"), ram_blocks=160)

    assert placed.blocks == {"bram_18k": {"weights": 160}, "uram": {"weights": 90}}
    assert place([Ram("weights", 40, 512, 11)], device("arria10_gx1150"), ram_blocks=10).fits is False


def test_memories_placed_beside_others_leave_those_where_they_are():
    target = device("alveo_u280")
    first = place([Ram("accumulators", 256, 94, 4), Ram("vector", 16, 120, 3200, small=True)], target)

    both = place([Ram("weights", 1050, 1128, 64)], target, beside=first)

    assert both.blocks["bram_18k"]["accumulators"] == first.blocks["bram_18k"]["accumulators"]
    assert both.distributed == first.distributed
    assert both.fits and both.of("weights") == 30 * 90 + 34 * 15


@settings(max_examples=60, deadline=None)
@given(rams=st.lists(memories, max_size=5), name=targets)
def test_every_copy_of_every_memory_has_a_place_and_only_what_overflows_exceeds_a_ceiling(rams, name):
    target = device(name)

    placed = place(rams, target)

    for kind, usage in placed.usage.items():
        purposes = placed.blocks.get(kind, placed.distributed)
        assert usage.used == sum(purposes.values())
    assert placed.fits == all(usage.fits for usage in placed.usage.values())
    others = [usage for kind, usage in placed.usage.items() if kind != target.entry.ram.kind]
    assert all(usage.fits for usage in others)  # what is too much lies in the preferred kind, and is seen there
    least = sum(ram.count for ram in rams if not ram.small)
    assert placed.taken >= least


@settings(max_examples=60, deadline=None)
@given(ram=memories, more=st.integers(1, 50), name=targets)
def test_more_copies_never_take_fewer_blocks_or_less_distributed_ram(ram, more, name):
    few = place([ram], device(name))
    many = place([Ram(ram.purpose, ram.width, ram.depth, ram.count + more, small=ram.small)], device(name))

    assert many.taken >= few.taken
    assert sum(many.distributed.values()) >= sum(few.distributed.values())


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 1500), count=st.integers(1, 300), name=targets, others=st.lists(memories, max_size=3))
def test_the_deepest_memories_fit_and_one_word_more_does_not(width, count, name, others):
    target = device(name)
    beside = place(others, target)
    if not beside.fits:
        return

    depth = deepest(width, count, beside.free, target)

    assert place([Ram("weights", width, depth, count)], target, beside=beside).fits
    assert not place([Ram("weights", width, depth + 1, count)], target, beside=beside).fits


@pytest.mark.parametrize(
    ("name", "pes"),
    [("stratix10_gx2800", 64), ("stratix10_gx2800", 80), ("alveo_u280", 64), ("alveo_u280", 90), ("alveo_u250", 120)],
)
def test_the_flagship_configuration_really_fits_on_large_devices(name, pes):
    target = device(name)

    placed = place(flagship(pes), target)

    assert placed.fits
    assert pes * 50 + 3 * 16 <= target.most_multipliers(16)


def test_the_flagship_configuration_fits_the_example_of_an_own_device():
    own = load_device(Path(__file__).parents[3] / "examples" / "devices" / "small_card.yaml")

    assert place(flagship(64), own).fits
    assert 64 * 50 + 3 * 16 <= own.most_multipliers(16)


def test_one_layer_of_the_flagship_fits_arria_10_only_as_40_by_50():
    """The table of designs of one 1500-unit layer: 64 x 50 needs 3,392 M20K, 40 x 50 needs 2,120 of 2,170."""
    target = device("arria10_gx1150")
    found = {pes: place([flagship(pes, layers=1)[0]], target) for pes in (40, 64)}

    assert found[40].of("weights") == 40 * 53 and found[40].fits
    assert found[64].of("weights") == 64 * 53 and not found[64].fits
    assert place(flagship(40, layers=1)[:2], target).distributed == {"vector": 8000}  # 4,000, double-buffered


def test_the_whole_650_unit_lstm_fits_arria_10_as_60_by_26():
    depth = 2 * -(-2600 // 60) * 5

    placed = place([Ram("weights", 26 * 22, depth, 60)], device("arria10_gx1150"))

    assert placed.of("weights") == 900


def test_the_vectors_of_64_by_64_lanes_are_more_than_arria_10_has_blocks():
    vectors = Ram("vector", 16, 60, 64 * 64, small=True)

    assert not place([vectors], device("arria10_gx1150"), small="block").fits
    assert place([vectors], device("arria10_gx1150")).distributed == {"vector": 8192}


def test_placing_does_not_depend_on_the_order_of_the_memories():
    rams = flagship(64)
    rng = np.random.default_rng(0)

    found = {
        str(sorted(place([rams[i] for i in rng.permutation(3)], device("alveo_u280")).usage.items())) for _ in range(6)
    }

    assert len(found) == 1
