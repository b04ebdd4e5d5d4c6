"""Sweeps: which designs no other beats, and the values of an axis."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Cost, SpecError
from harness.costing.costs import Row
from harness.costing.sweep import Point, _panel, csv_text, numbers, point_json, whole_numbers, with_fronts


def design(latency_us, multipliers, *, fits=True, model="one", luts=None):
    cost = Cost(
        cycles=1, latency_us=latency_us, clock_mhz=1, dense_cycles=1, dense_latency_us=1, speedup=1, gops=1,
        effective_gops=1, utilisation=1, multipliers=multipliers, dsp=multipliers, ram_blocks=multipliers,
        ram_kind="m20k", fits=fits, can_run=fits, resident=True, bound_by="compute",
        details={"logic": None if luts is None else {"share_of_ceiling": luts}},
    )  # fmt: skip
    return Point(Row(model, "engine", cost), budget=multipliers, fifo_depth=None)


SIZES = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=12)


@given(SIZES)
def test_something_is_on_the_front_and_everything_else_is_beaten_by_it(sizes):
    points = with_fronts([design(*size) for size in sizes])

    front = {(p.row.cost.latency_us, p.row.cost.multipliers) for p in points if "multipliers" in p.fronts}
    assert front
    for latency, multipliers in set(sizes) - front:
        assert any(fast <= latency and few <= multipliers for fast, few in front)


@given(SIZES)
def test_along_a_front_faster_is_larger(sizes):
    points = with_fronts([design(*size) for size in sizes])

    front = sorted({(p.row.cost.latency_us, p.row.cost.multipliers) for p in points if "multipliers" in p.fronts})
    assert [m for _, m in front] == sorted((m for _, m in front), reverse=True)
    assert len({latency for latency, _ in front}) == len(front)


def test_designs_that_cannot_be_built_neither_lie_on_a_front_nor_beat_anything():
    huge, small = with_fronts([design(1, 1, fits=False), design(2, 2)])

    assert huge.fronts == () and small.fronts == ("multipliers", "RAM", "DSP", "bandwidth")


def test_logic_that_nobody_knows_is_on_no_front_of_luts_and_beats_none():
    unknown, small, large = with_fronts([design(1, 1), design(2, 2, luts=0.1), design(3, 3, luts=0.2)])

    assert [("LUT" in point.fronts) for point in (unknown, small, large)] == [False, True, False]
    assert [point_json(point)["logic_percent"] for point in (unknown, small)] == [None, 10.0]


def test_models_are_not_compared_with_each_other():
    points = with_fronts([design(1, 1), design(2, 2, model="two")])

    assert all(point.fronts for point in points)


def test_an_engine_that_cannot_run_is_a_line_with_its_reason():
    refused = Point(Row("one", "n_m", None, "it keeps 3 of 4"), budget=4, fifo_depth=None)

    assert point_json(refused)["reason"] == "it keeps 3 of 4"
    assert "it keeps 3 of 4" in csv_text([design(1, 1), refused]).splitlines()[2]


def test_values_of_an_axis_come_once_and_in_order():
    assert whole_numbers("4, 2,4", "--sizes") == (4, 2)
    assert numbers("100,1e2,50.5", "--clock") == (100.0, 50.5)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1,,2", "two"])
def test_whole_numbers_are_above_0(text):
    with pytest.raises(SpecError, match="--sizes: expected whole numbers above 0"):
        whole_numbers(text, "--sizes")


@pytest.mark.parametrize("text", ["", "0", "-1", "inf", "nan", "fast"])
def test_numbers_are_finite_and_above_0(text):
    with pytest.raises(SpecError, match="--clock: expected numbers above 0"):
        numbers(text, "--clock")


def test_labels_of_a_front_lie_within_their_panel_and_ticks_do_not_touch():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sizes = [(1000.0 / 2**step, 2**step) for step in range(12)]
    points = [replace(p, row=replace(p.row, cost=p.row.cost.model_copy(update={"shape": "pes=200 lanes=16"})))
              for p in with_fronts([design(*size) for size in sizes])]  # fmt: skip
    figure = Figure(figsize=(5.0, 4.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _panel(axes, points, "multipliers")
    canvas.draw()
    renderer, frame = canvas.get_renderer(), axes.get_window_extent()
    labels = [text.get_window_extent(renderer) for text in axes.texts]
    low, high = axes.get_xlim()
    shown = [tick for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    ticks = sorted((tick.label1.get_window_extent(renderer) for tick in shown), key=lambda box: box.x0)

    assert labels
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in labels)
    assert all(one.x1 < other.x0 for one, other in pairwise(ticks))
