"""What every rendering is made from: headings, sentences and tables of text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A column's header, its lines apart by newlines.

    Args:
        kind: labels may be broken before a bracket, texts anywhere, numbers nowhere.
        part: a table too wide is cut in two, and both halves begin with the `key` columns.
    """

    header: str
    kind: Literal["label", "number", "text"] = "number"
    part: Literal["key", "first", "second"] = "first"


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Args:
        groups: headings of groups, by the row that they stand before.
        caption: sentences on how to read it; notes: footnotes.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    groups: Mapping[int, str] = field(default_factory=dict)
    caption: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and a table."""

    heading: str
    sentences: tuple[str, ...] = ()
    grid: Grid | None = None


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    sections: tuple[Section, ...]
