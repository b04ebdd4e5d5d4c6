"""The live view of a run: as many lines as there are stages, each made anew for the width that the terminal has now."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live as Display
from rich.text import Text

from harness.api import JsonValue
from harness.execution.eta import Tally
from harness.execution.progress import Costing, Progress, bill_in_words

_BARS = ((100, 24), (76, 14), (56, 8))
"""From so many columns on, so many of them are the bar; narrower terminals have none."""

_PER_SECOND = 4

_SHORTEST = 6
"""Characters of a part's ends below which it says nothing any more."""

_BESTS = 3
"""Sparsities whose best cell is shown."""

_LEAST = 20
"""Columns for a label where no stage runs."""


@dataclass
class _Line:
    """One bar.

    Args:
        label: what it counts; since: when it began.
        done, total: of `unit`; the total is None before it is known.
    """

    label: str
    unit: str
    since: float
    done: int = 0
    total: int | None = None


@dataclass
class Live(Progress):
    """A bar for the epochs of the run, one for every running stage, the last outcome, and the best cells so far."""

    console: Console
    clock: Callable[[], float] = time.monotonic
    _epochs: _Line | None = None
    _stages: dict[str, _Line] = field(default_factory=dict)
    _left: str = ""
    _last: str = ""
    _best: Sequence[tuple[str, str, str]] = ()

    def __post_init__(self) -> None:
        """Nothing is shown before the plan is made."""
        # Transient: what stays on the terminal are the notes, and not the last state of bars.
        self._display = Display(
            get_renderable=lambda: self, console=self.console, refresh_per_second=_PER_SECOND, transient=True
        )

    def begin(self, bill: Mapping[str, JsonValue], workers: int) -> None:
        """Show the bill and the first bar."""
        self._say(bill_in_words(bill, workers))
        self._epochs = _Line("epochs", "epochs", self.clock(), 0, int(str(bill["epochs_to_run"])))
        self._display.start()

    def started(self, key: str, label: str) -> None:
        """A bar for the stage."""
        self._stages[key] = _Line(label, "steps", self.clock())

    def step(self, key: str, step: int, steps: int) -> None:
        """Move the stage's bar."""
        if key in self._stages:
            self._stages[key].done, self._stages[key].total = step, steps

    def finished(self, key: str, label: str, outcome: str, tally: Tally, *, is_epoch: bool) -> None:
        """Take the stage's bar away and move the first."""
        self._stages.pop(key, None)
        # Other stages, such as scores, come and go too fast to be told as the last outcome.
        if is_epoch and self._epochs is not None:
            self._epochs.done = tally.done
            self._left, self._last = tally.words().partition(", ")[2], f"{label}: {outcome}"

    def failed(self, key: str, label: str, status: str, reason: str) -> None:
        """Say why above the bars."""
        self._stages.pop(key, None)
        self._say(f"{label}: {status}: {reason}")

    def best(self, found: Sequence[tuple[str, str, str]]) -> None:
        """Show them below the bars."""
        self._best = found

    def costing(self, now: Costing) -> None:
        """A bar for the cells and one for the models of this cell, in the place of stages."""
        if self._epochs is None or self._epochs.unit != "cells":
            self._epochs = _Line("hardware costs", "cells", self.clock())
        # On a line of its own: a label is cut where the terminal is narrow, and the model is what takes the time.
        self._left = now.model
        self._epochs.done, self._epochs.total = now.cell - 1, now.cells
        before = self._stages.get(now.label)
        since = before.since if before else self.clock()
        self._stages = {now.label: _Line(now.label, "models", since, now.number - 1, now.models)}

    def note(self, text: str) -> None:
        """Say it above the bars."""
        self._say(text)

    def end(self) -> None:
        """Take the bars away."""
        self._display.stop()

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Every line, none wider than the terminal."""
        for line in self.lines(options.max_width):
            yield Text(line, no_wrap=True, overflow="ellipsis")

    def lines(self, width: int) -> Iterator[str]:
        """What is shown in so many columns."""
        if self._epochs is None:
            return
        running, now = list(self._stages.values()), self.clock()
        end = max(cell_len(_end(line, width, now)) for line in (self._epochs, *running))
        labels = told_apart([each.label for each in running], width - end - 1)
        # No wider than the labels need: on a wide terminal the bars stand beside them.
        used = min(width, max(map(cell_len, labels), default=_LEAST) + 1 + end)
        yield _shown(self._epochs, self._epochs.label, used, width, now)
        if self._left:
            yield _cut(f"  {self._left}", width)
        for line, label in zip(running, labels, strict=True):
            yield _shown(line, label, used, width, now)
        if self._last:
            yield _outcome("last", self._last, width)
        # The first are those of the highest sparsities, where patterns and strategies differ most.
        for where, label, outcome in self._best[:_BESTS]:
            yield _outcome(f"best at {where}", f"{label}: {outcome}", width)


def _outcome(name: str, found: str, width: int) -> str:
    """What a stage or a cell showed: its value is whole, whatever becomes of the label."""
    label, _, outcome = found.rpartition(": ")
    [short] = told_apart([label], width - cell_len(outcome) - cell_len(name) - 4)
    return _cut(f"{name}: {short}: {outcome}", width)


def _shown(line: _Line, label: str, used: int, width: int, now: float) -> str:
    """A label on the left, its bar and counts on the right, in `used` columns of `width`."""
    end = _end(line, width, now)
    room = max(used - cell_len(end) - 1, 1)
    text = _cut(label, room)
    return _cut(f"{text}{' ' * (room - cell_len(text))} {end}", width)


def _end(line: _Line, width: int, now: float) -> str:
    """Bar, counts and the time that it has taken."""
    seconds = int(now - line.since)
    elapsed = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    of = "?" if line.total is None else str(line.total)
    bar = next((columns for least, columns in _BARS if width >= least), 0)
    full = bar * line.done // line.total if line.total else 0
    drawn = "━" * full + "┄" * (bar - full) + " " if bar else ""
    unit = f" {line.unit}" if width >= _BARS[0][0] else ""
    return f"{drawn}{f'{line.done}/{of}':>9}{unit} {elapsed}"


def told_apart(labels: Sequence[str], width: int) -> list[str]:
    """Labels cut to a width, first by what does not tell them apart.

    A label has parts, with ` · ` between. Left out are, until it fits: the parameters of a part of which there is no
    other version; parts that all labels share; and at last the middle of the longest part, or the first ones.

    Args:
        labels: what is shown at once.
        width: columns for each.
    """
    parts = [label.split(" · ") for label in labels]
    # Of one label alone everything would be shared.
    shared = set.intersection(*map(set, parts)) if len(parts) > 1 else set()
    every = {part for each in parts for part in each}
    return [_fitted(each, shared, every, width) for each in parts]


def _fitted(parts: list[str], shared: set[str], every: set[str], width: int) -> str:
    # Parameters first, the longest: the name says which part it is, unless two differ in parameters only.
    for part in sorted(parts, key=cell_len, reverse=True):
        name = part.partition("(")[0]
        versions = {each for each in every if each.partition("(")[0] == name}
        if _width(parts) > width and "(" in part and len(versions) == 1:
            parts = [name if each == part else each for each in parts]
            shared = shared | {name} if part in shared else shared
    # What all labels share tells none of them apart.
    for part in [each for each in parts if each in shared]:
        if _width(parts) > width and len(parts) > 1:
            parts = [each for each in parts if each != part] or [part]
    while (too_many := _width(parts) - width) > 0:
        longest = max(range(len(parts)), key=lambda place: cell_len(parts[place]))
        keep = cell_len(parts[longest]) - too_many - 1
        if keep >= _SHORTEST:
            part = parts[longest]
            # Cut in the middle: both ends of a name tell more than what lies between.
            parts[longest] = f"{part[: keep - keep // 2]}…{part[len(part) - keep // 2 :]}"
        elif len(parts) > 1:  # the end of a label tells more than its beginning
            parts = parts[1:]
        else:
            return _cut(parts[0], width)
    return " · ".join(parts)


def _width(parts: Sequence[str]) -> int:
    return cell_len(" · ".join(parts))


def _cut(text: str, width: int) -> str:
    """A text in at most so many columns."""
    if cell_len(text) <= width:
        return text
    return text[: max(width - 1, 0)] + "…"[: max(width, 0)]
