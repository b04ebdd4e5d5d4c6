"""The one kernel that turns scores into masks: keep the best cells of every group, exactly, ties at the lower index.

A *cell* is a rectangle of weights that live or die together, a *group* a rectangle of cells of which equally many stay.
This module imports nothing but NumPy when it is loaded: `harness.api` itself stands on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from harness.api.values import Mask, Matrix

Pooling = Literal["mean", "max"]

_RANKED_UP_TO = 8
"""Groups of at most so many cells are ranked by comparing all pairs, larger ones partitioned (measured break-even)."""

_BRACKETED_FROM = 1 << 17
"""From this size on, a single group's threshold is first bracketed by a sample."""


@dataclass(frozen=True)
class Layout:
    """Cells and groups laid over one matrix. Build it with `Layout.of`, which checks that they tile the matrix.

    Args:
        rows: rows of the matrix.
        cols: columns of the matrix.
        cell: (rows, cols) of one cell, in weights; cells at the lower and right edge may be smaller.
        group_rows: height of one group, in cells.
        widths: widths of the groups along a row, in cells, from left to right; they differ by at most one.
        at_least: cells that every group keeps at any sparsity.
    """

    rows: int
    cols: int
    cell: tuple[int, int]
    group_rows: int
    widths: tuple[int, ...]
    at_least: int = 0

    @classmethod
    def of(
        cls,
        rows: int,
        cols: int,
        *,
        cell: tuple[int, int] = (1, 1),
        group: tuple[int | None, int | None] = (None, None),
        banks: int | None = None,
        at_least: int = 0,
    ) -> Layout:
        """The layout of a `harness.api.Frame` over a matrix.

        Cells that do not divide the matrix leave smaller cells at its lower or right edge, as long as the group spans
        the matrix in that direction; a quota counts cells, whatever their size.

        Args:
            rows: rows of the matrix.
            cols: columns of the matrix.
            cell: (rows, cols) of one cell, in weights.
            group: (rows, cols) of one group, in weights; None means the whole extent of the matrix.
            banks: cut the columns into so many groups whose widths differ by at most one, the wider ones first.
            at_least: cells that every group keeps at any sparsity.

        Raises:
            ValueError: they do not tile the matrix; the sentence says which and names the way out.
        """
        if rows < 1 or cols < 1 or min(cell) < 1:
            raise ValueError(
                f"a matrix and its cells need at least one row and one column, got {rows} x {cols} cut into cells of "
                f"{cell[0]} x {cell[1]}; give positive sizes"
            )
        group_rows = _extent("row", rows, cell[0], group[0])
        if banks is None:
            width = _extent("col", cols, cell[1], group[1])
            widths = (width,) * max(1, cols // (width * cell[1]))
        else:
            widths = _bank_widths(cols, cell[1], group[1], banks)
        layout = cls(rows, cols, cell, group_rows, widths, at_least)
        if not 0 <= at_least <= layout.shortest:
            raise ValueError(
                f"every group must keep at least {at_least} cells, but the smallest group has {layout.shortest}; "
                f"set the number to keep to at most {layout.shortest}"
            )
        return layout

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the matrix, counted in cells."""
        return -(-self.rows // self.cell[0]), -(-self.cols // self.cell[1])

    @property
    def edge_deficit(self) -> int:
        """Weights that the cells at the edges lack to be whole; 0 where cells divide the matrix."""
        cells = self.grid[0] * self.grid[1]
        return cells * self.cell[0] * self.cell[1] - self.rows * self.cols

    @property
    def shortest(self) -> int:
        """Cells of the smallest group."""
        return self.group_rows * self.widths[-1]

    @property
    def group_count(self) -> int:
        """Number of groups."""
        return self.grid[0] // self.group_rows * len(self.widths)

    @property
    def banks_per_row(self) -> int | None:
        """How many equally filled banks every row has, or None if rows are not filled equally."""
        return None if self.group_rows > 1 or self.cols % self.cell[1] else len(self.widths)

    def quota(self, sparsity: float) -> int:
        """How many cells every group keeps.

        Half up of (cells of a group) x (1 - sparsity), in exact decimals; where groups differ by a column, of their
        mean size, but never more than the smallest one has. At sparsity 0 everything stays, beyond the quota too.

        Args:
            sparsity: fraction of zeros, in [0, 1).

        Raises:
            ValueError: the sparsity lies outside [0, 1).
        """
        # Late, because harness.api imports this module while it is being imported itself.
        from harness.api.values import keep_count

        if not 0 <= sparsity < 1:
            raise ValueError(f"a sparsity is a fraction of zeros in [0, 1), got {sparsity}; write 90 % as 0.9")
        if self.widths[0] == self.widths[-1]:
            kept = keep_count(self.shortest, sparsity)
        else:
            mean_size = Fraction(self.group_rows * sum(self.widths), len(self.widths))
            exact = mean_size * (1 - Fraction(repr(float(sparsity))))
            kept = min(int(exact + Fraction(1, 2)), self.shortest)
        return max(kept, self.at_least)

    def reached(self, sparsity: float) -> float:
        """The sparsity that a mask really has when `sparsity` is asked for.

        Counted in cells: exact where cells divide the matrix; elsewhere it depends on which edge cells stay.

        Raises:
            ValueError: the sparsity lies outside [0, 1).
        """
        quota = self.quota(sparsity)
        return 0.0 if sparsity == 0 else self.reached_with(quota)

    def reached_with(self, quota: int) -> float:
        """The sparsity of a mask that keeps `quota` cells in every group."""
        cells = self.grid[0] * self.grid[1]
        return float(1 - Fraction(self.group_count * quota, cells))

    def groups(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of every group, in weights, row-major."""
        height, width = self.cell
        edges = [width * edge for edge in accumulate(self.widths, initial=0)]
        for top in range(0, self.rows, self.group_rows * height):
            rows = slice(top, min(top + self.group_rows * height, self.rows))
            for left, right in pairwise(edges):
                yield rows, slice(left, min(right, self.cols))


def _extent(axis: Literal["row", "col"], size: int, cell: int, group: int | None) -> int:
    """Length of a group along one axis, in cells."""
    if group is None:
        return -(-size // cell)
    if group < 1 or group % cell:
        raise ValueError(
            f"a group must hold whole cells, got a group of {group} {axis}s and cells of {cell}; "
            f"make the group a multiple of {cell}"
        )
    if size % group:
        raise ValueError(
            f"{axis}s={size} is no multiple of the group's {group} {axis}s; "
            f"choose a divisor of {size}: {_listed(divisors(size))}"
        )
    return group // cell


def _bank_widths(cols: int, cell: int, group: int | None, banks: int) -> tuple[int, ...]:
    """Widths of the banks in cells, the wider ones first."""
    if group is not None:
        raise ValueError(f"banks={banks} and a group width of {group} were both given; give one of the two")
    if cols % cell:
        raise ValueError(
            f"cols={cols} cannot be cut into banks of whole cells of {cell} columns; "
            f"choose a divisor of {cols}: {_listed(divisors(cols))}"
        )
    most = cols // cell
    if not 1 <= banks <= most:
        raise ValueError(f"cols={cols} cannot be split into {banks} banks; set `banks` to at most {most}")
    short, longer = divmod(most, banks)
    return (short + 1,) * longer + (short,) * (banks - longer)


def divisors(size: int) -> tuple[int, ...]:
    """The divisors of a positive size, ascending."""
    return tuple(part for part in range(1, size + 1) if size % part == 0)


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def select(scores: Matrix, layout: Layout, sparsity: float, *, pooling: Pooling = "mean") -> Mask:
    """Keep the highest scores of every group, ties at the lower row-major index within the group.

    Args:
        scores: importance of each weight; -inf ranks below all others; not modified.
        layout: cells and groups of this matrix.
        sparsity: fraction of zeros to reach, in [0, 1); at 0 everything is kept.
        pooling: how a cell's score is made of its weights' scores.

    Returns:
        True where a weight is kept; exactly `layout.quota(sparsity)` cells in every group.

    Shapes:
        scores (rows, cols) -> mask (rows, cols).

    Raises:
        ValueError: the shape is not the layout's, a score is NaN or +inf, or the sparsity lies outside [0, 1).
    """
    if scores.shape != (layout.rows, layout.cols):
        raise ValueError(
            f"the layout is for a matrix of shape {(layout.rows, layout.cols)}, got scores of shape {scores.shape}; "
            "lay the frame over the matrix that is scored"
        )
    # The maximum is NaN if any score is, so one pass finds both.
    if not scores.max() < np.inf:
        raise ValueError("scores must be finite or -inf, got NaN or +inf; look for diverged weights")
    quota = layout.quota(sparsity)
    if sparsity == 0:
        return np.ones(scores.shape, dtype=np.bool_)
    kept = _select_cells(_pooled(scores, layout, pooling), layout, quota)
    height, width = layout.cell
    if layout.cell != (1, 1):
        kept = kept.repeat(height, axis=0)[: layout.rows].repeat(width, axis=1)[:, : layout.cols]
    return np.ascontiguousarray(kept)


def _pooled(scores: Matrix, layout: Layout, pooling: Pooling) -> Matrix:
    """One score per cell; an edge cell pools over the weights it has."""
    height, width = layout.cell
    if layout.cell == (1, 1):
        return scores
    if pooling == "max":
        return _reduced(_reduced(scores, height, np.maximum).T, width, np.maximum).T
    # Sums in double precision: whether two cells tie must not depend on the order of a few float32 additions.
    sums = _reduced(_reduced(scores, height, np.add, np.float64).T, width, np.add).T
    heights = np.diff([*range(0, layout.rows, height), layout.rows])
    widths = np.diff([*range(0, layout.cols, width), layout.cols])
    means: Matrix = sums / np.outer(heights, widths)  # (rows, cols) of the grid of cells
    return means


def _reduced(values: Matrix, length: int, reduce: np.ufunc, dtype: type[np.floating] | None = None) -> Matrix:
    """Each `length` neighbouring rows made one, slice by slice: several times faster than `ufunc.reduceat`."""
    result = values[::length].astype(dtype or values.dtype)
    for offset in range(1, length):
        part = values[offset::length]
        reduce(result[: len(part)], part, out=result[: len(part)])
    return result


def _select_cells(scores: Matrix, layout: Layout, quota: int) -> Mask:
    """Cells to keep, for one score per cell; groups of one width at a time."""
    rows = layout.grid[0]
    stripes = rows // layout.group_rows
    kept = np.empty(scores.shape, dtype=np.bool_)
    left = 0
    for width in sorted(set(layout.widths), reverse=True):  # at most two widths, the wider first
        right = left + width * layout.widths.count(width)
        shape = (stripes, layout.group_rows, (right - left) // width, width)
        grouped = scores[:, left:right].reshape(shape).swapaxes(1, 2)  # (stripes, groups, group rows, width)
        best = _best(grouped.reshape(-1, layout.group_rows * width), quota)
        kept[:, left:right] = best.reshape(grouped.shape).swapaxes(1, 2).reshape(rows, right - left)
        left = right
    return kept


def _best(scores: Matrix, quota: int) -> Mask:
    """The `quota` highest of each row, ties at the lower column.

    Shapes:
        scores (groups, size) -> mask (groups, size).
    """
    size = scores.shape[1]
    if quota in (0, size):
        return np.full(scores.shape, quota == size, dtype=np.bool_)
    if size <= _RANKED_UP_TO:
        return _best_by_rank(scores, quota)
    if len(scores) == 1 and size >= _BRACKETED_FROM:
        threshold = _bracketed_threshold(scores[0], quota)
    else:
        threshold = np.partition(scores, size - quota, axis=1)[:, size - quota, None]
    mask: Mask = scores >= threshold
    if np.count_nonzero(mask) > quota * len(scores):
        _drop_surplus_ties(mask, scores, threshold, quota)
    return mask


def _best_by_rank(scores: Matrix, quota: int) -> Mask:
    """As `_best`, by counting how many cells beat each one: passes over long columns instead of many tiny sorts."""
    columns = np.ascontiguousarray(scores.T)  # (size, groups)
    beaten_by = np.zeros(columns.shape, dtype=np.uint8)
    for low in range(len(columns)):
        for high in range(low + 1, len(columns)):
            higher_wins = columns[high] > columns[low]  # not on a tie: the lower index stays
            beaten_by[low] += higher_wins
            beaten_by[high] += ~higher_wins
    return np.ascontiguousarray((beaten_by < quota).T)


def _bracketed_threshold(scores: Matrix, quota: int) -> Matrix:
    """The quota-th highest of many scores: a sample brackets it, and only what lies inside is partitioned.

    Exact for any sample; where the bracket misses, everything is partitioned.

    Shapes:
        scores (size,) -> threshold (1, 1).
    """
    size = len(scores)
    sample = np.sort(scores[:: max(1, size >> 14)])
    position = (1 - quota / size) * (len(sample) - 1)
    slack = 4 * np.sqrt(len(sample))  # at least eight standard deviations of the sample's quantile
    low = sample[max(0, int(position - slack))]
    high = sample[min(len(sample) - 1, int(position + slack) + 1)]
    above = int(np.count_nonzero(scores > high))
    inside = scores[(scores >= low) & (scores <= high)]
    if not above < quota <= above + len(inside):
        inside, above = scores, 0
    index = len(inside) - (quota - above)
    threshold: Matrix = np.partition(inside, index)[index].reshape(1, 1)
    return threshold


def _drop_surplus_ties(mask: Mask, scores: Matrix, threshold: Matrix, quota: int) -> None:
    """Drop, where a group keeps too many, the surplus cells equal to the threshold, highest index first."""
    if len(mask) == 1:  # the last ties of one large group can be named at once
        ties = np.flatnonzero(scores[0] == threshold[0])
        mask[0, ties[quota - np.count_nonzero(mask) :]] = False
        return
    surplus: NDArray[np.intp] = np.flatnonzero(np.count_nonzero(mask, axis=1) > quota)
    chosen, border = scores[surplus], threshold[surplus]
    above, ties = chosen > border, chosen == border
    wanted = quota - np.count_nonzero(above, axis=1, keepdims=True)
    mask[surplus] = above | (ties & (np.cumsum(ties, axis=1, dtype=np.int32) <= wanted))
