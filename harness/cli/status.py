"""`status`: how runs stand, while they run or afterwards."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness._text import plural, span
from harness.cli._common import (
    DEFAULT_STORE,
    JsonOption,
    StoreOption,
    echo,
    guarded,
    print_document,
    print_json,
    stderr,
    stdout,
    write_text,
)

if TYPE_CHECKING:
    from rich.console import Console

    from harness.inspection.run_status import RunStatus
    from harness.report.page import Document

WATCH_S = 1.0
"""Between two looks of `status --watch`."""

STYLES = {
    "running": "cyan", "finished": "green", "stopped": "yellow", "interrupted": "yellow", "died": "red", "unknown": "",
}  # fmt: skip

FIRST = ("ok", "cached", "running", "planned", "skipped")
"""In which order cells are counted; failures follow."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(status)


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
        found = [run_status.counted(run_status.status(folder), folder) for folder in folders]
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
        rows += [("took", _took(each))] if each.attempts else []
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


def _took(each: "RunStatus") -> str:
    """What the stages of a run took together, of all its sessions; several workers pass more than the clock does."""
    text = f"{plural(each.attempts or 0, 'stage')} in {span(each.stage_seconds or 0)}"
    if not each.measured:
        return text
    some = "" if each.measured == each.attempts else f" in {each.measured} of them"
    return f"{text}, {span(each.processor_seconds or 0)} of processor time{some}"


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
