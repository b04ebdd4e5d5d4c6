"""A document as GitHub-flavoured Markdown."""

from collections.abc import Iterable, Iterator

from harness.report.page import Document, Grid


def text(document: Document) -> str:
    """The document, its tables with all their columns."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Document) -> Iterator[str]:
    yield f"# {_plain(document.title)}"
    for section in document.sections:
        if section.heading:
            yield from ("", f"## {_plain(section.heading)}")
        yield from [""] if section.sentences or section.warnings or section.facts else []
        for name, fact in section.facts:
            yield f"- {_plain(name)}: {_plain(fact)}"
        for warning in section.warnings:
            yield f"- **{_plain(warning)}**"
        for sentence in section.sentences:
            yield f"- {_plain(sentence)}"
        if section.grid is not None:
            yield ""
            yield from _grid(section.grid)


def _grid(grid: Grid) -> Iterator[str]:
    yield _row(column.title for column in grid.columns)
    yield _row("---:" if column.kind == "number" else "---" for column in grid.columns)
    for row in grid.rows:
        yield _row(cell.text for cell in row)
    if grid.notes or grid.caption:
        yield ""
    for line in (*grid.notes, *grid.caption):
        yield f"- {_plain(line)}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """One line that Markdown reads as it is written."""
    line = " ".join(text.split())
    # In this order: the backslash first, or it would escape those that are set here.
    for character in "\\|*<":
        line = line.replace(character, f"\\{character}")
    return line.replace("](", "]\\(")  # a link of somebody else's
