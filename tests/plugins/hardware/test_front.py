"""Designs between fast and small: the fastest is among them, and none is beaten by another in every respect."""

from types import SimpleNamespace

import numpy as np
import pytest
from harness_plugins.hardware._design.front import _chosen, _undominated
from harness_plugins.hardware.engines.bank import Bank
from hypothesis import given
from hypothesis import strategies as st

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


few = st.integers(0, 3)
candidates = st.lists(
    st.builds(
        lambda able, cycles, dsp, ram, logic, bits: SimpleNamespace(
            rank=(not able,), cycles=cycles, dsp=dsp, ram_share=ram, streamed_bits=bits, logic_share=lambda _: logic
        ),
        st.integers(0, 4).map(bool), few, few, few, st.none() | few, few,
    ),
    max_size=9,
)  # fmt: skip


@given(candidates)
def test_the_front_is_all_that_can_run_and_that_no_other_beats_and_of_equal_ones_one(designs):
    def of(each):
        return each.cycles, each.dsp, each.ram_share, each.logic_share(None) or 0, each.streamed_bits

    able = [of(each) for each in designs if not each.rank[0]]
    expected = {
        one for one in able
        if not any(other != one and all(a <= b for a, b in zip(other, one, strict=True)) for other in able)
    }  # fmt: skip

    found = [of(each) for each in _undominated(designs, None)]

    assert sorted(found) == sorted(expected) and [each[0] for each in found] == sorted(each[0] for each in found)


def test_shapes_are_looked_at_from_the_largest_of_a_line_down_in_equal_ratios(make):
    lines = Bank().lines([make.dense_product(64, 48)], 600)

    found = {}
    for shape in _chosen(lines):
        found.setdefault(shape.sizes[1:], []).append(shape.multipliers)

    by_line = {line[0].sizes[1:]: [shape.multipliers for shape in line] for line in lines if line}
    assert 1 < len(found) <= 24
    for kind, sizes in found.items():
        line = by_line[kind]
        assert sizes == sorted(set(sizes), reverse=True) and len(sizes) <= 8
        # The first of a line is its largest, the last its smallest.
        assert (sizes[0], sizes[-1]) == (line[-1], line[0])


def test_slower_designs_on_the_front_take_less_of_something(make):
    model = REGISTRY.create("hardware", {"name": "cycle_simulator", "multipliers": 128, "engine": "bank"})
    workload = make.matrix_workload(make.bank_balanced_mask(np.random.default_rng(0), 200, 5, 20, 2))
    best, found = model.cost(workload), model.designs(workload)

    assert found[0].cycles == best.cycles and len(found) > 5
    assert [each.cycles for each in found] == sorted(each.cycles for each in found)
    assert min(each.dsp for each in found) < best.dsp / 4


def test_ram_of_two_kinds_is_the_share_of_the_fuller_one(make):
    model = REGISTRY.create("hardware", {"name": "cycle_simulator", "device": "xcu280", "engine": "dense_mvm"})

    cost = model.cost(make.matrix_workload(np.random.default_rng(0).random((3000, 2000)) < 0.5))

    shares = {kind: limit["share_of_ceiling"] for kind, limit in cost.details["limits"].items()}
    assert shares["bram_18k"] > 0
    assert cost.ram_share == pytest.approx(max(shares[kind] for kind in shares.keys() & {"bram_18k", "uram"}), rel=1e-3)
