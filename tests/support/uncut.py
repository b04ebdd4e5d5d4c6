"""Whether a document in a terminal says everything: the law of every printer, at every width."""

from collections import Counter

from harness.report import rich

WIDTHS = (40, 60, 80, 100, 120, 200)

LEFT_OUT = "Left out for want of width: "


def check_uncut(document, width):
    """Every number, label and word of a table stands in the text, or its column is named as left out."""
    text = rich.text(document, width)
    found = Counter(pieces(text))
    told = left_out(text)
    wanted = Counter()
    for section in document.sections:
        if section.grid is None:
            continue
        for column, cells in zip(section.grid.columns, zip(*section.grid.rows, strict=True), strict=False):
            if column.title in told:
                continue
            assert all(word in found for word in pieces(column.head) if column.kind == "number"), column.title
            for cell in cells:
                wanted.update(pieces(cell.text))
    for piece, count in wanted.items():
        assert found[piece] >= count, f"{piece!r}: {found[piece]} of {count} at {width} columns\n{text}"
    for section in document.sections:
        sentences = [section.heading, *section.warnings, *section.sentences]
        sentences += [*section.grid.notes, *section.grid.caption] if section.grid else []
        assert all(piece in found for sentence in sentences for piece in pieces(sentence))
        assert all(line in text for fact in section.facts for line in fact)
    return text


def pieces(text):
    """What has to stand together: words, and labels up to their parameters."""
    return text.replace("(", " (").split()


def left_out(text):
    """The columns that a text names as left out."""
    lines = " ".join(text.split()).split(LEFT_OUT)[1:]
    return {name for line in lines for name in line.partition(".")[0].split(", ")}
