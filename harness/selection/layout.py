"""Units and groups laid over one matrix: what a pattern's frame means for its rows and columns, and what it can reach.

A *unit* is a rectangle of weights that live or die together, a *group* a rectangle of units of which equally many stay.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness._text import listed
from harness.arrays import keep_count

_LONG = {"row": "rows", "col": "columns"}
Scalar = TypeVar("Scalar", bound=np.generic)


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
    ) -> Self:
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
        # 0 is falsy like None: it is refused below instead of meaning the whole extent.
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
        # The longer groups come first, so the last one of each axis is the shortest.
        return self.heights[-1] * self.widths[-1]

    @property
    def group_count(self) -> int:
        """Number of groups."""
        return len(self.heights) * len(self.widths)

    @property
    def banks_per_row(self) -> int | None:
        """How many equally filled banks every row has, or None if rows are not filled equally."""
        # A group over several rows lets one of them have more than its share; a column stride tears banks apart.
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
        if not 0 <= sparsity < 1:
            raise ValueError(f"a sparsity is a fraction of zeros in [0, 1), got {sparsity}; write 90 % as 0.9")
        # Groups of one size round as every single quota does; only unequal ones need a mean.
        if self.widths[0] * self.heights[0] == self.shortest:
            kept = keep_count(self.shortest, sparsity)
        else:
            mean_size = Fraction(sum(self.heights) * sum(self.widths), self.group_count)
            # By its shortest decimal, as in `keep_count`: 0.58 is 58 in 100, not the binary number just below it.
            exact = mean_size * (1 - Fraction(repr(float(sparsity))))
            # A quota that the smallest group cannot fill would leave groups unequal.
            kept = min(int(exact + Fraction(1, 2)), self.shortest)
        return max(kept, self.at_least)

    def reached(self, sparsity: float) -> float:
        """The sparsity that a mask really has when `sparsity` is asked for.

        Counted in units: exact where units divide the matrix; elsewhere it depends on which edge units stay.

        Raises:
            ValueError: the sparsity lies outside [0, 1).
        """
        quota = self.quota(sparsity)
        # At 0 everything stays, though ragged groups would have a quota below their size.
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
                # The last units may stick out over the edge of the matrix.
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
    # Stable: within one residue the own order stays, on which ties rest.
    return np.argsort(np.arange(size) % stride, kind="stable")


def _extents(
    axis: Literal["row", "col"], size: int, unit: int, group: int | None, banks: int | None
) -> tuple[int, ...]:
    """Lengths of the groups along one axis, in units."""
    if banks is not None:
        return _bank_widths(axis, size, unit, group, banks)
    extent = _extent(axis, size, unit, group)
    # A group as large as the axis is one, also where smaller edge units make it larger than the axis.
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
            f"choose a divisor of {size}: {listed(divisors(size))}"
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
            f"choose a divisor of {size}: {listed(divisors(size))}"
        )
    most = size // unit
    if not 1 <= banks <= most:
        raise ValueError(f"{axis}s={size} cannot be split into {banks} banks; set `{parameter}` to at most {most}")
    short, longer = divmod(most, banks)
    return (short + 1,) * longer + (short,) * (banks - longer)


def divisors(size: int) -> tuple[int, ...]:
    """The divisors of a positive size, ascending."""
    return tuple(part for part in range(1, size + 1) if size % part == 0)
