"""How much two workers gain over one: two ready chains of stages, on one worker and on two, in the same run.

Run: `python -m benchmarks.two_workers [--rounds N]`, on an idle machine with two cores at least. Two seeds of a dense
training share nothing, so two workers may be twice as fast at best. What is compared is the median time from one
finished epoch of a chain to the next: of any chain for one worker, and while both chains run for two. So starting a
process and importing its framework do not count, and a chain's slow first epochs count for little, but all that a stage
costs does: its way there, its files, its records. The gain is the median over rounds; what is beyond 2 is noise.
One case is the PyTorch backend on the synthetic task, the other a loop in Python that shares nothing but the cores.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from harness.discovery.finding import discover
from harness.execution.eta import Tally
from harness.execution.machine import cores
from harness.execution.progress import Progress
from harness.execution.run import run
from harness.spec import Experiment, load

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

GOAL = 1.7

SPEC = """
name: two-workers
task: {name: lstm_lm, hidden: 100, epochs: 14, full_epochs: 4, train_tokens: 20000, eval_tokens: 500}
scope: [lstm]
matrix:
  backend: torch
  pattern: unstructured
  strategy: one_shot
  sparsity: 0.5
  seed: [0, 1]
"""


class Times(Progress):
    """When every epoch was finished, by chain."""

    def __init__(self) -> None:
        self.chains: dict[str, list[float]] = {}

    def finished(self, key: str, label: str, outcome: str, tally: Tally, *, is_epoch: bool) -> None:
        """Note the time."""
        if is_epoch:
            self.chains.setdefault(label.rpartition(" · ")[0], []).append(time.perf_counter())


def pytorch(folder: Path) -> Experiment:
    """Two dense trainings of a small language model."""
    path = folder / "two.yaml"
    path.write_text(SPEC)
    return load(path, discover())


def loop(folder: Path) -> Experiment:
    """Two dense trainings of the toy, slowed down by counting."""
    from numpy_plugins import ToyTask  # found only with the path above
    from toy import experiment

    os.environ["TOY_LOOPS_PER_EPOCH"] = "20000000"
    return experiment(seeds=(0, 1), task=ToyTask(epochs=14))


def epochs_per_second(grid: Experiment, workers: int) -> float:
    """Workers over the median time between epochs of a chain; on two workers only times while both chains run."""
    times = Times()
    with tempfile.TemporaryDirectory() as store:
        result = run(grid, store=Path(store), workers=workers, progress=times)
    assert all(record.is_done for record in result.records), [record.reason for record in result.records]
    chains = list(times.chains.values())
    start, end = (
        (max(chain[0] for chain in chains), min(chain[-1] for chain in chains)) if workers > 1 else (0.0, float("inf"))
    )
    between = [
        later - earlier for chain in chains for earlier, later in pairwise(chain) if earlier >= start and later <= end
    ]
    return workers / statistics.median(between)


def main() -> int:
    """Compare both cases; 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    cases: dict[str, Callable[[Path], Experiment]] = {"loop in Python": loop, "PyTorch, LSTM": pytorch}
    print(
        f"{cores()} cores, load {os.getloadavg()[0]:.1f} at the start, median of {given.rounds} rounds; goal >= {GOAL}"
    )
    missed = []
    for name, make in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            whole = make(Path(folder))
        grid = replace(whole, cells=tuple(cell for cell in whole.cells if cell.is_dense))
        rates = [(epochs_per_second(grid, 1), epochs_per_second(grid, 2)) for _ in range(given.rounds)]
        gains = sorted(two / one for one, two in rates)
        one, two = (statistics.median(each) for each in zip(*rates, strict=True))
        gain = statistics.median(gains)
        spread = f"({gains[0]:.2f} to {gains[-1]:.2f})"
        print(f"{name:16} {one:6.2f} epochs/s on one, {two:6.2f} on two: {gain:.2f} times {spread}")
        if gain < GOAL:
            missed.append(name)
    print(f"goals missed: {', '.join(missed)}" if missed else "all goals met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
