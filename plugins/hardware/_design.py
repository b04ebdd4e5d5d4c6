"""An engine of one shape on one device: cycles of every product, memories, multipliers, and whether it fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from harness.api import Frozen

from ._bank import Issue
from ._devices import Device
from ._products import Shape

VectorMemory = Literal["auto", "distributed", "block"]
EngineName = Literal["bank", "dense_mvm"]

_STREAM_WORDS = 64
"""Words of weight RAM that every PE sets aside for weights streamed from off-chip memory: a burst's worth, twice."""


class Numerics(Frozen):
    """Widths and constants that a design is costed with.

    Args:
        weight_bits: bits of a weight.
        activation_bits: bits of a vector element.
        elementwise_units: units of the LSTM's element-wise part per cycle.
        elementwise_latency: cycles from a unit's last product to its output.
        serial_cycles: cycles added to every product, e.g. a launch.
        clock_mhz: the clock.
        bytes_per_us: what the off-chip memory delivers, or None if unknown.
        vector_memory: what the vector RAMs are made of.
    """

    weight_bits: int
    activation_bits: int
    elementwise_units: int
    elementwise_latency: int
    serial_cycles: int
    clock_mhz: float
    bytes_per_us: float | None
    vector_memory: VectorMemory

    @property
    def operand_bits(self) -> int:
        """Bits that a multiplier takes."""
        return max(self.weight_bits, self.activation_bits)


@dataclass(frozen=True)
class Mapped:
    """One product laid on an engine.

    Args:
        shape: the product.
        nnz: weights kept.
        issue: its issue cycles and words.
        lanes: lanes that have a bank.
        word_bits: bits of one weight word of a PE.
        vector_words: words of one lane's vector RAM.
    """

    shape: Shape
    nnz: int
    issue: Issue
    lanes: int
    word_bits: int
    vector_words: int


@dataclass(frozen=True)
class Layer:
    """The cycles of one product, all of them, and the share of its weights that is streamed from off-chip memory."""

    mapped: Mapped
    parts: dict[str, Fraction]
    streamed: Fraction

    @property
    def cycles(self) -> Fraction:
        """The sum of the parts."""
        return sum(self.parts.values(), Fraction(0))


@dataclass(frozen=True)
class Usage:
    """How much of one resource is used, and how much there is under the ceiling."""

    used: int
    available: int
    ceiling: float

    @property
    def share(self) -> float:
        """Fraction of the ceiling."""
        return self.used / (self.available * self.ceiling) if self.available else float(self.used > 0)


@dataclass(frozen=True)
class Memory:
    """RAM blocks by use, distributed RAM of the vectors, and the share of every product's weights that is streamed."""

    weights: int
    state: int
    vectors: int
    distributed: int
    streamed: tuple[Fraction, ...]

    @property
    def blocks(self) -> int:
        """RAM blocks in total."""
        return self.weights + self.state + self.vectors


@dataclass(frozen=True)
class Design:
    """An engine of one shape with everything that runs on it."""

    engine: EngineName
    pes: int
    lanes: int
    layers: tuple[Layer, ...]
    memory: Memory
    dsp: int
    usage: dict[str, Usage]
    has_bandwidth: bool

    @property
    def cycles(self) -> Fraction:
        """Cycles of one time step or item."""
        return sum((layer.cycles for layer in self.layers), Fraction(0))

    @property
    def multipliers(self) -> int:
        """Multipliers of the array."""
        return self.pes * self.lanes

    @property
    def is_resident(self) -> bool:
        """Whether all weights stay on chip."""
        return not any(self.memory.streamed)

    @property
    def is_under_ceilings(self) -> bool:
        """Whether every resource stays below its ceiling."""
        return all(usage.share <= 1 for usage in self.usage.values())

    @property
    def fits(self) -> bool:
        """Whether it can be built with all weights on chip."""
        return self.is_resident and self.is_under_ceilings

    @property
    def rank(self) -> tuple[bool, Fraction, int, int]:
        """What a search minimises: that it can run at all, cycles, RAM blocks; at a tie more lanes."""
        runs = self.is_under_ceilings and (self.is_resident or self.has_bandwidth)
        return not runs, self.cycles, self.memory.blocks, -self.lanes

    def parts(self) -> dict[str, Fraction]:
        """Where the cycles go, summed over the layers."""
        totals: dict[str, Fraction] = {}
        for layer in self.layers:
            for name, cycles in layer.parts.items():
                totals[name] = totals.get(name, Fraction(0)) + cycles
        return totals


def fill_drain(lanes: int) -> int:
    """Cycles that fill and drain the pipeline once: the adder tree and four registers."""
    return (lanes - 1).bit_length() + 4


def elementwise(shape: Shape, issue: Issue, pes: int, numerics: Numerics) -> Fraction:
    """Cycles of the LSTM's element-wise part that its matrix product does not hide.

    Rows are unit-major, so units leave while later rows are still at work: what stays is the units of the last group of
    rows, or the backlog if there are too few element-wise units.
    """
    if shape.units is None:
        return Fraction(0)
    gates = shape.rows // shape.units
    first = (-(-shape.rows // pes) - 1) * pes  # first row of the last group
    last_units = (shape.rows - 1) // gates - first // gates + 1
    each = numerics.elementwise_units
    backlog = -(-shape.units // each) - issue.cycles + issue.last
    return max(Fraction(-(-last_units // each)), backlog) + numerics.elementwise_latency


def design(
    engine: EngineName,
    mapped: Sequence[Mapped],
    pes: int,
    lanes: int,
    device: Device,
    numerics: Numerics,
) -> Design:
    """Put products on an engine of M = `pes` by N = `lanes` multipliers.

    The products run one after another. All weights that fit stay on chip; the others are streamed anew for every item
    while their product runs.
    """
    copies = pes if engine == "bank" else 1  # a dot-product array reads one vector for all rows
    memory = _memory(mapped, pes, copies, device, numerics)
    layers = tuple(
        Layer(item, _parts(item, pes, lanes, streamed, numerics), streamed)
        for item, streamed in zip(mapped, memory.streamed, strict=True)
    )
    products = pes * lanes + 3 * numerics.elementwise_units * any(item.shape.units is not None for item in mapped)
    packing = int(device.products_per_dsp(numerics.operand_bits).value)
    dsp = -(-products // packing)
    return Design(
        engine=engine,
        pes=pes,
        lanes=lanes,
        layers=layers,
        memory=memory,
        dsp=dsp,
        usage=_usage(memory, dsp, device),
        has_bandwidth=numerics.bytes_per_us is not None,
    )


def _parts(item: Mapped, pes: int, lanes: int, streamed: Fraction, numerics: Numerics) -> dict[str, Fraction]:
    parts = {name: cycles * item.shape.pixels for name, cycles in item.issue.parts.items()}
    parts["fill_drain"] = Fraction(fill_drain(lanes))
    parts["elementwise"] = elementwise(item.shape, item.issue, pes, numerics)
    parts["serial"] = Fraction(numerics.serial_cycles)
    parts["memory_stall"] = Fraction(0)
    if streamed and numerics.bytes_per_us is not None:
        stream_us = float(streamed * item.issue.words * item.word_bits) / 8 / numerics.bytes_per_us
        stream = Fraction(stream_us * numerics.clock_mhz).__ceil__()
        parts["memory_stall"] = max(Fraction(0), stream - item.issue.cycles * item.shape.pixels)
    return parts


def _memory(mapped: Sequence[Mapped], pes: int, copies: int, device: Device, numerics: Numerics) -> Memory:
    """One weight RAM per PE: all lanes share one word, and a product begins at the same address in every PE.

    What is deeper than the RAM blocks allow is streamed for every item, the deepest product first; the rest stays.
    """
    state = _state_blocks(mapped, device, numerics)
    available = int(device.entry.ram.count.value * device.ram.ceiling.value)
    vectors, distributed = _vectors(mapped, copies, available - state, device, numerics)
    width = max(item.word_bits for item in mapped)
    depth = sum(item.issue.depth for item in mapped)
    room = device.ram.deepest(width, max(0, available - state - vectors) // pes)
    excess = 0 if depth <= room else depth - max(0, room - _STREAM_WORDS)
    kept = depth - excess + (_STREAM_WORDS if excess else 0)
    weights = pes * device.ram.blocks(width, kept)
    return Memory(weights, state, vectors, distributed, _streamed(mapped, excess))


def _streamed(mapped: Sequence[Mapped], excess: int) -> tuple[Fraction, ...]:
    """Share of every product's words that is streamed."""
    shares = [Fraction(0)] * len(mapped)
    for index in sorted(range(len(mapped)), key=lambda index: -mapped[index].issue.depth):
        words = min(excess, mapped[index].issue.depth)
        shares[index] = Fraction(words, mapped[index].issue.depth)
        excess -= words
    return tuple(shares)


def can_be_resident(mapped: Sequence[Mapped], device: Device) -> bool:
    """Whether the weights have no more bits than the RAM blocks under the ceiling, however many PEs there are."""
    bits = sum(item.issue.words * item.word_bits for item in mapped)
    return bits <= int(device.entry.ram.count.value * device.ram.ceiling.value) * int(device.ram.bits_each.value)


def _state_blocks(mapped: Sequence[Mapped], device: Device, numerics: Numerics) -> int:
    """Cell state and output of every LSTM layer, one RAM each, as wide as the element-wise part reads."""
    width = numerics.activation_bits * numerics.elementwise_units
    units = [item.shape.units for item in mapped if item.shape.units is not None]
    return sum(2 * device.ram.blocks(width, -(-count // numerics.elementwise_units)) for count in units)


def _vectors(
    mapped: Sequence[Mapped], copies: int, blocks_left: int, device: Device, numerics: Numerics
) -> tuple[int, int]:
    """RAM blocks and distributed RAM of the vector memories: one per lane and copy, two vectors deep.

    Two, because the next vector is written while this one is read. By default distributed RAM where it suffices, since
    4,096 small memories would take a RAM block each.
    """
    count = copies * max(item.lanes for item in mapped)
    depth = 2 * max(item.vector_words for item in mapped)
    blocks = count * device.ram.blocks(numerics.activation_bits, depth)
    if numerics.vector_memory == "block" or device.distributed is None:
        return blocks, 0
    distributed = count * device.distributed.size(numerics.activation_bits, depth)
    if numerics.vector_memory == "distributed":
        return 0, distributed
    assert device.entry.distributed is not None
    room = device.entry.distributed.count.value * device.distributed.ceiling.value
    return (blocks, 0) if distributed > room and blocks < blocks_left else (0, distributed)


def _usage(memory: Memory, dsp: int, device: Device) -> dict[str, Usage]:
    entry = device.entry
    usage = {
        "dsp": Usage(dsp, int(entry.dsp.count.value), device.dsp.ceiling.value),
        entry.ram.kind: Usage(memory.blocks, int(entry.ram.count.value), device.ram.ceiling.value),
    }
    if entry.distributed is not None and device.distributed is not None:
        available = int(entry.distributed.count.value)
        usage[entry.distributed.kind] = Usage(memory.distributed, available, device.distributed.ceiling.value)
    return usage
