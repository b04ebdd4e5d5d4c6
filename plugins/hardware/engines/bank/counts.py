"""The bank engine: M processing elements of N lanes, one bank of a row per lane, one kept weight per lane and cycle.

Row r runs on PE r mod M. With c(r, j) weights kept in bank j of row r, the row takes

    t(r) = max(1, sum over waves v of max over banks j in v of c(r, j))

cycles, a wave being N neighbouring banks. PEs that work on their own finish after the largest sum of t over their rows;
in lockstep every group of M rows takes as long as its slowest. Both are exact: no loop over cycles is needed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from harness.api import Part, Product, ShapeError

_SAMPLED_ROWS = 256
"""Rows that an outline looks at."""

_BOUNDED = 2.0
"""Deviations above the mean within which the fullest of a sample shows that no row is fuller: of normal ones it is
nearly three."""

_PROBE_ROWS = 16
"""Rows looked at before a whole mask is searched for equally filled banks: most candidates fail in the first few."""


@dataclass(frozen=True)
class Issue:
    """One product on one shape, without the constants of the engine.

    Args:
        cycles: issue cycles of one run; a fraction where they are an expectation.
        last: cycles of the last group of rows, which nothing behind it can hide.
        depth: words in the fullest weight RAM.
        words: words in all weight RAMs.
        parts: where the cycles go; they sum to `cycles`.
        busy: cycles in which each PE works, where that is known.
    """

    cycles: Fraction
    last: Fraction
    depth: int
    words: Fraction
    parts: dict[str, Fraction]
    busy: NDArray[np.int64] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class BankMap:
    """How the columns of a product are cut into banks: the first column of each, and why so."""

    starts: tuple[int, ...]
    cols: int
    why: str

    @property
    def count(self) -> int:
        """Banks per row."""
        return len(self.starts)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Columns of every bank."""
        return tuple(np.diff([*self.starts, self.cols]).tolist())

    @cached_property
    def longest(self) -> int:
        """Columns of the longest bank."""
        return max(self.lengths)


def split(cols: int, banks: int) -> list[int]:
    """First column of each of `banks` stretches whose lengths differ by at most one, the longer ones first."""
    short, longer = divmod(cols, banks)
    ends_longer = longer * (short + 1)
    return [*range(0, ends_longer, short + 1), *range(ends_longer, cols, short)]


@dataclass(frozen=True)
class Outline:
    """About what a row takes: mean cycles, their deviation from row to row, and the most where that is known."""

    mean: float
    deviation: float
    most: float | None = None

    def longest(self, rows: int, pes: int) -> float:
        """Cycles that the fullest of so many PEs is likely to take for that many rows each."""
        # The largest of n normal sums lies sqrt(2 ln n) standard deviations above their mean.
        above = sqrt(2 * rows * log(max(2, pes))) if pes > 1 else 0.0
        likely = self.mean * rows + self.deviation * above
        return likely if self.most is None else min(likely, self.most * rows)


class Banks:
    """Bank maps and counts of one product."""

    def __init__(self, product: Product, asked: int | None) -> None:
        """Take a product, and the number of banks per row that its user asks for.

        Raises:
            ShapeError: more banks are asked for than there are columns.
        """
        if asked is not None and asked > product.cols:
            raise ShapeError(
                f"engine bank cuts every row into `banks` banks of at least one column, got banks={asked} for the "
                f"{product.cols} columns of {product.layer!r}; set `banks` to at most {product.cols}"
            )
        self.product = product
        self._asked = asked
        self._fine: tuple[NDArray[np.intp], NDArray[np.int32]] | None = None
        self._rows: dict[int, ExactRows] = {}
        self._least: dict[int, int] = {}
        self._outlines: dict[int, Outline] = {}
        self._maps: dict[int, BankMap] = {}

    @cached_property
    def natural(self) -> tuple[int | None, ...]:
        """Equally filled banks of every part, where it has more than one."""
        return tuple(_natural(part) for part in self.product.parts)

    @cached_property
    def even(self) -> NDArray[np.int32] | None:
        """Weights kept in every bank of every row, if they are the same in all rows and banks of a part; else None.

        Shapes:
            (banks,).
        """
        # Banks that a user asks for are taken as they are: whether they are even is not looked for.
        if self._asked is not None:
            return None
        kept: list[int] = []
        for part, count in zip(self.product.parts, self.natural, strict=True):
            if count is None:
                return None
            # Cheap before dear: the totals rule most masks out before their banks are counted.
            each, rest = divmod(part.kept, part.rows * count)
            if rest or (part.mask is not None and not _is_even(part, count, each)):
                return None
            kept += [each] * count
        return np.array(kept, dtype=np.int32)

    def even_row(self, lanes: int) -> int | None:
        """Cycles of every row on PEs with so many lanes, if all banks of a part keep the same count; else None."""
        if self.even is None:
            return None
        # Parts side by side may keep different counts: a wave over their border takes as long as the fuller.
        return max(1, int(np.maximum.reduceat(self.even, wave_starts(len(self.even), lanes)).sum()))

    def least(self, lanes: int) -> int:
        """A lower bound on the cycles of all rows together, without counting banks; needs masks.

        It stays the same once the banks are counted: what a search finds must not depend on earlier ones.
        """
        if lanes not in self._least:
            # A row cannot be quicker than its weights spread evenly over the lanes, nor than one cycle.
            self._least[lanes] = int(np.maximum(1, -(-self.product.row_counts // lanes)).sum())
        return self._least[lanes]

    def outline(self, lanes: int) -> "Outline":
        """Mean and deviation of the cycles of a row on PEs with so many lanes, from a sample of rows."""
        if lanes not in self._outlines:
            # The cheapest that holds: equal banks, dense, counted on a sample, guessed from the number alone.
            even = self.even_row(lanes)
            if even is not None:
                self._outlines[lanes] = Outline(float(even), 0.0)
            elif self.product.is_dense:
                self._outlines[lanes] = Outline(float(self.exact(lanes).costs[0]), 0.0)
            elif self.product.has_masks:
                self._outlines[lanes] = self._sampled(lanes)
            else:
                self._outlines[lanes] = _guessed(self.product, self.map(lanes).count, lanes)
        return self._outlines[lanes]

    def _sampled(self, lanes: int) -> "Outline":
        starts = np.array(self.map(lanes).starts)
        ends = np.append(starts[1:], self.product.cols)
        # Differences of running sums: any bank map is counted without another pass over the mask.
        counts = self._prefix[:, ends] - self._prefix[:, starts]  # (rows of the sample, banks)
        peaks = np.maximum.reduceat(counts, wave_starts(len(starts), lanes), axis=1)
        # A row without weights takes a cycle, as its end has to be stored.
        costs = np.maximum(1, peaks.sum(axis=1, dtype=np.int64))
        mean, deviation, most = float(costs.mean()), float(costs.std()), float(costs.max())
        # Rows that are either full or empty reach no further than the full ones; of a sample of others the most is
        # not that of all.
        is_known = len(costs) == self.product.rows or most <= mean + _BOUNDED * deviation
        return Outline(mean, deviation, most if is_known else None)

    @cached_property
    def _prefix(self) -> NDArray[np.int32]:
        """Weights kept before every column in evenly drawn rows, (rows of the sample, cols + 1)."""
        rows = np.unique(np.linspace(0, self.product.rows - 1, _SAMPLED_ROWS).astype(np.intp))
        prefix = np.zeros((len(rows), self.product.cols + 1), dtype=np.int32)
        np.cumsum(self.product.mask[rows], axis=1, out=prefix[:, 1:])
        return prefix

    def map(self, lanes: int) -> BankMap:
        """The bank map for PEs with so many lanes."""
        if lanes not in self._maps:
            self._maps[lanes] = self._map(lanes)
        return self._maps[lanes]

    def _map(self, lanes: int) -> BankMap:
        cols = self.product.cols
        if self._asked is not None:
            return BankMap(tuple(split(cols, self._asked)), cols, "as asked for")
        # A mask without equal banks is free to be cut: one bank per lane needs the fewest waves.
        if not any(self.natural):
            return BankMap(tuple(split(cols, min(lanes, cols))), cols, "no equally filled banks: one per lane")
        starts: list[int] = []
        for part, left, count in zip(self.product.parts, self.product.offsets, self.natural, strict=False):
            # Dense and unstructured parts beside a banked one are cut as though alone.
            starts += [left + start for start in split(part.cols, count or min(lanes, part.cols))]
        return BankMap(tuple(starts), cols, "the equally filled banks of the mask")

    def prepare(self, lanes: Iterable[int]) -> None:
        """Count once for several numbers of lanes; nothing to count where only statistics are known."""
        if not self.product.has_masks:
            return
        # Parts' first columns too, so that each part's counts can be told from the others'.
        starts = {start for lane in lanes for start in self.map(lane).starts} | set(self.product.offsets[:-1])
        edges = np.array(sorted(starts))
        self._fine = edges, self.product.counts(edges)

    def exact(self, lanes: int) -> "ExactRows":
        """What every row costs on PEs with so many lanes, counted on the masks."""
        if lanes not in self._rows:
            rows, even = self.product.rows, self.even
            is_same = even is not None or self.product.is_dense
            if not is_same:
                self._count_around(lanes)
            counts = self.counts(self.map(lanes)) if even is None else even[None]
            # Equal rows are counted once and multiplied.
            self._rows[lanes] = ExactRows(counts[:1] if is_same else counts, lanes, repeat=rows if is_same else 1)
        return self._rows[lanes]

    def _count_around(self, lanes: int) -> None:
        """Count for neighbouring numbers of lanes too, once for all: a pass over the mask costs more than its cuts."""
        if self._fine is None or not np.isin(self.map(lanes).starts, self._fine[0]).all():
            self.prepare(near for near in (lanes - 1, lanes, lanes + 1) if near >= 1)

    def counts(self, bank_map: BankMap) -> NDArray[np.int32]:
        """Weights kept in every bank of every engine row, (rows, banks)."""
        if self.product.is_dense:
            # A view of one row: a dense product's counts need no memory of their own.
            return np.broadcast_to(np.array(bank_map.lengths, dtype=np.int32), (self.product.rows, bank_map.count))
        starts = np.array(bank_map.starts)
        if self._fine is None or not np.isin(starts, self._fine[0]).all():
            known = self.product.offsets[:-1] if self._fine is None else self._fine[0]
            # Old cuts stay among the new ones, so that both bank maps can be summed from one count.
            edges = np.union1d(starts, known)
            self._fine = edges, self.product.counts(edges)
        edges, fine = self._fine
        counts: NDArray[np.int32] = np.add.reduceat(fine, np.searchsorted(edges, starts), axis=1, dtype=np.int32)
        return counts


def _guessed(product: Product, banks: int, lanes: int) -> Outline:
    """The same from the number of kept weights: a normal bank, and the fullest of a wave."""
    fill = product.nnz / product.rows / banks
    wide, waves = min(lanes, banks), -(-banks // lanes)
    # Standard deviation of a binomial bank; sqrt(2 ln n) of them lies the largest of n normal ones.
    spread = (fill * (1 - product.density)) ** 0.5
    return Outline(max(1.0, waves * (fill + spread * (2 * np.log(max(1, wide))) ** 0.5)), waves**0.5 * spread)


def _natural(part: Part) -> int | None:
    if part.banks == 1 or part.kept == 0 or part.is_dense:
        return None
    if part.banks is not None:
        return min(part.banks, part.cols)
    if part.mask is None:
        return None
    # Rows of different totals cannot have equal banks: cheaper to see than to count any bank.
    totals = np.count_nonzero(part.mask, axis=1)
    if totals.min() != totals.max():
        return None
    kept = int(totals[0])
    # Most banks first: fewer, longer ones would be even as well, and tell less of the pattern.
    fits = (banks for banks in range(kept, 1, -1) if kept % banks == 0 and _is_even(part, banks, kept // banks))
    return next(fits, None)


def _is_even(part: Part, banks: int, kept: int) -> bool:
    """Whether every bank of every row keeps so many weights."""
    assert part.mask is not None
    starts = split(part.cols, banks)
    probe = np.add.reduceat(part.mask[:_PROBE_ROWS], starts, axis=1, dtype=np.int32)
    return bool((probe == kept).all()) and bool((part.counts(np.array(starts)) == kept).all())


def wave_starts(banks: int, lanes: int) -> NDArray[np.intp]:
    """First bank of every wave."""
    return np.arange(0, banks, lanes)


class ExactRows:
    """Row costs counted on real masks."""

    def __init__(self, counts: NDArray[np.int32], lanes: int, repeat: int = 1) -> None:
        """Cost every row.

        Args:
            counts: weights kept in every bank.
            lanes: lanes of a PE.
            repeat: how many rows each row of the counts stands for.

        Shapes:
            counts (rows, banks).
        """
        banks = counts.shape[1]
        starts = wave_starts(banks, lanes)
        used = np.diff(starts, append=banks)  # (waves,) lanes that have a bank
        # A wave lasts as long as its fullest bank.
        peaks = np.maximum.reduceat(counts, starts, axis=1)  # (rows, waves)
        self.lanes = lanes
        self.costs: NDArray[np.int64] = np.repeat(np.maximum(1, peaks.sum(axis=1, dtype=np.int64)), repeat)
        per_wave = repeat * peaks.sum(axis=0, dtype=np.int64)
        self._empty = repeat * int((peaks.sum(axis=1) == 0).sum())
        self._nnz = repeat * int(counts.sum(dtype=np.int64))
        # Slots of lanes that have a bank, for as long as its wave lasts; and of lanes that have none.
        self._reserved = int((per_wave * used).sum())
        self._idle = int((per_wave * (lanes - used)).sum())
        self.total = int(self.costs.sum())
        # Whether a word needs flags: with equal counts everywhere the engine can count instead.
        self.varies = bool((counts != counts[0]).any()) or len(set(counts[0].tolist())) > 1

    def issue(self, pes: int, *, lockstep: bool) -> Issue:
        """The exact cycles on so many PEs."""
        rows = len(self.costs)
        groups = -(-rows // pes)
        padded = np.zeros(groups * pes, dtype=np.int64)
        padded[:rows] = self.costs
        # Row r runs on PE r mod M, so that columns of this grid are PEs and its rows are rounds.
        grid = padded.reshape(groups, pes)
        busy = grid.sum(axis=0)
        # In lockstep every round lasts as long as its slowest row; else only the sums meet in the end.
        cycles = int(grid.max(axis=1).sum() if lockstep else busy.max())
        return Issue(
            cycles=Fraction(cycles),
            last=Fraction(int(grid[-1].max())),
            depth=int(busy.max()),
            words=Fraction(self.total),
            parts=self._parts(cycles, self.total, pes),
            busy=busy,
        )

    def _parts(self, cycles: int, total: int, pes: int) -> dict[str, Fraction]:
        """Where the cycles go, in exact fractions."""
        rows, slots = len(self.costs), pes * self.lanes
        gap = Fraction(cycles) - Fraction(total, pes)
        # PEs without a row in the last round idle for a mean row; never more than what is lost in all.
        tail = min(gap, (-(-rows // pes) - Fraction(rows, pes)) * Fraction(total, rows))
        return {
            "compute": Fraction(self._nnz, slots),
            "bank_imbalance": Fraction(self._reserved - self._nnz, slots),
            "lane_mismatch": Fraction(self._idle, slots),
            "empty_rows": Fraction(self._empty, pes),
            "tail": tail,
            "pe_imbalance": gap - tail,
        }


def fold(banks: int, most: int) -> set[int]:
    """Numbers of lanes, at most `most`, that the banks fold onto: in up to eight waves, or in whole ones."""
    # Every number of waves up to eight; of more only those that leave no lane idle.
    few = {-(-banks // waves) for waves in range(1, 9)}
    whole = {lanes for lanes in range(1, banks + 1) if banks % lanes == 0}
    return {lanes for lanes in few | whole if lanes <= most}
