"""Weights that find no room on chip: in which pieces they are read, and what a buffer filled ahead hides of that."""

from collections.abc import Sequence
from dataclasses import dataclass

_ROUNDS = 32
"""Items after which a buffer's level repeats, at the latest; two suffice unless it is nearly as large as an item."""


@dataclass(frozen=True)
class Demand:
    """What one layer asks of a buffer.

    Args:
        bits: of its weights that are streamed.
        computing: cycles in which it consumes them.
        rest: cycles behind that, in which it consumes none.
        bits_per_cycle: that the memory delivers for it.
    """

    bits: float
    computing: float
    rest: float
    bits_per_cycle: float


def stalls(demands: Sequence[Demand], room: float, *, overlap: bool) -> list[float]:
    """Cycles that every layer waits, where a buffer of `room` bits is filled ahead, once items follow one another.

    The memory reads without a pause as long as the buffer has room, also while layers run whose weights are on chip; a
    layer waits for what neither the buffer holds nor arrives while it computes.

    Args:
        demands: of the layers, in the order in which they run; the first follows the last.
        room: bits of the buffer; 0 hides nothing but what arrives during a layer's own product.
        overlap: whether a layer's weights may arrive while it computes, or must be there before.
    """
    level, waits = 0.0, [0.0] * len(demands)
    for _ in range(_ROUNDS):
        before = level
        for place, each in enumerate(demands):
            arriving = each.computing * each.bits_per_cycle
            missing = each.bits - level - (arriving if overlap else 0.0)
            waits[place] = max(0.0, missing / each.bits_per_cycle) if each.bits else 0.0
            left = level + waits[place] * each.bits_per_cycle - each.bits
            level = min(room, max(0.0, left + arriving + each.rest * each.bits_per_cycle))
            if overlap and missing > 0:  # all that arrived while it computed was used up
                level = min(room, each.rest * each.bits_per_cycle)
        # The level at the end of an item is that at the beginning of the next.
        if level == before:
            break
    return waits
