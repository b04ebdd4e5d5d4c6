import pytest
from harness_plugins.hardware._design.placement import place
from harness_plugins.hardware._design.resources import energy, logic, logic_usage, split_multipliers
from harness_plugins.hardware._devices import device
from harness_plugins.hardware._rtl.cases import recorded
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Logic, Ram


@pytest.mark.parametrize(
    ("pes", "lanes", "lut", "ff"),
    [  # yosys 0.23, xc7, 16 bits: our own Verilog, then templates published with the formulas
        (1, 1, 68, 73),
        (1, 4, 149, 159),
        (1, 16, 351, 371),
        (1, 64, 1165, 1213),
        (1, 16, 339, 349),
        (1, 16, 305, 319),
        (1, 64, 1187, 1241),
        (4, 16, 1320, 1572),
    ],
)
def test_the_stated_range_holds_what_synthesis_found_for_bank_templates(pes, lanes, lut, ff):
    found = logic("bank", multipliers=pes * lanes, pes=pes, bits=16)

    assert found.low.lut <= lut <= found.high.lut
    assert found.low.ff <= ff <= found.high.ff


@pytest.mark.parametrize(("lut", "ff"), [(163, 130), (166, 114), (116, 120), (264, 159)])  # yosys 0.23, xc7
def test_the_stated_range_holds_what_synthesis_found_for_column_templates(lut, ff):
    found = logic("column_fifo", multipliers=1, pes=1, bits=16)

    assert found.low.lut <= lut <= found.high.lut
    assert found.low.ff <= ff <= found.high.ff


def test_the_range_of_a_wide_bank_array_is_no_wider_than_a_third():
    found = logic("bank", multipliers=64 * 50, pes=64, bits=16)

    assert found.high.lut < 4 / 3 * found.low.lut


def template(name, family):
    (found,) = (one for one in recorded().synthesis if (one.template, one.family) == (name, family))
    return found


@pytest.mark.parametrize(("name", "engine", "lanes"), [("bank_pe", "bank", 16), ("column_pe", "column_fifo", 1)])
def test_the_stated_range_holds_what_was_recorded_of_our_own_templates(name, engine, lanes):
    synthesised, found = template(name, "xc7"), logic(engine, multipliers=lanes, pes=1, bits=16)

    assert found.low.lut <= synthesised.lut <= found.high.lut
    assert found.low.ff <= synthesised.ff <= found.high.ff


def test_the_bank_template_takes_the_blocks_and_dsps_that_the_device_model_says():
    rams = [Ram("weights", 4 + 16 * 21, 512, 1), Ram("vector", 16, 256, 16)]

    placed, synthesised = place(rams, device("xc7z020")), template("bank_pe", "xc7")

    assert placed.taken == synthesised.ram_18k + 2 * synthesised.ram_36k == 26
    assert split_multipliers(16, 16, device("xc7z020")) == (synthesised.multipliers, 0)


def test_the_column_template_takes_the_blocks_and_small_memories_that_the_device_model_says():
    rams = [Ram("weights", 24, 512, 1), Ram("accumulators", 48, 128, 1), Ram("fifo", 16, 8, 1, small=True)]

    placed, synthesised = place(rams, device("xc7z020")), template("column_pe", "xc7")

    assert placed.taken == synthesised.ram_18k + 2 * synthesised.ram_36k == 3
    assert placed.distributed == {"fifo": 4 * synthesised.lut_ram}


@pytest.mark.parametrize("name", ["bank_pe", "column_pe"])
def test_a_look_up_table_counts_no_less_of_an_alm_than_synthesis_found(name):
    alms_per_lut = template(name, "cyclonev").lut / 2 / template(name, "xc7").lut
    usage = logic_usage(Logic(lut=1000, ff=0), place([], device("arria10_gx1150")), device("arria10_gx1150"))

    assert alms_per_lut * 1000 <= usage["alm"].used <= 1000


def test_engines_that_nobody_has_synthesised_have_no_logic():
    assert logic("csr_stream", multipliers=128, pes=16, bits=16) is None


def test_a_dense_array_says_that_its_figures_are_borrowed():
    dense, bank = (logic(name, multipliers=64, pes=4, bits=16) for name in ("dense_mvm", "bank"))

    assert dense.high == bank.high
    assert "the bank engine's lanes" in dense.source and "the bank engine's lanes" not in bank.source


def test_multipliers_of_look_up_tables_dominate_the_logic():
    with_dsp = logic("bank", multipliers=100, pes=1, bits=16)
    without = logic("bank", multipliers=100, pes=1, bits=16, lut_multipliers=100)

    assert without.low.lut - with_dsp.low.lut == 9300
    assert without.high.lut - with_dsp.high.lut == 13400
    assert without.high.ff - with_dsp.high.ff == 11100


@given(
    pes=st.integers(1, 64),
    lanes=st.integers(1, 64),
    more=st.integers(0, 20),
    bits=st.integers(2, 16),
    from_luts=st.integers(0, 100),
)
def test_logic_never_shrinks_with_lanes_widths_or_multipliers_of_luts(pes, lanes, more, bits, from_luts):
    small = logic("bank", multipliers=pes * lanes, pes=pes, bits=bits)
    large = logic("bank", multipliers=pes * (lanes + more), pes=pes, bits=bits + more, lut_multipliers=from_luts)

    assert large.low.lut >= small.low.lut and large.high.lut >= small.high.lut
    assert large.low.ff >= small.low.ff and large.high.ff >= small.high.ff
    assert small.low.lut <= small.high.lut and small.low.ff <= small.high.ff


def test_multipliers_beyond_the_dsp_ceiling_are_made_of_look_up_tables():
    assert split_multipliers(2428, 16, device("arria10_gx1150")) == (1214, 0)
    assert split_multipliers(2500, 16, device("arria10_gx1150")) == (1214, 72)
    assert split_multipliers(7, 8, device("xczu9eg"), shares_operand=True) == (4, 0)
    assert split_multipliers(0, 16, device("xc7z020")) == (0, 0)


def test_memories_made_of_look_up_tables_take_from_the_logic():
    target = device("xczu9eg")
    memories = place([Ram("vector", 16, 120, 100, small=True)], target)

    usage = logic_usage(Logic(lut=1000, ff=2000), memories, target)

    assert usage["lut"].used == 1000 + 100 * 48  # 14 x 32 or 7 x 64: six units of eight LUTs
    assert (usage["ff"].used, usage["ff"].indicative) == (2000, True)
    assert (usage["lut"].ceiling, usage["lut"].indicative) == (0.7, True)


def test_where_memories_are_never_made_of_logic_it_is_the_engines_alone():
    target = device("stratix10_gx2800")
    memories = place([Ram("vector", 20, 32, 7, small=True)], target)

    assert logic_usage(Logic(lut=1000, ff=0), memories, target)["alm"].used == 920


def test_an_mlab_takes_ten_alms_and_a_look_up_table_less_than_one():
    target = device("arria10_gx1150")
    memories = place([Ram("vector", 20, 32, 7, small=True)], target)

    usage = logic_usage(Logic(lut=1000, ff=0), memories, target)

    assert usage["alm"].used == 920 + 70


def test_the_flagship_leaves_room_for_its_logic_where_it_fits():
    target = device("alveo_u280")
    memories = place([Ram("weights", 1050, 1128, 64), Ram("vector", 16, 120, 3200, small=True)], target)

    usage = logic_usage(logic("bank", multipliers=3248, pes=64, bits=16).high, memories, target)

    assert all(one.fits for one in usage.values())


def test_ese_at_its_own_latency_takes_its_own_board_energy():
    found = energy("column_fifo", device("xcku060"), latency_us=82.7, multipliers=1024, clock_mhz=200, streams=32)

    assert found.uj_per_step == pytest.approx(41 * 82.7 / 32)
    assert found.power_w.origin == "read"
    assert found.why.startswith("calibrated on the board power of ESE, 41 W")


def test_a_board_has_the_energy_of_its_chip():
    found = energy("csr_stream", device("alveo_u280"), latency_us=10, multipliers=128, clock_mhz=237)

    assert found.uj_per_step == pytest.approx(450)


@pytest.mark.parametrize(
    ("engine", "name", "multipliers", "clock_mhz", "why"),
    [
        ("bank", "arria10_gx1150", 64, 100, "no board power of a bank engine on arria10_gx1150 is known"),
        ("column_fifo", "xcu280", 64, 100, "no board power of a column_fifo engine on xcu280 is known"),
        ("csr_stream", "xcu280", 129, 237, "holds up to 128 multipliers at 237 MHz, not for 129 at 237 MHz"),
        ("column_fifo", "xcku060", 1024, 250, "not for 1024 at 250 MHz"),
    ],
)
def test_without_a_calibration_there_is_no_energy_but_a_reason(engine, name, multipliers, clock_mhz, why):
    found = energy(engine, device(name), latency_us=1, multipliers=multipliers, clock_mhz=clock_mhz)

    assert found.uj_per_step is None and found.power_w is None
    assert why in found.why


@given(
    latency=st.floats(0.1, 1e6),
    longer=st.floats(1, 10),
    multipliers=st.integers(1, 1024),
    more=st.integers(0, 1023),
    streams=st.integers(1, 32),
)
def test_energy_never_falls_with_latency_or_multipliers(latency, longer, multipliers, more, streams):
    target = device("xcku060")
    larger = min(1024, multipliers + more)

    few = energy("column_fifo", target, latency_us=latency, multipliers=multipliers, clock_mhz=200, streams=streams)
    many = energy(
        "column_fifo", target, latency_us=latency * longer, multipliers=larger, clock_mhz=200, streams=streams
    )

    assert many.uj_per_step >= few.uj_per_step > 0
