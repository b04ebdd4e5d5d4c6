"""The closed form of the bank engine against hand-worked cases, laws, and an engine that ticks."""

from fractions import Fraction
from itertools import chain

import numpy as np
import pytest
from harness_plugins.hardware.engines.bank.counts import Banks, ExactRows, fold, split
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.api import Part, Product, ShapeError


def ticking_engine(counts, pes, lanes, lockstep):
    """Count clock cycles one by one: the slow oracle of the closed form."""
    rows = []
    for row in counts.tolist():
        waves = [row[start : start + lanes] for start in range(0, len(row), lanes)]
        rows.append([wave for wave in waves if any(wave)] or [[1]])  # an empty row still takes a cycle
    if lockstep:
        rounds = [rows[start : start + pes] for start in range(0, len(rows), pes)]
    else:
        rounds = [[list(chain.from_iterable(rows[pe::pes])) for pe in range(pes)]]
    clock = 0
    for queues in rounds:
        while any(queues):
            clock += 1
            for waves in filter(None, queues):
                waves[0] = [max(0, left - 1) for left in waves[0]]  # every lane takes one weight of its bank
                if not any(waves[0]):
                    del waves[0]
    return clock


def product_of(*masks, banks=None, units=None):
    parts = tuple(Part(f"part_{index}", *mask.shape, mask, int(mask.sum()), banks) for index, mask in enumerate(masks))
    return Product("layer", parts, units)


counts_of_banks = hnp.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 7)), elements=st.integers(0, 4))
sizes = st.integers(1, 8)


@given(counts=counts_of_banks, pes=sizes, lanes=sizes, lockstep=st.booleans())
def test_the_closed_form_equals_an_engine_that_ticks(counts, pes, lanes, lockstep):
    issue = ExactRows(counts, lanes).issue(pes, lockstep=lockstep)

    assert issue.cycles == ticking_engine(counts, pes, lanes, lockstep)


def test_three_rows_on_two_pes_worked_by_hand():
    counts = np.array([[2, 0, 1], [1, 3, 0], [0, 0, 0]], np.int32)  # two lanes: waves of banks 0-1 and 2
    rows = ExactRows(counts, 2)

    assert rows.costs.tolist() == [3, 3, 1]
    assert rows.issue(2, lockstep=False).cycles == 4  # PE 0: rows 0 and 2
    assert rows.issue(2, lockstep=True).cycles == 4  # max(3, 3) + 1
    assert rows.issue(2, lockstep=False).depth == 4
    assert rows.issue(2, lockstep=False).words == 7


@given(counts=counts_of_banks, pes=sizes, lanes=sizes, lockstep=st.booleans())
def test_the_parts_sum_exactly_to_the_cycles_and_none_is_negative(counts, pes, lanes, lockstep):
    issue = ExactRows(counts, lanes).issue(pes, lockstep=lockstep)

    assert sum(issue.parts.values()) == issue.cycles
    assert min(issue.parts.values()) >= 0


@given(counts=counts_of_banks, pes=sizes, lanes=sizes, lockstep=st.booleans())
def test_no_engine_is_faster_than_its_multipliers(counts, pes, lanes, lockstep):
    issue = ExactRows(counts, lanes).issue(pes, lockstep=lockstep)

    assert issue.cycles >= Fraction(int(counts.sum()), pes * lanes)
    assert issue.parts["compute"] == Fraction(int(counts.sum()), pes * lanes)


@given(counts=counts_of_banks, pes=sizes, lanes=sizes)
def test_lockstep_is_never_faster(counts, pes, lanes):
    rows = ExactRows(counts, lanes)

    assert rows.issue(pes, lockstep=True).cycles >= rows.issue(pes, lockstep=False).cycles


@given(counts=counts_of_banks, pes=sizes, lanes=sizes, lockstep=st.booleans(), data=st.data())
def test_one_more_weight_never_saves_a_cycle(counts, pes, lanes, lockstep, data):
    row = data.draw(st.integers(0, counts.shape[0] - 1))
    bank = data.draw(st.integers(0, counts.shape[1] - 1))
    fuller = counts.copy()
    fuller[row, bank] += 1

    before = ExactRows(counts, lanes).issue(pes, lockstep=lockstep).cycles
    assert ExactRows(fuller, lanes).issue(pes, lockstep=lockstep).cycles >= before


@given(counts=counts_of_banks, pes=sizes, lanes=sizes, seed=st.integers(0, 99))
def test_the_order_of_rows_within_a_pe_changes_nothing(counts, pes, lanes, seed):
    rng = np.random.default_rng(seed)
    shuffled = counts.copy()
    for pe in range(min(pes, len(counts))):
        shuffled[pe::pes] = rng.permutation(counts[pe::pes])

    expected = ExactRows(counts, lanes).issue(pes, lockstep=False)
    found = ExactRows(shuffled, lanes).issue(pes, lockstep=False)
    assert (found.cycles, found.parts) == (expected.cycles, expected.parts)


@given(counts=counts_of_banks, pes=sizes, lanes=sizes, lockstep=st.booleans(), seed=st.integers(0, 99))
def test_the_order_of_banks_within_a_wave_changes_nothing(counts, pes, lanes, lockstep, seed):
    rng = np.random.default_rng(seed)
    shuffled = counts.copy()
    for start in range(0, counts.shape[1], lanes):
        shuffled[:, start : start + lanes] = rng.permutation(counts[:, start : start + lanes], axis=1)

    expected = ExactRows(counts, lanes).issue(pes, lockstep=lockstep)
    found = ExactRows(shuffled, lanes).issue(pes, lockstep=lockstep)
    assert (found.cycles, found.parts) == (expected.cycles, expected.parts)


@given(counts=counts_of_banks, groups=st.integers(1, 3), pes=sizes, lanes=sizes, lockstep=st.booleans())
def test_twice_the_rows_take_twice_the_cycles_where_pes_divide_them(counts, groups, pes, lanes, lockstep):
    once = np.resize(counts, (groups * pes, counts.shape[1]))

    single = ExactRows(once, lanes).issue(pes, lockstep=lockstep).cycles
    assert ExactRows(np.vstack([once, once]), lanes).issue(pes, lockstep=lockstep).cycles == 2 * single


@given(
    rows=st.integers(1, 30),
    banks=st.integers(1, 12),
    kept=st.integers(1, 5),
    pes=sizes,
    lanes=sizes,
    lockstep=st.booleans(),
)
def test_equally_filled_banks_take_row_groups_times_waves_times_their_count(rows, banks, kept, pes, lanes, lockstep):
    counts = np.full((rows, banks), kept, np.int32)

    issue = ExactRows(counts, lanes).issue(pes, lockstep=lockstep)
    assert issue.cycles == -(-rows // pes) * -(-banks // lanes) * kept
    assert issue.parts["bank_imbalance"] == issue.parts["pe_imbalance"] == 0


@given(rows=st.integers(1, 30), cols=st.integers(1, 30), pes=sizes, lanes=sizes)
def test_a_dense_mask_with_a_bank_per_lane_costs_what_the_dot_product_array_costs(rows, cols, pes, lanes):
    banks = Banks(product_of(np.ones((rows, cols), bool)), None)
    banks.prepare([lanes])

    sparse = ExactRows(banks.counts(banks.map(lanes)), lanes).issue(pes, lockstep=False)
    assert sparse.cycles == -(-rows // pes) * -(-cols // lanes)


def test_two_of_four_takes_half_of_the_dense_multiplications():
    banks, kept = 8, 2
    sparse = ExactRows(np.full((16, banks), kept, np.int32), banks).issue(4, lockstep=False)

    assert 2 * sparse.cycles == 16 // 4 * 4 * banks // banks


@pytest.mark.parametrize(
    ("pes", "lanes", "n_banks", "low", "high"),
    [  # three masks of another generator, one per cent around their range
        (64, 64, 64, 601, 615),
        (512, 8, 8, 319, 333),
        (1024, 4, 4, 291, 306),
        (2048, 2, 2, 274, 297),
        (64, 64, 50, 691, 723),
    ],
)
def test_an_unstructured_mask_of_ten_per_cent_takes_what_earlier_simulations_took(pes, lanes, n_banks, low, high):
    mask = np.random.default_rng(1).random((6000, 1500)) < 0.1
    banks = Banks(product_of(mask), n_banks)
    banks.prepare([lanes])

    cycles = ExactRows(banks.counts(banks.map(lanes)), lanes).issue(pes, lockstep=False).cycles
    assert low <= cycles <= high


def test_banks_are_split_like_a_bank_balanced_mask_with_the_longer_ones_first():
    assert split(10, 4) == [0, 3, 6, 8]
    assert np.bincount(np.diff([*split(1500, 64), 1500])).tolist() == [0] * 23 + [36, 28]


@given(counts=hnp.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 12))), lanes=sizes)
def test_counts_are_those_of_the_mask(counts, lanes):
    banks = Banks(product_of(counts, banks=1), None)
    banks.prepare([lanes, lanes + 1])
    found = banks.counts(banks.map(lanes))

    assert found.shape == (len(counts), min(lanes, counts.shape[1]))
    assert found.sum(axis=1).tolist() == counts.sum(axis=1).tolist()


def test_equally_filled_banks_are_found_in_a_mask_that_says_nothing_of_them(make):
    mask = make.bank_balanced_mask(np.random.default_rng(0), 40, banks=6, size=10, kept=2)
    banks = Banks(product_of(mask), None)

    assert banks.natural == (6,)
    assert banks.map(3).count == 6
    assert banks.map(3).why == "the equally filled banks of the mask"


def test_a_mask_without_equal_rows_gets_one_bank_per_lane():
    mask = np.random.default_rng(0).random((40, 60)) < 0.3
    banks = Banks(product_of(mask), None)

    assert banks.natural == (None,)
    assert (banks.map(8).count, banks.map(8).longest) == (8, 8)


def test_a_row_balanced_mask_has_no_banks_of_its_own_but_costs_no_imbalance_on_one_lane():
    order = np.random.default_rng(0).random((20, 30)).argsort(axis=1)
    banks = Banks(product_of(order < 3, banks=1), None)
    banks.prepare([1])

    issue = ExactRows(banks.counts(banks.map(1)), 1).issue(10, lockstep=False)
    assert banks.natural == (None,)
    assert issue.cycles == 2 * 3
    assert issue.parts["compute"] == issue.cycles


def test_two_tensors_of_a_product_keep_their_own_banks(make):
    rng = np.random.default_rng(0)
    kernel = make.bank_balanced_mask(rng, 8, banks=4, size=5, kept=2)
    recurrent = make.bank_balanced_mask(rng, 8, banks=4, size=3, kept=1)
    banks = Banks(product_of(kernel, recurrent, banks=4, units=2), None)
    banks.prepare([4])
    counts = banks.counts(banks.map(4))

    assert banks.map(4).lengths == (5, 5, 5, 5, 3, 3, 3, 3)
    assert (counts == [2, 2, 2, 2, 1, 1, 1, 1]).all()
    assert ExactRows(counts, 4).issue(8, lockstep=False).cycles == 3


def test_gate_major_rows_are_dealt_out_unit_by_unit():
    kept = np.arange(8)  # row g * 2 + u of two units keeps that many weights
    mask = np.arange(8)[None, :] < kept[:, None]
    banks = Banks(product_of(mask, units=2), 1)
    banks.prepare([1])

    assert banks.counts(banks.map(1)).ravel().tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


def test_more_banks_than_columns_are_refused():
    with pytest.raises(ShapeError, match=r"got banks=9 for the 8 columns of 'layer'; set `banks` to at most 8"):
        Banks(product_of(np.ones((2, 8), bool)), 9)


@given(banks=st.integers(1, 200), most=st.integers(1, 200))
@settings(max_examples=30)
def test_folding_tries_all_banks_at_once_if_they_fit_and_always_one_lane(banks, most):
    lanes = fold(banks, most)

    assert 1 in lanes and max(lanes) <= most
    assert banks <= most or banks not in lanes
    assert banks > most or banks in lanes
