"""The Slurm executor: chains of stages as jobs of a cluster that submitit submits.

A job is one worker with one chain: it begins with a stage that is ready and goes on with what hangs on it, without
reading a state back. Where a chain forks, the other ways are jobs of their own. A job that ends before its chain is
done, by its time limit or with its node, is submitted again for the rest: every stage that it stored is kept.
"""

import os
import pickle
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from harness import _supervisor
from harness.api import HarnessError, PluginUnavailableError, SpecError
from harness.execution.graph import Schedule
from harness.execution.ray_node import code_of, finished, unseen
from harness.execution.slurm_node import Chain, read_messages
from harness.execution.worker import Begun, Done, Failed, Job, Message, Progress
from harness.results.records import Status
from harness.store import Store

JOBS = 16
"""Jobs at once, where nobody says how many."""

MINUTES = 60
"""Of a job, where nobody says how many."""

_OURS = frozenset(
    (
        "additional_parameters", "array_parallelism", "dependency", "job_name", "nodes", "ntasks_per_node", "num_gpus",
        "srun_args", "stderr_to_stdout", "teardown", "use_srun",
    )
)  # fmt: skip
"""Parameters of submitit's that would make other jobs of ours: a chain is one task on one node."""

_LOOK_S = 1.0
"""How often the files of messages are looked at."""

_END_S = 120.0
"""How long it is waited, at the end, for jobs that have nothing to do any more."""

_WAIT_S = 0.1

_ASK_S = 60.0
"""How often Slurm itself is asked how jobs stand; one that ends by itself says so in a file, at once."""


class Submitted(Protocol):
    """A job of submitit's, as far as it is used."""

    job_id: str

    @property
    def state(self) -> str:
        """What the cluster calls how it stands."""

    def done(self, force_check: bool = False) -> bool:
        """Whether it has ended, however it did."""

    def cancel(self) -> Any:
        """End it."""


class Cluster(Protocol):
    """An executor of submitit's, as far as it is used."""

    def submit(self, fn: Chain) -> Submitted:
        """Let a chain be run."""


class SlurmExecutor:
    """Runs chains of stages as jobs of a Slurm cluster.

    Args:
        parameters: of the jobs, as `sbatch` calls them (`partition`, `time` in minutes, `mem`, `account`, ...).
        jobs: how many there are at once, at most.
        retries: how often a chain is submitted again though no stage of it was finished meanwhile.
        cluster: `slurm`, or `local` for processes of this machine, to try it.

    Raises:
        PluginUnavailableError: submitit is not installed; SpecError: a parameter is unknown.
    """

    def __init__(
        self,
        parameters: Mapping[str, str] | None = None,
        *,
        jobs: int = JOBS,
        retries: int = 3,
        cluster: str = "slurm",
    ) -> None:
        if find_spec("submitit") is None:
            raise PluginUnavailableError("slurm: submitit is not installed; run `pip install sparsity-harness[slurm]`")
        self._parameters = _checked(parameters or {})
        self._jobs, self._retries, self._cluster = jobs, retries, cluster
        self._running: list[_Running] = []
        self._folder: Path | None = None
        self._count = 0
        self.losses: Counter[str] = Counter()
        """How often each stage was the first that a job left undone."""

    def run(self, schedule: Schedule) -> None:
        """Run everything that the schedule hands out; jobs that are left end with it.

        Raises:
            HarnessError: jobs cannot be submitted.
        """
        if schedule.is_over:
            return  # nothing to run needs no cluster
        try:
            cluster = self._connect(schedule)
            while not schedule.is_over:
                self._dispatch(schedule, cluster)
                heard = [message for running in list(self._running) for message in self._messages(running, schedule)]
                if not heard:
                    time.sleep(_LOOK_S)
        except KeyboardInterrupt:
            _supervisor.taken()
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Cancel every job; what it had stored is kept."""
        running, self._running = self._running, []
        until = time.monotonic() + _END_S
        for each in running:
            # One that has told its last word ends by itself.
            while not each.left and not each.job.done() and time.monotonic() < until:
                time.sleep(_WAIT_S)
            if not each.job.done():
                with suppress(OSError, RuntimeError):
                    each.job.cancel()
        if self._folder is not None and not self.losses and not any(each.left for each in running):
            shutil.rmtree(self._folder, ignore_errors=True)  # else submitit's logs say what was wrong
            with suppress(OSError):  # another run is at work in it
                self._folder.parent.rmdir()

    def _connect(self, schedule: Schedule) -> Cluster:
        first = next(iter(schedule.graph.jobs.values()))
        above = (first.log.parent.parent if first.log is not None else first.store).absolute() / "slurm"
        above.mkdir(parents=True, exist_ok=True)
        # A folder of its own: another run of the same experiment may be at work.
        self._folder = Path(tempfile.mkdtemp(prefix="run-", dir=above))
        demand = [job.settings for job in schedule.graph.jobs.values()]
        needs: dict[str, Any] = {"cpus_per_task": max(each.threads for each in demand), "name": "harness"}
        self._has_gpu = any(each.device.startswith("cuda") for each in demand)
        if self._has_gpu and not {"gres", "gpus_per_task"} & self._parameters.keys():
            needs["gpus_per_node"] = 1
        return connect(self._folder, self._cluster, needs, self._parameters)

    def _dispatch(self, schedule: Schedule, cluster: Cluster) -> None:
        while len(self._running) < self._jobs:
            job = schedule.next()
            if job is None:
                return
            key = job.stage.key
            # Another run had its parent, which has turned up in the store while one of our jobs came to it, too.
            owner = next((running for running in self._running if key in running.left), None)
            # Taken by its owner, not submitted twice: the job that has it comes to it anyway.
            if owner is not None:
                owner.taken.add(key)
                continue
            # What follows goes into the same job: its model is loaded, and waiting in the queue costs more than a
            # stage.
            keys = (key, *schedule.following(key))
            self._submit(schedule, cluster, keys, {key})

    def _submit(self, schedule: Schedule, cluster: Cluster, keys: Sequence[str], taken: set[str]) -> None:
        assert self._folder is not None
        self._count += 1
        jobs = tuple(_absolute(schedule.graph.jobs[key]) for key in keys)
        messages = self._folder / f"chain-{self._count}.jsonl"
        chain = Chain(
            pickle.dumps(jobs),
            {job.stage.key: code_of(job) for job in jobs},
            messages,
            # What a user has set for the harness holds on the node, too; other variables are the node's own.
            {name: value for name, value in os.environ.items() if name.startswith("HARNESS_")},
            ("cuda:0",) if self._has_gpu else (),  # Slurm shows a job its own GPU and no other
            schedule.policy.stage_timeout,
        )
        try:
            job = cluster.submit(chain)
        except Exception as error:  # whatever submitit and sbatch come to
            raise HarnessError(f"slurm: a job cannot be submitted ({_last_line(error)}); see --slurm") from error
        self._running.append(_Running(job, messages, list(keys), taken, cluster))

    def _messages(self, running: "_Running", schedule: Schedule) -> Iterator[Message]:
        """What a job has told since, told on to the schedule; its end is looked for first, or words would be missed."""
        has_ended = running.has_ended()
        for line in running.read():
            message = self._message(line, running, schedule)
            if message is not None:
                self._tell(message, running, schedule)
                yield message
        if has_ended:
            self._running.remove(running)
            yield from self._ended(running, schedule)

    def _message(self, line: Mapping[str, Any], running: "_Running", schedule: Schedule) -> Message | None:
        if "begun" in line:
            return Begun(str(line["begun"]), 0, 0, str(line.get("worker", "")))
        if "at" in line:
            return Progress(str(line["at"]), int(line["step"]), int(line["steps"]))
        if "failed" in line:
            return Failed(**line["failed"])
        return self._done(str(line["done"]), schedule.graph.jobs[str(line["done"])])

    def _done(self, key: str, job: Job) -> Message:
        """A stage that a job says it has stored, unless that was in another folder of the same name."""
        record = None if unseen(job.store, [key]) else Store(job.store).read(key)
        if record is not None:
            return Done(record)
        return Failed(
            key, "failed", f"slurm: the stage was run on a node whose {job.store.absolute()} is not the store of this "
            "machine; put the store on a file system that all nodes share",
        )  # fmt: skip

    def _tell(self, message: Message, running: "_Running", schedule: Schedule) -> None:
        """Tell the schedule, and take on what the job goes on with by itself."""
        key = message.record.key if isinstance(message, Done) else message.key
        if isinstance(message, Progress):
            if key in running.taken:
                schedule.tell(message)
            return
        # In the order in which the job does them, so that what is left can be submitted again.
        running.left.remove(key)
        # What another run holds was not ours to run: the schedule finds it in the store.
        if key in running.taken:
            running.taken.discard(key)
            schedule.tell(message)
        if isinstance(message, Failed):
            behind = _behind(key, schedule, running.left)
            running.left = [each for each in running.left if each not in behind]
        new = [each for each in running.left if each not in running.taken]
        running.taken |= {each for each in new if schedule.take(each, is_under_way=True)}

    def _ended(self, running: "_Running", schedule: Schedule) -> Iterator[Message]:
        """What becomes of a chain whose job has ended before it: the rest is submitted again, or has failed."""
        for key in list(running.left):
            # Its last words may not have crossed the network file system yet.
            if key in running.taken and (done := finished(schedule.graph.jobs[key])) is not None:
                self._tell(done, running, schedule)
                yield done
        ours = [key for key in running.left if key in running.taken]
        if not ours:
            return  # what is left is not ours to run: the schedule hands it out when it can
        self.losses[ours[0]] += 1
        # Only what is left: what it had stored stays.
        if self.losses[ours[0]] <= self._retries:
            self._submit(schedule, running.cluster, running.left, running.taken)
            return
        state = running.job.state
        for key in ours:  # several where a score and the next epoch were both to come
            lost = Failed(
                key, _status(state),
                f"slurm: {self.losses[ours[0]]} jobs ended before the stage was done, the last one, "
                f"{running.job.job_id}, as {state}; give it more `time` or `mem` with --slurm, or see "
                f"{running.messages.parent}",
            )  # fmt: skip
            schedule.tell(lost)
            yield lost


@dataclass
class _Running:
    """A job and how far it is.

    Args:
        job: of submitit's; messages: the file that it tells in.
        left: keys of its stages that have no end yet, in their order; taken: those of them that the schedule counts as
            running.
        read_to: how far the file was read; asked: when the cluster was asked last.
    """

    job: Submitted
    messages: Path
    left: list[str]
    taken: set[str]
    cluster: Cluster
    read_to: int = 0
    asked: float = field(default_factory=time.monotonic)

    def has_ended(self) -> bool:
        """Whether its job has: asked of the cluster now and then, of a file at once."""
        is_due = time.monotonic() - self.asked >= _ASK_S
        if is_due:
            self.asked = time.monotonic()
        # Asking the cluster burdens a scheduler that all users share.
        return self.job.done(force_check=is_due)

    def read(self) -> list[dict[str, object]]:
        """What it has told since."""
        found, self.read_to = read_messages(self.messages, self.read_to)
        return found


def connect(folder: Path, cluster: str, needs: Mapping[str, Any], parameters: Mapping[str, str]) -> Cluster:
    """Submitit's executor for jobs with these needs.

    Raises:
        HarnessError: there is no Slurm here.
    """
    import submitit

    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise HarnessError(
            "slurm: there is no `sbatch` on this machine; start the command on a login node of the cluster, or try it "
            "here with --slurm cluster=local"
        )
    executor: Any = submitit.AutoExecutor(folder=folder / "%j", cluster=cluster)
    given = {name: value for name, value in parameters.items() if name not in ("time", "setup")}
    executor.update_parameters(timeout_min=int(parameters.get("time", MINUTES)), **needs)
    if cluster == "slurm":
        own: dict[str, Any] = {f"slurm_{name}": value for name, value in given.items()}
        if "setup" in parameters:
            own["slurm_setup"] = parameters["setup"].split(";")
        executor.update_parameters(**own)
    found: Cluster = executor
    return found


def _checked(parameters: Mapping[str, str]) -> dict[str, str]:
    """Parameters that submitit knows; numbers where it wants some.

    Raises:
        SpecError: one is unknown, or no number.
    """
    import submitit

    known = {*submitit.SlurmExecutor._valid_parameters(), "time", "mem"} - _OURS
    for name, value in parameters.items():
        if name not in known:
            raise SpecError(f"slurm: expected a parameter of a job, got {name!r}; there are {', '.join(sorted(known))}")
        if name == "time" and not (value.isascii() and value.isdigit() and int(value)):
            raise SpecError(f"slurm: expected `time` in whole minutes, got {value!r}; write e.g. --slurm time=240")
    return dict(parameters)


def _absolute(job: Job) -> Job:
    """A job that means the same in another folder."""
    folders = {"store": job.store, "data_dir": job.data_dir, "log": job.log}
    return replace(job, **{name: path and path.absolute() for name, path in folders.items()})  # type: ignore[arg-type]


def _behind(key: str, schedule: Schedule, keys: Sequence[str]) -> set[str]:
    """Those of some stages that rest on one: none of them will be run."""
    found, pending = set(), [key]
    while pending:
        for child in schedule.graph.children[pending.pop()]:
            if child in keys and child not in found:
                found.add(child)
                pending.append(child)
    return found


def _status(state: str) -> Status:
    """The status of a stage whose job ended so."""
    if state.startswith("TIMEOUT"):
        return "timeout"
    return "oom" if state.startswith("OUT_OF_ME") else "killed"


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
