"""One worker: a process of its own that runs stages in one framework, one after another.

The parent sends a `Job`; the worker answers with `Progress` messages and one `Done` or `Failed`. The session stays
loaded between jobs, so a chain runs without reading its states back.
"""

import faulthandler
import math
import os
import platform
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from harness.api import (
    Backend,
    Component,
    DivergedError,
    EpochResult,
    Evaluation,
    HarnessError,
    JsonValue,
    Mask,
    Masker,
    MaskUpdate,
    NativeModel,
    Problem,
    Session,
    Settings,
    Split,
    State,
    StoreError,
    Task,
    opened_here,
)
from harness.discovery.asking import initial_weights_of, loaded, value_of
from harness.discovery.guard import blame, refused
from harness.execution import own_fixed
from harness.execution.machine import die_with
from harness.execution.stage_log import logged
from harness.fixed_point import evaluated
from harness.masks.updates import MaskMaker
from harness.planning.stages import Stage
from harness.results.records import BEYOND, Status
from harness.store import DamagedStageError, StageRecord, Store, metered, state_digest


@dataclass(frozen=True)
class Job:
    """One stage, with all that a worker needs to run it.

    Args:
        log: the file that takes what the worker prints meanwhile; None for none.
    """

    stage: Stage
    task: Task
    backend: Backend
    settings: Settings
    data_dir: Path | None
    store: Path
    environment: dict[str, JsonValue]
    log: Path | None = None


@dataclass(frozen=True)
class Progress:
    """Steps done in the stage that is running."""

    key: str
    step: int
    steps: int


@dataclass(frozen=True)
class Begun(Progress):
    """A worker begins with a stage; there are no steps yet.

    Args:
        worker: its host and process.
    """

    worker: str = ""


@dataclass(frozen=True)
class Done:
    """A stage that is finished and stored.

    Args:
        is_found: another run computed it.
    """

    record: StageRecord
    is_found: bool = False


@dataclass(frozen=True)
class Failed:
    """A stage that ended without a result.

    Args:
        status: failed, diverged, oom, ...
        reason: one sentence.
        trace: where it happened; empty for a declared error.
        is_fatal: no other stage can succeed either (the store is full).
        is_damaged: a stage that it starts from turned out damaged in the store.
        again: the stage is going to be tried again.
    """

    key: str
    status: Status
    reason: str
    trace: str = ""
    is_fatal: bool = False
    is_damaged: bool = False
    again: bool = False


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
            # Told at once: from here on the time limit counts the stage, not the start of its process.
            self._report.send(Begun(job.stage.key, 0, 0, f"{socket.gethostname()} {os.getpid()}"))
            with logged(job.log):
                answer = self.answer(job)
            self._report.send(answer)

    def answer(self, job: Job) -> Done | Failed:
        """Run one stage; whatever it raises is a status with a reason."""
        key = job.stage.key
        try:
            with metered():
                return Done(self._record(job))
        except DivergedError as error:
            failed = Failed(key, "diverged", f"{error} (epoch {job.stage.epoch_index + 1})")
        except DamagedStageError as error:  # the next plan sees it too, and runs that stage again
            failed = Failed(key, "failed", f"{error}; run the experiment again, which mends it", is_damaged=True)
        except HarnessError as error:
            trace = _shown(error) if error.__cause__ is not None else ""
            failed = Failed(key, "failed", str(error), trace, is_fatal=isinstance(error, StoreError))
        except BaseException as error:  # an exit or an interrupt, too: Ctrl-C never comes here, so a plugin raised it
            status: Status = "oom" if _is_out_of_memory(error) else "failed"
            failed = Failed(key, status, blame(error, _plugins(job)), _shown(error))
        if failed.status == "oom":
            self._close()  # what it holds may be all that the next one lacks
        self._loaded = None  # the session may stand in the middle of an epoch
        return failed

    def _record(self, job: Job) -> StageRecord:
        if job.stage.number_format is None:
            return self.run(job)
        # Asked of the problem, since the network of a user's own would be described by another process first.
        return self.evaluate_own(job) if opened_here(self._problem(job)) else self.evaluate_fixed(job)

    def run(self, job: Job) -> StageRecord:
        """Run one stage and store it."""
        stage, store = job.stage, Store(job.store)
        problem, session = self._problem(job), self._open(job)
        self._stand_at(job, store, problem, session)
        start = time.perf_counter()  # of the stage itself: data and framework are loaded once for many
        train: EpochResult | None = None
        masks: dict[str, Mask] = {}
        if stage.kind == "train":
            train = self._train(job, problem, session)
        elif stage.kind == "prune":
            assert stage.update is not None
            masks = self._masker(job, problem)(stage.update, stage.epoch_index, session)
            session.set_masks(masks)
        state = _state_of(job, problem, session, masks) if stage.kind != "test" else None
        if train is not None and state is not None:
            _require_finite(problem, state)
        # A validation value decides nothing: one that overflows is told, and the chain goes on to a test that may not.
        valid = _evaluated(job, session, "valid") if stage.kind in ("train", "prune") else None
        test = _scored(job, problem, session) if stage.kind == "test" else None
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
        if state is None:
            return store.write(record, None)
        written = write_reproducibly(store, record, state)
        self._loaded = stage.key
        return written

    def evaluate_fixed(self, job: Job) -> StageRecord:
        """Score the finished model in the numbers of a hardware entry."""
        stage, store = job.stage, Store(job.store)
        problem, session = self._problem(job), self._open(job)
        self._stand_at(job, store, problem, session)
        assert stage.number_format is not None
        start = time.perf_counter()
        found = evaluated(
            problem, session.weights(), stage.number_format, "test", session.operations(), job.settings.seed
        )
        value = value_of(job.task, problem, found)
        if not math.isfinite(value):
            raise DivergedError(None, value, f"test {problem.metric.name} as {stage.number_format.label()}")
        record = StageRecord(
            key=stage.key,
            parent=stage.parent,
            kind=stage.kind,
            inputs=dict(stage.inputs),
            epoch_index=stage.epoch_index,
            test=found,
            seconds=round(time.perf_counter() - start, 3),
            cpu=cpu_kind(),
            environment=job.environment,
        )
        return store.write(record, None)

    def evaluate_own(self, job: Job) -> StageRecord:
        """The same of a user's own model."""
        stage, store = job.stage, Store(job.store)
        problem, session = self._problem(job), self._open(job)
        self._stand_at(job, store, problem, session)
        assert stage.number_format is not None
        start = time.perf_counter()
        found = own_fixed.scored(job.task, problem, session.state(), stage.number_format, job.settings.seed)
        record = StageRecord(
            key=stage.key,
            parent=stage.parent,
            kind=stage.kind,
            inputs=dict(stage.inputs),
            epoch_index=stage.epoch_index,
            test=found,
            seconds=round(time.perf_counter() - start, 3),
            cpu=cpu_kind(),
            environment=job.environment,
        )
        return store.write(record, None)

    def _problem(self, job: Job) -> Problem:
        place = (job.task, job.data_dir)
        if place not in self._problems:
            self._problems[place] = loaded(job.task, job.data_dir)
        return self._problems[place]

    def _open(self, job: Job) -> Session:
        place = (job.task, job.backend, job.settings)
        if self._session is None or self._place != place:
            self._close()
            session: object = job.backend.open(self._problem(job), job.settings)
            if not isinstance(session, Session):
                raise refused(job.backend, "a Session", type(session).__name__, "open")
            self._session, self._place = session, place
        return self._session

    def _close(self) -> None:
        if self._session is not None:
            try:
                self._session.close()
            except (Exception, SystemExit) as error:  # what it had to give is kept; the next session is not to blame
                _shown(error)
        self._session, self._place, self._loaded = None, None, None

    def _stand_at(self, job: Job, store: Store, problem: Problem, session: Session) -> None:
        """Bring the session to where the stage starts."""
        stage = job.stage
        if stage.kind == "init":
            session.load(State(weights=initial_weights_of(job.task, problem, job.settings.seed)))
        elif stage.kind == "rewind":
            assert stage.source is not None and stage.parent is not None
            source = _state(store, stage.source)
            masks = store.masks(_record(store, stage.parent))
            if stage.inputs.get("weights") == "new":
                source = State(weights=initial_weights_of(job.task, problem, _another_seed(job.settings.seed)))
            # Without its masks, which are those of another point of the chain; the present ones follow.
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

        trained: object = session.train_epoch(epoch, job.stage.epoch_index, self._masker(job, problem), progress)
        if not isinstance(trained, EpochResult):
            raise refused(
                job.backend, "an EpochResult from its session's `train_epoch`", type(trained).__name__, "open"
            )
        if not math.isfinite(trained.nats):
            raise DivergedError(None, trained.nats, "training loss")
        return trained

    def _masker(self, job: Job, problem: Problem) -> Masker:
        masking = job.stage.masking
        if masking is None:
            return _no_updates
        by_name = {tensor.name: tensor for tensor in problem.tensors()}
        scope = [by_name[name] for name in masking.scope]
        return MaskMaker(
            masking.pattern,
            masking.allocation,
            scope,
            seed=job.settings.seed,
            target=masking.target,
            initial_weights=lambda: problem.initial_weights(job.settings.seed),
        )


_TRACE = 20_000
"""Characters of a traceback that are kept: an exception may carry a whole array as its text."""

_OUT_OF_MEMORY = ("out of memory", "oom when allocating", "can't allocate memory", "status_alloc_failed")
"""What CUDA, TensorFlow, PyTorch on a CPU, and cuDNN or cuBLAS say of too little memory, in lower case."""


def _plugins(job: Job) -> tuple[Component, ...]:
    """What a stage calls, the likeliest culprit first."""
    masking = job.stage.masking
    return (job.backend, job.task, *(() if masking is None else (masking.pattern,)))


def _shown(error: BaseException) -> str:
    """The traceback of an error, written into the stage's log; what is handed on is bounded."""
    text = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace").decode("utf-8")
    text = text if len(text) <= _TRACE else f"{text[:_TRACE]}\n... ({len(text):,} characters)\n"
    with suppress(OSError):
        sys.stderr.write(text)
    return text


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def _another_seed(seed: int) -> int:
    """The seed of initial weights that are drawn afresh: its own for every seed, and none that a person would set."""
    return int(np.random.default_rng([seed, 0x4E117]).integers(2**31, 2**32))


def _no_updates(update: MaskUpdate, index: int, session: Session) -> dict[str, Mask]:
    raise AssertionError("this stage has no mask updates")


def _record(store: Store, key: str) -> StageRecord:
    record = store.read(key)
    assert record is not None, "a stage runs after those it starts from"
    return record


def _state(store: Store, key: str) -> State:
    return store.state(_record(store, key))


def _require_finite(problem: Problem, state: State) -> None:
    """Refuse trained weights that nothing can come of any more; what is not trained may be infinite by design."""
    for name in (tensor.name for tensor in problem.tensors() if tensor.name in state.weights):
        weights = state.weights[name]
        finite = np.isfinite(weights)
        if not finite.all():
            raise DivergedError(None, float(weights[~finite][0]), f"weights of {name}")


def _state_of(job: Job, problem: Problem, session: Session, masks: Mapping[str, Mask]) -> State:
    """What a session holds, checked, since what is stored is believed from then on.

    Args:
        job: the stage.
        problem: what is trained.
        session: its session.
        masks: that were set just now; the state has to have them.
    """
    state: object = session.state()
    if not isinstance(state, State):
        raise refused(job.backend, "a State from its session's `state`", type(state).__name__, "open")
    for tensor in problem.tensors():
        found = state.weights.get(tensor.name)
        if found is None and isinstance(problem.network, NativeModel):
            continue  # a module of the user's own may share a tensor under another name
        if not isinstance(found, np.ndarray) or found.shape != tensor.shape:
            got = f"shape {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
            raise refused(job.backend, f"weights of shape {tensor.shape} for {tensor.name} in its `state`", got, "open")
    for name, mask in masks.items():
        if not np.array_equal(state.masks.get(name, ()), mask):
            raise refused(job.backend, f"the mask of {name} in its `state` that was set", "another", "open")
    return state


def _evaluated(job: Job, session: Session, split: Split) -> Evaluation:
    evaluation: object = session.evaluate(split)
    if not isinstance(evaluation, Evaluation):
        raise refused(job.backend, "an Evaluation from its session's `evaluate`", type(evaluation).__name__, "open")
    return evaluation


def _scored(job: Job, problem: Problem, session: Session) -> Evaluation:
    """The test score of a cell, which has to be a number."""
    evaluation = _evaluated(job, session, "test")
    value = value_of(job.task, problem, evaluation)
    if not (math.isfinite(evaluation.nats) and abs(value) <= BEYOND):
        raise DivergedError(None, value, f"test {problem.metric.name}")
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


def main(jobs: Connection, report: Connection, parent: int, is_bound: bool) -> None:
    """The process: serve until the parent hangs up or dies.

    Args:
        jobs: where jobs come from.
        report: where answers go.
        parent: the parent's process number.
        is_bound: whether the kernel is to end this process with the thread that started it.
    """
    # The parent decides what an interrupt means; a worker in the middle of a write must not die of the same Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # what it starts should not be deaf for ever
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    with suppress(OSError):  # closed ones
        os.dup2(2, 1)  # stdout is the run's, perhaps JSON: what plugins print when they are imported is none of it
    die_with(parent, is_bound=is_bound)
    faulthandler.enable()  # a crash inside a C library leaves its Python stack in the stage's log
    with suppress(BrokenPipeError):
        Worker(report).serve(jobs)
