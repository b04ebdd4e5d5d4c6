"""A column engine that ticks: queues, one clock cycle after the other; the slow oracle of the recurrence."""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Ticked:
    """When one group finished, what its PEs did, and the most entries seen in one FIFO."""

    cycles: int
    busy: tuple[int, ...]
    fifo_high_water: int


class _Pe:
    """A FIFO and the work behind it."""

    def __init__(self):
        self.queue = deque()
        self.left = 0
        self.busy = 0

    def take(self, least):
        """Take entries off the FIFO until there is something to do."""
        while self.left == 0 and self.queue:
            self.left = max(self.queue.popleft(), least)

    def work(self):
        if self.left:
            self.left -= 1
            self.busy += 1


def tick(columns, depth, full_flag="registered", least=1, idle=None):
    """Run one group clock cycle by clock cycle.

    `columns` holds, per broadcast, the entries of every PE. In a cycle every PE with nothing to do takes an entry, the
    broadcaster looks whether a FIFO is full, and what it sends can be taken in the next cycle. The full flag compares
    the number of entries with the depth: after this cycle's takes ("same_cycle"), before them ("registered"), or before
    them and with one slot in reserve ("late").
    """
    if not columns:
        return Ticked(0, (), 0)
    waits = list(idle) if idle is not None else [0] * len(columns)
    pes = [_Pe() for _ in columns[0]]
    sent, clock, high_water, wait = 0, 0, 0, waits[0]
    while True:
        before = [len(pe.queue) for pe in pes]
        high_water = max([high_water, *before])
        for pe in pes:
            pe.take(least)
        if sent == len(columns) and not any(pe.queue or pe.left for pe in pes):
            return Ticked(clock, tuple(pe.busy for pe in pes), high_water)
        seen = [len(pe.queue) for pe in pes] if full_flag == "same_cycle" else before
        full = max(seen) >= (depth - 1 if full_flag == "late" else depth)
        if sent < len(columns):
            if wait:
                wait -= 1
            elif not full:
                for pe, entries in zip(pes, columns[sent], strict=True):
                    pe.queue.append(entries)
                sent += 1
                wait = waits[sent] if sent < len(columns) else 0
        for pe in pes:
            pe.work()
        clock += 1
