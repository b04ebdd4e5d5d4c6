"""Pictures of a run as files: one of the metric against sparsity, or all of them with their data."""

from collections.abc import Sequence
from pathlib import Path

from harness._files import write_atomic
from harness.api import SpecError, StoreError
from harness.report import tabular
from harness.report.charts import Chart, charts
from harness.report.figures import FigureForm, FigureStyle, drawn
from harness.report.rows import tables
from harness.results.records import Record

_FORMS: dict[str, FigureForm] = {".svg": "svg", ".png": "png", ".pdf": "pdf"}


def picture(records: Sequence[Record], path: Path) -> None:
    """Draw the metric against sparsity in the format that the file's suffix names; equal rows, equal bytes.

    Colours and markers tell patterns apart, a panel is one strategy; bars are 95 % intervals over seeds.

    Raises:
        SpecError: the suffix names no such format.
        PluginUnavailableError: matplotlib is not installed.
        EmptySelectionError: there are no records.
        StoreError: two records are of the same cell, or the file cannot be written.
    """
    if path.suffix not in _FORMS:
        raise SpecError(f"picture: expected a file ending in {', '.join(_FORMS)}, got {path.name!r}; rename it")
    found = [chart for chart in charts(tables(records)) if chart.name.startswith("metric")]
    content = drawn(found, _FORMS[path.suffix])
    _write(path, content)


def figures(
    records: Sequence[Record],
    folder: Path,
    *,
    style: FigureStyle = "thesis",
    forms: Sequence[FigureForm] = ("pdf", "svg", "png"),
    margin: float | None = None,
) -> list[Path]:
    """Draw every picture of a run into a folder, each with what it shows as CSV beside it.

    Args:
        records: one per planned cell.
        folder: made where it is not there; files of the same names are replaced.
        style: sizes for a page or for a projector.
        forms: of the files.
        margin: see `rows.tables`.

    Returns:
        The files, in the order of the page.

    Raises:
        PluginUnavailableError: matplotlib is not installed.
        EmptySelectionError: there are no records.
        StoreError: two records are of the same cell, or a file cannot be written.
    """
    written = []
    for chart in charts(tables(records, margin)):
        for form in forms:
            written.append(folder / f"{chart.name}.{form}")
            _write(written[-1], drawn([chart], form, style))
        written.append(folder / f"{chart.name}.csv")
        _write(written[-1], _data(chart).encode())
    return written


def _data(chart: Chart) -> str:
    return tabular.lines(chart.data())


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise StoreError(f"picture: cannot write {path}: {error.strerror or error}; choose another file") from error
