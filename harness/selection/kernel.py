"""The one kernel that turns scores into masks: keep the best units of every group, exactly, ties at the lower index.

`harness.selection.layout` says what units and groups are, `harness.selection.best` which scores of a row are highest.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.arrays import Mask, Matrix
from harness.selection.best import PIECE, best
from harness.selection.layout import Layout

Pooling = Literal["mean", "max"]

_ROUGH_UP_TO = 1 << 12
"""Units of at most so many weights are summed in float32 first: then a sum errs by less than a thousandth."""

_WIDE = 256
"""Units of more columns are summed along their rows: slice by slice would be a call for every column."""

_WORDS = {2: np.uint16, 4: np.uint32, 8: np.uint64}
"""Unsigned integers by their bytes."""


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
        # The order is changed once and back: everything below sees groups that lie together.
        plain = replace(layout, view=(1, 1))
        return layout.restored(select(layout.viewed(scores), plain, sparsity, pooling=pooling))
    if sparsity == 0:
        _require_scores(scores)
        return np.ones(scores.shape, dtype=np.bool_)
    if layout.unit == (1, 1):
        # Weights are their own units: no pooling, and scores are checked while they are in the cache.
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
    # Room for whole units; what sticks out below the last row is cut off at the end.
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
    # NaN fails the comparison as well: the careful way tells which scores are to blame.
    if not quota or not sums.max() < np.inf:
        return None
    kept = best(sums, quota)
    border = float((sums * ~kept).max())  # the highest that is dropped
    if border < 1e-30:  # so small that parts of a sum may have been flushed to zero
        return None
    # Four times the bound of the docstring: both sides of a comparison err, and the border is such a sum itself.
    error = 4 * size * 2.0**-24 * border
    near = np.flatnonzero((sums >= border - error) & (sums <= border + error))
    # So many ties would be summed again one by one: slower than summing all in double at once.
    if len(near) > sums.size // 16:
        return None
    rows, cols = np.divmod(near, layout.grid[1])
    across = cols[:, None] * width + np.arange(width)  # (near, width)
    down = rows[:, None] * height + np.arange(height)[:, None, None]  # (height, near, 1)
    weights = scores[down, across].reshape(height, -1)
    means = _pooled(weights, Layout.of(*weights.shape, unit=layout.unit), "mean")
    # As many of the near ones as before: those far from the border are decided, so the quota is kept.
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
            if width > _WIDE:
                reduce.reduceat(flat[: len(stripe)], range(0, layout.cols, width), axis=1, out=stripe)
            else:
                _reduce(flat[: len(stripe)].T, width, reduce, stripe.T)
    return reduced


def _reduce(values: Matrix, length: int, reduce: np.ufunc, out: Matrix) -> None:
    """Each `length` neighbouring rows made one, slice by slice: several times faster than `ufunc.reduceat`."""
    first = values[::length]
    paired = len(values[1::length]) if length > 1 else 0
    # A last, shorter stretch may have no second row: it begins with its first alone.
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
