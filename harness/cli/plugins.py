"""`plugins list`, `show`, `check`, `new`: what is installed, broken plugins included, and one to start from."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from harness.cli._common import EXIT_GATE, JsonOption, PluginOption, echo, guarded, print_document, print_json

if TYPE_CHECKING:
    from harness.api import Component, Engine, HardwareModel, JsonValue, Task
    from harness.discovery.registry import PluginRow, Registry
    from harness.report.page import Document
    from harness.testing import ComponentChecks

app = typer.Typer(help="List, explain, check and begin plugins.", no_args_is_help=True)

STYLES = {"ok": "green", "unavailable": "yellow", "broken": "red"}

BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


@app.command("list")
@guarded
def list_plugins(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="task, pattern, strategy, score, schedule, backend, hardware, engine, tracker, column or check.",
            show_default="all kinds",
        ),
    ] = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """List every plugin; one that cannot be used is a row with its error and its remedy."""
    from harness.discovery.finding import discover

    rows = _of_kind(discover(files=plugin or ()).rows, kind)
    if as_json:
        print_json([_as_json(row) for row in rows])
    else:
        print_document(list_document(rows))


def _of_kind(rows: "Iterable[PluginRow]", kind: str | None) -> "list[PluginRow]":
    from harness.api import Kind, SpecError

    kinds: tuple[str, ...] = get_args(Kind)
    if kind is None:
        return list(rows)
    # `plugins list patterns` reads well, `pattern` is what a spec says: both are understood.
    singular = kind if kind in kinds else {"strategies": "strategy"}.get(kind, kind.removesuffix("s"))
    if singular not in kinds:
        raise SpecError(f"plugins: expected a kind ({', '.join(kinds)}), got {kind!r}; leave it out to list all")
    # A module that broke at import may not have told its kind: it could be of this one.
    return [row for row in rows if row.kind in (singular, None)]


def list_document(rows: "Iterable[PluginRow]") -> "Document":
    """Every plugin with its state, and what it is or what it lacks; whose it is where it is not built in."""
    from harness import DISTRIBUTION
    from harness.report.page import Column, Document, Section, table

    shown = list(rows)
    built_in = next((_from(row) for row in shown if row.distribution == DISTRIBUTION), "")
    columns: list[Column[PluginRow]] = [
        Column("kind", lambda row: row.kind or "?", kind="label", matters="key"),
        Column("name", lambda row: row.name, kind="label", matters="key"),
        Column("state", lambda row: row.state, kind="label", style=lambda row: STYLES[row.state]),
        Column(
            "from",
            lambda row: "" if row.distribution == DISTRIBUTION else _from(row),
            kind="text",
            when=lambda rows: any(row.distribution != DISTRIBUTION for row in rows),
        ),
        Column("what it is", _what, kind="text"),
    ]
    notes = [f"built in ({built_in}) where nothing else is said"] if built_in else []
    return Document("", (Section("", (), table(columns, shown, notes=notes)),))


def _from(row: "PluginRow") -> str:
    return f"{row.distribution} {row.version}".rstrip()  # a file has no version


def _what(row: "PluginRow") -> str:
    if row.state == "ok":
        return row.summary
    return "; ".join(part for part in (row.error, row.remedy) if part)


def _as_json(row: "PluginRow") -> "dict[str, JsonValue]":
    shown = ("kind", "name", "state", "summary", "distribution", "version", "module", "error", "remedy")
    return {field: getattr(row, field) for field in shown}


@app.command("show")
@guarded
def show(
    name: Annotated[str, typer.Argument(help="Name of a plugin, or its distribution and name (acme-sparsity/nested).")],
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> int:
    """Explain a plugin: what it does, its parameters with their defaults, where it comes from."""
    from harness.api import PluginUnavailableError
    from harness.discovery.finding import discover

    rows = _named(discover(files=plugin or ()), name)
    if as_json:
        print_json([_as_json(row) | {"parameters": _schema(row.component)} for row in rows])
    else:
        for row in rows:
            print_document(plugin_document(row))
            echo()
    return PluginUnavailableError.exit_code if all(row.state == "broken" for row in rows) else 0


def _named(registry: "Registry", name: str) -> "list[PluginRow]":
    from harness.api import UnknownPluginError
    from harness.discovery.registry import did_you_mean

    owner, _, bare = name.rpartition("/")
    rows = [row for row in registry.rows if row.name == bare and owner in ("", row.distribution)]
    if not rows:
        hint = did_you_mean(bare, [row.name for row in registry.rows])
        raise UnknownPluginError(f"unknown plugin '{name}'; {hint}`harness plugins list` shows all")
    return rows


def _schema(component: "type[Component] | None") -> "dict[str, JsonValue]":
    """JSON Schema of a component's parameters, by name."""
    if component is None:
        return {}
    properties = component.model_json_schema(by_alias=True).get("properties", {})
    defaults = component().parameters()
    # A default that is made anew each time, such as a component, stands in no schema.
    return {name: {"default": defaults.get(name), **schema} for name, schema in properties.items() if name != "label"}


def plugin_document(row: "PluginRow") -> "Document":
    """What a plugin is, what is wrong with it, and its parameters."""
    from harness.report.page import Column, Document, Section, table

    told = [", ".join(dict.fromkeys((_from(row), row.module)))]
    wrong = (f"{row.state}: {_what(row)}",) if row.error else ()
    head = Section(f"{row.name} ({row.kind or 'unknown kind'})", tuple(told), warnings=wrong)
    if row.component is None:
        return Document("", (head,))
    about = Section(sentences=(inspect.cleandoc(row.component.__doc__ or row.summary),))
    columns: list[Column[tuple[str, Mapping[str, JsonValue]]]] = [
        Column("parameter", lambda each: each[0], kind="label", matters="key"),
        Column("values", lambda each: _values(each[1]), kind="text"),
        Column("default", lambda each: json.dumps(each[1].get("default")), kind="text"),
        Column("meaning", lambda each: str(each[1].get("description", "")), kind="text"),
    ]
    found = [(name, schema) for name, schema in _schema(row.component).items() if isinstance(schema, dict)]
    last = Section(grid=table(columns, found)) if found else Section(sentences=("It has no parameters.",))
    return Document("", (head, about, last))


def _values(schema: "Mapping[str, JsonValue]") -> str:
    """The values that a parameter takes, in a few words."""
    options = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(options, list):
        return " | ".join(_values(option) for option in options if isinstance(option, dict))
    choices = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
    if isinstance(choices, list):
        return " | ".join(str(choice) for choice in choices)
    if "component" in schema:
        return f"a {schema['component']}"
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    bounds = " and ".join(f"{sign} {schema[bound]}" for bound, sign in BOUNDS.items() if bound in schema)
    return f"{schema.get('type', 'any')} {bounds}".strip()


@app.command("check")
@guarded
def check(
    name: Annotated[str, typer.Argument(help="Name of a plugin, or a Python file that offers some.")],
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> int:
    """Hold a plugin to the contract of its kind, as `harness.testing` does; exit 6 if it breaks it."""
    from harness.discovery.finding import discover
    from harness.user_files import checked

    is_file = name.endswith(".py")
    registry = discover(files=[*(plugin or ()), *([Path(name)] if is_file else [])])
    if is_file:
        file = str(checked(Path(name)))
        rows = [row for row in registry.rows if row.module == file]
    else:
        rows = _named(registry, name)
    engines = _engines(registry)
    found = [verdict for row in rows for verdict in _verdicts(row, engines)]
    if as_json:
        print_json(found)
    else:
        for verdict in found:
            # What `check` prints is one line a verdict, so that it can be searched.
            said = "" if verdict["result"] == "ok" else f": {verdict['said']}"
            echo(f"{verdict['result']}  {verdict['kind'] or '?'} {verdict['name']}, {verdict['check']}{said}")
    return EXIT_GATE if any(verdict["result"] == "failed" for verdict in found) else 0


def _verdicts(row: "PluginRow", engines: "Sequence[type[Engine]]") -> "list[dict[str, JsonValue]]":
    """What every check says of a plugin; one that cannot be tried at all has failed."""
    from harness import testing

    start: dict[str, JsonValue] = {"kind": row.kind, "name": row.name}
    component = row.component
    if component is None:
        return [{**start, "check": "load", "result": "failed", "said": _what(row)}]
    general: dict[str, Callable[[], None]] = {
        "component": lambda: testing.check_component(component), "import": lambda: testing.check_import(component),
    }  # fmt: skip
    kind = next(checks for checks in testing.CHECKS if issubclass(component, checks.base))
    verdicts = [{**start, "check": what, **_outcome(tried)} for what, tried in general.items()]
    of_kind = _outcome(lambda: _hold(component(), kind, engines))
    if of_kind["result"] == "skipped":
        # Nothing that the plugin does was seen, so that nothing speaks for it.
        of_kind = {"result": "failed", "said": f"every check of its kind was skipped: {of_kind['said']}"}
    return [*verdicts, {**start, "check": kind.base.kind, **of_kind}]


def _hold(part: "Component", kind: "type[ComponentChecks]", engines: "Sequence[type[Engine]]") -> None:
    """Hold a plugin to the contract of its kind, while the state of the process is watched."""
    from harness.api import HardwareModel, Task
    from harness.testing import check_globals

    def use() -> None:
        if isinstance(part, Task):
            _check_task(part)
        elif isinstance(part, HardwareModel):
            _check_variants(part, engines)
        else:
            type("Checks", (kind,), {"plugin": part})().check()

    check_globals(part.label(), use, kind.watched)


def _engines(registry: "Registry") -> "list[type[Engine]]":
    """Every engine that can be used, for hardware models that try them all."""
    from harness.api import Engine

    parts = [row.component for row in registry.rows if row.component is not None]
    return [part for part in parts if issubclass(part, Engine)]


def _check_task(task: "Task") -> None:
    """Check a task, unless what it needs is not here: data, or a file of the user's."""
    from harness.api import DataError, HarnessError, PluginContractError
    from harness.data import data_folder
    from harness.testing import check_task

    try:
        check_task(task, data_folder())
    except HarnessError as error:
        if type(error) is PluginContractError:
            raise
        raise DataError(str(error)) from error


def _check_variants(model: "HardwareModel", engines: "Sequence[type[Engine]]") -> None:
    """Check every model that an entry stands for; that one refuses all masks is no fault where others take them."""
    from harness.api import HarnessError
    from harness.testing import check_hardware

    refusals = []
    variants = model.variants(engines)
    for variant in variants:
        try:
            check_hardware(variant)
        except HarnessError as error:
            if "it refuses them all" not in str(error):
                raise
            refusals.append(error)
    if len(refusals) == len(variants):
        raise refusals[0]


def _outcome(tried: "Callable[[], None]") -> "dict[str, JsonValue]":
    from harness.api import DataError, PluginUnavailableError

    try:
        tried()
    except (DataError, PluginUnavailableError) as error:  # nothing is wrong with the plugin: something is not here
        return {"result": "skipped", "said": str(error)}
    except Exception as error:  # whatever somebody's code raises is a verdict on it
        broken = type(error).__name__ == "PluginContractError"
        return {"result": "failed", "said": str(error) if broken else f"raised {type(error).__name__}: {error}"}
    return {"result": "ok", "said": ""}


@app.command("gallery")
@guarded
def gallery(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="An .svg, .png or .html.")],
    plugin: PluginOption = None,
) -> None:
    """Draw what every pattern keeps of one and the same matrix."""
    from harness.cli.gallery import write_gallery
    from harness.discovery.finding import discover

    count = write_gallery(output, discover(files=plugin or ()))
    echo(f"wrote {output}: {count} patterns")


@app.command("new")
@guarded
def new(
    kind: Annotated[
        str,
        typer.Argument(
            help="task, pattern, strategy, score, schedule, backend, hardware, engine, tracker, column or check.",
            show_default=False,
        ),
    ],
    name: Annotated[str, typer.Argument(help="Its name, in snake_case.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The file.", show_default="NAME.py")
    ] = None,
    package: Annotated[bool, typer.Option("--package", help="A folder that can be installed, not a file.")] = False,
) -> None:
    """Write a plugin to start from, and an experiment that tries it; nothing is ever overwritten."""
    from harness.api import SpecError
    from harness.cli.scaffold import trying, write_file, write_package
    from harness.discovery.finding import discover

    if package and output is not None:
        raise SpecError("plugins new: -o names a file, --package writes a folder; give one of them")
    registry = discover()
    written = write_package(kind, name, registry) if package else write_file(kind, name, output, registry)
    echo(f"wrote {written.module} and {written.experiment}")
    if written.package is not None:
        echo(f"next: pip install -e {written.package}")
    echo(f"next: harness plugins check {written.module if written.package is None else name}")
    echo(f"next: harness run {written.experiment}{trying(kind, name)}")
