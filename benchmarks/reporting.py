"""How long a report of 20,000 cells takes, and how much memory, with and without the costs of hardware models.

Run: `python -m benchmarks.reporting [--cells N] [--keep DIR]`. The records are made up: a grid of backends, patterns,
strategies, sparsities and five seeds; one cell in a hundred has no result. Their costs are what the built-in hardware
models say of a real mask, with other numbers in every cell, so that no two are equal; they are also reported with the
costs on every engine of the simulator. Every report is made by `harness report` in a fresh process, from the file of
records to the finished text. The goal is meant for processor time, which others on the machine do not lengthen; the
time that passed and the peak memory are printed beside it. Exits 1 if a goal is missed.
"""

import argparse
import itertools
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.api import LSTM, Embedding, HardwareModel, JsonValue, Network, SpecError, Workload
from harness.discovery.finding import discover
from harness.results import records
from harness.results.records import Record

GOAL_S = 10.0
BACKENDS, PATTERNS, STRATEGIES, SPARSITIES, SEEDS = 2, 20, 10, 10, 5
FORMS = ("rich", "md", "csv", "json")
MODELS = ("fpga_analytic", "cycle_simulator")
ENGINE = "csr_stream"
MARGIN = "0.5"


@dataclass(frozen=True)
class Spent:
    """What one process took: seconds and MB (10^6 bytes)."""

    processor: float
    passed: float
    peak_mb: float


def costs(every_engine: bool) -> dict[str, dict[str, JsonValue]]:
    """What the built-in hardware models say of a small LSTM, 90 % sparse, by label."""
    layer = LSTM(name="lstm_0", inputs=64, units=64, input_label="embedding.features")
    tensors = tuple(tensor for tensor in layer.tensors() if tensor.role == "lstm")
    rng = np.random.default_rng(0)
    workload = Workload(
        Network(layers=(Embedding(name="embedding", words=10, features=64), layer)),
        tensors,
        {tensor.name: rng.random(tensor.shape) < 0.1 for tensor in tensors},
    )
    registry = discover()
    pairs = itertools.product(MODELS, (ENGINE,))
    if every_engine:
        pairs = itertools.product(("cycle_simulator",), registry.names("engine"))
    found: dict[str, dict[str, JsonValue]] = {}
    for name, engine in pairs:
        model = registry.create("hardware", {"name": name, "engine": {"name": engine}})
        assert isinstance(model, HardwareModel)
        cost: dict[str, JsonValue] = {"model": model.group()}
        try:
            cost |= model.cost(workload).model_dump(mode="json")
        except SpecError as error:  # as in a run, an engine that refuses the mask says why
            cost["reason"] = str(error)
        found[model.label()] = cost
    return found


def cells(count: int, hardware: dict[str, dict[str, JsonValue]]) -> Iterator[Record]:
    """The records of a grid: the dense cells first, then as many pruned ones as are missing to `count`."""
    rng = np.random.default_rng(0)
    for backend, seed in itertools.product(range(BACKENDS), range(SEEDS)):
        yield record(f"dense {backend} {seed}", backend, "dense", "dense", 0.0, seed, rng, hardware)
    grid = itertools.product(
        range(BACKENDS), range(PATTERNS), range(STRATEGIES), range(1, SPARSITIES + 1), range(SEEDS)
    )
    for number, (backend, pattern, strategy, sparsity, seed) in enumerate(itertools.islice(grid, count)):
        labels = (
            "unstructured" if pattern == 0 else f"bank_balanced(banks={pattern})",
            f"fine_tuning(epochs={strategy})",
        )
        made = record(f"{number}", backend, *labels, sparsity / (SPARSITIES + 1), seed, rng, hardware)
        if number % 100 == 0:
            reason = f"the loss was not finite in step {number if number % 1000 == 0 else 7}"
            made = made.model_copy(update={"status": "failed", "reason": reason, "value": None, "hardware": {}})
        yield made


def record(
    cell: str, backend: int, pattern: str, strategy: str, sparsity: float, seed: int, rng: np.random.Generator,
    hardware: dict[str, dict[str, JsonValue]],
) -> Record:  # fmt: skip
    """One finished cell, as long as those of a real run."""
    is_dense = pattern == "dense"
    value = 100 + seed + 5 * sparsity + float(rng.normal())
    speedup = 1 + 8 * sparsity + float(rng.random())
    return Record(
        run="grid-0123456789ab", cell=f"cell {cell}", task="lstm_lm(size=small)", backend=f"backend_{backend}",
        pattern=pattern, strategy=strategy,
        pattern_name="" if is_dense else pattern.partition("(")[0], strategy_name="" if is_dense else "fine_tuning",
        task_params={"corpus": "ptb", "size": "small", "hidden": 200, "layers": 2, "steps": 20, "batch": 20},
        pattern_params={"banks": 20, "bank_size": None}, strategy_params={"epochs": 5, "lr": None},
        scope=("lstm",), target_sparsity=sparsity, sparsity=sparsity, model_sparsity=sparsity / 4,
        tensor_sparsity={f"lstm_{i}.{kind}": sparsity for i in range(2) for kind in ("kernel", "recurrent")},
        seed=seed, metric="perplexity", value=value, valid_value=value + 1,
        valid_history=tuple(float(x) for x in value + rng.random(18)), value_before_retraining=value + 20,
        total_epochs=18, retrain_epochs=0 if is_dense else 5, needs_dense_model=not is_dense,
        hyper_parameters=() if is_dense else ("epochs", "lr"), status="ok",
        hardware={
            label: cost if "reason" in cost else of_a_cell(cost, speedup) for label, cost in hardware.items()
        },
        device="cpu", threads=1, versions={"harness": "0.1.0", "torch": "2.15.0", "numpy": "2.4.6"},
        facts={"train_tokens": 929589, "valid_tokens": 73760, "test_tokens": 82430, "vocabulary": 10000},
        trained_epochs=5, train_seconds=123.456, dense_digest="0" * 64, stage="1" * 32,
    )  # fmt: skip


def of_a_cell(cost: dict[str, JsonValue], speedup: float) -> dict[str, JsonValue]:
    """A cost with numbers of its own, the parts of its cycles included."""
    details = cost["details"]
    assert isinstance(details, dict) and isinstance(details["parts"], dict)
    parts: dict[str, JsonValue] = {
        part: cycles / speedup if isinstance(cycles, float) else cycles for part, cycles in details["parts"].items()
    }
    figures: dict[str, JsonValue] = {"cycles": round(1000 / speedup), "latency_us": 5 / speedup, "speedup": speedup}
    return {**cost, **figures, "details": {**details, "parts": parts}}


def write(folder: Path, count: int, engines: str) -> None:
    """Make a run's folder with its file of records; in a process of its own, so that the measuring one stays small."""
    records.write(folder / "records.json", cells(count, costs(engines == "every") if engines else {}))


def reported(folder: Path, form: str) -> Spent:
    """Make one report with `harness report` in a fresh process.

    Raises:
        subprocess.CalledProcessError: it did not end with 0.
    """
    command = [sys.executable, "-m", "harness", "report", str(folder), "-f", form, "--margin", MARGIN]
    command += ["-o", str(folder / f"report.{form}")]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    passed = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Spent(usage.ru_utime + usage.ru_stime, passed, usage.ru_maxrss * 1024 / 1e6)


def main() -> int:
    """Time every form of report; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=20_000, help="pruned cells, 20,000 at most")
    parser.add_argument("--keep", type=Path, help="a folder that keeps the records and the reports")
    given = parser.parse_args()
    if not 1 <= given.cells <= BACKENDS * PATTERNS * STRATEGIES * SPARSITIES * SEEDS:
        parser.error("--cells must be from 1 to 20000")
    missed = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, engines, cells_of_case, has_goal in (
            ("no hardware", "", given.cells, True),
            ("two models, one engine", "one", given.cells, True),
            ("one model, every engine", "every", given.cells, False),
        ):
            folder = (given.keep or Path(temporary)) / name.replace(", ", "-").replace(" ", "-")
            writer = multiprocessing.get_context("spawn").Process(target=write, args=(folder, cells_of_case, engines))
            start = time.perf_counter()
            writer.start()
            writer.join()
            if writer.exitcode:
                raise SystemExit(f"the records of {name} could not be made, exit code {writer.exitcode}")
            size = (folder / "records.json").stat().st_size / 1e6
            print(f"{name}: {cells_of_case} cells, {size:.0f} MB, made in {time.perf_counter() - start:.1f} s")
            for form in FORMS:
                spent = reported(folder, form)
                print(
                    f"  {form:5} {spent.processor:6.1f} s processor {spent.passed:6.1f} s passed "
                    f"{spent.peak_mb:7.0f} MB peak   {f'goal < {GOAL_S:.0f} s' if has_goal else 'no goal'}"
                )
                if has_goal and spent.processor >= GOAL_S:
                    missed.append(f"{form}, {name} ({spent.processor:.1f} s)")
    print(f"goals missed: {', '.join(missed)}" if missed else "all goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
