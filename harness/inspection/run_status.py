"""How a run stands, from what it says of itself in `status.json`: alive or dead, how far, what failed last.

Nothing is written that stays: a look never disturbs a run, and works on a store that only others may write.
"""

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness._files import read_file
from harness.inspection.lookup import RECORDS, changed, title
from harness.results import records
from harness.results.records import FAILED, PENDING
from harness.store import DAY_S, Store
from harness.store.claims import SILENCE_S
from harness.store.status_file import FILE
from harness.store.timeline import attempts

MAX_BYTES = 1 << 24
"""Of a `status.json`; one with a thousand running stages has a fiftieth of it."""

RunState = Literal["running", "finished", "stopped", "interrupted", "died", "unknown"]

_STATES: dict[str, RunState] = {
    "running": "running", "ended": "finished", "stopped": "stopped", "interrupted": "interrupted",
}  # fmt: skip


Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
"""Of the year 5138 at most, which calendars still know."""


class RunningStage(BaseModel):
    """A stage under way, as its run tells it.

    Args:
        stage: its key; cell: the first cell that needs it; label: both in words.
        since: when it began, in seconds since the epoch; step, steps: how far it is, where that was told.
        before: the metric's value on the validation split before it; metric: what it is called.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    stage: str
    cell: str = ""
    label: str = ""
    since: Seconds = 0.0
    step: Count = 0
    steps: Count | None = None
    before: float | None = Field(default=None, allow_inf_nan=False)
    metric: str = ""


class RunStatus(BaseModel):
    """How a run stands.

    Args:
        run: its id.
        state: running; finished (every cell that could be run was); stopped (by itself, for the `reason`); interrupted;
            died (its process is gone, or gives no sign of life); unknown (only its records are here).
        pid, host: its process; started, written: by that host's clock, in seconds since the epoch.
        silent_s: seconds since its last sign of life, by the clock of the file system; None if there is none.
        cells: how many have which status. Nobody is at the cells of a run that died: those are planned.
        stages_to_run, stages_done, stages_failed, epochs, epochs_done: of what was not there when it began.
        left_s: seconds that it will still take; None if that is not known; left_basis: timed epochs behind that.
        running: stages under way, or that were under way when it died.
        last_error: the failure that came last, in a sentence; empty if nothing failed.
        attempts: at stages, of all sessions of the run, by its timeline; stage_seconds: that passed in them together;
            processor_seconds: processor time of those that measured it, so many as `measured`. None where nobody
            counted them (`counted` does).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run: str
    state: RunState = "unknown"
    reason: str = ""
    pid: Count = 0
    host: str = ""
    workers: Count = 0
    started: Seconds = 0.0
    written: Seconds = 0.0
    silent_s: float | None = None
    cells: dict[str, Count] = Field(default_factory=dict)
    stages_to_run: Count = 0
    stages_done: Count = 0
    stages_failed: Count = 0
    epochs_done: Count = 0
    epochs: Count = 0
    left_s: Seconds | None = None
    left_basis: Count = 0
    running: tuple[RunningStage, ...] = ()
    last_error: str = ""
    attempts: Count | None = None
    stage_seconds: Seconds | None = None
    processor_seconds: Seconds | None = None
    measured: Count | None = None


def counted(said: RunStatus, folder: Path) -> RunStatus:
    """The same with what its stages took; the whole timeline is read for it."""
    found = list(attempts(folder))
    if not found:
        return said
    measured = [each.processor_seconds for each in found if each.processor_seconds is not None]
    passed = sum(max(0.0, each.ended - each.begun) for each in found if each.begun is not None)
    update = {"attempts": len(found), "stage_seconds": round(passed, 3), "measured": len(measured)}
    return said.model_copy(update={**update, "processor_seconds": round(sum(measured), 3)})


def status(folder: Path, now: float | None = None) -> RunStatus:
    """How a run stands.

    Args:
        folder: of the run.
        now: the time by the clock of its file system, in seconds since the epoch; default: as it is.

    Raises:
        StoreError: its records cannot be read.
    """
    said = _said(folder)
    if said is None:
        # Without a status, or with one that cannot be read, the records still tell what became of the cells.
        found = records.read(folder / RECORDS, details=False)
        cells = dict(Counter[str](record.status for record in found))
        is_over = not PENDING & cells.keys()
        said = RunStatus(run=folder.name, state="finished" if is_over else "unknown", cells=cells)
    elif said.state == "running":
        # By the clock of the file system, which dates the heartbeat: on a shared folder it is another machine's.
        silent = max(0.0, (_now(folder, said.host) if now is None else now) - changed(folder, FILE))
        said = said.model_copy(update={"silent_s": round(silent, 1)})
        if not _is_alive(said, silent):
            said = said.model_copy(update={"state": "died", "left_s": None, "cells": _without_running(said.cells)})
    if FAILED & said.cells.keys():
        said = said.model_copy(update={"last_error": _last_error(folder, changed(folder, RECORDS))})
    return said


def _said(folder: Path) -> RunStatus | None:
    """What a run said of itself last; None if that is not there or cannot be read."""
    try:
        content = json.loads(read_file(folder / FILE, limit=MAX_BYTES))
        said = RunStatus.model_validate({**content, "run": folder.name, "state": _STATES[content["state"]]})
        # Clocks of machines differ by minutes; whoever began tomorrow did not write this.
        # An hour off by a wrong time zone is believed; a day is not.
        return None if max(said.started, said.written) > time.time() + DAY_S else said
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError):
        return None


def _without_running(cells: Mapping[str, int]) -> dict[str, int]:
    counts = Counter(cells)
    counts["planned"] += counts.pop("running", 0)
    return {name: count for name, count in counts.items() if count}


def _is_alive(said: RunStatus, silent_s: float) -> bool:
    """Whether the process of a run is there: on this machine it is looked for, from another it has to be heard."""
    if said.host != socket.gethostname():
        return silent_s <= SILENCE_S
    # On this machine the process itself is asked: a heartbeat may be late on a busy one.
    began = _began(said.pid)
    # Its heartbeat stands still while a process is stopped; a later process of the same number is another one.
    # One second of slack: the start of a process is counted in ticks, that of its run by the clock.
    return began is not None and (silent_s <= SILENCE_S or began <= said.started + 1.0)


def _began(pid: int) -> float | None:
    """When a process of this machine began, in seconds since the epoch; infinite if only that it runs is known."""
    if pid <= 0:
        return None
    try:
        # The name in brackets may hold blanks and brackets of its own: fields are counted from behind it.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        # Without /proc (macOS), that the number is in use is all that can be known.
        return float("inf") if not Path("/proc/self").exists() and _is_there(pid) else None
    if fields[0] in "ZX":  # dead, though its parent has not looked
        return None
    return time.time() - up + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # somebody else's
        return True
    except OSError:
        return False
    return True


def _now(folder: Path, host: str) -> float:
    """The time by the clock that dates the heartbeats of a run."""
    if host != socket.gethostname():
        with suppress(OSError):  # where it cannot be written, this machine's clock is the best there is
            return Store(folder).now()
    return time.time()


@lru_cache(maxsize=64)
def _last_error(folder: Path, written: float) -> str:
    """The failure that came last, as far as logs tell; records have no times. Read once for every change of records."""
    failed = [r for r in records.read(folder / RECORDS, details=False) if r.status in FAILED - {"blocked"}]
    if not failed:
        return ""
    # By logs' times of change: the last one written is that of the last failure.
    last = max(failed, key=lambda record: changed(folder / "logs", f"{record.facts.get('failed_stage')}.log"))
    return f"{last.status}: {title(last)} (cell {last.cell}): {last.reason}"
