"""The report in a terminal."""

from collections.abc import Iterator
from dataclasses import replace
from io import StringIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
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


def _tables(grid: Grid, width: int) -> Iterator[Table]:
    """The table as wide as it fits: spacious, tight, with broken labels, or in two parts."""
    broken = _broken(grid)
    for candidate, gap in ((grid, 2), (grid, 1), (broken, 2), (broken, 1)):
        if _width(candidate, gap) <= width:
            yield _table(candidate, gap, is_broken=candidate is broken)
            return
    if {"first", "second"} <= {column.part for column in grid.columns}:
        yield from _tables(_without(grid, "second"), width)
        yield from _tables(_without(grid, "first"), width)
    else:
        yield _table(broken, 1, is_broken=True)


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


def _width(grid: Grid, gap: int) -> int:
    widths = []
    for index, column in enumerate(grid.columns):
        cells = [column.header, *(row[index] for row in grid.rows), *(grid.groups.values() if index == 0 else ())]
        needed = max(cell_len(line) for cell in cells for line in cell.split("\n"))
        widths.append(min(needed, _TEXT_WIDTH) if column.kind == "text" else needed)
    return sum(widths) + gap * (len(widths) - 1)


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
