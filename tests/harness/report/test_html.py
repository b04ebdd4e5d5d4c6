"""The page: whole in one file, true to the other formats, whatever the run and its names."""

import re
from html.parser import HTMLParser

from hypothesis import given, settings
from records_at_random import HOSTILE, every_fate, runs

from harness.report import html, render
from harness.report.document import build
from harness.report.html import fragment
from harness.report.page import Column, Document, Section, table

_VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """What a page shows: its tables as rows of texts, every text, every attribute; and whether its tags match."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.texts, self.attributes, self._open, self._cell = [], [""], [], [], None
        self._goes_on = False
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in _VOID:
            self._open.append(tag)
        self._goes_on = tag == "code"
        if self._goes_on:  # as it is written in a sentence
            self.texts[-1] += "`"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        self._goes_on = tag == "code"
        if self._goes_on:
            self.texts[-1] += "`"
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self._cell)
            self._cell = None

    def handle_data(self, data):
        if self._open[-1:] in (["style"], ["script"]):
            return
        if self._goes_on:
            self.texts[-1] += data
        else:
            self.texts.append(data)
        if self._cell is not None:
            self._cell += data

    def ids(self):
        return [value for _, name, value in self.attributes if name == "id"]


@given(runs())
@settings(max_examples=30, deadline=None)
def test_every_text_of_the_document_stands_in_the_page_and_every_number_in_its_cell(records):
    document = build(records, title="any", margin=0.5, medium="page", pictures=True, every_cell=True)

    page = Page(html.text(document))

    told = " ".join(page.texts)
    for section in document.sections:
        assert all(text in told for text in (*section.sentences, *section.warnings))
        if section.grid is not None:
            assert all(line in told for line in (*section.grid.notes, *section.grid.caption))
            titles = [column.title for column in section.grid.columns]
            rows = [[cell.text for cell in row] for row in section.grid.rows]
            assert [titles, *rows] in page.tables
        for chart in section.charts:
            assert chart.title in told and all(line in told for line in chart.about)


@given(runs())
@settings(max_examples=30, deadline=None)
def test_a_page_needs_nothing_from_outside_and_runs_no_code_of_a_name(records):
    page = Page(render(records, format="html", title=HOSTILE, margin=0.5))

    links = [(value, name) for _, name, value in page.attributes if name in ("src", "href", "action", "srcset")]
    assert all(value.startswith(("#", "data:")) for value, _ in links)
    assert [name for _, name, _ in page.attributes if name.startswith("on")] == []
    assert len(set(page.ids())) == len(page.ids())
    anchors = {value[1:] for value, _ in links if value.startswith("#")}
    described = {value for _, name, value in page.attributes if name == "aria-labelledby"}
    assert anchors | described <= set(page.ids())


def test_names_are_texts_and_end_no_script():
    rows = [f"{HOSTILE} {number}" for number in range(400)]
    long = Document("t", (Section("h", (), table([Column(HOSTILE, str)], rows)),))

    text = html.text(long)

    assert text.count("<script") == 2 and text.count("</script>") == 2  # the rows, and the page's own
    page = Page(text)
    assert page.tables == [[[HOSTILE], *([row] for row in rows[:300])]]
    assert "The first 300 of 400 rows" in " ".join(page.texts)
    assert text.count("alert") == 300 + 400 + 1  # rows in the page, all beside it, and the header


def test_cells_without_a_result_are_in_the_page_with_their_reasons():
    told = Page(render(every_fate(), format="html")).texts

    for reason in ("the loss became nan at step 7", "RuntimeError: out of luck", "n_m: 2:4 reaches 0.5"):
        assert any(reason in text for text in told)
    assert sum(text in ("failed", "diverged", "skipped", "planned", "oom") for text in told) >= 5


def test_a_fragment_has_the_tables_and_pictures_and_no_script():
    text = fragment(build(every_fate(), title="t", margin=1.0, medium="page", pictures=True, every_cell=True))

    page = Page(text)
    assert "<svg" in text and "<script" not in text and len(page.tables) > 5


def test_a_page_is_the_same_for_the_same_records():
    assert render(every_fate(), format="html") == render(every_fate(), format="html")
    assert not re.search(r"\d{4}-\d\d-\d\d", render(every_fate(), format="html"))
