"""The device table: what one FPGA has, and how many RAM blocks a memory takes."""

from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Literal

from harness.api import Frozen, JsonValue, SpecError

FigureOrigin = Literal["read", "recalled", "derived", "assumed"]


class UnknownDeviceError(SpecError, ValueError):
    """A device that the table does not have; a ValueError too, so that a spec reports it with its line."""


class Figure(Frozen):
    """A number with its origin and its source (a key of the table's `sources`)."""

    value: float
    origin: FigureOrigin
    source: str
    via: Literal["secondary"] | None = None
    check: str | None = None
    note: str | None = None

    def plain(self) -> dict[str, JsonValue]:
        """Value, origin and the source in full, for a report."""
        secondary = " (as quoted by somebody else)" if self.via else ""
        return {"value": self.value, "origin": self.origin, "source": _table().sources[self.source] + secondary}


class BlockRam(Frozen):
    """A kind of RAM block: the shapes, `width x depth`, that one block can take."""

    bits_each: Figure
    shapes: tuple[str, ...]
    ceiling: Figure

    def blocks(self, width: int, depth: int) -> int:
        """Blocks of one memory of `depth` words of `width` bits."""
        return _units(self.shapes, width, depth)

    def deepest(self, width: int, blocks: int) -> int:
        """Words of `width` bits that one memory of so many blocks holds."""
        return max(blocks // -(-width // wide) * deep for wide, deep in map(_size, self.shapes))


class DistributedRam(Frozen):
    """Small memories made of logic; `per_unit` counts what one unit takes of the device (an MLAB, or some LUTs)."""

    shapes: tuple[str, ...]
    shapes_source: str | None = None
    per_unit: Figure
    ceiling: Figure

    def size(self, width: int, depth: int) -> int:
        """MLABs or LUTs of one memory of `depth` words of `width` bits."""
        return _units(self.shapes, width, depth) * int(self.per_unit.value)


class DspKind(Frozen):
    """How many products of lanes that share no operand one DSP block makes per cycle."""

    products_w16: Figure
    products_w8: Figure
    ceiling: Figure


class Resource(Frozen):
    """So many of a kind."""

    kind: str
    count: Figure


class OffChip(Frozen):
    """The memory of a common board with the device; nominal bandwidth, 10^9 bytes per second."""

    kind: Literal["ddr", "hbm"]
    gbytes_per_s: Figure


class Entry(Frozen):
    """A device as the file has it."""

    family: str
    dsp: Resource
    ram: Resource
    distributed: Resource | None = None
    clock_mhz: Figure
    off_chip: OffChip | None = None


class Table(Frozen):
    """The whole file."""

    version: Literal[1]
    sources: dict[str, str]
    block_ram: dict[str, BlockRam]
    distributed_ram: dict[str, DistributedRam]
    dsp_kinds: dict[str, DspKind]
    memory_efficiency: dict[str, Figure]
    devices: dict[str, Entry]


class Device(Frozen):
    """One device with the kinds it refers to."""

    id: str
    entry: Entry
    dsp: DspKind
    ram: BlockRam
    distributed: DistributedRam | None
    efficiency: Figure | None

    def products_per_dsp(self, bits: int) -> Figure:
        """Products per DSP block and cycle for operands of so many bits."""
        return self.dsp.products_w8 if bits <= 8 else self.dsp.products_w16

    def most_multipliers(self, bits: int) -> int:
        """Multipliers of that width under the ceiling."""
        share = self.dsp.ceiling.value * self.entry.dsp.count.value
        return int(share * self.products_per_dsp(bits).value + 1e-9)

    def bytes_per_us(self) -> float | None:
        """Bytes that the off-chip memory delivers per microsecond, or None if the table names no board."""
        if self.entry.off_chip is None or self.efficiency is None:
            return None
        return self.entry.off_chip.gbytes_per_s.value * 1e3 * self.efficiency.value


@cache
def _table() -> Table:
    from ruamel.yaml import YAML

    text = Path(__file__).with_name("devices.yaml").read_text(encoding="utf-8")
    return Table.model_validate(YAML(typ="safe", pure=True).load(text))


@cache
def _units(shapes: tuple[str, ...], width: int, depth: int) -> int:
    return min(-(-width // wide) * -(-depth // deep) for wide, deep in map(_size, shapes))


def _size(shape: str) -> tuple[int, int]:
    width, depth = shape.split("x")
    return int(width), int(depth)


def known_devices() -> tuple[str, ...]:
    """The ids of all devices."""
    return tuple(_table().devices)


@cache
def device(name: str) -> Device:
    """Look a device up.

    Raises:
        UnknownDeviceError: the table has no such device.
    """
    table = _table()
    if name not in table.devices:
        close = get_close_matches(name, table.devices, n=1)
        guess = f" did you mean {close[0]!r}?" if close else ""
        raise UnknownDeviceError(f"unknown device {name!r};{guess} known: {', '.join(table.devices)}")
    entry = table.devices[name]
    return Device(
        id=name,
        entry=entry,
        dsp=table.dsp_kinds[entry.dsp.kind],
        ram=table.block_ram[entry.ram.kind],
        distributed=None if entry.distributed is None else table.distributed_ram[entry.distributed.kind],
        efficiency=None if entry.off_chip is None else table.memory_efficiency[entry.off_chip.kind],
    )
