"""Pages that the code writes: commands, plugins, the experiment file, the interface of plugins."""

import inspect
from dataclasses import replace
from pathlib import Path

import typer

from harness.cli import app as commands
from harness.cli.gallery import write_gallery
from harness.cli.plugins import plugin_document
from harness.discovery.finding import discover
from harness.report import markdown
from harness.spec import schema

KINDS = {
    "task": "Tasks", "pattern": "Patterns", "strategy": "Strategies", "score": "Scores", "schedule": "Schedules",
    "backend": "Backends", "hardware": "Hardware models", "engine": "Engines", "column": "Columns", "check": "Checks",
    "tracker": "Trackers",
}  # fmt: skip


def write(folder):
    """Write every page below `folder`, those that are as they were not again."""
    registry = discover()
    rows = [row for row in registry.rows if row.distribution == "sparsity-harness" and row.component is not None]
    pages = {"commands.md": _commands(), "experiment.md": _experiment(registry), "api.md": _api()}
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    folder.mkdir(exist_ok=True)
    write_gallery(folder / "patterns.svg", registry)
    for kind in kinds:
        own = [row for row in rows if row.kind == kind]
        drawn = "![What every pattern keeps of one matrix](patterns.svg)\n\n" if kind == "pattern" else ""
        pages[f"{kind}.md"] = f"# {KINDS[kind]}\n\n{drawn}" + "\n\n".join(map(_plugin, own)) + "\n"
    pages["index.md"] = _index(kinds)
    for name, text in pages.items():
        if not (folder / name).exists() or (folder / name).read_text(encoding="utf-8") != text:
            (folder / name).write_text(text, encoding="utf-8")
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()


def _index(kinds):
    listed = "\n".join(["commands", "experiment", "api", *kinds])
    return f"# Reference\n\nWritten by the code itself.\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"


def _plugin(row):
    """A plugin as `harness plugins show` has it, its docstring as it stands."""
    document = plugin_document(row)
    _, *rest = document.sections
    parts = [f"## {row.name}\n", f"`{row.module}`, hook kind `{row.kind}`\n"]
    parts.append("```text\n" + inspect.cleandoc(row.component.__doc__ or row.summary) + "\n```\n")
    grids = [section for section in rest if section.grid is not None]
    if grids:
        parts.append(
            markdown.text(replace(document, title="x", sections=tuple(grids))).split("\n", 1)[1].strip() + "\n"
        )
    return "\n".join(parts)


def _commands():
    group = typer.main.get_command(commands)
    lines = ["# Commands\n", "Every option, as `--help` has it.\n"]
    lines += _command(group, "harness", 2)
    return "\n".join(lines)


def _command(command, name, level):
    context = command.context_class(command, info_name=name)  # of the click that typer comes with
    lines = []
    if hasattr(command, "list_commands"):
        for word in command.list_commands(context):
            each = command.get_command(context, word)
            if each is not None and not each.hidden:
                lines += _command(each, f"{name} {word}", level)
        return lines
    lines += [f"{'#' * level} {name}\n", f"{_escaped(inspect.cleandoc(command.help or ''))}\n"]
    lines += ["| | meaning | default |", "| --- | --- | --- |"]
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        names = ", ".join(f"`{each}`" for each in [*parameter.opts, *parameter.secondary_opts])
        if parameter.param_type_name == "argument":
            names = f"`{parameter.name.upper()}`"
        lines.append(f"| {names} | {_escaped(getattr(parameter, 'help', '') or '')} | {_default(parameter)} |")
    return [*lines, ""]


def _default(parameter):
    shown = getattr(parameter, "show_default", None)
    if isinstance(shown, str):
        return _escaped(shown)
    value = parameter.default
    value = getattr(value, "value", value)
    return f"`{value}`" if isinstance(value, str | int | float | Path) and not isinstance(value, bool) else ""


def _experiment(registry):
    found = schema(registry)
    lines = [
        "# The experiment file\n",
        "The fields at its top; [the guide](../spec.md) explains them, `harness schema` prints the JSON Schema.\n",
        "| field | meaning |", "| --- | --- |",
    ]  # fmt: skip
    for name, part in found.get("properties", {}).items():
        lines.append(f"| `{name}` | {_escaped(part.get('description', ''))} |")
    return "\n".join(lines) + "\n"


def _api():
    parts = [
        "# The interface of plugins\n", "What a plugin may import, and what a script may.\n",
        *_auto("harness.api"), "## From Python\n", *_auto("harness.scripting"),
        "## Checks\n", *_auto("harness.testing"),
    ]  # fmt: skip
    return "\n".join(parts)


def _auto(module):
    return [
        "```{eval-rst}", f".. automodule:: {module}", "   :members:",
        *(["   :imported-members:"] if module != "harness.scripting" else []), "```\n",
    ]  # fmt: skip


def _escaped(text):
    return " ".join(text.split()).replace("|", r"\|").replace("<", r"\<").replace("*", r"\*")
