"""Charts: their numbers are those of the rows, whatever the run; as SVG they are sound, as files they are complete."""

import csv
import math
import re
import subprocess
import sys
from io import StringIO
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from records_at_random import every_fate, runs

from harness.report import svg
from harness.report.charts import Chart, Panel, Point, Series, Style
from harness.report.figures import _colour, _panel, drawn
from harness.report.pictures import charts
from harness.report.pictures.cost import _dominated
from harness.report.pictures.masks import spy
from harness.report.tables import tables
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


def costed(busy, **fields):
    """A pruned cell whose two layers have this work on their PEs, as `np.histogram` counts it."""
    layers = {}
    for name, work in zip("ab", busy, strict=True):
        counts, edges = np.histogram(work, bins=10)
        told = {"pes": counts.tolist(), "from": float(edges[0]), "to": float(edges[-1])}
        layers[name] = {"busy": told}
    cost = {
        "model": "simulator", "engine": "bank", "cycles": 10, "latency_us": 0.5, "fits": True,
        "exact": True, "details": {"layers": layers},
    }  # fmt: skip
    return every_fate()[3].model_copy(update={"hardware": {"simulator": cost}, **fields})


@given(st.lists(st.lists(st.integers(1, 400), min_size=2, max_size=60), min_size=2, max_size=2))
@settings(max_examples=60, deadline=None)
def test_all_pes_are_in_the_chart_of_their_load_near_the_share_that_they_have(busy):
    chart = named(charts(tables([costed(busy)])), "load")

    [series] = chart.panels[0].series
    total = sum(map(len, busy))
    # The records hold ten bins from the least busy PE to the busiest: a share is known to a tenth of that range, or
    # exactly where that is less than a cycle.
    ranges = [max(work) - min(work) for work in busy]
    off = max(r / max(work) / 10 if r >= 10 else 0 for r, work in zip(ranges, busy, strict=True)) + 1e-9
    assert sum(point.y for point in series.points) == pytest.approx(100)
    for point in series.points:
        up_to = sum(each.y for each in series.points if each.x <= point.x) * total / 100
        shares = [each / max(work) for work in busy for each in work]
        low, high = (sum(share <= point.x / 100 + sign * off for share in shares) for sign in (-1, 1))
        assert low - 1e-6 <= up_to <= high + 1e-6


def test_equal_loads_are_all_at_the_end():
    chart = named(charts(tables([costed([[7] * 6, [5] * 6]), costed([[1, 4], [2, 9]], pattern="b", cell="b")])), "load")

    first, second = chart.panels[0].series
    assert [(point.x, point.y) for point in first.points if point.y] == [(100, 100)] and "mean load 100 %" in first.name
    assert "mean load 100 %" not in second.name


def test_of_many_patterns_the_reference_and_the_best_have_their_load_drawn():
    cells = [costed([[1, 4], [2, 9]], pattern=f"p{n}", cell=f"p{n}", value=100.0 + n) for n in range(9)]
    reference = costed([[1, 4], [2, 9]], pattern_name="unstructured", value=500.0)

    chart = named(charts(tables([*cells, reference])), "load")

    drawn = [series.colour.name for series in chart.panels[0].series]
    assert drawn == [*(f"p{n}" for n in range(5)), "unstructured"] and "6 in all" in chart.about[-1]


def test_storage_is_an_axis_for_every_row_whose_masks_were_counted():
    [table] = tables(every_fate())

    [panel] = [panel for panel in named(charts([table]), "pareto").panels if panel.title == "storage"]

    found = {(point.x, point.y) for point in panel.points}
    assert found == {(row.storage["16"].bits / 1000, row.value.mean) for row in table.rows if row.value}


def test_what_does_not_fit_its_device_is_on_no_front_and_beats_nothing_there():
    def cell(pattern, value, latency, *, fits):
        cost = {"model": "simulator", "engine": "bank", "cycles": 10 * latency, "latency_us": latency, "fits": fits}
        found = costed([[1, 4], [2, 9]], pattern=pattern, cell=pattern, value=value)
        return found.model_copy(update={"hardware": {"simulator": cost}, "storage": {}})

    cells = [cell("huge", 90.0, 1.0, fits=False), cell("good", 95.0, 2.0, fits=True), cell("bad", 99.0, 3.0, fits=True)]
    chart = named(charts(tables(cells)), "pareto")
    without = named(charts(tables(cells[1:])), "pareto")

    for panel in chart.panels:
        marks = {point.y: (point.is_dominated, point.mark) for point in panel.points}
        assert marks == {90.0: (True, "✗"), 95.0: (False, ""), 99.0: (True, "")}
    assert "does not fit its device" in chart.about[-1] and "✗" not in " ".join(without.about)
    assert "does not fit its device" in drawn([chart], "svg").decode()


def test_costs_of_others_that_tell_of_layers_in_another_way_have_no_load():
    for layers in ([1], {"a": 3}, {"a": {"busy": [1]}}, {"a": {"busy": {"pes": ["x"]}}},
                   {"a": {"busy": {"pes": [1, 2], "from": 3, "to": "x"}}}):  # fmt: skip
        cell = costed([[1, 2], [3, 4]])
        cell.hardware["simulator"]["details"] = {"layers": layers}

        assert named(charts(tables([cell])), "load") is None


def test_prunings_are_lines_or_strokes_and_stand_in_the_data():
    once = every_fate()[3].model_copy(update={"prunings": ((2.0, 0.9),)})
    gradually = tuple((round(0.1 * place, 1), round(0.045 * place, 3)) for place in range(1, 21))
    often = every_fate()[6].model_copy(update={"strategy": "gradual", "retrain_epochs": 0, "prunings": gradually})
    before = every_fate()[15].model_copy(update={"strategy": "old"})

    chart = named(charts(tables([once, often, before])), "training")

    panels = {panel.title: panel for panel in chart.panels}
    assert panels["fine_tuning"].events == (("prune", 2.0),) and not panels["fine_tuning"].strokes
    assert [place for _, place in panels["gradual"].strokes] == [place for place, _ in gradually]
    assert "to 90 % at epoch 2" in panels["gradual"].strokes[-1][0] and not panels["gradual"].events
    assert panels["old"].events == (("prune", 2.0),)  # of before prunings were noted
    told = [row for row in chart.data() if row["series"] == "event"]
    assert len(told) == 22 and {row["panel"] for row in told} == {"fine_tuning", "gradual", "old"}
    assert svg.text(chart).count("mask update to") == 20


def test_the_metric_is_set_against_the_sparsity_of_each_tensor_where_these_differ():
    one = every_fate()[3]
    sparsities = {"a": {"a": 0.9, "b": 0.1}, "b": {"a": 0.1, "b": 0.9}}
    rows = [one.model_copy(update={"allocation": n, "cell": n, "tensor_sparsity": s}) for n, s in sparsities.items()]
    level = [each.model_copy(update={"tensor_sparsity": {"a": 0.9, "b": 0.9}}) for each in every_fate()[3:6:3]]

    chart = named(charts(tables(rows)), "sensitivity")

    assert [panel.title for panel in chart.panels] == ["a", "b"]
    for panel in chart.panels:
        assert {round(point.x) for point in panel.points} == {10, 90} and {point.y for point in panel.points} == {
            one.value
        }
    assert named(charts(tables(level)), "sensitivity") is None


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


@pytest.mark.parametrize("style", ["thesis", "slides"])
def test_long_titles_stay_above_their_own_panel_and_marks_are_explained(style):
    pattern, title = Style(0, "unstructured"), "gradual(begin_epoch=3, end_epoch=10, every=100, schedule=cubic)"
    points = tuple(Point(x, x, mark="≠" if x == 90 else "") for x in (60.0, 90.0))
    panels = tuple(Panel(f"{title} {number}", (Series("a", points, pattern, pattern),)) for number in range(3))
    chart = Chart("metric", "title", "sparsity", "perplexity", panels)

    lines = re.findall(r"<text[^>]*>([^<]+)</text>", drawn([chart], "svg", style).decode())
    inline = svg.text(chart)

    assert max(map(len, lines)) < len(title) and "kept weights differ, not of one sparsity" in lines
    assert [line for line in lines if line.startswith("gradual")] and lines.count("≠") > 1
    assert f"<title>{title} 0</title>" in inline and f">{title} 0</text>" not in inline


@pytest.mark.parametrize("dodged", [False, True])
def test_a_drawn_panel_shows_every_point_its_interval_its_sign_and_whether_it_is_dominated(dodged):
    from matplotlib.figure import Figure

    first, second = Style(0, "unstructured"), Style(1, "block")
    solid = (Point(1.0, 20.0, 0.5), Point(10.0, 40.0, None, is_dominated=True), Point(100.0, 900.0, 90.0, mark="≠"))
    series = (
        Series("a", solid, first, first, Style(1, "dense")), Series("b", (Point(5.0, 7.0, 2.0),), second, joined=False),
    )  # fmt: skip
    levels = {"levels": (("dense", 30.0),), "events": (("prune", 4.0),), "strokes": (("s", 2.0), ("t", 3.0))}
    panel = Panel("gradual", series, is_log_x=True, **levels)
    axes = Figure().add_subplot()

    _panel(axes, Chart("c", "t", "cost", "perplexity", (panel,), dodged=dodged), panel, title="")

    found = {}
    for container in axes.containers:
        line, _, bars = container.lines
        halves = [(high - low) / 2 for (_, low), (_, high) in bars[0].get_segments()] if bars else []
        for place, (x, y) in enumerate(line.get_xydata()):
            found[x, y] = (
                halves[place] if halves else 0.0, line.get_markerfacecolor() == "none", line.get_color(),
                line.get_marker(),
            )  # fmt: skip
    colours = [_colour(style) for style in (first, second)]
    assert found == {
        (1.0, 20.0): (0.5, False, colours[0], "o"), (10.0, 40.0): (0.0, True, colours[0], "o"),
        (100.0, 900.0): (pytest.approx(90.0), False, colours[0], "o"), (5.0, 7.0): (2.0, False, colours[1], "o"),
    }  # fmt: skip
    # Moved aside on the page and not in value: neighbours by as much to the left as to the right.
    aside = [
        container.lines[0].get_transform().transform((1.0, 20.0))[0] - axes.transData.transform((1.0, 20.0))[0]
        for container in axes.containers
    ]
    step = 1.5 * 100 / 72 if dodged else 0.0  # half of three points, in dots
    assert aside == pytest.approx([-step, -step, step])
    joined = [line.get_xydata().tolist() for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert [[point.x, point.y] for point in solid] in joined
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylim()[0] <= 5.0 and axes.get_ylim()[1] >= 990.0  # intervals lie within
    lines = [line.get_xydata().tolist() for line in axes.get_lines()]
    assert [[0, 30.0], [1, 30.0]] in lines and [[4.0, 0], [4.0, 1]] in lines
    segments = [segment for each in axes.collections for segment in each.get_segments()]
    assert [low[0] for low, high in segments if (low[1], high[1]) == (0, 0.04)] == [2.0, 3.0]
    assert [text.get_text() for text in axes.texts if text.get_text() == "≠"] == ["≠"]
    assert (axes.get_title("left") or axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == (
        "gradual", "cost", "perplexity",
    )  # fmt: skip


@given(st.integers(1, 130), st.integers(1, 130), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_a_drawn_mask_keeps_the_share_of_weights_that_it_has(rows, cols, seed):
    mask = np.random.default_rng(seed).random((rows, cols)) < 0.3

    [(_, shares)] = spy({"a": mask}, "Masks of the finished model").panels
    tall, wide = -(-rows // len(shares)), -(-cols // len(shares[0]))

    assert max(len(shares), len(shares[0])) <= 60
    whole = sum(
        share * mask[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide].size
        for row, values in enumerate(shares)
        for column, share in enumerate(values)
    )
    assert whole == pytest.approx(mask.sum())
    ElementTree.fromstring(svg.text(spy({"a": mask}, "Masks of the finished model")))
