"""Blocks of a mask: which are kept, the largest ones into which masks fall apart, and how they load parallel arrays.

Row i of blocks, with n(i) kept ones, runs on array i mod A. Arrays on their own finish after the largest sum of n over
their rows; in lockstep every group of A rows takes as long as its slowest.

Only the number of kept blocks is needed to expect that: blocks that lie anywhere in a tensor make n(i) binomial, and so
is every sum of them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from harness.api import Mask, Part

BlockSize = tuple[int, int]
"""Rows and columns of a block."""

_LARGEST = 16
"""Largest side that a search uses: beyond it a block saves next to no index bits and leaves arrays without work."""

_PROBE_ROWS = 64
"""Rows looked at before a whole mask: single weights show in the first few."""

_SPREAD = 12.0
"""Standard deviations of a binomial count that are laid out; the chance beyond is below 1e-30."""


@dataclass(frozen=True, eq=False)
class KeptBlocks:
    """Blocks of one tensor that hold a kept weight.

    Args:
        down, across: rows of blocks, and blocks in each.
        total: how many of them hold one.
        inside: weights inside them, pruned ones included.
        per_row: how many each row of blocks has; None where only `total` is known.
    """

    down: int
    across: int
    total: int
    inside: int
    per_row: NDArray[np.int64] | None


def kept_blocks(part: Part, block: BlockSize) -> KeptBlocks:
    """Count the blocks of a tensor that hold a kept weight, on the tensor's own rows.

    Without a mask the kept weights are taken to fill whole blocks, as the pattern `block` leaves them.
    """
    known = _KEPT.setdefault(part, {})
    if block not in known:
        known[block] = _counted(part, block)
    return known[block]


def largest_block(parts: Iterable[Part]) -> BlockSize | None:
    """The largest block, up to 16 x 16, of which each is kept or dropped whole in all these tensors.

    Its sides divide every row and every column at which a mask changes, so that blocks at an edge may be smaller.
    None if that leaves single weights.
    """
    parts = tuple(parts)
    # gcd with 0 is the other number: a tensor that never changes asks for nothing.
    height, width = (math.gcd(*sides) for sides in zip(*(_grid(part) for part in parts), strict=True))
    block = _side(height, min(part.rows for part in parts)), _side(width, min(part.cols for part in parts))
    return None if block == (1, 1) and (height, width) != (0, 0) else block


def any_of(mask: Mask, size: int) -> Mask:
    """Whether any of `size` neighbouring rows is True; the last rows may be fewer.

    Shapes:
        (rows, cols) -> (ceil(rows / size), cols).
    """
    found = mask[::size].copy()
    for offset in range(1, min(size, len(mask))):
        rows = mask[offset::size]
        found[: len(rows)] |= rows
    return found


@dataclass(frozen=True, eq=False)
class Load:
    """What arrays are given to do, in blocks; array by array where that is known.

    Args:
        slowest: blocks after which the last array is done.
        deepest: blocks that the fullest array stores.
        imbalance: what `slowest` has beyond the mean of the arrays, by cause.
    """

    slowest: Fraction
    deepest: int
    imbalance: dict[str, Fraction]
    each: NDArray[np.int64] | None = None


def counted_load(kept: Sequence[KeptBlocks], arrays: int, *, lockstep: bool) -> Load:
    """The exact load of so many arrays; the tensors lie side by side, and all of them must be known row by row."""
    per_row = [tensor.per_row for tensor in kept if tensor.per_row is not None]
    assert len(per_row) == len(kept)
    rows, total = len(per_row[0]), sum(tensor.total for tensor in kept)
    groups = -(-rows // arrays)
    padded = np.zeros(groups * arrays, dtype=np.int64)
    padded[:rows] = np.sum(per_row, axis=0)
    grid = padded.reshape(groups, arrays)
    # Row i of blocks runs on array i mod A, so that the columns of this grid are the arrays.
    each: NDArray[np.int64] = grid.sum(axis=0)
    slowest = Fraction(int(grid.max(axis=1).sum() if lockstep else each.max()))
    gap = slowest - Fraction(total, arrays)
    # Arrays without a block row in the last round idle for a mean row; never more than what is lost in all.
    tail = min(gap, (groups - Fraction(rows, arrays)) * Fraction(total, rows))
    return Load(slowest, int(each.max()), {"tail": tail, "pe_imbalance": gap - tail}, each)


def expected_load(kept: Sequence[KeptBlocks], arrays: int, *, lockstep: bool) -> Load:
    """The load to expect if the kept blocks of every tensor lie anywhere in it."""
    rows = kept[0].down
    groups, more = divmod(rows, arrays)

    def load(count: int) -> Counts:
        counts = Counts(0, np.ones(1))
        for tensor in kept:
            # Its blocks in so many rows, each kept with the chance of all: the rows themselves are not told.
            counts = counts.plus(binomial(count * tensor.across, tensor.total / (rows * tensor.across)))
        return counts

    alone = slowest = expected_largest([(load(groups), arrays - more), (load(groups + 1), more)])
    if lockstep:
        one = load(1)
        # In lockstep every group waits for its own slowest: a sum of maxima, not the maximum of sums.
        slowest = groups * expected_largest([(one, arrays)]) + (expected_largest([(one, more)]) if more else 0.0)
    mean = Fraction(sum(tensor.total for tensor in kept), arrays)
    expected = max(mean, Fraction(slowest).limit_denominator(1 << 20))  # never below it by a rounding error
    return Load(expected, math.ceil(alone - 1e-6), {"imbalance": expected - mean})


@dataclass(frozen=True, eq=False)
class Counts:
    """Probabilities of the integers from `low` on."""

    low: int
    mass: NDArray[np.float64]

    def cumulated(self, low: int, high: int) -> NDArray[np.float64]:
        """P(count <= t) for t = low .. high - 1, `low` being at least the smallest count."""
        # Behind the last count the chance is 1, up to wherever the other distributions reach.
        whole = np.ones(max(high - self.low, len(self.mass)))
        whole[: len(self.mass)] = np.clip(np.cumsum(self.mass), 0.0, 1.0)
        return whole[low - self.low : high - self.low]

    def plus(self, other: "Counts") -> "Counts":
        """The sum of two independent counts."""
        return Counts(self.low + other.low, np.convolve(self.mass, other.mass))


def binomial(trials: int, chance: float) -> Counts:
    """How many of so many independent trials succeed; only the part of the distribution that matters."""
    if trials == 0 or chance <= 0 or chance >= 1:
        return Counts(trials if chance >= 1 else 0, np.ones(1))
    reach = _SPREAD * math.sqrt(trials * chance * (1 - chance)) + _SPREAD
    low, high = max(0, math.floor(trials * chance - reach)), min(trials, math.ceil(trials * chance + reach))
    hits = np.arange(low, high)
    steps = np.log((trials - hits) / (hits + 1.0)) + math.log(chance) - math.log1p(-chance)
    # Ratios of neighbours, in logarithms: factorials of these counts overflow.
    logs = np.concatenate([[0.0], np.cumsum(steps)])  # log of P(count) / P(low)
    mass = np.exp(logs - logs.max())
    return Counts(low, mass / mass.sum())


def expected_largest(draws: Sequence[tuple[Counts, int]]) -> float:
    """The expected maximum of independent counts: so many draws of each distribution."""
    drawn = [(counts, number) for counts, number in draws if number]
    low = max(counts.low for counts, _ in drawn)
    high = max(counts.low + len(counts.mass) for counts, _ in drawn)
    below = np.ones(high - low)
    for counts, number in drawn:
        below *= counts.cumulated(low, high) ** number
    # E[max] = low + sum over t >= low of P(max > t).
    return low + float((1 - below).sum())


def _counted(part: Part, block: BlockSize) -> KeptBlocks:
    (height, width), (rows, cols) = block, (part.rows, part.cols)
    down, across = -(-rows // height), -(-cols // width)
    if part.is_dense:
        return KeptBlocks(down, across, down * across, part.size, np.full(down, across))
    if part.mask is None:
        # As though of whole blocks: where the weights lie is not told.
        total = min(-(-part.kept // (height * width)), down * across)
        return KeptBlocks(down, across, total, part.kept, None)
    kept = any_of(any_of(part.mask, height).T, width).T  # (down, across)
    per_row = np.count_nonzero(kept, axis=1)
    # A block at the edge has fewer weights inside: the last column and the last row count what they hold.
    columns = np.count_nonzero(kept[:, :-1], axis=1) * width + kept[:, -1] * (cols - (across - 1) * width)
    inside = int(columns[:-1].sum()) * height + int(columns[-1]) * (rows - (down - 1) * height)
    return KeptBlocks(down, across, int(per_row.sum()), inside, per_row)


def _grid(part: Part) -> BlockSize:
    """Greatest common divisors of the rows and of the columns at which a mask changes; 0 if it never does."""
    if part.mask is None or part.is_dense or part.kept == 0:
        return 0, 0
    if part not in _GRIDS:
        grid = _changes(part.mask[:_PROBE_ROWS])
        # Single weights in the first rows settle it; anything coarser has to hold in all of them.
        _GRIDS[part] = grid if grid == (1, 1) else _changes(part.mask)
    return _GRIDS[part]


def _changes(mask: Mask) -> BlockSize:
    # Where two neighbouring rows differ, one block ends and another begins.
    rows = np.flatnonzero((mask[1:] != mask[:-1]).any(axis=1)) + 1
    cols = np.flatnonzero((mask[:, 1:] != mask[:, :-1]).any(axis=0)) + 1
    return math.gcd(*rows.tolist()), math.gcd(*cols.tolist())


def _side(divisible: int, size: int) -> int:
    """The largest side that divides; a power of two that fits where everything divides."""
    if divisible == 0:
        return min(_LARGEST, 1 << (size.bit_length() - 1))
    return max(side for side in range(1, _LARGEST + 1) if divisible % side == 0)


_KEPT: WeakKeyDictionary[Part, dict[BlockSize, KeptBlocks]] = WeakKeyDictionary()
_GRIDS: WeakKeyDictionary[Part, BlockSize] = WeakKeyDictionary()
"""Counts and grids, kept as long as their tensor: many shapes share them."""
