"""The block engine: arrays that take one kept block of the matrix after another."""

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

from pydantic import Field, PositiveInt

from harness.api import Conditions, Engine, EngineShape, Line, Product, Ram, Run, even_cuts, hookimpl

from ..bank import fill_drain
from .blocks import BlockSize, KeptBlocks, Load, counted_load, expected_load, kept_blocks, largest_block

_LANE_CHOICES = 5
"""Widths of an array that are tried with each block: the largest divisors of its size."""

_MORE_GROUPS = (Fraction(1), Fraction(4, 3), Fraction(2))
"""Smaller numbers of arrays that are tried: those with so many times the groups of block rows."""


class Block(Engine):
    """A arrays of l multipliers; block row i runs on array i mod A, and each kept block takes ceil(bh * bw / l) cycles.

    One index serves a whole block; the word also tells its row of blocks, so that empty ones cost nothing. A block at
    the edge of a matrix takes as long as any other.

    The blocks of an LSTM layer are those of its tensors, gate after gate: rows put unit by unit would tear a block
    that is higher than one row apart. So the four gates of a unit leave far apart, and the element-wise part waits
    for the end.

    Assumes: a vector of its own for every array, delivered `bw` elements at a time; sums of a row of blocks stay in
        the array until it is done.

    Source:
        Narang et al., "Block-Sparse Recurrent Neural Networks", arXiv 1711.02782: the pattern; the array is our own.
    """

    name: ClassVar[str] = "block"

    block: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None,
        description="rows and columns of a block; blocks with any kept weight are then computed whole. None takes the "
        "largest blocks, up to 16 x 16, into which the masks fall apart",
    )
    arrays: int | None = Field(default=None, gt=0, description="A, arrays; None searches")
    lanes: int | None = Field(default=None, gt=0, description="l, multipliers of an array; None searches")
    lockstep: bool = Field(default=False, description="whether all arrays wait for the slowest after every block row")

    def refusal(self, product: Product) -> str | None:
        """Without `block`, masks must be known and made of whole blocks; rows of a block share their inputs."""
        # Inputs are handed to a whole block, whose rows would need different ones.
        if product.groups > 1:
            return f"rows of a block share their inputs, and those of {product.layer} are of {product.groups} groups"
        if self.block is not None:
            return None
        names = " and ".join(part.tensor for part in product.parts)
        if not product.has_masks:
            return f"it has to see which weights are kept, and of {names} only their number is known; set its `block`"
        if largest_block(product.parts) is None:
            return (
                f"it runs masks of whole blocks, and no block larger than 1 x 1 is kept or dropped whole throughout "
                f"{names}; set its `block` to have blocks with any kept weight computed whole"
            )
        return None

    def shapes(self, products: Sequence[Product], budget: int) -> Sequence[EngineShape]:
        """Arrays as wide as a block and narrower; with each the most that the budget allows, then fewer."""
        found = {
            # A dict and no set: the order is that of the search, and ties go to the first.
            _shape(block, arrays, lanes): None
            for block in self._blocks(products)
            for lanes in self._lane_choices(block, budget)
            for arrays in self._array_choices(products, block, max(1, budget // lanes))
        }
        return list(found)

    def lines(self, products: Sequence[Product], budget: int) -> Sequence[Sequence[EngineShape]]:
        """For every block and every width that saves a cycle of it, any number of arrays."""

        def line(block: BlockSize, lanes: int) -> Line:
            rows = max(_block_rows(product, block[0]) for product in products)
            sizes = [self.arrays] if self.arrays else range(1, max(1, min(rows, budget // lanes)) + 1)
            return Line(sizes, lambda arrays: _shape(block, arrays, lanes))

        most = max(1, budget // (self.arrays or 1))
        return [
            line(block, lanes)
            for block in self._blocks(products)
            for lanes in ([self.lanes] if self.lanes else even_cuts(block[0] * block[1], most))
        ]

    def fixed_shape(self, products: Sequence[Product], budget: int) -> EngineShape:
        """A whole block per cycle."""
        block = self._blocks(products)[0]
        lanes = self._lane_choices(block, budget)[0]
        return _shape(block, self.arrays or max(1, budget // lanes), lanes)

    def least_cycles(self, product: Product, shape: EngineShape) -> int:
        """The mean over the arrays."""
        blocks = sum(kept.total for kept in _kept(product, shape))
        return -(-blocks * _cycles_per_block(shape) // shape["arrays"])

    def simulate(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """Exact: every row of blocks is so many blocks of equal length."""
        kept = _kept(product, shape)
        load = counted_load(kept, shape["arrays"], lockstep=self.lockstep)
        return self._run(product, shape, conditions, kept, load)

    def expect(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """Expected: each tensor's kept blocks lie anywhere in it."""
        kept = _kept(product, shape)
        load = expected_load(kept, shape["arrays"], lockstep=self.lockstep)
        return self._run(product, shape, conditions, kept, load)

    def _run(
        self, product: Product, shape: EngineShape, conditions: Conditions, kept: list[KeptBlocks], load: Load
    ) -> Run:
        (height, width), arrays, lanes, each = _block(shape), shape["arrays"], shape["lanes"], _cycles_per_block(shape)
        blocks, inside = sum(tensor.total for tensor in kept), sum(tensor.inside for tensor in kept)
        values, slots = blocks * each * lanes, arrays * lanes
        across, deep = sum(tensor.across for tensor in kept), -(-kept[0].down // arrays)
        # Column within the row of blocks, and which of its array's rows of blocks it is.
        index_bits = max(1, (across - 1).bit_length() + (deep - 1).bit_length())
        deepest = max(1, load.deepest)
        return Run(
            parts={
                "compute": Fraction(product.nnz, slots),
                "zeros": Fraction(inside - product.nnz, slots),
                "lane_mismatch": Fraction(values - inside, slots),
                **{name: blocks_more * each for name, blocks_more in load.imbalance.items()},
                # Only products of one row of the block are added up: no tree is wider than the block.
                "fill_drain": Fraction(fill_drain(min(lanes, width))),
            },
            rams=(
                Ram("weights", lanes * conditions.weight_bits, deepest * each, arrays, stacked=True),
                Ram("pointers", index_bits, deepest, arrays, stacked=True, small=True),
                # The next vector is written while this one is read.
                Ram("vector", width * conditions.activation_bits, 2 * across, arrays, small=True),
                Ram("accumulators", height * conditions.accumulator_bits, deep, arrays, small=True),
            ),
            # Nothing leaves before the end: rows of a unit's gates lie far apart.
            last=load.slowest * each,
            stored_bits=Fraction(values * conditions.weight_bits + blocks * index_bits),
            stored_words=Fraction(values),
            busy=None if load.each is None else load.each * each,
            notes=self._notes(product, shape, inside),
        )

    def _notes(self, product: Product, shape: EngineShape, inside: int) -> tuple[str, ...]:
        height, width = _block(shape)
        why = "as asked for" if self.block is not None else "into which the masks fall apart"
        if inside > product.nnz:
            why = f"computed whole, with {inside - product.nnz} zeros among {inside} weights"
        notes = (f"blocks of {height} x {width}: {why}",)
        if product.units is None:
            return notes
        return (*notes, "rows gate after gate, as the blocks are cut: the element-wise part waits for the last row")

    def _blocks(self, products: Sequence[Product]) -> list[BlockSize]:
        """The block of all products together, then those of single ones, which the others pad."""
        if self.block is not None:
            return [self.block]
        parts = [part for product in products for part in product.parts]
        # Dense and empty ones fit any block, and would only shrink the choice.
        own = [largest_block(product.parts) for product in products if 0 < product.nnz and not product.is_dense]
        found = dict.fromkeys(block for block in (largest_block(parts), *own) if block is not None)
        return list(found) or [(1, 1)]

    def _lane_choices(self, block: BlockSize, budget: int) -> list[int]:
        if self.lanes is not None:
            return [self.lanes]
        size, most = block[0] * block[1], max(1, budget // (self.arrays or 1))
        # Widths that divide the block leave no lane idle in its last cycle.
        return [lanes for lanes in range(size, 0, -1) if size % lanes == 0 and lanes <= most][:_LANE_CHOICES]

    def _array_choices(self, products: Sequence[Product], block: BlockSize, most: int) -> list[int]:
        if self.arrays is not None:
            return [self.arrays]
        rows = max(_block_rows(product, block[0]) for product in products)
        top = min(most, rows)
        return [top, *(-(-rows // int(-(-rows // top) * more)) for more in _MORE_GROUPS)]


def _kept(product: Product, shape: EngineShape) -> list[KeptBlocks]:
    return [kept_blocks(part, _block(shape)) for part in product.parts]


def _block(shape: EngineShape) -> BlockSize:
    return shape["block_rows"], shape["block_cols"]


def _block_rows(product: Product, height: int) -> int:
    return -(-product.rows // height)


def _cycles_per_block(shape: EngineShape) -> int:
    return -(-shape["block_rows"] * shape["block_cols"] // shape["lanes"])


def _shape(block: BlockSize, arrays: int, lanes: int) -> EngineShape:
    sizes = (("arrays", arrays), ("lanes", lanes), ("block_rows", block[0]), ("block_cols", block[1]))
    return EngineShape(sizes, arrays * lanes)


@hookimpl
def register_engine() -> type[Engine]:
    """Offer this engine to the harness."""
    return Block
