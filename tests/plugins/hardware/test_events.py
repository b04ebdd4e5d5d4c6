"""Energy by events: worked by hand, monotone, and with the constants of whoever describes the device."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.discovery.finding import discover

REGISTRY = discover()
SIZES = {
    "bank": {"pes": 4, "lanes": 4},
    "dense_mvm": {"pes": 4, "lanes": 4},
    "static_dataflow": {},
    "csr_stream": {"channels": 2},
}

DEVICE = """
version: 1
sources: {mine: measured on my desk}
device:
  family: made up
  logic: {kind: lut, count: {value: 600000, origin: assumed, source: mine}}
  ff: {value: 1200000, origin: assumed, source: mine}
  dsp: {kind: dsp48e2, count: {value: 4100, origin: assumed, source: mine}}
  rams:
    - {kind: bram_18k, count: {value: 2400, origin: assumed, source: mine}}
  clock_mhz: {value: 200, origin: assumed, source: mine}
  energy:
    mac_pj_w16: {value: 3, origin: measured, source: mine}
    ram_pj_per_bit: {value: 0.5, origin: measured, source: mine}
    dram_pj_per_bit: {value: 11, origin: measured, source: mine}
    adder_pj_per_bit: {value: 0.25, origin: measured, source: mine}
"""
STATIC = "    static_w: {value: 2, origin: measured, source: mine}\n"


def cost(workload, engine="bank", **parameters):
    entry = {"name": "cycle_simulator", "multipliers": 16, "engine": {"name": engine, **SIZES[engine]}, **parameters}
    return REGISTRY.create("hardware", entry).cost(workload)


def masked(make, rows=24, cols=40, density=0.3, seed=0):
    return make.matrix_workload(np.random.default_rng(seed).random((rows, cols)) < density)


@pytest.fixture
def desk(tmp_path):
    path = tmp_path / "desk.yaml"
    path.write_text(DEVICE)
    return str(path)


def test_a_dense_array_worked_by_hand(make, desk):
    found = cost(make.matrix_workload(np.ones((8, 8), np.bool_)), "dense_mvm", device=desk)
    events = found.details["energy_events"]

    assert events["macs"]["count"] == 64
    # 64 weights of 16 bits, and in each of 2 x 2 cycles a word of the vector for each of 4 inputs, shared by all rows.
    assert events["ram_bits"]["count"] == 64 * 16 + 4 * 4 * 16
    assert events["dram_bits"]["count"] == (8 + 8) * 16
    assert found.event_energy_uj == pytest.approx((64 * 3 + 1280 * 0.5 + 256 * 11) / 1e6)


def test_a_bank_engine_reads_a_word_of_the_vector_for_every_weight(make, desk):
    mask = make.bank_balanced_mask(np.random.default_rng(0), 8, 4, 4, 1)
    events = cost(make.matrix_workload(mask), device=desk).details["energy_events"]

    assert events["macs"]["count"] == 32
    assert events["ram_bits"]["count"] == pytest.approx(
        32 * 16 + 32 * (16 + 2), abs=32
    )  # an index of two bits beside a weight


def test_a_circuit_has_adder_bits_and_no_weight_memory(make, desk):
    found = cost(masked(make), "static_dataflow", device=desk)
    events = found.details["energy_events"]

    assert "macs" not in events
    assert events["adder_bits"]["count"] == found.lut
    assert events["ram_bits"]["count"] == 0


def test_weights_that_are_streamed_cost_what_the_off_chip_memory_asks(make, desk):
    found = cost(masked(make), "csr_stream", device=desk)
    system = found.details["memory_system"]

    assert found.details["energy_events"]["dram_bits"]["count"] == pytest.approx(
        8 * (system["weight_bytes"] + system["vector_bytes"])
    )


def test_static_power_counts_where_the_device_gives_it(make, desk, tmp_path):
    other = tmp_path / "static.yaml"
    other.write_text(DEVICE.rstrip("\n") + "\n" + STATIC)
    without, having = cost(masked(make), device=desk), cost(masked(make), device=str(other))

    assert having.event_energy_uj == pytest.approx(without.event_energy_uj + 2 * having.latency_us)


def test_constants_of_the_table_are_assumed_and_those_of_a_file_are_its_own(make, desk):
    ours, mine = cost(masked(make)), cost(masked(make), device=desk)

    assert {event["origin"] for event in ours.details["energy_events"].values() if isinstance(event, dict)} == {
        "assumed"
    }
    assert {event["origin"] for event in mine.details["energy_events"].values() if isinstance(event, dict)} == {
        "measured"
    }


def test_a_device_that_gives_one_constant_has_the_others_of_the_table(make, tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text("\n".join(line for line in DEVICE.splitlines() if "pj" not in line or "mac" in line))
    events = cost(masked(make), device=str(path)).details["energy_events"]

    assert (events["macs"]["origin"], events["ram_bits"]["origin"]) == ("measured", "assumed")


@given(density=st.floats(0.05, 0.9), more=st.floats(0.0, 0.1))
@settings(deadline=None, max_examples=15)
def test_more_weights_never_take_less(make, density, more):
    scores = np.random.default_rng(0).random((24, 40))
    few, many = (make.matrix_workload(scores < each) for each in (density, density + more))

    assert cost(few).event_energy_uj <= cost(many).event_energy_uj + 1e-12


@pytest.mark.parametrize("engine", SIZES)
def test_narrower_numbers_take_less(make, engine):
    wide, narrow = (cost(masked(make), engine, weight_bits=bits, activation_bits=bits) for bits in (16, 8))

    assert narrow.event_energy_uj < wide.event_energy_uj
