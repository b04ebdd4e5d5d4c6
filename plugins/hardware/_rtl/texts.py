"""What stands beside the Verilog of a design: its README, a Makefile, scripts for synthesis."""

from collections.abc import Mapping, Sequence

from harness.api import Cost, Operands, Product

_YOSYS = {
    "Zynq-7000": "synth_xilinx -family xc7 -flatten",
    "Virtex-7": "synth_xilinx -family xc7 -flatten",
    "Kintex UltraScale": "synth_xilinx -family xcu -flatten",
    "Zynq UltraScale+": "synth_xilinx -family xcup -flatten",
    "Virtex UltraScale+": "synth_xilinx -family xcup -flatten",
    "Virtex UltraScale+ HBM": "synth_xilinx -family xcup -flatten",
    "Arria 10": "synth_intel_alm -family arria10gx",
}
"""How yosys synthesises for a family; families that it does not know are synthesised for Cyclone V or 7 series."""


def makefile(sources: Sequence[str], top: str) -> str:
    """Targets for Icarus, Verilator and yosys, each from the design's folder."""
    files = " ".join(sources)
    return f"""# The bench ends with an error if one product or one cycle differs.
SOURCES = {files}
BENCH = bench/accelerator_bench.v
BUILD ?= build

.PHONY: test icarus verilator lint yosys vivado quartus clean
test: icarus

icarus: $(BUILD)
\tiverilog -g2012 -I rtl -s accelerator_bench -o $(BUILD)/bench.vvp $(SOURCES) $(BENCH)
\tvvp -n $(BUILD)/bench.vvp

verilator: $(BUILD)
\tverilator --binary --timing -Wno-fatal -Irtl --top-module accelerator_bench --Mdir $(BUILD)/verilator \\
\t  -o bench $(SOURCES) $(BENCH)
\t$(BUILD)/verilator/bench

# Two waivers: the top module is called after the layer and lies in top.v; styles of memories are for synthesis alone.
lint:
\tverilator --lint-only --timing -Wall -Wno-DECLFILENAME -Wno-UNUSEDPARAM -Irtl --top-module accelerator_bench \\
\t  $(SOURCES) $(BENCH)

yosys:
\tyosys -q synth/yosys.ys

vivado:
\tvivado -mode batch -source synth/vivado.tcl

quartus:
\tquartus_sh -t synth/quartus.tcl

$(BUILD):
\tmkdir -p $(BUILD)

clean:
\trm -rf $(BUILD)
"""


def yosys_script(sources: Sequence[str], top: str, family: str) -> str:
    """Synthesis by yosys, resources printed; run in the design's folder."""
    command = _YOSYS.get(family, "synth_intel_alm -family cyclonev" if "Stratix" in family else "synth_xilinx -flatten")
    note = "" if family in _YOSYS else f"# yosys has no flow for {family}: a family near it\n"
    return f"""# yosys -q synth/yosys.ys
{note}read_verilog -defer -sv -I rtl {" ".join(sources)}
{command} -top {top}
tee -o yosys_resources.txt stat
"""


def vivado_script(sources: Sequence[str], top: str, clock_mhz: float) -> str:
    """Out-of-context synthesis by Vivado; never run here."""
    files = " ".join(sources)
    return f"""# vivado -mode batch -source synth/vivado.tcl, in the design's folder. Set the part first.
set part [expr {{[info exists ::env(PART)] ? $::env(PART) : "xc7z020clg400-1"}}]
read_verilog -sv [list {files}]
read_mem [glob mem/*.hex]
synth_design -top {top} -part $part -mode out_of_context -include_dirs rtl
create_clock -period {1e3 / clock_mhz:.3f} -name clk [get_ports clk]
opt_design
place_design
route_design
report_utilization -file vivado_utilisation.txt
report_timing_summary -file vivado_timing.txt
"""


def quartus_script(sources: Sequence[str], top: str, clock_mhz: float) -> str:
    """A project for Quartus; never run here."""
    files = "\n".join(f"set_global_assignment -name SYSTEMVERILOG_FILE {source}" for source in sources)
    return f"""# quartus_sh -t synth/quartus.tcl, in the design's folder. Set the device first.
load_package flow
project_new {top} -overwrite
set_global_assignment -name FAMILY "Arria 10"
set_global_assignment -name DEVICE [expr {{[info exists ::env(DEVICE)] ? $::env(DEVICE) : "10AX115N2F45E1SG"}}]
set_global_assignment -name TOP_LEVEL_ENTITY {top}
{files}
set sdc [open {top}.sdc w]
puts $sdc "create_clock -name clk -period {1e3 / clock_mhz:.3f} \\[get_ports clk\\]"
close $sdc
set_global_assignment -name SDC_FILE {top}.sdc
execute_flow -compile
project_close
"""


def readme(
    top: str,
    product: Product,
    operands: Operands,
    cost: Cost,
    told: Mapping[str, str],
) -> str:
    """What the design is, how it is driven and run, and what the models say of it."""
    form = operands.number_format
    matrices = ", ".join(f"{part.tensor} ({part.rows} x {part.cols}, {part.kept} kept)" for part in product.parts)
    order = (
        f"Rows are unit-major: row 4u + k is gate k (i, f, g, o) of unit u of {product.units}"
        + (", in the order of `mem/order.txt`." if operands.cell is not None else ".")
        if product.units is not None
        else "Rows are those of the matrix."
    )
    facts = "\n".join(f"- **{name}**: {text}" for name, text in told.items())
    origin = "\n".join(f"- {sentence}" for sentence in operands.origin)
    is_whole = operands.cell is not None
    what = "A whole LSTM layer, step after step" if is_whole else "One matrix-vector product after another"
    left_out = (
        "The model overlaps the element-wise part with the product, and here it follows the product."
        if is_whole
        else "The model's cycles and memories include an LSTM layer's element-wise part, which is not in this design."
    )
    return f"""# {top}

{what}: `{product.layer}`, {product.rows} x {product.cols}, {product.nnz} weights kept.
Matrices side by side: {matrices}.
{order}
Numbers: {form.label()}: weights of {form.weight_bits} bits, vectors of {form.activation_bits}, sums that wrap around
at {form.accumulator_bits}.

{facts}

{origin}

## Ports

| port | meaning |
| --- | --- |
| `clk`, `rst` | clock; synchronous reset, high for at least one cycle before the first vector |
| `x_valid`, `x_ready`, `x_data` | a stream of vectors, beat by beat; element 0 of a beat is in the lowest bits |
| `y_valid`, `y_ready`, `y_data`, `y_last` | a stream of results likewise; `y_last` marks a product's last beat |
| `busy` | a vector is there, a product runs, or results wait |
| `done` | for one cycle after the last result of a product is in memory |
| `cycles` | what the last product took, from its start to there |

{"A reset sets h and c to zero." if is_whole else "A product does not depend on the one before it."}
Vectors and results have two buffers each: while a product runs, the next vector comes in and the last result goes out.
Reset it for a cycle, offer vectors on `x`, take results from `y`: nothing else is needed.
A product starts by itself when its vector is complete, the one before it is done and a result buffer is free.

## Run it

`make icarus` or `make verilator` runs `bench/accelerator_bench.v`: all vectors one behind the other, then, after a
reset in the middle of a product, all of them with pauses on both streams. It compares the results of
{len(operands.vectors)} vectors bit for bit, and the cycles of every product; it ends with an error if one differs.
`make yosys` counts primitives.
`synth/vivado.tcl` and `synth/quartus.tcl` are where to begin with vendors' tools: they have never been run.

## What the cost model says

| what | modelled |
| --- | --- |
| engine | {cost.engine}, {cost.shape} |
| cycles of a time step or item | {cost.cycles} |
| clock | {cost.clock_mhz:g} MHz ({cost.clock_origin}) |
| multipliers, DSP blocks | {cost.multipliers}, {cost.dsp} |
| RAM blocks ({cost.ram_kind}) | {cost.ram_blocks} |
| LUTs, flip-flops of the engine, indicative | {"not known" if cost.lut is None else f"up to {cost.lut}, {cost.ff}"} |
| fits | {"yes" if cost.fits else "no"} |

{left_out}
Its memories are as deep as they must be; here the vector memory's banks are addressed by powers of two, so that it may
be up to four times as deep, and results have two buffers that the model does not count.
"""
