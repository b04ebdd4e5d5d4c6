"""Run an experiment: plan it, run what is not there, and write down what became of every cell."""

import math
import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from harness import _supervisor
from harness._text import plural
from harness.api import (
    Backend,
    Evaluation,
    JsonValue,
    PluginContractError,
    RunInfo,
    SpecError,
    StageInfo,
    StoreError,
    Tracker,
)
from harness.discovery.asking import value_of
from harness.discovery.checks import study_checks
from harness.execution.collect import Collector
from harness.execution.eta import Clock
from harness.execution.graph import Executor, Graph, Policy, Schedule
from harness.execution.local import LocalExecutor
from harness.execution.notes import Notes
from harness.execution.progress import Progress
from harness.execution.slots import default_workers
from harness.execution.spec_copy import keep_spec
from harness.execution.stage_log import tail
from harness.execution.standing import Standing
from harness.execution.tracking import Tracking
from harness.execution.worker import Begun, Done, Failed, Job, Message
from harness.execution.worker import Progress as StepsDone
from harness.planning.lowering import PlannedCell
from harness.planning.passing import passing
from harness.planning.plan import Plan, make_plan
from harness.planning.stages import Stage
from harness.report.checks import noted
from harness.results import records
from harness.results.records import Record
from harness.spec import Experiment
from harness.store import StageRecord, Store
from harness.store.claims import Claims
from harness.store.status_file import Heartbeat, StatusFile
from harness.store.timeline import Attempt, TimelineFile

_RECORDS_EVERY_S = 5.0
_RECORDS_SHARE = 0.05
"""Records of a large experiment take long to write: no more than this share of the time goes into them."""

_COSTING_S = 0.3
"""Seconds of every writing of records that may go into hardware costs while workers wait for their next stage."""

_SILENT_S = 2.0
"""Seconds of costing after the last stage before a run says what it is doing."""


@dataclass(frozen=True)
class RunResult:
    """What a run leaves behind.

    Args:
        run_id: name and digest of the experiment.
        folder: where spec, records, logs and report lie.
        records: one for every planned cell.
        interrupted: whether it was stopped before its end.
        stopped: why it stopped by itself before its end; None if it did not.
        store_error: why the store could no longer be written; None if it could.
        traces: where failed stages failed, or what they printed last, by reason.
    """

    run_id: str
    folder: Path
    records: list[Record]
    interrupted: bool = False
    stopped: str | None = None
    store_error: str | None = None
    traces: dict[str, str] = field(default_factory=dict)


def run(
    experiment: Experiment,
    *,
    store: Path,
    data_dir: Path | None = None,
    workers: int | None = None,
    devices: Sequence[str] = (),
    policy: Policy | None = None,
    trust_code: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
    trackers: Sequence[Tracker] = (),
) -> RunResult:
    """Run an experiment; stages that are in the store are not run again.

    Args:
        experiment: a loaded specification.
        store: the folder that keeps stages and runs.
        data_dir: where the data sets are; default: the experiment's, then HARNESS_DATA.
        workers: processes at most; default: one per core and thread asked for, and one where a GPU does the work.
        devices: the device of every worker, all of one kind, in place of `workers` and of the experiment's device.
        policy: what happens after failures.
        trust_code: take results of older code, all else being equal.
        executor: where stages are run; default: in processes of this machine.
        progress: where to tell what happens.
        trackers: who else is told, each beside the run; none of them can fail it.

    Raises:
        SpecError, DataError: nothing was run.
        PluginUnavailableError: a backend is not installed; nothing was run.
        StoreError: the store cannot be written.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker imports the script that defines its plugins, and the script calls us: waiting for its parent's claims
        # would never end.
        raise SpecError(
            "run: a worker imported the script that calls it; put the call under if __name__ == '__main__':"
        )
    experiment.require_backends()
    # The first stands for the kind: `parse_devices` has only devices of one.
    if devices:
        experiment = replace(experiment, device=devices[0])
    shelf = Store(store)
    shelf.prepare()
    policy, progress = policy or Policy(), progress or Progress()
    ran: set[str] = set()
    notes = Notes(store, shelf.run_folder(experiment.run_id), progress)
    with notes, Tracking.of(trackers, notes.tell) as tracking, Claims(shelf) as claims, Heartbeat(claims.refresh):
        claims.tidy()
        while True:
            plan = make_plan(experiment, store=store, data_dir=data_dir, trust_code=trust_code)
            count = len(devices) or workers or default_workers(experiment.threads, frozenset(plan.devices.values()))
            used = executor or LocalExecutor(count, devices)
            one = _Run(plan, count, used, claims, policy, progress, notes, ran, tracking)
            result = one.run()
            # A stage that was damaged behind the plan's back is seen by the next plan, which mends it; once.
            if ran or not one.is_mendable:
                claims.tidy()  # what its own workers left, if one was killed
                tracking.state = "interrupted" if result.interrupted else "stopped" if result.stopped else "ended"
                return result
            ran = one.ran


class _Run:
    """One run, from its plan to its records."""

    def __init__(
        self,
        plan: Plan,
        workers: int,
        executor: Executor,
        claims: Claims,
        policy: Policy,
        progress: Progress,
        notes: Notes,
        ran: set[str],
        tracking: Tracking,
    ) -> None:
        self._tracking, self._notes = tracking, notes
        self._plan, self._workers, self._executor, self._progress = plan, workers, executor, progress
        self._folder = plan.store.run_folder(plan.experiment.run_id)
        self._collector = Collector(plan, finished=dict(plan.cached), ran=set(ran))
        for key in plan.to_run:
            self._collector.finished.pop(key, None)
        self._jobs = self._make_jobs()
        graph = Graph(self._jobs, passing=passing(plan))
        self._schedule = Schedule(
            graph,
            plan.store,
            policy=policy,
            claims=claims,
            on_start=self._on_start,
            on_message=self._on_message,
            on_wait=lambda holder: notes.tell(f"waiting for stages that {holder} is computing"),
        )
        kinds = {key: _kind(job) for key, job in self._jobs.items()}
        epochs = {key for key, job in self._jobs.items() if job.stage.kind == "train"}
        self._clock = Clock(graph, kinds, workers, epochs)
        self._running: dict[str, dict[str, JsonValue]] = {}
        self._status = StatusFile(
            self._folder, {"run": plan.experiment.run_id, "workers": workers, "stages_to_run": len(plan.to_run)}
        )
        self._timeline = TimelineFile(self._folder)
        self._standing = Standing(several=len({planned.cell.task for planned in plan.cells}) > 1)
        self._by_test: dict[str, list[PlannedCell]] = {}
        for planned in plan.cells:
            if planned.test is not None:
                self._by_test.setdefault(planned.test.key, []).append(planned)
        self._begun: dict[str, tuple[float, str]] = {}
        self._next_records = 0.0
        self._records: list[Record] = []
        self._store_error: str | None = None
        self._damaged = False
        self._traces: dict[str, str] = {}

    @property
    def ran(self) -> set[str]:
        """Keys of the stages that were run."""
        return self._collector.ran

    @property
    def is_mendable(self) -> bool:
        """Whether stages failed for a damaged file alone, so that another plan helps."""
        return self._damaged and self._store_error is None and self._schedule.stopped is None

    def run(self) -> RunResult:
        """Run everything, writing records as cells are finished."""
        keep_spec(self._folder, self._plan.experiment)
        # Only now, with the claims held: a plan alone must change nothing.
        for key, reason in self._plan.damaged.items():
            self._plan.store.set_aside(key, reason)
        bill = self._plan.summary()
        experiment, epochs = self._plan.experiment, bill["epochs_to_run"]
        assert isinstance(epochs, int)
        cells = len(self._plan.cells)
        self._tracking.run_started(RunInfo(experiment.run_id, self._folder, cells, epochs, experiment.document))
        self._write_records(_COSTING_S)
        interrupted = False
        self._progress.begin(bill, self._workers)
        if any([self._standing.add(record) for record in self._records]):  # every one, not up to the first
            self._progress.best(self._standing.best())
        if again := self._plan.trained_again():
            self._notes.tell(again)
        try:
            with Heartbeat(self._status.touch):
                self._executor.run(self._schedule)
                # Designs of large layers are searched for minutes: nobody is to think that the run hangs.
                if left := self._collector.to_cost(_SILENT_S):
                    self._progress.note(f"hardware costs of {plural(left, 'cell')}; nothing is trained any more")
                    self._collector.cost(self._progress.costing)
        except KeyboardInterrupt:
            _supervisor.taken()
            # An interrupted run is not planned anew for a damaged file.
            interrupted, self._damaged = True, False
        except StoreError as error:
            self._store_error = self._store_error or str(error)
        finally:
            self._executor.close()
            self._drop_empty_logs()
            for key in list(self._running):
                self._note_attempt(key, "interrupted")
            self._timeline.close()
            self._running.clear()
            self._collector.running.clear()
            self._progress.end()
        stopped = None if self._store_error else self._schedule.stopped
        try:
            try:
                # Looked at from another machine, a run that costs for minutes is alive as well.
                with Heartbeat(self._status.touch):
                    self._write_records(0.0 if interrupted else None, is_last=True)
            except KeyboardInterrupt:
                interrupted = True
                self._write_records(0.0, is_last=True)
            self._write_status("interrupted" if interrupted else "stopped" if stopped or self._store_error else "ended")
        except StoreError as error:
            self._store_error = self._store_error or str(error)
        run_id = self._plan.experiment.run_id
        return RunResult(run_id, self._folder, self._records, interrupted, stopped, self._store_error, self._traces)

    def _drop_empty_logs(self) -> None:
        """Remove what workers that were stopped in the middle of a stage left of a log in which nothing stood yet."""
        for key in self._running:
            log = self._jobs[key].log
            with suppress(OSError):
                if log is not None and log.stat().st_size == 0:
                    log.unlink()
        with suppress(OSError):  # it is not there, or holds something
            (self._folder / "logs").rmdir()

    def _make_jobs(self) -> dict[str, Job]:
        plan, jobs = self._plan, {}
        environments: dict[Backend, dict[str, JsonValue]] = {}
        for key in plan.to_run:
            planned = self._collector.owner(key)
            backend = planned.cell.backend
            if backend not in environments:
                versions = self._collector.versions(backend)
                environments[backend] = {"versions": dict(versions), "threads": plan.experiment.threads}
            jobs[key] = self._job(planned, plan.stages[key], environments[backend])
        return jobs

    def _job(self, planned: PlannedCell, stage: Stage, environment: dict[str, JsonValue]) -> Job:
        cell, plan = planned.cell, self._plan
        log = self._folder / "logs" / f"{stage.key}.log"
        return Job(
            stage, cell.task, cell.backend, plan.settings(cell), plan.data_dir, plan.store.folder, environment, log
        )

    def _on_start(self, key: str) -> None:
        label = self._collector.label(key)
        self._collector.running.add(key)
        # What the model had before the stage began, so that a display can say what pruning costs.
        parent = self._collector.finished.get(self._jobs[key].stage.parent or "")
        before = self._value(key, parent.valid) if parent and parent.valid else math.nan
        self._running[key] = {
            "stage": key,
            "cell": self._collector.owner(key).cell.id,
            "label": label,
            "since": round(time.time(), 3),
            "step": 0,
            "steps": None,
            "metric": self._plan.problems[self._jobs[key].task].metric.name,
            "before": before if math.isfinite(before) else None,
        }
        self._progress.started(key, label)
        self._tracking.stage_started(partial(self._stage_info, key))
        self._write_now_and_then()

    def _on_message(self, message: Message) -> None:
        if isinstance(message, StepsDone):
            if isinstance(message, Begun):
                self._begun[message.key] = time.time(), message.worker
            if message.steps:  # else it only says that the stage has begun
                self._running[message.key] |= {"step": message.step, "steps": message.steps}
                self._progress.step(message.key, message.step, message.steps)
        else:
            self._ended(message)
        self._write_now_and_then()

    def _ended(self, message: Done | Failed) -> None:
        key = message.record.key if isinstance(message, Done) else message.key
        is_found = isinstance(message, Done) and message.is_found
        if not is_found:
            outcome = self._outcome(message) if isinstance(message, Done) else ""
            spent = message.record.processor_seconds if isinstance(message, Done) else None
            self._note_attempt(key, "ok" if isinstance(message, Done) else message.status, outcome, spent)
        self._running.pop(key, None)
        self._collector.running.discard(key)
        if isinstance(message, Failed):
            self._failed(message)
            return
        record = message.record
        self._collector.finished[key] = record
        if not message.is_found:
            self._collector.ran.add(key)
        is_epoch = record.kind == "train"
        self._clock.finished(key, None if message.is_found else record.seconds)
        outcome = "computed by another run" if message.is_found else self._outcome(message)
        self._progress.finished(key, self._collector.label(key), outcome, self._clock.tally(), is_epoch=is_epoch)
        self._tracking.stage_finished(partial(self._stage_info, key, record, is_found=message.is_found))
        self._place(key)

    def _place(self, key: str) -> None:
        """Tell if a cell that has its score now is the best so far; records, with their costs, are made later."""
        news = False
        for planned in self._by_test.get(key, ()):
            end = self._collector.finished.get(planned.end.key)
            if end is not None and end.valid is not None:
                value = self._value(key, end.valid)
                update = {"status": "ok", "valid_value": value if math.isfinite(value) else None}
                news |= self._standing.add(self._collector.outline(planned).model_copy(update=update))
        if news:
            self._progress.best(self._standing.best())

    def _note_attempt(self, key: str, status: str, outcome: str = "", spent: float | None = None) -> None:
        """Add an attempt at a stage to the timeline of the run, as it ends."""
        if key not in self._running:  # found before it was handed out
            return
        begun, worker = self._begun.pop(key, (None, ""))
        told, stage = self._running[key], self._plan.stages[key]
        self._timeline.add(
            Attempt(
                stage=key, cell=str(told["cell"]), label=str(told["label"]), kind=stage.kind, worker=worker,
                given=float(str(told["since"])), begun=begun, ended=time.time(), status=status, outcome=outcome,
                processor_seconds=spent,
            )
        )  # fmt: skip

    def _stage_info(
        self, key: str, record: StageRecord | None = None, *, is_found: bool = False, failure: str = ""
    ) -> StageInfo:
        """A stage as trackers see it, before or after it has run."""
        stage, cell = self._plan.stages[key], self._collector.owner(key).cell
        name = self._plan.problems[cell.task].metric.name
        found = {"valid": record.valid, "test": record.test} if record else {}
        # Trackers know splits by their names, as in `valid/perplexity`.
        metrics = {f"{split}/{name}": self._value(key, each) for split, each in found.items() if each is not None}
        if record and record.train and record.train.items:
            metrics["train/nats"] = record.train.nats / record.train.items
        return StageInfo(
            key=key,
            kind=stage.kind,
            cell=cell.id,
            label=self._collector.label(key),
            epoch=stage.epoch_index + (stage.kind == "train"),
            seed=cell.seed,
            # A tracker may refuse what is no number.
            metrics={each: value for each, value in metrics.items() if math.isfinite(value)},
            seconds=None if record is None or is_found else record.seconds,
            failure=failure,
        )

    def _failed(self, failed: Failed) -> None:
        label = self._collector.label(failed.key)
        if failed.again:
            self._progress.failed(failed.key, label, failed.status, f"{failed.reason}; it is tried again")
            return
        self._collector.failures[failed.key] = (failed.status, failed.reason)
        self._clock.lost(failed.key)
        self._progress.failed(failed.key, label, failed.status, failed.reason)
        told = f"{failed.status}: {failed.reason}"
        # Only for good: a stage that is tried again is still open to trackers.
        self._tracking.stage_finished(partial(self._stage_info, failed.key, failure=told))
        self._damaged = self._damaged or failed.is_damaged
        # A traceback says where; without one the end of its log is all there is.
        text = failed.trace or tail(self._jobs[failed.key].log)
        if text:
            self._traces[failed.reason] = text
        if failed.is_fatal:
            self._store_error = failed.reason

    def _outcome(self, done: Done) -> str:
        record = done.record
        evaluation = record.valid or record.test
        if evaluation is None:
            return f"{record.seconds:.1f} s"
        problem = self._plan.problems[self._jobs[record.key].task]
        split = "valid" if record.valid else "test"
        value = self._value(record.key, evaluation)
        return f"{split} {problem.metric.name} {value:.{problem.metric.digits}f} ({record.seconds:.1f} s)"

    def _value(self, key: str, evaluation: Evaluation) -> float:
        task = self._jobs[key].task
        try:
            return value_of(task, self._plan.problems[task], evaluation)
        except PluginContractError:  # its record says so
            return math.nan

    def _write_now_and_then(self) -> None:
        if time.monotonic() > self._next_records:
            # Costs in small parts: workers are waiting while this thread computes.
            self._write_records(_COSTING_S)
        if self._status.is_due:
            self._write_status("running")

    def _write_records(self, costing: float | None, *, is_last: bool = False) -> None:
        start, before = time.monotonic(), self._records
        self._records = self._collector.records(costing)
        if is_last:
            files = [file for file in self._plan.experiment.plugins if file.is_file()]
            self._records = noted(self._records, study_checks(files))
        self._tracking.records(self._records, is_last=is_last)
        # Long epochs change nothing for hours, and a large file is a burden to the file system that many runs share.
        if is_last or not before or self._records != before:
            records.write(self._folder / "records.json", self._records)
        end = time.monotonic()
        # However long writing takes, most of the time is left for handing out stages.
        self._next_records = end + max(_RECORDS_EVERY_S, (end - start) / _RECORDS_SHARE)

    def _write_status(self, state: str) -> None:
        tally = self._clock.tally()
        cells: dict[str, JsonValue] = dict(Counter(record.status for record in self._records))
        running: list[JsonValue] = list(self._running.values())
        self._status.write(
            {
                "state": state,
                "reason": self._store_error or self._schedule.stopped or "",
                "cells": cells,
                "stages_done": len(self._collector.ran),
                "stages_failed": len(self._collector.failures),
                "epochs_done": tally.done,
                "epochs": tally.epochs,
                "left_s": None if tally.left_s is None else round(tally.left_s, 1),
                "left_basis": tally.basis,
                "running": running,
            }
        )


def _kind(job: Job) -> tuple[object, ...]:
    """What stages of about equal cost have in common."""
    # Pruned and dense epochs take different times, a score in the numbers of some hardware more than one in floats.
    return job.task, job.backend, job.stage.is_dense, job.stage.kind, job.stage.number_format is not None
