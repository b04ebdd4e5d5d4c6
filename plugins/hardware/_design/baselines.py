"""What a design is compared with: the dense matrices on a dot-product array and on the same engine, in best shapes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from harness.api import Engine, Part, Product

from ..engines.dense_mvm import DenseMvm
from .copies import copy_choices, search_copies
from .design import Design, design
from .search import Setting


@dataclass(frozen=True)
class Sizes:
    """A product without its masks: what the dense baseline depends on."""

    layer: str
    rows: int
    cols: tuple[int, ...]
    units: int | None
    pixels: int
    convolution: object
    steps: int

    @classmethod
    def of(cls, product: Product) -> Self:
        """The sizes of a product."""
        cols = tuple(part.cols for part in product.parts)
        return cls(product.layer, product.rows, cols, product.units, product.pixels, product.convolution, product.steps)

    def dense(self) -> Product:
        """The product with every weight kept."""
        # Dense parts know no masks, so that products of equal sizes are one key of the cache.
        parts = tuple(Part(f"{self.layer}.{i}", self.rows, n, None, self.rows * n) for i, n in enumerate(self.cols))
        return Product(self.layer, parts, self.units, self.pixels, self.convolution, steps=self.steps)  # type: ignore[arg-type]  # hashable form


@dataclass(frozen=True)
class Room:
    """What a baseline may take: multipliers of all copies together, and how many copies; None searches them."""

    multipliers: int
    copies: int | None

    def choices(self, engine: Engine, work: Sequence[Product]) -> tuple[int, ...]:
        """Numbers of copies to look at."""
        if self.copies is None or engine.whole_layer:
            return copy_choices(engine, work, self.multipliers)
        return (self.copies,)


@lru_cache(maxsize=256)
def dense_design(engine: Engine, sizes: tuple[Sizes, ...], room: Room, setting: Setting) -> Design:
    """Dense products on an engine, in its best shape within the budget; an expectation is exact if nothing varies."""
    work = tuple(size.dense() for size in sizes)
    choices = room.choices(engine, work)
    return search_copies(engine, work, room.multipliers, engine.expect, setting, choices).result.best


@lru_cache(maxsize=256)
def dense_compute(sizes: tuple[Sizes, ...], room: Room, setting: Setting) -> Design:
    """The dense baseline that computes fastest, whether its weights fit or not."""
    engine, work = DenseMvm(), tuple(size.dense() for size in sizes)

    def fastest(copies: int) -> tuple[int, int, Design]:
        # The largest shape of each line: whether weights fit is not asked.
        tops = [line[-1] for line in engine.lines(work, max(1, room.multipliers // copies))]
        cycles, shape = min(
            (
                (sum(engine.least_cycles(each, top) * -(-each.pixels // copies) * each.steps for each in work), top)
                for top in tops
            ),
            key=lambda found: found[0],
        )
        numerics = setting.numerics.model_copy(update={"pixel_copies": copies})
        return cycles, copies, design(engine, shape, work, engine.expect, setting.device, numerics, setting.budget)

    return min((fastest(copies) for copies in room.choices(engine, work)), key=lambda found: found[:2])[2]


def own_dense_design(engine: Engine, sizes: tuple[Sizes, ...], room: Room, setting: Setting) -> Design | None:
    """The dense products on the engine of the cost, None if it refuses them."""
    if any(engine.refusal(size.dense()) is not None for size in sizes):
        return None
    return dense_design(engine, sizes, room, setting)
