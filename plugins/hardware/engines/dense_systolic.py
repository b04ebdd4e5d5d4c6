"""A dense systolic array: tiles of a matrix-matrix product, the baseline for batches and convolutions."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import ClassVar, Literal

from pydantic import Field

from harness.api import Conditions, Engine, EngineShape, Line, Product, Ram, RamPurpose, Run, even_cuts, hookimpl

Dataflow = Literal["output_stationary", "weight_stationary", "input_stationary"]

FIRST_CYCLE = 1
"""Number of a tile's first cycle. Counted from 1, the last number is how many cycles the tile takes; tools that report
the number of the last cycle counted from 0 are one lower per tile."""

_BUDGETS = ((Fraction(1), 8), (Fraction(3, 4), 3), (Fraction(1, 2), 3), (Fraction(1, 4), 2))
"""Shares of the budget, and how many of the fastest arrays within each are tried."""


@dataclass(frozen=True)
class _Tiling:
    """How a product of weights (outputs x inputs) and vectors (inputs x vectors) is cut for an array.

    Args:
        down, across: tiles along the rows and the columns of the array.
        length: operands that stream through a tile, one per cycle.
        load: cycles that put the stationary operands of a tile in place.
        high, wide: rows and columns of PEs that ever work.
        groups: of a convolution's outputs; each is a product of its own.
    """

    down: int
    across: int
    length: int
    load: int
    high: int
    wide: int
    groups: int = 1

    @property
    def tiles(self) -> int:
        """Tiles, one after another."""
        return self.down * self.across * self.groups


class DenseSystolic(Engine):
    """Ra x Ca PEs with links to their neighbours only; every weight is multiplied, kept or not.

    A product of weights (outputs R x inputs C) and V vectors (pixels times batch) runs tile by tile, the next one
    beginning when the last one has left:

        output stationary   ceil(R/Ra) * ceil(V/Ca) tiles of         C + Ra + Ca - 2 cycles, the sums stay in place
        weight stationary   ceil(C/Ra) * ceil(R/Ca) tiles of Ra +    V + Ra + Ca - 2 cycles, Ra of them to load
        input stationary    ceil(C/Ra) * ceil(V/Ca) tiles of Ra +    R + Ra + Ca - 2 cycles, Ra of them to load

    With one vector an output-stationary array works in one of its columns, so that its utilisation is at most 1/Ca: a
    straw man at batch 1, where `dense_mvm` is the baseline.

    Assumes: tiles do not overlap, operands arrive when they are due: the first is pessimistic, the second optimistic.
    """

    name: ClassVar[str] = "dense_systolic"
    whole_layer: ClassVar[bool] = True
    shares_operand: ClassVar[bool] = True

    array_rows: int | None = Field(default=None, gt=0, description="Ra, rows of the array; None searches")
    array_cols: int | None = Field(default=None, gt=0, description="Ca, columns of the array; None searches")
    dataflow: Dataflow = Field(default="output_stationary", description="which operand stays in its PE")
    batch: int = Field(default=1, gt=0, description="independent inputs that are multiplied together")

    @property
    def streams(self) -> int:
        """The batch."""
        return self.batch

    def shapes(self, products: Sequence[Product], budget: int) -> Sequence[EngineShape]:
        """The fastest arrays within the budget and within parts of it."""
        found: dict[EngineShape, None] = {}
        for share, number in _BUDGETS:
            found |= dict.fromkeys(self._arrays(products, max(1, int(budget * share)))[:number])
        return list(found)

    def lines(self, products: Sequence[Product], budget: int) -> Sequence[Sequence[EngineShape]]:
        """For every width that saves a tile, every height that saves one: others only lengthen the way through."""
        extents = [self._extents(product) for product in products]
        most = max(1, budget // (self.array_rows or 1))
        widths = {cut for _, across, _ in extents for cut in even_cuts(across, most)}
        # Between two cuts a higher array has as many tiles and only a longer way through.
        heights = sorted({cut for down, _, _ in extents for cut in even_cuts(down)})

        def line(wide: int) -> Line:
            fitting = [high for high in heights if high * wide <= budget] or [1]
            return Line([self.array_rows] if self.array_rows else fitting, lambda high: _shape(high, wide))

        return [line(wide) for wide in ([self.array_cols] if self.array_cols else sorted(widths))]

    def fixed_shape(self, products: Sequence[Product], budget: int) -> EngineShape:
        """The largest square."""
        rows = self.array_rows or (isqrt(budget) if self.array_cols is None else max(1, budget // self.array_cols))
        return _shape(rows, self.array_cols or (isqrt(budget) if self.array_rows is None else max(1, budget // rows)))

    def least_cycles(self, product: Product, shape: EngineShape) -> int:
        """Exactly the cycles."""
        tiling = self._tiling(product, shape)
        return tiling.tiles * (tiling.load + tiling.length + _skew(shape))

    def simulate(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """Every tile takes as long as a full one, whatever the mask."""
        tiling, skew, vectors = self._tiling(product, shape), _skew(shape), product.pixels * self.batch
        every = Fraction(product.size * vectors, shape.multipliers)
        compute = Fraction(product.nnz * vectors, shape.multipliers)
        rams = self._rams(product, tiling, conditions)
        last, last_rows = self._last(product, tiling, skew)
        return Run(
            parts={
                "compute": compute,
                "zeros": every - compute,
                "lane_mismatch": tiling.tiles * tiling.length - every,
                "tile_load": Fraction(tiling.tiles * tiling.load),
                # Tiles do not overlap: each fills and drains the array for itself.
                "tail": Fraction((tiling.tiles - 1) * skew),
                "fill_drain": Fraction(skew),
            },
            rams=rams,
            last=Fraction(last),
            last_rows=last_rows,
            stored_bits=Fraction(rams[0].width * rams[0].depth),
            stored_words=Fraction(rams[0].width * rams[0].depth, conditions.weight_bits),
            # Weights that stay in their PEs are loaded once; others pass by for every tile of vectors.
            weight_reads=Fraction(1 if self.dataflow == "weight_stationary" else tiling.across),
            words=self._words(tiling),
            notes=(
                f"{self.dataflow.replace('_', '-')}, zeros multiplied; at most {tiling.high} of {shape['array_rows']} "
                f"rows and {tiling.wide} of {shape['array_cols']} columns of PEs work",
            ),
        )

    def expect(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The same: nothing depends on where the zeros are."""
        return self.simulate(product, shape, conditions)

    def _extents(self, product: Product) -> tuple[int, int, int]:
        """What lies along the rows of the array, along its columns, and in time."""
        outputs, inputs, vectors = product.rows // product.groups, product.cols, product.pixels * self.batch
        # What stays in its PE spans both sides of the array; the third extent is time.
        if self.dataflow == "output_stationary":
            return outputs, vectors, inputs
        return (inputs, outputs, vectors) if self.dataflow == "weight_stationary" else (inputs, vectors, outputs)

    def _tiling(self, product: Product, shape: EngineShape) -> _Tiling:
        high, wide = shape["array_rows"], shape["array_cols"]
        along_rows, along_cols, length = self._extents(product)
        return _Tiling(
            down=-(-along_rows // high),
            across=-(-along_cols // wide),
            length=length,
            # A stationary operand is loaded row by row before the tile begins.
            load=0 if self.dataflow == "output_stationary" else high,
            high=min(high, along_rows),
            wide=min(wide, along_cols),
            groups=product.groups,
        )

    def _last(self, product: Product, tiling: _Tiling, skew: int) -> tuple[int, int | None]:
        """Cycles of the tiles that the last outputs wait for, and how many rows those are; None for all."""
        each = tiling.load + tiling.length + skew
        if self.dataflow == "output_stationary":  # all vectors with the last rows
            return tiling.across * each - skew, (product.rows // product.groups - 1) % tiling.high + 1
        if self.dataflow == "weight_stationary":  # all inputs of the last rows
            return tiling.down * each - skew, (product.rows // product.groups - 1) % tiling.wide + 1
        return each - skew, None

    def _words(self, tiling: _Tiling) -> dict[RamPurpose, Fraction]:
        """Words of vectors that enter at the edges, and of sums that go back and forth: none while a tile drains."""
        streamed = Fraction(tiling.tiles * tiling.length)
        if self.dataflow == "output_stationary":
            return {"vector": streamed}
        # Inputs that stay are loaded once for every tile.
        vectors = streamed if self.dataflow == "weight_stationary" else Fraction(tiling.tiles * tiling.high)
        return {"vector": vectors, "accumulators": 2 * streamed}

    def _rams(self, product: Product, tiling: _Tiling, conditions: Conditions) -> tuple[Ram, ...]:
        """One memory per edge of the array, as wide as the edge; vectors twice, to be written while they are read."""
        weight, element, total = conditions.weight_bits, conditions.activation_bits, conditions.accumulator_bits
        high, wide, down = tiling.high, tiling.wide, tiling.down
        if self.dataflow == "output_stationary":
            return (
                Ram("weights", high * weight, down * tiling.length * tiling.groups, 1, stacked=True),
                Ram("vector", wide * element, 2 * tiling.length, 1),
            )
        if self.dataflow == "weight_stationary":
            return (
                Ram("weights", wide * weight, tiling.tiles * high, 1, stacked=True),
                Ram("vector", high * element, 2 * down * self.batch, 1),
                Ram("accumulators", wide * total, tiling.length, 1),
            )
        return (
            Ram("weights", high * weight, down * tiling.length * tiling.groups, 1, stacked=True),
            Ram("vector", wide * element, 2 * down * high, 1),
            Ram("accumulators", wide * total, tiling.length, 1),
        )

    def _arrays(self, products: Sequence[Product], budget: int) -> list[EngineShape]:
        """Arrays within a budget, fastest first: as high as some number of tiles needs, as wide as the rest allows."""
        extents = [self._extents(product) for product in products]
        widest = max(along_cols for _, along_cols, _ in extents)
        most = max(1, budget // (self.array_cols or 1))
        heights = {high for along_rows, _, _ in extents for high in even_cuts(along_rows) if high <= most}
        found = []
        for high in heights if self.array_rows is None else {self.array_rows}:
            wide = self.array_cols or max(1, min(budget // high, widest))
            # As few columns as give the same number of tiles.
            found.append(_shape(high, self.array_cols or -(-widest // -(-widest // wide))))

        def cycles(shape: EngineShape) -> tuple[int, int]:
            return sum(self.least_cycles(product, shape) for product in products), shape.multipliers

        return sorted(found, key=cycles)


def _skew(shape: EngineShape) -> int:
    """Cycles of a tile in which its operands are still on their way through the array."""
    return shape["array_rows"] + shape["array_cols"] - 3 + FIRST_CYCLE


def _shape(rows: int, cols: int) -> EngineShape:
    return EngineShape((("array_rows", rows), ("array_cols", cols)), rows * cols)


@hookimpl
def register_engine() -> type[Engine]:
    """Offer this engine to the harness."""
    return DenseSystolic
