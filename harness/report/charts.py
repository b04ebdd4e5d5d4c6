"""Charts as values: what is drawn, apart from how; a page draws them as SVG, `harness figures` by matplotlib.

A chart is made from the rows of the tables, so that its numbers are those of every other format.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.api import JsonValue
from harness.report import formats
from harness.report.rows import UNEVEN, HardwareCell, Row, Table
from harness.results.statistics import CONFIDENCE

_MOST_LINES = 60
"""Training curves of one panel, beyond which only those of the highest sparsity are drawn."""

_LEVEL_SPREAD = 0.005
"""Sparsities of a row's tensors that differ by less are one sparsity, and no picture."""

_LOGARITHMIC = 20
"""Largest over smallest value, beyond which an axis of positive metrics is logarithmic; of costs it takes less."""

_LOGARITHMIC_COST = 5

_COSTS = (
    ("cycles", "cycles"),
    ("latency_us", "latency, µs"),
    ("ram_blocks", "RAM blocks"),
    ("energy_uj", "energy, µJ"),
)
"""Costs that the metric is set against, by their name in a record."""


class Point(NamedTuple):
    """A value with its interval.

    Args:
        half: half the width of the interval around `y`; None where there is none.
        name: what the point is, in words.
        mark: a sign beside it.
        is_dominated: whether another point of the panel is better in one way and no worse in the other.
    """

    x: float
    y: float
    half: float | None = None
    name: str = ""
    is_dominated: bool = False
    mark: str = ""


class Style(NamedTuple):
    """How a series is told apart: its place among those of its chart, and what the legend calls it."""

    place: int
    name: str


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Args:
        colour: tells patterns apart, mostly.
        shape: of markers; a legend names it where it is not the colour's.
        dash: of lines, as `shape`.
        joined: whether a line goes through the points.
        marked: whether each has a marker.
    """

    name: str
    points: tuple[Point, ...]
    colour: Style
    shape: Style | None = None
    dash: Style | None = None
    joined: bool = True
    marked: bool = True


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Args:
        x: what stands along the horizontal axis, where it is another than the chart's.
        levels: horizontal lines by name; events: vertical ones.
        names: of the places 0, 1, ... of an axis that has no numbers.
        is_log_x: whether the horizontal axis is logarithmic.
    """

    title: str
    series: tuple[Series, ...]
    x: str = ""
    levels: tuple[tuple[str, float], ...] = ()
    events: tuple[tuple[str, float], ...] = ()
    names: tuple[str, ...] = ()
    is_log_x: bool = False

    @property
    def points(self) -> Iterator[Point]:
        """All points."""
        return (point for series in self.series for point in series.points)


@dataclass(frozen=True)
class Chart:
    """A picture of several panels with one vertical axis.

    Args:
        name: short, for files; title: for people; about: how it is read, in sentences.
        x, y: what stands along the axes, with units.
        dodged: whether neighbours are moved apart so that their intervals do not hide each other.
    """

    name: str
    title: str
    x: str
    y: str
    panels: tuple[Panel, ...]
    about: tuple[str, ...] = ()
    dodged: bool = False

    @property
    def is_log_y(self) -> bool:
        """Whether the vertical axis is logarithmic."""
        return _is_wide([point.y for panel in self.panels for point in panel.points], _LOGARITHMIC)

    def data(self) -> list[dict[str, JsonValue]]:
        """What is drawn as rows, unrounded: for CSV."""
        return [
            {
                "panel": panel.title,
                "series": series.name,
                "point": point.name,
                panel.x or self.x: panel.names[int(point.x)] if panel.names else point.x,
                self.y: point.y,
                "half_interval": point.half,
                "dominated": point.is_dominated,
            }
            for panel in self.panels
            for series in panel.series
            for point in series.points
        ]


@dataclass(frozen=True)
class Raster:
    """Matrices of fractions as shades, one panel each: where a mask keeps weights.

    Args:
        name, title, about: as a chart's.
        panels: a title and rows of fractions in [0, 1], 1 for all kept.
    """

    name: str
    title: str
    panels: tuple[tuple[str, tuple[tuple[float, ...], ...]], ...]
    about: tuple[str, ...] = ()

    def data(self) -> list[dict[str, JsonValue]]:
        """What is drawn as rows."""
        return [
            {"panel": title, "row": row, "column": column, "kept": kept}
            for title, rows in self.panels
            for row, values in enumerate(rows)
            for column, kept in enumerate(values)
        ]


def _is_wide(values: Sequence[float], most: float) -> bool:
    """Whether these values need a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > most


def charts(tables: Sequence[Table]) -> tuple[Chart, ...]:
    """The pictures of a report, those that have something to show."""
    found = []
    for number, table in enumerate(tables):
        after = f"-{number + 1}" if len(tables) > 1 else ""
        made = (_metric(table), _difference(table), _pareto(table), _training(table), _tensors(table))
        found += [_named(chart, after) for chart in made if any(panel.series for panel in chart.panels)]
    return tuple(found)


def _named(chart: Chart, after: str) -> Chart:
    return Chart(chart.name + after, chart.title, chart.x, chart.y, chart.panels, chart.about, chart.dodged)


# --- what the charts share ------------------------------------------------------------------------------------------


def _title(row: Row, table: Table) -> str:
    """The panel of a row: its strategy."""
    return f"{row.setting.backend}: {row.setting.strategy}" if len(table.backends) > 1 else row.setting.strategy


def _pattern(row: Row, table: Table) -> str:
    setting = row.setting
    return f"{setting.pattern}, {setting.allocation}" if len(table.allocations) > 1 else setting.pattern


def _patterns(table: Table) -> dict[str, Style]:
    names = dict.fromkeys(_pattern(row, table) for row in _pruned(table))
    return {name: Style(place, name) for place, name in enumerate(names)}


def _pruned(table: Table) -> list[Row]:
    return [row for row in table.rows if not row.setting.is_dense]


def _by_panel(table: Table) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in _pruned(table):
        found.setdefault(_title(row, table), []).append(row)
    return found


def _of_metric(table: Table) -> str:
    return f"{table.metric}, {table.unit}" if table.unit else table.metric


def _words(row: Row, table: Table, text: str) -> str:
    return f"{_pattern(row, table)}, {row.setting.strategy}, {formats.level(row.setting.target_sparsity)}: {text}"


def _dense(table: Table, backend: str) -> list[tuple[str, float]]:
    return [
        ("dense", row.value.mean)
        for row in table.rows
        if row.setting.is_dense and row.setting.backend == backend and row.value is not None
    ]


# --- metric against sparsity ----------------------------------------------------------------------------------------


def _metric(table: Table) -> Chart:
    styles, panels = _patterns(table), []
    for title, rows in _by_panel(table).items():
        series = []
        for name, style in styles.items():
            own = [row for row in rows if _pattern(row, table) == name and row.value is not None]
            points = tuple(
                Point(
                    100 * row.setting.target_sparsity,
                    row.value.mean,
                    row.value.half,
                    _words(row, table, formats.value(row.value, table.digits) + formats.uneven(row.uneven)),
                    mark=formats.uneven(row.uneven),
                )
                for row in own
                if row.value is not None
            )
            if points:
                series.append(Series(name, points, style, style))
        levels = _dense(table, rows[0].setting.backend)
        if table.best_possible is not None:
            levels.append(("best possible", table.best_possible))
        panels.append(Panel(title, tuple(series), levels=tuple(levels)))
    about = [f"Mean over seeds on the test split, {table.better} is better; bars are {CONFIDENCE:.0%} t intervals."]
    if any(row.uneven for row in table.rows):
        about.append(f"{formats.UNEVEN}: kept weights differ by more than {UNEVEN:.0%}, not of one sparsity.")
    return Chart(
        "metric",
        f"{table.task}: {table.metric} against sparsity",
        "target sparsity, %",
        f"{_of_metric(table)} (test)",
        tuple(panels),
        tuple(about),
        dodged=True,
    )


def _difference(table: Table) -> Chart:
    """The paired difference to the reference pattern, or to dense where that is not there."""
    is_dense = not any(row.to_reference for row in table.rows)
    baseline = "dense" if is_dense else table.reference
    styles, panels = _patterns(table), []
    for title, rows in _by_panel(table).items():
        series = []
        for name, style in styles.items():
            points = []
            for row in rows:
                found = row.to_dense if is_dense else row.to_reference
                if _pattern(row, table) == name and found is not None:
                    text = formats.difference(found, table.digits, None)
                    each = found.difference
                    points.append(
                        Point(100 * row.setting.target_sparsity, each.mean, each.half, _words(row, table, text))
                    )
            if points:
                series.append(Series(name, tuple(points), style, style))
        panels.append(Panel(title, tuple(series), levels=((baseline, 0.0),)))
    return Chart(
        "difference",
        f"{table.task}: difference to {baseline} under the same strategy",
        "target sparsity, %",
        f"difference in {_of_metric(table)} (test)",
        tuple(panels),
        (f"Paired by seed, {table.better} is better; bars are {CONFIDENCE:.0%} t intervals of the difference.",),
        dodged=True,
    )


# --- metric against cost --------------------------------------------------------------------------------------------


def _pareto(table: Table) -> Chart:
    model = table.main_model
    labels = table.models.get(model, ()) if model is not None else ()
    styles = _patterns(table) | {"dense": Style(-1, "dense")}
    strategies = {name: Style(place, name) for place, name in enumerate(dict.fromkeys(map(_strategy, table.rows)))}
    panels = []
    for key, name in _COSTS:
        found = [(row, cost) for row in table.rows if row.value and (cost := _cost(row, labels, key)) is not None]
        if len({cost for _, cost in found}) < 2:
            continue  # every row costs the same: nothing is bought
        front = _dominated([(cost, row.value.mean) for row, cost in found if row.value], table.better)
        groups: dict[tuple[str, str], list[Point]] = {}
        for (row, cost), is_dominated in zip(found, front, strict=True):
            assert row.value is not None
            text = f"{formats.value(row.value, table.digits)} at {cost:g} {name}"
            words = _words(row, table, text) if not row.setting.is_dense else f"dense: {text}"
            point = Point(cost, row.value.mean, None, words, is_dominated)
            pattern = "dense" if row.setting.is_dense else _pattern(row, table)
            groups.setdefault((pattern, _strategy(row)), []).append(point)
        series = [
            Series(f"{pattern}, {strategy}", tuple(points), styles[pattern], strategies[strategy], joined=False)
            for (pattern, strategy), points in groups.items()
        ]
        is_log = _is_wide([cost for _, cost in found], _LOGARITHMIC_COST)
        panels.append(Panel(name.partition(",")[0], tuple(series), x=name, is_log_x=is_log))
    return Chart(
        "pareto",
        f"{table.task}: {table.metric} against cost",
        "cost",
        f"{_of_metric(table)} (test)",
        tuple(panels),
        (
            f"Modelled by {model}, each row on its fastest engine; {table.better} {table.metric} and less cost are "
            "better. A cost that varies widely stands on a logarithmic axis.",
            "Filled points are on the front: no other is as good and cheaper; hollow points are dominated.",
        ),
    )


def _strategy(row: Row) -> str:
    return "dense" if row.setting.is_dense else row.setting.strategy


def _cost(row: Row, labels: Sequence[str], key: str) -> float | None:
    """The mean over seeds of a cost, on the engine that is fastest for the row."""
    best = row.fastest(labels)
    label = next((label for label in labels if _same(row.hardware.get(label), best)), None)
    if label is None or best.latency_us is None:
        return None
    values = [record.hardware[label].get(key) for record in row.records if record.is_done and label in record.hardware]
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    return math.fsum(numbers) / len(numbers) if numbers else None


def _same(cell: HardwareCell | None, other: HardwareCell) -> bool:
    return cell is not None and cell == other


def _dominated(found: Sequence[tuple[float, float]], better: str) -> list[bool]:
    """Which (cost, metric) pairs another one beats in one of the two and meets in the other."""
    sign = 1 if better == "lower" else -1
    order = sorted(range(len(found)), key=lambda place: (found[place][0], sign * found[place][1]))
    dominated = [False] * len(found)
    best, at = math.inf, math.inf
    for place in order:
        cost, value = found[place][0], sign * found[place][1]
        # Equal pairs dominate each other not at all; the first of equal metrics is the cheapest.
        dominated[place] = value > best or (value == best and cost > at)
        if value < best:
            best, at = value, cost
    return dominated


# --- training -------------------------------------------------------------------------------------------------------


def _training(table: Table) -> Chart:
    styles, panels, is_cut = _patterns(table), [], False
    levels = sorted({row.setting.target_sparsity for row in _pruned(table)})
    dashes = {level: Style(place, formats.level(level)) for place, level in enumerate(levels)}
    for title, rows in _by_panel(table).items():
        drawn = [row for row in rows if _history(row)]
        if len(drawn) > _MOST_LINES:
            highest = max(row.setting.target_sparsity for row in drawn)
            drawn, is_cut = [row for row in drawn if row.setting.target_sparsity == highest], True
        series = []
        for row in drawn[:_MOST_LINES]:
            name = f"{_pattern(row, table)}, {formats.level(row.setting.target_sparsity)}"
            points = tuple(Point(float(epoch), value, None, name) for epoch, value in _history(row).items())
            dash = dashes[row.setting.target_sparsity] if len(levels) > 1 else None
            series.append(Series(name, points, styles[_pattern(row, table)], None, dash, marked=False))
        prunes = dict.fromkeys(row.total_epochs - row.retrain_epochs for row in drawn if row.retrain_epochs)
        panels.append(Panel(title, tuple(series), events=tuple(("prune", float(epoch)) for epoch in prunes)))
    about = [f"On the validation split after every trained epoch, mean over seeds; {table.better} is better."]
    if any(panel.events for panel in panels):
        about.append("Vertical lines: the first one-shot prune.")
    if is_cut:
        about.append("Where there would be too many lines, only those of the highest sparsity are drawn.")
    return Chart(
        "training",
        f"{table.task}: training curves",
        "trained epochs",
        f"{_of_metric(table)} (valid)",
        tuple(panels),
        tuple(about),
    )


def _history(row: Row) -> Mapping[int, float]:
    """Mean validation value by epoch, over the seeds that have as many."""
    found = [record.valid_history for record in row.records if record.is_done and record.valid_history]
    length = max(map(len, found), default=0)
    values: dict[int, float] = {}
    for epoch in range(length):
        each = [history[epoch] for history in found if len(history) == length]
        numbers = [value for value in each if value is not None]
        if numbers:
            values[epoch + 1] = math.fsum(numbers) / len(numbers)
    return values


# --- tensors --------------------------------------------------------------------------------------------------------


def _tensors(table: Table) -> Chart:
    styles, panels = _patterns(table), []
    levels = sorted({row.setting.target_sparsity for row in _pruned(table)})
    dashes = {level: Style(place, formats.level(level)) for place, level in enumerate(levels)}
    for title, rows in _by_panel(table).items():
        uneven = [row for row in rows if row.tensors and _spread(row.tensors) > _LEVEL_SPREAD]
        names = tuple(dict.fromkeys(name for row in uneven for name in row.tensors))
        series = [
            Series(
                f"{_pattern(row, table)}, {formats.level(row.setting.target_sparsity)}",
                tuple(
                    Point(float(names.index(name)), 100 * sparsity, None, f"{name}: {100 * sparsity:.1f} %")
                    for name, sparsity in row.tensors.items()
                ),
                styles[_pattern(row, table)],
                styles[_pattern(row, table)],
                dashes[row.setting.target_sparsity] if len(levels) > 1 else None,
            )
            for row in uneven[:_MOST_LINES]
        ]
        if series:
            panels.append(Panel(title, tuple(series), names=names))
    return Chart(
        "tensors",
        f"{table.task}: sparsity of every tensor",
        "",
        "sparsity, %",
        tuple(panels),
        ("Counted on masks, mean over seeds; rows whose tensors are all equally sparse are left out.",),
    )


def _spread(tensors: Mapping[str, float]) -> float:
    return max(tensors.values()) - min(tensors.values())
