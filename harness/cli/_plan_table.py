"""The bill of a plan, for people."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from harness.api import JsonValue

AXES = ("task", "backend", "pattern", "allocation", "strategy", "sparsity", "seed")

STYLES = {"cached": "green", "skipped": "yellow", "run": ""}


def print_plan(summary: "Mapping[str, JsonValue]", console: "Console", *, title: str) -> None:
    """Print a plan's summary: one row per cell, then what is shared and what has to run.

    Args:
        summary: as `Plan.summary()` gives it.
        console: where to.
        title: the experiment's name.
    """
    from rich.text import Text

    console.print(Text(f"{title}: {summary['cells']} cells, {summary['stages']} stages", style="bold"))
    cells = summary["cells_detail"]
    assert isinstance(cells, list)
    rows = [cell for cell in cells if isinstance(cell, dict)]
    if rows:
        _print_cells(rows, console)
    for line in _bill(summary):
        console.print(Text(line), soft_wrap=True)


def _print_cells(cells: "list[dict[str, JsonValue]]", console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    # An axis on which all cells agree tells nothing in a column.
    axes = [axis for axis in AXES if len({str(cell.get(axis)) for cell in cells}) > 1]
    table = Table(*axes, "epochs", "stages to run", "status", "why", box=None, pad_edge=False, header_style="bold")
    notes: dict[str, int] = {}  # why cells are skipped: sentences, too long for a column
    for cell in cells:
        status, why = str(cell["status"]), str(cell["reason"])
        if status == "skipped":
            why = f"note {notes.setdefault(why, len(notes) + 1)}"
        table.add_row(
            *(Text(str(cell.get(axis, ""))) for axis in axes),
            str(cell["total_epochs"]),
            f"{cell['stages_to_run']} of {cell['stages']}",
            Text(status, style=STYLES.get(status, "")),
            Text(why),
        )
    console.print(table)
    for note, number in notes.items():
        console.print(Text(f"note {number}: {note}"), soft_wrap=True)


def _bill(summary: "Mapping[str, JsonValue]") -> list[str]:
    why = summary["why"]
    assert isinstance(why, dict)
    reasons = ", ".join(f"{count} {reason}" for reason, count in why.items())
    return [
        f"stages: {summary['cached']} cached, {summary['stages_to_run']} to run" + (f" ({reasons})" if reasons else ""),
        f"epochs: {summary['epochs_to_run']} to run; {summary['epochs']} in all, {summary['epochs_without_sharing']} "
        f"without sharing (ratio {summary['sharing_ratio']})",
    ]
