"""Tells trackers what happens, each in a thread of its own, so that none of them can hold up or fail a run."""

import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from harness.api import JsonValue, RunInfo, RunState, StageInfo, Tracker
from harness.discovery.guard import blame
from harness.results.records import DONE, FAILED, NOT_COSTED, Record

_PATIENCE_S = 30.0
"""Seconds that a run waits, at its end, for what a tracker still has to write."""


@dataclass
class _Listener:
    """One tracker and its thread.

    Args:
        tracker: who is told.
        note: where to say that it failed.
    """

    tracker: Tracker
    note: Callable[[str], None]
    calls: "queue.SimpleQueue[Callable[[], None] | None]" = field(default_factory=queue.SimpleQueue)
    fault: str = ""

    def __post_init__(self) -> None:
        # A daemon: a tracker that hangs for ever does not keep the process alive.
        self._thread = threading.Thread(target=self._listen, name=f"tracker {self.tracker.name}", daemon=True)
        self._thread.start()

    def tell(self, call: Callable[[], None]) -> None:
        """Have something called, after all that was told before."""
        if not self.fault:
            self.calls.put(call)

    def close(self, patience: float) -> None:
        """Wait until everything was told, but not for ever."""
        self.calls.put(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._fail(f"it has not finished after {patience:g} s; what it had still to write may be missing")

    def _listen(self) -> None:
        # One queue a tracker: a slow one does not delay the others.
        while (call := self.calls.get()) is not None:
            if self.fault:
                continue
            try:
                call()
            # SystemExit too: a tracker that gives up must not end the run.
            except (Exception, SystemExit) as error:
                self._fail(blame(error, [self.tracker]))

    def _fail(self, why: str) -> None:
        self.fault = why
        self.note(f"tracker {self.tracker.name} hears no more of this run: {why}")


class Tracking:
    """What a run tells its trackers.

    Args:
        trackers: who is told.
        note: where to say that one failed.
        patience: seconds to wait for them at the end.
    """

    def __init__(self, trackers: Sequence[Tracker], note: Callable[[str], None], patience: float = _PATIENCE_S) -> None:
        self._listeners = [_Listener(tracker, note) for tracker in trackers]
        self._patience = patience
        self._told: set[str] = set()
        self._run: RunInfo | None = None
        self.state: RunState = "stopped"

    @property
    def faults(self) -> dict[str, str]:
        """Why trackers failed, by name."""
        return {each.tracker.name: each.fault for each in self._listeners if each.fault}

    def run_started(self, run: RunInfo) -> None:
        """See `Tracker`; a run that is planned once more to mend a damaged stage is the same run."""
        if self._run is not None:
            return
        self._run = run
        for each in self._listeners:
            each.tell(partial(each.tracker.run_started, run))

    def stage_started(self, stage: Callable[[], StageInfo]) -> None:
        """See `Tracker`; the stage is only described where somebody listens."""
        self._tell_stage("stage_started", stage)

    def stage_finished(self, stage: Callable[[], StageInfo]) -> None:
        """See `Tracker`."""
        self._tell_stage("stage_finished", stage)

    def records(self, records: Sequence[Record], *, is_last: bool) -> None:
        """Tell of the cells that are finished and were not told of yet.

        Args:
            records: as things stand.
            is_last: whether nothing more will become of them.
        """
        for record in records if self._listeners else ():
            if record.cell not in self._told and _is_final(record, is_last=is_last):
                self._told.add(record.cell)
                values: dict[str, JsonValue] = json.loads(record.model_dump_json())
                for each in self._listeners:
                    each.tell(partial(each.tracker.cell_finished, values))

    @classmethod
    @contextmanager
    def of(cls, trackers: Sequence[Tracker], note: Callable[[str], None]) -> "Iterator[Tracking]":
        """Tracking of one run; whatever ends it, the trackers hear of its end."""
        tracking = cls(trackers, note)
        try:
            yield tracking
        finally:
            tracking.close(tracking.state)

    def close(self, state: RunState) -> None:
        """Say that the run is over, and wait for what trackers still have to write."""
        if self._run is not None:
            for each in self._listeners:
                each.tell(partial(each.tracker.run_finished, self._run, state))
        for each in self._listeners:
            each.close(self._patience)

    def _tell_stage(self, method: str, describe: Callable[[], StageInfo]) -> None:
        if self._listeners:
            stage = describe()
            for each in self._listeners:
                each.tell(partial(getattr(each.tracker, method), stage))


def _is_final(record: Record, *, is_last: bool) -> bool:
    """Whether a record will not change any more."""
    if record.status in DONE:
        waiting = any(str(cost.get("reason", "")).startswith(NOT_COSTED) for cost in record.hardware.values())
        return is_last or not waiting
    return record.status == "skipped" or (is_last and record.status in FAILED)
