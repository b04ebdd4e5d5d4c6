"""Reports as LaTeX: every text is set as it is written, and the file compiles where LaTeX is installed."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_at_random import HOSTILE, every_fate, runs

from harness.report import latex, render
from harness.report.document import build
from harness.report.page import Column, Document, Section, table

_PAGE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{booktabs,longtable,siunitx,graphicx,amssymb,textcomp}
\begin{document}
\input{report}
\end{document}
"""


@given(st.text(max_size=60))
def test_a_text_is_ascii_and_its_braces_match(text):
    found = latex.escaped(text)

    bare = re.sub(r"\\[\\{}%&$#_~^\"]", "", found)
    assert found.isascii() and "\n" not in found
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"(?<!\\)[%&#_]", found)


@given(st.text("abc%&#_{}$\\~^ xyz", max_size=40))
def test_letters_and_signs_of_a_text_are_all_there(text):
    found = latex.escaped(text)
    for command, sign in (
        (r"\textbackslash{}", "\\"), (r"\textasciitilde{}", "~"), (r"\textasciicircum{}", "^"),
    ):  # fmt: skip
        found = found.replace(command, f"\0{sign}")

    assert re.sub(r"\\([%&#_{}$])", r"\1", found).replace("\0", "") == " ".join(text.split())


@given(runs())
@settings(max_examples=25, deadline=None)
def test_every_number_of_a_table_is_in_it(records):
    document = build(records, title="t", margin=0.5, medium="terminal")

    lines = latex.text(document).splitlines()

    for section in document.sections:
        if section.grid is None or not section.grid.columns:
            continue
        label = next(place for place, line in enumerate(lines) if latex.escaped(section.heading) in line)
        numbers = [re.findall(r"\d+\.\d+", cell.text) for row in section.grid.rows for cell in row]
        text = "\n".join(lines[label:])
        assert text.count(r"\\") >= len(section.grid.rows)
        assert all(number in text for each in numbers for number in each)


def test_a_number_is_aligned_and_what_stands_behind_it_is_kept():
    columns = [Column("n", str), Column("name", str, kind="label")]
    text = latex.text(Document("t", (Section("h", (), table(columns, ["+1.50 ± 0.25 ▼", "12.00", "–¹"])),)))

    assert r"S[retain-explicit-plus,separate-uncertainty,table-format=+2.2(2)]" in text
    assert r"+1.50 \pm 0.25 {~\ensuremath{\blacktriangledown}}" in text
    assert r"{\textendash{}\textsuperscript{1}}" in text


def test_a_long_table_goes_over_pages_with_its_head_on_each():
    text = latex.text(Document("t", (Section("h", (), table([Column("n", str)], list(range(50)))),)))

    assert text.count(r"\endhead") == 1 and text.count(r"\begin{longtable}") == 1


def test_labels_are_those_of_their_headings_and_never_the_same():
    grid = table([Column("n", str)], [1])
    text = latex.text(Document("t", (Section("A table", (), grid), Section("A table", (), grid))))

    assert r"\label{tab:a-table}" in text and r"\label{tab:a-table-2}" in text


def test_a_report_with_every_fate_compiles(tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("LaTeX is not installed")
    records = [
        record.model_copy(update={"reason": HOSTILE if record.reason else "", "pattern": record.pattern + "_µ≈é漢"})
        if not record.is_dense
        else record
        for record in every_fate()
    ]
    (tmp_path / "report.tex").write_text(render(records, format="latex", title=HOSTILE, margin=1.0))
    (tmp_path / "page.tex").write_text(_PAGE)

    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False, timeout=300,
    )  # fmt: skip

    missing = re.search(r"File `(\S+)' not found", done.stdout)
    if missing:
        pytest.skip(f"LaTeX has no {missing[1]}")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "page.pdf").stat().st_size > 10_000
