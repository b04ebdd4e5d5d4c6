r"""A document as LaTeX, to be read in with `\input`: booktabs tables with captions, labels, footnotes, aligned numbers.

It needs the packages booktabs, longtable, siunitx, graphicx, amssymb and textcomp, as its first line says. Every other
character than ASCII is written as a command, so that any of the engines can set it.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from harness.report.page import Column, Document, Grid, Section

_LONG = 35
"""Rows of a table, beyond which it may break over pages."""

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#",
    "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # behind a line's end they would be its options
}  # fmt: skip

_MATHS = {
    "±": r"\pm", "×": r"\times", "µ": r"\mu", "μ": r"\mu", "≈": r"\approx", "≠": r"\neq", "▲": r"\blacktriangle",
    "▼": r"\blacktriangledown", "△": r"\triangle", "▽": r"\triangledown", "✗": r"\boxtimes", "✓": r"\checkmark",
    "≤": r"\leq", "≥": r"\geq", "−": "-", "·": r"\cdot", "→": r"\rightarrow", "∞": r"\infty", "Δ": r"\Delta",
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "λ": r"\lambda", "σ": r"\sigma", "²": "^2",
}  # fmt: skip

_TEXTS = {
    "–": r"\textendash{}", "—": r"\textemdash{}", "…": r"\dots{}", "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}", "‘": r"\textquoteleft{}", "’": r"\textquoteright{}", "°": r"\textdegree{}",
    "\u00a0": "~", "ä": '\\"a', "ö": '\\"o', "ü": '\\"u', "Ä": '\\"A', "Ö": '\\"O', "Ü": '\\"U', "ß": r"\ss{}",
}  # fmt: skip

_SUPERSCRIPTS = {char: str(digit) for digit, char in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}

# A table wider than the page is made smaller, and no other.
_FITTING = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"

_NUMBER = re.compile(r"([+-]?)(\d[\d,]*)(?:\.(\d+))?(?: ± (\d+)(?:\.(\d+))?)?")


def text(document: Document) -> str:
    """The document: its sentences as paragraphs, its tables as floats, long ones over several pages."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Document) -> Iterator[str]:
    yield r"% Needs \usepackage{booktabs,longtable,siunitx,graphicx,amssymb,textcomp} and \usepackage[T1]{fontenc}."
    yield f"% {' '.join(document.title.split())}".rstrip().encode("ascii", "replace").decode()
    names: set[str] = set()
    for section in document.sections:
        yield ""
        for warning in section.warnings:
            yield rf"\textbf{{{escaped(warning)}}}\par"
        for sentence in section.sentences:
            yield rf"{escaped(sentence)}\par"
        for name, fact in section.facts:
            yield rf"{escaped(name)}: {escaped(fact)}\par"
        if section.grid is not None and section.grid.columns:
            yield from _table(section, section.grid, _label(section.heading, names))


def _label(heading: str, taken: set[str]) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "table"
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}-{count}"
    taken.add(found)
    return f"tab:{found}"


def _table(section: Section, grid: Grid, label: str) -> Iterator[str]:
    is_long = len(grid.rows) > _LONG
    # siunitx aligns at the decimal point; one text in the column would break the whole table.
    aligned = [_numbers(column, [row[place].text for row in grid.rows]) for place, column in enumerate(grid.columns)]
    form = "".join(_form(column, numbers) for column, numbers in zip(grid.columns, aligned, strict=True))
    caption = rf"\caption{{{escaped(section.heading)}}}\label{{{label}}}"
    heads = " & ".join(_head(column, numbers) for column, numbers in zip(grid.columns, aligned, strict=True))
    if is_long:
        yield rf"{{\small\begin{{longtable}}{{{form}}}"
        yield rf"{caption}\\ \toprule"
        yield rf"{heads} \\ \midrule \endfirsthead"
        yield rf"\toprule {heads} \\ \midrule \endhead \bottomrule \endfoot"
    else:
        yield r"\begin{table}[htbp]\centering\small"
        yield caption
        yield rf"{_FITTING}{{\begin{{tabular}}{{{form}}} \toprule"
        yield rf"{heads} \\ \midrule"
    for place, row in enumerate(grid.rows):
        if place in grid.groups:
            yield rf"\multicolumn{{{len(grid.columns)}}}{{l}}{{\textit{{{escaped(grid.groups[place])}}}}} \\"
        cells = [_cell(cell.text, is_aligned=bool(numbers)) for cell, numbers in zip(row, aligned, strict=True)]
        yield rf"{' & '.join(cells)} \\"
    yield r"\end{longtable}" if is_long else r"\bottomrule \end{tabular}}"
    for line in (*grid.notes, *grid.caption):
        yield rf"\par\raggedright\footnotesize {escaped(line)}"
    yield r"\par}" if is_long else r"\end{table}"


def _numbers(column: Column[Any], cells: Sequence[str]) -> list[re.Match[str]]:
    """The numbers of a column that siunitx aligns; none where there are only texts."""
    if column.kind != "number":
        return []
    return [found for cell in cells if (found := _NUMBER.match(cell.strip()))]


def _form(column: Column[Any], numbers: Sequence[re.Match[str]]) -> str:
    if not numbers:
        return {"label": "l", "number": "r", "text": "p{0.3\\linewidth}"}[column.kind]
    sign = "+" if any(number[1] for number in numbers) else ""
    whole = max(len(number[2].replace(",", "")) for number in numbers)
    decimals = max(len(number[3] or "") for number in numbers)
    # Its uncertainty is in units of the last digits: 1.20 ± 0.03 is 1.20(3).
    spread = [len((number[4] + (number[5] or "")).lstrip("0")) or 1 for number in numbers if number[4]]
    uncertain = f"({max(spread)})" if spread else ""
    return f"S[retain-explicit-plus,separate-uncertainty,table-format={sign}{whole}.{decimals}{uncertain}]"


def _head(column: Column[Any], numbers: Sequence[re.Match[str]]) -> str:
    lines = r"\\".join(escaped(line) for line in column.head.split("\n"))
    stacked = rf"\shortstack{{{lines}}}" if r"\\" in lines else lines
    return f"{{{stacked}}}" if numbers else stacked


def _cell(cell: str, *, is_aligned: bool) -> str:
    if not is_aligned:
        indent = len(cell) - len(cell.lstrip())
        return (r"\quad " if indent else "") + escaped(cell)
    found = _NUMBER.match(cell.strip())
    if found is None:
        # In braces siunitx prints a text and reads no number from it.
        return f"{{{escaped(cell)}}}"
    number = found[1] + found[2].replace(",", "") + (f".{found[3]}" if found[3] else "")
    if found[4]:
        number += rf" \pm {found[4]}" + (f".{found[5]}" if found[5] else "")
    after = cell.strip()[found.end() :]
    # A tie before a mark, so that no line ends between them.
    space = "~" if after[:1] == " " else ""
    return number + (f" {{{space}{escaped(after)}}}" if after else "")


def escaped(text: str) -> str:
    """A text that LaTeX sets as it is written, on one line, in ASCII."""
    found = []
    for char in " ".join(text.split()) if text.strip() else "":
        if char in _SUPERSCRIPTS:
            found.append(rf"\textsuperscript{{{_SUPERSCRIPTS[char]}}}")
        elif char in _MATHS:
            found.append(rf"\ensuremath{{{_MATHS[char]}}}")
        elif char in _ESCAPES or char in _TEXTS:
            found.append(_ESCAPES.get(char) or _TEXTS[char])
        else:
            found.append(char if " " <= char <= "~" else _other(char))
    return "".join(found).replace("--", "-{}-")  # two hyphens are no dash


def _other(char: str) -> str:
    """Any other character: its letter without accents, or its code point."""
    plain = "".join(
        letter for letter in unicodedata.normalize("NFKD", char) if letter.isascii() and letter.isprintable()
    )
    return escaped(plain) if plain.strip() else escaped(f"[U+{ord(char):04X}]")
