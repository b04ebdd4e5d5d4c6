"""Units and groups over matrices of any shape, and the quotas that follow."""

import numpy as np
import pytest

from harness.api import keep_count
from harness.selection.kernel import select
from harness.selection.layout import Layout, divisors


def test_ragged_banks_differ_by_one_the_longer_first_and_keep_the_same_count():
    layout = Layout.of(3, 200, group=(1, None), banks=16)

    mask = select(np.random.default_rng(0).random((3, 200)), layout, 0.9)

    assert layout.widths == (13,) * 8 + (12,) * 8
    assert layout.quota(0.9) == 1  # 12.5 weights per bank on average
    assert {int(mask[rows, cols].sum()) for rows, cols in layout.groups()} == {1}


def test_a_row_may_be_cut_down_to_single_columns_and_no_further():
    assert Layout.of(2, 8, group=(1, None), banks=8).banks_per_row == 8
    with pytest.raises(ValueError, match="at most 8"):
        Layout.of(2, 8, group=(1, None), banks=9)


@pytest.mark.parametrize(("cols", "banks", "widths"), [(650, 64, {11: 10, 10: 54}), (1500, 64, {24: 28, 23: 36})])
def test_wide_rows_are_cut_as_evenly_as_possible(cols, banks, widths):
    layout = Layout.of(1, cols, group=(1, None), banks=banks)

    assert {width: layout.widths.count(width) for width in set(layout.widths)} == widths
    assert sum(layout.widths) == cols


def test_the_quota_of_ragged_banks_never_exceeds_the_shortest():
    layout = Layout.of(1, 7, group=(1, None), banks=2)  # 4 and 3 weights: half up of 3.4965 is 3, of 3.5 is 4

    assert layout.quota(0.001) == 3
    assert layout.reached(0.001) == pytest.approx(1 / 7)
    assert layout.reached(0.0) == 0


def test_equal_banks_round_as_keep_count_does():
    layout = Layout.of(1, 200, group=(1, None), banks=4)

    assert [layout.quota(percent / 100) for percent in range(100)] == [
        keep_count(50, percent / 100) for percent in range(100)
    ]


def test_a_quota_can_be_held_up_from_below():
    layout = Layout.of(2, 8, group=(1, 4), at_least=2)

    assert [layout.quota(sparsity) for sparsity in (0.0, 0.25, 0.5, 0.9)] == [4, 3, 2, 2]
    assert layout.reached(0.9) == 0.5


def test_edge_cells_may_be_smaller_and_count_as_cells():
    layout = Layout.of(61, 243, unit=(4, 4))

    mask = select(np.random.default_rng(0).random((61, 243)), layout, 0.75)

    units = [mask[top : top + 4, left : left + 4] for top in range(0, 61, 4) for left in range(0, 243, 4)]
    assert layout.grid == (16, 61)
    assert layout.edge_deficit == 16 * 61 * 16 - 61 * 243
    assert sum(unit.all() for unit in units) == 244 == layout.quota(0.75)
    assert all(unit.all() == unit.any() for unit in units)


@pytest.mark.parametrize(
    ("share", "banks"),
    [
        ({"group": (1, None)}, 1),
        ({"group": (1, None), "banks": 5}, 5),
        ({"group": (1, 4)}, 5),
        ({"unit": (1, 2), "group": (1, 4)}, 5),
        ({"unit": (2, 1), "group": (2, 10)}, 2),
        ({}, None),
        ({"unit": (4, 4)}, None),
        ({"group": (4, 20)}, None),
    ],
    ids=str,
)
def test_banks_per_row_are_known_where_every_row_is_filled_equally(share, banks):
    layout = Layout.of(8, 20, **share)

    per_row = select(np.random.default_rng(0).random((8, 20)), layout, 0.5).sum(axis=1)

    assert layout.banks_per_row == banks
    assert banks is None or len(set(per_row.tolist())) == 1


@pytest.mark.parametrize(
    ("size", "share", "sentence"),
    [
        ((4, 8), {"banks": 10}, "cols=8 cannot be split into 10 banks; set `banks` to at most 8"),
        ((4, 8), {"group": (1, 3)}, "cols=8 is no multiple of the group's 3 cols; choose a divisor of 8: 1, 2, 4, 8"),
        ((6, 8), {"group": (4, 1)}, "rows=6 is no multiple of the group's 4 rows; choose a divisor of 6: 1, 2, 3, 6"),
        ((4, 8), {"unit": (1, 3), "group": (1, 4)}, "a group must hold whole units"),
        ((4, 8), {"group": (1, 4), "banks": 2}, "give one of the two"),
        ((4, 8), {"unit": (1, 3), "banks": 2}, "banks of whole units of 3 columns"),
        ((4, 8), {"group": (1, 4), "at_least": 5}, "set the number to keep to at most 4"),
        ((0, 8), {}, "at least one row and one column"),
    ],
    ids=str,
)
def test_what_cannot_tile_a_matrix_is_refused_with_the_way_out(size, share, sentence):
    with pytest.raises(ValueError) as caught:
        Layout.of(*size, **share)

    assert sentence in str(caught.value)


def test_divisors_come_in_order():
    assert divisors(12) == (1, 2, 3, 4, 6, 12)
