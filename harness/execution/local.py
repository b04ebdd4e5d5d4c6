"""The local executor: a stage graph, run by worker processes on this machine, one framework per process."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from harness.api import Backend
from harness.execution.worker import Done, Failed, Job, Message, Progress, main
from harness.store import Store

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass
class _Slot:
    """One worker process and what it is doing."""

    backend: Backend
    process: SpawnProcess
    jobs: Connection
    report: Connection
    running: str | None = None
    stands_at: str | None = None


@dataclass
class Graph:
    """What is left to run.

    Args:
        jobs: by stage key, every parent before its children.
        passing: keys of stages whose state is dropped once everything that starts from them has run.
    """

    jobs: Mapping[str, Job]
    passing: frozenset[str] = frozenset()
    waiting: dict[str, int] = field(init=False)
    children: dict[str, list[str]] = field(init=False)
    length: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        """Count what each stage waits for and how long a path hangs on it."""
        self.waiting, self.length = {}, {}
        self.children = {key: [] for key in self.jobs}
        for key, job in self.jobs.items():
            sources = {source for source in needed(job) if source in self.jobs}
            self.waiting[key] = len(sources)
            for source in sources:
                self.children[source].append(key)
        for key in reversed(list(self.jobs)):
            below = max((self.length[child] for child in self.children[key]), default=0)
            self.length[key] = below + (self.jobs[key].stage.kind == "train")


def needed(job: Job) -> tuple[str, ...]:
    """Keys of the stages whose states a job reads."""
    return tuple(key for key in (job.stage.parent, job.stage.source) if key is not None)


class LocalExecutor:
    """Runs a graph in at most `workers` processes; the longest path goes first."""

    def __init__(self, store: Store, workers: int) -> None:
        self._store, self._workers = store, workers
        self._slots: list[_Slot] = []

    def run(self, graph: Graph, on_start: Callable[[str], None], on_message: Callable[[Message], None]) -> None:
        """Run everything that can be run.

        Args:
            graph: the jobs; their other inputs are in the store.
            on_start: called with a stage's key when a worker begins with it.
            on_message: called with every progress, result and failure.
        """
        ready = {key for key, count in graph.waiting.items() if count == 0}
        readers = _readers(graph)
        try:
            while ready or any(slot.running for slot in self._slots):
                self._dispatch(graph, ready, on_start)
                for message in self._messages():
                    if isinstance(message, Done):
                        self._finished(message.record.key, graph, ready, readers)
                    on_message(message)
                    if isinstance(message, Failed) and message.is_fatal:
                        ready.clear()
        finally:
            self.close()

    def close(self) -> None:
        """End every worker."""
        for slot in self._slots:
            slot.jobs.close()
            slot.process.terminate()
        for slot in self._slots:
            _reap(slot.process)
        self._slots = []

    def _dispatch(self, graph: Graph, ready: set[str], on_start: Callable[[str], None]) -> None:
        while ready:
            key = max(ready, key=lambda key: graph.length[key])
            slot = self._free_slot(graph, ready, key)
            if slot is None:
                return
            # A worker goes on with the chain it stands at, where it can: no state has to be read back.
            own = [other for other in ready if self._fits(slot, graph.jobs[other])]
            following = [other for other in own if graph.jobs[other].stage.parent == slot.stands_at]
            key = max(following or own, key=lambda key: graph.length[key])
            # A score of the model that is loaded comes first: a result early, and no state read back for it later.
            key = next((other for other in following if graph.jobs[other].stage.kind == "test"), key)
            ready.remove(key)
            slot.running = key
            slot.jobs.send(graph.jobs[key])
            on_start(key)

    def _fits(self, slot: _Slot, job: Job) -> bool:
        return slot.backend.name == job.backend.name

    def _free_slot(self, graph: Graph, ready: set[str], key: str) -> _Slot | None:
        idle = [slot for slot in self._slots if slot.running is None]
        for slot in idle:
            if any(self._fits(slot, graph.jobs[other]) for other in ready):
                return slot
        if len(self._slots) < self._workers:
            return self._start(graph.jobs[key])
        if idle:  # its framework has nothing to do, another one has: one framework per process
            self._retire(idle[0])
            return self._start(graph.jobs[key])
        return None

    def _start(self, job: Job) -> _Slot:
        context = multiprocessing.get_context("spawn")
        job_reader, job_writer = context.Pipe(duplex=False)
        report_reader, report_writer = context.Pipe(duplex=False)
        process = context.Process(target=main, args=(job_reader, report_writer, os.getpid()), daemon=True)
        with _threads(job.settings.threads):
            process.start()
        job_reader.close()
        report_writer.close()
        slot = _Slot(job.backend, process, job_writer, report_reader)
        self._slots.append(slot)
        return slot

    def _retire(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        slot.jobs.close()
        slot.report.close()
        _reap(slot.process)

    def _messages(self) -> Iterator[Message]:
        by_report = {slot.report: slot for slot in self._slots if slot.running}
        for report in wait(list(by_report)):
            slot = by_report[report]  # type: ignore[index]  # wait returns what it was given
            try:
                message: Message = slot.report.recv()
            except (EOFError, ConnectionResetError):
                message = self._died(slot)
            if not isinstance(message, Progress):
                slot.stands_at = slot.running if isinstance(message, Done) and message.record.kind != "test" else None
                if isinstance(message, Done) and message.record.kind == "test":
                    slot.stands_at = message.record.parent
                slot.running = None
            yield message

    def _died(self, slot: _Slot) -> Failed:
        assert slot.running is not None
        slot.process.join(5)
        code = slot.process.exitcode or 0
        key = slot.running
        self._slots.remove(slot)
        if code == -9:
            return Failed(key, "killed", "the worker process was killed (signal 9), perhaps for memory; run it again")
        if code < 0:
            return Failed(key, "crashed", f"the worker process crashed with signal {-code}; run it again")
        return Failed(key, "crashed", f"the worker process ended with exit code {code} and no result; run it again")

    def _finished(self, key: str, graph: Graph, ready: set[str], readers: dict[str, int]) -> None:
        for child in graph.children[key]:
            graph.waiting[child] -= 1
            if graph.waiting[child] == 0:
                ready.add(child)
        for source in (*needed(graph.jobs[key]), key):
            if source != key:
                readers[source] -= 1
            if readers.get(source, 0) == 0 and source in graph.passing:
                self._store.drop_state(source)


def _reap(process: SpawnProcess) -> None:
    process.join(5)
    if process.is_alive():
        process.kill()
        process.join()


def _readers(graph: Graph) -> dict[str, int]:
    readers: dict[str, int] = {}
    for job in graph.jobs.values():
        for key in needed(job):
            readers[key] = readers.get(key, 0) + 1
    return readers


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
