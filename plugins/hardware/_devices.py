"""Devices and boards: what one FPGA has, what a board leaves of it, and at which clock engines run there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from harness.api import Frozen, SpecError

from ._device_files import DeviceFileError as DeviceFileError
from ._device_files import Figure as Figure
from ._device_files import checked, cited, read_yaml

ControllerKind = Literal["ddr4", "hbm"]


def _count(figure: Figure) -> Figure:
    if figure.value != int(figure.value):
        raise ValueError("a count must be a whole number")
    return figure


def _positive(figure: Figure) -> Figure:
    if figure.value <= 0:
        raise ValueError("the value must be above 0")
    return figure


def _share(figure: Figure) -> Figure:
    if not 0 < figure.value <= 1:
        raise ValueError("a share must lie above 0 and at most at 1")
    return figure


Count = Annotated[Figure, AfterValidator(_count)]
Some = Annotated[Figure, AfterValidator(_count), AfterValidator(_positive)]
Rate = Annotated[Figure, AfterValidator(_positive)]
Share = Annotated[Figure, AfterValidator(_share)]
RamShape = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*x[1-9][0-9]*$")]

_TABLE = Path(__file__).with_name("devices.yaml")


class UnknownDeviceError(SpecError, ValueError):
    """A device that the table does not have; a ValueError too, so that a spec reports it with its line."""


class BlockRam(Frozen):
    """A kind of RAM block: the shapes, `width x depth`, that one block can take."""

    bits_each: Some
    shapes: tuple[RamShape, ...] = Field(min_length=1)
    ceiling: Share

    def blocks(self, width: int, depth: int) -> int:
        """Blocks of one memory of `depth` words of `width` bits."""
        return _units(self.shapes, width, depth)

    def deepest(self, width: int, blocks: int) -> int:
        """Words of `width` bits that one memory of so many blocks holds."""
        return max(blocks // -(-width // wide) * deep for wide, deep in map(_size, self.shapes))


class DistributedRam(Frozen):
    """Small memories made of logic.

    Args:
        shapes: `width x depth` of one such memory, with a write and a read port.
        per_unit: what one of them takes of the counted resource (an MLAB, or some LUTs).
        cells: LUTs or ALMs that one counted unit takes away from the logic.
        ceiling: share of the counted resource that may become memory.
    """

    shapes: tuple[RamShape, ...] = Field(min_length=1)
    shapes_source: str | None = None
    per_unit: Some
    cells: Rate
    ceiling: Share

    def size(self, width: int, depth: int) -> int:
        """MLABs or LUTs of one memory of `depth` words of `width` bits."""
        return _units(self.shapes, width, depth) * int(self.per_unit.value)


class DspKind(Frozen):
    """Products that one DSP block makes per cycle, by operand width; `shared` where two lanes share an operand."""

    most_bits: Some
    products_w16: Some
    products_w8: Some
    products_w8_shared: Some | None = None
    products_w4: Some | None = None
    products_w4_shared: Some | None = None
    products_w27: Some | None = None
    ceiling: Share

    def products(self, bits: int, *, shares_operand: bool) -> Figure:
        """Products per block and cycle; a width without an entry packs like the next wider one.

        Raises:
            SpecError: the block does not multiply operands of so many bits.
        """
        if bits > self.most_bits.value:
            if bits <= 27 and self.products_w27 is not None:
                return self.products_w27
            widest = 27 if self.products_w27 is not None else int(self.most_bits.value)
            raise SpecError(
                f"a DSP block of this device multiplies up to {widest} bits, got {bits}; narrow the operands"
            )
        found = [self.products_w16]
        if bits <= 8:
            found += [self.products_w8, *self._given(shares_operand, self.products_w8_shared)]
        if bits <= 4:
            found += [*self._given(True, self.products_w4), *self._given(shares_operand, self.products_w4_shared)]
        return max(reversed(found), key=lambda figure: figure.value)

    @staticmethod
    def _given(wanted: bool, figure: Figure | None) -> list[Figure]:
        return [figure] if wanted and figure is not None else []


class Resource(Frozen):
    """So many of a kind."""

    kind: str
    count: Count


class Logic(Frozen):
    """LUTs or ALMs."""

    kind: Literal["lut", "alm"]
    count: Count


class OffChip(Frozen):
    """Off-chip memory; nominal bandwidth of all channels together, 10^9 bytes per second."""

    kind: Literal["ddr3", "ddr4", "hbm"]
    channels: Some | None = None
    gbytes_per_s: Rate


class Entry(Frozen):
    """A device as a file has it: counts of the raw chip, or of what a shell leaves.

    Args:
        rams: kinds of RAM blocks, in order of preference.
        distributed: memories made of logic; without a count it is that of the logic (LUTs).
        clock_mhz: what an engine without a published clock on this device runs at.
        off_chip: memory beside the chip; without it, weights that do not fit cannot be costed.
        dies: a design over more than one is harder to clock; no figure is adjusted for that.
    """

    family: str
    logic: Logic
    ff: Count
    dsp: Resource
    rams: tuple[Resource, ...] = Field(min_length=1)
    distributed: Resource | None = None
    clock_mhz: Rate
    off_chip: OffChip | None = None
    dies: Some | None = None

    @model_validator(mode="before")
    @classmethod
    def _logic_as_memory(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        distributed, logic = data.get("distributed"), data.get("logic")
        if (
            isinstance(distributed, dict)
            and isinstance(logic, dict)
            and "count" not in distributed
            and "count" in logic
        ):
            return data | {"distributed": distributed | {"count": logic["count"]}}
        return data

    @model_validator(mode="after")
    def _distinct(self) -> "Entry":
        kinds = [ram.kind for ram in self.rams]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"every kind of RAM stands once in `rams`, got {', '.join(kinds)}; add their counts up")
        return self

    @property
    def ram(self) -> Resource:
        """The preferred kind of RAM block."""
        return self.rams[0]


class Chip(Entry):
    """A device of the table; `board` lends its off-chip memory where only the chip is named."""

    board: str | None = None


class Board(Frozen):
    """A chip on a board: its off-chip memory and, by kind, what the shell leaves."""

    device: str
    off_chip: OffChip
    available: dict[str, Count] = Field(default_factory=dict)


class Anchor(Frozen):
    """A clock that a published design of an engine reached on a device."""

    engine: str
    device: str
    mhz: Rate


class PowerCalibration(Frozen):
    """Board power of a published design, with the multipliers and the clock that it had."""

    engine: str
    device: str
    what: str
    power_w: Rate
    clock_mhz: Rate
    multipliers: Some


class Kinds(Frozen):
    """Kinds that devices refer to."""

    block_ram: dict[str, BlockRam] = Field(default_factory=dict)
    distributed_ram: dict[str, DistributedRam] = Field(default_factory=dict)
    dsp_kinds: dict[str, DspKind] = Field(default_factory=dict)


class Table(Kinds):
    """The device table."""

    version: Literal[1]
    sources: dict[str, str]
    ceilings: dict[str, Share]
    controllers: dict[ControllerKind, dict[str, Figure]]
    memory_efficiency: dict[str, Share]
    devices: dict[str, Chip]
    boards: dict[str, Board]
    clock_anchors: tuple[Anchor, ...]
    power_calibrations: tuple[PowerCalibration, ...]


class DeviceFile(Kinds):
    """An own device: an entry, sources, and kinds that the table does not have."""

    version: Literal[1]
    sources: dict[str, str] = Field(default_factory=dict)
    device: Entry


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

    @property
    def room(self) -> int:
        """What a design may use."""
        return int(self.available * self.ceiling + 1e-9)

    @property
    def fits(self) -> bool:
        """Whether it stays under the ceiling."""
        return self.used <= self.room


@dataclass(frozen=True, eq=False)
class Device:
    """One device, or what a board leaves of it, with the kinds it refers to.

    Args:
        id: its name in the table, or the path of its file.
        chip: the device's name, also where `id` names a board.
        entry: counts, clock and off-chip memory.
        dsp, rams, distributed: the kinds it refers to; `rams` in order of preference.
        efficiency: share of the nominal bandwidth that a stream reaches.
    """

    id: str
    chip: str
    entry: Entry
    dsp: DspKind
    rams: Mapping[str, BlockRam]
    distributed: DistributedRam | None
    efficiency: Figure | None

    @property
    def ram(self) -> BlockRam:
        """The preferred kind of RAM block."""
        return self.rams[self.entry.ram.kind]

    @cached_property
    def resources(self) -> dict[str, Usage]:
        """Count and ceiling of every resource, none of it used: dsp, lut or alm, ff, RAM kinds, distributed RAM."""
        entry, ceilings = self.entry, _table().ceilings
        found = {
            "dsp": (entry.dsp.count, self.dsp.ceiling),
            entry.logic.kind: (entry.logic.count, ceilings[entry.logic.kind]),
            "ff": (entry.ff, ceilings["ff"]),
        }
        found |= {ram.kind: (ram.count, self.rams[ram.kind].ceiling) for ram in entry.rams}
        if entry.distributed is not None and self.distributed is not None:
            found[entry.distributed.kind] = (entry.distributed.count, self.distributed.ceiling)
        return {kind: Usage(0, int(count.value), ceiling.value) for kind, (count, ceiling) in found.items()}

    def usage(self, kind: str, used: int) -> Usage:
        """So much of a resource in use."""
        return replace(self.resources[kind], used=used)

    def products_per_dsp(self, bits: int, *, shares_operand: bool = False) -> Figure:
        """Products per DSP block and cycle for operands of so many bits.

        Args:
            bits: the wider operand.
            shares_operand: whether neighbouring multipliers share an operand.
        """
        return self.dsp.products(bits, shares_operand=shares_operand)

    def most_multipliers(self, bits: int, *, shares_operand: bool = False) -> int:
        """Multipliers of that width under the ceiling."""
        share = self.dsp.ceiling.value * self.entry.dsp.count.value
        return int(share * self.products_per_dsp(bits, shares_operand=shares_operand).value + 1e-9)

    def bytes_per_us(self) -> float | None:
        """Bytes that the off-chip memory delivers per microsecond, or None if none is known."""
        if self.entry.off_chip is None or self.efficiency is None:
            return None
        return self.entry.off_chip.gbytes_per_s.value * 1e3 * self.efficiency.value

    def clock(self, engine: str) -> Figure:
        """What a published design of this engine reached on this chip, else the device's own clock, in MHz."""
        for anchor in _table().clock_anchors:
            if anchor.engine == engine and anchor.device == self.chip:
                return anchor.mhz
        return self.entry.clock_mhz

    def power(self, engine: str) -> PowerCalibration | None:
        """Board power of a published design of this engine on this chip, if there is a figure."""
        found = [one for one in _table().power_calibrations if (one.engine, one.device) == (engine, self.chip)]
        return found[0] if found else None

    def less_controllers(self, kind: ControllerKind, count: int = 1) -> "Device":
        """What so many memory controllers leave: for a chip without a shell that brings them.

        Raises:
            SpecError: no figure for this family is known, or nothing would be left.
        """
        needed = _table().controllers[kind]
        missing = [name for name in needed if name not in self.resources]
        if missing:
            raise SpecError(
                f"{self.id}: a {kind} controller is only known in {', '.join(needed)}, and the device counts "
                f"{', '.join(self.resources)}; leave the controllers out, or describe what is left in a device file"
            )
        left = {name: self.resources[name].available - count * int(figure.value) for name, figure in needed.items()}
        if min(left.values()) <= 0:
            raise SpecError(f"{self.id}: {count} {kind} controllers leave no room, got {left}; ask for fewer")
        figures = {
            name: Figure(value=value, origin="derived", source=needed[name].source, check=f"{count} {kind} deducted")
            for name, value in left.items()
        }
        return replace(self, entry=_with_counts(self.entry, figures))


def _with_counts(entry: Entry, counts: Mapping[str, Figure]) -> Entry:
    """The entry with other counts, by kind; distributed RAM made of LUTs follows them."""
    logic = entry.logic.model_copy(update={"count": counts.get(entry.logic.kind, entry.logic.count)})
    distributed = entry.distributed
    if distributed is not None and distributed.count == entry.logic.count:
        distributed = distributed.model_copy(update={"count": logic.count})
    return entry.model_copy(
        update={
            "logic": logic,
            "ff": counts.get("ff", entry.ff),
            "dsp": entry.dsp.model_copy(update={"count": counts.get("dsp", entry.dsp.count)}),
            "rams": tuple(ram.model_copy(update={"count": counts.get(ram.kind, ram.count)}) for ram in entry.rams),
            "distributed": distributed,
        }
    )


@cache
def _table() -> Table:
    content = read_yaml(_TABLE)
    sources = content["sources"]
    assert isinstance(sources, dict)
    return checked(Table, cited(content, {key: str(text) for key, text in sources.items()}, _TABLE), _TABLE)


@lru_cache(maxsize=1 << 16)
def _units(shapes: tuple[str, ...], width: int, depth: int) -> int:
    return min(-(-width // wide) * -(-depth // deep) for wide, deep in map(_size, shapes))


@cache
def _size(shape: str) -> tuple[int, int]:
    width, depth = shape.split("x")
    return int(width), int(depth)


def known_devices() -> tuple[str, ...]:
    """The ids of all devices and boards of the table."""
    return (*_table().devices, *_table().boards)


def device(name: str) -> Device:
    """Look a device or a board up; a name that ends in .yaml or .yml is the path of a device file.

    Raises:
        UnknownDeviceError: the table has no such device.
        DeviceFileError: the file cannot be used.
    """
    return load_device(Path(name)) if name.endswith((".yaml", ".yml")) else _listed(name)


@cache
def _listed(name: str) -> Device:
    table = _table()
    if name in table.devices:
        chip = table.devices[name]
        lent = None if chip.board is None else table.boards[chip.board].off_chip
        return _assembled(name, name, chip.model_copy(update={"off_chip": lent}), table, _TABLE)
    if name in table.boards:
        board = table.boards[name]
        left = _with_counts(table.devices[board.device], board.available)
        return _assembled(name, board.device, left.model_copy(update={"off_chip": board.off_chip}), table, _TABLE)
    close = get_close_matches(name, known_devices(), n=1)
    guess = f" did you mean {close[0]!r}?" if close else ""
    raise UnknownDeviceError(
        f"unknown device {name!r};{guess} known: {', '.join(known_devices())}; or give the path of your own .yaml file"
    )


def load_device(path: Path) -> Device:
    """An own device from a file with `version`, `device` and, as needed, `sources` and kinds of its own.

    Raises:
        DeviceFileError: the file cannot be read, or something in it is wrong: with file, place, value and way out.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0  # reading it says what is wrong
    return _loaded(path, changed)


@lru_cache(maxsize=64)
def _loaded(path: Path, changed: int) -> Device:
    content, table = read_yaml(path), _table()
    own = content.get("sources")
    sources = table.sources | ({key: str(text) for key, text in own.items()} if isinstance(own, dict) else {})
    file = checked(DeviceFile, cited(content, sources, path), path)
    kinds = Kinds(
        block_ram=table.block_ram | file.block_ram,
        distributed_ram=table.distributed_ram | file.distributed_ram,
        dsp_kinds=table.dsp_kinds | file.dsp_kinds,
    )
    return _assembled(str(path), path.stem, file.device, kinds, path)


def _assembled(name: str, chip: str, entry: Entry, kinds: Kinds, path: Path) -> Device:
    for index, ram in enumerate(entry.rams):
        _require(ram.kind, kinds.block_ram, "block_ram", f"rams.{index}", path)
    _require(entry.dsp.kind, kinds.dsp_kinds, "dsp_kinds", "dsp", path)
    if entry.distributed is not None:
        _require(entry.distributed.kind, kinds.distributed_ram, "distributed_ram", "distributed", path)
    return Device(
        id=name,
        chip=chip,
        entry=entry,
        dsp=kinds.dsp_kinds[entry.dsp.kind],
        rams={ram.kind: kinds.block_ram[ram.kind] for ram in entry.rams},
        distributed=None if entry.distributed is None else kinds.distributed_ram[entry.distributed.kind],
        efficiency=None if entry.off_chip is None else _table().memory_efficiency[entry.off_chip.kind],
    )


def _require(kind: str, known: Mapping[str, object], section: str, place: str, path: Path) -> None:
    if kind not in known:
        raise DeviceFileError(
            f"{path}: device.{place}.kind must be one of {', '.join(known)}, got {kind!r}; name one of them, or "
            f"describe {kind!r} under `{section}`"
        )
