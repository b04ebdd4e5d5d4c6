"""How fast every pattern makes its mask, beside plain NumPy: `python -m benchmarks.pattern_masks [rows cols]`.

The peers are what one would write by hand for one pattern: reshape, pool, `np.argpartition` along the group, put True
there. They keep the same weights as the pattern does, which is checked on continuous scores. The kernel's own goals,
against the fastest exact peers in processes of their own, are those of `benchmarks.masks`; here the goal is that no
pattern is slower than its plain form, by more than the tenth that two clocks differ by. CPU seconds of one thread, the
shortest of some rounds. Ends with exit code 1 where a mask differs or a goal is missed.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from harness_plugins.patterns.balanced_2d import Balanced2D
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.block import Block
from harness_plugins.patterns.channel import Channel
from harness_plugins.patterns.column_balanced import ColumnBalanced
from harness_plugins.patterns.column_combining import ColumnCombining
from harness_plugins.patterns.csb import CSB
from harness_plugins.patterns.density_bound_block import DensityBoundBlock
from harness_plugins.patterns.filter import Filter
from harness_plugins.patterns.load_balanced import LoadBalanced
from harness_plugins.patterns.mcbbs import MCBBS
from harness_plugins.patterns.n_m import NM
from harness_plugins.patterns.row_balanced import RowBalanced
from harness_plugins.patterns.shared_index_banks import SharedIndexBanks
from harness_plugins.patterns.tile import Tile
from harness_plugins.patterns.unstructured import Unstructured
from harness_plugins.patterns.vector import Vector

from harness.api import LSTM, Mask, Matrix, Pattern, keep_count
from harness.masks.coupling import Coupling

Plain = Callable[[Matrix, float], Mask]


def top(values: Matrix, sparsity: float, count: int | None = None) -> Mask:
    """True at the highest of every row of a matrix of groups."""
    keep = keep_count(values.shape[-1], sparsity) if count is None else count
    dropped = values.shape[-1] - keep
    places = np.argpartition(values, dropped, axis=-1)[..., dropped:]
    mask: Mask = np.zeros(values.shape, np.bool_)
    np.put_along_axis(mask, places, True, axis=-1)
    return mask


def rectangles(high: int, wide: int) -> Plain:
    """Groups of high x wide weights."""

    def plain(scores: Matrix, sparsity: float) -> Mask:
        rows, cols = scores.shape
        groups = scores.reshape(rows // high, high, cols // wide, wide).swapaxes(1, 2)
        kept = top(groups.reshape(rows // high, cols // wide, high * wide), sparsity)
        return kept.reshape(rows // high, cols // wide, high, wide).swapaxes(1, 2).reshape(rows, cols)

    return plain


def units(high: int, wide: int, group: tuple[int, int] | None = None) -> Plain:
    """Units of high x wide weights pooled in double precision; groups of so many units, or the whole matrix."""

    def plain(scores: Matrix, sparsity: float) -> Mask:
        rows, cols = scores.shape
        pooled = scores.reshape(rows // high, high, cols // wide, wide).mean(axis=(1, 3), dtype=np.float64)
        size = group or pooled.shape
        kept = rectangles(*size)(pooled, sparsity)
        return kept.repeat(high, axis=0).repeat(wide, axis=1)

    return plain


def dealt(pes: int, columns: bool) -> Plain:
    """The rows of a processing element, by column or all together."""

    def plain(scores: Matrix, sparsity: float) -> Mask:
        rows, cols = scores.shape
        mine = scores.reshape(rows // pes, pes, cols)
        groups = mine.transpose(1, 2, 0) if columns else mine.transpose(1, 0, 2).reshape(pes, -1)
        kept = top(groups, sparsity)
        if columns:
            return kept.transpose(2, 0, 1).reshape(rows, cols)
        return kept.reshape(pes, rows // pes, cols).transpose(1, 0, 2).reshape(rows, cols)

    return plain


def bounded(scores: Matrix, sparsity: float) -> Mask:
    """Two of four, then the best of those."""
    rows, cols = scores.shape
    two = top(scores.reshape(rows, -1, 4), 0.5).reshape(rows, cols)
    best = np.where(two, scores, -np.inf)
    return top(best.reshape(1, -1), sparsity).reshape(rows, cols)


def compressed(scores: Matrix, sparsity: float) -> Mask:
    """The best rows and columns of every block of 4 x 4."""
    rows, cols = scores.shape
    high, wide = CSB().kernel(sparsity)
    blocks = scores.reshape(rows // 4, 4, cols // 4, 4).astype(np.float64)
    kept_rows = top(blocks.sum(axis=3).transpose(0, 2, 1), 0, high).transpose(0, 2, 1)
    kept_cols = top(blocks.sum(axis=1), 0, wide)
    kept: Mask = (kept_rows[:, :, :, None] & kept_cols[:, None]).reshape(rows, cols)
    return kept


def combined(scores: Matrix, sparsity: float) -> Mask:
    """Column by column into the group that becomes the fullest, as one would write it with boolean arrays."""
    rows, cols = scores.shape
    pattern = ColumnCombining()
    most, room = pattern.columns, pattern.capacity(rows, cols)
    count = int(room * (1 + pattern.conflicts))
    columns = top(scores.reshape(1, -1), 0.0, count).reshape(rows, cols).T
    groups: list[list[int]] = []
    used, lost = np.zeros((0, rows), np.bool_), np.zeros(0, np.int64)
    for column in np.argsort(-columns.sum(axis=1), kind="stable").tolist():
        shared = (used & columns[column]).sum(axis=1)
        after = used.sum(axis=1) + columns[column].sum() - shared
        full = np.array([len(group) == most for group in groups], np.bool_)
        over = (lost + shared) * cols > (count - room) * most
        after[full | over | (shared > count - room - lost.sum())] = -1
        best = int(after.argmax()) if groups else 0
        if not groups or after[best] < 0:
            groups, best = [*groups, []], len(groups)
            used, lost = np.vstack([used, np.zeros((1, rows), np.bool_)]), np.append(lost, 0)
        else:
            lost[best] += shared[best]
        groups[best].append(column)
        used[best] |= columns[column]
    won = np.zeros(scores.shape, np.bool_)
    for group in groups:
        places = np.array(sorted(group))
        won[np.arange(rows), places[scores[:, places].argmax(axis=1)]] = True
    kept = keep_count(scores.size, sparsity)
    return top(np.where(won, scores, -np.inf).reshape(1, -1), 0.0, kept).reshape(scores.shape)


CASES: tuple[tuple[Pattern, float, Plain], ...] = (
    (Unstructured(), 0.9, lambda scores, s: top(scores.reshape(1, -1), s).reshape(scores.shape)),
    (RowBalanced(), 0.9, top),
    (BankBalanced(), 0.9, rectangles(1, 600)),
    (NM(), 0.5, rectangles(1, 4)),
    (DensityBoundBlock(), 0.75, bounded),
    (SharedIndexBanks(), 0.9, units(2, 1, (1, 600))),
    (MCBBS(), 0.75, units(1, 2, (1, 4))),
    (Balanced2D(), 0.75, rectangles(4, 4)),
    (Vector(), 0.75, rectangles(4, 1)),
    (ColumnBalanced(pes=4), 0.9, dealt(4, columns=True)),
    (LoadBalanced(pes=4), 0.9, dealt(4, columns=False)),
    (Block(), 0.9, units(4, 4)),
    (Tile(), 0.9, units(4, 1)),
    (CSB(), 0.75, compressed),
    (Filter(), 0.9, lambda scores, s: units(1, scores.shape[1])(scores, s)),
    (Channel(), 0.9, lambda scores, s: units(scores.shape[0], 1)(scores, s)),
)


def coupled(rows: int, cols: int, rounds: int) -> tuple[float, float, bool]:
    """Hidden units of one LSTM of about that size, beside a loop over units."""
    layer = LSTM(name="lstm", inputs=cols, units=rows // 4, input_label="x")
    scope = [tensor for tensor in layer.tensors() if tensor.is_prunable]
    rng = np.random.default_rng(0)
    scores = {tensor.name: np.abs(rng.standard_normal(tensor.shape, dtype=np.float32)) for tensor in scope}
    coupling = Coupling.of(scope)
    quota = coupling.quotas(0.75)["lstm.units"]

    def plain() -> dict[str, Mask]:
        kernel, recurrent = (scores[tensor.name].astype(np.float64) for tensor in scope)
        count, means = rows // 4, np.empty(rows // 4)
        for unit in range(count):
            mine = [*kernel[unit::count], *recurrent[unit::count], recurrent[:, unit]]
            means[unit] = np.concatenate(mine).mean()
        kept = top(means[None], 0, quota)[0]
        by_row = np.tile(kept, 4)[:, None]
        return {
            scope[0].name: np.repeat(by_row, cols, axis=1),
            scope[1].name: by_row & kept,
        }

    ours, theirs = timed(lambda: coupling.masks(scores, 0.75), rounds), timed(plain, rounds)
    one, other = coupling.masks(scores, 0.75), plain()
    return ours, theirs, all(np.array_equal(one[name], other[name]) for name in one)


def timed(work: Callable[[], object], rounds: int) -> float:
    """The shortest CPU time of some rounds, in seconds."""
    shortest = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        shortest = min(shortest, time.process_time() - start)
    return shortest


def main() -> int:
    """Print the table; 1 if a mask differs or a pattern is slower than its plain form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=1500)
    parser.add_argument("cols", nargs="?", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.rows % 4 or given.cols != 6000:
        parser.error("rows must be a multiple of 4 and cols 6000, which the plain forms are written for")
    scores: Matrix = np.abs(np.random.default_rng(0).standard_normal((given.rows, given.cols), dtype=np.float32))
    print(f"{given.rows} x {given.cols}, float32, CPU time, best of {given.rounds} rounds")
    print(f"{'pattern':22} {'sparsity':>8} {'ms':>9} {'plain ms':>9} {'x ours':>7}")
    missed = []
    for pattern, sparsity, plain in CASES:
        ours = timed(lambda p=pattern, s=sparsity: p.mask(scores, s), given.rounds)
        theirs = timed(lambda p=plain, s=sparsity: p(scores, s), given.rounds)
        same = np.array_equal(pattern.mask(scores, sparsity), plain(scores, sparsity))
        missed += told(pattern.name, sparsity, ours, theirs, same=same)
    ours, theirs, same = coupled(given.rows, given.cols, given.rounds)
    missed += told("hidden_unit", 0.75, ours, theirs, same=same)
    # Its plain form looks at every pair of a column and a group: a quarter of the columns is enough to wait for.
    narrow = np.ascontiguousarray(scores[:, : given.cols // 4])
    ours = timed(lambda: ColumnCombining().mask(narrow, 0.9), 1)
    theirs = timed(lambda: combined(narrow, 0.9), 1)
    same = np.array_equal(ColumnCombining().mask(narrow, 0.9), combined(narrow, 0.9))
    missed += told("column_combining / 4", 0.9, ours, theirs, same=same)
    print(f"missed: {'; '.join(missed)}" if missed else "all goals met")
    return 1 if missed else 0


def told(name: str, sparsity: float, ours: float, theirs: float, *, same: bool) -> list[str]:
    """One row, and what it misses."""
    print(f"{name:22} {sparsity:8g} {1e3 * ours:9.1f} {1e3 * theirs:9.1f} {theirs / ours:7.2f}")
    wrong = [] if same else [f"{name} keeps other weights than its plain form"]
    return wrong + ([f"{name} is {theirs / ours:.2f} x as fast as its plain form"] if theirs < 0.9 * ours else [])


if __name__ == "__main__":
    raise SystemExit(main())
