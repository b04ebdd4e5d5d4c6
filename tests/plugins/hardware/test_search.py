"""The search for a shape: no shape given by hand beats it, and more multipliers never make a design slower."""

import numpy as np
import pytest

from harness.api import SpecError
from harness.discovery.finding import discover

REGISTRY = discover()

SIZES = {
    "bank": ("pes", "lanes"),
    "block": ("arrays", "lanes"),
    "column_fifo": ("pes", "groups"),
    "dense_mvm": ("pes", "lanes"),
    "dense_systolic": ("array_rows", "array_cols"),
    "n_m": ("pes", "lanes"),
}

# The column engine is counted for its most promising shapes only, and memories grow in jumps: a few cycles may be left.
TOLERANCE = {"column_fifo": 0.03}
LEFT = 0.001

BUDGETS = (64, 300, 1024, 4000)


def masks(make, rows, cols):
    rng = np.random.default_rng(rows)
    yield "unstructured", rng.random((rows, cols)) < 0.1
    yield "banks", make.bank_balanced_mask(rng, rows, cols // 20, 20, 2)
    yield "blocks", np.kron(rng.random((rows // 4, cols // 4)) < 0.1, np.ones((4, 4))).astype(bool)
    yield "n_m", make.bank_balanced_mask(rng, rows, cols // 4, 4, 1)
    yield "rows", make.bank_balanced_mask(rng, rows, 1, cols, cols // 10)


def cost(workload, engine, device, budget, **sizes):
    entry = {
        "name": "cycle_simulator", "device": device, "multipliers": budget, "engine": {"name": engine, **sizes},
    }  # fmt: skip
    return REGISTRY.create("hardware", entry).cost(workload)


def order(found):
    """What fits comes first, then what streams, then what cannot be built; among equals the fastest."""
    return 0 if found.fits else 1 if found.can_run else 2


def is_beaten(found, other, engine):
    if order(other) != order(found):
        return order(other) < order(found)
    return other.cycles + 1 < found.cycles * (1 - TOLERANCE.get(engine, LEFT))


@pytest.mark.parametrize("engine", SIZES)
@pytest.mark.parametrize(("rows", "cols", "device"), [(200, 100, "arria10_gx1150"), (1200, 600, "xc7z020")])
def test_no_shape_given_by_hand_and_no_smaller_budget_beats_the_search(make, engine, rows, cols, device):
    rng, tried = np.random.default_rng(7), 0
    for name, mask in masks(make, rows, cols):
        workload, smaller = make.matrix_workload(mask), []
        for budget in BUDGETS:
            try:
                found = cost(workload, engine, device, budget)
            except SpecError:
                break  # refused whatever the shape
            for other in smaller:
                assert not is_beaten(found, other, engine), (name, budget, found.shape, other.shape)
            smaller.append(found)
            most = min(budget, found.details["budget"])
            for _ in range(3):
                one = int(2 ** rng.uniform(0, np.log2(most)))
                sizes = dict(zip(SIZES[engine], (one, max(1, (most // one) >> int(rng.integers(0, 4)))), strict=True))
                by_hand = cost(workload, engine, device, budget, **sizes)
                assert not is_beaten(found, by_hand, engine), (name, budget, found.shape, by_hand.shape)
                tried += 1
    assert tried


def test_where_memory_is_the_limit_a_part_of_the_budget_fits(make):
    rng = np.random.default_rng(0)
    workload = make.matrix_workload(make.bank_balanced_mask(rng, 6000, 30, 50, 5))

    found = cost(workload, "column_fifo", "arria10_gx1150", 4096)

    assert found.fits
    assert found.cycles <= 1.02 * cost(workload, "column_fifo", "arria10_gx1150", 4096, pes=167, groups=6).cycles
    faster = found.details["streaming"]
    assert faster is None or faster["cycles"] < found.cycles


def test_lanes_that_are_no_power_of_two_are_found_for_unstructured_masks(make):
    workload = make.matrix_workload(np.random.default_rng(1).random((400, 200)) < 0.5)

    found = cost(workload, "bank", "arria10_gx1150", 1024)

    assert all(
        found.cycles <= cost(workload, "bank", "arria10_gx1150", 1024, lanes=lanes).cycles for lanes in (2, 3, 5, 6, 7)
    )
