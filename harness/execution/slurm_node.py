"""What runs inside a Slurm job: a chain of stages in one worker process, told of in a file that the run reads.

Nothing is computed by the job itself: its worker is that of a run on one machine, so that statuses, time limits, logs
and numbers are the same.
"""

import json
import os
import pickle
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import user_files  # noqa: F401  # what is unpickled may lie in a user's folder: it knows the way there
from harness.execution.graph import Graph, Policy, Schedule
from harness.execution.local import LocalExecutor
from harness.execution.ray_node import why_not_here, why_other
from harness.execution.worker import Begun, Done, Failed, Job, Message
from harness.store import Store

_STEPS_EVERY_S = 2.0
"""How often the steps of a stage are told, over a file system that others need, too."""


@dataclass(frozen=True)
class Chain:
    """The callable of a job.

    Args:
        jobs: its stages, every parent before its children, pickled: their classes are found once this module is there.
        code: digests of the code that each was planned with, by key and by what it is the code of.
        messages: the file that it appends to.
        settings: variables of the environment that the harness reads, as where the run was started.
        devices: where the worker computes; empty: where the stages say.
        stage_timeout: seconds that a stage may take, or None.
    """

    jobs: bytes
    code: Mapping[str, Mapping[str, str]]
    messages: Path
    settings: Mapping[str, str]
    devices: tuple[str, ...] = ()
    stage_timeout: float | None = None

    def __call__(self) -> None:
        """Run the stages one after another, as far as they succeed."""
        os.environ.update(self.settings)
        jobs: tuple[Job, ...] = pickle.loads(self.jobs)
        told = _Told(self.messages)
        wrong = why_not_here(jobs[0], self.code[jobs[0].stage.key])
        # All of them before anything runs: a chain that has to stop halfway has cost the queue for nothing.
        others = (why_other(job, self.code[job.stage.key]) for job in jobs[1:])
        wrong = wrong or next((found for found in others if found), None)
        if wrong is not None:
            told.tell(Failed(jobs[0].stage.key, "failed", f"slurm: node {socket.gethostname()} {wrong}"))
            return
        graph = Graph({job.stage.key: job for job in jobs})
        policy = Policy(stage_timeout=self.stage_timeout)
        schedule = Schedule(graph, Store(jobs[0].store), policy=policy, on_message=told.tell)
        LocalExecutor(1, self.devices).run(schedule)


class _Told:
    """Appends messages to a file, a line each."""

    def __init__(self, file: Path) -> None:
        self._file, self._next_steps = file, 0.0

    def tell(self, message: Message) -> None:
        """Append a message; steps now and then."""
        if isinstance(message, Done):
            line: dict[str, object] = {"done": message.record.key}
        elif isinstance(message, Failed):
            line = {"failed": asdict(message)}
        elif isinstance(message, Begun):
            line = {"begun": message.key, "worker": message.worker}
        elif time.monotonic() < self._next_steps:
            return
        else:
            self._next_steps = time.monotonic() + _STEPS_EVERY_S
            line = {"at": message.key, "step": message.step, "steps": message.steps}
        with self._file.open("ab") as file:
            file.write((json.dumps(line) + "\n").encode())
            file.flush()
            # To the disk at once: the run reads it over another machine's cache.
            os.fsync(file.fileno())


def read_messages(file: Path, start: int) -> tuple[list[dict[str, object]], int]:
    """What was told from a place in the file on, and the place behind it; a line without an end is not there yet."""
    try:
        # Up to the last whole line: the writer may be in the middle of one.
        with file.open("rb") as opened:
            opened.seek(start)
            whole, newline, _ = opened.read().rpartition(b"\n")
    except FileNotFoundError:
        return [], start
    lines = whole.split(b"\n") if newline else []
    return [json.loads(line) for line in lines if line], start + len(whole) + len(newline)
