"""The report in a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.control import strip_control_codes
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from harness.report.page import Column, Document, Grid

_TEXT_WIDTH = 16  # a column of running text is broken rather than narrower than this


def text(document: Document, width: int) -> str:
    """The report without colour or control characters, at a fixed width."""
    console = Console(file=StringIO(), width=width, no_color=True, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        show(document, console)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def show(document: Document, console: Console) -> None:
    """Print the report; colour and width are the console's."""
    console.print(Text(document.title, style="bold"))
    for section in document.sections:
        console.print()
        console.print(Text(section.heading, style="bold"))
        for sentence in section.sentences:
            console.print(Text(sentence, style="bold yellow" if sentence.startswith("PARTIAL") else ""))
        if section.grid is not None:
            for number, table in enumerate(_tables(section.grid, console.width)):
                if number:
                    console.print()
                console.print(table)
            for line in section.grid.notes:
                console.print(Text(line))
            for line in section.grid.caption:
                console.print(Text(line, style="dim"))


def _tables(grid: Grid, width: int) -> Iterator[RenderableType]:
    """The table as wide as it fits: spacious, tight, with broken labels, or in two parts."""
    broken = _broken(grid)
    for candidate in (grid, broken):
        widths = _widths(candidate)
        at_least = sum(
            min(needed, _TEXT_WIDTH) if column.kind == "text" else needed
            for needed, column in zip(widths, candidate.columns, strict=True)
        )
        for gap in (2, 1):
            gaps = gap * (len(widths) - 1)
            if at_least + gaps <= width:
                sinks = candidate is broken
                fits = sum(widths) + gaps <= width
                yield _Fixed(candidate, widths, gap, sinks) if fits else _table(candidate, gap, is_broken=sinks)
                return
    if {"first", "second"} <= {column.part for column in grid.columns}:
        yield from _tables(_without(grid, "second"), width)
        yield from _tables(_without(grid, "first"), width)
    else:
        yield _table(broken, 1, is_broken=True)


@dataclass(frozen=True)
class _Fixed:
    """A table in which nothing is broken further: padded here, because rich takes seconds for thousands of rows.

    Args:
        widths: of the columns; gap: spaces between them.
        sinks: whether numbers stand beside the last line of a broken label instead of its first.
    """

    grid: Grid
    widths: Sequence[int]
    gap: int
    sinks: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """The lines, headings in bold."""
        bold = Style(bold=True)
        height = max(column.header.count("\n") for column in self.grid.columns)
        headers = ["\n" * (height - column.header.count("\n")) + column.header for column in self.grid.columns]
        yield from self._lines(headers, bold)
        yield Segment("─" * (sum(self.widths) + self.gap * (len(self.widths) - 1)) + "\n")
        for index, row in enumerate(self.grid.rows):
            if index in self.grid.groups:
                yield from self._lines([self.grid.groups[index], *[""] * (len(row) - 1)], bold)
            yield from self._lines(row, None)

    def _lines(self, cells: Sequence[str], style: Style | None) -> Iterator[Segment]:
        split = [cell.split("\n") for cell in cells]
        height = max(map(len, split))
        for number in range(height):
            parts = []
            for lines, column, width in zip(split, self.grid.columns, self.widths, strict=True):
                is_number = column.kind == "number"
                place = number - (height - len(lines) if self.sinks and is_number else 0)
                line = lines[place] if 0 <= place < len(lines) else ""
                blank = " " * (width - _length(line))
                parts.append(blank + line if is_number else line + blank)
            yield Segment(strip_control_codes((" " * self.gap).join(parts)) + "\n", style)


def _broken(grid: Grid) -> Grid:
    """The same with parameters of labels on a line of their own."""
    rows = tuple(tuple(_break(cell, column) for cell, column in zip(r, grid.columns, strict=True)) for r in grid.rows)
    return replace(grid, rows=rows, groups={index: name.replace("(", "\n(", 1) for index, name in grid.groups.items()})


def _break(cell: str, column: Column) -> str:
    if column.kind != "label":
        return cell
    indent = " " * (len(cell) - len(cell.lstrip()))
    return cell.replace("(", f"\n{indent}(", 1)


def _without(grid: Grid, part: str) -> Grid:
    kept = [index for index, column in enumerate(grid.columns) if column.part != part]
    rows = tuple(tuple(row[index] for index in kept) for row in grid.rows)
    return replace(grid, columns=tuple(grid.columns[index] for index in kept), rows=rows)


def _widths(grid: Grid) -> list[int]:
    """What every column needs, with no line broken further."""
    columns = [[column.header, *(row[index] for row in grid.rows)] for index, column in enumerate(grid.columns)]
    columns[0] += grid.groups.values()
    return [max(_length(line) for cell in cells for line in cell.split("\n")) for cells in columns]


def _length(line: str) -> int:
    """Cells of a terminal that a line takes."""
    return len(line) if line.isascii() else cell_len(line)


def _table(grid: Grid, gap: int, *, is_broken: bool) -> Table:
    padding = (0, gap - 1, 0, 0)  # the box itself puts one space between columns
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False, padding=padding)
    height = max(column.header.count("\n") for column in grid.columns)
    for column in grid.columns:
        table.add_column(
            Text("\n" * (height - column.header.count("\n")) + column.header),
            justify="right" if column.kind == "number" else "left",
            no_wrap=column.kind != "text",
            overflow="fold",
            # Numbers stand beside the last line of a broken label, but beside the first of a text.
            vertical="bottom" if is_broken and column.kind == "number" else "top",
        )
    for index, row in enumerate(grid.rows):
        if index in grid.groups:
            table.add_row(Text(grid.groups[index], style="bold"))
        table.add_row(*(Text(cell) for cell in row))
    return table
