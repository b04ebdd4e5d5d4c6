"""What panels, series and axes are called, for every picture alike."""

from harness.report import formats
from harness.report.charts import Style
from harness.report.rows import Row, Table

MOST_LINES = 60
"""Lines of one panel, beyond which only those of the highest sparsity are drawn."""


def title_of(row: Row, table: Table) -> str:
    """The panel of a row: its strategy."""
    return f"{row.setting.backend}: {row.setting.strategy}" if len(table.backends) > 1 else row.setting.strategy


def pattern_of(row: Row, table: Table) -> str:
    """The pattern of a row, with its allocation where there are several."""
    setting = row.setting
    return f"{setting.pattern}, {setting.allocation}" if len(table.allocations) > 1 else setting.pattern


def patterns_of(table: Table) -> dict[str, Style]:
    """A style for every pattern, in the order of the rows."""
    names = dict.fromkeys(pattern_of(row, table) for row in pruned(table))
    return {name: Style(place, name) for place, name in enumerate(names)}


def pruned(table: Table) -> list[Row]:
    """The rows but for the dense ones."""
    return [row for row in table.rows if not row.setting.is_dense]


def by_panel(table: Table) -> dict[str, list[Row]]:
    """The pruned rows of every panel."""
    found: dict[str, list[Row]] = {}
    for row in pruned(table):
        found.setdefault(title_of(row, table), []).append(row)
    return found


def metric_of(table: Table) -> str:
    """The metric with its unit."""
    return f"{table.metric}, {table.unit}" if table.unit else table.metric


def in_words(row: Row, table: Table, text: str) -> str:
    """A point in words."""
    return f"{pattern_of(row, table)}, {row.setting.strategy}, {formats.level(row.setting.target_sparsity)}: {text}"


def dense_levels(table: Table, backend: str) -> list[tuple[str, float]]:
    """The dense baseline as a horizontal line."""
    return [
        ("dense", row.value.mean)
        for row in table.rows
        if row.setting.is_dense and row.setting.backend == backend and row.value is not None
    ]


def strategy_of(row: Row) -> str:
    """The strategy of any row."""
    return "dense" if row.setting.is_dense else row.setting.strategy
