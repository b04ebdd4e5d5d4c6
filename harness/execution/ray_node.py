"""What runs on a node of a Ray cluster: an actor with one worker process, which first sees whether it may.

A node may have other versions, other code, or another folder under the store's name: a stage run there would not be
the one that was planned.
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue

from harness import DISTRIBUTION
from harness.discovery.asking import versions_of
from harness.execution.graph import Graph, Policy, Schedule, needed
from harness.execution.local import LocalExecutor
from harness.execution.worker import Done, Failed, Job, Message
from harness.planning import code_digest
from harness.store import Store

_SEEN_WITHIN_S = 60.0
"""How late a network file system may show what another machine has written; NFS keeps directories for up to 60 s."""


class Station:
    """What runs on a node: an actor with one worker process.

    Args:
        settings: variables of the environment that the harness reads (HARNESS_...), as where the run was started.
        devices: where the worker computes; empty: where the jobs say.
        folder: where the run was started; the actor works there if its node has it, as a worker on one machine does.
    """

    def __init__(self, settings: Mapping[str, str], devices: Sequence[str], folder: Path) -> None:
        import __main__

        os.environ.update(settings)
        _work_in(folder)
        # A spawned process runs its parent's main file first; Ray's would import Ray beside the framework.
        vars(__main__).pop("__file__", None)
        self._executor = _Keeping(1, devices)
        # One thread for all stages: the worker process ends with the thread that has started it.
        self._thread = ThreadPoolExecutor(1)

    def run(self, job: Job, code: Mapping[str, str], stage_timeout: float | None) -> Iterator[Message]:
        """Run one stage, handing out its messages; the last one is its result.

        Args:
            job: the stage.
            code: digests of the code that it was planned with, by what it is the code of.
            stage_timeout: seconds that it may take, or None.
        """
        # Seen anew for every stage: code may be edited, and the store unmounted, while a run goes on.
        wrong = why_not_here(job, code)
        if wrong is not None:
            yield Failed(job.stage.key, "failed", f"ray: node {socket.gethostname()} {wrong}")
            return
        messages: SimpleQueue[Message | None] = SimpleQueue()
        # One stage as a plan of its own, so that failures and limits are those of any run.
        graph = Graph({job.stage.key: job})
        schedule = Schedule(
            graph, Store(job.store), policy=Policy(stage_timeout=stage_timeout), on_message=messages.put
        )
        running = self._thread.submit(self._executor.run, schedule)
        running.add_done_callback(lambda _: messages.put(None))
        while (message := messages.get()) is not None:  # Ray sends values into generators: no `yield from` an iterator
            yield message
        # Raises what went wrong in the thread: silence would look like an end.
        running.result()


def _work_in(folder: Path) -> None:
    """Make a folder the working one; the root where this node lacks it: Ray may delete the folder it began in."""
    try:
        os.chdir(folder)
    except OSError:
        os.chdir("/")


class _Keeping(LocalExecutor):
    """A local executor whose worker stays for the next stage; it ends with the actor."""

    def close(self) -> None:
        """Keep the worker."""


def code_of(job: Job) -> dict[str, str]:
    """Digests of the code, on this machine, that decides the result of a stage."""
    # Of all that decides a result, as keys have it; where a digest differs, the node would make another stage.
    parts = [*code_digest.parts(job.task), *code_digest.parts(job.backend), code_digest.stages()]
    if job.stage.masking is not None:
        parts += [*code_digest.parts(job.stage.masking.pattern), code_digest.masks()]
    return {part.place: part.digest for part in parts}


def why_not_here(job: Job, code: Mapping[str, str]) -> str | None:
    """What is wrong with this node, in words: a stage run here would not be the one that was planned."""
    if (different := why_other(job, code)) is not None:
        return different
    missing = unseen(job.store, needed(job))
    if missing:
        return f"does not see stage {missing[0]} in {job.store}; check that all nodes share this folder"
    return None


def why_other(job: Job, code: Mapping[str, str]) -> str | None:
    """What is other on this node than where the stage was planned: the store, versions, or code."""
    if not (job.store / "format").is_file():
        return f"does not see the store {job.store}; put it on a file system that all nodes share"
    here = {"harness": version(DISTRIBUTION), **versions_of(job.backend)}
    planned = job.environment.get("versions", {})
    assert isinstance(planned, dict)
    different = [
        f"{name} {here.get(name, 'missing')} instead of {planned.get(name)}"
        for name in planned
        if here.get(name) != planned[name]
    ]
    if different:
        return f"has {', '.join(different)}; install the same versions on every node"
    edited = [place for place, digest in code_of(job).items() if code.get(place) != digest]
    if edited:
        return f"has other code of the {' and the '.join(edited)}; install the same on every node"
    return None


def unseen(folder: Path, keys: Sequence[str]) -> list[str]:
    """The stages that this machine does not see, even after the time that a network file system may take."""
    store, until = Store(folder), time.monotonic() + _SEEN_WITHIN_S
    missing = [key for key in keys if not store.has_stage(key)]
    while missing and time.monotonic() < until:
        time.sleep(0.2)
        missing = [key for key in missing if not store.has_stage(key)]
    return missing


def finished(job: Job) -> Done | None:
    """The stage as somebody who was lost had finished it; None if it is not there."""
    store, stage = Store(job.store), job.stage
    if not store.has_stage(stage.key) or (stage.kind != "test" and not store.has_state(stage.key)):
        return None
    record = store.read(stage.key)
    return None if record is None else Done(record)
