"""Writes plugins to start from: a file or a package, with an experiment beside it that tries it."""

import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from harness._outputs import write_output
from harness.api import SpecError

if TYPE_CHECKING:
    from harness.discovery.registry import Registry

KINDS = (
    "task", "pattern", "strategy", "score", "schedule", "backend", "hardware", "engine", "tracker", "column", "check"
)  # fmt: skip
"""The kinds that there are templates of."""

_MEANT_OTHERWISE = ("null", "true", "false", "all", "dense")
"""Names that say something else in an experiment file."""

_DIGITS = "{name: lenet, train_items: 256, eval_items: 100, epochs: 2, full_epochs: 1}  # small, embedded images"

_EXPERIMENT = """\
# Tries the $kind `$name`: a dense baseline and a few pruned cells, in seconds.
name: try_$name
${plugins}task: $task
scope: [dense]             # which tensors are pruned: roles, layers or tensor names
matrix:
  backend: $backend
  pattern: $pattern
  strategy: $strategy
  sparsity: [0.5]          # fractions of zeros
  seed: [0]
$hardware"""

_PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "A plugin for harness: the $kind $name."
requires-python = ">=3.11"
dependencies = ["sparsity-harness"]

# The harness looks into this group; the value names a package, and every module in it is offered.
[project.entry-points."harness.plugins"]
$name = "$name"

[tool.setuptools]
packages = ["$name"]
"""

_PACKAGE = '"""Plugins for harness: every module of this package that has a hook is found."""\n'


@dataclass(frozen=True)
class Written:
    """What was written: the file of the plugin, the experiment that tries it, and the folder to install, if any."""

    module: Path
    experiment: Path
    package: Path | None = None


def trying(kind: str, name: str) -> str:
    """What `run` is told beside the experiment: a tracker changes no result, and stands in none."""
    return f" --track {name}" if kind == "tracker" else ""


def write_file(kind: str, name: str, output: Path | None, registry: "Registry") -> Written:
    """Write a plugin as one file, `NAME.py` unless told otherwise, and the experiment beside it.

    Raises:
        SpecError: the kind or the name cannot be, or a file is there already; nothing has been written.
    """
    _checked(kind, name, registry)
    module = output or Path(f"{name}.py")
    if module.suffix != ".py" or "." in module.stem:
        raise SpecError(f"-o: expected a Python file such as {name}.py, got {module}")
    _checked_module(module.stem)
    experiment = module.with_suffix(".yaml")
    _write({module: _module(kind, name), experiment: _experiment(kind, name, f"plugins: [{module.name}]\n")})
    return Written(module, experiment)


def write_package(kind: str, name: str, registry: "Registry") -> Written:
    """Write a plugin as a package that can be installed, in a folder with the name of its distribution.

    Raises:
        SpecError: as `write_file`.
    """
    _checked(kind, name, registry)
    _checked_module(name)
    distribution = re.sub("_+", "-", name).strip("-")
    folder = Path(distribution)
    module, experiment = folder / name / f"{kind}.py", folder / "experiment.yaml"
    texts = {
        folder / "pyproject.toml": Template(_PROJECT).substitute(kind=kind, name=name, distribution=distribution),
        folder / name / "__init__.py": _PACKAGE,
        module: _module(kind, name),
        experiment: _experiment(kind, name, ""),
    }
    if folder.exists():
        raise SpecError(f"{folder} exists already and was left as it is; take another name, or another folder")
    _write(texts)
    return Written(module, experiment, folder)


def _checked(kind: str, name: str, registry: "Registry") -> None:
    if kind not in KINDS:
        raise SpecError(f"plugins new: expected a kind ({', '.join(KINDS)}), got {kind!r}")
    if not _is_name(name):
        # What the user most likely meant, as a name that would be taken.
        near = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")
        near = near if _is_name(near) else f"my_{near or kind}"
        raise SpecError(f"plugins new: expected a snake_case name that means nothing else, got {name!r}; take {near!r}")
    taken = next((row for row in registry.rows if (row.kind, row.name) == (kind, name)), None)
    if taken is not None:
        raise SpecError(
            f"plugins new: there is a {kind} {name!r} already, of {taken.distribution}; take another name, "
            f"such as 'my_{name}'"
        )


def _is_name(name: str) -> bool:
    return bool(re.fullmatch(r"[a-z][a-z0-9_]*", name)) and not keyword.iskeyword(name) and name not in _MEANT_OTHERWISE


def _checked_module(stem: str) -> None:
    """Refuse a module that would stand in the way of one that is installed: it is imported as in a script."""
    if not stem.isidentifier() or keyword.iskeyword(stem) or stem.startswith("_"):
        raise SpecError(f"-o: expected a file that Python can import, got {stem}.py; take my_plugin.py")
    if stem in sys.stdlib_module_names or _is_installed(stem):
        raise SpecError(f"plugins new: a module {stem!r} is installed already, which it would hide; take 'my_{stem}'")


def _is_installed(stem: str) -> bool:
    found = find_spec(stem)
    if found is None or found.origin is None:  # a folder of that name is none
        return False
    return Path(found.origin).parent != Path.cwd()


def _module(kind: str, name: str) -> str:
    text = files("harness.cli").joinpath("templates", f"{kind}.txt").read_text(encoding="utf-8")
    title = "".join(part.capitalize() for part in name.split("_"))
    # A class must not hide what the file imports: a pattern `frame` is no `Frame`.
    if keyword.iskeyword(title) or re.search(rf"\b{title}\b", text):
        title += kind.capitalize()
    return Template(text).substitute({"name": name, "Class": title})


def _experiment(kind: str, name: str, plugins: str) -> str:
    parts: Mapping[str, str] = {
        "task": name if kind == "task" else _DIGITS,
        "backend": f"[{name}]" if kind == "backend" else "[torch]",
        "pattern": f"[unstructured, {name}]" if kind == "pattern" else "[unstructured]",
        "strategy": {
            "strategy": f"[one_shot, {name}]",
            "score": f"[one_shot, {{name: one_shot, score: {name}}}]",
            "schedule": f"[gradual, {{name: gradual, schedule: {name}}}]",
        }.get(kind, "[one_shot]"),
        "hardware": {
            "hardware": f"hardware: [{name}]\n",
            "engine": f"hardware:\n  - {{name: cycle_simulator, engine: {name}}}\n",
        }.get(kind, ""),
    }
    return Template(_EXPERIMENT).substitute(parts, kind=kind, name=name, plugins=plugins)


def _write(texts: Mapping[Path, str]) -> None:
    """Write files that are not there yet; all of them, or none where one is."""
    # All names are looked at before the first file is written.
    for path in texts:
        if path.exists() or path.is_symlink():
            raise SpecError(f"{path} exists already and was left as it is; take another name, or another file with -o")
    written: list[Path] = []
    for path, text in texts.items():
        try:
            write_output(path, text, is_new=True)
        except SpecError:
            for other in written:  # all of them or none
                other.unlink(missing_ok=True)
            raise
        written.append(path)
