"""One worker: a process of its own that runs stages in one framework, one after another.

The parent sends a `Job`; the worker answers with `Progress` messages and one `Done` or `Failed`. The session stays
loaded between jobs, so a chain runs without reading its states back.
"""

import math
import os
import platform
import signal
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from harness.api import (
    Backend,
    DivergedError,
    EpochResult,
    Evaluation,
    HarnessError,
    JsonValue,
    Mask,
    Masker,
    MaskUpdate,
    Problem,
    Session,
    Settings,
    Split,
    State,
    StoreError,
    Task,
)
from harness.masking import MaskMaker
from harness.stages import Stage
from harness.store import StageRecord, Store, state_digest


@dataclass(frozen=True)
class Job:
    """One stage, with all that a worker needs to run it."""

    stage: Stage
    task: Task
    backend: Backend
    settings: Settings
    data_dir: Path | None
    store: Path
    environment: dict[str, JsonValue]


@dataclass(frozen=True)
class Progress:
    """Steps done in the stage that is running."""

    key: str
    step: int
    steps: int


@dataclass(frozen=True)
class Done:
    """A stage that is finished and stored."""

    record: StageRecord


@dataclass(frozen=True)
class Failed:
    """A stage that ended without a result.

    Args:
        status: failed, diverged, oom, ...
        reason: one sentence.
        trace: where it happened; empty for a declared error.
        is_fatal: no other stage can succeed either (the store is full).
    """

    key: str
    status: str
    reason: str
    trace: str = ""
    is_fatal: bool = False


Message = Progress | Done | Failed


class Worker:
    """Runs jobs, keeping the last session and where it stands."""

    def __init__(self, report: Connection) -> None:
        self._report = report
        self._problems: dict[tuple[Task, Path | None], Problem] = {}
        self._session: Session | None = None
        self._place: tuple[Task, Backend, Settings] | None = None
        self._loaded: str | None = None

    def serve(self, jobs: Connection) -> None:
        """Answer jobs until the parent hangs up."""
        while True:
            try:
                job = jobs.recv()
            except EOFError:
                return
            self._report.send(self._answer(job))

    def _answer(self, job: Job) -> Message:
        try:
            return Done(self.run(job))
        except DivergedError as error:
            failed = Failed(job.stage.key, "diverged", f"{error} (epoch {job.stage.epoch_index + 1})")
        except MemoryError as error:
            failed = Failed(job.stage.key, "oom", f"out of memory: {error}", traceback.format_exc())
        except HarnessError as error:
            failed = Failed(job.stage.key, "failed", str(error), is_fatal=isinstance(error, StoreError))
        except Exception as error:
            status = "oom" if "out of memory" in str(error).lower() else "failed"
            failed = Failed(job.stage.key, status, f"{type(error).__name__}: {error}", traceback.format_exc())
        self._loaded = None  # the session may stand in the middle of an epoch
        return failed

    def run(self, job: Job) -> StageRecord:
        """Run one stage and store it."""
        start = time.perf_counter()
        stage, store = job.stage, Store(job.store)
        problem, session = self._problem(job), self._open(job)
        self._stand_at(job, store, problem, session)
        train: EpochResult | None = None
        if stage.kind == "train":
            train = self._train(job, problem, session)
        elif stage.kind == "prune":
            assert stage.update is not None
            session.set_masks(self._masker(job, problem)(stage.update, stage.epoch_index, session))
        valid = _evaluate(problem, session, "valid") if stage.kind in ("train", "prune") else None
        test = _evaluate(problem, session, "test") if stage.kind == "test" else None
        record = StageRecord(
            key=stage.key,
            parent=stage.parent,
            kind=stage.kind,
            inputs=dict(stage.inputs),
            epoch_index=stage.epoch_index,
            train=Evaluation(nats=train.nats, items=train.items) if train else None,
            valid=valid,
            test=test,
            seconds=round(time.perf_counter() - start, 3),
            cpu=cpu_kind(),
            environment=job.environment,
        )
        if stage.kind == "test":
            return store.write(record, None)
        written = write_reproducibly(store, record, session.state())
        self._loaded = stage.key
        return written

    def _problem(self, job: Job) -> Problem:
        place = (job.task, job.data_dir)
        if place not in self._problems:
            self._problems[place] = job.task.load(job.data_dir)
        return self._problems[place]

    def _open(self, job: Job) -> Session:
        place = (job.task, job.backend, job.settings)
        if self._session is None or self._place != place:
            if self._session is not None:
                self._session.close()
            self._session = job.backend.open(self._problem(job), job.settings)
            self._place, self._loaded = place, None
        return self._session

    def _stand_at(self, job: Job, store: Store, problem: Problem, session: Session) -> None:
        """Bring the session to where the stage starts."""
        stage = job.stage
        if stage.kind == "init":
            session.load(State(weights=problem.initial_weights(job.settings.seed)))
        elif stage.kind == "rewind":
            assert stage.source is not None and stage.parent is not None
            source = _state(store, stage.source)
            masks = store.masks(_record(store, stage.parent))
            session.load(State(source.weights, {}, source.slots, source.extra))
            session.set_masks(masks)
        elif self._loaded != stage.parent:
            assert stage.parent is not None
            session.load(_state(store, stage.parent))
        self._loaded = stage.parent

    def _train(self, job: Job, problem: Problem, session: Session) -> EpochResult:
        epoch, key, steps = job.stage.epoch, job.stage.key, problem.recipe.steps_per_epoch
        assert epoch is not None
        last = time.monotonic()

        def progress(step: int) -> None:
            nonlocal last
            if time.monotonic() - last > 0.3:
                last = time.monotonic()
                self._report.send(Progress(key, step, steps))

        return session.train_epoch(epoch, job.stage.epoch_index, self._masker(job, problem), progress)

    def _masker(self, job: Job, problem: Problem) -> Masker:
        masking = job.stage.masking
        if masking is None:
            return _no_updates
        by_name = {tensor.name: tensor for tensor in problem.tensors()}
        scope = [by_name[name] for name in masking.scope]
        return MaskMaker(masking.pattern, masking.allocation, scope, seed=job.settings.seed, target=masking.target)


def _no_updates(update: MaskUpdate, index: int, session: Session) -> dict[str, Mask]:
    raise AssertionError("this stage has no mask updates")


def _record(store: Store, key: str) -> StageRecord:
    record = store.read(key)
    assert record is not None, "a stage runs after those it starts from"
    return record


def _state(store: Store, key: str) -> State:
    return store.state(_record(store, key))


def _evaluate(problem: Problem, session: Session, split: Split) -> Evaluation:
    evaluation = session.evaluate(split)
    value = problem.value(evaluation)
    if not (math.isfinite(evaluation.nats) and math.isfinite(value)):
        raise DivergedError(None, value, f"{split} {problem.metric.name}")
    return evaluation


def write_reproducibly(store: Store, record: StageRecord, state: State) -> StageRecord:
    """Store a stage; one that was there before with another digest is marked not reproduced."""
    try:
        before = store.read(record.key)
    except StoreError:
        before = None
    if before is not None and before.digest:
        record = record.model_copy(update={"reproduced": before.digest == state_digest(state)})
    return store.write(record, state)


def cpu_kind() -> str:
    """The processor's name, as far as the system tells; records say it beside every measured number."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def main(jobs: Connection, report: Connection, parent: int) -> None:
    """The process: serve until the parent hangs up or dies."""
    # The parent decides what an interrupt means; a worker in the middle of a write must not die of the same Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    with suppress(BrokenPipeError):
        Worker(report).serve(jobs)


def _die_with(parent: int) -> None:
    # A parent killed with -9 cannot tell its workers; they look for themselves.
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
