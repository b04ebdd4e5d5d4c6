"""A run's workers and stages as a trace that trace viewers open: the JSON of Chrome's trace events.

A process of the trace is a run on one host, a thread one of its workers; a slice is a stage, and what a worker needed
before it could begin with one. Perfetto (https://ui.perfetto.dev) and `chrome://tracing` read it.

Perfetto drops a slice that begins within another of its thread and ends after it, by a nanosecond too: times are whole
microseconds, of which neighbours have the same one, and what overlaps for good (workers not heard of, a clock that was
set back) has threads of its own. It names threads by their number alone, so that no two have the same. The key
`displayTimeUnit` is left out: earlier versions of it took that for the unit of all times.

Source:
    "Trace Event Format", Google: complete events (`X`), counters (`C`), names of processes and threads (`M`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from harness.api import EmptySelectionError
from harness.inspection.run_status import RunStatus
from harness.store.timeline import FILE, Attempt, attempts

Event = dict[str, Any]

_ROUNDED_US = 1000
"""When a stage was handed out is told in milliseconds."""

_SHORT_US = 10_000
"""Microseconds between the handing out of a stage and its begin that are no slice of their own."""

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
    threads, hosts = count(1), count(1)
    for status, found in told:
        for host, ran in _by_host(found).items():
            name = f"{status.run} on {host}" if host else status.run
            events += _of_host(next(hosts), name, ran, start, threads)
    return {"traceEvents": events, "otherData": {"start_unix_s": f"{start:.3f}"}}


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


def _of_host(
    process: int, name: str, found: Sequence[Attempt], start: float, threads: Iterator[int]
) -> Iterator[Event]:
    """The slices of one host, and how many stages ran there at once."""
    yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": process, "name": "process_sort_index", "args": {"sort_index": process}}
    workers = {worker: number for number, worker in enumerate(dict.fromkeys(each.worker for each in found), start=1)}
    lanes: dict[str, list[_Lane]] = {worker: [] for worker in workers}
    changes: list[tuple[int, int]] = []
    slices: list[Event] = []
    for each in sorted(found, key=lambda each: (each.given, each.ended)):
        given, begun = _microseconds(each.given - start), _microseconds(_begun(each) - start)
        ended = max(begun, _microseconds(each.ended - start))
        waits = begun - given > _SHORT_US
        # It may seem to have been handed out before the last one ended, by what its time was rounded.
        lane = _lane(lanes[each.worker], given + _ROUNDED_US if waits else begun)
        if waits:
            slices.append(lane.slice("waits for its worker", "start", max(given, lane.free), begun))
        told = {"stage": each.stage, "cell": each.cell, "status": each.status, "outcome": each.outcome}
        slices.append({**lane.slice(each.label or each.stage, each.kind or "stage", begun, ended), "args": told})
        lane.free = ended
        changes += [(begun, 1), (ended, -1)]
    for worker, number in workers.items():
        named = f"worker {number}, process {worker.rpartition(' ')[2]}" if worker else _UNKNOWN
        for place, lane in enumerate(lanes[worker]):
            lane.thread = next(threads)
            yield from _named(process, lane.thread, named if not place else f"{named}, at the same time")
    # Numbered by now: threads stand in the order of workers, not of what happened to them.
    yield from ({**event, "pid": process, "tid": event["tid"].thread} for event in slices)
    at_once = 0
    for when, change in sorted(changes):
        at_once += change
        yield {"ph": "C", "name": "stages at once", "pid": process, "ts": when, "args": {"stages": at_once}}


@dataclass(eq=False)
class _Lane:
    """A thread of the trace, and when it is free again."""

    free: int = 0
    thread: int = 0

    def slice(self, name: str, category: str, begun: int, ended: int) -> Event:
        """A slice, whose thread is this lane until that has a number."""
        return {"ph": "X", "name": name, "cat": category, "tid": self, "ts": begun, "dur": ended - begun}


def _lane(lanes: list[_Lane], begun: int) -> _Lane:
    """The first of a worker's lanes that is free."""
    lane = next((lane for lane in lanes if lane.free <= begun), None)
    if lane is None:
        lane = _Lane()
        lanes.append(lane)
    return lane


def _named(process: int, thread: int, name: str) -> Iterator[Event]:
    yield {"ph": "M", "pid": process, "tid": thread, "name": "thread_name", "args": {"name": name}}
    yield {"ph": "M", "pid": process, "tid": thread, "name": "thread_sort_index", "args": {"sort_index": thread}}


def _begun(attempt: Attempt) -> float:
    return max(attempt.given, attempt.begun if attempt.begun is not None else attempt.given)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
