"""`status`, `logs`, `show`, `why`: a look at runs and cells, while they run or afterwards."""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness._text import plural, span
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
    stdout,
    write_text,
)

if TYPE_CHECKING:
    from rich.console import Console

    from harness.api import JsonValue
    from harness.inspection.chain import Chain
    from harness.inspection.logs import Log
    from harness.inspection.lookup import FoundCell
    from harness.inspection.run_status import RunStatus
    from harness.inspection.why import Line
    from harness.report.page import Document, Grid
    from harness.results.records import Record

WATCH_S = 1.0
"""Between two looks of `status --watch`."""

STYLES = {
    "running": "cyan", "finished": "green", "stopped": "yellow", "interrupted": "yellow", "died": "red", "unknown": "",
}  # fmt: skip

FIRST = ("ok", "cached", "running", "planned", "skipped")
"""In which order cells are counted; failures follow."""

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
    app.command()(status)
    app.command()(logs)
    app.command()(show)
    app.command()(why)


# --- status ---------------------------------------------------------------------------------------------------------


@guarded
def status(
    run: Annotated[
        str | None,
        typer.Argument(help="Run id, the beginning of one, or a run's folder.", show_default="every run, latest first"),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every second until no run is left.")] = False,
    perfetto: Annotated[
        Path | None,
        typer.Option(
            "--perfetto",
            metavar="FILE",
            help="Write when every stage ran, and on which worker, as a trace for ui.perfetto.dev.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say how runs stand: alive or dead, cells, running stages, time left, last error.

    A run whose process is gone is said to have died; the same `harness run` continues it. With --watch a terminal is
    refreshed in place, a pipe gets a line for every change, and with --json an array for every change.
    """
    from harness.api import SpecError
    from harness.inspection import run_status
    from harness.inspection.lookup import find_run, runs

    if perfetto is not None and (watch or as_json):
        raise SpecError("status: --perfetto writes a file, once; leave --watch and --json out")
    folders = runs(store) if run is None else [find_run(store, run)]
    if perfetto is not None:
        _write_trace(perfetto, folders)
    elif not watch:
        found = [run_status.status(folder) for folder in folders]
        if as_json:
            print_json([each.model_dump(mode="json") for each in found])
        else:
            print_document(status_document(found))
    else:
        _watch(folders, as_json=as_json)


def _write_trace(file: Path, folders: "Sequence[Path]") -> None:
    import json

    from harness.inspection import run_status
    from harness.inspection.trace import trace

    found = trace([(folder, run_status.status(folder)) for folder in folders])
    write_text(file, json.dumps(found, ensure_ascii=False, separators=(",", ":")) + "\n")
    stages = sum(event["ph"] == "X" and event["cat"] != "start" for event in found["traceEvents"])
    echo(f"wrote {file}: {plural(stages, 'stage')}; open it at https://ui.perfetto.dev")


def _watch(folders: "Sequence[Path]", *, as_json: bool) -> None:
    looks = _looks(folders)
    try:
        if as_json:
            _watch_json(looks)
        elif stdout().is_terminal:
            _watch_live(looks, stdout())
        else:
            _watch_lines(looks, stdout())
    except KeyboardInterrupt:  # ends the looking, which is all that was interrupted
        stderr().print("no longer watching; what runs goes on running", style="yellow")


def _looks(folders: Sequence[Path]) -> "Iterator[list[RunStatus]]":
    """The state of runs, once a second, until none of them is alive."""
    from harness.inspection import run_status

    while True:
        found = [run_status.status(folder) for folder in folders]
        yield found
        if all(each.state != "running" for each in found):
            return
        time.sleep(WATCH_S)


def _watch_json(looks: "Iterable[list[RunStatus]]") -> None:
    import json

    before: object = None
    for found in looks:
        # Silence alone is no change: it grows with every look.
        now = [each.model_dump(mode="json", exclude={"silent_s", "written"}) for each in found]
        if now != before:
            echo(json.dumps(now, ensure_ascii=False))
        before = now


def _watch_live(looks: "Iterable[list[RunStatus]]", console: "Console") -> None:
    from rich.console import Group
    from rich.live import Live

    from harness.report import rich

    with Live(console=console, auto_refresh=False) as live:
        for found in looks:
            live.update(Group(*rich.parts(status_document(found), console.width)), refresh=True)


def _watch_lines(looks: "Iterable[list[RunStatus]]", console: "Console") -> None:
    said: dict[str, str] = {}
    found: list[RunStatus] = []
    for found in looks:
        for each in found:
            line = f"{each.run}: {each.state}, cells: {_cells(each)}; epochs: {_epochs(each)}"
            if each.state == "running" and said.get(each.run) != line:
                console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, soft_wrap=True)
                said[each.run] = line
    print_document(status_document(found))


def status_document(found: "Sequence[RunStatus]") -> "Document":
    """How runs stand, one section each."""
    from harness.report.page import Document, Section

    sections = []
    for each in found:
        rows = [("cells", _cells(each))]
        rows += [("epochs", _epochs(each))] if each.host else []
        rows += [("running" if each.state == "running" else "was at", _stage(each, place)) for place in _at(each)]
        rows += [("reason", each.reason)] if each.reason else []
        rows += [("error", each.last_error)] if each.last_error else []
        facts = tuple((f"  {name}", text) for name, text in rows)
        sections.append(
            Section(f"{each.run}  {each.state}{_about(each)}", facts=facts, style=f"bold {STYLES[each.state]}")
        )
    return Document("", tuple(sections))


def _about(each: "RunStatus") -> str:
    if not each.host:
        return "  (only its records are here)"
    parts = [f"process {each.pid} on {each.host}", plural(each.workers, "worker")]
    parts.append(f"began {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(each.started))}")
    if each.state in ("running", "died") and each.silent_s is not None and each.silent_s > 10:
        parts.append(f"last sign of life {span(each.silent_s)} ago")
    return f"  ({', '.join(parts)})"


def _cells(each: "RunStatus") -> str:
    told = sorted(each.cells.items(), key=lambda item: FIRST.index(item[0]) if item[0] in FIRST else len(FIRST))
    counts = ", ".join(f"{count} {name}" for name, count in told)
    return f"{sum(each.cells.values())} in all: {counts}" if counts else "none yet"


def _epochs(each: "RunStatus") -> str:
    """How far a run is with what it had to train; cached epochs are none of it."""
    if not each.epochs:
        return "none to train"
    text = f"{each.epochs_done} of the {each.epochs} to train are done"
    if each.state != "running" or each.left_s is None or each.epochs_done == each.epochs:
        return text
    return f"{text}, about {span(each.left_s)} left (from {plural(each.left_basis, 'timed epoch')})"


def _at(each: "RunStatus") -> range:
    # A finished run may still list stages that it was at when its status was written.
    return range(len(each.running)) if each.state in ("running", "died") else range(0)


def _stage(each: "RunStatus", place: int) -> str:
    stage = each.running[place]
    parts = [stage.label]
    if stage.steps:
        parts.append(f"step {stage.step} of {stage.steps}")
    # By the run's own clock: its host's may differ from this one's.
    if each.state == "running" and each.written >= stage.since > 0:
        parts.append(f"for {span(each.written - stage.since)}")
    if stage.before is not None:
        parts.append(f"{stage.metric or 'metric'} {stage.before:.4g} on valid before it")
    return ", ".join(parts)


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
        titles = lookup.planned_titles(experiment)
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
