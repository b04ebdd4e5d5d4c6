"""The metric against sparsity, and its paired difference to the reference pattern."""

from harness.report import formats
from harness.report.charts import Chart, Panel, Point, Series
from harness.report.pictures.subjects import by_panel, dense_levels, in_words, metric_of, pattern_of, patterns_of
from harness.report.rows import UNEVEN, Table
from harness.results.statistics import CONFIDENCE

_UNEVEN = f"{formats.UNEVEN}: kept weights differ by more than {UNEVEN:.0%}, not of one sparsity."


def metric(table: Table) -> Chart:
    """The metric against sparsity, a panel for every strategy."""
    styles, panels = patterns_of(table), []
    for title, rows in by_panel(table).items():
        series = []
        for name, style in styles.items():
            own = [row for row in rows if pattern_of(row, table) == name and row.value is not None]
            points = tuple(
                Point(
                    100 * row.setting.target_sparsity,
                    row.value.mean,
                    row.value.half,
                    in_words(row, table, formats.value(row.value, table.digits) + formats.uneven(row.uneven)),
                    mark=formats.uneven(row.uneven),
                )
                for row in own
                if row.value is not None
            )
            if points:
                series.append(Series(name, points, style, style))
        # Of the panel's backend: dense models of others are no baseline for it.
        levels = dense_levels(table, rows[0].setting.backend)
        if table.best_possible is not None:
            levels.append(("best possible", table.best_possible))
        panels.append(Panel(title, tuple(series), levels=tuple(levels)))
    about = [f"Mean over seeds on the test split, {table.better} is better; bars are {CONFIDENCE:.0%} t intervals."]
    if any(row.uneven for row in table.rows):
        about.append(_UNEVEN)
    return Chart(
        "metric",
        f"{table.task}: {table.metric} against sparsity",
        "target sparsity, %",
        f"{metric_of(table)} (test)",
        tuple(panels),
        tuple(about),
        dodged=True,
    )


def difference(table: Table) -> Chart:
    """The paired difference to the reference pattern, or to dense where that is not there."""
    # For all rows alike: a picture of two baselines could not be read.
    is_dense = not any(row.to_reference for row in table.rows)
    baseline = "dense" if is_dense else table.reference
    styles, panels = patterns_of(table), []
    for title, rows in by_panel(table).items():
        series = []
        for name, style in styles.items():
            points = []
            for row in rows:
                found = row.to_dense if is_dense else row.to_reference
                if pattern_of(row, table) == name and found is not None:
                    # Differences at other kept weights are not of one sparsity, as in the tables.
                    mark = formats.uneven(row.uneven_reference and not is_dense)
                    text = formats.difference(found, table.digits, None) + mark
                    each = found.difference
                    points.append(
                        Point(
                            100 * row.setting.target_sparsity, each.mean, each.half, in_words(row, table, text),
                            mark=mark,
                        )
                    )  # fmt: skip
            if points:
                series.append(Series(name, tuple(points), style, style))
        panels.append(Panel(title, tuple(series), levels=((baseline, 0.0),)))
    about = [f"Paired by seed, {table.better} is better; bars are {CONFIDENCE:.0%} t intervals of the difference."]
    if any(point.mark for panel in panels for point in panel.points):
        about.append(_UNEVEN)
    return Chart(
        "difference",
        f"{table.task}: difference to {baseline} under the same strategy",
        "target sparsity, %",
        f"difference in {metric_of(table)} (test)",
        tuple(panels),
        tuple(about),
        dodged=True,
    )
