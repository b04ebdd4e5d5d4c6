"""The Ray executor: the same stages, in the same worker processes, on the machines of a Ray cluster.

An actor is a slot on some node. It keeps one worker process, run by the local executor there, so that statuses, time
limits, logs and numbers are those of a run on one machine; Ray places it, and tells when it or its node is gone. A
stage whose actor is lost runs again elsewhere: it writes nothing but the shared store, so that is always allowed.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import floor
from pathlib import Path
from typing import Any

from harness import _supervisor
from harness.api import HarnessError, PluginUnavailableError, SpecError
from harness.execution.graph import Policy, Schedule
from harness.execution.ray_node import Station, code_of, finished, unseen
from harness.execution.worker import Done, Failed, Job, Message, Progress

_LOOK_S = 1.0
"""How often the cluster is looked at while no message comes: nodes join, and nodes are lost."""


class RayExecutor:
    """Runs stages on a Ray cluster, one worker process per actor.

    Args:
        address: of the cluster (`auto`, or HOST:PORT of its head); `local` starts one on this machine alone, and None
            does so where RAY_ADDRESS and this machine name no cluster.
        workers: how many actors; None for as many as the cluster holds, counted anew as nodes come and go. With a
            number the actors that find no room wait for it, which makes a cluster grow that scales itself.
        devices: as of the local executor; as many as name one GPU share it, and Ray chooses which GPU it is.
        retries: how often a stage is run again after its actor or node was lost.

    Raises:
        PluginUnavailableError: Ray is not installed.
    """

    def __init__(
        self, address: str | None = None, *, workers: int | None = None, devices: Sequence[str] = (), retries: int = 3
    ) -> None:
        if find_spec("ray") is None:
            raise PluginUnavailableError("ray: Ray is not installed; run `pip install sparsity-harness[ray]`")
        self._address, self._workers, self._retries = address, workers, retries
        self._devices = tuple(devices)
        self._slots: list[_Slot] = []
        self._lost: list[Job] = []
        self.losses: Counter[str] = Counter()
        """How often each stage lost its actor or node."""

    def run(self, schedule: Schedule) -> None:
        """Run everything that the schedule hands out; the actors end with it.

        Raises:
            HarnessError: the cluster cannot be reached; SpecError: no node of it can hold a stage.
        """
        if schedule.is_over:
            return  # nothing to run needs no cluster
        jobs = schedule.graph.jobs.values()
        with _told(next((job.log.with_name("ray.log") for job in jobs if job.log is not None), None)):
            try:
                self._connect()
                self._work(schedule, _demand(jobs, self._devices))
            except KeyboardInterrupt:
                _supervisor.taken()
                raise
            finally:
                self.close()

    def _work(self, schedule: Schedule, demand: "_Demand") -> None:
        # With --workers it is waited for, as an autoscaler may bring the node.
        if self._workers is None and not self._places(demand):
            raise SpecError(
                f"ray: a stage needs {demand} on one node, and no node of the cluster has that "
                f"({_sizes()}); change `threads` or `device`, or name --workers to wait for such nodes"
            )
        while not schedule.is_over:
            self._dispatch(schedule, demand)
            for message in self._messages(schedule):
                schedule.tell(message)

    def close(self) -> None:
        """End every actor and leave the cluster; a worker process dies with its actor."""
        import ray

        for slot in self._slots:
            _end(slot)
        self._slots, self._lost = [], []
        ray.shutdown()

    def _connect(self) -> None:
        # Ray sends usage statistics to its makers unless told otherwise; whoever wants that sets the variable.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's own later behaviour, which it otherwise announces with a warning in every run.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Every error becomes the status of a stage; one that nobody waits for any more needs no traceback.
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
        _leave_uv_alone()
        import ray

        try:
            _knock(self._address)  # Ray itself takes more than a minute to say that nobody is there
            with _own_signals():
                ray.init(self._address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise HarnessError(
                f"ray: no cluster answers at {self._address or 'the default address'} "
                f"({str(error).splitlines()[0]}); start one with `ray start --head`, or name another --address"
            ) from None

    def _places(self, demand: "_Demand") -> int:
        """How many actors there may be at present."""
        return self._workers or sum(demand.times_in(resources) for resources in _nodes())

    def _dispatch(self, schedule: Schedule, demand: "_Demand") -> None:
        places = self._places(demand)
        for slot in [slot for slot in self._slots if slot.running is None]:
            # Lost jobs first: others wait for what they were about to make.
            job = self._lost_job(slot.backend) or (self._take_back(slot.backend) if len(self._slots) > places else None)
            job = job or schedule.next(slot.backend, slot.stands_at) or self._take_back(slot.backend)
            if job is not None:
                slot.begin(job, schedule.policy)
            elif any(not other.is_placed for other in self._slots):
                self._forget(slot)  # it takes the room that another backend waits for
        while sum(slot.running is not None for slot in self._slots) < places:
            job = self._lost_job() or schedule.next()
            if job is None:
                return
            idle = [slot for slot in self._slots if slot.running is None]
            fitting = next((slot for slot in idle if slot.backend == job.backend.name), None)
            if fitting is None and idle and len(self._slots) >= places:
                self._forget(idle[0])  # one framework per process, as everywhere
            slot = fitting or self._start(job, demand)
            slot.begin(job, schedule.policy)

    def _lost_job(self, backend: str | None = None) -> Job | None:
        """A job whose actor is gone."""
        found = next((job for job in self._lost if backend in (None, job.backend.name)), None)
        if found is not None:
            self._lost.remove(found)
        return found

    def _take_back(self, backend: str) -> Job | None:
        """A job whose actor found no room so far: nodes that are gone are known to be so a little late."""
        waiting = next((slot for slot in self._slots if not slot.is_placed and slot.backend == backend), None)
        if waiting is None:
            return None
        self._forget(waiting)
        return waiting.running

    def _start(self, job: Job, demand: "_Demand") -> "_Slot":
        import ray

        settings = {name: value for name, value in os.environ.items() if name.startswith("HARNESS_")}
        # Ray shows an actor its own GPU and no other, so that this is the first one it sees.
        devices = ("cuda:0",) if demand.gpus else ()
        actor = ray.remote(num_cpus=demand.cpus, num_gpus=demand.gpus, max_restarts=0)(Station).remote(
            settings, devices, Path.cwd()
        )
        slot = _Slot(job.backend.name, actor)
        self._slots.append(slot)
        return slot

    def _messages(self, schedule: Schedule) -> Iterator[Message]:
        import ray

        streams = {slot.stream: slot for slot in self._slots if slot.stream is not None}
        timeout = _LOOK_S if schedule.look_again_s is None else min(_LOOK_S, schedule.look_again_s)
        if not streams:
            time.sleep(timeout)  # all that runs is lost and waits for a node, or another run computes it
            return
        ready, _ = ray.wait(list(streams), timeout=timeout)
        for stream in ready:
            slot = streams[stream]
            message = self._receive(slot)
            if message is not None:
                slot.note(message)
                yield message

    def _receive(self, slot: "_Slot") -> Message | None:
        """The next message of an actor; None if it is lost and its stage is going to run elsewhere."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        assert slot.running is not None
        job = slot.running
        try:
            message: Message = ray.get(next(slot.stream))
        except RayTaskError as error:
            self._forget(slot)
            return Failed(job.stage.key, "failed", _not_taken(error.cause or error))
        except (RayError, StopIteration) as error:
            self._forget(slot)
            if getattr(error, "actor_init_failed", False):
                return Failed(job.stage.key, "failed", _not_taken(error))
            # An actor whose start failed would fail anywhere; a lost one need not.
            return self._after_loss(job, error)
        return _unless_unseen(message, job) if isinstance(message, Done) else message

    def _forget(self, slot: "_Slot") -> None:
        self._slots.remove(slot)
        _end(slot)

    def _after_loss(self, job: Job, error: Exception) -> Message | None:
        key = job.stage.key
        # Its last message may have been lost, not its work.
        found = finished(job)
        if found is not None:
            return found
        self.losses[key] += 1
        if self.losses[key] <= self._retries:
            self._lost.append(job)
            return None
        is_memory = "low on memory" in str(error)
        what = "ended by Ray for lack of memory on its node" if is_memory else "lost, or its node was"
        return Failed(
            key,
            "oom" if is_memory else "killed",
            f"ray: the actor of the stage was {what}, {self.losses[key]} times; run it again, or with fewer --workers",
        )


@dataclass
class _Slot:
    """An actor and what it is doing.

    Args:
        backend: name of the one that its worker has loaded.
        actor: the handle.
        stream: its messages about the stage under way.
        running: the job under way; stands_at: key of the stage whose state is loaded.
        is_placed: whether it was heard of: until then it may still wait for room on a node.
    """

    backend: str
    actor: Any
    stream: Any = None
    running: Job | None = None
    stands_at: str | None = None
    is_placed: bool = False

    def begin(self, job: Job, policy: Policy) -> None:
        """Send a job; the actor begins when it is there."""
        folders = {"store": job.store, "data_dir": job.data_dir, "log": job.log}
        # A node may lack this folder, and then its actors work in another.
        there = replace(job, **{name: path and path.absolute() for name, path in folders.items()})  # type: ignore[arg-type]
        self.running = job
        stream = self.actor.run.options(num_returns="streaming")
        self.stream = stream.remote(there, code_of(job), policy.stage_timeout)

    def note(self, message: Message) -> None:
        """Remember where the actor stands after a message."""
        self.is_placed = True
        if isinstance(message, Progress):
            return
        self.running, self.stream, self.stands_at = None, None, None
        if isinstance(message, Done):
            is_test = message.record.kind == "test"
            self.stands_at = message.record.parent if is_test else message.record.key


@dataclass(frozen=True)
class _Demand:
    """What an actor takes of a node: CPUs, and GPUs or a part of one."""

    cpus: int
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus} CPUs and {self.gpus:g} GPUs" if self.gpus else f"{self.cpus} CPUs"

    def times_in(self, resources: Mapping[str, float]) -> int:
        """How often it fits into a node."""
        cpus = floor(resources.get("CPU", 0) / self.cpus)
        # A part of a GPU lies on one GPU: two halves of different ones are no GPU.
        gpus = floor(resources.get("GPU", 0)) * floor(1 / self.gpus) if self.gpus else cpus
        return min(cpus, gpus)


def _knock(address: str | None) -> None:
    """Connect to HOST:PORT once; OSError or ValueError where that fails. Other addresses are Ray's to resolve."""
    host, colon, port = (address or "").rpartition(":")
    if colon and "://" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _leave_uv_alone() -> None:
    """Let nodes run what is installed on them, unless the user asked Ray for something else.

    Under `uv run` Ray would copy the working folder to every node, install it there anew, and run actors in a copy that
    it deletes once it thinks that nobody needs it.
    """
    variable = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
    if variable in os.environ:
        return
    os.environ[variable] = "0"
    constants = sys.modules.get("ray._private.ray_constants")
    if hasattr(constants, variable):  # a script has imported Ray already, which read the variable then
        setattr(constants, variable, False)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM over; what it means for a run is the command line's to say."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _told(log: Path | None) -> Iterator[None]:
    """Let a file take what Ray prints to stdout about its cluster: that place is for results."""
    if log is None:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("a", buffering=1, encoding="utf-8") as file, redirect_stdout(file):
            yield
    finally:
        # An empty file would look as though Ray had something to say.
        if log.stat().st_size == 0:
            log.unlink()


def _demand(jobs: Iterable[Job], devices: Sequence[str]) -> _Demand:
    """What the largest stage takes: one kind of actor serves a whole run."""
    settings = [job.settings for job in jobs]
    places = devices or [each.device for each in settings]
    on_gpu = any(place.startswith("cuda") for place in places)
    # Devices named several times are shared by as many actors.
    sharing = max(Counter(devices).values(), default=1)
    return _Demand(max((each.threads for each in settings), default=1), 1 / sharing if on_gpu else 0)


def _nodes() -> list[dict[str, float]]:
    """The resources of every node that is alive."""
    from ray import nodes

    return [node["Resources"] for node in nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _sizes() -> str:
    sizes = sorted({(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in _nodes()}, reverse=True)
    return ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in sizes)


def _not_taken(error: Exception) -> str:
    reason = str(error).strip().splitlines()[-1]
    return f"ray: a node cannot take the stage ({reason}); install on every node what is installed here"


def _end(slot: "_Slot") -> None:
    import ray
    from ray.exceptions import RayError

    with suppress(RayError):  # it may be gone
        ray.kill(slot.actor)


def _unless_unseen(done: Done, job: Job) -> Message:
    """A result, unless it lies in another folder of the same name on some node."""
    if not unseen(job.store, [job.stage.key]):
        return done
    return Failed(
        job.stage.key,
        "failed",
        f"ray: the stage was run on a node whose {job.store.absolute()} is not the store of "
        "this machine; put the store on a file system that all nodes share",
    )
