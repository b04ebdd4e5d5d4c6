"""Energy by events: multiply-accumulates, bits read on chip and off chip, each times what it is taken to cost.

    E = MACs * E_mac + adder bits * E_adder + on-chip bits * E_ram + off-chip bits * E_dram (+ static power * latency)

Every constant comes from the device table or a device file and carries its origin. The built-in ones are assumed: good
to compare patterns and engines on one device, not to promise watts. What a board takes beside them (static power,
clocks, regulators, fans) is most of its power, and counts only where a device file gives `static_w`.
"""

from dataclasses import dataclass
from fractions import Fraction

from harness.api import Engine, JsonValue, Ram

from .._devices import Device, Figure
from .design import Design, Layer
from .maps import load_words, map_words
from .numerics import Numerics
from .traffic import traffic

_WAITING = ("launch", "memory_stall")
"""Cycles of a run in which no vector is read."""

_LSTM_GATES = 4

_REFERENCE_BITS = 16
"""Width of the operands that `mac_pj_w16` is of; a multiplier grows with the square of it."""


@dataclass(frozen=True)
class Event:
    """So many of one kind of event in one item, in picojoules each."""

    name: str
    count: float
    pj: Figure
    scale: float = 1.0

    @property
    def uj(self) -> float:
        """Energy of all of them."""
        return self.count * self.pj.value * self.scale / 1e6

    def plain(self) -> dict[str, JsonValue]:
        """As JSON values."""
        return {
            "count": round(self.count, 3),
            "pj_each": round(self.pj.value * self.scale, 6),
            "uj": round(self.uj, 9),
            "origin": self.pj.origin,
        }


def events(design: Design, device: Device, numerics: Numerics) -> tuple[Event, ...]:
    """The events of one item of one stream.

    Args:
        design: what runs.
        device: whose constants are taken.
        numerics: widths.

    Assumes:
        a word of the vector for every multiplier, where copies allow it; a sum read and written for every weight of
        engines that keep sums in memories, once a cycle where a memory holds several; feature maps read and written
        once; padding is multiplied as a weight is. Wires, clocks, control: not counted.
    """
    constants = device.energy
    width = numerics.conditions.operand_bits / _REFERENCE_BITS
    streams = design.engine.streams
    # Weights are read once for all streams.
    moved = 8 * traffic(design, numerics).read_bytes / streams
    groups = dict(design.shape.sizes).get("groups", 1)
    on_chip = sum(_ram_bits(design, layer, groups, numerics) for layer in design.layers)
    found = [
        Event("ram_bits", on_chip, constants.ram_pj_per_bit),
        Event("dram_bits", moved, constants.dram_pj_per_bit),
    ]
    if design.engine.unrolled:
        bits = sum(layer.run.logic.lut * layer.product.runs for layer in design.layers if layer.run.logic)
        return (Event("adder_bits", bits, constants.adder_pj_per_bit), *found)
    macs = float(sum(layer.run.stored_words * layer.product.runs for layer in design.layers))
    return (Event("macs", macs, constants.mac_pj_w16, width * width), *found)


def event_energy(design: Design, device: Device, numerics: Numerics, latency_us: float) -> dict[str, JsonValue]:
    """Energy of one item of one stream, event by event, and all of it.

    Args:
        design: what runs.
        device: whose constants are taken.
        numerics: widths.
        latency_us: of one item of all streams, for static power where the device gives it.
    """
    found = events(design, device, numerics)
    static = device.energy.static_w
    still = 0.0 if static is None else static.value * latency_us / design.engine.streams
    told: dict[str, JsonValue] = {event.name: event.plain() for event in found}
    if static is not None:
        told["static"] = {"watt": static.value, "uj": round(still, 9), "origin": static.origin}
    return {**told, "total_uj": round(sum(event.uj for event in found) + still, 9)}


def _ram_bits(design: Design, layer: Layer, groups: int, numerics: Numerics) -> float:
    """Bits read from and written to memories on chip while a layer runs, at all of its positions."""
    run, streams = layer.run, design.engine.streams
    reads = float(layer.repeats if run.weight_reads is None else run.weight_reads * layer.product.steps)
    if design.engine.whole_layer and run.weight_reads is None:
        # An engine that does not say how often it reads them reads them for every position, as others do.
        reads = float(layer.product.runs * streams)
    # Copies of the array share the weights: a word that is read serves all of them.
    weights = float(run.stored_bits) * reads / streams
    each = sum(_accesses(design.engine, layer, ram, groups, reads) for ram in run.rams)
    return weights + each + _map_bits(design, layer, numerics) + _states(layer, numerics)


def _accesses(engine: Engine, layer: Layer, ram: Ram, groups: int, reads: float) -> float:
    """Bits of one kind of memory, but weights, at all positions of a layer."""
    run, streams, pixels = layer.run, engine.streams, layer.product.runs
    words = float(run.stored_words)
    # The cycles of an engine that runs whole layers cover all positions; those of others, one.
    runs = layer.product.steps if engine.whole_layer else pixels
    waiting = sum((run.parts.get(name, Fraction(0)) for name in _WAITING), Fraction(0))
    turns = ram.count / streams * float(run.issue_cycles - waiting) * runs
    if ram.purpose in run.words:
        return ram.width * float(run.words[ram.purpose]) / streams * runs
    found = 0.0  # weights are counted as they are stored
    match ram.purpose:
        case "vector":
            # A word for every multiplier, or as many as there are copies where one serves several.
            found = ram.width * min(turns, words * pixels)
        case "lines":
            found = ram.width * min(turns, words * reads / streams)
        case "accumulators" if not engine.moves_maps:  # of others they hold outputs, counted as what a layer gives
            # A word holds the sums of all that a memory takes in one cycle.
            found = 2 * ram.width * min(turns, words * pixels)
        case "fifo" if not engine.streams_weights:  # of others they hold weights
            # Every input enters and leaves the FIFOs of the group that it is broadcast in.
            found = 2 * ram.width * ram.count * layer.product.cols / groups / streams * pixels
        case "pointers":
            found = ram.width * ram.depth * ram.count / streams * pixels
    return found


def _map_bits(design: Design, layer: Layer, numerics: Numerics) -> float:
    """Bits of feature maps and of lines under a convolution's windows, whatever engine runs it.

    Its input is read once, into lines where a window is higher than one; every position takes its new words from there,
    or from the map. An engine with lines of its own has them counted where it multiplies.
    """
    geometry = layer.product.convolution
    if geometry is None:
        return 0.0
    given, taken = map_words(layer.product)
    if design.engine.moves_maps:  # its vector memory is read as it multiplies; maps enter and leave once
        bits = numerics.conditions.activation_bits
        # What tiles share of an input enters with each of them.
        entered = given * bits if layer.run.moved_bits is None else layer.run.moved_bits - taken * bits
        return float(entered + 2 * taken * bits)
    has_lines = any(ram.purpose == "lines" for ram in layer.run.rams)
    buffered = has_lines or geometry.window[0] > 1
    # As many as a copy that sweeps a strip takes in; neighbouring copies share them.
    entering = 0 if has_lines else load_words(layer.product) * layer.product.pixels
    on_chip = not design.memory.streams_maps
    # Read from the map and written to the lines; the output is written.
    moved = given * buffered * (1 + on_chip) + taken * on_chip
    moved += entering * (buffered or on_chip)
    return float(moved) * numerics.conditions.activation_bits


def _states(layer: Layer, numerics: Numerics) -> float:
    """What a recurrent layer carries from step to step, read and written once: of an LSTM two vectors, of a GRU one."""
    units = layer.product.units or 0
    carried = 2 if units and layer.product.rows == _LSTM_GATES * units else 1
    return 2.0 * carried * units * numerics.conditions.activation_bits * layer.product.steps
