"""Energy by events: multiply-accumulates, bits read on chip and off chip, each times what it is taken to cost.

    E = MACs * E_mac + adder bits * E_adder + on-chip bits * E_ram + off-chip bits * E_dram (+ static power * latency)

Every constant comes from the device table or a device file and carries its origin. The built-in ones are assumed: good
to compare patterns and engines on one device, not to promise watts. What a board takes beside them (static power,
clocks, regulators, fans) is most of its power, and counts only where a device file gives `static_w`.
"""

from dataclasses import dataclass
from fractions import Fraction

from harness.api import JsonValue, Ram

from .._devices import Device, Figure
from .design import Design, Layer
from .numerics import Numerics
from .traffic import traffic

_WAITING = ("launch", "memory_stall")
"""Cycles of a run in which no vector is read."""

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
        engines that keep sums in memories; padding is multiplied as a weight is. Wires, clocks, control: not counted.
    """
    constants = device.energy
    width = numerics.conditions.operand_bits / _REFERENCE_BITS
    streams = design.engine.streams
    # Weights are read once for all streams.
    moved = 8 * traffic(design, numerics).read_bytes / streams
    groups = dict(design.shape.sizes).get("groups", 1)
    on_chip = sum(_ram_bits(layer, groups, streams, numerics) for layer in design.layers)
    found = [
        Event("ram_bits", on_chip, constants.ram_pj_per_bit),
        Event("dram_bits", moved, constants.dram_pj_per_bit),
    ]
    if design.engine.unrolled:
        bits = sum(layer.run.logic.lut * layer.product.pixels for layer in design.layers if layer.run.logic)
        return (Event("adder_bits", bits, constants.adder_pj_per_bit), *found)
    macs = float(sum(layer.run.stored_words * layer.product.pixels for layer in design.layers))
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


def _ram_bits(layer: Layer, groups: int, streams: int, numerics: Numerics) -> float:
    """Bits read from and written to memories on chip while a layer runs."""
    # Copies of the array share the weights: a word that is read serves all of them.
    weights = float(layer.run.stored_bits) * layer.repeats / streams
    each = sum(_accesses(layer, ram, groups, streams) for ram in layer.run.rams) * layer.product.pixels
    return weights + each + _states(layer, numerics)


def _accesses(layer: Layer, ram: Ram, groups: int, streams: int) -> float:
    """Bits of one kind of memory, but weights, for one position."""
    run, words = layer.run, float(layer.run.stored_words)
    match ram.purpose:
        case "vector":
            waiting = sum((run.parts.get(name, Fraction(0)) for name in _WAITING), Fraction(0))
            # A word for every multiplier, or as many as there are copies where one serves several.
            return ram.width * min(ram.count / streams * float(run.issue_cycles - waiting), words)
        case "accumulators":
            return 2 * ram.width * words
        case "fifo":
            # Every input enters and leaves the FIFOs of the group that it is broadcast in.
            return 2 * ram.width * ram.count * layer.product.cols / groups / streams
        case "pointers":
            return ram.width * ram.depth * ram.count / streams
        case _:  # weights are counted as they are stored
            return 0.0


def _states(layer: Layer, numerics: Numerics) -> float:
    """Cell state and output of a recurrent layer, each read and written once."""
    units = layer.product.units or 0
    return 4.0 * units * numerics.conditions.activation_bits
