"""The pictures of a report, made from the rows of its tables."""

from collections.abc import Sequence
from dataclasses import replace

from harness.report.charts import Chart
from harness.report.pictures.cost import load, pareto
from harness.report.pictures.metric import difference, metric
from harness.report.pictures.tensors import sensitivity, tensors
from harness.report.pictures.training import training
from harness.report.rows import Table

_EVERY = (metric, difference, pareto, load, training, tensors, sensitivity)


def charts(tables: Sequence[Table]) -> tuple[Chart, ...]:
    """The pictures of a report, those that have something to show."""
    found = []
    for number, table in enumerate(tables):
        after = f"-{number + 1}" if len(tables) > 1 else ""
        made = [make(table) for make in _EVERY]
        found += [replace(c, name=c.name + after) for c in made if any(panel.series for panel in c.panels)]
    return tuple(found)
