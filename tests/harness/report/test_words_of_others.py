"""Names and texts that others chose: whatever they hold, a report in every format is one that can be read and kept."""

import csv
import json
import re
from io import StringIO
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from records_at_random import every_fate

from harness.report import render

TEXTS = ("a\x1b[31m\x00\r\nb", "\ud800 half", "[bold]x[/red]", "\u202egnp", "<b>&amp;</b>", "\x9b31m", "x" * 5_000_000)
"""What terminals act on, files cannot hold, formats take for their own; and too much of it."""

texts = st.one_of(st.sampled_from(TEXTS[:-1]), st.text(st.characters(exclude_categories=()), min_size=1, max_size=30))


def run_of(text):
    """A run with cells of every fate whose names and texts all hold `text`."""
    return [
        record.model_copy(
            update={
                "task": f"t{text}",
                "backend": f"b{text}",
                "pattern": record.pattern if record.is_dense else f"{record.pattern}{text}",
                "strategy": record.strategy if record.is_dense else f"{record.strategy}{text}",
                "metric": f"m{text}",
                "unit": f"u{text}",
                "reason": f"{record.reason}{text}" if record.reason else "",
                "hardware": {f"{name}{text}": cost | {"reason": text} if "reason" in cost else cost
                             for name, cost in record.hardware.items()},
                "tensor_sparsity": {f"{name}{text}": value for name, value in record.tensor_sparsity.items()},
                "versions": {"framework": text, f"h{text}": "1"},
                "facts": record.facts | {f"f{text}": text, "warning": text},
            }
        )
        for record in every_fate()
    ]  # fmt: skip


def assert_can_be_shown(report):
    report.encode()
    assert all(char.isprintable() or char in "\n\u00a0\u202f" for char in set(report)), sorted(
        char for char in set(report) if not char.isprintable()
    )


@pytest.mark.parametrize("form", ["rich", "md", "html", "latex", "json", "csv", "tidy"])
@settings(max_examples=12, deadline=None)
@given(text=texts)
@example(text=TEXTS[0])
@example(text=TEXTS[1])
@example(text=TEXTS[2])
def test_a_report_holds_nothing_that_a_terminal_or_a_file_cannot(form, text):
    report = render(run_of(text), format=form, title=f"Report {text}")

    assert_can_be_shown(report)
    if form == "json":
        assert [record["task"].startswith("t") for record in json.loads(report)] == [True] * len(run_of(text))
    if form in ("csv", "tidy"):
        widths = {len(row) for row in csv.reader(StringIO(report, newline=""))}
        assert len(widths) == 1
    if form == "html":
        for picture in re.findall(r"<svg.*?</svg>", report, re.DOTALL):
            ElementTree.fromstring(picture)


@pytest.mark.parametrize("form", ["rich", "md", "html", "latex", "csv", "tidy"])
def test_a_text_of_five_million_characters_is_shortened_where_it_is_shown(form):
    run = run_of("x" * 50_000)

    assert len(render(run, format=form)) < 3_000_000


def test_markup_of_others_is_text():
    run = run_of("[bold]x[/red]<b>&amp;[y](http://there)")

    assert "[bold]x[/red]<b>" in render(run, format="rich", width=4000)
    page = render(run, format="html")
    assert "<b>" not in page and "[bold]x[/red]&lt;b&gt;&amp;amp;" in page
    assert "](" not in render(run, format="md")
