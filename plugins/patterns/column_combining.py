"""Column combining: groups of columns that keep one weight of a row between them, packed into one column each."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.api import Frame, Mask, Matrix, Pattern, hookimpl, keep_best, keep_count


class ColumnCombining(Pattern):
    """Group up to `columns` columns, wherever they lie, and keep of every row only the largest weight of a group.

    A matrix of R x C has room for K = R C / a weights once a columns are packed into one. Its K (1 + g) highest scores
    are candidates. Columns are taken from the one with the most candidates on; each joins the group that becomes the
    fullest with it, where that leaves the group at most g candidates too many per row on average, or opens one. Of the
    weights of a row in a group the highest wins. Winners stay first, by score, then the others.

    The published method keeps its groups as a state between prunings. Here they follow from the scores and from which
    weights are pruned already: K weights or fewer are grouped without any conflict, so that a mask with a density of up
    to 1 / a has one weight per row and group after any number of updates. With a = 1 it is unstructured sparsity.

    Storage: packed columns with ceil(log2 a) bits per weight, and each column's group. Engines: `dense_packed`.

    Example:
        Columns 0 and 1 never need the same row, nor do 2 and 3.

        >>> scores = np.array([[9.0, 2, 1, 8], [1, 7, 9, 2]])
        >>> pattern = ColumnCombining(columns=2, conflicts=0)
        >>> pattern.groups(scores).tolist()
        [0, 0, 1, 1]
        >>> pattern.mask(scores, 0.5).tolist()
        [[True, False, False, True], [False, True, True, False]]

    Source:
        Kung, McDanel and Zhang, "Packing Sparse Convolutional Neural Networks for Efficient Systolic Array
        Implementations: Column Combining Under Joint Optimization", ASPLOS 2019, arXiv 1811.04770: at most a columns,
        g conflicts per row on average, the largest weight stays; the columns' order and choice are recalled. Their
        code's example for CIFAR-10 has a = 8 in its largest layers and g = 1.75.
    """

    name: ClassVar[str] = "column_combining"
    columns: int = Field(default=8, gt=0, description="columns that are packed into one at most, a")
    conflicts: float = Field(
        default=1.75, ge=0, le=16, description="candidates that a row of a group may lose to larger ones, on average, g"
    )

    def frame(self, rows: int, cols: int) -> Frame:
        """Single weights, compared with all others; `mask` says which columns they share."""
        return Frame()

    def mask(self, scores: Matrix, sparsity: float) -> Mask:
        """The best of the weights that win their row of their group, then the best of the others."""
        kept = keep_count(scores.size, sparsity)
        won = winners(scores, self.groups(scores)) if kept < scores.size else np.ones(scores.shape, np.bool_)
        count = int(np.count_nonzero(won))
        if kept <= count:
            return keep_best(np.where(won, scores, -np.inf), kept)
        # More than can be packed, on the way to the target: what lost its row goes first, the smallest of it.
        rest: Mask = won | keep_best(np.where(won, -np.inf, scores), kept - count)
        return rest

    def why_not(self, rows: int, cols: int, sparsity: float) -> str | None:
        """A target at which more than one of `columns` weights stays is not packed."""
        if keep_count(rows * cols, sparsity) <= self.capacity(rows, cols):
            return None
        return (
            f"would keep more than one of {self.columns} weights; {self.columns} columns are combined from a sparsity "
            f"of {1 - 1 / self.columns:g} on"
        )

    def capacity(self, rows: int, cols: int) -> int:
        """How many weights the packed matrix of ceil(C / a) columns has room for, at most."""
        return -(-rows * cols // self.columns)

    def groups(self, scores: Matrix) -> NDArray[np.intp]:
        """The group of every column, numbered in the order in which groups were opened.

        Shapes:
            scores (rows, cols) -> (cols,).
        """
        room = self.capacity(*scores.shape)
        left = int(np.count_nonzero(scores > -np.inf))
        count = min(left, int(room * (1 + self.conflicts)))
        # All groups together lose no more than the candidates beyond the room: at least that many weights win.
        columns = np.ascontiguousarray(keep_best(scores, count).T)  # (cols, rows)
        return _combined(columns, self.columns, max(0, count - room))


def _combined(columns: Mask, most: int, losses: int) -> NDArray[np.intp]:
    """Columns joined to groups of up to `most`, with `losses` rows in all in which a group has a weight too many.

    A group may use up its part of them, as if all groups were full.

    Shapes:
        columns (cols, rows) -> (cols,).
    """
    counts = np.count_nonzero(columns, axis=1)
    values = columns.astype(np.float32)  # sums of ones are exact up to 2^24 rows, and a product is fast
    packed = np.zeros_like(values)  # (groups, rows) whether a group has a weight in a row
    filled, sizes, lost = (np.zeros(len(columns), np.int64) for _ in range(3))
    group = np.empty(len(columns), np.intp)
    opened = 0
    for column in np.argsort(-counts, kind="stable").tolist():  # ties: the lower column first
        shared = (packed[:opened] @ values[column]).astype(np.int64)
        after = filled[:opened] + counts[column] - shared
        too_many = (lost[:opened] + shared) * len(columns) > losses * most
        after[(sizes[:opened] == most) | too_many | (shared > losses - lost.sum())] = -1
        chosen = int(after.argmax()) if opened else 0
        if not opened or after[chosen] < 0:
            chosen, opened = opened, opened + 1
        else:
            lost[chosen] += shared[chosen]
        np.maximum(packed[chosen], values[column], out=packed[chosen])
        filled[chosen], sizes[chosen] = np.count_nonzero(packed[chosen]), sizes[chosen] + 1
        group[column] = chosen
    return group


def winners(scores: Matrix, group: NDArray[np.intp]) -> Mask:
    """The highest score of every row in every group, ties at the lower column; pruned weights (-inf) win nothing.

    Shapes:
        scores (rows, cols), group (cols,) -> (rows, cols).
    """
    columns = np.ascontiguousarray(scores.T)  # (cols, rows): a column is read as a whole
    best = np.full((group.max() + 1, len(scores)), -np.inf, scores.dtype)
    holder = np.full(best.shape, -1)
    for column, (values, mine) in enumerate(zip(columns, group, strict=True)):
        higher = values > best[mine]  # not where it is equal: the lower column was first
        np.copyto(best[mine], values, where=higher)
        holder[mine][higher] = column
    won: Mask = holder[group] == np.arange(len(columns))[:, None]
    return np.ascontiguousarray(won.T)


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return ColumnCombining
