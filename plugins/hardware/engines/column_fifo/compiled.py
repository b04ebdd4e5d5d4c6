"""The column engine's recurrence as a compiled loop, where numba is installed; the same numbers as in NumPy, sooner."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Recurrence = Callable[[Ints, Ints, NDArray[np.int64], int, int, Ints, Ints, Ints], None]


@cache
def recurrence() -> Recurrence | None:
    """`_recurrence`, compiled; None without numba. Compiling takes seconds once, then it is read from numba's cache."""
    if find_spec("numba") is None:
        return None
    # Imported only where it will be used: that alone takes longer than most costs.
    from numba import njit

    compiled: Recurrence = njit(cache=True)(_recurrence)
    return compiled


def _recurrence(
    work: Ints,
    ready: Ints,
    ends: NDArray[np.int64],
    slots: int,
    delay: int,
    free: Ints,
    arrival: Ints,
    last_start: Ints,
) -> None:
    """Fill when every PE is free, and of every column when it arrives and when its last PE starts it.

    Shapes:
        work (columns, groups, pes); ready, arrival, last_start (columns, groups); ends (groups,); free (groups, pes).
    """
    _, groups, pes = work.shape
    for group in range(groups):
        arrived, before = 0, 0
        for column in range(ends[group]):
            arrived += ready[column, group] - before
            before = ready[column, group]
            # Column i may enter when column i - slots has left every FIFO, seen a cycle later.
            if column >= slots:
                arrived = max(arrived, last_start[column - slots, group] + delay + 1)
            arrival[column, group] = arrived
            latest = 0
            for pe in range(pes):
                start = max(free[group, pe], arrived)
                free[group, pe] = start + work[column, group, pe]
                latest = max(latest, start)
            last_start[column, group] = latest
