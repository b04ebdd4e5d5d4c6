"""Designs between fast and small: the fastest is among them, and none is beaten by another in every respect."""

import numpy as np
import pytest

from harness.api import SpecError
from harness.discovery.finding import discover

REGISTRY = discover()


def measures(cost):
    logic = cost.details["logic"]  # of one engine known of all shapes or of none
    luts = 0 if logic is None else logic["share_of_ceiling"]
    return cost.cycles, cost.dsp, cost.ram_share, luts, round(cost.bandwidth_gbytes_per_s * cost.latency_us, 9)


@pytest.mark.parametrize("engine", REGISTRY.names("engine"))
@pytest.mark.parametrize(("rows", "cols", "device"), [(200, 100, "arria10_gx1150"), (1500, 1500, "xc7z020")])
def test_the_fastest_design_is_on_the_front_and_none_on_it_is_beaten(make, engine, rows, cols, device):
    mask = make.bank_balanced_mask(np.random.default_rng(0), rows, cols // 20, 20, 2)
    workload = make.matrix_workload(mask)
    model = REGISTRY.create(
        "hardware", {"name": "cycle_simulator", "device": device, "multipliers": 128, "engine": engine}
    )
    try:
        best = model.cost(workload)
    except SpecError as refusal:
        with pytest.raises(SpecError, match=str(refusal)[:20]):
            model.designs(workload)
        return

    found = model.designs(workload)

    assert min(each.cycles for each in found) <= best.cycles
    assert len({each.shape for each in found}) == len(found)
    for one in found:
        for other in found:
            beats = all(mine <= theirs for mine, theirs in zip(measures(one), measures(other), strict=True))
            assert one is other or not beats, (one.shape, other.shape)


def test_ram_of_two_kinds_is_the_share_of_the_fuller_one(make):
    model = REGISTRY.create("hardware", {"name": "cycle_simulator", "device": "xcu280", "engine": "dense_mvm"})

    cost = model.cost(make.matrix_workload(np.random.default_rng(0).random((3000, 2000)) < 0.5))

    shares = {kind: limit["share_of_ceiling"] for kind, limit in cost.details["limits"].items()}
    assert shares["bram_18k"] > 0
    assert cost.ram_share == pytest.approx(max(shares[kind] for kind in shares.keys() & {"bram_18k", "uram"}), rel=1e-3)
