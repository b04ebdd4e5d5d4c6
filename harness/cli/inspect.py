"""`logs`, `show`, `why`: a look at cells, while they run or afterwards."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli._common import (
    DEFAULT_STORE,
    DataDirOption,
    JsonOption,
    PluginOption,
    StoreOption,
    echo,
    guarded,
    load_experiment,
    print_document,
    print_json,
    stderr,
    write_text,
)

if TYPE_CHECKING:
    from harness.api import JsonValue
    from harness.inspection.chain import Chain
    from harness.inspection.logs import Log
    from harness.inspection.lookup import FoundCell
    from harness.inspection.why import Line
    from harness.report.page import Document, Grid
    from harness.results.records import Record

CellArgument = Annotated[
    str,
    typer.Argument(
        help="Id of a cell, its beginning, or words of its labels, e.g. 'bank_balanced 0.9 seed 1'.", show_default=False
    ),
]
RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help="Id of a run, the beginning of one, or its folder.",
        show_default="the latest that has the cell",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(logs)
    app.command()(show)
    app.command()(why)


# --- logs -----------------------------------------------------------------------------------------------------------


@guarded
def logs(
    cell: CellArgument,
    run: RunOption = None,
    store: StoreOption = DEFAULT_STORE,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is printed until the cell is done.")
    ] = False,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what the stages of a cell printed, in their order; stages that printed nothing have no log."""
    from harness.api import SpecError
    from harness.inspection import logs as inspection
    from harness.inspection.chain import chain as chain_of
    from harness.inspection.lookup import find_cell

    if follow and as_json:
        raise SpecError("logs: --follow prints text as it comes, and --json is whole at its end; give one of them")
    found = find_cell(store, cell, run)
    if follow:
        if not _print_pieces(inspection.follow(store, found, data_dir), found):
            # Asked again, since the cell may have changed while its logs were followed.
            now = find_cell(store, found.record.cell, str(found.folder))
            stderr().print(inspection.why_no_log(store, now), markup=False, soft_wrap=True)
        return
    chain = chain_of(store, found, data_dir)
    every = inspection.logs(store, found, chain.places)
    if as_json:
        print_json(_logs_json(found, every, chain))
        return
    if chain.unknown:
        stderr().print(f"not all stages are known: {chain.unknown}", style="yellow", markup=False, soft_wrap=True)
    reader = inspection.Reader()
    pieces = ((log, text) for log in every if log.path is not None for text in reader.more(log.path))
    if not _print_pieces(pieces, found):
        stderr().print(inspection.why_no_log(store, found), markup=False, soft_wrap=True)


def _print_pieces(pieces: "Iterable[tuple[Log, str]]", cell: "FoundCell") -> bool:
    """Print logs, with a heading wherever another one goes on; False if there was nothing."""
    last, end = None, "\n"
    for log, text in pieces:
        if log.stage != last:
            echo(("" if end.endswith("\n") else "\n") + _heading(log, cell))
            last = log.stage
        echo(text, nl=False)
        end = text
    if not end.endswith("\n"):
        echo()
    return last is not None


def _heading(log: "Log", cell: "FoundCell") -> str:
    where = "" if log.run == cell.folder.name else f", by run {log.run}"
    return f"== {log.name} ({log.state}{where}) {log.stage}"


def _logs_json(cell: "FoundCell", every: "Iterable[Log]", chain: "Chain") -> "dict[str, JsonValue]":
    from harness.inspection.logs import Reader

    reader = Reader()
    parts: list[JsonValue] = [
        {
            "stage": log.stage,
            "name": log.name,
            "state": log.state,
            "run": log.run,
            "path": log.path.as_posix() if log.path else None,
            "text": "".join(reader.more(log.path)) if log.path else None,
        }
        for log in every
    ]
    return {"run": cell.folder.name, "cell": cell.record.cell, "logs": parts, "unknown": chain.unknown}


# --- show -----------------------------------------------------------------------------------------------------------


@guarded
def show(
    cell: CellArgument,
    run: RunOption = None,
    store: StoreOption = DEFAULT_STORE,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page instead, one file.", show_default=False),
    ] = None,
) -> None:
    """Print everything about a cell: what it is, what it measured, its stages, versions, costs and files."""
    from harness.api import SpecError
    from harness.cli._cell_page import cell_document
    from harness.inspection import pages as inspection
    from harness.inspection.lookup import find_cell
    from harness.report import html

    if as_json and page is not None:
        raise SpecError("show: --html writes a page, and --json prints values; give one of them")
    meant = find_cell(store, cell, run)
    found = inspection.shown(store, meant, data_dir)
    if page is not None:
        write_text(page, html.text(cell_document(found, titled=True, masks=inspection.masks_of(store, meant))))
        echo(f"wrote {page}")
    elif as_json:
        print_json(found)
    else:
        print_document(cell_document(found))


# --- why ------------------------------------------------------------------------------------------------------------


@guarded
def why(
    cell: CellArgument,
    spec: Annotated[
        Path | None,
        typer.Argument(help="The experiment file (YAML).", show_default="the one of the latest run that has the cell"),
    ] = None,
    run: RunOption = None,
    store: StoreOption = DEFAULT_STORE,
    data_dir: DataDirOption = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Take stages of older code where all else is the same.")
    ] = False,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what `harness run` would do with a cell, and why: which part of a stage's key is not what it was.

    Nothing is run.
    """
    from harness.api import SpecError
    from harness.inspection import lookup
    from harness.inspection.experiments import experiment_of
    from harness.inspection.why import why as reasons
    from harness.planning.plan import make_plan

    if spec is not None and run is not None:
        raise SpecError("why: --run names a run with its own experiment file, and a file is given too; give one")
    if spec is not None:
        experiment, before = load_experiment(spec, plugins=plugin), None
        plan = make_plan(experiment, store=store, data_dir=data_dir, trust_code=trust_code)
        # The plan's cells and not the file's: they have the sparsities that targets were solved for.
        titles = lookup.planned_titles(each.cell for each in plan.cells)
        chosen = lookup.meant(cell, titles)
    else:
        found = lookup.find_cell(store, cell, run)
        before, experiment = found.record, experiment_of(found.folder)
        chosen = before.cell
        titles = {chosen: lookup.title(before)}
        plan = make_plan(experiment, store=store, data_dir=data_dir, trust_code=trust_code)
    lines = reasons(plan, chosen)
    if as_json:
        from dataclasses import asdict

        print_json(
            {"run": experiment.run_id, "cell": chosen, "title": titles[chosen], "stages": list(map(asdict, lines))}
        )
        return
    print_document(why_document(chosen, titles[chosen], lines, before))


def why_document(cell: str, name: str, lines: "Sequence[Line]", before: "Record | None") -> "Document":
    """What becomes of a cell, and of its stages with the reasons."""
    from harness.report.page import Document, Section

    sentences = [_verdict(lines)]
    if before is not None and before.reason and any(line.status == "run" for line in lines):
        sentences.append(f"it ended as {before.status} in run {before.run}: {before.reason}")
    grid = None if lines[0].status in ("skipped", "failed") else _why_grid(lines)
    return Document("", (Section(f"{cell}  {name}", tuple(sentences), grid),))


def _verdict(lines: "Sequence[Line]") -> str:
    """What becomes of the cell as a whole."""
    if lines[0].status in ("skipped", "failed"):
        return f"{lines[0].status}: {lines[0].reason}"
    run = [line for line in lines if line.status == "run"]
    if run:
        return f"{len(run)} of {len(lines)} stages would run, from {run[0].place} on: {run[0].reason}"
    trusted = sum(line.status == "trusted" for line in lines)
    return (
        f"cached: nothing would run ({trusted} of {len(lines)} stages were made by older code)"
        if trusted
        else ("cached: nothing would run")
    )


def _why_grid(lines: "Sequence[Line]") -> "Grid":
    from harness.report.page import Column, table

    def places(group: "Sequence[Line]") -> str:
        return group[0].place if len(group) == 1 else f"{group[0].place} to {group[-1].place}"

    groups = [list(group) for _, group in groupby(lines, key=lambda line: (line.status, line.reason))]
    columns: list[Column[list[Line]]] = [
        Column("stages", places, kind="label", matters="key"),
        Column(
            "",
            lambda group: group[0].status,
            short="state",
            kind="label",
            style=lambda group: "green" if group[0].status == "cached" else "",
        ),
        Column("why", lambda group: group[0].reason, kind="text"),
    ]
    return table(columns, groups)
