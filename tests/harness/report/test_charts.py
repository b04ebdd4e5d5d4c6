"""Charts: their numbers are those of the rows, whatever the run; as SVG they are sound, as files they are complete."""

import csv
import math
import subprocess
import sys
from io import StringIO
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from records_at_random import every_fate, runs

from harness.cli._cell_page import _masks as cell_masks
from harness.report import svg
from harness.report.charts import Chart, Panel, Point, Series, Style, _dominated, charts
from harness.report.rows import tables
from harness.results.records import write

_numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda number: float(f"{number:.5g}"))
_any = st.floats(allow_nan=False, allow_infinity=False)


def named(found, name):
    return next((chart for chart in found if chart.name == name), None)


@given(runs())
@settings(max_examples=40, deadline=None)
def test_every_mean_difference_and_interval_of_the_rows_is_drawn_and_nothing_else(records):
    [table] = tables(records, 0.5)
    found = charts([table])

    pruned = [row for row in table.rows if not row.setting.is_dense]
    points = {(p.y, p.half) for panel in _panels(named(found, "metric")) for s in panel.series for p in s.points}
    assert points == {(row.value.mean, row.value.half) for row in pruned if row.value}
    is_dense = not any(row.to_reference for row in table.rows)
    compared = [row.to_dense if is_dense else row.to_reference for row in pruned]
    points = {(p.y, p.half) for panel in _panels(named(found, "difference")) for s in panel.series for p in s.points}
    assert points == {(each.difference.mean, each.difference.half) for each in compared if each}


def _panels(chart):
    return chart.panels if chart else ()


@given(st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), max_size=12), st.booleans())
def test_a_point_is_dominated_if_another_is_no_worse_in_both_and_better_in_one(found, lower):
    sign = 1 if lower else -1

    def beats(one, other):
        (cost, value), (their_cost, theirs) = one, other
        no_worse = cost <= their_cost and sign * value <= sign * theirs
        return no_worse and (cost, value) != (their_cost, theirs)

    expected = [any(beats(other, each) for other in found) for each in found]
    assert _dominated(found, "lower" if lower else "higher") == expected


@given(runs())
@settings(max_examples=40, deadline=None)
def test_a_chart_is_sound_xml_inside_its_frame_with_words_for_every_point(records):
    for chart in charts(tables(records)):
        tree = ElementTree.fromstring(svg.text(chart))

        words = {element.text for element in tree.iter("{http://www.w3.org/2000/svg}title")}
        marked = [p for panel in chart.panels for s in panel.series if s.marked for p in s.points]
        assert {point.name for point in marked} <= words
        assert "nan" not in svg.text(chart) and "inf" not in svg.text(chart)


@given(
    st.lists(st.tuples(_numbers | _any, _numbers | _any, st.none() | st.floats(0, 1e5)), min_size=1, max_size=8),
    st.booleans(),
)
@example([(0.0, 1.0, None), (0.0, 2.2251e-309, None)], False)
@example([(1.0, 1.7e308, None), (2.0, -1.7e308, None)], False)
def test_whatever_the_numbers_they_lie_inside_the_panel(found, is_log):
    points = tuple(Point(x, y, half, "p") for x, y, half in found)
    is_log = is_log and all(point.x > 0 for point in points)
    style = Style(0, "a")
    chart = Chart("c", "t", "x", "y", (Panel("p", (Series("a", points, style, style),), is_log_x=is_log),))

    tree = ElementTree.fromstring(svg.text(chart))

    places = [
        tuple(map(float, element.get("transform")[len("translate(") : -1].split()))
        for element in tree.iter("{http://www.w3.org/2000/svg}path")
        if element.get("pointer-events")
    ]
    _, _, wide, high = map(float, tree.get("viewBox").split())
    assert len(places) == len(points)
    assert all(math.isfinite(x) and 0 <= x <= wide and 0 <= y <= high for x, y in places)


def test_many_points_are_a_few_elements():
    style = Style(0, "a")
    points = tuple(Point(float(n), float(n % 7), None, "a name", n % 3 > 0) for n in range(20_000))
    chart = Chart("c", "t", "x", "y", (Panel("p", (Series("a", points, style, style, joined=False),)),))

    text = svg.text(chart)

    assert "a name" not in text and text.count("<") < 100 and text.count("h0") == 20_000


def test_figures_are_files_in_every_form_with_their_data_and_the_same_again(tmp_path):
    write(tmp_path / "run" / "records.json", every_fate())
    code = "import sys; from harness.cli import main; sys.argv[0] = 'harness'; main()"

    def draw(folder):
        command = [sys.executable, "-c", code, "figures", "run", "-o", folder]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done, again = draw("one"), draw("two")

    assert (done.returncode, again.returncode) == (0, 0), done.stderr
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / each).iterdir()} for each in ("one", "two"))
    names = {"metric", "difference", "pareto", "training", "tensors"}
    assert set(one) == {f"{name}.{form}" for name in names for form in ("pdf", "svg", "png", "csv")}
    assert one == two
    assert one["metric.pdf"].startswith(b"%PDF") and one["metric.png"].startswith(b"\x89PNG")
    rows = list(csv.DictReader(StringIO(one["metric.csv"].decode())))
    means = {row.value.mean for table in tables(every_fate()) for row in table.rows[1:] if row.value}
    assert {float(row["perplexity (test)"]) for row in rows} == means


@given(st.integers(1, 130), st.integers(1, 130), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_a_drawn_mask_keeps_the_share_of_weights_that_it_has(rows, cols, seed):
    mask = np.random.default_rng(seed).random((rows, cols)) < 0.3

    [(_, shares)] = cell_masks({"a": mask}).panels
    tall, wide = -(-rows // len(shares)), -(-cols // len(shares[0]))

    assert max(len(shares), len(shares[0])) <= 60
    whole = sum(
        share * mask[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide].size
        for row, values in enumerate(shares)
        for column, share in enumerate(values)
    )
    assert whole == pytest.approx(mask.sum())
    ElementTree.fromstring(svg.text(cell_masks({"a": mask})))
