"""One run with cells that failed, diverged, were skipped, wait or were not costed: every format, the same numbers."""

import csv
import html
import json
import math
import re
from io import BytesIO, StringIO

import pytest
from records_at_random import every_fate

from harness.report import parquet, render
from harness.report.tables import tables

FORMATS = ("rich", "md", "html", "latex", "csv", "tidy", "json")
DOCUMENTS = ("rich", "md", "html", "latex")

WITHOUT = [record for record in every_fate() if not record.is_done]
ROWS = [row for table in tables(every_fate(), margin=1.0) for row in table.rows]


def told(form):
    """A report as words: what escapes, markup and broken lines do to a text is undone."""
    text = render(every_fate(), format=form, margin=1.0, width=400)
    if form == "html":
        text = html.unescape(re.sub("<[^>]*>", " ", text))
    return " ".join(text.replace("\\", "").replace("~", " ").split())


@pytest.mark.parametrize("form", FORMATS)
def test_every_cell_without_a_result_is_there_with_its_status_and_reason(form):
    text = told(form)

    assert {record.status for record in WITHOUT} == {"failed", "diverged", "skipped", "planned", "oom"}
    for record in WITHOUT:
        assert record.status in text
        assert record.reason in text


@pytest.mark.parametrize("form", FORMATS)
def test_why_a_cell_was_not_costed_is_there_beside_the_mean_of_the_others(form):
    assert "no such engine" in told(form)


@pytest.mark.parametrize("form", DOCUMENTS)
def test_every_document_has_the_means_and_counts_of_the_rows(form):
    text = told(form)

    for row in ROWS:
        if row.value:
            assert f"{row.value.mean:.2f}" in text
    assert f"{len(every_fate()) - len(WITHOUT)} of {len(every_fate())} planned cells have a result" in text


def test_every_format_has_the_bits_that_the_masks_are_stored_in():
    done = [record for record in every_fate() if record.is_done]
    tidy = csv.DictReader(StringIO(render(every_fate(), format="tidy")))
    rows = [row for row in csv.DictReader(StringIO(render(every_fate(), format="csv"))) if row["storage.16.bits"]]

    for form in DOCUMENTS:
        text = told(form)
        assert "stored" in text and "kbit" in text  # a terminal has the two on lines of their own
        # Two matrices of a thousand weights of 16 bits: all of them, and a tenth of them as banks and as a bitmap.
        assert " 32.0 " in text and " 4.6 " in text
    for form in ("md", "html"):
        assert "csb, bitmap" in told(form)
    assert [float(row["storage w16 [bit]"]) for row in tidy if row["storage w16 [bit]"]] == [
        record.storage["16"].bits for record in done
    ]
    assert {row["storage.16.formats"] for row in rows} == {"dense", "csb bitmap"}
    assert {float(row["storage.16.bits"]) for row in rows} == {32_000, 4_600}


def test_records_of_before_storage_was_counted_have_no_column_for_it():
    older = [record.model_copy(update={"storage": {}}) for record in every_fate()]

    assert not any("stored" in render(older, format=form) for form in ("rich", "md", "html", "csv"))


def test_data_of_every_form_have_the_values_of_the_same_cells():
    pandas = pytest.importorskip("pandas")
    done = {record.cell: record.value for record in every_fate() if record.is_done}
    rows = list(csv.DictReader(StringIO(render(every_fate(), format="tidy"))))
    objects = json.loads(render(every_fate(), format="json"))
    frame = pandas.read_parquet(BytesIO(parquet(every_fate())))

    value = next(name for name in rows[0] if name.startswith("test perplexity"))
    assert {row["cell"]: float(row[value]) for row in rows if row[value]} == done
    assert {each["cell"]: each["value"] for each in objects if each["value"] is not None} == done
    assert {cell: v for cell, v in zip(frame["cell"], frame[value], strict=True) if not math.isnan(v)} == done
    assert len(rows) == len(objects) == len(frame) == len(every_fate())


def test_the_rows_of_csv_are_the_means_over_those_cells():
    found = [row for row in csv.DictReader(StringIO(render(every_fate(), format="csv", margin=1.0))) if row["pattern"]]

    assert [float(row["value"]) for row in found if row["value"]] == [row.value.mean for row in ROWS if row.value]
    assert [int(row["n"]) for row in found] == [row.value.n if row.value else 0 for row in ROWS]


def test_verdicts_of_the_page_stand_in_words_beside_their_signs():
    page = told("html")
    judged = [row for row in ROWS if row.reference_verdict]

    assert judged
    for row in judged:
        mean = f"{row.to_reference.difference.mean:+.2f}"
        assert re.search(rf"{re.escape(mean)}[^|]{{0,40}}{row.reference_verdict}", page)
