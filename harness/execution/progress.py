"""What a run tells while it runs: nothing, plain lines or JSON lines; `live` and `notebook` draw."""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console

from harness._text import plural
from harness.api import JsonValue
from harness.execution.eta import Tally


@dataclass(frozen=True)
class Costing:
    """Where a run is that costs finished cells and trains nothing any more.

    Args:
        label: the cell in words.
        model: the hardware model that is asked now, with its engine; number, models: which it is, of how many.
        cell, cells: which of the cells that were left this is, and how many they are.
    """

    label: str
    model: str
    number: int
    models: int
    cell: int
    cells: int

    def words(self) -> str:
        """One line."""
        return (
            f"hardware costs: cell {self.cell} of {self.cells}, {self.model} ({self.number} of {self.models}): "
            f"{self.label}"
        )


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

    def best(self, found: Sequence[tuple[str, str, str]]) -> None:
        """Who is the best so far by the validation split: at which sparsity, the cell in words, its value."""

    def costing(self, now: Costing) -> None:
        """A hardware model is asked about a finished cell, which may take minutes for a large layer."""

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


COSTING_EVERY_S = 10.0
"""Between two lines about hardware costs: most of them take milliseconds."""


class Plain(Progress):
    """One line per finished stage."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock, self._costed = console, clock, -math.inf

    def begin(self, bill: Mapping[str, JsonValue], workers: int) -> None:
        """Print the bill."""
        self._line(bill_in_words(bill, workers))

    def finished(self, key: str, label: str, outcome: str, tally: Tally, *, is_epoch: bool) -> None:
        """Print what was done and what is left."""
        # Epochs only: a line for every score would bury them.
        if is_epoch:
            self._line(f"{label}: {outcome} [{tally.words()}]")

    def failed(self, key: str, label: str, status: str, reason: str) -> None:
        """Print the reason."""
        self._line(f"{label}: {status}: {reason}")

    def costing(self, now: Costing) -> None:
        """Print it, now and then."""
        if self._clock() - self._costed >= COSTING_EVERY_S:
            self._costed = self._clock()
            self._line(now.words())

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

    def best(self, found: Sequence[tuple[str, str, str]]) -> None:
        """Cells are the best so far."""
        cells: list[JsonValue] = [{"at": at, "label": label, "outcome": outcome} for at, label, outcome in found]
        self._event("best", cells=cells)

    def costing(self, now: Costing) -> None:
        """A model is asked about a cell."""
        self._event("costing", **asdict(now))

    def note(self, text: str) -> None:
        """Something about the run."""
        self._event("note", text=text)

    def end(self) -> None:
        """The run is over."""
        self._event("end")

    def _event(self, event: str, **values: JsonValue) -> None:
        # Flushed, as the reader is a program that acts on every line.
        print(json.dumps({"event": event, **values}), file=sys.stderr, flush=True)
