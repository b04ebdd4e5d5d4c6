"""A whole LSTM layer as Verilog: the bank engine, its element-wise part, and h written back without a conflict."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from harness.api import (
    Circuit,
    Conditions,
    Cost,
    Engine,
    EngineShape,
    Mask,
    Operands,
    Product,
    SpecError,
    lstm_outputs,
)

from .._devices import Device
from ..engines.bank import Bank
from .cases import BANK_LATENCY
from .circuits import OUTPUT_LATENCY, Built, files_of, refuse
from .packing import BankWords, address_bits, bits, lines

ELEMENTWISE_LATENCY = 10
"""Cycles of a step beyond its product and one per group of units: sums read out, the cell's eight stages, the end."""

GATES = 4

Integers = NDArray[np.int64]


def most_pes(pes: int) -> int:
    """The most processing elements of a layer within so many: the four gates of a unit leave side by side."""
    return max(GATES, pes - pes % GATES)


def units_at_once(product: Product, pes: int, starts: Sequence[int], lanes: int, most: int) -> tuple[int, Integers]:
    """How many units the element-wise part takes per cycle, and in which order, so that h meets no write port twice.

    Args:
        product: the layer's.
        pes: processing elements, a multiple of four.
        starts: first column of every bank.
        lanes: of a processing element: as many write ports.
        most: units per cycle at most.

    Returns:
        Units per cycle, and units in the order in which they are computed.
    """
    assert product.units is not None
    lane_of = _places(product, starts, lanes)[0]
    beat = pes // GATES
    for each in range(min(beat, lanes, most), 0, -1):
        order = _ordered(lane_of, each) if beat % each == 0 else None
        if order is not None:
            return each, order
    raise AssertionError("one unit at a time meets nobody")


def _places(product: Product, starts: Sequence[int], lanes: int) -> tuple[Integers, Integers, Integers]:
    """Lane, wave and index of every unit's h."""
    assert product.units is not None
    cols = np.arange(product.cols - product.units, product.cols)
    banks = np.searchsorted(starts, cols, side="right") - 1
    return banks % lanes, banks // lanes, cols - np.asarray(starts)[banks]


def _ordered(lane_of: Integers, each: int) -> Integers | None:
    """Units in groups of `each`, all of a group in different lanes; None if there is no such order."""
    waiting = {lane: np.flatnonzero(lane_of == lane).tolist() for lane in sorted(set(lane_of.tolist()))}
    order: list[int] = []
    while waiting:
        # The fullest lanes first: what is left then stays as even as may be.
        fullest = sorted(waiting, key=lambda lane: (-len(waiting[lane]), lane))[:each]
        left = sum(map(len, waiting.values()))
        if len(fullest) < min(each, left):
            return None
        for lane in sorted(fullest):
            order.append(waiting[lane].pop(0))
            if not waiting[lane]:
                del waiting[lane]
    return np.array(order)


def lstm_circuit(
    engine: Engine,
    product: Product,
    shape: EngineShape,
    conditions: Conditions,
    operands: Operands,
    cost: Cost,
    device: Device,
    most: int,
) -> Circuit:
    """A whole LSTM layer as files; `most` units are updated per cycle at most, all else as for `circuits.circuit`.

    Raises:
        SpecError: there is no Verilog for the engine, its shape or the layer.
    """
    refuse(engine, product, operands)
    if not isinstance(engine, Bank) or product.units is None:
        what = engine.name if product.units is not None else f"{product.layer!r}, which is no LSTM layer"
        raise SpecError(f"a whole layer is an LSTM layer on bank, got {what}; leave --whole-layer out")
    pes, lanes = shape["pes"], shape["lanes"]
    if pes % GATES:
        raise SpecError(f"a whole LSTM layer takes a multiple of {GATES} processing elements, got pes={pes}; round it")
    starts = engine.bank_map(product, lanes).starts
    each, units = units_at_once(product, pes, starts, lanes, most)
    ordered = _in_order(product, units)
    order = (np.arange(GATES) * product.units + units[:, None]).ravel()  # gate by gate of one unit after another
    built = _built(engine, ordered, shape, conditions, operands, order, each, units)
    return files_of(f"{engine.name}_lstm_{product.layer}", built, ordered, order, pes, operands, cost, device)


def _in_order(product: Product, units: Integers) -> Product:
    """The same product with its units computed in another order: its rows move, its columns stay."""
    assert product.units is not None
    rows = (np.arange(GATES)[:, None] * product.units + units).ravel()  # tensors are gate by gate

    def moved(mask: Mask | None) -> Mask | None:
        return None if mask is None else mask[rows]

    parts = tuple(replace(part, mask=moved(part.mask)) for part in product.parts)
    return Product(product.layer, parts, product.units)


def _built(
    engine: Bank,
    product: Product,
    shape: EngineShape,
    conditions: Conditions,
    operands: Operands,
    order: Integers,
    each: int,
    units: Integers,
) -> Built:
    cell, form = operands.cell, operands.number_format
    assert cell is not None
    pes, lanes = shape["pes"], shape["lanes"]
    bank_map = engine.bank_map(product, lanes)
    waves = -(-bank_map.count // lanes)
    words = BankWords(
        bank_map.starts, lanes, form.weight_bits, address_bits(bank_map.longest), address_bits(waves)
    )  # fmt: skip
    run = engine.simulate(product, shape, conditions)
    weights, mask = operands.weights[order], product.mask
    streams: list[list[int]] = [[] for _ in range(pes)]
    for row in range(product.rows):
        streams[row % pes] += words.row(weights[row], mask[row])
    groups = -(-len(units) // each)
    product_cycles = int(run.issue_cycles) + (lanes - 1).bit_length() + BANK_LATENCY + OUTPUT_LATENCY
    cycles = product_cycles + groups + ELEMENTWISE_LATENCY
    outputs = np.zeros((len(operands.vectors), groups * each), dtype=np.int64)
    outputs[:, : len(units)] = lstm_outputs(operands)[:, units]
    beats = _x_beats(product, words, bank_map.longest)
    values = {
        "M": pes, "N": lanes, "E": each, "UNITS": len(units), "WAVES": waves, "LONGEST": bank_map.longest,
        "X_BEATS": len(beats), "LOCKSTEP": int(engine.lockstep), "STATE_EXPONENT": cell.state_exponent,
        "H_EXPONENT": cell.vector_exponent,
    }  # fmt: skip
    return Built(
        module="lstm_accelerator",
        values=values,
        memories=streams,
        outputs=outputs.reshape(-1, each),
        output_bits=2 * form.activation_bits,
        beats=[_x_words(vector, product, beats, words, form.activation_bits) for vector in operands.vectors],
        input_bits=lanes * form.activation_bits,
        cycles=cycles,
        told=_told(engine, product, waves, words, pes, each, cycles, product_cycles, len(beats), operands),
        more=_memories(product, words, beats, each, units, operands),
    )


def _x_beats(product: Product, words: BankWords, longest: int) -> list[tuple[int, int, dict[int, int]]]:
    """Places of the vector RAMs with an element of x: wave, index, and the column in every lane that has one."""
    assert product.units is not None
    inputs = product.cols - product.units
    found: dict[tuple[int, int], dict[int, int]] = {}
    for bank, start in enumerate(words.starts):
        end = words.starts[bank + 1] if bank + 1 < len(words.starts) else product.cols
        wave, lane = divmod(bank, words.lanes)
        for column in range(start, min(end, inputs)):
            found.setdefault((wave, column - start), {})[lane] = column
    return [(wave, index, lanes) for (wave, index), lanes in sorted(found.items())]


def _x_words(
    vector: Integers, product: Product, beats: list[tuple[int, int, dict[int, int]]], words: BankWords, width: int
) -> list[int]:
    values = vector.tolist()
    return [sum(bits(values[column], width) << (lane * width) for lane, column in each.items()) for _, _, each in beats]


def _memories(
    product: Product,
    words: BankWords,
    beats: list[tuple[int, int, dict[int, int]]],
    each: int,
    units: Integers,
    operands: Operands,
) -> dict[str, str]:
    """Where every beat of x and every h belongs, and the tables."""
    cell = operands.cell
    assert cell is not None
    width = operands.number_format.activation_bits
    place = words.wave_bits + words.index_bits
    lane_of, wave_of, index_of = _places(product, words.starts, words.lanes)
    files = {
        "places.hex": lines(
            sum(1 << lane for lane in lanes) << place | wave << words.index_bits | index for wave, index, lanes in beats
        ),
        "sigmoid.hex": lines(bits(value, width) for value in cell.sigmoid.tolist()),
        "tanh.hex": lines(bits(value, width) for value in cell.tanh.tolist()),
    }
    of_units = (lane_of << place | wave_of << words.index_bits | index_of)[units].tolist()
    files["order.txt"] = "".join(f"{unit}\n" for unit in units.tolist())
    of_units += [0] * (-len(of_units) % each)
    return files | {f"units_{at:04d}.hex": lines(of_units[at::each]) for at in range(each)}


def _told(
    engine: Bank,
    product: Product,
    waves: int,
    words: BankWords,
    pes: int,
    each: int,
    cycles: int,
    product_cycles: int,
    beats: int,
    operands: Operands,
) -> dict[str, str]:
    cell = operands.cell
    assert cell is not None and product.units is not None
    width = operands.number_format.activation_bits
    groups = -(-product.units // each)
    return {
        "shape": f"the whole LSTM layer, {pes} processing elements of {words.lanes} lanes"
        + (", in lockstep" if engine.lockstep else "")
        + f", {each} units updated per cycle",
        "banks": f"{len(words.starts)} per row, in waves of {words.lanes}: {waves}",
        "weight word": f"{words.width} bits: end of row, {words.wave_bits} of the wave, {words.lanes} x "
        f"({words.index_bits} of the index + {words.value_bits} of the weight)",
        "x": f"{beats} beats of {words.lanes} elements of {width} bits, at places that `mem/places.hex` names: from "
        "the top of a word the lanes that have an element of x, the wave, the index; steps of 2^"
        f"{cell.vector_exponent}",
        "units": f"computed in an order in which {each} neighbours lie in different lanes: `mem/units_*.hex` has the "
        "lane, wave and index to which every unit's h is written",
        "y": f"{groups} beats of {each} units in the order of `mem/order.txt`: o * tanh(c), exactly, {2 * width} bits, "
        f"steps of 2^{2 - 2 * width}",
        "state": f"c has {width} bits and steps of 2^{cell.state_exponent}; sigmoid and tanh are tables of "
        f"{len(cell.tanh)} entries, {cell.per_unit} per unit",
        "cycles": f"{cycles} per step: {product_cycles} of the product, {groups} of {each} units each, "
        f"{ELEMENTWISE_LATENCY} of the pipeline; no write of h ever waits",
    }
