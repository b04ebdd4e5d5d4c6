"""`verify`, `compare`: whether results hold, and whether two of them agree."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness._text import plural
from harness.cli._common import DEFAULT_STORE, EXIT_GATE, JsonOption, guarded, print_document, print_json

if TYPE_CHECKING:
    from harness.report.page import Document
    from harness.verification import Outcome, Problem


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(verify)


@guarded
def verify(
    run: Annotated[
        str | None,
        typer.Argument(help="Run id, a run's folder, or a records.json of anybody's.", show_default="the latest run"),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", metavar="DIR", help="Where the stages behind the records are.", show_default="the run's own"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Check results by code that shares nothing with what made them; exit code 6 if something does not hold.

    Looked at: grid, seeds, labels and ids, sparsities, budgets, sources, costs; and with the store also checksums,
    keys, metrics from their totals, masks and weights, costs by their models. What could not be checked is said.
    """
    from harness.inspection.lookup import find_run
    from harness.verification import verify as check

    given = Path(run) if run is not None and Path(run).exists() else find_run(store or DEFAULT_STORE, run)
    outcome = check(given, store)
    if as_json:
        print_json(
            {
                "checked": dict(outcome.checked),
                "problems": [asdict(problem) for problem in outcome.problems],
                "unchecked": dict(outcome.unchecked),
                "warnings": outcome.warnings,
            }
        )
    else:
        print_document(_verified(outcome, str(given)))
    return 0 if outcome.is_clean else EXIT_GATE


def _verified(outcome: "Outcome", what: str) -> "Document":
    """The outcome for people: problems first."""
    from harness.report.page import Column, Document, Section, table

    facts = ", ".join(f"{count} {kind}" for kind, count in outcome.checked.items())
    columns: list[Column[Problem]] = [
        Column("about", lambda each: each.about, kind="label", matters="key"),
        Column("where", lambda each: each.place, kind="text", matters="key"),
        Column("what", lambda each: each.text, kind="text"),
    ]
    problems = outcome.problems
    told = f"{len(problems)} of {outcome.checked.total()} facts do not hold" if problems else (
        f"clean: {outcome.checked.total()} facts hold"
    )  # fmt: skip
    unchecked = tuple(f"not checked: {why} ({plural(count, 'cell')})" for why, count in outcome.unchecked.items())
    return Document(
        "",
        (
            Section(f"{what}: {told}", (f"checked: {facts}",), table(columns, problems) if problems else None),
            *([Section(sentences=unchecked)] if unchecked else []),
            *([Section("Named checks", warnings=tuple(outcome.warnings))] if outcome.warnings else []),
        ),
    )
