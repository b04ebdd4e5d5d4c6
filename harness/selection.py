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

from harness._best import PIECE, best

if TYPE_CHECKING:
    from harness.api.values import Mask, Matrix

Pooling = Literal["mean", "max"]

_WORDS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


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
    pooled = scores if layout.cell == (1, 1) or sparsity == 0 else _pooled(scores, layout, pooling)
    # A maximum is NaN if any score is, so one pass finds both; a mean is, or +inf, at least where a score is.
    if not pooled.max() < np.inf and not scores.max() < np.inf:
        raise ValueError("scores must be finite or -inf, got NaN or +inf; look for diverged weights")
    quota = layout.quota(sparsity)
    if sparsity == 0:
        return np.ones(scores.shape, dtype=np.bool_)
    kept = _select_cells(pooled, layout, quota)
    if layout.cell != (1, 1):
        height, width = layout.cell
        kept = _widened(kept, width)[:, : layout.cols].repeat(height, axis=0)[: layout.rows]
    return np.ascontiguousarray(kept)


def _widened(kept: Mask, width: int) -> Mask:
    """Every column `width` times, each cell written as one number where there is a number of that many bytes."""
    if width not in _WORDS:
        return kept.repeat(width, axis=1)
    word = _WORDS[width]
    wide: Mask = (kept.astype(word) * word(int.from_bytes(b"\1" * width))).view(np.bool_)
    return wide


def _pooled(scores: Matrix, layout: Layout, pooling: Pooling) -> Matrix:
    """One score per cell, a cache-sized stripe of rows at a time; an edge cell pools over the weights it has."""
    height, width = layout.cell
    # Sums in double precision: whether two cells tie must not depend on the order of a few float32 additions.
    reduce, dtype = (np.maximum, scores.dtype) if pooling == "max" else (np.add, np.dtype(np.float64))
    pooled: Matrix = np.empty(layout.grid, dtype)
    step = max(1, PIECE // (height * layout.cols))
    buffer: Matrix = np.empty((min(step * height, layout.rows), layout.cols), dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities are looked for afterwards
        for top in range(0, len(pooled), step):
            part = scores[top * height : (top + step) * height]
            wide = buffer[: len(part)]
            wide[...] = part
            stripe = pooled[top : top + step]
            rows = _reduce(wide, height, reduce, wide[::height])
            _reduce(rows.T, width, reduce, stripe.T)
            if pooling == "mean":
                stripe /= _areas(layout, top, len(stripe))
    return pooled


def _areas(layout: Layout, top: int, count: int) -> NDArray[np.intp] | int:
    """Weights of the cells in `count` rows of cells from `top` on: (count, cols of the grid), or one number for all."""
    height, width = layout.cell
    if layout.edge_deficit == 0:
        return height * width
    heights = np.diff([*range(0, layout.rows, height), layout.rows])[top : top + count]
    return np.outer(heights, np.diff([*range(0, layout.cols, width), layout.cols]))


def _reduce(values: Matrix, length: int, reduce: np.ufunc, out: Matrix) -> Matrix:
    """Each `length` neighbouring rows made one, slice by slice: several times faster than `ufunc.reduceat`."""
    first = values[::length]
    paired = len(values[1::length]) if length > 1 else 0
    out[paired:] = first[paired:]
    for offset in range(1, length):
        part = values[offset::length]
        reduce((first if offset == 1 else out)[: len(part)], part, out=out[: len(part)])
    return out


def _select_cells(scores: Matrix, layout: Layout, quota: int) -> Mask:
    """Cells to keep, for one score per cell; groups of one width at a time, a cache-sized stripe of rows at a time."""
    if layout.group_count == 1:
        return best(scores.reshape(1, -1), quota).reshape(scores.shape)
    kept: Mask = np.empty(scores.shape, dtype=np.bool_)
    height = layout.group_rows
    left = 0
    for width in sorted(set(layout.widths), reverse=True):  # at most two widths, the wider first
        right = left + width * layout.widths.count(width)
        step = height * max(1, PIECE // (height * (right - left)))
        for top in range(0, len(scores), step):
            part = scores[top : top + step, left:right]
            shape = (len(part) // height, height, (right - left) // width, width)
            grouped = part.reshape(shape).swapaxes(1, 2)  # (stripes, groups, group rows, width)
            chosen = best(grouped.reshape(-1, height * width), quota)
            kept[top : top + step, left:right] = chosen.reshape(grouped.shape).swapaxes(1, 2).reshape(part.shape)
        left = right
    return kept
