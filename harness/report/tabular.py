"""A document's tables as CSV: values unrounded, a missing one an empty field."""

import csv
from collections.abc import Mapping, Sequence
from io import StringIO

from harness._text import lines as shown
from harness.api import JsonValue
from harness.report.page import Document


def text(document: Document) -> str:
    """One line per row of every table, under the names of all their values."""
    return lines([row for section in document.sections if section.grid is not None for row in section.grid.data])


def lines(rows: Sequence[Mapping[str, JsonValue]]) -> str:
    """Rows of plain values as CSV."""
    file = StringIO()
    # In the order in which they are first seen: rows of several tables have different names.
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    # Names and texts are anybody's: control characters in them would act on a terminal.
    writer.writerow({name: shown(name) for name in names})
    writer.writerows({name: _field(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def _field(value: JsonValue) -> JsonValue:
    """A value in one field: yes and no, and lists apart by semicolons."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    # A cell of a spreadsheet has no list.
    text = "; ".join(map(str, value)) if isinstance(value, list) else value
    return shown(text) if isinstance(text, str) else text
