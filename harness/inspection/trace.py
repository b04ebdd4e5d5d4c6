"""A run's workers and stages as a trace that trace viewers open: the JSON of Chrome's trace events.

A process of the trace is a run on one host, a thread one of its workers; a slice is a stage, and what a worker needed
before it could begin with one. Perfetto (https://ui.perfetto.dev) and `chrome://tracing` read it.

Source:
    "Trace Event Format", Google: complete events (`X`), counters (`C`), names of processes and threads (`M`).
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.api import EmptySelectionError
from harness.inspection.run_status import RunStatus
from harness.store.timeline import FILE, Attempt, attempts

Event = dict[str, Any]

_SHORT_S = 0.01
"""Seconds between the handing out of a stage and its begin that are no slice of their own."""

_UNKNOWN = "worker not heard of"


def trace(runs: Sequence[tuple[Path, RunStatus]]) -> dict[str, Any]:
    """The trace of some runs, each with how it stands.

    Raises:
        EmptySelectionError: none of them has noted when its stages ran, and none runs.
    """
    told = [(status, [*attempts(folder), *_under_way(status)]) for folder, status in runs]
    told = [(status, found) for status, found in told if found]
    if not told:
        raise EmptySelectionError(
            f"status: no run here has a {FILE}, which tells when its stages ran; runs of older versions have none, and "
            "a run that found everything in the store computed nothing"
        )
    start = min(attempt.given for _, found in told for attempt in found)
    events: list[Event] = []
    hosts = 0
    for status, found in told:
        for host, ran in _by_host(found).items():
            hosts += 1
            events += _of_host(hosts, f"{status.run} on {host}" if host else status.run, ran, start)
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"start_unix_s": f"{start:.3f}"}}


def _under_way(status: RunStatus) -> Iterator[Attempt]:
    """The stages of a run that have no end yet, as long as they were seen to run."""
    if status.state in ("running", "died"):
        for each in status.running:
            yield Attempt(
                stage=each.stage, cell=each.cell, label=each.label, given=each.since, begun=each.since,
                ended=max(each.since, status.written), status=status.state,
            )  # fmt: skip


def _by_host(found: Iterable[Attempt]) -> dict[str, list[Attempt]]:
    hosts: dict[str, list[Attempt]] = {}
    for attempt in found:
        hosts.setdefault(attempt.worker.rpartition(" ")[0], []).append(attempt)
    return hosts


def _of_host(process: int, name: str, found: Sequence[Attempt], start: float) -> Iterator[Event]:
    """The slices of one host, and how many stages ran there at once."""
    yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": process, "name": "process_sort_index", "args": {"sort_index": process}}
    workers = {worker: number for number, worker in enumerate(dict.fromkeys(each.worker for each in found), start=1)}
    for worker, number in workers.items():
        process_id = worker.rpartition(" ")[2]
        named = f"worker {number}, process {process_id}" if worker else _UNKNOWN
        yield {"ph": "M", "pid": process, "tid": number, "name": "thread_name", "args": {"name": named}}
        yield {"ph": "M", "pid": process, "tid": number, "name": "thread_sort_index", "args": {"sort_index": number}}
    changes: list[tuple[float, int]] = []
    for each in found:
        begun = max(each.given, each.begun if each.begun is not None else each.given)
        ended = max(begun, each.ended)
        place = {"pid": process, "tid": workers[each.worker]}
        if begun - each.given > _SHORT_S:
            yield {
                "ph": "X",
                "name": "waits for its worker",
                "cat": "start",
                **place,
                **_time(each.given, begun, start),
            }
        yield {
            "ph": "X", "name": each.label or each.stage, "cat": each.kind or "stage", **place,
            **_time(begun, ended, start),
            "args": {"stage": each.stage, "cell": each.cell, "status": each.status, "outcome": each.outcome},
        }  # fmt: skip
        changes += [(begun, 1), (ended, -1)]
    at_once = 0
    for when, change in sorted(changes):
        at_once += change
        yield {
            "ph": "C", "name": "stages at once", "pid": process, "ts": round((when - start) * 1e6, 1),
            "args": {"stages": at_once},
        }  # fmt: skip


def _time(begun: float, ended: float, start: float) -> Event:
    """Place and length of a slice, in microseconds."""
    return {"ts": round((begun - start) * 1e6, 1), "dur": round((ended - begun) * 1e6, 1)}
