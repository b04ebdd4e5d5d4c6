"""Tables of documents, as every format renders them: nothing is cut, however narrow the terminal."""

import csv
from io import StringIO

from hypothesis import given
from hypothesis import strategies as st
from uncut import LEFT_OUT, check_uncut, left_out

from harness.report import markdown, rich, tabular
from harness.report.page import Column, Document, Noted, Section, missing, table


def column(header, place, **options):
    return Column(header, lambda row: row[place], lambda row: {header: row[place]}, **options)


def of_numbers(count, **options):
    """One row of long numbers below short headers, behind a name."""
    row = ("a_name_of_twenty_char", *(f"{10**7 + place}" for place in range(count)))
    numbers = [column(f"n{place}", place + 1, **options) for place in range(count)]
    return [column("name", 0, kind="label", matters="key"), *numbers], [row]


def document(columns, rows, **options):
    return Document("", (Section("", (), table(columns, rows, **options)),))


# --- a terminal -----------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.text("0123456789,.±- ()abc_", min_size=1, max_size=30).filter(str.strip),
            st.sampled_from(["label", "number", "text"]),
            st.sampled_from(["key", "main", "second", "extra"]),
            st.sampled_from(["", "one", "other"]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 200),
)
def test_nothing_is_cut_whatever_the_table(cells, width):
    columns = [
        column(f"h{place}", place, kind=kind, matters=matters, subject=subject)
        for place, (_, kind, matters, subject) in enumerate(cells)
    ]

    check_uncut(document(columns, [tuple(text for text, *_ in cells)] * 2), width)


def test_a_table_too_wide_is_cut_in_parts_that_begin_with_its_keys():
    text = rich.text(document(*of_numbers(4)), 45)

    assert [line.split() for line in text.splitlines() if line.startswith("a_name")] == [
        ["a_name_of_twenty_char", "10000000", "10000001"],
        ["a_name_of_twenty_char", "10000002", "10000003"],
    ]


def test_columns_of_little_weight_are_left_out_and_named_before_a_table_has_many_parts():
    text = rich.text(document(*of_numbers(12, matters="extra")), 45)

    assert left_out(text) == {"n8", "n9", "n10", "n11"}
    assert "10000007" in text and "10000008" not in text
    assert LEFT_OUT not in rich.text(document(*of_numbers(12, matters="main")), 45)


def test_a_number_wider_than_the_terminal_goes_over_its_width():
    number = "1" * 60

    assert number in rich.text(document([column("n", 0)], [(number,)]), 20)


def test_columns_of_one_subject_stay_together_or_name_it():
    columns, rows = of_numbers(2)
    pair = [column("µs", 3, subject="engine_a"), column("speed-up", 4, subject="engine_a")]
    row = (*rows[0], "5.25", "17.5×")

    together = rich.text(document([*columns, *pair], [row]), 52)
    apart = rich.text(document([*columns, *pair], [row]), 28)

    assert any("5.25" in line and "17.5×" in line for line in together.splitlines())
    assert apart.count("engine_") == 2  # each of the two says of what it is


def test_texts_share_what_the_other_columns_leave():
    columns = [column("n", 0), column("why", 1, kind="text")]
    text = rich.text(document(columns, [("12", "one two three four five six seven")]), 24)

    assert max(map(len, text.splitlines())) <= 24
    assert text.split()[-7:] == ["one", "two", "three", "four", "five", "six", "seven"]


# --- every format ---------------------------------------------------------------------------------------------------


def test_a_reason_is_a_footnote_once_and_an_empty_field_in_csv():
    columns = [
        Column("n", lambda row: missing("not run") if row is None else str(row), lambda row: {"n": row}),
        Column("m", lambda row: Noted("1/2", "") if row is None else "2", lambda row: {"m": row == 3}),
    ]
    rows = [None, 3, None]

    text = rich.text(document(columns, rows), 80)
    assert text.count("–¹") == 2 and text.count("¹ not run") == 1 and "1/2" in text
    page = markdown.text(document(columns, rows))
    assert "| –¹ | 1/2 |" in page and "- ¹ not run" in page
    found = list(csv.DictReader(StringIO(tabular.text(document(columns, rows, medium="data")))))
    assert found == [{"n": "", "m": "no"}, {"n": "3", "m": "yes"}, {"n": "", "m": "no"}]


def test_a_column_is_there_where_its_medium_and_its_rows_need_it():
    columns = [
        Column("everywhere", str, lambda row: {"every": row}),
        Column("terminal", str, on="terminal"),
        Column("page", str, on="page", about="How the page is read."),
        Column("never", str, when=lambda rows: len(rows) > 9),
        Column("", None, lambda row: {"data": -row}),
    ]

    found = {medium: table(columns, [1, 2], medium) for medium in ("terminal", "page", "data")}

    assert [column.title for column in found["terminal"].columns] == ["everywhere", "terminal"]
    assert [column.title for column in found["page"].columns] == ["everywhere", "page"]
    assert found["page"].caption == ("How the page is read.",) and not found["terminal"].caption
    assert found["data"].data == ({"every": 1, "data": -1}, {"every": 2, "data": -2})
