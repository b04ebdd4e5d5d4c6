"""A constant matrix times a vector as a circuit of adders: digits, shared subexpressions, trees, registers.

A digit of a weight is its input, shifted and perhaps negated; an output is the sum of the digits of its row. Two digits
that stand in several rows with the same distance and relative sign are added once and become a digit of a new value.
What is left of every row is added in a tree.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .digits import Integers, signed_digits

_MOST_PAIRS = 400_000
"""Pairs of digits looked at in a round; rows with more are shared within stretches of columns."""

_SPAN = 256
"""Distances between digits that a pair's key has room for, either way."""

_HALVING = 2
"""A round takes the pairs that are at least half as frequent as the most frequent: nearly the order of one by one."""


@dataclass(frozen=True, eq=False)
class Circuit:
    """Adders, each of two values that were there before: `sign * (right << right_shift) + (left << left_shift)`.

    Values are numbered: inputs first, then adders in the order in which they may be computed.

    Args:
        inputs: elements of the vector.
        left, right: values that an adder takes.
        left_shift, right_shift: bits by which it shifts them; one of both is 0.
        sign: 1 or -1, of the right one.
        low, high: the least and the largest number that every value may be.
        depth: adders between every value and the inputs.
        outputs: the value of every row, -1 for a row without weights; its shift and sign.
        shared: how many of the adders serve several rows.
        digits: how many digits the weights have.
    """

    inputs: int
    left: Integers
    right: Integers
    left_shift: Integers
    right_shift: Integers
    sign: Integers
    low: Integers
    high: Integers
    depth: Integers
    outputs: Integers
    output_shift: Integers
    output_sign: Integers
    shared: int
    digits: int

    @property
    def adders(self) -> int:
        """How many there are, the negations of outputs included."""
        return len(self.left) + int(np.count_nonzero(self.output_sign < 0))

    @property
    def levels(self) -> int:
        """Adders on the longest path."""
        used = self.outputs[self.outputs >= 0]
        return int((self.depth[used] + (self.output_sign[self.outputs >= 0] < 0)).max(initial=0))

    @property
    def luts(self) -> int:
        """One LUT per bit of a sum that is computed: bits below the higher operand pass through."""
        sums = widths(self.low[self.inputs :], self.high[self.inputs :])
        # Subtracting what reaches lower than the other operand borrows from the bottom on.
        passed = np.where(self.sign > 0, np.maximum(self.left_shift, self.right_shift), self.right_shift)
        negated = self.outputs[self.output_sign < 0]
        return int((sums - passed).sum() + widths(self.low[negated], self.high[negated]).sum())

    def stages(self, per_stage: int) -> int:
        """Registers on every path, `per_stage` adders between two of them; at least one."""
        return max(1, -(-self.levels // per_stage))

    def registers(self, per_stage: int) -> int:
        """Flip-flops: of the inputs, of values that wait for a later stage, and of the outputs."""
        stage = np.maximum(self.depth - 1, 0) // per_stage
        consumed = stage.copy()
        for operand in (self.left, self.right):
            np.maximum.at(consumed, operand, stage[self.inputs :])
        last, wide = self.stages(per_stage) - 1, widths(self.low, self.high)
        used = self.outputs[self.outputs >= 0]
        # Outputs leave together, behind the last stage.
        consumed[used] = np.maximum(consumed[used], last + 1)
        return int((wide * (consumed - stage)).sum() + wide[: self.inputs].sum())

    def evaluate(self, vectors: Integers) -> Integers:
        """What the circuit computes, adder by adder.

        Shapes:
            vectors (inputs, n) -> (rows, n).
        """
        values = np.zeros((self.inputs + len(self.left), vectors.shape[1]), dtype=np.int64)
        values[: self.inputs] = vectors
        for place in range(len(self.left)):
            left = values[self.left[place]] << self.left_shift[place]
            right = values[self.right[place]] << self.right_shift[place]
            values[self.inputs + place] = left + self.sign[place] * right
        found = self.output_sign[:, None] * (values[self.outputs] << self.output_shift[:, None])
        return np.where(self.outputs[:, None] >= 0, found, 0)


def widths(low: Integers, high: Integers) -> Integers:
    """Bits of a signed number between these two."""
    largest = np.maximum(high + 1, -low).astype(np.float64)
    return np.ceil(np.log2(np.maximum(largest, 1))).astype(np.int64) + 1


def circuit(weights: Integers, input_bits: int, *, share: bool = True) -> Circuit:
    """The circuit of a constant matrix.

    Pairs of digits are shared in rounds: those that are most frequent first, and of pairs that want the same digit the
    more frequent one. A search pair by pair (Hartley, IEEE TCAS-II 43, 1996) finds about as few and takes far longer.

    Args:
        weights: integers.
        input_bits: of every element of the vector, signed.
        share: whether pairs that stand in several rows are added once.

    Shapes:
        weights (rows, cols).
    """
    builder = _Builder(weights, input_bits)
    if share:
        builder.share()
    shared = len(builder.depth) - weights.shape[1]
    builder.add_up()
    return builder.result(shared)


@dataclass
class _Builder:
    """Digits that are left to be added, and the adders so far."""

    weights: Integers
    input_bits: int
    adders: list[tuple[Integers, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows, cols = self.weights.shape
        place, self.power, self.sign = signed_digits(self.weights.ravel())
        self.row, self.value = place // cols, place % cols
        self.rows, self.digits = rows, len(place)
        self.low = np.full(cols, -(1 << (self.input_bits - 1)), dtype=np.int64)
        self.high = np.full(cols, (1 << (self.input_bits - 1)) - 1, dtype=np.int64)
        self.depth = np.zeros(cols, dtype=np.int64)

    def share(self) -> None:
        """Add pairs that stand in several places once, until none is left."""
        groups = self._stretches()
        while True:
            order = np.lexsort((self.power, self.value, self.row, groups[self.value]))
            self._keep(order)
            first, second, kind, count = _frequent_pairs(
                self.row + self.rows * groups[self.value], self.value, self.power, self.sign
            )
            if not count.size:
                return
            won = _taken(first, second, kind, count, len(self.row))
            if not won.size:
                return
            new = self._add_once(first[won], second[won], kind[won])
            groups = np.concatenate([groups, groups[self.adders[-1][0]]])
            self._replace(first[won], second[won], new)

    def _stretches(self) -> Integers:
        """Which stretch of columns every input belongs to: as many as keep the pairs of a round within bounds."""
        cols = self.weights.shape[1]
        per_row = np.bincount(self.row, minlength=self.rows).astype(np.float64)
        pairs = float((per_row * per_row).sum()) / 2
        stretches = int(min(cols, max(1, -(-pairs // _MOST_PAIRS))))
        of_input: Integers = np.arange(cols, dtype=np.int64) * stretches // cols
        return of_input

    def add_up(self) -> None:
        """What is left of every row in a tree: values that are there first, those of like weight together."""
        level = 0
        while self.row.size and np.bincount(self.row).max() > 1:
            ready = self.depth[self.value] <= level
            self._keep(np.lexsort((self.power, ~ready, self.row)))
            ready = self.depth[self.value] <= level
            start = np.searchsorted(self.row, self.row)
            place = np.arange(len(self.row)) - start
            count = np.bincount(self.row[ready], minlength=self.rows)[self.row]
            left = np.flatnonzero(ready & (place % 2 == 0) & (place + 1 < count))
            # A negative one goes to the right, so that an output is negative only where all of it is.
            is_turned = (self.sign[left] < 0) & (self.sign[left + 1] > 0)
            first, second = np.where(is_turned, left + 1, left), np.where(is_turned, left, left + 1)
            self._replace(first, second, self._add(first, second))
            level += 1

    def result(self, shared: int) -> Circuit:
        """The circuit, once every row is one value."""
        outputs = np.full(self.rows, -1, dtype=np.int64)
        shift, sign = np.zeros(self.rows, dtype=np.int64), np.ones(self.rows, dtype=np.int64)
        outputs[self.row], shift[self.row], sign[self.row] = self.value, self.power, self.sign
        empty = np.zeros(0, dtype=np.int64)
        left, right, left_shift, right_shift, signs = (
            np.concatenate([empty, *(adder[place] for adder in self.adders)]) for place in range(5)
        )
        return Circuit(
            self.weights.shape[1], left, right, left_shift, right_shift, signs, self.low, self.high, self.depth,
            outputs, shift, sign, shared, self.digits,
        )  # fmt: skip

    def _keep(self, order: NDArray[np.intp]) -> None:
        self.row, self.value, self.power, self.sign = (
            each[order] for each in (self.row, self.value, self.power, self.sign)
        )

    def _add_once(self, first: Integers, second: Integers, kind: Integers) -> Integers:
        """One adder for every kind of pair; which value every pair becomes."""
        _, chosen, inverse = np.unique(kind, return_index=True, return_inverse=True)
        return self._add(first[chosen], second[chosen])[inverse]

    def _add(self, first: Integers, second: Integers) -> Integers:
        """Adders of two digits each; the numbers of their values.

        A pair a << i plus or minus b << j is a value a << (i - m) plus or minus b << (j - m) with m = min(i, j), and a
        digit of it with the power m and the sign of a.
        """
        least = np.minimum(self.power[first], self.power[second])
        left, right = self.value[first], self.value[second]
        left_shift, right_shift = self.power[first] - least, self.power[second] - least
        sign = self.sign[first] * self.sign[second]
        low, high = self.low[right] << right_shift, self.high[right] << right_shift
        low, high = np.where(sign > 0, low, -high), np.where(sign > 0, high, -low)
        made = np.arange(len(first)) + len(self.depth)
        self.adders.append((left, right, left_shift, right_shift, sign))
        self.low = np.concatenate([self.low, (self.low[left] << left_shift) + low])
        self.high = np.concatenate([self.high, (self.high[left] << left_shift) + high])
        self.depth = np.concatenate([self.depth, np.maximum(self.depth[left], self.depth[right]) + 1])
        return made

    def _replace(self, first: Integers, second: Integers, new: Integers) -> None:
        """Digits of new values in the place of pairs."""
        stays = np.ones(len(self.row), dtype=np.bool_)
        stays[first] = stays[second] = False
        least = np.minimum(self.power[first], self.power[second])
        self.row = np.concatenate([self.row[stays], self.row[first]])
        self.value = np.concatenate([self.value[stays], new])
        self.power = np.concatenate([self.power[stays], least])
        self.sign = np.concatenate([self.sign[stays], self.sign[first]])


def _frequent_pairs(
    group: Integers, value: Integers, power: Integers, sign: Integers
) -> tuple[Integers, Integers, Integers, Integers]:
    """Pairs of digits of one group that are about as frequent as the most frequent one: both, kind, and frequency.

    Shapes:
        sorted by group -> (pairs,) each.
    """
    bounds = np.searchsorted(group, group, side="right")
    later = bounds - np.arange(len(group)) - 1
    first = np.repeat(np.arange(len(group)), later)
    second = np.arange(len(first)) - np.repeat(np.cumsum(later) - later, later) + first + 1
    values = int(value.max(initial=0)) + 1
    distance = power[second] - power[first] + _SPAN
    keys = (value[first] * values + value[second]) * (2 * _SPAN) + distance
    _, kind, counts = np.unique(2 * keys + (sign[first] != sign[second]), return_inverse=True, return_counts=True)
    count = counts[kind]
    wanted = count >= max(2, -(-int(counts.max(initial=0)) // _HALVING))
    first, second, kind, count = first[wanted], second[wanted], kind[wanted], count[wanted]
    # Equally frequent ones by kind, so that those of one kind win together.
    order = np.lexsort((first, kind, -count))
    return first[order], second[order], kind[order], count[order]


def _taken(first: Integers, second: Integers, kind: Integers, count: Integers, digits: int) -> Integers:
    """Pairs that get their digits, the earlier before the later; kinds that get them only once are left out."""
    won = _matched(first, second, digits)
    won = won[np.bincount(kind[won], minlength=int(kind.max()) + 1)[kind[won]] >= 2]
    if won.size:
        return won
    # Every kind lost all but one to others: then the most frequent one alone.
    alone = np.flatnonzero(kind == kind[0])
    won = alone[_matched(first[alone], second[alone], digits)]
    return won if len(won) >= 2 else won[:0]


def _matched(first: Integers, second: Integers, digits: int) -> Integers:
    """A greedy matching in the order given, all at once: a pair wins if it is the first that wants either digit."""
    alive, won = np.arange(len(first)), []
    while alive.size:
        earliest = np.full(digits, len(first))
        np.minimum.at(earliest, first[alive], alive)
        np.minimum.at(earliest, second[alive], alive)
        wins = alive[(earliest[first[alive]] == alive) & (earliest[second[alive]] == alive)]
        won.append(wins)
        used = np.zeros(digits, dtype=np.bool_)
        used[first[wins]] = used[second[wins]] = True
        alive = alive[~(used[first[alive]] | used[second[alive]])]
    return np.sort(np.concatenate(won)) if won else alive
