"""Columns of third parties, each guarded: whatever one does, a report is printed."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal, TypeVar

from harness import _text
from harness.api import Component, HarnessError, JsonValue, Kind, ReportColumn, ReportRow
from harness.discovery.distributions import GROUP
from harness.discovery.finding import discover
from harness.discovery.guard import calling, refused

_BUILT_IN = "harness_plugins"

Answer = TypeVar("Answer")


class GuardedColumn:
    """A column that never raises: where its code does, a row has nothing there.

    Args:
        column: the third party's.
        name: what data formats call it.

    Attributes:
        fault: the first thing that went wrong in it, in a sentence with file and line; empty if nothing did.
    """

    def __init__(self, column: ReportColumn, name: str) -> None:
        self._column = column
        self.name = name
        self.fault = ""

    @property
    def header(self) -> str:
        """For people; its lines are apart by newlines."""
        given = self._column.header
        text = given if isinstance(given, str) and given.strip() else self.name.replace("_", " ")
        return "\n".join(_text.clean(line) for line in text.split("\n"))

    @property
    def matters(self) -> Literal["main", "second", "extra"]:
        """How much."""
        return self._column.matters if self._column.matters in ("main", "second", "extra") else "second"

    @property
    def about(self) -> str:
        """How to read it."""
        return _text.clean(str(self._column.about))

    def applies(self, rows: Sequence[ReportRow]) -> bool:
        """Whether a table of these rows needs it."""
        return bool(self._asked(lambda: self._column.applies(rows), True))

    def value(self, row: ReportRow) -> JsonValue:
        """What a row has; None where it has nothing, or where the column's code is at fault."""
        return self._asked(lambda: self._checked(self._column.value(row)), None)

    def shown(self, value: JsonValue) -> str:
        """A value for people."""
        return self._asked(lambda: self._text("shown", self._column.shown(value)), "")

    def footnote(self, row: ReportRow) -> str:
        """A sentence on a row; empty for none."""
        return self._asked(lambda: self._text("footnote", self._column.footnote(row)), "")

    def _asked(self, ask: Callable[[], Answer], otherwise: Answer) -> Answer:
        try:
            with calling(self._column):
                return ask()
        except (HarnessError, MemoryError, RecursionError) as error:
            # The first fault is told once: a column that fails does so in every row.
            self.fault = self.fault or _text.clean(str(error))
            return otherwise

    def _checked(self, value: object) -> JsonValue:
        if isinstance(value, str):
            return _text.clean(value)
        if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        item = getattr(value, "item", None)  # a NumPy scalar is a number, too
        if item is not None and getattr(value, "ndim", None) == 0:
            return self._checked(item())
        raise refused(
            self._column, "a finite number, a text, true, false or None", _text.clean(repr(value), 80), "value"
        )

    def _text(self, method: str, value: object) -> str:
        if not isinstance(value, str):
            raise refused(self._column, f"a text from `{method}`", _text.clean(repr(value), 80), method)
        return _text.clean(value)


def report_columns(files: Iterable[Path] = (), found: Iterable[EntryPoint] | None = None) -> tuple[GuardedColumn, ...]:
    """The columns that installed packages and files of the user's offer, by name.

    What is built in offers none, and is not even imported: a report needs no plugin.

    Args:
        files: Python files of the user's.
        found: the entry points to follow; those installed by default.

    Raises:
        SpecError: a file is not there, or is none of Python.
    """
    made = offered("column", files, found)
    return tuple(GuardedColumn(column, name) for name, column in made if isinstance(column, ReportColumn))


def offered(
    kind: Kind, files: Iterable[Path] = (), found: Iterable[EntryPoint] | None = None
) -> Iterator[tuple[str, Component]]:
    """What third parties offer of a kind that reports are made with, by name.

    Args, Raises: see `report_columns`.
    """
    given, here = tuple(files), entry_points(group=GROUP) if found is None else found
    # What is built in offers no columns, and discovering it would import every plugin for each report.
    others = [entry for entry in here if entry.module.partition(".")[0] != _BUILT_IN]
    if others or given:
        registry = discover(others, given)
        yield from ((name, registry.create(kind, name)) for name in registry.names(kind))
