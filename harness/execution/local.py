"""The local executor: stages in worker processes on this machine, one framework per process."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker, spawn
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType

from harness import _supervisor
from harness.execution import keeper
from harness.execution.graph import Schedule
from harness.execution.machine import oom_kills
from harness.execution.worker import Done, Failed, Job, Message, Progress

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

_START_UP_S = 120.0
"""Grace for a process that has still to start and to import its framework before the stage's own time counts."""

_LOOK_S = 1.0
"""How often it is looked whether a worker is there: a process that it started may hold its pipe open after its end."""

_STOOD_S = 1.0
"""A wait that took so much longer than it should was no wait: the run stood still, by Ctrl-Z perhaps."""

_WAIT_S = 0.01
"""How often it is looked whether a worker that was told to end has done so."""

_END_S = 5.0
"""How long an end is waited for: of a worker that was told that there is no more work, of one that was killed."""


@dataclass
class _Slot:
    """One worker process and what it is doing.

    Args:
        backend: name of the one that it has loaded.
        device: where it computes; None for the device of the job.
        running: key of the stage under way; stands_at: of the one whose state is loaded.
        until: when the stage under way has run out of time.
        oom_kills: the kernel's count when the stage began.
    """

    backend: str
    device: str | None
    process: SpawnProcess
    jobs: Connection
    report: Connection
    running: str | None = None
    stands_at: str | None = None
    until: float | None = None
    oom_kills: int = 0


class LocalExecutor:
    """Runs stages in at most so many processes; each keeps its framework and goes on with its chain.

    Args:
        workers: how many processes.
        devices: where each of them computes, e.g. two on one GPU; empty: where the jobs say.
    """

    def __init__(self, workers: int, devices: Sequence[str] = ()) -> None:
        # A place without a device computes where the plan said.
        self._places: list[str | None] = list(devices) or [None] * workers
        self._slots: list[_Slot] = []

    def run(self, schedule: Schedule) -> None:
        """Run everything that the schedule hands out; the workers end with it."""
        try:
            while not schedule.is_over:
                self._dispatch(schedule)
                for message in self._messages(schedule):
                    schedule.tell(message)
        except KeyboardInterrupt:
            _supervisor.taken()
            raise
        finally:
            self.close()

    def close(self) -> None:
        """End every worker: ask, and kill those that do not hear; a second Ctrl-C meanwhile kills at once."""
        slots, self._slots = self._slots, []
        for slot in slots:
            slot.jobs.close()
            slot.process.terminate()
        try:
            _await(slots, keeper.GRACE_S + _END_S)
        finally:
            _kill(slots)

    def _dispatch(self, schedule: Schedule) -> None:
        # A worker goes on with its own chain where it can: the state is in its memory.
        for slot in [slot for slot in self._slots if slot.running is None]:
            job = schedule.next(slot.backend, slot.stands_at)
            if job is not None:
                self._send(slot, job, schedule)
        while len(self._busy()) < len(self._places):
            job = schedule.next()
            if job is None:
                return
            idle = [slot for slot in self._slots if slot.running is None]
            fitting = next((slot for slot in idle if slot.backend == job.backend.name), None)
            # No room for another process: one that has loaded another framework has to go.
            if fitting is None and len(self._slots) == len(self._places):
                self._retire(idle[0])  # its framework has nothing to do, another has: one framework per process
            self._send(fitting or self._start(job), job, schedule)

    def _busy(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.running is not None]

    def _send(self, slot: _Slot, job: Job, schedule: Schedule) -> None:
        key = job.stage.key
        if schedule.is_alone(key):  # idle workers hold memory too
            for other in [other for other in self._slots if other is not slot and other.running is None]:
                self._retire(other)
        # The place of a slot decides where its jobs compute, not what the plan said of the kind of device.
        if slot.device is not None:
            job = replace(job, settings=job.settings.model_copy(update={"device": slot.device}))
        slot.running, slot.oom_kills = key, oom_kills()
        limit = schedule.policy.stage_timeout
        slot.until = None if limit is None else time.monotonic() + limit + _START_UP_S
        try:
            slot.jobs.send(job)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it died while idle: reading its end of the other pipe says so, like any other death

    def _start(self, job: Job) -> _Slot:
        context = multiprocessing.get_context("spawn")
        job_reader, job_writer = context.Pipe(duplex=False)
        report_reader, report_writer = context.Pipe(duplex=False)
        # The kernel's "when the parent dies" means the thread that started a process, so only the main one will do.
        is_bound = threading.current_thread() is threading.main_thread()
        process = context.Process(
            target=keeper.main, args=(job_reader, report_writer, os.getpid(), is_bound), daemon=True
        )
        with _threads(job.settings.threads), _deaf(), _without_script(job), _silent_orphans():
            process.start()
        # These ends are the child's: while one is open here, the child's death is not seen.
        job_reader.close()
        report_writer.close()
        slot = _Slot(job.backend.name, self._free_place(), process, job_writer, report_reader)
        self._slots.append(slot)
        return slot

    def _free_place(self) -> str | None:
        # By count, as one device may be named for several workers.
        free = list(self._places)
        for slot in self._slots:
            free.remove(slot.device)
        return free[0]

    def _retire(self, slot: _Slot) -> None:
        """Let a worker end that has nothing to do, or see to it that one is gone."""
        self._slots.remove(slot)
        slot.jobs.close()
        try:
            _await([slot], _END_S)
        finally:
            _kill([slot])

    def _messages(self, schedule: Schedule) -> Iterator[Message]:
        by_report = {slot.report: slot for slot in self._busy()}
        waits = [slot.until - time.monotonic() for slot in self._busy() if slot.until is not None]
        # With nothing to wait for but other runs, the next look is when they may have finished.
        if schedule.look_again_s is not None:
            waits.append(schedule.look_again_s)
        if not by_report and not waits:
            return
        told = self._wait(list(by_report), min(_LOOK_S, max(0.0, min(waits, default=_LOOK_S))))
        # Looked for before the pipes are: whoever has ended by now has said what it had to say.
        ended = [slot for slot in by_report.values() if slot.process.exitcode is not None]
        for slot in [slot for report, slot in by_report.items() if report in told or slot in ended]:
            try:
                message: Message = slot.report.recv() if slot.report.poll() else self._died(slot)
            except (EOFError, ConnectionResetError):
                message = self._died(slot)
            self._note(slot, message, schedule)
            yield message
        for slot in self._busy():
            # After the messages: one that came in time counts.
            if slot.until is not None and slot.until <= time.monotonic():
                yield self._timed_out(slot, schedule)

    def _wait(self, reports: Sequence[Connection], seconds: float) -> Sequence[object]:
        """Wait for messages, but no longer than so many seconds; time in which all stood still counts for no stage."""
        start = time.monotonic()
        told = wait(reports, seconds)
        over = time.monotonic() - start - seconds
        # Waiting takes no longer by itself: the run was stopped, or its machine was. Keepers follow a moment later.
        if over > _STOOD_S:
            for slot in self._busy():
                slot.until = None if slot.until is None else slot.until + over + keeper.LOOK_S
        return told

    def _note(self, slot: _Slot, message: Message, schedule: Schedule) -> None:
        if isinstance(message, Progress):
            limit = schedule.policy.stage_timeout
            if limit is not None and message.step == 0:  # it has begun: from here on its own time counts
                slot.until = time.monotonic() + limit
            return
        slot.stands_at, slot.running = None, None
        if isinstance(message, Done):
            is_test = message.record.kind == "test"
            slot.stands_at = message.record.parent if is_test else message.record.key

    def _died(self, slot: _Slot) -> Failed:
        assert slot.running is not None
        key = slot.running
        self._retire(slot)
        code = slot.process.exitcode or 0
        # A kernel that kills for memory says so only in a counter.
        if code == -9 and oom_kills() > slot.oom_kills:
            return Failed(
                key, "oom", "the worker process was killed by the kernel for lack of memory; use fewer --workers"
            )
        if code == -9:
            return Failed(key, "killed", "the worker process was killed (signal 9), perhaps for memory; run it again")
        if code < 0:
            return Failed(key, "crashed", f"the worker process crashed with signal {-code}; run it again")
        return Failed(key, "crashed", f"the worker process ended with exit code {code} and no result; run it again")

    def _timed_out(self, slot: _Slot, schedule: Schedule) -> Failed:
        assert slot.running is not None
        key = slot.running
        # Not asked first: what hangs does not hear.
        _tell(slot, keeper.AT_ONCE)
        self._retire(slot)
        limit = schedule.policy.stage_timeout
        return Failed(key, "timeout", f"the stage took longer than the {limit:g} s of --stage-timeout; allow it more")


def _await(slots: Sequence[_Slot], seconds: float) -> None:
    """Wait until workers are gone, but no longer than so many seconds."""
    until = time.monotonic() + seconds
    # Asked for, not waited for: what multiprocessing would wait for is held open by any process that a worker started.
    while any(slot.process.exitcode is None for slot in slots) and time.monotonic() < until:
        time.sleep(_WAIT_S)


def _kill(slots: Sequence[_Slot]) -> None:
    """End workers that are still there, and all that they started, and forget them."""
    left = [slot for slot in slots if slot.process.exitcode is None]
    for slot in left:
        _tell(slot, keeper.AT_ONCE)
    _await(left, _END_S)
    for slot in left:
        if slot.process.exitcode is None:  # its keeper itself was stopped: what it started shares its session's group
            with suppress(OSError, AttributeError):
                if os.getpgid(slot.process.pid or 0) == slot.process.pid:
                    os.killpg(slot.process.pid, signal.SIGKILL)
            slot.process.kill()
    _await(left, _END_S)
    for slot in slots:
        slot.report.close()


def _tell(slot: _Slot, number: signal.Signals) -> None:
    if slot.process.exitcode is None and slot.process.pid is not None:
        with suppress(OSError):
            os.kill(slot.process.pid, number)


@contextmanager
def _deaf() -> Iterator[None]:
    """Let a process started inside hear no Ctrl-C, which is meant for the run; this one hears it afterwards.

    The new process ignores interrupts itself, but takes a while to get so far. A SIGTERM waits, too: between
    its start and our knowing it, a process would be forgotten.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which the first process starts on its way, and then hears interrupts again
    # Blocked signals stay blocked in the child until it decides for itself.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_ORPHAN = """
import os, pickle, time
from multiprocessing.spawn import spawn_main
try:
    spawn_main{arguments}
except (EOFError, pickle.UnpicklingError):
    for _ in range(3000):
        if os.getppid() != {parent}:
            os._exit(1)
        time.sleep(0.01)
    raise
"""
"""What a new process runs. Its parent may be killed before it has told what to do: then there is nobody to do it for.

The end of a pipe may be seen before the parent's own end is, on a busy machine by seconds. With a living parent the
error is a real one.
"""


@contextmanager
def _silent_orphans() -> Iterator[None]:
    """Let a process started inside end without a word if this one dies before it has said what to do.

    Otherwise multiprocessing would print a traceback to the stderr of a run that is no more.
    """
    made = spawn.get_command_line

    def quiet(**given: int) -> list[str]:
        arguments = f"({', '.join(f'{name}={value}' for name, value in given.items())})"
        code = _ORPHAN.format(arguments=arguments, parent=os.getpid())
        # The name of the interpreter is bytes, whatever the annotation says.
        return [code if isinstance(part, str) and "spawn_main" in part else part for part in made(**given)]

    spawn.get_command_line = quiet  # there is no other way to it; any process started so runs as before
    try:
        yield
    finally:
        spawn.get_command_line = made


@contextmanager
def _without_script(job: Job) -> Iterator[None]:
    """Let a process started inside not run the caller's script again, which may call `run` without a guard.

    A new process imports `__main__` for what is defined there. Where a plugin is, it has to.
    """
    masking = job.stage.masking
    parts = (job.task, job.backend, *(() if masking is None else (masking.pattern,)))
    updates = [*(job.stage.epoch.updates if job.stage.epoch else ()), *([job.stage.update] if job.stage.update else [])]
    if any(type(part).__module__ == "__main__" for part in (*parts, *(update.score for update in updates))):
        yield
        return
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")  # without a file or a spec there is nothing to import
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let a process started inside have this many numeric threads: libraries read it when they are first imported."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update({name: str(count) for name in _THREAD_VARIABLES})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
