"""The column engine: a recurrence over columns instead of a loop over clock cycles, exact, vectorised over the PEs.

Every group of PEs broadcasts its columns one by one; a PE queues them in a FIFO of depth D and spends as many cycles on
a column as it has entries of it. With c(p, j) entries of column j on PE p, q usable slots, rho extra cycles of the
"full" flag, m least cycles of a column and e(j) cycles lost before column j is found:

    A(j)    = max( A(j-1) + 1 + e(j),  max over p of S(p, j-q) + rho )      broadcast; A(-1) = -1; second term if j >= q
    S(p, j) = max( F(p, j-1),  A(j) + 1 )                                   start on PE p; F(p, -1) = 0
    F(p, j) = S(p, j) + max( c(p, j), m )                                   finish; the last one is when the group ends

A broadcast looks q columns back, so the times of q broadcasts follow from what is known before the first of them.

The columns of a matrix go to the groups in turn (column j to group j mod G), so that tensors of unequal density side by
side load the groups equally; the rows go to the PEs of a group in turn.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from time import perf_counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.api import Mask

from .compiled import recurrence

FullFlag = Literal["registered", "same_cycle", "late"]
TrailingRuns = Literal["padded", "not_padded"]
Counts = NDArray[np.integer]

_BLOCK = 64
"""Most columns between two looks at the FIFOs: bounds the working memory where FIFOs are deep."""


@dataclass(frozen=True, eq=False)
class ColumnRun:
    """What a column engine did with one matrix, group by group; the first broadcast is cycle 0.

    Args:
        finish: cycles until each group has finished.
        unlimited: the same if no FIFO were ever full.
        busy: cycles in which each PE works.
        fifo_high_water: most entries that ever waited in one FIFO, the one that leaves it included.

    Shapes:
        finish, unlimited (groups,); busy (groups, pes).
    """

    finish: NDArray[np.int64]
    unlimited: NDArray[np.int64]
    busy: NDArray[np.int64]
    fifo_high_water: int

    @property
    def cycles(self) -> int:
        """Cycles until the last group has finished, without adding up the groups and without pipeline constants."""
        return int(self.finish.max())

    @property
    def fifo_stall(self) -> int:
        """Cycles that FIFOs without end would save."""
        return self.cycles - int(self.unlimited.max())

    @property
    def fill(self) -> int:
        """The cycle in which the first broadcast reaches the PEs."""
        return min(1, self.cycles)

    def parts(self, nonzeros: int, entries: int) -> dict[str, Fraction]:
        """Where the cycles without the fill go, per PE; `entries` are the `nonzeros` and what pads their indices."""
        pes, work = self.busy.size, int(self.busy.sum())
        return {
            "compute": Fraction(nonzeros, pes),
            "index_padding": Fraction(entries - nonzeros, pes),
            "empty_columns": Fraction(work - entries, pes),
            # What the fullest PE does beyond the mean, had no FIFO ever been full.
            "pe_imbalance": int(self.unlimited.max()) - self.fill - Fraction(work, pes),
            "fifo_stall": Fraction(self.fifo_stall),
        }


def column_cycles(
    counts: Counts,
    *,
    depth: int,
    full_flag: FullFlag = "registered",
    least: int = 1,
    idle: Counts | None = None,
    lengths: NDArray[np.integer] | None = None,
) -> ColumnRun:
    """Run the recurrence on all groups at once.

    Args:
        counts: entries of every PE, in the order in which a group broadcasts its columns. A group's values behind its
            own length do not matter.
        depth: FIFO slots.
        full_flag: "same_cycle" sees a slot freed in this very cycle, "registered" one cycle later; "late" is a flag
            that is itself a register, and therefore gives up a slot as well.
        least: cycles of a column without entries: 1, or 0 if such columns leave the FIFO in no time.
        idle: cycles lost before each column is broadcast; None for none.
        lengths: columns of each group; None where all have `counts.shape[0]`.

    Shapes:
        counts (columns, groups, pes); idle (columns, groups); lengths (groups,).

    Raises:
        ValueError: the FIFO is too shallow for its flag.
    """
    columns, groups, _ = counts.shape
    slots, delay = _slots(depth, full_flag)
    ends = np.full(groups, columns) if lengths is None else np.asarray(lengths)
    order = np.argsort(-ends, kind="stable")  # groups that still run are then a slice
    is_sorted = bool((order == np.arange(groups)).all())
    work = np.maximum(counts if is_sorted else counts[:, order], least, dtype=np.int32)
    if lengths is not None:
        # Behind a group's end stands whatever the array had: it must cost nothing.
        work[np.arange(columns)[:, None] >= ends[order]] = 0
    busy = work.sum(axis=0, dtype=np.int64)
    ready = np.broadcast_to(np.arange(1, columns + 1, dtype=np.int32)[:, None], (columns, groups))
    if idle is not None:
        ready = ready + np.cumsum(idle[:, order], axis=0, dtype=np.int32)
    if (work <= work[:, :, :1]).all():
        # A PE that never has more to do than another never decides; in a dense matrix the first one has the most rows.
        work = np.ascontiguousarray(work[:, :, :1])
    # More slots than columns never fill, and would only make the table longer.
    finish, high_water = _recurrence(work, ready, ends[order], min(slots, columns), delay)
    if slots >= columns:
        unlimited = finish
    elif least >= 1 and idle is None:
        unlimited = np.where(ends[order] > 0, busy.max(axis=1) + 1, 0)  # a PE never waits for a column but the first
    else:
        unlimited, _ = _recurrence(work, ready, ends[order], columns, delay)
    back = np.argsort(order)
    return ColumnRun(finish[back], unlimited[back], busy[back], high_water)


def _slots(depth: int, full_flag: FullFlag) -> tuple[int, int]:
    """Usable slots of a FIFO, and cycles until a freed one is seen."""
    # Of a late flag the last slot takes what is already on its way.
    slots = depth - 1 if full_flag == "late" else depth
    if slots < 1:
        least = 2 if full_flag == "late" else 1
        raise ValueError(
            f"a FIFO whose full flag is {full_flag!r} needs a depth of at least {least}, got {depth}; make it deeper"
        )
    return slots, 0 if full_flag == "same_cycle" else 1


_spent: list[float] = [0.0]
"""Seconds that this process has spent in the loop below."""

_PATIENCE_S = 2.0
"""About what loading a compiled loop takes: a process that has not spent as much yet is better off without."""


def compile_at_once() -> None:
    """Take the compiled loop from now on, where numba is installed: for a process that will need it."""
    _spent[0] = float("inf")


def _worth_compiling() -> bool:
    return _spent[0] > _PATIENCE_S


def _recurrence(
    work: NDArray[np.int32], ready: NDArray[np.int32], ends: NDArray[np.integer], slots: int, delay: int
) -> tuple[NDArray[np.int64], int]:
    """When every group finishes, and the most entries in a FIFO; the groups are in order of falling length.

    `ready` holds A + 1 if no FIFO were ever full: when a column can start at the earliest.
    """
    columns, groups, pes = work.shape
    free = np.zeros((groups, pes), dtype=np.int32)
    # Only the loop is timed: what else a process does says nothing of whether compiling would pay.
    began = perf_counter()
    compiled = recurrence() if _worth_compiling() else None
    if compiled is not None and work.size:
        found, started = np.zeros((2, columns, groups), dtype=np.int32)
        compiled(work, np.ascontiguousarray(ready), ends.astype(np.int64), slots, delay, free, found, started)
        return free.max(axis=1).astype(np.int64), _high_water(found, started, ends)
    late = np.zeros((1, groups), dtype=np.int32)  # how much full FIFOs have delayed the broadcasts so far
    arrival = np.empty((columns, groups), dtype=np.int32)
    # Row j: the last start of column j - slots; the columns before the first never hold a broadcast up.
    last_start = np.full((slots + columns, groups), np.iinfo(np.int32).min // 2, dtype=np.int32)
    starts = np.empty((min(slots, _BLOCK), groups, pes), dtype=np.int32)
    # Blocks end where groups do, so that within one the same groups run.
    edges = {*range(0, columns, len(starts) or 1), *ends.tolist()} | {columns}
    for first, end in pairwise(sorted(edges)):
        live = int(np.searchsorted(-ends, -first))  # groups longer than `first`
        # A column may be broadcast once the one `slots` before it has left every FIFO; delays add up, never down.
        delays = last_start[first:end, :live] + (delay + 1) - ready[first:end, :live]
        delays = np.maximum.accumulate(np.concatenate([late[:, :live], delays]), axis=0)
        late = delays[-1:]
        np.add(ready[first:end, :live], delays[1:], out=arrival[first:end, :live])
        _work_off(free[:live], arrival[first:end, :live, None], work[first:end, :live], starts[: end - first, :live])
        np.maximum.reduce(starts[: end - first, :live], axis=2, out=last_start[slots + first : slots + end, :live])
    _spent[0] += perf_counter() - began
    return free.max(axis=1).astype(np.int64), _high_water(arrival, last_start[slots:], ends)


def _work_off(
    free: NDArray[np.int32], arrival: NDArray[np.int32], work: NDArray[np.int32], starts: NDArray[np.int32]
) -> None:
    """Work off some columns whose broadcast times are known: fills `starts` and moves `free` on."""
    for start, arrived, cost in zip(starts, arrival, work, strict=True):
        np.maximum(free, arrived, out=start)
        np.add(start, cost, out=free)


def _high_water(arrival: NDArray[np.int32], last_start: NDArray[np.int32], ends: NDArray[np.integer]) -> int:
    """Most columns that had arrived at the start of an older one, that one included."""
    most = 0
    for group, end in enumerate(ends.tolist()):
        # Times rise along both arrays, so that one search per column counts those that had arrived.
        there = np.searchsorted(arrival[:end, group], last_start[:end, group], side="right")
        most = max(most, int((there - np.arange(end)).max(initial=0)))
    return most


def pe_counts(mask: Mask, pes: int) -> NDArray[np.integer]:
    """Weights kept of every column on every PE, row r being on PE r mod pes.

    Shapes:
        mask (rows, cols) -> (pes, cols).
    """
    rows, cols = mask.shape
    kind = _narrowest(-(-rows // pes))
    kept = np.zeros((pes, cols), dtype=kind)
    whole = rows - rows % pes
    np.sum(mask[:whole].view(np.uint8).reshape(-1, pes, cols), axis=0, dtype=kind, out=kept)
    kept[: rows - whole] += mask[whole:]
    return kept


def dense_counts(rows: int, cols: int, pes: int) -> Counts:
    """The same where every weight is kept, without a mask: the first PEs have a row more."""
    each = (np.arange(rows + pes - 1, rows - 1, -1) // pes).astype(_narrowest(-(-rows // pes)))
    return np.broadcast_to(each[:, None], (pes, cols))


def _narrowest(most: int) -> type[np.unsignedinteger]:
    """The narrowest type that holds so many: counting is bound by memory."""
    return np.uint8 if most < 256 else np.uint16 if most < 65536 else np.uint32


def run_padding(mask: Mask, pes: int, index_bits: int, trailing_runs: TrailingRuns) -> NDArray[np.integer]:
    """Zeros stored because a run of zeros is longer than its index can say: one per 2^index_bits zeros of a run.

    A run is one of zeros in a PE's slice of a column; the one behind the slice's last weight counts if trailing runs
    are "padded".

    Shapes:
        mask (rows, cols) -> (pes, cols).
    """
    rows, cols = mask.shape
    kind = np.uint16 if -(-rows // pes) < 65536 else np.uint32
    run, padding = np.zeros((pes, cols), dtype=kind), np.zeros((pes, cols), dtype=kind)
    if -(-rows // pes) < 1 << index_bits:  # no run is that long
        return padding
    for first in range(0, rows, pes):
        kept = mask[first : first + pes]
        here = run[: len(kept)]
        # One stored zero for every full stretch that the index cannot say; paid when the run ends.
        padding[: len(kept)] += (here >> index_bits) * kept
        here += 1
        here *= ~kept
    if trailing_runs == "padded":
        padding += run >> index_bits
    return padding


def broadcast_order(
    cols: int, groups: int, live: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which column every group broadcasts when, and how many it has; what stands behind a group's last is column 0.

    Args:
        cols: columns of the matrix, dealt to the groups in turn.
        groups: groups of PEs.
        live: columns whose vector element is not zero; None for all.

    Shapes:
        live (cols,) -> (most columns of a group, groups), (groups,).
    """
    columns = np.arange(cols) if live is None else np.flatnonzero(live)
    lengths = np.bincount(columns % groups, minlength=groups)
    # Stable: within a group the columns stay in order.
    by_group = columns[np.argsort(columns % groups, kind="stable")]
    order = np.zeros((groups, int(lengths.max())), dtype=np.intp)
    order[np.arange(order.shape[1]) < lengths[:, None]] = by_group
    return order.T, lengths


def scan_idle(order: NDArray[np.intp], lengths: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    """Cycles lost before every broadcast if `width` vector elements are searched per cycle for one that is not zero.

    A cycle is lost for every stretch of `width` elements of the group that are all zero; those behind the last
    broadcast cost nothing.

    Shapes:
        order (columns, groups), lengths (groups,) as of `broadcast_order` -> (columns, groups).
    """
    stretch = order // order.shape[1] // width
    idle: NDArray[np.intp] = np.maximum(np.diff(stretch, axis=0, prepend=-1) - 1, 0)
    # Behind a group's end the table repeats column 0, which would count as a jump back.
    idle[np.arange(len(order))[:, None] >= lengths] = 0
    return idle
