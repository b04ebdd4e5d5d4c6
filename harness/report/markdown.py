"""The report as GitHub-flavoured Markdown."""

from collections.abc import Iterator

from harness.report.page import Document, Grid


def text(document: Document) -> str:
    """The report, its tables with all their columns."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Document) -> Iterator[str]:
    yield f"# {_plain(document.title)}"
    for section in document.sections:
        yield from ("", f"## {_plain(section.heading)}")
        yield from [""] if section.sentences else []
        for sentence in section.sentences:
            yield f"- **{_plain(sentence)}**" if sentence.startswith("PARTIAL") else f"- {_plain(sentence)}"
        if section.grid is not None:
            yield ""
            yield from _grid(section.grid)


def _grid(grid: Grid) -> Iterator[str]:
    yield _row([column.header for column in grid.columns])
    yield _row(["---:" if column.kind == "number" else "---" for column in grid.columns])
    for row in grid.rows:
        yield _row(row)
    yield ""
    for line in (*grid.notes, *grid.caption):
        yield f"- {_plain(line)}"


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """One line that Markdown reads as it is written."""
    line = " ".join(text.split())
    for character in "\\|*<":
        line = line.replace(character, f"\\{character}")
    return line
