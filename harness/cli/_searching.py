"""What `hardware cost` and `hardware sweep` tell of a search while it goes on."""

import time
from enum import StrEnum
from typing import Annotated

import typer

from harness.cli._common import stderr


class SearchProgress(StrEnum):
    """How the progress of a search is shown on stderr."""

    auto = "auto"
    plain = "plain"
    none = "none"


ShowOption = Annotated[
    SearchProgress,
    typer.Option("--progress", help="How progress is shown: in a terminal, as lines, or not."),
]

_LONG_S = 5.0
"""Seconds of a search, from which on it is told where they went."""


class Searching:
    """Which engine's shapes are being searched; and afterwards, of a long search, how long each took.

    Args:
        doing: what is done, in words.
        show: where: in a terminal, or as lines that a file can keep.
        is_summed_up: whether a long search ends with what each engine took.
    """

    def __init__(self, doing: str, show: SearchProgress, *, is_summed_up: bool = False) -> None:
        self._doing, self._show, self._is_summed_up = doing, show, is_summed_up
        self._console = stderr()
        self._status = self._console.status(doing)
        self._seconds: dict[str, float] = {}

    def __enter__(self) -> "Searching":
        if self._show is SearchProgress.auto:
            self._status.start()  # shown in a terminal only
        return self

    def __exit__(self, *error: object) -> None:
        self._status.stop()
        is_told = self._is_summed_up and self._show is not SearchProgress.none
        if is_told and sum(self._seconds.values()) >= _LONG_S and not any(error):
            slowest = sorted(self._seconds.items(), key=lambda each: -each[1])
            parts = ", ".join(f"{engine} {seconds:.1f} s" for engine, seconds in slowest if seconds >= 0.05)
            self._console.print(f"searched shapes: {parts}", markup=False, highlight=False, soft_wrap=True)

    def told(self, engine: str, seconds: float | None, number: int, of: int) -> None:
        """An engine's search begins (None), or has ended after so many seconds; it is one of so many."""
        if seconds is not None:
            self._seconds[engine] = self._seconds.get(engine, 0.0) + seconds
            return
        passed = f", {sum(self._seconds.values()):.0f} s" if self._seconds else ""
        text = f"{self._doing}: {engine} ({number} of {of}{passed})"
        self._status.update(text)
        if self._show is SearchProgress.plain:
            self._console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False, soft_wrap=True)
