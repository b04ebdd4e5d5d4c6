"""Expected cycles against hand-worked cases, exact enumeration and the simulator's closed form."""

from itertools import product as tuples

import numpy as np
import pytest
from harness_plugins.hardware.engines._expectation import BankFill, expected_cycles, row_distribution
from harness_plugins.hardware.engines.bank.counts import Banks, ExactRows
from harness_plugins.hardware.engines.bank.expectation import ExpectedRows, bank_fills
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Part, Product


def product_of(mask):
    return Product("layer", (Part("kernel", *mask.shape, mask, int(mask.sum())),))


def both(mask, pes, lanes, n_banks, lockstep):
    """Simulated and expected issue cycles of one mask."""
    product = product_of(mask)
    banks = Banks(product, n_banks)
    banks.prepare([lanes])
    bank_map = banks.map(lanes)
    counts = banks.counts(bank_map)
    exact = ExactRows(counts, lanes).issue(pes, lockstep=lockstep)
    fills = bank_fills(banks, bank_map)
    expected = ExpectedRows(fills, lanes, len(mask), product.nnz).issue(pes, lockstep=lockstep)
    return float(exact.cycles), float(expected.cycles)


def test_two_banks_of_one_weight_worked_by_hand():
    row = row_distribution((BankFill(1, 0.5), BankFill(1, 0.5)), lanes=2)

    # The wave is empty one time in four, and an empty row takes a cycle as well.
    assert (row.low, row.mass.tolist()) == (1, [1.0])
    assert row_distribution((BankFill(1, 0.5), BankFill(1, 0.5)), lanes=1).mass == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize("lockstep", [False, True])
@pytest.mark.parametrize(("pes", "lanes"), [(1, 1), (2, 1), (2, 2), (3, 2)])
def test_the_expectation_is_the_mean_over_all_masks_of_a_small_matrix(pes, lanes, lockstep):
    density, rows, cols = 0.3, 3, 3
    mean = 0.0
    for bits in tuples([False, True], repeat=rows * cols):
        mask = np.array(bits).reshape(rows, cols)
        counts = np.add.reduceat(mask, [0, 2], axis=1, dtype=np.int32)
        kept = int(mask.sum())
        chance = density**kept * (1 - density) ** (rows * cols - kept)
        mean += chance * float(ExactRows(counts, lanes).issue(pes, lockstep=lockstep).cycles)

    banks = (BankFill(2, density), BankFill(1, density))
    assert expected_cycles(banks, lanes, rows, pes, lockstep) == pytest.approx(mean, rel=1e-9)


@given(
    rows=st.integers(1, 40),
    banks=st.integers(1, 9),
    kept=st.integers(1, 4),
    pes=st.integers(1, 9),
    lanes=st.integers(1, 9),
    lockstep=st.booleans(),
)
def test_equally_filled_banks_cost_exactly_what_the_simulator_finds(rows, banks, kept, pes, lanes, lockstep):
    mask = np.tile(np.arange(5) < kept, (rows, banks))
    exact, expected = both(mask, pes, lanes, banks, lockstep)

    assert expected == exact


@pytest.mark.parametrize(
    ("rows", "cols", "pes", "lanes", "independent", "lockstep"),
    [  # derived values at a density of one tenth, n_b = N
        (6000, 1500, 64, 64, 607.6, 830.9),
        (6000, 1500, 512, 8, 327.0, 420.8),
        (6000, 1500, 1024, 4, 297.4, 360.2),
        (6000, 1500, 2048, 2, 282.7, 318.8),
        (2600, 1300, 78, 26, 341.3, 457.8),
    ],
)
def test_expected_cycles_of_known_settings(rows, cols, pes, lanes, independent, lockstep):
    lengths = np.diff(np.linspace(0, cols, lanes + 1).astype(int))
    banks = tuple(BankFill(int(length), 0.1) for length in sorted(lengths, reverse=True))

    assert expected_cycles(banks, lanes, rows, pes, False) == pytest.approx(independent, abs=0.06)
    assert expected_cycles(banks, lanes, rows, pes, True) == pytest.approx(lockstep, abs=0.06)


def test_fifty_banks_on_64_lanes_expected():
    banks = (BankFill(30, 0.1),) * 50

    assert expected_cycles(banks, 64, 6000, 64, False) == pytest.approx(695.7, abs=0.06)
    assert expected_cycles(banks, 64, 6000, 64, True) == pytest.approx(946.3, abs=0.06)


GRID = [
    (density, pes, lanes, n_banks)
    for density in (0.05, 0.2, 0.5)
    for pes, lanes, n_banks in [(16, 16, 16), (64, 64, 50), (32, 16, 50), (128, 8, 8), (7, 13, 13), (16, 64, 100)]
]


def test_expectations_stay_close_to_the_simulator_on_random_masks():
    errors = []
    rng = np.random.default_rng(5)
    for density, pes, lanes, n_banks in GRID:
        masks = [rng.random((800, 200)) < density for _ in range(5)]
        for lockstep in (False, True):
            pairs = np.array([both(mask, pes, lanes, n_banks, lockstep) for mask in masks])
            exact, expected = pairs.mean(axis=0)
            errors.append(abs(expected / exact - 1))

    assert np.mean(errors) <= 0.01
    assert max(errors) <= 0.06


def test_a_column_that_is_full_in_every_row_is_known_not_guessed():
    mask = np.zeros((6, 8), bool)
    mask[:, :4] = True
    product = product_of(mask)
    banks = Banks(product, 2)
    banks.prepare([2])
    fills = bank_fills(banks, banks.map(2))

    assert [fill.count for fill in fills] == [4, 0]


@given(density=st.floats(0.0, 1.0), length=st.integers(1, 300))
def test_the_distribution_of_a_bank_rises_to_one(density, length):
    cdf = BankFill(length, density).distribution()

    assert len(cdf) == length + 1
    assert (np.diff(cdf) >= 0).all()
    assert cdf[-1] == pytest.approx(1.0)


def test_parts_of_an_expectation_sum_to_it():
    issue = ExpectedRows((BankFill(20, 0.2),) * 6, 4, 100, 2400).issue(8, lockstep=False)

    assert sum(issue.parts.values()) == issue.cycles
    assert min(issue.parts.values()) >= 0
