"""How fast masks are made, as a ratio to `np.argpartition` of the same groups, timed in the same run.

Run: `python benchmarks/masks.py [rows cols]`; one thread is enough. The peer only finds which weights stay: it is not
exact on ties, writes no mask and gets blocks pooled beforehand, so the ratio is, if anything, unkind to the harness.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from harness.api import Matrix
from harness.selection import Layout, select

CASES: tuple[tuple[str, dict[str, object], float], ...] = (
    ("unstructured 90 %", {}, 0.9),
    ("row-balanced 90 %", {"group": (1, None)}, 0.9),
    ("bank-balanced, banks of 50, 90 %", {"group": (1, 50)}, 0.9),
    ("bank-balanced, 64 ragged banks, 90 %", {"group": (1, None), "banks": 64}, 0.9),
    ("2:4", {"group": (1, 4)}, 0.5),
    ("blocks of 4 x 4, 90 %", {"cell": (4, 4)}, 0.9),
)


def seconds(function: Callable[[], object], repeats: int) -> float:
    """The shortest of several runs: the one that was disturbed least."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def grouped(scores: Matrix, layout: Layout) -> Matrix:
    """The peer's input, (groups, size): cells pooled and ragged banks cut to one width beforehand, at no cost to it."""
    height, width = layout.cell
    cells: Matrix = scores.reshape(layout.grid[0], height, layout.grid[1], width).mean(axis=(1, 3))
    if layout.group_rows > 1:
        return cells.reshape(1, -1)
    short = layout.widths[-1]
    return np.ascontiguousarray(cells[:, : short * len(layout.widths)]).reshape(-1, short)


def main() -> None:
    """Time every case on continuous scores and on scores full of ties."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=6000)
    parser.add_argument("cols", nargs="?", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if given.rows % 4 or given.cols % 100:
        parser.error("rows must be a multiple of 4 and cols of 100, so that every case's cells and groups fit")
    rng = np.random.default_rng(0)
    continuous = np.abs(rng.standard_normal((given.rows, given.cols), dtype=np.float32))
    tied = np.round(continuous * 32) / 32
    print(f"{given.rows} x {given.cols}, float32, best of {given.repeats}")
    for name, share, sparsity in CASES:
        layout = Layout.of(given.rows, given.cols, **share)  # type: ignore[arg-type]  # a table of keyword arguments
        for kind, scores in (("continuous", continuous), ("tied", tied)):
            peer = grouped(scores, layout)
            kth = peer.shape[1] - layout.quota(sparsity)
            ours = seconds(lambda s=scores, at=layout, z=sparsity: select(s, at, z), given.repeats)  # type: ignore[misc]
            theirs = seconds(lambda p=peer, k=kth: np.argpartition(p, k, axis=1), given.repeats)  # type: ignore[misc]
            print(f"{name:38} {kind:11} {1e3 * ours:8.1f} ms   argpartition / ours = {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
