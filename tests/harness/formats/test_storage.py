"""Bits of every format, against cases worked by hand and the reference table."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.api import ShapeError, SpecError
from harness.formats import storage
from harness.formats.storage import (
    best,
    csb_bits,
    even_banks,
    padding_entries,
    sizes,
    split,
    uneven,
    whole_block,
)

MASKS = st.tuples(st.integers(1, 9), st.integers(1, 17)).flatmap(lambda shape: arrays(np.bool_, shape))


def table(mask, **options):
    return {size.name: size for size in sizes(mask, **options)}


def banked(rows, cols, banks, kept, seed=0):
    """A mask whose banks all keep equally many weights."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((rows, cols), dtype=bool)
    edges = [*split(cols, banks).tolist(), cols]
    for row in mask:
        for left, right in pairwise(edges):
            row[rng.choice(np.arange(left, right), kept, replace=False)] = True
    return mask


def exactly(sparsity, rows=6000, cols=1500):
    mask = np.zeros(rows * cols, dtype=bool)
    mask[: round(mask.size * (1 - sparsity))] = True
    return mask.reshape(rows, cols)


# Fraction of dense at 16 bits, 6000 x 1500; derived in the reference facts on patterns, section 7.
REFERENCE = {
    0.50: (1.001, 0.845, 0.563, 0.625, 0.656, 0.688),
    0.75: (0.501, 0.423, 0.313, 0.313, 0.328, 0.344),
    0.80: (0.401, 0.338, 0.263, 0.250, 0.263, 0.275),
    0.875: (0.251, 0.212, 0.188, 0.156, 0.164, 0.172),
    0.90: (0.201, 0.170, 0.163, 0.125, 0.131, 0.138),
    0.95: (0.101, 0.085, 0.113, 0.063, 0.066, 0.069),
}


@pytest.mark.parametrize("sparsity", REFERENCE)
def test_the_reference_table_comes_out(sparsity):
    mask = exactly(sparsity)
    found = table(mask)
    general = [found[name].fraction for name in ("csr16", "csr", "bitmap")]
    # The table takes counts as exact and banks as if they divided the width.
    banks = [csb_bits(int(mask.sum()), 16, bank) / (mask.size * 16) for bank in (16, 32, 64)]

    assert [*general, *banks] == pytest.approx(REFERENCE[sparsity], abs=0.00051)


@pytest.mark.parametrize(("bank", "index"), [(16, 4), (32, 5), (64, 6)])
def test_csb_of_a_real_mask_is_value_and_index_of_every_weight(bank, index):
    mask = banked(12, 3 * bank, 3, bank // 8)

    assert table(mask)["csb"].bits == mask.sum() * (16 + index)
    assert best(sizes(mask)).name == "csb"


def test_a_case_worked_by_hand():
    mask = np.array([[1, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]], dtype=bool)
    found = table(mask, weight_bits=8)

    assert found["dense"].bits == 12 * 8
    assert found["coo"].bits == 4 * (8 + 2 + 2)
    assert found["csr16"].bits == 4 * (8 + 16) + 4 * 32
    assert found["csr"].bits == 4 * (8 + 2) + 4 * 3
    assert found["bitmap"].bits == 12 + 4 * 8
    assert found["run_length"].bits == 4 * (8 + 4) + 5 * 3
    assert found["csb"].bits is None
    assert "rows keep 0 to 2" in found["csb"].reason


def test_two_of_four_is_csb_with_banks_of_four():
    mask = banked(8, 16, 4, 2)
    found = table(mask, banks=4)

    assert found["n_m"].detail == "2:4"
    assert found["n_m"].bits == found["csb"].bits == mask.sum() * 18


def test_groups_that_keep_fewer_are_padded():
    mask = banked(8, 16, 4, 1)
    mask[3, :4] = [True, True, False, False]
    found = table(mask, n_m=(2, 4))["n_m"]

    assert found.bits == 8 * 4 * 2 * (16 + 2)
    assert "slots are padding" in found.detail


def test_clusters_of_a_row_and_of_neighbouring_rows_share_an_index():
    clusters = banked(8, 16, 2, 3)
    along, across = np.repeat(clusters, 2, axis=1), np.repeat(clusters, 4, axis=0)

    assert table(along)["mcbbs"].bits == along.sum() * 16 + along.sum() // 2 * 3
    assert table(across)["sibbs"].bits == across.sum() * 16 + across.sum() // 4 * 3
    assert table(clusters)["mcbbs"].bits is None


def test_blocks_are_found_by_looking():
    tiles = np.random.default_rng(1).random((5, 7)) < 0.4
    tiles[0, :2], tiles[:2, 0] = [True, False], [True, False]
    mask = np.kron(tiles, np.ones((3, 4), dtype=bool)).astype(bool)
    count = int(tiles.sum())

    assert whole_block(mask) == (3, 4)
    assert table(mask)["block"].bits == count * (12 * 16 + 3) + 6 * count.bit_length()


@pytest.mark.parametrize("count", [3, 4])
def test_a_block_may_be_one_row_high_and_pointers_are_as_wide_as_their_largest(count):
    mask = np.zeros((4, 8), dtype=bool)
    for row in range(count):
        mask[row, :4] = True

    # A column of blocks is one of two; a pointer is one of 0 to `count`.
    assert table(mask, block=(1, 4))["block"].bits == count * (4 * 16 + 1) + 5 * {3: 2, 4: 3}[count]


def test_a_block_hint_pads_what_its_blocks_drop():
    mask = np.eye(4, dtype=bool)
    found = table(mask, block=(2, 2))["block"]

    assert found.bits == 2 * (4 * 16 + 1) + 3 * 2
    assert "4 of 8 slots are padding" in found.detail


@pytest.mark.parametrize(("zeros", "padding"), [(0, 0), (15, 0), (16, 1), (31, 1), (32, 2)])
def test_a_run_of_sixteen_zeros_costs_an_entry(zeros, padding):
    mask = np.zeros((zeros + 40, 1), dtype=bool)
    mask[zeros] = True

    assert padding_entries(mask, 4) == padding


@given(MASKS)
def test_padding_is_what_a_walk_down_the_columns_finds(mask):
    padding = 0
    for column in mask.T:
        zeros = 0
        for kept in column:
            zeros += 1
            if kept:
                padding, zeros = padding + (zeros - 1) // 2, 0

    assert padding_entries(mask, 1) == padding


@given(MASKS)
def test_every_format_is_sized_or_refused_and_never_beats_its_values(mask):
    found = sizes(mask, weight_bits=5)

    assert all((size.bits is None) == bool(size.reason) for size in found)
    assert all(size.bits >= 5 * mask.sum() for size in found if size.bits is not None)
    assert best(found).bits <= found[0].bits == 5 * mask.size


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 30), st.data())
@settings(deadline=None)
def test_equally_filled_banks_are_found_however_ragged(banks, rows, extra, data):
    cols = banks + extra
    kept = data.draw(st.integers(1, cols // banks))
    mask = banked(rows, cols, banks, kept)
    found = even_banks(mask)

    assert found is not None and found >= banks
    assert uneven(mask, banks) is None and uneven(mask, found) is None


def test_the_odd_bank_is_named():
    mask = banked(4, 12, 3, 2)
    mask[2, 4:8] = [True, True, True, False]

    assert "bank 1 of row 2 keeps 3 weights" in uneven(mask, 3)
    assert "bank 1 of row 2 keeps 3 weights" in table(mask, banks=3)["csb"].reason


@pytest.mark.parametrize("kept", [False, True])
def test_masks_that_keep_nothing_or_everything_have_an_answer(kept):
    mask = np.full((4, 6), kept)

    assert best(sizes(mask)).bits == (16 * 24 if kept else 0)


@pytest.mark.parametrize(
    "options", [{"banks": 9}, {"n_m": (1, 3)}, {"n_m": (1, 4)}, {"block": (3, 3)}, {"block": (0, 1)}]
)
def test_a_hint_that_does_not_suit_is_a_reason(options):
    mask = np.ones((4, 8), dtype=bool)
    name = {"banks": "csb", "n_m": "n_m", "block": "block"}[next(iter(options))]

    assert table(mask, **options)[name].bits is None


def test_columns_beyond_sixteen_bits_are_a_reason():
    assert "16-bit columns" in table(np.ones((1, 65_537), dtype=bool))["csr16"].reason


@pytest.mark.parametrize("mask", [np.ones(4, dtype=bool), np.ones((0, 4), dtype=bool), np.ones((2, 2))])
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(ShapeError, match="mask of booleans"):
        sizes(mask)


@pytest.mark.parametrize("widths", [{"weight_bits": 0}, {"weight_bits": 65}, {"run_bits": 0}, {"run_bits": 17}])
def test_widths_out_of_range_are_refused(widths):
    with pytest.raises(SpecError, match="weight_bits"):
        sizes(np.ones((2, 2), dtype=bool), **widths)


@pytest.mark.parametrize("widths", [{"weight_bits": 1}, {"weight_bits": 64}, {"run_bits": 1}, {"run_bits": 16}])
def test_widths_at_the_ends_of_their_range_are_taken(widths):
    assert sizes(np.ones((2, 2), dtype=bool), **widths)


def test_a_matrix_of_full_groups_is_no_n_m_unless_it_is_asked_for():
    full = np.ones((2, 8), dtype=bool)

    assert storage.smallest_n_m(full, 16) is None and table(full)["n_m"].reason
    storage.check_groups(full, 4, 4)
    for kept, group in ((5, 4), (-1, 4), (1, 3), (0, 0)):
        with pytest.raises(ShapeError, match="M must divide the 8 columns and be at least N"):
            storage.check_groups(full, kept, group)


def test_rows_and_columns_that_are_pruned_whole_are_not_stored():
    mask = np.zeros((8, 12), bool)
    mask[np.ix_([1, 4, 7], [0, 5, 6, 11])] = True
    mask[1, 5] = False

    found = table(mask)["compact"]

    assert found.bits == 3 * 4 * 16 + 3 * 3 + 4 * 4
    assert found.detail == "3 of 8 rows and 4 of 12 columns, 1 zeros among them"
    assert table(np.eye(8, dtype=bool))["compact"].reason == "no row or column is pruned whole"


def test_hidden_units_that_are_pruned_are_stored_best_as_what_is_left():
    kept = np.random.default_rng(3).random(24) < 0.4

    assert best(sizes(np.tile(kept, 4)[:, None] & kept)).name == "compact"
