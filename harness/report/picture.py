"""Pictures of a run as files: one of the metric against sparsity, or all of them with their data."""

from collections.abc import Sequence
from pathlib import Path

from harness._outputs import write_output
from harness.api import SpecError
from harness.report import tabular
from harness.report.figures import FigureForm, FigureStyle, drawn
from harness.report.pictures import charts
from harness.report.tables import tables
from harness.results.records import Record

_FORMS: dict[str, FigureForm] = {".svg": "svg", ".png": "png", ".pdf": "pdf"}


def picture(records: Sequence[Record], path: Path) -> None:
    """Draw the metric against sparsity in the format that the file's suffix names; equal rows, equal bytes.

    Colours and markers tell patterns apart, a panel is one strategy; bars are 95 % intervals over seeds.

    Raises:
        SpecError: the suffix names no such format, or the file cannot be written.
        PluginUnavailableError: matplotlib is not installed.
        EmptySelectionError: there are no records.
        StoreError: two records are of the same cell.
    """
    if path.suffix not in _FORMS:
        raise SpecError(f"picture: expected a file ending in {', '.join(_FORMS)}, got {path.name!r}; rename it")
    found = [chart for chart in charts(tables(records)) if chart.name.startswith("metric")]
    content = drawn(found, _FORMS[path.suffix])
    write_output(path, content)


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
        SpecError: a file cannot be written.
        PluginUnavailableError: matplotlib is not installed.
        EmptySelectionError: there are no records.
        StoreError: two records are of the same cell.
    """
    written = []
    # Each chart by itself, in every form: papers take one, slides another.
    for chart in charts(tables(records, margin)):
        for form in forms:
            written.append(folder / f"{chart.name}.{form}")
            write_output(written[-1], drawn([chart], form, style))
        written.append(folder / f"{chart.name}.csv")
        write_output(written[-1], tabular.lines(chart.data()))
    return written
