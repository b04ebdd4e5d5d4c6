"""What every printer makes and every format renders: a document of headings, facts, sentences and tables.

A column is one value. Its table asks it for every row; what is missing, and why, becomes a footnote on the way. A
format sees texts and raw values only, so that a new format is one module and a new column one entry of one list.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from harness._text import LIMIT, lines
from harness.api import JsonValue
from harness.report.formats import DASH, Footnotes

if TYPE_CHECKING:
    from harness.report.charts import Picture

T = TypeVar("T")

Weight = Literal["key", "main", "second", "extra"]
"""How much a column matters: `key` columns begin every part of a table that is cut, `extra` ones are left out first."""


class Noted(NamedTuple):
    """A text with a footnote."""

    text: str
    why: str


def missing(why: str) -> Noted:
    """What stands for a number that is not there, with the reason."""
    return Noted(DASH, why)


Shown = str | Noted


class Cell(NamedTuple):
    """One row's text in one column; its style is for terminals with colours."""

    text: str
    style: str = ""


Medium = Literal["terminal", "page", "data"]
"""What a table is made for: a terminal has little room, a page all columns, data values instead of texts."""


def _always(rows: object) -> bool:
    return True


@dataclass(frozen=True)
class Column(Generic[T]):
    """One value of a table's rows, in every format.

    Args:
        header: for people; its lines are apart by newlines.
        shown: the text of a row, a `Noted` one with a footnote; None for a value that only data formats have.
        fields: the value of a row in data formats, by name: unrounded, None where it is missing.
        short: the header in a terminal, where it is another.
        on: the only medium besides data that has the column; None for all.
        kind: labels may be broken before a bracket, texts between words, numbers nowhere.
        matters: what happens to it in a terminal that is too narrow.
        subject: neighbours of one subject (a hardware model, say) stand in one part of a table if they can.
        when: whether the rows need it at all.
        about: how to read it, in a sentence below the table.
        style: of a row's text, in a terminal with colours.
    """

    header: str
    shown: Callable[[T], Shown] | None = None
    fields: Callable[[T], Mapping[str, JsonValue]] | None = None
    short: str = ""
    on: Medium | None = None
    kind: Literal["label", "number", "text"] = "number"
    matters: Weight = "main"
    subject: str = ""
    when: Callable[[Sequence[T]], bool] = _always
    about: str = ""
    style: Callable[[T], str] | None = None

    @property
    def title(self) -> str:
        """The header on one line; a word that was broken over two lines is whole again."""
        # A hyphen at a line's end belongs to the word, a break after an underscore does not.
        return " ".join(lines(self.header or self.short).replace("-\n", "-").replace("_\n", "_").split())

    @property
    def head(self) -> str:
        """The header in a terminal."""
        return lines(self.short or self.header)

    def is_on(self, medium: Medium, rows: Sequence[T]) -> bool:
        """Whether a table of these rows has the column."""
        if medium == "data":
            return self.fields is not None
        return self.shown is not None and self.on in (None, medium) and self.when(rows)

    def cell(self, row: T, notes: Footnotes) -> Cell:
        """A row's text."""
        assert self.shown is not None
        shown = self.shown(row)
        text = shown if isinstance(shown, str) else shown.text + (notes.mark(shown.why) if shown.why else "")
        return Cell(lines(text), self.style(row) if self.style else "")


def broken_name(name: str) -> str:
    """A long name over several lines of a header."""
    return name.replace("_", "_\n", 1).replace("(", "\n(", 1)


@dataclass(frozen=True)
class Grid:
    """A table: the columns that it needs and what its rows have there.

    Args:
        groups: headings of groups, by the row that they stand before.
        caption: sentences on how to read it.
        notes: footnotes.
        data: the rows' values by name, where the table is made for data.
    """

    columns: tuple[Column[Any], ...]
    rows: tuple[tuple[Cell, ...], ...]
    groups: Mapping[int, str] = field(default_factory=dict)
    caption: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    data: tuple[Mapping[str, JsonValue], ...] = ()

    def __post_init__(self) -> None:
        """Make the texts that hold words of others such that every format can show them."""
        _show(self, groups={place: lines(text) for place, text in self.groups.items()})
        _show(self, caption=tuple(map(_sentence, self.caption)), notes=tuple(map(_sentence, self.notes)))


def table(
    columns: Sequence[Column[T]],
    rows: Sequence[T],
    medium: Medium = "page",
    *,
    groups: Mapping[int, str] | None = None,
    caption: Sequence[str] = (),
    notes: Sequence[str] = (),
    footnotes: Footnotes | None = None,
) -> Grid:
    """Ask every column for every row.

    Args:
        columns: in the order in which they are read; those that the medium or the rows do not need are left out.
        rows: in their order.
        medium: what the table is for.
        groups: see `Grid`.
        caption: see `Grid`; what columns say of themselves follows.
        notes: lines below the footnotes.
        footnotes: of several tables that share them; they stand wherever the caller puts them.
    """
    used = tuple(column for column in columns if column.is_on(medium, rows))
    if medium == "data":
        # Columns may give several fields; a later one of the same name would win.
        data = tuple({k: v for column in used if column.fields for k, v in column.fields(row).items()} for row in rows)
        return Grid(used, (), data=data)
    numbers = Footnotes() if footnotes is None else footnotes
    cells = tuple(tuple(column.cell(row, numbers) for column in used) for row in rows)
    below = [] if footnotes is not None else numbers.lines()
    about = dict.fromkeys(column.about for column in used if column.about)
    return Grid(used, cells, groups or {}, (*caption, *about), (*below, *notes))


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it: facts by name, warnings, sentences, a table, pictures.

    Args:
        charts: for formats that have pictures.
        style: of the heading, in a terminal with colours.
    """

    heading: str = ""
    sentences: tuple[str, ...] = ()
    grid: Grid | None = None
    facts: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    charts: "tuple[Picture, ...]" = ()
    style: str = "bold"

    def __post_init__(self) -> None:
        """As of a `Grid`."""
        _show(self, heading=lines(self.heading), warnings=tuple(map(_sentence, self.warnings)))
        facts = tuple((lines(name), _sentence(fact)) for name, fact in self.facts)
        _show(self, sentences=tuple(map(_sentence, self.sentences)), facts=facts)


@dataclass(frozen=True)
class Document:
    """Everything that a command prints."""

    title: str
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        """As of a `Grid`."""
        _show(self, title=lines(self.title))


def _sentence(text: str) -> str:
    """A sentence may list a whole grid."""
    return lines(text, 10 * LIMIT)


def _show(part: Grid | Section | Document, **texts: object) -> None:
    # Frozen values are set while they are made, and at no other time.
    for name, text in texts.items():
        object.__setattr__(part, name, text)
