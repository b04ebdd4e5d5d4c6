"""The bill of a plan, for people."""

from collections.abc import Mapping
from functools import partial

from harness._text import plural
from harness.api import JsonValue
from harness.report.formats import DASH
from harness.report.page import Column, Document, Grid, Noted, Section, Shown, table
from harness.results.records import DENSE

AXES = ("task", "backend", "pattern", "allocation", "strategy", "sparsity", "seed")

_MOST_REASONS = 6
"""Reasons to run stages that a bill counts one by one."""

_SHORT = 30
"""Characters of a reason that a column has room for."""

STYLES = {"cached": "green", "skipped": "yellow", "failed": "red", "run": ""}


def plan_document(summary: Mapping[str, JsonValue], *, title: str) -> Document:
    """A plan's summary: one row per cell, then what is shared and what has to run.

    Args:
        summary: as `Plan.summary()` gives it.
        title: the experiment's name.
    """
    cells = summary["cells_detail"]
    assert isinstance(cells, list)
    rows = [cell for cell in cells if isinstance(cell, dict)]
    heading = f"{title}: {summary['cells']} cells, {summary['stages']} stages"
    told = summary.get("checks", [])
    found = [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []
    warnings = tuple(f"{each['code']} {each['text']}; {each['remedy']}" for each in found)
    bill = Section(sentences=_bill(summary), warnings=warnings)
    return Document("", (Section(heading, (), _cells(rows) if rows else None), bill))


def _cells(cells: list[dict[str, JsonValue]]) -> Grid:
    # An axis on which all cells agree tells nothing in a column, nor how sparsity is allotted where the dense baseline
    # alone, which has none to allot, differs.
    told = {axis: {str(cell.get(axis)) for cell in cells} for axis in AXES}
    told["allocation"].discard(DENSE)
    axes = [axis for axis in AXES if len(told[axis]) > 1]
    columns: list[Column[dict[str, JsonValue]]] = [
        Column(axis, partial(_label, axis), kind="label", matters="key") for axis in axes
    ]
    columns += [
        Column("epochs", lambda cell: str(cell["total_epochs"])),
        Column("mask\nupdates", lambda cell: str(cell.get("mask_updates", ""))),
        Column("stages\nto run", lambda cell: f"{cell['stages_to_run']} of {cell['stages']}"),
        Column("status", lambda cell: str(cell["status"]), kind="label", style=_style),
        Column("why", _why, kind="text"),
    ]
    return table(columns, cells)


def _label(axis: str, cell: dict[str, JsonValue]) -> str:
    # A target that nothing reaches came to no sparsity.
    if axis == "sparsity" and cell.get("targets") and cell["status"] == "skipped":
        return DASH
    return str(cell.get(axis, ""))


def _style(cell: dict[str, JsonValue]) -> str:
    return STYLES.get(str(cell["status"]), "")


def _why(cell: dict[str, JsonValue]) -> Shown:
    """Why a cell's stages run, or it is not run; a sentence, which many may share, stands once below the table."""
    why = str(cell["reason"])
    return Noted("note ", why) if cell["status"] in ("skipped", "failed") or len(why) > _SHORT else why


def _bill(summary: Mapping[str, JsonValue]) -> tuple[str, ...]:
    why = summary["why"]
    assert isinstance(why, dict)
    # The commonest reasons; --json has them all, and `harness why` those of a cell.
    counts = sorted(((int(str(count)), reason) for reason, count in why.items()), key=lambda each: -each[0])
    reasons = [f"  {count}: {reason}" for count, reason in counts[:_MOST_REASONS]]
    if len(counts) > _MOST_REASONS:
        rest = sum(count for count, _ in counts[_MOST_REASONS:])
        reasons.append(
            f"  {rest}: {plural(len(counts) - _MOST_REASONS, 'other reason')} (`harness plan --json` has all)"
        )
    notes, targets = summary.get("notes", []), summary.get("targets", [])
    return (
        *(f"target {each}" for each in (targets if isinstance(targets, list) else [])),
        f"stages: {summary['cached']} cached, {summary['stages_to_run']} to run{', because' if reasons else ''}",
        *reasons,
        f"epochs: {summary['epochs_to_run']} to run; {summary['epochs']} in all, {summary['epochs_without_sharing']} "
        f"without sharing (ratio {summary['sharing_ratio']})",
        *(str(note) for note in (notes if isinstance(notes, list) else [])),
    )
