"""How long a run takes that finds all its cells in the store: 1,000 cells with masks of an LSTM's size.

Run: `python -m benchmarks.noop [--cells 1000]`. The store is filled beforehand, in a temporary folder: the stages are
those of the plan, with masks of the small LSTM, so that a run reads and costs what it would after a night of training.
Runs are timed as commands, start-up and report included. The first has no hardware costs to find, as if the hardware
model had just been edited: it computes those, and no goal is set for it; to the second, nothing is left to do.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from harness.api import Evaluation, Mask, State
from harness.discovery.finding import discover
from harness.execution.worker import cpu_kind
from harness.planning.plan import Plan, make_plan
from harness.spec import Experiment, load
from harness.store import StageRecord, Store

GOAL_S = 15.0
"""Seconds for 1,000 cells; other counts are held to their share."""

SPEC = """
name: noop
task: {{name: lstm_lm, epochs: 3, full_epochs: 2}}
scope: [lstm]
matrix:
  backend: torch
  pattern: [unstructured, {{name: bank_balanced, banks: 4}}]
  strategy: [{{name: fine_tuning, epochs: 2}}, {{name: lr_rewinding, epochs: 2}}]
  sparsity: [0.5, 0.6, 0.75, 0.85, 0.9]
  seed: {seeds}
hardware: [{{name: fpga_analytic, engine: bank}}]
"""

CELLS_PER_SEED = 1 + 2 * 2 * 5


def experiment(cells: int, path: Path) -> Experiment:
    """A grid of about so many cells, their dense baselines included."""
    path.write_text(SPEC.format(seeds=list(range(max(1, round(cells / CELLS_PER_SEED))))))
    return load(path, discover())


def fill(plan: Plan) -> None:
    """Write every stage of a plan as if it had run; models are left empty, since nothing starts from them again."""
    kind, evaluation = cpu_kind(), Evaluation(nats=10.0, items=10)
    for planned in plan.cells:
        pattern, rng = planned.cell.pattern, np.random.default_rng(planned.cell.seed)
        masks: dict[str, Mask] = {}
        if pattern is not None:
            masks = {t.name: pattern.mask(rng.random(t.shape), planned.cell.sparsity) for t in planned.scope}
        for stage in planned.stages:
            if plan.store.has_stage(stage.key):
                continue
            record = StageRecord(
                key=stage.key,
                parent=stage.parent,
                kind=stage.kind,
                inputs=dict(stage.inputs),
                epoch_index=stage.epoch_index,
                train=evaluation if stage.kind == "train" else None,
                valid=evaluation if stage.kind in ("train", "prune") else None,
                test=evaluation if stage.kind == "test" else None,
                seconds=1.0,
                cpu=kind,
            )
            state = State(weights={}, masks={} if stage.is_dense else masks)
            plan.store.write(record, None if stage.kind == "test" else state)


def seconds(path: Path, store: Path) -> tuple[float, float]:
    """Processor time of one run as a command, which others on the machine do not lengthen, and the time that passed."""
    command = [sys.executable, "-m", "harness", "run", str(path), "--store", str(store), "--progress", "none"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - start


def main() -> int:
    """Fill a store, time two runs; 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, store = Path(folder) / "noop.yaml", Path(folder) / "store"
        grid = experiment(given.cells, path)
        Store(store).prepare()
        plan = make_plan(grid, store=store)
        fill(plan)
        goal = GOAL_S * max(1.0, len(grid.cells) / 1000)
        print(f"{len(grid.cells)} cells, {len(plan.stages)} stages, all in the store; goal < {goal:.0f} s")
        for name in ("with costing", "no-op"):
            taken, passed = seconds(path, store)
            each = 1e3 * taken / len(grid.cells)
            print(f"{name:12} {taken:6.1f} s of processor time, {each:6.2f} ms per cell; {passed:.1f} s passed")
    print(f"goals missed: no-op took {taken:.1f} s" if taken >= goal else "all goals met")
    return int(taken >= goal)


if __name__ == "__main__":
    sys.exit(main())
