"""The one kernel that turns scores into masks: keep the best units of every group, exactly, ties at the lower index.

A *unit* is a rectangle of weights that live or die together, a *group* a rectangle of units of which equally many stay.
This module imports nothing but NumPy when it is loaded: `harness.api` itself stands on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.selection.best import PIECE, best

if TYPE_CHECKING:
    from harness.arrays import Mask, Matrix

Pooling = Literal["mean", "max"]
_LONG = {"row": "rows", "col": "columns"}
Scalar = TypeVar("Scalar", bound=np.generic)

_ROUGH_UP_TO = 1 << 12
"""Units of at most so many weights are summed in float32 first: then a sum errs by less than a thousandth."""

_WORDS = {2: np.uint16, 4: np.uint32, 8: np.uint64}
"""Unsigned integers by their bytes."""


@dataclass(frozen=True)
class Layout:
    """Units and groups laid over one matrix. Build it with `Layout.of`, which checks that they tile the matrix.

    Args:
        rows: rows of the matrix.
        cols: columns of the matrix.
        unit: (rows, cols) of one unit, in weights; units at the lower and right edge may be smaller.
        heights: heights of the groups down a column, in units, from top to bottom; they differ by at most one.
        widths: widths of the groups along a row, in units, from left to right; they differ by at most one.
        at_least: units that every group keeps at any sparsity.
        view: (row stride, column stride) in which the matrix is read before units and groups are laid over it: every
            so many-th row first, then those after them. With rows in a stride of P, group p of P holds the rows r with
            r mod P = p.
    """

    rows: int
    cols: int
    unit: tuple[int, int]
    heights: tuple[int, ...]
    widths: tuple[int, ...]
    at_least: int = 0
    view: tuple[int, int] = (1, 1)

    @classmethod
    def of(
        cls,
        rows: int,
        cols: int,
        *,
        unit: tuple[int | None, int | None] = (1, 1),
        group: tuple[int | None, int | None] = (None, None),
        banks: int | None = None,
        row_banks: int | None = None,
        at_least: int = 0,
        view: tuple[int, int] = (1, 1),
    ) -> Layout:
        """The layout of a `harness.api.Frame` over a matrix.

        Units that do not divide the matrix leave smaller units at its lower or right edge, as long as the group spans
        the matrix in that direction; a quota counts units, whatever their size.

        Args:
            rows: rows of the matrix.
            cols: columns of the matrix.
            unit: (rows, cols) of one unit, in weights; None means the whole extent of the matrix.
            group: (rows, cols) of one group, in weights; None means the whole extent of the matrix.
            banks: cut the columns into so many groups whose widths differ by at most one, the wider ones first.
            row_banks: cut the rows likewise, the higher groups first.
            at_least: units that every group keeps at any sparsity.
            view: strides in which rows and columns are read first.

        Raises:
            ValueError: they do not tile the matrix; the sentence says which and names the way out.
        """
        height, width = unit[0] or rows, unit[1] or cols
        if min(rows, cols, height, width, *view) < 1 or 0 in unit:
            raise ValueError(
                f"a matrix and its units need at least one row and one column, got {rows} x {cols} cut into units of "
                f"{unit[0]} x {unit[1]}; give positive sizes"
            )
        heights = _extents("row", rows, height, group[0], row_banks)
        layout = cls(
            rows, cols, (height, width), heights, _extents("col", cols, width, group[1], banks), at_least, view
        )
        if not 0 <= at_least <= layout.shortest:
            raise ValueError(
                f"every group must keep at least {at_least} units, but the smallest group has {layout.shortest}; "
                f"set the number to keep to at most {layout.shortest}"
            )
        return layout

    @property
    def cell(self) -> tuple[int, int]:
        """The name of `unit` before plugin interface 2.

        Raises:
            AttributeError: always; it names the new one.
        """
        raise AttributeError("a layout's `cell` is called `unit` since plugin interface 2; read `unit`")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the matrix, counted in units."""
        return -(-self.rows // self.unit[0]), -(-self.cols // self.unit[1])

    @property
    def edge_deficit(self) -> int:
        """Weights that the units at the edges lack to be whole; 0 where units divide the matrix."""
        units = self.grid[0] * self.grid[1]
        return units * self.unit[0] * self.unit[1] - self.rows * self.cols

    @property
    def shortest(self) -> int:
        """Units of the smallest group."""
        return self.heights[-1] * self.widths[-1]

    @property
    def group_count(self) -> int:
        """Number of groups."""
        return len(self.heights) * len(self.widths)

    @property
    def banks_per_row(self) -> int | None:
        """How many equally filled banks every row has, or None if rows are not filled equally."""
        if max(self.heights) > 1 or self.cols % self.unit[1] or self.view[1] > 1:
            return None
        return len(self.widths)

    def quota(self, sparsity: float) -> int:
        """How many units every group keeps.

        Half up of (units of a group) x (1 - sparsity), in exact decimals; where groups differ by a column, of their
        mean size, but never more than the smallest one has. At sparsity 0 everything stays, beyond the quota too.

        Args:
            sparsity: fraction of zeros, in [0, 1).

        Raises:
            ValueError: the sparsity lies outside [0, 1).
        """
        # Late, because harness.api imports this module while it is being imported itself.
        from harness.arrays import keep_count

        if not 0 <= sparsity < 1:
            raise ValueError(f"a sparsity is a fraction of zeros in [0, 1), got {sparsity}; write 90 % as 0.9")
        if self.widths[0] * self.heights[0] == self.shortest:
            kept = keep_count(self.shortest, sparsity)
        else:
            mean_size = Fraction(sum(self.heights) * sum(self.widths), self.group_count)
            exact = mean_size * (1 - Fraction(repr(float(sparsity))))
            kept = min(int(exact + Fraction(1, 2)), self.shortest)
        return max(kept, self.at_least)

    def reached(self, sparsity: float) -> float:
        """The sparsity that a mask really has when `sparsity` is asked for.

        Counted in units: exact where units divide the matrix; elsewhere it depends on which edge units stay.

        Raises:
            ValueError: the sparsity lies outside [0, 1).
        """
        quota = self.quota(sparsity)
        return 0.0 if sparsity == 0 else self.reached_with(quota)

    def reached_with(self, quota: int) -> float:
        """The sparsity of a mask that keeps `quota` units in every group."""
        units = self.grid[0] * self.grid[1]
        return float(1 - Fraction(self.group_count * quota, units))

    def groups(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of every group in the matrix as it is viewed, in weights, row-major."""
        height, width = self.unit
        across = [width * edge for edge in accumulate(self.widths, initial=0)]
        for top, bottom in pairwise(height * edge for edge in accumulate(self.heights, initial=0)):
            for left, right in pairwise(across):
                yield slice(top, min(bottom, self.rows)), slice(left, min(right, self.cols))

    def viewed(self, matrix: NDArray[Scalar]) -> NDArray[Scalar]:
        """A matrix as it is read: a copy in another order, or itself where the order is its own."""
        rows, cols = (_read_order(size, step) for size, step in zip(matrix.shape, self.view, strict=True))
        read = matrix if rows is None else matrix[rows]
        return read if cols is None else read[:, cols]

    def restored(self, read: NDArray[Scalar]) -> NDArray[Scalar]:
        """A viewed matrix in the matrix's own order."""
        rows, cols = (_read_order(size, step) for size, step in zip(read.shape, self.view, strict=True))
        own = read if rows is None else read[np.argsort(rows)]
        return own if cols is None else own[:, np.argsort(cols)]


def _read_order(size: int, stride: int) -> NDArray[np.intp] | None:
    """The places 0, stride, 2 stride, ..., then 1, stride + 1, ...; None where that is their own order."""
    if stride == 1 or stride >= size:
        return None
    return np.argsort(np.arange(size) % stride, kind="stable")


def _extents(
    axis: Literal["row", "col"], size: int, unit: int, group: int | None, banks: int | None
) -> tuple[int, ...]:
    """Lengths of the groups along one axis, in units."""
    if banks is not None:
        return _bank_widths(axis, size, unit, group, banks)
    extent = _extent(axis, size, unit, group)
    return (extent,) * max(1, size // (extent * unit))


def _extent(axis: Literal["row", "col"], size: int, unit: int, group: int | None) -> int:
    """Length of a group along one axis, in units."""
    if group is None:
        return -(-size // unit)
    if group < 1 or group % unit:
        raise ValueError(
            f"a group must hold whole units, got a group of {group} {axis}s and units of {unit}; "
            f"make the group a multiple of {unit}"
        )
    if size % group:
        raise ValueError(
            f"{axis}s={size} is no multiple of the group's {group} {axis}s; "
            f"choose a divisor of {size}: {_listed(divisors(size))}"
        )
    return group // unit


def _bank_widths(axis: Literal["row", "col"], size: int, unit: int, group: int | None, banks: int) -> tuple[int, ...]:
    """Lengths of the banks in units, the longer ones first."""
    parameter = "banks" if axis == "col" else "row_banks"
    if group is not None:
        raise ValueError(
            f"{parameter}={banks} and a group of {group} {_LONG[axis]} were both given; give one of the two"
        )
    if size % unit:
        raise ValueError(
            f"{axis}s={size} cannot be cut into banks of whole units of {unit} {_LONG[axis]}; "
            f"choose a divisor of {size}: {_listed(divisors(size))}"
        )
    most = size // unit
    if not 1 <= banks <= most:
        raise ValueError(f"{axis}s={size} cannot be split into {banks} banks; set `{parameter}` to at most {most}")
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
        layout: units and groups of this matrix.
        sparsity: fraction of zeros to reach, in [0, 1); at 0 everything is kept.
        pooling: how a unit's score is made of its weights' scores.

    Returns:
        True where a weight is kept; exactly `layout.quota(sparsity)` units in every group.

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
    quota = layout.quota(sparsity)
    if layout.view != (1, 1):
        plain = replace(layout, view=(1, 1))
        return layout.restored(select(layout.viewed(scores), plain, sparsity, pooling=pooling))
    if sparsity == 0:
        _require_scores(scores)
        return np.ones(scores.shape, dtype=np.bool_)
    if layout.unit == (1, 1):
        return _select_units(scores, layout, quota, checked=False)
    kept = _best_by_rough_means(scores, layout, quota) if pooling == "mean" else None
    if kept is None:
        units = _pooled(scores, layout, pooling)
        if (
            not units.max() < np.inf
        ):  # so is a mean or a maximum with a NaN or +inf in it, but also a sum that overflowed
            _require_scores(scores)
        kept = _select_units(units, layout, quota)
    height, width = layout.unit
    mask: Mask = np.empty((layout.grid[0], height, layout.cols), dtype=np.bool_)
    mask[...] = _widened(kept, width)[:, None, : layout.cols]
    return mask.reshape(-1, layout.cols)[: layout.rows]


def _require_scores(scores: Matrix) -> None:
    if not scores.max() < np.inf:  # the maximum is NaN if any score is
        raise ValueError("scores must be finite or -inf, got NaN or +inf; look for diverged weights")


def _widened(kept: Mask, width: int) -> Mask:
    """Every column `width` times, each unit written as one number where there is a number of that many bytes."""
    if width not in _WORDS:
        return kept.repeat(width, axis=1)
    word = _WORDS[width]
    wide: Mask = (kept.astype(word) * word(int.from_bytes(b"\1" * width))).view(np.bool_)
    return wide


def _pooled(scores: Matrix, layout: Layout, pooling: Pooling) -> Matrix:
    """One score per unit; an edge unit pools over the weights it has."""
    if pooling == "max":
        return _reduced(scores, layout, np.maximum, scores.dtype)
    # Sums in double precision: whether two units tie must not depend on the order of a few float32 additions.
    means = _reduced(scores, layout, np.add, np.dtype(np.float64))
    means /= _areas(layout)
    return means


def _areas(layout: Layout) -> NDArray[np.intp] | int:
    """Weights of each unit, in the shape of the grid; one number where all are alike."""
    height, width = layout.unit
    if layout.edge_deficit == 0:
        return height * width
    heights = np.diff([*range(0, layout.rows, height), layout.rows])
    return np.outer(heights, np.diff([*range(0, layout.cols, width), layout.cols]))


def _best_by_rough_means(scores: Matrix, layout: Layout, quota: int) -> Mask | None:
    """Units to keep by their means, which are summed in float32 and, only where that could decide, in double.

    The sum of n scores that are not negative errs by less than n / 2^24 of itself, so a sum further from the border
    than a few times that is on the right side of it. None where that does not hold, or would not be quicker: another
    dtype, several groups or none to keep, smaller units at an edge, negative or enormous scores, many means near the
    border.
    """
    height, width = layout.unit
    size = height * width
    if scores.dtype != np.float32 or layout.group_count > 1 or layout.edge_deficit or size > _ROUGH_UP_TO:
        return None
    sums = _reduced(scores, layout, np.add, scores.dtype, floor=0).reshape(1, -1)
    if not quota or not sums.max() < np.inf:
        return None
    kept = best(sums, quota)
    border = float((sums * ~kept).max())  # the highest that is dropped
    if border < 1e-30:  # so small that parts of a sum may have been flushed to zero
        return None
    error = 4 * size * 2.0**-24 * border
    near = np.flatnonzero((sums >= border - error) & (sums <= border + error))
    if len(near) > sums.size // 16:
        return None
    rows, cols = np.divmod(near, layout.grid[1])
    across = cols[:, None] * width + np.arange(width)  # (near, width)
    down = rows[:, None] * height + np.arange(height)[:, None, None]  # (height, near, 1)
    weights = scores[down, across].reshape(height, -1)
    means = _pooled(weights, Layout.of(*weights.shape, unit=layout.unit), "mean")
    kept[0, near] = best(means, int(np.count_nonzero(kept[0, near])))[0]
    return kept.reshape(layout.grid)


def _reduced(
    scores: Matrix, layout: Layout, reduce: np.ufunc, dtype: np.dtype[np.floating], floor: float | None = None
) -> Matrix:
    """The sum or maximum of each unit, a cache-sized stripe of rows at a time; all NaN if a score is below `floor`."""
    height, width = layout.unit
    reduced: Matrix = np.empty(layout.grid, dtype)
    step = max(1, PIECE // (height * layout.cols))
    converted: Matrix = np.empty((step * height if scores.dtype != dtype else 0, layout.cols), dtype)
    flat: Matrix = np.empty((step, layout.cols), dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities are looked for afterwards
        for top in range(0, len(reduced), step):
            part = scores[top * height : (top + step) * height]
            stripe = reduced[top : top + step]
            if floor is not None and not part.min() >= floor:
                return np.full(layout.grid, np.nan, dtype)
            if len(converted):
                converted[: len(part)] = part
                part = converted[: len(part)]
            _reduce(part, height, reduce, flat[: len(stripe)])
            _reduce(flat[: len(stripe)].T, width, reduce, stripe.T)
    return reduced


def _reduce(values: Matrix, length: int, reduce: np.ufunc, out: Matrix) -> None:
    """Each `length` neighbouring rows made one, slice by slice: several times faster than `ufunc.reduceat`."""
    first = values[::length]
    paired = len(values[1::length]) if length > 1 else 0
    out[paired:] = first[paired:]
    for offset in range(1, length):
        part = values[offset::length]
        reduce((first if offset == 1 else out)[: len(part)], part, out=out[: len(part)])


def _select_units(scores: Matrix, layout: Layout, quota: int, *, checked: bool = True) -> Mask:
    """Units to keep, for one score per unit; groups of one width at a time, a cache-sized stripe of rows at a time."""
    kept: Mask = np.empty(scores.shape, dtype=np.bool_)
    up = 0
    for height in sorted(set(layout.heights), reverse=True):  # at most two heights, the higher first
        down = up + height * layout.heights.count(height)
        left = 0
        for width in sorted(set(layout.widths), reverse=True):  # and two widths, the wider first
            right = left + width * layout.widths.count(width)
            step = height * max(1, PIECE // (height * (right - left)))
            for top in range(up, down, step):
                place = slice(top, min(top + step, down)), slice(left, right)
                if not checked:
                    _require_scores(scores[place])  # here, because it is in the cache from now on
                _select_equal(scores[place], (height, width), quota, kept[place])
            left = right
        up = down
    return kept


def _select_equal(scores: Matrix, group: tuple[int, int], quota: int, kept: Mask) -> None:
    """Units to keep where all groups are of one size; written into `kept`."""
    (rows, cols), (height, width) = scores.shape, group
    if kept.flags.c_contiguous and (height == 1 or width == cols):  # a group's units lie together
        best(scores.reshape(-1, height * width), quota, kept.reshape(-1, height * width))
        return
    grouped = scores.reshape(rows // height, height, cols // width, width).swapaxes(1, 2)
    found = best(grouped.reshape(-1, height * width), quota)  # (stripes * groups, units of a group)
    kept[...] = found.reshape(grouped.shape).swapaxes(1, 2).reshape(scores.shape)
