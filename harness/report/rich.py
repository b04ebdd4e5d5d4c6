"""A document in a terminal. Nothing is ever cut: not a digit, not a sign, not a unit, not a name.

A table too wide for its console is set tight, then with its labels broken before their parameters, then in parts that
begin with its key columns. Where even that takes too many parts, the columns that matter least are left out and named.
What is still too wide goes over the width: a line that a terminal wraps is ugly, a number without its last digit wrong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.control import strip_control_codes
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from harness.report.page import Cell, Column, Document, Grid, Section, broken_name

_TEXT_WIDTH = 16
"""A column of running text is broken rather than narrower than this."""

_MOST_PARTS = 4
"""Of a table, beyond which columns of little weight are left out."""


def text(document: Document, width: int) -> str:
    """The document without colour or control characters, at a fixed width."""
    # Not the user's terminal: a text of this width is the same for everybody.
    console = Console(file=StringIO(), width=width, no_color=True, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        show(document, console)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def show(document: Document, console: Console) -> None:
    """Print the document; colour and width are the console's."""
    for part in parts(document, console.width):
        # Soft wrapping only keeps rich from cutting: every line is broken here.
        console.print(part, soft_wrap=True)


def parts(document: Document, width: int) -> Iterator[RenderableType]:
    """What is printed, piece by piece."""
    if document.title:
        yield Text(document.title, style="bold")
    for number, section in enumerate(document.sections):
        if number or document.title:
            yield Text()
        yield from _section(section, width)


def _section(section: Section, width: int) -> Iterator[RenderableType]:
    if section.heading:
        yield Text(_broken_text(section.heading, width), style=section.style)
    indent = max((len(name) for name, _ in section.facts), default=0) + 2
    for name, fact in section.facts:
        yield Text(f"{name:<{indent}}{fact}")  # one line, whatever its length: it is copied and searched for
    for warning in section.warnings:
        yield Text(_broken_text(warning, width), style="bold yellow")
    for sentence in section.sentences:
        yield Text(_broken_text(sentence, width))
    if section.grid is not None:
        grids, left_out = _parts(section.grid, width)
        for number, (grid, gap) in enumerate(grids):
            if number:
                yield Text()
            yield _Lines(grid, _widths(grid, gap, width), gap)
        if left_out:
            names = ", ".join(column.title for column in left_out)
            yield Text(_broken_text(f"Left out for want of width: {names}.", width), style="yellow")
        for line in section.grid.notes:
            yield Text(_broken_text(line, width))
        for line in section.grid.caption:
            yield Text(_broken_text(line, width), style="dim")


# --- lines ----------------------------------------------------------------------------------------------------------


def _broken_text(line: str, width: int) -> str:
    """A line broken between words only; spaces before its first word stay."""
    lines = []
    for part in line.split("\n"):
        if _length(part) <= width:
            lines.append(part)
            continue
        indent = part[: len(part) - len(part.lstrip())]
        now, used = indent, _length(indent)
        # A word that is longer than the width stands on a line of its own and runs over: cutting it would hide letters.
        for word in part.split():
            needed = _length(word) + (now != indent)
            if used + needed > width and now.strip():
                lines.append(now)
                now, used = indent + word, _length(indent + word)
            else:
                now, used = (now + word if now == indent else f"{now} {word}"), used + needed
        lines.append(now)
    return "\n".join(lines)


def _length(line: str) -> int:
    """Cells of a terminal that a line takes."""
    return len(line) if line.isascii() else cell_len(line)


def _longest(cell: str) -> int:
    return max(map(_length, cell.split("\n")))


@dataclass(frozen=True)
class _Lines:
    """A table, padded here: rich's own takes seconds for thousands of rows, and cuts what does not fit.

    Args:
        widths: of the columns; gap: spaces between them.
    """

    grid: Grid
    widths: Sequence[int]
    gap: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """The lines, headings in bold."""
        bold, columns = Style(bold=True), self.grid.columns
        height = max((column.head.count("\n") for column in columns), default=0)
        heads = [Cell("\n" * (height - column.head.count("\n")) + column.head, style="bold") for column in columns]
        yield from self._lines(heads, console)
        yield Segment("─" * (sum(self.widths) + self.gap * (len(self.widths) - 1)) + "\n")
        for index, row in enumerate(self.grid.rows):
            if index in self.grid.groups:
                yield Segment(strip_control_codes(self.grid.groups[index]) + "\n", bold)
            yield from self._lines(row, console)

    def _lines(self, cells: Sequence[Cell], console: Console) -> Iterator[Segment]:
        columns = self.grid.columns
        split = [
            (_broken_text(cell.text, width) if column.kind == "text" else cell.text).split("\n")
            for cell, column, width in zip(cells, columns, self.widths, strict=True)
        ]
        # All stands beside the last line of a broken label, and beside the first of a text that is longer.
        labels = max((len(s) for s, column in zip(split, columns, strict=True) if column.kind == "label"), default=1)
        for number in range(max(map(len, split))):
            segments: list[Segment] = []
            for cell, lines, column, width in zip(cells, split, columns, self.widths, strict=True):
                is_number = column.kind == "number"
                at = number - max(labels - len(lines), 0)
                line = strip_control_codes(lines[at]) if 0 <= at < len(lines) else ""
                blank, gap = " " * (width - _length(line)), " " * self.gap
                style = console.get_style(cell.style) if cell.style else None
                segments += [Segment(blank if is_number else ""), Segment(line, style)]
                segments.append(Segment(gap if is_number else blank + gap))
            while segments and not segments[-1].text.strip():
                segments.pop()
            yield from (*segments, Segment("\n"))


# --- what fits ------------------------------------------------------------------------------------------------------


def _parts(grid: Grid, width: int) -> tuple[list[tuple[Grid, int]], list[Column[Any]]]:
    """The table as wide as it fits: tables with the gaps between their columns, and the columns left out."""
    settings = [(candidate, gap) for candidate in (grid, _broken(grid)) for gap in (2, 1)]
    # From loose to tight: labels are broken, then gaps narrowed, before a table is cut at all.
    for setting in settings:
        if _needed(*setting) <= width:
            return [setting], []
    places = list(range(len(grid.columns)))
    left_out: list[int] = []
    found = _fewest(settings, places, width)
    # What matters least goes first, from the right, and only as long as the table is cut in many parts.
    for weight in ("extra", "second"):
        for place in reversed(places.copy()):
            if len(found) > _MOST_PARTS and grid.columns[place].matters == weight:
                places.remove(place)
                left_out.insert(0, place)
                found = _fewest(settings, places, width)
    return found, [grid.columns[place] for place in left_out]


def _fewest(settings: Sequence[tuple[Grid, int]], places: Sequence[int], width: int) -> list[tuple[Grid, int]]:
    """The table cut into as few parts as may be, and set no tighter than that takes."""
    cut = [[(part, gap) for part in _cut(grid, places, width, gap)] for grid, gap in settings]
    return min(cut, key=len)


def _cut(grid: Grid, places: Sequence[int], width: int, gap: int) -> list[Grid]:
    """Parts of a table, each with the key columns and as many others, in their order, as fit beside them."""
    needs = [need + gap for need in _needs(grid)]
    keys = [place for place in places if grid.columns[place].matters == "key"]
    # Room for one gap more, as the last column of a part needs none.
    room = width + gap - sum(needs[place] for place in keys)
    found: list[list[int]] = []
    left = -1
    for subject in _subjects(grid, [place for place in places if place not in keys]):
        whole = sum(needs[place] for place in subject)
        for number, place in enumerate(subject):
            # A subject stays together where any part could hold it.
            wanted = whole if whole <= room and not number else needs[place]
            if not found or wanted > left:
                found.append([])
                left = room
            found[-1].append(place)
            left -= needs[place]
    return [_only(grid, [*keys, *part]) for part in found or [[]]]


def _subjects(grid: Grid, places: Sequence[int]) -> list[list[int]]:
    """Neighbours of one subject together."""
    found: list[list[int]] = []
    for place in places:
        subject = grid.columns[place].subject
        if found and subject and grid.columns[found[-1][-1]].subject == subject:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def _only(grid: Grid, places: Sequence[int]) -> Grid:
    """The table with some of its columns; one that is apart from the head of its subject names it."""
    columns: list[Column[Any]] = []
    for place in places:
        column = grid.columns[place]
        is_apart = column.subject and not any(each.subject == column.subject for each in columns)
        if is_apart and column.subject not in column.head.replace("\n", ""):
            column = replace(column, short=f"{broken_name(column.subject)}\n{column.head}")
        columns.append(column)
    rows = tuple(tuple(row[place] for place in places) for row in grid.rows)
    return replace(grid, columns=tuple(columns), rows=rows)


def _broken(grid: Grid) -> Grid:
    """The same with parameters of labels on a line of their own."""
    rows = tuple(
        tuple(_break(cell, column) for cell, column in zip(row, grid.columns, strict=True)) for row in grid.rows
    )
    return replace(grid, rows=rows, groups={index: name.replace("(", "\n(", 1) for index, name in grid.groups.items()})


def _break(cell: Cell, column: Column[Any]) -> Cell:
    if column.kind != "label":
        return cell
    indent = " " * (len(cell.text) - len(cell.text.lstrip()))
    return cell._replace(text=cell.text.replace("(", f"\n{indent}(", 1))


def _needs(grid: Grid) -> list[int]:
    """The least width of every column; of a text, its longest word or a few words."""
    needs = []
    for place, column in enumerate(grid.columns):
        cells = [row[place].text for row in grid.rows]
        whole = max(map(_longest, cells), default=0)
        if column.kind == "text":
            # A text may be broken; a number or a name never is.
            words = max((_length(word) for cell in cells for word in cell.split()), default=0)
            whole = min(whole, max(words, _TEXT_WIDTH))
        needs.append(max(whole, _longest(column.head)))
    return needs


def _needed(grid: Grid, gap: int) -> int:
    # The heading of a group may run on over the columns beside the first.
    groups = max(map(_longest, grid.groups.values()), default=0)
    return max(sum(_needs(grid)) + gap * (len(grid.columns) - 1), groups)


def _widths(grid: Grid, gap: int, width: int) -> list[int]:
    """Widths of the columns; texts share what the others leave."""
    widths = _needs(grid)
    spare = width - sum(widths) - gap * (len(widths) - 1)
    texts = [place for place, column in enumerate(grid.columns) if column.kind == "text"]
    for number, place in enumerate(texts):
        whole = max((_longest(row[place].text) for row in grid.rows), default=0)
        # Each takes its share of what is left: a short text leaves more to the next.
        more = max(0, min(whole - widths[place], spare // (len(texts) - number)))
        widths[place] += more
        spare -= more
    return widths
