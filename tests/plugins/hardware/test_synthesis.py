"""Resources of the templates by yosys, the resource models beside them, and what a design tells of itself."""

from itertools import product as product_of
from typing import get_args

import pytest
from harness_plugins.hardware._design.resources import logic
from harness_plugins.hardware._devices import device
from harness_plugins.hardware._rtl.cases import MaskRecipe, recorded
from harness_plugins.hardware._rtl.estimates import around, bench_time
from harness_plugins.hardware._rtl.synthesis import Family, Template, find_yosys, synthesise
from harness_plugins.hardware.engines.bank import Bank
from harness_plugins.hardware.engines.column_fifo import ColumnFifo

from harness.api import Conditions, HarnessError, Part, Product

needs_yosys = pytest.mark.skipif(find_yosys() is None, reason="yosys is not installed")


def test_without_yosys_synthesis_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")

    with pytest.raises(HarnessError, match="synthesis takes `yosys`, got none"):
        synthesise("bank_pe", "xc7")


def synthesis_cases():
    """Everything recorded; what takes yosys long, or is there twice, is left to a larger run."""
    for item in recorded().synthesis:
        is_long = item.template == "lstm_cell" or (item.template, item.family) == ("output_lane", "cyclonev")
        yield pytest.param(item, marks=[pytest.mark.slow] if is_long else [], id=f"{item.template} {item.family}")


@pytest.mark.rtl
@needs_yosys
@pytest.mark.parametrize("item", list(synthesis_cases()))
def test_yosys_finds_the_recorded_resources(item):
    fresh = synthesise(item.template, item.family)

    # Tool versions differ in logic, not in multipliers and memories.
    logic_now, logic_then = fresh.model_dump(include={"lut", "ff"}), item.model_dump(include={"lut", "ff"})
    assert logic_now == {kind: pytest.approx(count, rel=0.2) for kind, count in logic_then.items()}
    exact = {"lut", "ff", "tool"}
    assert fresh.model_dump(exclude=exact) == item.model_dump(exclude=exact)


def synthesised(template, family):
    return next(item for item in recorded().synthesis if (item.template, item.family) == (template, family))


def blocks_18k(rams):
    """Blocks of 18 Kbit on Zynq-7000; a RAMB36 is two of them."""
    ram = device("xc7z020").ram
    return sum(ram.blocks(item.width, item.depth) * item.count for item in rams) * ram.bits_each.value // 18432


def test_the_model_counts_the_multipliers_and_ram_blocks_of_the_synthesised_bank_pe():
    mask = MaskRecipe(kind="balanced", rows=60, cols=4096, density=1 / 32).mask(128)
    mask[0, :40] = True  # counts vary: a word has its end-of-row bit and its wave
    engine = Bank(pes=1, lanes=16, banks=128)
    product = Product("layer", (Part("weights", *mask.shape, mask, int(mask.sum())),))
    shape = engine.fixed_shape([product], 16)

    rams = engine.simulate(product, shape, Conditions()).rams

    found = synthesised("bank_pe", "xc7")
    assert shape.multipliers == found.multipliers == 16
    assert next(ram.width for ram in rams if ram.purpose == "weights") == 340
    assert blocks_18k(rams) == found.ram_18k + 2 * found.ram_36k


def test_the_model_counts_the_multipliers_and_ram_blocks_of_the_synthesised_column_pe():
    mask = MaskRecipe(rows=128, cols=40, density=0.09).mask()
    engine = ColumnFifo(pes=1, groups=1)
    product = Product("layer", (Part("weights", *mask.shape, mask, int(mask.sum())),))
    shape = engine.fixed_shape([product], 1)

    rams = engine.simulate(product, shape, Conditions(accumulator_bits=48)).rams

    found = synthesised("column_pe", "xc7")
    inside = [ram for ram in rams if ram.purpose in ("weights", "accumulators")]
    assert shape.multipliers == found.multipliers == 1
    assert [ram.width for ram in inside] == [24, 48]
    assert blocks_18k(inside) == found.ram_18k + 2 * found.ram_36k


def test_the_logic_estimate_of_a_bank_pe_holds_what_yosys_found():
    estimate = logic("bank", multipliers=16, pes=1, bits=16)
    found = synthesised("bank_pe", "xc7")

    assert estimate.low.lut <= found.lut <= estimate.high.lut
    assert estimate.low.ff <= found.ff <= estimate.high.ff


def test_every_template_is_recorded():
    found = {(item.template, item.family) for item in recorded().synthesis}

    # The tables of a cell take yosys more than minutes on Cyclone V.
    assert set(product_of(get_args(Template), get_args(Family))) - found == {("lstm_cell", "cyclonev")}


def test_logic_around_an_engine_is_a_way_out_for_every_pe_and_a_cell_for_every_unit():
    lane, sequencer, cell = (synthesised(part, "xc7") for part in ("output_lane", "sequencer", "lstm_cell"))

    matrix, columns = (
        around(f"{kind}_accelerator", {key: 12, "G": 3}) for kind, key in (("bank", "M"), ("column", "P"))
    )
    layer = around("lstm_accelerator", {"M": 12, "E": 3})

    assert f"about {12 * lane.lut + sequencer.lut:,} LUTs and {12 * lane.ff + sequencer.ff:,} flip-flops" in matrix
    assert matrix == columns
    assert f"about {12 * lane.lut + sequencer.lut + 3 * cell.lut:,} LUTs" in layer


def test_a_bench_takes_longer_with_more_of_everything():
    def seconds(module="column_accelerator", *, pes=1024, vectors=1, cycles=300):
        values = {"G": 1, "P": pes, "M": pes, "N": 1}
        return int(bench_time(module, values, vectors, 260, cycles).split("some ")[1].split(" s")[0].replace(",", ""))

    plain = seconds()

    assert 20 < plain < 100  # 54 were measured
    assert min(seconds(pes=2048), seconds(vectors=2), seconds(cycles=900)) > 1.5 * plain
    assert seconds("bank_accelerator") < plain
