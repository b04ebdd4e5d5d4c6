"""Training curves with their prunings."""

import math
from collections.abc import Iterable, Mapping

from harness.report import formats
from harness.report.charts import Chart, Panel, Point, Series, Style
from harness.report.pictures.subjects import MOST_LINES, by_panel, metric_of, pattern_of, patterns_of, pruned
from harness.report.rows import Row, Table
from harness.results.records import Record

_FEW = 6
"""Prunings of a cell, beyond which they are strokes on the axis instead of lines across the picture."""


def training(table: Table) -> Chart:
    """The validation metric by epoch, with the prunings on the way."""
    styles, panels, is_cut = patterns_of(table), [], False
    levels = sorted({row.setting.target_sparsity for row in pruned(table)})
    dashes = {level: Style(place, formats.level(level)) for place, level in enumerate(levels)}
    for title, rows in by_panel(table).items():
        drawn = [row for row in rows if _history(row)]
        if len(drawn) > MOST_LINES:
            highest = max(row.setting.target_sparsity for row in drawn)
            drawn, is_cut = [row for row in drawn if row.setting.target_sparsity == highest], True
        series = []
        for row in drawn[:MOST_LINES]:
            name = f"{pattern_of(row, table)}, {formats.level(row.setting.target_sparsity)}"
            points = tuple(Point(float(epoch), value, None, name) for epoch, value in _history(row).items())
            dash = dashes[row.setting.target_sparsity] if len(levels) > 1 else None
            series.append(Series(name, points, styles[pattern_of(row, table)], None, dash, marked=False))
        # Of what is drawn only: prunings of rows that were left out would mark nothing.
        events, strokes = prunings_of(record for row in drawn for record in row.records if record.is_done)
        panels.append(Panel(title, tuple(series), events=events, strokes=strokes))
    about = [f"On the validation split after every trained epoch, mean over seeds; {table.better} is better."]
    about += in_sentences(panels)
    if is_cut:
        about.append("Where there would be too many lines, only those of the highest sparsity are drawn.")
    return Chart(
        "training",
        f"{table.task}: training curves",
        "trained epochs",
        f"{metric_of(table)} (valid)",
        tuple(panels),
        tuple(about),
    )


def prunings_of(records: Iterable[Record]) -> tuple[tuple[tuple[str, float], ...], tuple[tuple[str, float], ...]]:
    """When cells were pruned: one-shot prunings as events, and the many of a gradual schedule as strokes, by name.

    Records of before prunings were noted tell the first one-shot prune alone.
    """
    events: dict[float, str] = {}
    strokes: dict[float, str] = {}
    for record in records:
        # Without noted prunings a cell that retrains was pruned once, before its retraining.
        if not record.prunings and record.retrain_epochs:
            events[float(record.total_epochs - record.retrain_epochs)] = "prune"
        for epoch, sparsity in record.prunings:
            found = strokes if len(record.prunings) > _FEW else events
            # The first cell that was pruned there names it; the sparsities of others are not told.
            found.setdefault(epoch, f"mask update to {100 * sparsity:.3g} % at epoch {epoch:.4g}")
    # One word for a row of lines: their places tell the rest.
    lines = [("" if number else "prune", epoch) for number, epoch in enumerate(sorted(events))]
    return tuple(lines), tuple((name, epoch) for epoch, name in sorted(strokes.items()))


def in_sentences(panels: Iterable[Panel]) -> list[str]:
    """How the prunings in training curves are to be read."""
    found = []
    if any(panel.events for panel in panels):
        found.append("Vertical lines: the model is pruned at once.")
    if any(panel.strokes for panel in panels):
        found.append("Strokes along the bottom: the masks are made anew during the training.")
    return found


def _history(row: Row) -> Mapping[int, float]:
    """Mean validation value by epoch, over the seeds that have as many."""
    found = [record.valid_history for record in row.records if record.is_done and record.valid_history]
    # Runs that ended early would make the mean jump where they end.
    length = max(map(len, found), default=0)
    values: dict[int, float] = {}
    for epoch in range(length):
        each = [history[epoch] for history in found if len(history) == length]
        numbers = [value for value in each if value is not None]
        if numbers:
            values[epoch + 1] = math.fsum(numbers) / len(numbers)
    return values
