"""A picture of the metric against sparsity: one line per pattern and strategy, one panel per task and backend."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api import PluginUnavailableError, SpecError, StoreError
from harness.report import formats
from harness.report.rows import UNEVEN, Row, Table, tables
from harness.results.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P")
# By suffix, the metadata that would change with the date of drawing.
_SUFFIXES: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".png": {}, ".pdf": {"CreationDate": None}}
_PANEL_INCHES = (7.0, 4.5)


def picture(records: Sequence[Record], path: Path) -> None:
    """Draw the report's rows, in the format that the file's suffix names (.svg, .png, .pdf); equal rows, equal bytes.

    Colours tell patterns apart, lines and markers strategies; bars are 95 % intervals over seeds.

    Raises:
        SpecError: the suffix names no such format.
        PluginUnavailableError: matplotlib is not installed.
        EmptySelectionError: there are no records.
        StoreError: two records are of the same cell, or the file cannot be written.
    """
    if path.suffix not in _SUFFIXES:
        raise SpecError(f"picture: expected a file ending in {', '.join(_SUFFIXES)}, got {path.name!r}; rename it")
    if find_spec("matplotlib") is None:
        raise PluginUnavailableError("picture: matplotlib is needed and not installed; run `pip install '.[plots]'`")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = tables(records)
    panels = [(table, backend) for table in found for backend in table.backends]
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * len(panels), height), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    for number, (table, backend) in enumerate(panels, start=1):
        _panel(figure.add_subplot(1, len(panels), number), table, backend)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context({"svg.hashsalt": "harness", "svg.fonttype": "none"}):
            figure.savefig(path, metadata=_SUFFIXES[path.suffix])
    except OSError as error:
        raise StoreError(f"picture: cannot write {path}: {error.strerror or error}; choose another file") from error


def _panel(axes: Axes, table: Table, backend: str) -> None:
    rows = [row for row in table.rows if row.setting.backend == backend and row.value is not None]
    lines: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.setting.is_dense:
            _level(axes, row, "dense", ":")
        else:
            setting = row.setting
            lines.setdefault((setting.pattern, setting.allocation, setting.strategy), []).append(row)
    patterns = list(dict.fromkeys((pattern, allocation) for pattern, allocation, _ in lines))
    strategies = list(dict.fromkeys(strategy for *_, strategy in lines))
    for (pattern, allocation, strategy), points in lines.items():
        place = strategies.index(strategy)
        label = f"{pattern}, {strategy}" if len(table.allocations) < 2 else f"{pattern}, {allocation}, {strategy}"
        for row in points:
            if row.value and row.uneven:
                axes.annotate(formats.UNEVEN, (100 * row.setting.target_sparsity, row.value.mean), fontsize="small")
        axes.errorbar(
            [100 * row.setting.target_sparsity for row in points],
            [row.value.mean for row in points if row.value],
            yerr=[row.value.half or 0.0 for row in points if row.value],
            label=label,
            color=f"C{patterns.index((pattern, allocation)) % 10}",
            linestyle=_LINES[place % len(_LINES)],
            marker=_MARKERS[place % len(_MARKERS)],
            capsize=2,
        )
    if table.best_possible is not None:
        axes.axhline(table.best_possible, color="0.6", linewidth=0.8, label="best possible")
    if any(row.uneven for row in rows):
        axes.plot([], [], " ", label=f"{formats.UNEVEN} kept weights differ by more than {100 * UNEVEN:g} %")
    unit = f", {table.unit}" if table.unit else ""
    axes.set(title=f"{table.task}, {backend}", xlabel="target sparsity, %", ylabel=f"{table.metric}{unit} (test)")
    if rows:
        axes.legend(fontsize="small")


def _level(axes: Axes, row: Row, label: str, line: str) -> None:
    if row.value is not None:
        axes.axhline(row.value.mean, color="0.2", linestyle=line, label=label)
