"""The metric against what the model costs on hardware, and how evenly its work is spread there."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

from harness.api import JsonValue
from harness.report import formats
from harness.report.charts import Chart, Panel, Point, Series, Style, is_wide
from harness.report.pictures.subjects import (
    by_panel,
    in_words,
    metric_of,
    pattern_of,
    patterns_of,
    pruned,
    strategy_of,
)
from harness.report.rows import Row, Setting, Table, weight_widths

_LOGARITHMIC = 5
"""Largest over smallest cost, beyond which their axis is logarithmic."""

_COSTS = (
    ("cycles", "cycles"),
    ("latency_us", "latency, µs"),
    ("ram_blocks", "RAM blocks"),
    ("energy_uj", "energy, µJ"),
)
"""Costs that the metric is set against, by their name in a record."""


def pareto(table: Table) -> Chart:
    """The metric against costs, dominated settings hollow."""
    model = table.main_model
    labels = table.models.get(model, ()) if model is not None else ()
    # The dense rows are of no pattern and come before all.
    styles = patterns_of(table) | {"dense": Style(-1, "dense")}
    strategies = {name: Style(place, name) for place, name in enumerate(dict.fromkeys(map(strategy_of, table.rows)))}
    panels = []
    for name, cost in _axes(table, labels):
        found = [(row, value) for row in table.rows if row.value and (value := cost(row)) is not None]
        if len({value for _, value in found}) > 1:  # else every row costs the same: nothing is bought
            # Storage is of masks, whatever the device.
            misfits = frozenset[Setting]() if cost.func is _kilobits else _misfits(table, labels)
            series = _against_cost(table, found, name, (styles, strategies), misfits)
            is_log = is_wide([value for _, value in found], _LOGARITHMIC)
            panels.append(Panel(name.partition(",")[0], series, x=name, is_log_x=is_log))
    is_marked = any(point.mark for panel in panels for point in panel.points)
    return Chart(
        "pareto",
        f"{table.task}: {table.metric} against cost",
        "cost",
        f"{metric_of(table)} (test)",
        tuple(panels),
        (
            f"Modelled by {model}, each row on its fastest engine, but for storage, which is counted on masks; "
            f"{table.better} {table.metric} and less cost are better. What varies widely stands on a logarithmic "
            "axis.",
            "Filled points are on the front of means: no other that fits its device is as good and cheaper; hollow "
            "points are dominated. How sure a mean is stands in the tables.",
            *((f"{formats.MISFIT}: does not fit its device, and so on no front.",) if is_marked else ()),
        ),
    )


def _misfits(table: Table, labels: Sequence[str]) -> frozenset[Setting]:
    """Rows whose fastest engine fits no device: what they cost is the cost of nothing that can be built."""
    return frozenset(row.setting for row in table.rows if row.fastest(labels).fits is False)


def _axes(table: Table, labels: Sequence[str]) -> Iterator[tuple[str, "partial[float | None]"]]:
    """What the metric is set against: its name with its unit, and a row's value."""
    for key, name in _COSTS:
        yield name, partial(_cost, labels=labels, key=key)
    # Of every width that some record has: runs of several numbers stand in one report.
    for width in weight_widths(record for row in table.rows for record in row.records):
        yield f"storage, kbit with weights of {width} bits", partial(_kilobits, width=width)


def _kilobits(row: Row, width: str) -> float | None:
    return row.storage[width].bits / 1000 if width in row.storage else None


def _against_cost(
    table: Table,
    found: Sequence[tuple[Row, float]],
    name: str,
    styles: tuple[Mapping[str, Style], Mapping[str, Style]],
    misfits: Collection[Setting],
) -> tuple[Series, ...]:
    """The rows by pattern and strategy, each with its cost and whether another that fits beats it."""
    fitting = [(row, cost) for row, cost in found if row.setting not in misfits]
    beaten = _dominated([(cost, row.value.mean) for row, cost in fitting if row.value], table.better)
    is_beaten = {row.setting: each for (row, _), each in zip(fitting, beaten, strict=True)}
    groups: dict[tuple[str, str], list[Point]] = {}
    for row, cost in found:
        assert row.value is not None
        mark = formats.misfit(row.setting not in misfits)
        text = f"{formats.value(row.value, table.digits)} at {cost:g} {name}" + (f" {mark}" if mark else "")
        words = in_words(row, table, text) if not row.setting.is_dense else f"dense: {text}"
        pattern = "dense" if row.setting.is_dense else pattern_of(row, table)
        # Without bars, which would hide the front.
        point = Point(cost, row.value.mean, None, words, is_beaten.get(row.setting, True), mark)
        groups.setdefault((pattern, strategy_of(row)), []).append(point)
    patterns, strategies = styles
    return tuple(
        Series(f"{pattern}, {strategy}", tuple(points), patterns[pattern], strategies[strategy], joined=False)
        for (pattern, strategy), points in groups.items()
    )


def _cost(row: Row, labels: Sequence[str], key: str) -> float | None:
    """The mean over seeds of a cost, on the engine that is fastest for the row."""
    values = [cost.get(key) for cost in _fastest_costs(row, labels)]
    # Costs of an older store or a broken model may hold anything.
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    return math.fsum(numbers) / len(numbers) if numbers else None


def _fastest_costs(row: Row, labels: Sequence[str]) -> list[Mapping[str, JsonValue]]:
    """What the row's cells cost on the engine that is fastest for the row; empty where none runs it."""
    best = row.fastest(labels)
    label = next((label for label in labels if row.hardware.get(label) == best), None)
    if label is None or best.latency_us is None:
        return []
    return [record.hardware[label] for record in row.records if record.is_done and label in record.hardware]


def _layers(cost: Mapping[str, JsonValue]) -> dict[str, Mapping[str, JsonValue]]:
    """What a cost tells of every layer, as far as it does."""
    details = cost.get("details")
    layers = details.get("layers") if isinstance(details, dict) else None
    return {name: each for name, each in layers.items() if isinstance(each, dict)} if isinstance(layers, dict) else {}


def _dominated(found: Sequence[tuple[float, float]], better: str) -> list[bool]:
    """Which (cost, metric) pairs another one beats in one of the two and meets in the other."""
    sign = 1 if better == "lower" else -1
    # Cheapest first, so that one pass knows the best of all cheaper ones.
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


# --- load of the processing elements --------------------------------------------------------------------------------

_BINS = 10
_MOST_LOADS = 6  # lines of a panel, beyond which none could be followed


def load(table: Table) -> Chart:
    """How evenly the work of a layer is spread over the processing elements, at the highest sparsity that tells it."""
    model = table.main_model
    labels = table.models.get(model, ()) if model is not None else ()
    styles = patterns_of(table)
    shares = {row.setting: _loads(_fastest_costs(row, labels)) for row in pruned(table)}
    # At the highest sparsity only: that is where patterns load an engine differently.
    highest = max((s.target_sparsity for s, found in shares.items() if found), default=None)
    panels, is_cut = [], False
    for title, rows in by_panel(table).items():
        told = [row for row in rows if row.setting.target_sparsity == highest and shares[row.setting]]
        drawn = _first(told, table)
        is_cut = is_cut or len(drawn) < len(told)
        series = []
        for row in drawn:
            found = shares[row.setting]
            name = f"{pattern_of(row, table)}, mean load {_mean(found):.0f} %"
            points = _spread(found, f"{name} on {row.fastest(labels).engine}")
            style = styles[pattern_of(row, table)]
            series.append(Series(name, points, style, style))
        if series:
            panels.append(Panel(title, tuple(series)))
    level = formats.level(highest or 0.0)
    return Chart(
        "load",
        f"{table.task}: load of the processing elements at {level}",
        "work of a PE, % of the busiest one's",
        "PEs, %",
        tuple(panels),
        (
            f"Counted by {model} in every layer, each row on its fastest engine; a layer is done when its busiest PE "
            "is. A point is the part of the PEs with up to so much work and more than the point before: all of them at "
            "100 % are in perfect balance.",
            *((f"Of each strategy, {table.reference} and the best others, {_MOST_LOADS} in all.",) if is_cut else ()),
        ),
    )


def _first(rows: Sequence[Row], table: Table) -> list[Row]:
    """The reference pattern and those with the best metric, in the order of the rows."""
    sign = 1 if table.better == "lower" else -1

    def place(row: Row) -> tuple[bool, float]:
        return row.setting.pattern != table.reference, sign * row.value.mean if row.value else math.inf

    chosen = {row.setting for row in sorted(rows, key=place)[:_MOST_LOADS]}
    return [row for row in rows if row.setting in chosen]


def _loads(costs: Sequence[Mapping[str, JsonValue]]) -> dict[float, float]:
    """How many PEs have which part of the work of the busiest one of their layer, all layers and seeds together."""
    found: dict[float, float] = {}
    for layer in (layer for cost in costs for layer in _layers(cost).values()):
        for share, count in _of_layer(layer.get("busy")):
            found[share] = found.get(share, 0.0) + count
    return found


def _of_layer(busy: JsonValue) -> list[tuple[float, float]]:
    """A layer's PEs by their share of the busiest one's work; empty where it is not told."""
    counts = busy.get("pes") if isinstance(busy, dict) else None
    if not isinstance(busy, dict) or not isinstance(counts, list):
        return []
    numbers = [float(n) for n in counts if isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n < math.inf]
    low, high = busy.get("from"), busy.get("to")
    if not isinstance(low, int | float) or not isinstance(high, int | float) or not 0 <= low < high < math.inf:
        return []
    if len(numbers) != len(counts) or not any(numbers):
        return []
    if sum(number > 0 for number in numbers) == 1:  # all equal: a histogram of one value has a bin around it
        return [(1.0, sum(numbers))]
    step = (high - low) / len(numbers)
    # Of a bin its middle stands for all: which PE did how much within it is not kept.
    return [((low + (place + 0.5) * step) / high, number) for place, number in enumerate(numbers) if number]


def _mean(found: Mapping[float, float]) -> float:
    """The mean load, in per cent of the busiest PE's."""
    return 100 * math.fsum(share * count for share, count in found.items()) / math.fsum(found.values())


def _spread(found: Mapping[float, float], name: str) -> tuple[Point, ...]:
    """The part of the PEs in every tenth of the load."""
    counts = [0.0] * _BINS
    for share, count in found.items():
        # Less a hair: 30 % belongs to the tenth that ends with it, whatever the float says.
        counts[min(_BINS - 1, max(0, math.ceil(share * _BINS - 1e-9) - 1))] += count
    total = math.fsum(counts)
    step = 100 // _BINS
    return tuple(
        Point(
            float(step * (place + 1)),
            100 * count / total,
            None,
            f"{name}: {100 * count / total:.3g} % of the PEs do {step * place} to {step * (place + 1)} %",
        )
        for place, count in enumerate(counts)
    )
