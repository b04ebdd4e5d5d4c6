"""The block engine: arrays that take one kept block of the matrix after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from harness.api import Conditions, Engine, EngineShape, Product, Ram, Run, hookimpl

from .._blocks import BlockSize, Counts, KeptBlocks, binomial, expected_largest, kept_blocks, largest_block
from .bank import fill_drain

_LANE_CHOICES = 5
"""Widths of an array that are tried with each block: the largest divisors of its size."""

_MORE_GROUPS = (Fraction(1), Fraction(4, 3), Fraction(2))
"""Smaller numbers of arrays that are tried: those with so many times the groups of block rows."""


@dataclass(frozen=True)
class _Issue:
    """Cycles without the constant of the pipeline, and words in the fullest weight RAM."""

    cycles: Fraction
    depth: int
    imbalance: dict[str, Fraction]
    busy: NDArray[np.int64] | None = None


class Block(Engine):
    """A arrays of l multipliers; block row i runs on array i mod A, and each kept block takes ceil(bh * bw / l) cycles.

    One index serves a whole block; the word also tells its row of blocks, so that empty ones cost nothing. A block at
    the edge of a matrix takes as long as any other.

    The blocks of an LSTM layer are those of its tensors, gate after gate: rows put unit by unit would tear a block
    that is higher than one row apart. So the four gates of a unit leave far apart, and the element-wise part waits
    for the end.

    Assumes: a vector of its own for every array, delivered `bw` elements at a time; sums of a row of blocks stay in
        the array until it is done.
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
        """Without `block`, masks must be known and made of whole blocks."""
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
            _shape(block, arrays, lanes): None
            for block in self._blocks(products)
            for lanes in self._lane_choices(block, budget)
            for arrays in self._array_choices(products, block, max(1, budget // lanes))
        }
        return list(found)

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
        """Exact: every block row is so many blocks of equal length."""
        rows = sum((kept.per_row for kept in _kept(product, shape) if kept.per_row is not None), np.zeros(1, np.int64))
        return self._run(product, shape, conditions, _counted(rows * _cycles_per_block(shape), shape, self.lockstep))

    def expect(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """Expected: each tensor's kept blocks lie anywhere in it, so that those of a block row are binomial."""
        return self._run(product, shape, conditions, _expected(product, shape, self.lockstep))

    def _run(self, product: Product, shape: EngineShape, conditions: Conditions, issue: _Issue) -> Run:
        (height, width), arrays, lanes = _block(shape), shape["arrays"], shape["lanes"]
        kept = _kept(product, shape)
        blocks, inside = sum(part.total for part in kept), sum(part.inside for part in kept)
        words, slots = blocks * _cycles_per_block(shape), arrays * lanes
        deep = -(-_block_rows(product, height) // arrays)
        across = sum(-(-part.cols // width) for part in product.parts)
        index_bits = (across - 1).bit_length() + (deep - 1).bit_length()
        return Run(
            parts={
                "compute": Fraction(product.nnz, slots),
                "zeros": Fraction(inside - product.nnz, slots),
                "lane_mismatch": Fraction(words * lanes - inside, slots),
                **issue.imbalance,
                "fill_drain": Fraction(fill_drain(min(lanes, width))),
            },
            rams=(
                Ram("weights", lanes * conditions.weight_bits, max(1, issue.depth), arrays, stacked=True),
                Ram("pointers", max(1, index_bits), max(1, issue.depth // _cycles_per_block(shape)), arrays, True),
                # The next vector is written while this one is read.
                Ram("vector", width * conditions.activation_bits, 2 * across, arrays, small=True),
                Ram("accumulators", height * conditions.accumulator_bits, deep, arrays, small=True),
            ),
            last=issue.cycles,
            stored_bits=Fraction(words * lanes * conditions.weight_bits + blocks * index_bits),
            stored_words=Fraction(words * lanes),
            busy=issue.busy,
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
        own = [largest_block(product.parts) for product in products if 0 < product.nnz and not product.is_dense]
        found = dict.fromkeys(block for block in (largest_block(parts), *own) if block is not None)
        return list(found) or [(1, 1)]

    def _lane_choices(self, block: BlockSize, budget: int) -> list[int]:
        if self.lanes is not None:
            return [self.lanes]
        size, most = block[0] * block[1], max(1, budget // (self.arrays or 1))
        return [lanes for lanes in range(size, 0, -1) if size % lanes == 0 and lanes <= most][:_LANE_CHOICES]

    def _array_choices(self, products: Sequence[Product], block: BlockSize, most: int) -> list[int]:
        if self.arrays is not None:
            return [self.arrays]
        rows = max(_block_rows(product, block[0]) for product in products)
        top = min(most, rows)
        return [top, *(-(-rows // int(-(-rows // top) * more)) for more in _MORE_GROUPS)]


def _counted(costs: NDArray[np.int64], shape: EngineShape, lockstep: bool) -> _Issue:
    """The exact cycles of block rows that take so long."""
    arrays, rows = shape["arrays"], len(costs)
    groups = -(-rows // arrays)
    padded = np.zeros(groups * arrays, dtype=np.int64)
    padded[:rows] = costs
    grid = padded.reshape(groups, arrays)
    busy: NDArray[np.int64] = grid.sum(axis=0)
    total, cycles = int(costs.sum()), Fraction(int(grid.max(axis=1).sum() if lockstep else busy.max()))
    gap = cycles - Fraction(total, arrays)
    tail = min(gap, (groups - Fraction(rows, arrays)) * Fraction(total, rows))
    return _Issue(cycles, int(busy.max()), {"tail": tail, "pe_imbalance": gap - tail}, busy)


def _expected(product: Product, shape: EngineShape, lockstep: bool) -> _Issue:
    height, width = _block(shape)
    arrays, kept, each = shape["arrays"], _kept(product, shape), _cycles_per_block(shape)
    groups, more = divmod(_block_rows(product, height), arrays)

    def load(rows: int) -> Counts:
        counts = binomial(0, 0.0)
        for part, blocks in zip(product.parts, kept, strict=True):
            across = -(-part.cols // width)
            counts = counts.plus(binomial(rows * across, blocks.total / (across * _block_rows(product, height))))
        return counts

    alone = expected_largest([(load(groups), arrays - more), (load(groups + 1), more)])
    together = alone
    if lockstep:
        together = groups * expected_largest([(load(1), arrays)]) + (expected_largest([(load(1), more)]) if more else 0)
    mean = Fraction(sum(part.total for part in kept), arrays)
    cycles = each * max(mean, Fraction(together).limit_denominator(1 << 20))
    return _Issue(cycles, each * int(np.ceil(alone - 1e-6)), {"imbalance": cycles - each * mean})


def _kept(product: Product, shape: EngineShape) -> list[KeptBlocks]:
    return [kept_blocks(part, _block(shape)) for part in product.parts]


def _block(shape: EngineShape) -> BlockSize:
    return shape["block_rows"], shape["block_cols"]


def _block_rows(product: Product, height: int) -> int:
    return -(-product.rows // height)


def _cycles_per_block(shape: EngineShape) -> int:
    return -(-shape["block_rows"] * shape["block_cols"] // shape["lanes"])


def _shape(block: BlockSize, arrays: int, lanes: int) -> EngineShape:
    sizes = (("block_rows", block[0]), ("block_cols", block[1]), ("arrays", arrays), ("lanes", lanes))
    return EngineShape(sizes, arrays * lanes)


@hookimpl
def register_engine() -> type[Engine]:
    """Offer this engine to the harness."""
    return Block
