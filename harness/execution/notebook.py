"""Progress in a notebook: one display that is drawn anew, not a line for every epoch."""

import sys
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from harness.api import JsonValue
from harness.execution.eta import Tally
from harness.execution.progress import Costing, Progress, bill_in_words

_PAUSE_S = 0.2
"""Between two drawings: a notebook is slower than a small model's epochs."""

_MOST_NOTES = 20


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook; nothing is imported for the question."""
    shell = sys.modules.get("IPython")
    return "ipykernel" in sys.modules and getattr(shell and shell.get_ipython(), "kernel", None) is not None


class NotebookProgress(Progress):
    """A bar for the run, its running stages, and what went wrong; it is its own rich display."""

    def __init__(self) -> None:
        self._bill = ""
        self._tally: Tally | None = None
        self._running: dict[str, tuple[str, str]] = {}
        self._notes: list[str] = []
        self._last = ""
        self._best: Sequence[tuple[str, str, str]] = ()
        self._handle: Any = None
        self._drawn = 0.0
        self._ended = False

    def begin(self, bill: Mapping[str, JsonValue], workers: int) -> None:
        """Show the bill."""
        self._bill = bill_in_words(bill, workers)
        self._draw(now=True)

    def started(self, key: str, label: str) -> None:
        """A line for the stage."""
        self._running[key] = (label, "")
        self._draw()

    def step(self, key: str, step: int, steps: int) -> None:
        """Move the stage."""
        if key in self._running:
            self._running[key] = (self._running[key][0], f"step {step}/{steps}")
            self._draw()

    def finished(self, key: str, label: str, outcome: str, tally: Tally, *, is_epoch: bool) -> None:
        """Take the stage's line away and move the bar."""
        self._running.pop(key, None)
        # As in the live view: other stages are too short to be the last outcome.
        if is_epoch:
            self._tally, self._last = tally, f"{label}: {outcome}"
        self._draw()

    def failed(self, key: str, label: str, status: str, reason: str) -> None:
        """Keep why."""
        self._running.pop(key, None)
        self.note(f"{label}: {status}: {reason}")

    def best(self, found: Sequence[tuple[str, str, str]]) -> None:
        """Lines for them, below the last outcome."""
        self._best = found
        self._draw()

    def costing(self, now: Costing) -> None:
        """A line for the cell, with the model that it is asked of."""
        at = f"{now.model}, {now.number} of {now.models}; cell {now.cell} of {now.cells}"
        self._running = {now.label: (f"hardware costs: {now.label}", at)}
        self._draw()

    def note(self, text: str) -> None:
        """Keep it below the bar."""
        self._notes.append(text)
        self._draw(now=True)

    def end(self) -> None:
        """The last drawing, which stays in the notebook."""
        self._ended = True
        self._running.clear()
        self._draw(now=True)

    def _draw(self, *, now: bool = False) -> None:
        if not now and time.monotonic() - self._drawn < _PAUSE_S:
            return
        self._drawn = time.monotonic()
        from IPython.display import display

        if self._handle is None:
            # One display that is updated: new outputs would fill the notebook.
            self._handle = display(self, display_id=True)  # type: ignore[no-untyped-call]  # IPython's own
        else:
            self._handle.update(self)

    def __repr__(self) -> str:
        """The same in one line, where no HTML is shown."""
        return f"{self._bill}; {self._tally.words()}" if self._tally else self._bill

    def _repr_html_(self) -> str:
        done, every = (self._tally.done, self._tally.epochs) if self._tally else (0, 1)
        lines = [escape(self._bill)]
        if self._tally is not None:
            lines.append(
                f'<progress value="{done}" max="{max(every, 1)}" aria-label="epochs"></progress> '
                f"{escape(self._tally.words())}"
            )
        lines += [f"{escape(label)} {escape(at)}" for label, at in self._running.values()]
        if self._last and not self._ended:
            lines.append(f"last: {escape(self._last)}")
        if not self._ended:
            lines += [f"best at {escape(at)}: {escape(label)}: {escape(value)}" for at, label, value in self._best]
        hidden = len(self._notes) - _MOST_NOTES
        lines += [f"<b>{escape(note)}</b>" for note in self._notes[:_MOST_NOTES]]
        lines += [f"<b>and {hidden} more, as the report says</b>"] if hidden > 0 else []
        return "<div>" + "<br>".join(lines) + "</div>"
