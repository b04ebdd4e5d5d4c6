"""Where the memories of an engine lie: in distributed RAM, and in which kind of RAM block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.api import Ram, RamPurpose

from .._devices import Device, Usage

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
        free: blocks of every kind that may still be taken.
        fits: whether no kind takes more than it may.
        notes: what was decided, as sentences.
    """

    blocks: Mapping[str, Mapping[RamPurpose, int]]
    distributed: Mapping[RamPurpose, int]
    usage: Mapping[str, Usage]
    free: Mapping[str, int]
    fits: bool
    notes: tuple[str, ...] = ()

    @property
    def taken(self) -> int:
        """RAM blocks of all kinds together."""
        return sum(number for purposes in self.blocks.values() for number in purposes.values())

    def of(self, purpose: RamPurpose) -> int:
        """Blocks for a purpose, of all kinds together."""
        return sum(purposes.get(purpose, 0) for purposes in self.blocks.values())


def place(
    rams: Sequence[Ram],
    device: Device,
    *,
    small: SmallMemory = "auto",
    ram_blocks: int | None = None,
    beside: Placement | None = None,
) -> Placement:
    """Lay memories out.

    Small memories go to distributed RAM as far as its ceiling allows, first those that save most blocks for what they
    take. All others go to the preferred kind of RAM block; only if that overflows do as many as must move to the next
    kind, first those that need fewest blocks there for those they free. Copies of one memory may be split.

    Args:
        rams: the memories, stacked already: as deep as they must be; one without a bit takes nothing.
        device: what they are laid out on.
        small: what the small ones are made of.
        ram_blocks: blocks of the preferred kind that may be taken, None for those under its ceiling.
        beside: memories that have their place already and keep it; the result holds both.
    """
    rooms = {kind: usage.room for kind, usage in device.resources.items()}
    if ram_blocks is not None:
        # The budget counts blocks of the preferred kind; other kinds of the device stay free to use.
        rooms[device.entry.ram.kind] = min(rooms[device.entry.ram.kind], ram_blocks)
    placed = _Places(device, rooms)
    if beside is not None:
        placed.start_from(beside)
    # A memory of no bits, indices of a single column say, is not built.
    built = [ram for ram in rams if ram.width * ram.depth * ram.count]
    placed.blocks_for(placed.distribute(built, small))
    return placed.result()


class _Places:
    """Memories being laid out: what is taken so far, and what is left of every kind."""

    def __init__(self, device: Device, rooms: Mapping[str, int]) -> None:
        self._device = device
        self._rooms = rooms
        self._left = dict(rooms)
        self._blocks: dict[str, dict[RamPurpose, int]] = {kind: {} for kind in device.rams}
        self._distributed: dict[RamPurpose, int] = {}
        self._notes: list[str] = []

    def start_from(self, other: Placement) -> None:
        """Take over what has its place already."""
        self._notes += other.notes
        for kind, purposes in other.blocks.items():
            for purpose, number in purposes.items():
                self._take(kind, self._blocks[kind], purpose, number)
        if self._device.entry.distributed is not None:
            for purpose, number in other.distributed.items():
                self._take(self._device.entry.distributed.kind, self._distributed, purpose, number)

    def distribute(self, rams: Sequence[Ram], small: SmallMemory) -> _Waiting:
        """Put small memories into distributed RAM; what is left for blocks."""
        kind, ladder = self._device.entry.distributed, self._device.distributed
        if kind is None or ladder is None or small == "block":
            return [(ram, ram.count) for ram in rams]
        # What is not small by its nature, weights above all, never goes to logic, whatever room is left there.
        rest = [(ram, ram.count) for ram in rams if not ram.small]
        sized = [(ram, ladder.size(ram.width, ram.depth)) for ram in rams if ram.small]
        if len(sized) > 1:
            # Greedy by blocks saved for a unit of distributed RAM; the order decides which memories find room.
            sized.sort(key=lambda item: -self._device.ram.blocks(item[0].width, item[0].depth) / item[1])
        for ram, units in sized:
            most = max(0, self._left[kind.kind]) // units
            # What was asked for by name is done though it overflows, and then does not fit.
            copies = ram.count if small == "distributed" else min(ram.count, most)
            self._take(kind.kind, self._distributed, ram.purpose, copies * units)
            if copies < ram.count:
                rest.append((ram, ram.count - copies))
        return rest

    def blocks_for(self, waiting: _Waiting) -> None:
        """Put memories into RAM blocks: of the preferred kind, and of the others what overflows there."""
        preferred, *others = self._device.rams
        ladder = self._device.ram
        # Counted before any is placed: only what overflows is moved.
        needed = sum(copies * ladder.blocks(ram.width, ram.depth) for ram, copies in waiting)
        for kind in others:
            if needed > self._left[preferred]:
                waiting, moved, freed = self._move(waiting, needed - self._left[preferred], kind)
                self._notes += [
                    f"{what} lie in {kind}: {preferred} has {self._left[preferred]} blocks left for the {needed} needed"
                    for what in moved
                ]
                needed -= freed
        for ram, copies in waiting:
            number = copies * ladder.blocks(ram.width, ram.depth)
            self._take(preferred, self._blocks[preferred], ram.purpose, number)

    def _move(self, waiting: _Waiting, excess: int, kind: str) -> tuple[_Waiting, list[str], int]:
        """Move memories to a kind until the excess is gone or it is full: what stays, what moved, blocks freed."""
        here, there = self._device.ram, self._device.rams[kind]
        stays, moved, freed = [], [], 0
        sized = [
            (ram, copies, here.blocks(ram.width, ram.depth), there.blocks(ram.width, ram.depth))
            for ram, copies in waiting
        ]
        # Fewest blocks there for each freed here: the other kind is often the scarcer one.
        sized.sort(key=lambda item: item[3] / item[2])
        for ram, copies, frees, costs in sized:
            # No more than the excess needs, than there are, and than there is room for.
            going = min(copies, max(0, -(-(excess - freed) // frees)), max(0, self._left[kind]) // costs)
            if going:
                self._take(kind, self._blocks[kind], ram.purpose, going * costs)
                moved.append(f"{going} of {ram.count} {ram.purpose} memories")
                freed += going * frees
            if going < copies:
                stays.append((ram, copies - going))
        return stays, moved, freed

    def _take(self, kind: str, taken: dict[RamPurpose, int], purpose: RamPurpose, number: int) -> None:
        if number:
            taken[purpose] = taken.get(purpose, 0) + number
            # Below zero is allowed: the result says that it does not fit, and by how much.
            self._left[kind] -= number

    def result(self) -> Placement:
        """Everything placed so far."""
        kinds = list(self._blocks)
        if self._device.entry.distributed is not None:
            kinds.append(self._device.entry.distributed.kind)
        return Placement(
            blocks=self._blocks,
            distributed=self._distributed,
            usage={kind: self._device.usage(kind, self._rooms[kind] - self._left[kind]) for kind in kinds},
            free={kind: max(0, self._left[kind]) for kind in self._blocks},
            fits=all(self._left[kind] >= 0 for kind in kinds),
            notes=tuple(self._notes),
        )


def deepest(width: int, count: int, free: Mapping[str, int], device: Device) -> int:
    """Words that each of `count` equal memories can have in the blocks that are free; 0 if not even one.

    Args:
        width: bits of a word.
        count: how many memories; each lies in blocks of one kind, and different ones may use different kinds.
        free: blocks by kind, `Placement.free`.
        device: what they are laid out on.
    """
    # The deepest that one kind alone allows bounds the answer; how the kinds share the copies is then counted.
    ladders = [(device.rams[kind], number) for kind, number in free.items()]
    low, high = 0, max((ladder.deepest(width, number) for ladder, number in ladders), default=0)
    while low < high:
        # Deeper memories never need fewer blocks, so the limit can be bisected.
        middle = (low + high + 1) // 2
        if sum(number // ladder.blocks(width, middle) for ladder, number in ladders) >= count:
            low = middle
        else:
            high = middle - 1
    return low
