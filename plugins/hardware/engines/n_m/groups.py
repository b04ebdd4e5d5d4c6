"""Groups of M neighbouring columns, N of them kept: what masks have to be for an N:M engine."""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from harness.api import Mask, Part

GROUPS = (2, 4, 8, 16, 32)
"""M that are looked for in a mask; one that suits a mask makes every larger one suit it too, with N in proportion."""

_PROBE_ROWS = 16
"""Rows looked at before a whole mask: where it is not N:M, the first few show it."""


class Fill(NamedTuple):
    """Fewest and most weights kept in a group; the fewest leaves out a ragged last group, unless it is the only one."""

    least: int
    most: int


def group_fill(part: Part, size: int) -> Fill | None:
    """How many weights the groups of `size` columns keep; None where only their number in the tensor is known."""
    if part.is_dense:
        return Fill(min(size, part.cols), min(size, part.cols))
    if part.mask is None:
        # Banks of that size are groups, and their number says how many each keeps.
        banks = part.banks or 0
        if banks * size != part.cols or part.kept % (part.rows * banks):
            return None
        return Fill(part.kept // (part.rows * banks), part.kept // (part.rows * banks))
    known = _FILLS.setdefault(part, {})
    if size not in known:
        known[size] = _counted(part.mask, size)
    return known[size]


def _counted(mask: Mask, size: int) -> Fill:
    rows, cols = mask.shape
    counts = np.zeros((rows, -(-cols // size)), dtype=np.uint8 if size < 256 else np.int32)
    # Strided additions, a column of all groups at a time: faster than a sum over reshaped rows.
    for offset in range(min(size, cols)):
        column = mask[:, offset::size]
        counts[:, : column.shape[1]] += column
    whole = counts[:, : max(1, cols // size)]
    return Fill(int(whole.min()), int(counts.max()))


def smallest_group(part: Part) -> int | None:
    """The smallest M that suits a mask: equally many weights in every whole group, and no more in a last one."""
    for size in GROUPS:
        if part.mask is not None and not part.is_dense and not _suits(_counted(part.mask[:_PROBE_ROWS], size)):
            continue
        fill = group_fill(part, size)
        if fill is not None and _suits(fill):
            return size
    return None


def _suits(fill: Fill) -> bool:
    return fill.least == fill.most


def most_in_a_group(part: Part, size: int) -> int:
    """The most weights of a group, at least one: an empty group still takes its slots."""
    fill = group_fill(part, size)
    return max(1, mean_fill(part, size) if fill is None else fill.most)


def mean_fill(part: Part, size: int) -> int:
    """Weights of a group if all are filled equally."""
    return -(-part.kept // (part.rows * -(-part.cols // size)))


_FILLS: WeakKeyDictionary[Part, dict[int, Fill]] = WeakKeyDictionary()
"""Fills of groups, kept as long as their tensor: many shapes share them."""
