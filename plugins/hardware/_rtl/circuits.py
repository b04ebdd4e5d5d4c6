"""A design as Verilog: our engine in the chosen shape, with the memories of one layer and a bench of its own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.api import Circuit, Conditions, Cost, Engine, EngineShape, Operands, Product, Run, SpecError

from .._devices import Device
from ..engines.bank import Bank
from ..engines.column_fifo import DRAIN, ColumnFifo
from .cases import BANK_LATENCY, COLUMN_DRAIN_LATENCY
from .estimates import around, bench_time
from .packing import BankWords, address_bits, bits, column_streams, lines
from .simulate import FULL_FLAGS, SOURCES
from .texts import makefile, quartus_script, readme, vivado_script, yosys_script

OUTPUT_LATENCY = 4
"""Cycles from an engine's last sum to the result in its memory: bias, shift, saturation, write."""

BENCH = "accelerator_bench"

_COMMON = ("ram", "stream", "requantise", "beats", "output_lane", "outputs", "sequencer")
_BANK = (*_COMMON, "adder_tree", "bank_pe", "bank_engine")
_SOURCES = {
    "bank_accelerator": (*_BANK, "bank_accelerator"),
    "lstm_accelerator": (*_BANK, "rescale", "lookup", "lstm_cell", "lstm_accelerator"),
    "column_accelerator": (*_COMMON, "column_pe", "column_engine", "column_accelerator"),
}

_MOST_PES = 10_000
"""Processing elements: files of memories are numbered with four digits."""

_WIDEST_SHIFT = 127
"""What a signed shift of eight bits can say."""

Value = int | str
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Built:
    """What an engine makes of a layer.

    Args:
        module: the accelerator's module.
        values: its parameters.
        memories: the words of every processing element's weights.
        outputs: what leaves, a row per beat.
        output_bits: of a value of it.
        beats: words of one vector, by item.
        input_bits: of a beat.
        cycles: from the start of a product to its last result.
        told: facts for the reader.
        more: texts of other memories, by file name.
    """

    module: Literal["bank_accelerator", "column_accelerator", "lstm_accelerator"]
    values: Mapping[str, Value]
    memories: Sequence[Sequence[int]]
    outputs: Integers
    output_bits: int
    beats: Sequence[Sequence[int]]
    input_bits: int
    cycles: int
    told: Mapping[str, str]
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def output_beats(self) -> int:
        """Beats of one vector's results."""
        return len(self.outputs) // len(self.beats)


def circuit(
    engine: Engine,
    product: Product,
    shape: EngineShape,
    conditions: Conditions,
    operands: Operands,
    cost: Cost,
    device: Device,
) -> Circuit:
    """A design as files.

    Args:
        engine: with its parameters.
        product: the layer.
        shape: the sizes that were chosen.
        conditions: what it was costed under.
        operands: the integers of the layer, rows as in its tensors.
        cost: of the design.
        device: what it is for.

    Raises:
        SpecError: there is no Verilog for this engine, one of its parameters, the number format or the layer.
    """
    refuse(engine, product, operands)
    order = engine_rows(product)
    run = engine.simulate(product, shape, conditions)
    if isinstance(engine, Bank):
        built = _bank(engine, product, shape, run, order, operands)
    else:
        assert isinstance(engine, ColumnFifo)
        built = _column(engine, product, shape, run, order, operands)
    return files_of(f"{engine.name}_{product.layer}", built, product, order, shape["pes"], operands, cost, device)


def files_of(
    name: str,
    built: Built,
    product: Product,
    order: Integers,
    columns: int,
    operands: Operands,
    cost: Cost,
    device: Device,
) -> Circuit:
    """A design as files.

    Args:
        name: of its top module, nearly.
        built: what the engine makes of the layer.
        product: the layer.
        order: the tensors' row of every row of the engine.
        columns: processing elements that rows are dealt to.
        operands: the integers of the layer.
        cost: of the design.
        device: what it is for.
    """
    top = _module_name(name)
    constants = _constants(operands, order, columns)
    files = {f"rtl/{name}.v": (SOURCES / f"{name}.v").read_text() for name in _SOURCES[built.module]}
    values = {**built.values, **constants.values, **_styles(cost, device, built.module)}
    files["rtl/design.vh"] = _defines(top, built)
    files["rtl/top.v"] = _top(top, built, values, operands)
    files |= {f"mem/{name}": text for name, text in _memory_files(built, constants).items()}
    files |= {f"mem/{name}": text for name, text in built.more.items()} | _bench(built)
    sources = [*(f"rtl/{name}.v" for name in _SOURCES[built.module]), "rtl/top.v"]
    files["Makefile"] = makefile(sources, top)
    files["synth/yosys.ys"] = yosys_script(sources, top, device.entry.family)
    files["synth/vivado.tcl"] = vivado_script(sources, top, cost.clock_mhz)
    files["synth/quartus.tcl"] = quartus_script(sources, top, cost.clock_mhz)
    told = {
        **built.told,
        **constants.told,
        "around the engine": around(built.module, built.values),
        "bench": bench_time(
            built.module, built.values, len(built.beats), built.output_beats + len(built.beats[0]), built.cycles
        ),
    }
    files["README.md"] = readme(top, product, operands, cost, told)
    return Circuit(top, files, cost, built.cycles, told)


def engine_rows(product: Product) -> Integers:
    """The tensors' row of every row of an engine: unit by unit where the layer is an LSTM, else as they are."""
    rows = np.arange(product.rows)
    return rows if product.units is None else rows.reshape(-1, product.units).T.ravel()


def refuse(engine: Engine, product: Product, operands: Operands) -> None:
    """Raise SpecError where there is no Verilog."""
    if not isinstance(engine, Bank | ColumnFifo):
        raise SpecError(f"engine {engine.name} has no Verilog; name bank or column_fifo")
    if operands.number_format.codebook is not None:
        raise SpecError(
            f"the Verilog holds weights and no codebook, got codebook={operands.number_format.codebook}; leave it out"
        )
    if not product.has_masks:
        raise SpecError(f"a circuit holds weights, got only the number of non-zeros of {product.layer!r}; give masks")
    if isinstance(engine, Bank) and engine.batch > 1:
        raise SpecError(f"the Verilog of bank serves one input at a time, got batch={engine.batch}; leave it out")
    if isinstance(engine, ColumnFifo):
        plain = ColumnFifo()
        for name in ("channels", "index_bits", "empty_column_cycles"):
            if getattr(engine, name) != getattr(plain, name):
                raise SpecError(
                    f"the Verilog of column_fifo has {name}={getattr(plain, name)}, got {getattr(engine, name)}; "
                    "leave it out"
                )
        if engine.skip and product.activation_density < 1:
            raise SpecError(
                f"the Verilog of column_fifo broadcasts every column, got an activation density of "
                f"{product.activation_density:g} with skip=true; set skip=false"
            )


# --- engines --------------------------------------------------------------------------------------------------------


def _bank(engine: Bank, product: Product, shape: EngineShape, run: Run, order: Integers, operands: Operands) -> Built:
    pes, lanes, form = shape["pes"], shape["lanes"], operands.number_format
    bank_map, weights = engine.bank_map(product, lanes), operands.weights[order]
    waves = -(-bank_map.count // lanes)
    words = BankWords(
        bank_map.starts, lanes, form.weight_bits, address_bits(bank_map.longest), address_bits(waves)
    )  # fmt: skip
    mask = product.mask
    streams: list[list[int]] = [[] for _ in range(pes)]
    for row in range(product.rows):
        streams[row % pes] += words.row(weights[row], mask[row])
    values = {
        "M": pes, "N": lanes, "ROWS": product.rows, "WAVES": waves, "LONGEST": bank_map.longest,
        "LOCKSTEP": int(engine.lockstep),
    }  # fmt: skip
    told = {
        "shape": f"{pes} processing elements of {lanes} lanes" + (", in lockstep" if engine.lockstep else ""),
        "banks": f"{bank_map.count} per row of at most {bank_map.longest} columns ({bank_map.why}), in waves of "
        f"{lanes}: {waves}",
        "weight word": f"{words.width} bits: end of row, {words.wave_bits} of the wave, {lanes} x ({words.index_bits} "
        f"of the index + {words.value_bits} of the weight)",
        "x": f"{waves * bank_map.longest} beats of {lanes} elements of {form.activation_bits} bits; element n of beat "
        f"w * {bank_map.longest} + i is element i of bank w * {lanes} + n, zero where a bank has none",
    }
    cycles = int(run.issue_cycles) + (lanes - 1).bit_length() + BANK_LATENCY + OUTPUT_LATENCY
    beats = [words.vector(vector, bank_map.longest, form.activation_bits) for vector in operands.vectors]
    return Built(
        "bank_accelerator", values, streams, _dealt(operands.outputs[:, order], pes), operands.output_bits, beats,
        lanes * form.activation_bits, cycles,
        told | _taken(run, cycles, product.rows, pes),
    )  # fmt: skip


def _column(
    engine: ColumnFifo, product: Product, shape: EngineShape, run: Run, order: Integers, operands: Operands
) -> Built:
    pes, groups, form = shape["pes"], shape["groups"], operands.number_format
    each, weights = -(-product.rows // pes), operands.weights[order]
    row_bits = address_bits(each)
    streams = column_streams(weights, product.mask, pes, groups, form.weight_bits, row_bits)
    beats_each = -(-product.cols // groups)
    values = {
        "G": groups, "P": pes, "ROWS": product.rows, "COLS": product.cols, "FIFO_DEPTH": engine.fifo_depth,
        "FULL_FLAG": FULL_FLAGS[engine.full_flag],
    }  # fmt: skip
    told = {
        "shape": f"{groups} groups of {pes} processing elements, FIFOs of {engine.fifo_depth} ({engine.full_flag} full "
        "flag)",
        "weight word": f"{1 + row_bits + form.weight_bits} bits: end of column, {row_bits} of the row, "
        f"{form.weight_bits} of the weight",
        "x": f"{beats_each} beats of {groups} elements of {form.activation_bits} bits; element g of beat b is column "
        f"b * {groups} + g, zero behind the last",
    }
    padded = np.zeros((len(operands.vectors), beats_each * groups), dtype=np.int64)
    padded[:, : product.cols] = operands.vectors
    beats = [
        [
            sum(bits(value, form.activation_bits) << (place * form.activation_bits) for place, value in enumerate(beat))
            for beat in vector.reshape(beats_each, groups).tolist()
        ]
        for vector in padded
    ]
    reduction = run.parts.get("reduction", Fraction(0))
    finish = int(run.cycles - reduction) - DRAIN
    cycles = finish + each + COLUMN_DRAIN_LATENCY + OUTPUT_LATENCY
    return Built(
        "column_accelerator", values, streams, _dealt(operands.outputs[:, order], pes), operands.output_bits, beats,
        groups * form.activation_bits, cycles,
        told | _taken(run, cycles, product.rows, pes),
    )  # fmt: skip


def _taken(run: Run, cycles: int, rows: int, columns: int) -> dict[str, str]:
    """How long a product takes, and in which beats its results leave."""
    model = run.cycles.__ceil__()
    return {
        "cycles": f"{cycles} from the start of a product to its last result in memory, in which the cost model's "
        f"{model} of this product are",
        "y": f"{-(-rows // columns)} beats of {columns} results; result r is value r mod {columns} of beat "
        f"r / {columns}, zero behind the last",
    }


# --- files ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Constants:
    """Bias and shift of every row, as parameters where they are the same, else as words of processing elements."""

    values: Mapping[str, Value]
    memories: Sequence[Sequence[int]]
    told: Mapping[str, str]


def _constants(operands: Operands, order: Integers, columns: int) -> _Constants:
    width = operands.number_format.accumulator_bits
    # Beyond these nothing changes: every sum rounds to zero, or saturates.
    shifts = np.clip(operands.shifts, -operands.output_bits, width + 1)[order]
    bias = operands.bias[order]
    left = int(max(0, -shifts.min()))
    common = len(set(shifts.tolist())) == 1 and not bias.any()
    values: dict[str, Value] = {
        "SUM_BITS": width, "OUT_BITS": operands.output_bits, "LEFT": left, "PER_ROW": int(not common),
    }  # fmt: skip
    says = f"sums of {width} bits become results of {operands.output_bits}"
    if common:
        shift = int(shifts[0])
        values["SHIFT"] = f"-8'sd{-shift}" if shift < 0 else f"8'sd{shift}"
        return _Constants(values, (), {"requantisation": f"{says}: divided by 2^{shift}, half up, saturated"})
    memories = [
        [bits(shift, 8) << width | bits(each, width) for shift, each in zip(own, biases, strict=True)]
        for own, biases in (
            (shifts[pe::columns].tolist(), bias[pe::columns].tolist()) for pe in range(columns)
        )
    ]  # fmt: skip
    least, most = int(shifts.min()), int(shifts.max())
    span = f"2^{least}" if least == most else f"2^{least} to 2^{most}, row by row"
    return _Constants(
        values, memories, {"requantisation": f"{says}: with the row's bias, divided by {span}, half up, saturated"}
    )


def _memory_files(built: Built, constants: _Constants) -> dict[str, str]:
    """Every memory filled up to its depth, so that no simulator asks for what is missing."""
    depth = max(1, *map(len, built.memories))
    files = {
        f"weights_{pe:04d}.hex": lines([*words, *[0] * (depth - len(words))]) for pe, words in enumerate(built.memories)
    }
    rows = max(map(len, constants.memories), default=0)
    return files | {
        f"constants_{pe:04d}.hex": lines([*words, *[0] * (rows - len(words))])
        for pe, words in enumerate(constants.memories)
    }


def _dealt(outputs: Integers, columns: int) -> Integers:
    """Results in the order in which they leave, a row per beat, zero behind the last.

    Shapes:
        outputs (items, rows) -> (items * beats, columns).
    """
    items, rows = outputs.shape
    padded = np.zeros((items, -(-rows // columns) * columns), dtype=np.int64)
    padded[:, :rows] = outputs
    return padded.reshape(-1, columns)


def _bench(built: Built) -> dict[str, str]:
    """The vectors as beats, what should leave for each, and the bench that compares."""
    width = built.output_bits
    expected = (
        sum(bits(value, width) << (place * width) for place, value in enumerate(beat))
        for beat in built.outputs.tolist()
    )
    return {
        "bench/vectors.hex": lines(word for vector in built.beats for word in vector),
        "bench/expected.hex": lines(expected),
        f"bench/{BENCH}.v": (SOURCES / f"{BENCH}.v").read_text(),
    }


def _defines(top: str, built: Built) -> str:
    sizes = {
        "TOP": top,
        "X_BITS": built.input_bits,
        "Y_BITS": built.outputs.shape[1] * built.output_bits,
        "X_BEATS": len(built.beats[0]),
        "Y_BEATS": built.output_beats,
        "VECTORS": len(built.beats),
        "CYCLES": built.cycles,
    }
    return "// What the bench runs.\n" + "".join(f"`define {name} {value}\n" for name, value in sizes.items())


def _top(top: str, built: Built, values: Mapping[str, Value], operands: Operands) -> str:
    form = operands.number_format
    counts = [len(words) for words in built.memories]
    depth = max(1, *counts)
    width = address_bits(depth) + 1
    packed = sum(count << (width * pe) for pe, count in enumerate(counts))
    parameters = {
        **values, "WEIGHT_BITS": form.weight_bits, "VECTOR_BITS": form.activation_bits, "DEPTH_BITS": width - 1,
        "WORDS": depth, "COUNTS": f"{width * len(counts)}'h{packed:x}",
    }  # fmt: skip
    given = ",\n".join(f"      .{name}({value})" for name, value in sorted(parameters.items()))
    y_bits = built.outputs.shape[1] * built.output_bits
    return f"""// {top}: the parameters of this design; what the ports mean is told in README.md.
module {top} (
    input wire clk,
    input wire rst,
    input wire x_valid,
    output wire x_ready,
    input wire [{built.input_bits - 1}:0] x_data,
    output wire busy,
    output wire done,
    output wire [31:0] cycles,
    output wire y_valid,
    input wire y_ready,
    output wire [{y_bits - 1}:0] y_data,
    output wire y_last
);
  {built.module} #(
{given}
  ) accelerator (
      .clk(clk),
      .rst(rst),
      .x_valid(x_valid),
      .x_ready(x_ready),
      .x_data(x_data),
      .busy(busy),
      .done(done),
      .cycles(cycles),
      .y_valid(y_valid),
      .y_ready(y_ready),
      .y_data(y_data),
      .y_last(y_last)
  );
endmodule
"""


_VIVADO = {"bram_18k": "block", "bram_36k": "block", "uram": "ultra"}
_PURPOSES = {"weights": "WEIGHT", "vector": "VECTOR", "accumulators": "SUM"}


def _styles(cost: Cost, device: Device, module: str) -> dict[str, Value]:
    """RAM styles as the cost has placed the memories; a memory that it splits over two kinds is left to the tool."""
    rams = cost.details.get("ram")
    assert isinstance(rams, dict)
    found: dict[str, Value] = {}
    for purpose, name in _PURPOSES.items():
        if name == "SUM" and module != "column_accelerator":
            continue
        kinds = [kind for kind, purposes in rams.items() if isinstance(purposes, dict) and purposes.get(purpose)]
        if len(kinds) != 1:
            continue
        kind = kinds[0]
        if device.entry.ram.kind in _VIVADO:
            found[f"{name}_STYLE"] = f'"{"distributed" if kind == "distributed" else _VIVADO.get(kind, "auto")}"'
        else:
            found[f"{name}_STYLE_INTEL"] = f'"{"MLAB" if kind == "distributed" else kind.upper()}"'
    return found


def _module_name(name: str) -> str:
    """A name that Verilog takes."""
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:60] + "_top"
