"""Reports: rows built once from records, rendered for a terminal, as Markdown, a page, CSV or JSON, and as pictures.

A report needs no framework and no plugin: records say all there is to say.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel
from pydantic_core import to_json
from rich.console import Console

from harness.report import html, latex, markdown, rich, tabular, tidy
from harness.report.added import Added, by_cell
from harness.report.answer import first_page
from harness.report.document import build
from harness.report.page import Document, Medium
from harness.report.picture import figures, picture
from harness.report.tidy import parquet
from harness.results.records import Record

__all__ = ["Format", "figures", "fragment", "parquet", "picture", "render"]

Format = Literal["rich", "md", "html", "latex", "json", "csv", "tidy"]

_MEDIUMS: dict[Format, Medium] = {
    "rich": "terminal", "md": "page", "html": "page", "latex": "terminal", "csv": "data",
}  # fmt: skip

_WRITERS: dict[Format, Callable[[Document], str]] = {
    "md": markdown.text, "html": html.text, "latex": latex.text, "csv": tabular.text,
}  # fmt: skip


def render(
    records: Sequence[Record],
    *,
    format: Format = "rich",
    title: str = "Report",
    margin: float | None = None,
    console: Console | None = None,
    width: int = 110,
    full: bool = True,
    where: Sequence[tuple[str, str]] = (),
    columns: Sequence[Added] = (),
) -> str:
    """The report as text.

    Args:
        records: one per planned cell, in the order of the plan.
        format: `rich` for a terminal, `md` with all columns, `html` a page, `latex` tables to read in, `json`
            the records, `csv` the rows of the tables, `tidy` the same with a row per cell and seed.
        title: the heading.
        margin: largest difference, in the unit of the metric, that counts as equivalent; None for no verdicts.
        console: with `rich`, where to print the report too; its width is taken and its colours are its own.
        width: columns of the text of `rich` without a console.
        full: with `rich`, all tables; otherwise the answer alone, on one screen.
        where: with `rich` and without `full`, where more is to be found, by name.
        columns: of third parties; where one went wrong it says so in its `fault`, and documents for people say it too.

    Raises:
        EmptySelectionError: there are no records.
        StoreError: two records are of the same cell, as when two runs are mixed.
    """
    if format == "json":
        return _json(_with_columns(records, columns)) + "\n"
    if format == "tidy":
        return tidy.text(records, columns)
    # A screen first answers; whoever wants the rest asks for it.
    if format == "rich" and not full:
        document = first_page(records, title=title, margin=margin, where=where)
    else:
        document = build(
            records,
            title=title,
            margin=margin,
            medium=_MEDIUMS[format],
            columns=columns,
            opens=format != "rich",
            pictures=format == "html",
            every_cell=format == "html",
        )
    if format in _WRITERS:
        return _WRITERS[format](document)
    if console is not None:
        rich.show(document, console)
        width = console.width
    return rich.text(document, width)


def fragment(
    records: Sequence[Record], *, title: str, margin: float | None = None, columns: Sequence[Added] = ()
) -> str:
    """The report as HTML for a page of somebody else's, such as a notebook: the answer, pictures and tables, no script.

    Args, Raises: see `render`.
    """
    document = build(records, title=title, margin=margin, medium="page", columns=columns, pictures=True)
    return html.fragment(document)


def _json(records: Sequence[Record | dict[str, object]]) -> str:
    """The records as JSON whose texts are whole, and in which nothing acts on a terminal."""
    try:
        text = to_json(records, indent=2, inf_nan_mode="null").decode()
    except ValueError:  # half a character, which is no UTF-8
        text = json.dumps([_plain(dict(record)) for record in records], indent=2)
    # Most reports are printable as they are: looking at the whole text once is cheaper than at every character.
    if text.replace("\n", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def _plain(value: object) -> object:
    """A value as `json` writes it: without models in it, and without numbers that JSON has no word for."""
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_columns(records: Sequence[Record], columns: Sequence[Added]) -> list[Record | dict[str, object]]:
    """The records, beside each what third parties' columns have for it."""
    if not columns:
        return list(records)
    return [
        {**dict(record), "columns": found} for record, found in zip(records, by_cell(records, columns), strict=True)
    ]
