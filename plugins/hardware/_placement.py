"""Where the memories of an engine lie: in distributed RAM, and in which kind of RAM block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.api import Ram, RamPurpose

from ._devices import Device, Usage

SmallMemory = Literal["auto", "distributed", "block"]
"""What small memories are made of: distributed RAM as far as its ceiling goes, nothing else, or RAM blocks only."""

_Waiting = list[tuple[Ram, int]]
"""Memories without a place yet, and how many copies of each."""


@dataclass(frozen=True)
class Placement:
    """Memories laid out on a device.

    Args:
        blocks: RAM blocks by kind and purpose; every kind of the device is there.
        distributed: distributed RAM by purpose, in the device's unit (MLABs or LUTs).
        usage: of every kind of RAM, distributed RAM included.
        notes: what was decided, as sentences.
    """

    blocks: Mapping[str, Mapping[RamPurpose, int]]
    distributed: Mapping[RamPurpose, int]
    usage: Mapping[str, Usage]
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every kind stays under its ceiling."""
        return all(usage.fits for usage in self.usage.values())

    @property
    def free(self) -> dict[str, int]:
        """Blocks of every kind that are left under the ceiling."""
        return {kind: max(0, self.usage[kind].room - self.usage[kind].used) for kind in self.blocks}

    def of(self, purpose: RamPurpose) -> int:
        """Blocks for a purpose, of all kinds together."""
        return sum(purposes.get(purpose, 0) for purposes in self.blocks.values())


def place(rams: Sequence[Ram], device: Device, *, small: SmallMemory = "auto") -> Placement:
    """Lay memories out.

    Small memories go to distributed RAM as far as its ceiling allows, first those that save most blocks for what they
    take. All others go to the preferred kind of RAM block; only if that overflows do as many as must move to the next
    kind, first those that need fewest blocks there for those they free. Copies of one memory may be split.

    Args:
        rams: the memories, stacked already: as deep as they must be.
        device: what they are laid out on.
        small: what the small ones are made of.
    """
    distributed, rest = _distributed(rams, device, small)
    blocks, notes = _blocks(rest, device)
    used = {kind: sum(purposes.values()) for kind, purposes in blocks.items()}
    if device.entry.distributed is not None:
        used[device.entry.distributed.kind] = sum(distributed.values())
    usage = {}
    for kind, number in used.items():
        limit = device.resources[kind]
        usage[kind] = Usage(number, limit.available, limit.ceiling)
    return Placement(blocks, distributed, usage, notes)


def _distributed(rams: Sequence[Ram], device: Device, small: SmallMemory) -> tuple[dict[RamPurpose, int], _Waiting]:
    """What goes to distributed RAM, and what is left for blocks."""
    taken: dict[RamPurpose, int] = {}
    kind, ladder = device.entry.distributed, device.distributed
    if kind is None or ladder is None or small == "block":
        return taken, [(ram, ram.count) for ram in rams]
    rest = [(ram, ram.count) for ram in rams if not ram.small]
    sized = [(ram, ladder.size(ram.width, ram.depth)) for ram in rams if ram.small]
    if len(sized) > 1:
        sized.sort(key=lambda item: -device.ram.blocks(item[0].width, item[0].depth) / item[1])
    room = device.resources[kind.kind].room
    for ram, units in sized:
        copies = ram.count if small == "distributed" else min(ram.count, room // units)
        if copies:
            taken[ram.purpose] = taken.get(ram.purpose, 0) + copies * units
            room -= copies * units
        if copies < ram.count:
            rest.append((ram, ram.count - copies))
    return taken, rest


def _blocks(waiting: _Waiting, device: Device) -> tuple[dict[str, dict[RamPurpose, int]], tuple[str, ...]]:
    """RAM blocks by kind and purpose, and what was moved away from the preferred kind."""
    preferred, *others = device.rams
    blocks: dict[str, dict[RamPurpose, int]] = {kind: {} for kind in device.rams}
    ladder, notes = device.ram, []
    needed = sum(copies * ladder.blocks(ram.width, ram.depth) for ram, copies in waiting)
    room = device.resources[preferred].room
    excess = needed - room
    for kind in others:
        if excess <= 0:
            break
        waiting, moved = _move(waiting, excess, device, kind)
        for ram, copies, freed in moved:
            _add(blocks[kind], ram, copies * device.rams[kind].blocks(ram.width, ram.depth))
            excess -= freed
            notes.append(
                f"{copies} of {ram.count} {ram.purpose} memories lie in {kind}: {preferred} alone would need {needed} "
                f"of the {room} under its ceiling"
            )
    for ram, copies in waiting:
        _add(blocks[preferred], ram, copies * ladder.blocks(ram.width, ram.depth))
    return blocks, tuple(notes)


def _move(waiting: _Waiting, excess: int, device: Device, kind: str) -> tuple[_Waiting, list[tuple[Ram, int, int]]]:
    """What stays, and (memory, copies moved to a kind, blocks freed) until the excess is gone or the kind is full."""
    here, there = device.ram, device.rams[kind]
    room, stays, moved = device.resources[kind].room, [], []
    sized = [(ram, copies, here.blocks(ram.width, ram.depth)) for ram, copies in waiting]
    sized.sort(key=lambda item: there.blocks(item[0].width, item[0].depth) / item[2])
    for ram, copies, frees in sized:
        costs = there.blocks(ram.width, ram.depth)
        going = min(copies, max(0, -(-excess // frees)), room // costs)
        if going:
            moved.append((ram, going, going * frees))
            excess -= going * frees
            room -= going * costs
        if going < copies:
            stays.append((ram, copies - going))
    return stays, moved


def _add(blocks: dict[RamPurpose, int], ram: Ram, number: int) -> None:
    blocks[ram.purpose] = blocks.get(ram.purpose, 0) + number


def deepest(width: int, count: int, free: Mapping[str, int], device: Device) -> int:
    """Words that each of `count` equal memories can have in the blocks that are free; 0 if not even one.

    Args:
        width: bits of a word.
        count: how many memories; each lies in blocks of one kind, and different ones may use different kinds.
        free: blocks by kind, `Placement.free`.
        device: what they are laid out on.
    """
    ladders = [(device.rams[kind], number) for kind, number in free.items()]
    low, high = 0, max((ladder.deepest(width, number) for ladder, number in ladders), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(number // ladder.blocks(width, middle) for ladder, number in ladders) >= count:
            low = middle
        else:
            high = middle - 1
    return low
