"""Pictures of a cost: which engines are drawn, in which order, and that nothing in them is cut or touches."""

import re

from harness.api import Cost
from harness.costing.costs import Report, Row
from harness.costing.pictures import pictures
from harness.report import svg
from harness.report.charts import Chart, Panel, Point, Series, Style


def row(engine, cycles, *, fits=True):
    layers = {"l": {"cycles": cycles, "parts": {"compute": 0.5 * cycles, "fill_drain": 0.5 * cycles}}}
    cost = Cost(
        cycles=round(cycles), latency_us=cycles / 100, clock_mhz=100, dense_cycles=900, dense_latency_us=9, speedup=9.0,
        gops=1, effective_gops=1, utilisation=1, multipliers=1, dsp=1, ram_blocks=1, ram_kind="m20k", fits=fits,
        resident=fits, bound_by="compute", details={"layers": layers},
    )  # fmt: skip
    return Row("model", engine, cost)


def bars(*rows):
    (found,) = [each for each in pictures(Report(rows, ()), {}) if each.name == "cycles"]
    return found


def test_engines_that_fit_come_first_and_decide_what_is_near():
    """A design that nobody can build must not take the others off the picture."""
    found = bars(row("dense", 337), row("circuit", 25, fits=False), row("bank", 73), row("far", 52_000))
    ((_, drawn),) = found.panels

    assert [(bar.name, bar.mark) for bar in drawn] == [("bank", ""), ("dense", ""), ("circuit", " ✗")]
    assert "more than 10 times bank: far (52,000 cycles)" in " ".join(found.about)


def test_totals_have_no_more_digits_than_tables():
    assert ">5,735</text>" in svg.text(bars(row("bank", 5734.98)))
    assert ">30.75</text>" in svg.text(bars(row("bank", 30.7454)))


def test_markers_at_the_ends_of_decades_are_whole():
    style = Style(0, "bank")
    points = (Point(0.25, 0.004), Point(1000.0, 600.0))
    chart = Chart("c", "c", "x", "y", (Panel("", (Series("bank", points, style, style),), is_log_x=True),))
    drawn = svg.text(chart)
    frame = re.search(r'd="M(\d+) (\d+)V(\d+)H(\d+)"', drawn)
    left, top, bottom, right = map(float, frame.groups())
    marks = re.findall(r'transform="translate\(([\d.]+) ([\d.]+)\)" stroke', drawn)
    places = [tuple(map(float, mark)) for mark in marks]

    assert len(places) == 2
    assert all(left + 4 < x < right - 4 and top + 4 < y < bottom - 4 for x, y in places)
