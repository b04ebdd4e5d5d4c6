"""Progress on stderr: a live display, plain lines, JSON lines, or nothing."""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from harness._text import plural
from harness.api import JsonValue
from harness.execution.eta import Tally

ProgressKind = Literal["auto", "plain", "json", "none"]


class Progress:
    """What a run tells while it runs; this one tells nothing.

    Args of the methods:
        label: the stage in words, e.g. `torch · bank_balanced · gradual · 0.9 · epoch 4/13`.
        outcome: what a finished stage showed, in words.
        tally: how far the run is.
    """

    def begin(self, bill: Mapping[str, JsonValue], workers: int) -> None:
        """The plan is made; its bill is that of `harness plan --json`."""

    def started(self, key: str, label: str) -> None:
        """A worker begins with a stage."""

    def step(self, key: str, step: int, steps: int) -> None:
        """Steps done in a running stage."""

    def finished(self, key: str, label: str, outcome: str, tally: Tally, *, is_epoch: bool) -> None:
        """A stage is done and stored."""

    def failed(self, key: str, label: str, status: str, reason: str) -> None:
        """A stage ended without a result, for good or for now."""

    def note(self, text: str) -> None:
        """Something about the whole run."""

    def end(self) -> None:
        """The run is over."""


def bill_in_words(bill: Mapping[str, JsonValue], workers: int) -> str:
    """One line: what will run, and what sharing and the cache save."""
    return (
        f"{bill['cells']} cells ({bill['cells_cached']} cached, {bill['cells_skipped']} skipped), "
        f"{bill['epochs_to_run']} epochs to run of {bill['epochs']} distinct, "
        f"{bill['epochs_without_sharing']} without sharing; {plural(workers, 'worker')}"
    )


class Plain(Progress):
    """One line per finished stage."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, bill: Mapping[str, JsonValue], workers: int) -> None:
        """Print the bill."""
        self._line(bill_in_words(bill, workers))

    def finished(self, key: str, label: str, outcome: str, tally: Tally, *, is_epoch: bool) -> None:
        """Print what was done and what is left."""
        if is_epoch:
            self._line(f"{label}: {outcome} [{tally.words()}]")

    def failed(self, key: str, label: str, status: str, reason: str) -> None:
        """Print the reason."""
        self._line(f"{label}: {status}: {reason}")

    def note(self, text: str) -> None:
        """Print it."""
        self._line(text)

    def _line(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False, soft_wrap=True)


class Json(Progress):
    """One JSON object per event, for programs."""

    def begin(self, bill: Mapping[str, JsonValue], workers: int) -> None:
        """The bill without its cells."""
        self._event("begin", workers=workers, **{key: value for key, value in bill.items() if key != "cells_detail"})

    def started(self, key: str, label: str) -> None:
        """A stage began."""
        self._event("started", stage=key, label=label)

    def step(self, key: str, step: int, steps: int) -> None:
        """A stage moved."""
        self._event("step", stage=key, step=step, steps=steps)

    def finished(self, key: str, label: str, outcome: str, tally: Tally, *, is_epoch: bool) -> None:
        """A stage is stored."""
        self._event("finished", stage=key, label=label, outcome=outcome, is_epoch=is_epoch, **asdict(tally))

    def failed(self, key: str, label: str, status: str, reason: str) -> None:
        """A stage failed."""
        self._event("failed", stage=key, label=label, status=status, reason=reason)

    def note(self, text: str) -> None:
        """Something about the run."""
        self._event("note", text=text)

    def end(self) -> None:
        """The run is over."""
        self._event("end")

    def _event(self, event: str, **values: JsonValue) -> None:
        print(json.dumps({"event": event, **values}), file=sys.stderr, flush=True)


class Live(Progress):
    """A bar for the epochs of the run and one for every running stage."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def begin(self, bill: Mapping[str, JsonValue], workers: int) -> None:
        """Show the bill and the first bar."""
        self._console.print(bill_in_words(bill, workers), markup=False, highlight=False)
        self._bars.start()
        self._all = self._bars.add_task("epochs", total=int(str(bill["epochs_to_run"])), unit="epochs", note="")

    def started(self, key: str, label: str) -> None:
        """A bar for the stage."""
        self._tasks[key] = self._bars.add_task(label, total=None, unit="steps", note="")

    def step(self, key: str, step: int, steps: int) -> None:
        """Move the stage's bar."""
        if key in self._tasks:
            self._bars.update(self._tasks[key], completed=step, total=steps)

    def finished(self, key: str, label: str, outcome: str, tally: Tally, *, is_epoch: bool) -> None:
        """Take the stage's bar away and move the first."""
        self._remove(key)
        if is_epoch:
            note = f"{tally.words()}  (last: {outcome})"
            self._bars.update(self._all, completed=tally.done, note=note)

    def failed(self, key: str, label: str, status: str, reason: str) -> None:
        """Say why above the bars."""
        self._remove(key)
        self._console.print(f"{label}: {status}: {reason}", markup=False, highlight=False)

    def note(self, text: str) -> None:
        """Say it above the bars."""
        self._console.print(text, markup=False, highlight=False)

    def end(self) -> None:
        """Take the bars away."""
        self._bars.stop()

    def _remove(self, key: str) -> None:
        if key in self._tasks:
            self._bars.remove_task(self._tasks.pop(key))


def make(kind: ProgressKind, console: Console) -> Progress:
    """The progress of that kind; `auto` is live on a terminal and plain elsewhere."""
    if kind == "none":
        return Progress()
    if kind == "json":
        return Json()
    return Live(console) if kind == "auto" and console.is_terminal else Plain(console)
