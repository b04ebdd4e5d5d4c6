"""In which pieces streamed weights are read, and what is left of a stream's bandwidth then."""

import math
from typing import Literal

from harness.api import Frozen, Run

WeightLayout = Literal["in_order", "rows", "values"]
"""How streamed weights lie in off-chip memory: as they are read, a piece for every row, or each value on its own."""


class Bursts(Frozen):
    """What an off-chip memory reads at least, and what a jump to another place costs, in bytes of its bandwidth."""

    size: float
    jump: float

    def share(self, piece: float) -> float:
        """Share of a stream's bandwidth that is left where pieces of so many bytes lie apart.

        Example:
            >>> Bursts(size=64, jump=64).share(64)  # a burst, and as long again until the next one begins
            0.5
        """
        if piece <= 0:
            return 1.0
        return piece / (math.ceil(piece / self.size - 1e-9) * self.size + self.jump)


def reading_share(run: Run, rows: int, layout: WeightLayout, bursts: Bursts | None) -> float:
    """Share of the stream's bandwidth with which a product's weights are read.

    Args:
        run: what is stored of them.
        rows: of the product.
        layout: how they lie.
        bursts: of the memory; None where none is known, which is taken to read any piece at full speed.
    """
    if layout == "in_order" or bursts is None or not run.stored_bits:
        return 1.0
    pieces = rows if layout == "rows" else max(1.0, float(run.stored_words))
    return bursts.share(float(run.stored_bits) / 8 / pieces)
