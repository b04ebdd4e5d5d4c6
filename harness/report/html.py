"""A document as one HTML file: everything in it, nothing from outside, whole without JavaScript.

The template escapes every text. Long tables have their first rows in the page and all of them as JSON beside it, of
which the script shows a screenful at a time.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from harness._text import lines
from harness.api import JsonValue
from harness.report import svg
from harness.report.charts import Picture
from harness.report.formats import Footnotes
from harness.report.page import Column, Document, Grid, Section, table

if TYPE_CHECKING:
    from jinja2 import Template

_MOST_ROWS = 300
"""Rows of a table in the page itself; without a script there are no more."""

_MOST_POINTS = 50
"""The same of the data of a picture, which is folded away."""


def text(document: Document) -> str:
    """The page."""
    from markupsafe import Markup

    parts = [_part(section, f"s{number}") for number, section in enumerate(document.sections)]
    title = document.title or next((section.heading for section in document.sections if section.heading), "Report")
    if not document.title and parts and parts[0]["heading"]:
        parts[0]["heading"] = ""  # it is that of the page
    return _template("page.html").render(
        title=title,
        parts=parts,
        style=Markup(_file("page.css")),
        script=Markup(_file("page.js")),
    )


def fragment(document: Document) -> str:
    """The sections alone, for a page of somebody else's such as a notebook: tables and pictures, no script."""
    from markupsafe import Markup

    parts = [_part(section, f"s{number}", is_alive=False) for number, section in enumerate(document.sections)]
    return _template("fragment.html").render(parts=parts, style=Markup(_file("fragment.css")))


@cache
def _template(name: str) -> "Template":
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(_file))
    environment.filters["coded"] = _coded
    return environment.get_template(name)


def _coded(text: str) -> "Any":
    """A sentence whose `commands` are set as such."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


@cache
def _file(name: str) -> str:
    return files("harness.report").joinpath("templates", name).read_text(encoding="utf-8")


def _part(section: Section, name: str, *, is_alive: bool = True) -> dict[str, Any]:
    """A section for the template; with a script on the page (`is_alive`) tables have all their rows."""
    heading = " ".join(section.heading.split())
    return {
        "id": name,
        "name": heading or "report",
        "heading": heading,
        "warnings": section.warnings,
        "sentences": section.sentences,
        "facts": section.facts,
        "table": _table(section.grid, is_alive=is_alive) if section.grid is not None else None,
        "figures": [
            _figure(chart, f"{name}-f{number}", is_alive=is_alive) for number, chart in enumerate(section.charts)
        ],
    }


def _table(grid: Grid, most: int = _MOST_ROWS, *, is_alive: bool = True) -> dict[str, Any]:
    rows = [
        {"group": grid.groups.get(place, ""), "cells": [cell.text for cell in row]}
        for place, row in enumerate(grid.rows[:most])
    ]
    total = len(grid.rows)
    return {
        "columns": [{"title": column.title, "kind": column.kind} for column in grid.columns],
        "rows": rows,
        "total": total,
        # Rows that the page leaves out travel as data, which its script puts in when somebody asks.
        "rest": _json([[cell.text for cell in row] for row in grid.rows]) if total > most and is_alive else "",
        "below": [*grid.notes, *grid.caption],
    }


def _json(value: object) -> "Any":
    """JSON that nothing inside a `script` element ends early."""
    from markupsafe import Markup

    found = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Escaped as JSON itself allows: HTML entities mean nothing inside a script.
    return Markup(re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", found))


def _figure(chart: Picture, name: str, *, is_alive: bool) -> dict[str, Any]:
    from markupsafe import Markup

    data = chart.data()
    return {
        "id": name,
        "name": lines(chart.name),
        "title": lines(chart.title),
        "svg": Markup(svg.text(chart, label=f"{name}-c")),
        "about": tuple(map(lines, chart.about)),
        "count": len(data),
        "table": _table(_of_data(data), _MOST_POINTS, is_alive=is_alive),
    }


def _of_data(data: Sequence[Mapping[str, JsonValue]]) -> Grid:
    """A table of plain values, unrounded."""
    names = dict.fromkeys(name for row in data for name in row)

    def column(name: str) -> "Column[Mapping[str, JsonValue]]":
        numbers = all(isinstance(row.get(name), int | float | None) for row in data)
        return Column(name, lambda row: _value(row.get(name)), kind="number" if numbers else "label")

    return table(list(map(column, names)), data, footnotes=Footnotes())


def _value(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else str(value)
