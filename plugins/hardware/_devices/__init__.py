"""Devices and boards: what one FPGA has, what a board leaves of it, and at which clock engines run there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path

from harness.api import SpecError, closest

from .entries import (
    BlockRam,
    BurstKind,
    ControllerKind,
    DeviceFile,
    DistributedRam,
    DspKind,
    Entry,
    Kinds,
    KnownEnergy,
    PowerCalibration,
    Table,
)
from .files import DeviceFileError as DeviceFileError
from .files import Figure as Figure
from .files import checked, cited, read_yaml

_TABLE = Path(__file__).with_name("devices.yaml")


class UnknownDeviceError(SpecError, ValueError):
    """A device that the table does not have; a ValueError too, so that a spec reports it with its line."""


@dataclass(frozen=True)
class Usage:
    """How much of one resource is used, and how much there is under the ceiling; logic is `indicative` only."""

    used: int
    available: int
    ceiling: float
    indicative: bool = False

    @property
    def share(self) -> float:
        """Fraction of the ceiling."""
        # Of a resource that there is none of, any use is too much and none is all of it.
        return self.used / (self.available * self.ceiling) if self.available else float(self.used > 0)

    @property
    def room(self) -> int:
        """What a design may use."""
        # A share such as 0.7 of 10 must not lose its last unit to binary fractions.
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
        bursts: what its off-chip memory reads at least.
    """

    id: str
    chip: str
    entry: Entry
    dsp: DspKind
    rams: Mapping[str, BlockRam]
    distributed: DistributedRam | None
    efficiency: Figure | None
    bursts: BurstKind | None = None

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

    def usage(self, kind: str, used: int, *, indicative: bool = False) -> Usage:
        """So much of a resource in use."""
        limit = self.resources[kind]
        return Usage(used, limit.available, limit.ceiling, indicative)

    @cached_property
    def energy(self) -> KnownEnergy:
        """What events cost: as the device's own entry says, else by its kind of off-chip memory, else as for all."""
        known = dict(_table().event_energy)
        if self.entry.off_chip is not None:
            known["dram_pj_per_bit"] = _table().dram_pj_per_bit[self.entry.off_chip.kind]
        own = {name: figure for name, figure in self.entry.energy if figure is not None}
        return KnownEnergy.model_construct(**{**known, **own})

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
            # No bandwidth without its efficiency: the nominal figure is never reached.
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
    # LUTs that serve as RAM are the same LUTs: what the shell takes of them is gone for both.
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
    # Read once per process, always: JSON takes a hundredth of the time. A test holds the two files together.
    content = json.loads(_TABLE.with_suffix(".json").read_text(encoding="utf-8"))
    sources = content["sources"]
    assert isinstance(sources, dict)
    return checked(Table, cited(content, {key: str(text) for key, text in sources.items()}, _TABLE), _TABLE)


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
        # A chip has no memory beside it, and without one no weight could be streamed.
        lent = None if chip.board is None else table.boards[chip.board].off_chip
        return _assembled(name, name, chip.model_copy(update={"off_chip": lent}), table, _TABLE)
    if name in table.boards:
        board = table.boards[name]
        # The clock and the kinds are the chip's; only counts and the memory are the board's.
        left = _with_counts(table.devices[board.device], board.available)
        return _assembled(name, board.device, left.model_copy(update={"off_chip": board.off_chip}), table, _TABLE)
    close = closest(name, known_devices())
    guess = f" did you mean {close!r}?" if close else ""
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
    # A file may cite the table's sources, and redefine what a key stands for.
    sources = table.sources | ({key: str(text) for key, text in own.items()} if isinstance(own, dict) else {})
    file = checked(DeviceFile, cited(content, sources, path), path)
    kinds = Kinds(
        block_ram=table.block_ram | file.block_ram,
        distributed_ram=table.distributed_ram | file.distributed_ram,
        dsp_kinds=table.dsp_kinds | file.dsp_kinds,
    )
    return _assembled(str(path), str(path), file.device, kinds, path)


def _assembled(name: str, chip: str, entry: Entry, kinds: Kinds, path: Path) -> Device:
    # The table's own entries pass through here as well: a mistake in it is told in the same words.
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
        # How much of the nominal bandwidth is reached belongs to the kind of memory, which no file defines.
        efficiency=None if entry.off_chip is None else _table().memory_efficiency[entry.off_chip.kind],
        bursts=None if entry.off_chip is None else _table().memory_bursts[entry.off_chip.kind],
    )


def _require(kind: str, known: Mapping[str, object], section: str, place: str, path: Path) -> None:
    if kind not in known:
        raise DeviceFileError(
            f"{path}: device.{place}.kind must be one of {', '.join(known)}, got {kind!r}; name one of them, or "
            f"describe {kind!r} under `{section}`"
        )
