"""`run`, `plan`, `validate`, `init`, `schema`: what takes or makes an experiment file."""

from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness._text import parted
from harness._words import suggestion
from harness.cli._common import (
    DEFAULT_STORE,
    EXIT_CELL_FAILED,
    DataDirOption,
    FullOption,
    JsonOption,
    OnlyOption,
    OutputOption,
    PluginOption,
    SmokeOption,
    SpecArgument,
    StoreOption,
    data_folder,
    echo,
    give,
    guarded,
    load_experiment,
    print_document,
    print_json,
    stderr,
    stdout,
    warn_of,
)
from harness.cli.results import where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.api import JsonValue, Problem, Task, Tracker
    from harness.execution.graph import Executor
    from harness.execution.run import RunResult
    from harness.planning.plan import Plan
    from harness.results.records import Finding
    from harness.spec import Experiment


DevicesOption = Annotated[
    str | None,
    typer.Option(
        "--devices",
        metavar="LIST",
        help="A worker for each, e.g. 'cuda:0,cuda:1x2' (two share a GPU) or 'cpux4'; in place of --workers.",
        show_default=False,
    ),
]
TrustCodeOption = Annotated[
    bool,
    typer.Option(
        "--trust-code", help="Take results of older code, all else being equal; records that rest on it say so."
    ),
]


class ProgressKind(StrEnum):
    """How progress is shown on stderr."""

    auto = "auto"
    plain = "plain"
    json = "json"
    none = "none"


class ExecutorKind(StrEnum):
    """Where stages are run."""

    local = "local"
    ray = "ray"
    slurm = "slurm"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(run)
    app.command()(plan)
    app.command()(validate)
    app.command()(init)
    app.command()(schema)


@guarded
def run(
    spec: SpecArgument,
    store: StoreOption = DEFAULT_STORE,
    data_dir: DataDirOption = None,
    plugin: PluginOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", min=1, help="Worker processes, or jobs at once.", show_default="as many as fit"
        ),
    ] = None,
    devices: DevicesOption = None,
    only: OnlyOption = None,
    smoke: SmokeOption = False,
    retry: Annotated[
        str | None,
        typer.Option(
            "--retry",
            metavar="STATUSES",
            help="Try stages that end so again, e.g. 'oom,killed'; after oom with nothing beside it.",
            show_default=False,
        ),
    ] = None,
    retries: Annotated[int, typer.Option("--retries", metavar="N", min=1, help="How often, for each stage.")] = 1,
    max_failures: Annotated[
        int | None,
        typer.Option(
            "--max-failures", metavar="N", min=1, help="Begin nothing new after so many.", show_default="no limit"
        ),
    ] = None,
    stage_timeout: Annotated[
        float | None,
        typer.Option(
            "--stage-timeout",
            metavar="SECONDS",
            min=0.1,
            help="End an epoch, prune or score that takes longer.",
            show_default="no limit",
        ),
    ] = None,
    executor: Annotated[
        ExecutorKind,
        typer.Option(
            "--executor", help="Where stages are run: processes of this machine, a Ray cluster, or jobs of Slurm."
        ),
    ] = ExecutorKind.local,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="HOST:PORT", help="Of the Ray cluster.", show_default=False),
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm",
            metavar="KEY=VALUE",
            help="Of the jobs, as sbatch calls it, e.g. partition=gpu, time=240 (minutes), mem=8G; may be repeated.",
            show_default=False,
        ),
    ] = None,
    trust_code: TrustCodeOption = False,
    full: FullOption = False,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="NAME",
            help="Tell a tracker, e.g. tensorboard or 'mlflow(tracking_uri=http://host:5000)'; may be repeated.",
            show_default=False,
        ),
    ] = None,
    progress: Annotated[ProgressKind, typer.Option("--progress", help="How progress is shown.")] = ProgressKind.auto,
) -> int:
    """Run an experiment, print its answer (with --full every table) and say where its report is kept.

    What the store has already is not run again, what failed is tried again; after an interruption the same command
    continues. Several runs may use one store at once: none repeats what another is computing.
    """
    from harness.api import SpecError, StoreError
    from harness.execution.displays import make
    from harness.execution.graph import Policy, parse_retry
    from harness.execution.run import run as run_experiment
    from harness.execution.slots import parse_devices
    from harness.results.records import FAILED

    if devices is not None and workers is not None:
        raise SpecError("run: --devices says how many workers there are, and --workers too; give one of them")
    if address is not None and executor is not ExecutorKind.ray:
        raise SpecError("run: --address is that of a Ray cluster, and stages are run here; add --executor ray")
    if slurm and executor is not ExecutorKind.slurm:
        raise SpecError("run: --slurm is of jobs of Slurm, and stages are not run there; add --executor slurm")
    if devices is not None and executor is ExecutorKind.slurm:
        raise SpecError("run: Slurm chooses the devices of its jobs; say `device: cuda` in the file, not --devices")
    places = parse_devices(devices) if devices is not None else ()
    policy = Policy(parse_retry(retry) if retry is not None else frozenset(), retries, max_failures, stage_timeout)
    experiment = load_experiment(spec, only=only, smoke=smoke, plugins=plugin)
    trackers = _trackers(track or (), experiment.plugins)
    result = run_experiment(
        experiment,
        store=store,
        data_dir=data_dir,
        workers=workers or (_slurm_jobs() if executor is ExecutorKind.slurm else None),
        devices=places,
        policy=policy,
        trust_code=trust_code,
        executor=_executor(executor, address, workers, places, slurm or ()),
        progress=make(progress.value, stderr()),
        trackers=trackers,
    )
    note = " (a smoke run: it tests the way, its numbers mean nothing)" if smoke else ""
    _print_report(result, experiment, title=experiment.name + note, full=full)
    for trace in result.traces.values():
        typer.echo(trace, err=True)
    if result.store_error is not None:
        raise StoreError(result.store_error)
    if result.interrupted:
        raise KeyboardInterrupt
    if result.stopped is not None:
        stderr().print(
            f"stopped: {result.stopped}; the rest stays planned, and the same command continues", markup=False
        )
        return EXIT_CELL_FAILED
    return EXIT_CELL_FAILED if any(record.status in FAILED for record in result.records) else 0


def _trackers(wanted: "Sequence[str]", files: "Sequence[Path]") -> "list[Tracker]":
    """Trackers from their names, with parameters in brackets as labels have them; one that cannot work is refused."""
    import json

    from pydantic import ValidationError

    from harness.api import PluginUnavailableError, SpecError, Tracker, load_yaml
    from harness.discovery.finding import discover
    from harness.spec.document import sentence

    registry = discover(files=files) if wanted else None
    made = []
    for text in wanted:
        name, _, inside = text.strip().partition("(")
        # Each parameter as a line of YAML: `streams=4` is a number, a URL a text.
        pairs = [part.partition("=") for part in parted(inside.removesuffix(")"), ",") if part.strip()]
        entry: dict[str, JsonValue] = {"name": name}
        entry |= {key.strip(): json.loads(json.dumps(load_yaml(value.strip()))) for key, _, value in pairs}
        assert registry is not None
        try:
            tracker = registry.create("tracker", entry)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where, known = ".".join(map(str, first["loc"])), list(registry.get("tracker", name).model_fields)
            told = f"{where}: {sentence(first)}"
            if first["type"] == "extra_forbidden":
                told = f"{name} has no parameter {where!r}{suggestion(where, known)}"
            raise SpecError(f"run: --track {text}: {told}; `harness plugins show {name}` has them all") from error
        assert isinstance(tracker, Tracker)
        if reason := tracker.why_unavailable():
            raise PluginUnavailableError(f"tracker '{name}' cannot be used: {reason}")
        made.append(tracker)
    return made


def _executor(
    kind: ExecutorKind, address: str | None, workers: int | None, devices: tuple[str, ...], slurm: "Sequence[str]"
) -> "Executor | None":
    """Where stages are run; None for processes of this machine."""
    if kind is ExecutorKind.ray:
        from harness.execution.ray import RayExecutor

        return RayExecutor(address, workers=workers, devices=devices)
    if kind is ExecutorKind.slurm:
        from harness.api import SpecError
        from harness.execution.slurm import SlurmExecutor

        pairs = [text.partition("=") for text in slurm]
        for name, sign, value in pairs:
            if not (sign and value.strip()):
                raise SpecError(f"run: expected --slurm KEY=VALUE, got {name!r}; write e.g. --slurm partition=gpu")
        given = {name.strip(): value.strip() for name, _, value in pairs}
        cluster = given.pop("cluster", "slurm")
        return SlurmExecutor(given, jobs=workers or _slurm_jobs(), cluster=cluster)
    return None


def _slurm_jobs() -> int:
    from harness.execution.slurm import JOBS

    return JOBS


def _print_report(result: "RunResult", experiment: "Experiment", *, title: str, full: bool) -> None:
    """Keep the report, as Markdown and as a page, beside the records, and print it or its answer."""
    from harness import report
    from harness._files import write_atomic
    from harness.api import StoreError
    from harness.inspection.columns import columns_of

    page, margin, columns = result.folder / "report.md", experiment.margin, columns_of(result.folder)
    forms: dict[Path, report.Format] = {page: "md", page.with_suffix(".html"): "html"}
    failure = None
    for path, form in forms.items():
        try:
            text = report.render(result.records, format=form, title=title, margin=margin, columns=columns)
            write_atomic(path, text.encode("utf-8", "backslashreplace"))
        except OSError as error:  # told below the report, which is not lost for it
            page, failure = path, error
    places = where(result.folder)
    report.render(
        result.records, title=title, margin=margin, console=stdout(), full=full, where=places, columns=columns
    )
    if not full:
        warn_of(columns)
    if failure is not None:
        raise StoreError(
            f"store: {page} cannot be written ({failure.strerror}); make room, then `harness report {result.run_id}`"
        )
    if full:
        stdout().print(f"report: {page}", soft_wrap=True, markup=False)


@guarded
def plan(
    spec: SpecArgument,
    store: StoreOption = DEFAULT_STORE,
    data_dir: DataDirOption = None,
    plugin: PluginOption = None,
    devices: DevicesOption = None,
    only: OnlyOption = None,
    smoke: SmokeOption = False,
    trust_code: TrustCodeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print what `run` would do: cells, stages, what is cached and why the rest runs, epochs. Nothing is run."""
    from dataclasses import replace

    from harness.execution.slots import parse_devices
    from harness.inspection.why import bill
    from harness.planning.plan import make_plan

    experiment = load_experiment(spec, only=only, smoke=smoke, plugins=plugin)
    if devices is not None:
        experiment = replace(experiment, device=parse_devices(devices)[0])
    made = make_plan(experiment, store=store, data_dir=data_dir, trust_code=trust_code)
    found: list[JsonValue] = [finding.model_dump() for finding in _beforehand(made)]
    summary, to_run = bill(made)
    summary["checks"] = found
    if as_json:
        print_json({**summary, "run": to_run})
    else:
        from harness.report.plan_table import plan_document

        print_document(plan_document(summary, title=experiment.name))
        _print_own_models(experiment, made.problems)


@guarded
def validate(spec: SpecArgument, data_dir: DataDirOption = None, plugin: PluginOption = None) -> None:
    """Check an experiment file against the plugins and the data: every mistake at once, with its line."""
    from collections import Counter

    from harness.api import PluginContractError, SpecError
    from harness.planning.plan import loaded_problems, outlook
    from harness.spec import check

    experiment = load_experiment(spec, plugins=plugin)
    folder = data_folder(data_dir, experiment)
    problems, broken = loaded_problems(experiment, folder)
    try:
        check(experiment, problems)
    except SpecError:
        _print_own_models(experiment, problems)  # what a scope or a pattern that does not fit is mended by
        raise
    dense = sum(cell.is_dense for cell in experiment.cells)
    foreseen = outlook(experiment, problems, broken)
    cells = foreseen.cells
    failures = Counter(planned.failure for planned in cells if planned.failure)
    if failures:
        told = [f"{spec}: {count} of {len(cells)} cells would fail: {reason}" for reason, count in failures.items()]
        raise PluginContractError("\n".join(told))
    skipped = Counter(planned.skip for planned in cells if planned.skip)
    impossible = f", {skipped.total()} of them cannot run" if skipped else ""
    echo(f"{spec}: valid, {len(cells)} planned cells (dense baselines: {dense}){impossible}; nothing was run")
    for target in foreseen.targets():
        echo(f"  target {target}")
    for reason, count in skipped.items():
        echo(f"  {count} skipped: {reason}")
    for finding in _beforehand(foreseen):
        echo(f"  {finding.code} {finding.text}; {finding.remedy}")
    _print_own_models(experiment, problems)


def _print_own_models(experiment: "Experiment", problems: "Mapping[Task, Problem]") -> None:
    """The tensors of every model of the user's own."""
    from harness.api import NativeModel, SpecError
    from harness.cli._own_table import own_model_document
    from harness.spec import scope_tensors

    labels = {cell.task: cell.labels()["task"] for cell in experiment.cells}
    for task, problem in problems.items():
        if isinstance(problem.network, NativeModel):
            echo("")
            try:
                scope = scope_tensors(problem, experiment.scope)
            except SpecError:  # it names nothing here, which `check` says
                scope = ()
            print_document(own_model_document(labels[task], problem.network, scope))


def _beforehand(plan: "Plan") -> list["Finding"]:
    """What named checks can say of a plan; skipped cells are told anyway."""
    from harness.discovery.checks import study_checks
    from harness.execution.collect import outlines
    from harness.report.checks import beforehand

    summary = beforehand(outlines(plan), study_checks(plan.experiment.plugins))
    return [each.finding for each in summary.found if each.finding.code != "SPN019"]


@guarded
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("experiment.yaml"),
) -> None:
    """Write a small experiment file, with comments, that runs as it stands; an existing file is left alone."""
    from harness._outputs import write_output

    write_output(path, files("harness.cli").joinpath("starter.yaml").read_bytes(), is_new=True)
    echo(f"wrote {path}; next: harness run {path}")


@guarded
def schema(
    output: OutputOption = None,
    plugin: PluginOption = None,
    records: Annotated[bool, typer.Option("--records", help="Of the files records.json of runs instead.")] = False,
) -> None:
    """Print the JSON Schema of experiment files, the parameters of every installed plugin included (for editors)."""
    import json

    from harness.discovery.finding import discover_given
    from harness.results.schema import schema as records_schema
    from harness.spec import schema as spec_schema

    found = records_schema() if records else spec_schema(discover_given(plugin or ()))
    give(json.dumps(found, indent=2, ensure_ascii=False), output)
