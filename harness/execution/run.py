"""Run an experiment: plan it, run what is not there, and write down what became of every cell."""

import os
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from harness import records
from harness.api import Backend, JsonValue
from harness.execution.collect import Collector
from harness.execution.local import Graph, LocalExecutor
from harness.execution.progress import Progress
from harness.execution.worker import Done, Failed, Job, Message
from harness.execution.worker import Progress as StepsDone
from harness.plan import Plan, PlannedCell, backend_versions, make_plan
from harness.records import Record
from harness.spec import Experiment
from harness.stages import Stage
from harness.store import Store, write_atomic

_RECORDS_EVERY_S = 5.0


@dataclass(frozen=True)
class RunResult:
    """What a run leaves behind.

    Args:
        run_id: name and digest of the experiment.
        folder: where spec, records and report lie.
        records: one for every planned cell.
        interrupted: whether it was stopped before its end.
        store_error: why the store could no longer be written; None if it could.
        traces: where failed stages failed, by reason.
    """

    run_id: str
    folder: Path
    records: list[Record]
    interrupted: bool = False
    store_error: str | None = None
    traces: dict[str, str] = field(default_factory=dict)


def run(
    experiment: Experiment,
    *,
    store: Path,
    data_dir: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Run an experiment; stages that are in the store are not run again.

    Args:
        experiment: a loaded specification.
        store: the folder that keeps stages and runs.
        data_dir: where the data sets are; default: the experiment's, then HARNESS_DATA.
        workers: processes at most; default: one per core and thread asked for.
        progress: where to tell what happens.

    Raises:
        SpecError, DataError: nothing was run.
        PluginUnavailableError: a backend is not installed; nothing was run.
        StoreError: the store cannot be written.
    """
    experiment.require_backends()
    Store(store).prepare()
    plan = make_plan(experiment, store=store, data_dir=data_dir)
    return _Run(plan, workers or default_workers(experiment.threads), progress or Progress()).run()


def default_workers(threads: int) -> int:
    """As many one-framework processes as the cores hold."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)


class _Run:
    """One run, from its plan to its records."""

    def __init__(self, plan: Plan, workers: int, progress: Progress) -> None:
        self._plan, self._workers, self._progress = plan, workers, progress
        self._folder = plan.store.run_folder(plan.experiment.run_id)
        self._collector = Collector(plan, finished=dict(plan.cached))
        for key in plan.to_run:
            self._collector.finished.pop(key, None)
        self._labels = _labels(plan)
        self._jobs = self._make_jobs()
        self._written = 0.0
        self._store_error: str | None = None
        self._traces: dict[str, str] = {}

    def run(self) -> RunResult:
        """Run everything, writing records as cells are finished."""
        self._write_spec()
        for key in self._plan.damaged:
            self._plan.store.set_aside(key)
        self._write_records()
        interrupted = False
        self._progress.begin(self._plan.summary(), self._workers)
        try:
            executor = LocalExecutor(self._plan.store, self._workers)
            executor.run(Graph(self._jobs, passing=_passing(self._plan)), self._on_start, self._on_message)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            self._collector.running.clear()
            self._progress.end()
        found = self._write_records()
        run_id = self._plan.experiment.run_id
        return RunResult(run_id, self._folder, found, interrupted, self._store_error, self._traces)

    def _make_jobs(self) -> dict[str, Job]:
        plan, jobs = self._plan, {}
        environments: dict[Backend, dict[str, JsonValue]] = {}
        for planned in plan.cells:
            backend = planned.cell.backend
            if backend not in environments:
                versions = {"harness": version("harness"), **backend_versions(backend)}
                environments[backend] = {"versions": dict(versions), "threads": plan.experiment.threads}
            for stage in planned.stages:
                if stage.key in plan.to_run and stage.key not in jobs:
                    jobs[stage.key] = self._job(planned, stage, environments[backend])
        return {key: jobs[key] for key in plan.to_run}

    def _job(self, planned: PlannedCell, stage: Stage, environment: dict[str, JsonValue]) -> Job:
        cell, plan = planned.cell, self._plan
        settings = plan.settings(cell)
        return Job(stage, cell.task, cell.backend, settings, plan.data_dir, plan.store.folder, environment)

    def _on_start(self, key: str) -> None:
        self._collector.running.add(key)
        self._progress.started(key, self._labels[key])

    def _on_message(self, message: Message) -> None:
        if isinstance(message, StepsDone):
            self._progress.step(message.key, message.step, message.steps)
            return
        key = message.record.key if isinstance(message, Done) else message.key
        self._collector.running.discard(key)
        if isinstance(message, Done):
            self._collector.finished[key] = message.record
            self._collector.ran.add(key)
            is_epoch = message.record.kind == "train"
            self._progress.finished(key, self._labels[key], self._outcome(message), is_epoch=is_epoch)
        else:
            self._failed(message)
        if time.monotonic() - self._written > _RECORDS_EVERY_S:
            self._write_records()

    def _failed(self, failed: Failed) -> None:
        self._collector.failures[failed.key] = (failed.status, failed.reason)
        self._progress.failed(failed.key, self._labels[failed.key], failed.status, failed.reason)
        if failed.trace:
            self._traces[failed.reason] = failed.trace
        if failed.is_fatal:
            self._store_error = failed.reason

    def _outcome(self, done: Done) -> str:
        record = done.record
        evaluation = record.valid or record.test
        if evaluation is None:
            return f"{record.seconds:.1f} s"
        problem = self._plan.problems[self._jobs[record.key].task]
        split = "valid" if record.valid else "test"
        value = problem.value(evaluation)
        return f"{split} {problem.metric.name} {value:.{problem.metric.digits}f} ({record.seconds:.1f} s)"

    def _write_records(self) -> list[Record]:
        found = self._collector.records()
        records.write(self._folder / "records.json", found)
        self._written = time.monotonic()
        return found

    def _write_spec(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        source = self._plan.experiment.path
        if source is not None and source.exists():
            write_atomic(self._folder / "spec.yaml", source.read_bytes())


def _labels(plan: Plan) -> dict[str, str]:
    """Every stage in words, after the first cell that needs it."""
    several_seeds = len({planned.cell.seed for planned in plan.cells}) > 1
    labels: dict[str, str] = {}
    for planned in plan.cells:
        names = planned.cell.labels()
        for stage in planned.stages:
            parts = [names["backend"]]
            if stage.is_dense:
                parts.append("dense")
            else:
                parts += [names["pattern"], names["strategy"], f"{planned.cell.sparsity:g}"]
            if several_seeds:
                parts.append(f"seed {planned.cell.seed}")
            place = f"epoch {stage.epoch_index + 1}" if stage.kind == "train" else stage.kind
            labels.setdefault(stage.key, " · ".join([*parts, place]))
    return labels


def _passing(plan: Plan) -> frozenset[str]:
    """Keys of the stages whose states may go once everything that starts from them has run.

    Kept are: chain ends of this and of earlier experiments, rewind targets, round ends, and the dense chains as far as
    the budget goes.
    """
    keep: set[str] = set()
    budget = plan.experiment.keep_dense
    for planned in plan.cells:
        if planned.chain:
            keep.add(planned.end.key)
        for stage in planned.chain:
            if stage.source:
                keep.add(stage.source)
            if stage.kind == "prune" and stage.parent:
                keep.add(stage.parent)
    for planned in plan.cells:
        size = 4 * sum(tensor.size for tensor in plan.problems[planned.cell.task].tensors())
        for stage in reversed(planned.chain):
            if stage.is_dense and stage.key not in keep and budget >= size:
                budget -= size
                keep.add(stage.key)
    return frozenset(
        key
        for key, stage in plan.stages.items()
        if key not in keep and stage.kind != "test" and not plan.is_earlier_end(stage)
    )
