"""Digests of the code that makes results: they enter the keys of stages, so that edited code never gets old numbers.

A digest is taken of the parsed source without comments, docstrings and layout, so that these retrain nothing. What is
digested depends on whose code it is:

- a third party's plugin: its module and what that imports within its distribution; where that cannot be known, as with
  imports by a computed name, every module and data file of the distribution;
- a plugin of the harness: its own module or package, and what that imports within the plugins;
- a file of the user's: the file, and what it imports from its folder;
- the harness itself: the definitions that run a stage (`stages`) and that make masks (`masks`), and nothing else.

Everything is read once per process.
"""

import ast
import hashlib
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import Distribution, PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel

from harness import DISTRIBUTION
from harness._files import file_sha256
from harness.api import Component, JsonValue, Score
from harness.planning.code_imports import DATA, DistributionImports, import_closure, imported, syntax
from harness.user_files import folder_of, package_of

OWN = DISTRIBUTION
"""The distribution of the harness and its plugins."""

_TOP = "harness"  # its import name

STAGES: Mapping[str, tuple[str, ...]] = {
    "harness.execution.worker": ("Worker.run",),
    "harness.api.backend": ("batch_rng",),
    "harness.api.network": ("dropout_seed",),
}
"""What runs a stage, by module: these definitions and what they use of their module. They enter at the root.

A method stands for itself and the methods it calls: how a worker talks to its parent decides no number. Networks,
recipes, rates and updates are in the keys as values: the code that makes them needs no digest.
"""

MASKS: Mapping[str, tuple[str, ...]] = {
    "harness.masks.updates": ("MaskMaker",),
    "harness.selection.kernel": ("select",),
    "harness.selection.layout": ("Layout",),
    "harness.masks.allocation": (),
    "harness.selection.best": (),
    "harness.masks.coupling": (),
    "harness.api.pattern": ("Pattern",),
    "harness.arrays": ("keep_count",),
}
"""What makes masks, likewise (no names: the whole module). They enter with the first mask update of a chain."""

_GROUP = "harness.plugins"
_WITH_DATA = ("task", "hardware", "engine")  # the kinds of plugin that may read files beside their modules
_SKIPPED = frozenset(("ctx", "type_comment", "kind"))  # of a syntax node: what repeats or only comments it


@dataclass(frozen=True, slots=True)
class CodeDigest:
    """What is known of a piece of code.

    Args:
        kind: `task`, `backend`, `pattern`, `score`, ..., or `harness` for its own definitions.
        name: the component's name.
        distribution: the installed package it came with; empty where none did.
        version: of that package. It is told, and enters no key: the same code under a new number is the same code.
        digest: 16 hexadecimal digits.
    """

    kind: str
    name: str
    distribution: str
    version: str
    digest: str

    @property
    def place(self) -> str:
        """What it is called among the inputs of a stage."""
        return f"{self.kind} {self.name}"

    def values(self) -> dict[str, JsonValue]:
        """What `stage.json` says of it."""
        return {"distribution": self.distribution, "version": self.version, "digest": self.digest}


@cache
def component(cls: type) -> CodeDigest:
    """The code of a component's or a score's class, with that of the classes it inherits from.

    Args:
        cls: a class of a plugin, or a score of the harness.
    """
    pieces: dict[str, str] = {}
    for base in cls.__mro__:
        top = base.__module__.partition(".")[0]
        if top == _TOP and folder_of(base.__module__) is None:
            if issubclass(base, Score):
                pieces[f"{base.__module__}.{base.__qualname__}"] = _definitions(base.__module__, (base.__name__,))
        elif top not in ("builtins", "abc", "pydantic", "typing"):
            pieces[_unit(base)] = _code(base)
    kind = str(getattr(cls, "kind", "score" if issubclass(cls, Score) else "value"))
    owner = _owner(cls)
    name = str(getattr(cls, "name", cls.__name__))
    return CodeDigest(kind, name, owner[0], owner[1], _digest(sorted(pieces.items())))


def parts(value: BaseModel) -> tuple[CodeDigest, ...]:
    """The code of a component and of every component or score inside its fields, outermost first."""
    found = {type(value): component(type(value))}
    for inner in _inside(value):
        found.setdefault(type(inner), component(type(inner)))
    return tuple(found.values())


@cache
def stages() -> CodeDigest:
    """The code of the harness that runs a stage."""
    return _own("stages", STAGES)


@cache
def masks() -> CodeDigest:
    """The code of the harness that turns a mask update into masks."""
    return _own("masks", MASKS)


def forget() -> None:
    """Read all code again: for a process that lives on while its plugins are edited, such as a notebook's."""
    for function in (component, stages, masks, _distributions, _third_party, _plugin, _user_file, _content, syntax):
        function.cache_clear()


def _own(name: str, listed: Mapping[str, tuple[str, ...]]) -> CodeDigest:
    pieces = [(module, _definitions(module, names)) for module, names in sorted(listed.items())]
    return CodeDigest("harness", name, OWN, version(OWN), _digest(pieces))


def _inside(value: object) -> Iterator[BaseModel]:
    """Components and scores in the fields of a model, at any depth."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            field = getattr(value, name)
            if isinstance(field, Component | Score):
                yield field
            yield from _inside(field)
    elif isinstance(value, Mapping):
        for field in value.values():
            yield from _inside((field,))
    elif isinstance(value, tuple | list | frozenset):
        for field in value:
            if isinstance(field, Component | Score):
                yield field
            yield from _inside(field)


# --- whose code it is -----------------------------------------------------------------------------------------------


@cache
def _distributions() -> dict[str, Distribution]:
    """The distributions that offer plugins, by the module that their entry point names."""
    return {entry.module: entry.dist for entry in entry_points(group=_GROUP) if entry.dist is not None}


def _distribution(module: str) -> Distribution | None:
    """The distribution that a module belongs to, as far as entry points tell."""
    top = module.partition(".")[0]
    named = _distributions()
    # A namespace is shared by several distributions: the longest name that fits decides.
    fitting = [entry for entry in named if module == entry or module.startswith(f"{entry}.")]
    fitting = fitting or [entry for entry in named if entry.partition(".")[0] == top]
    return named[max(fitting, key=len)] if fitting else None


def _owner(cls: type) -> tuple[str, str]:
    if folder_of(cls.__module__) is not None:
        return f"{_last(cls.__module__)}.py", ""
    if cls.__module__.partition(".")[0] == _TOP:
        return OWN, version(OWN)
    found = _distribution(cls.__module__)
    if found is not None:
        return found.name, found.version
    top = cls.__module__.partition(".")[0]
    try:
        return top, version(top)
    except PackageNotFoundError:
        return "", ""


def _unit(cls: type) -> str:
    """The name under which a class's code is digested: equal for classes that share it."""
    if folder_of(cls.__module__) is not None:
        return f"{_last(cls.__module__)}.py"  # wherever its folder lies
    found = _distribution(cls.__module__)
    ours = found is not None and found.name == OWN
    return _plugin_module(cls.__module__) if ours else cls.__module__


def _last(module: str) -> str:
    return module.rpartition(".")[2]


def _code(cls: type) -> str:
    if folder_of(cls.__module__) is not None:
        return _user_file(cls.__module__)
    found = _distribution(cls.__module__)
    with_data = getattr(cls, "kind", "") in _WITH_DATA
    if found is not None and found.name == OWN:
        return _plugin(_plugin_module(cls.__module__), with_data=with_data)
    return _third_party(cls.__module__, with_data=with_data)


def _plugin_module(module: str) -> str:
    """The module or package directly below the one that an entry point names: one plugin of the harness."""
    entry = max((name for name in _distributions() if f"{module}.".startswith(f"{name}.")), key=len, default=module)
    inner = module.removeprefix(entry).removeprefix(".").partition(".")[0]
    return f"{entry}.{inner}" if inner else entry


# --- third parties: a module and what it imports of its distribution, or all of that ----------------------------------


@cache
def _third_party(module: str, *, with_data: bool) -> str:
    files = dict(_files(module))
    if not files:
        # Code without a file (typed at a prompt) cannot be recognised again: only this process may reuse its stages.
        return uuid.uuid4().hex
    names = DistributionImports(files).closure(module, with_data=with_data)
    return _digest((name, _content(files[name])) for name in sorted(files if names is None else names))


def _files(module: str) -> Iterator[tuple[str, Path]]:
    """Every file of a module's distribution that may decide a result, by its name below the import root."""
    origin = getattr(sys.modules.get(module), "__file__", None) or ""
    found = _distribution(module)
    installed = [] if found is None else [(str(file), Path(str(file.locate()))) for file in found.files or ()]
    if any(path.resolve() == Path(origin).resolve() for _, path in installed):
        yield from ((name, path) for name, path in installed if _counts(path) and path.is_file())
        return
    # An editable install lists a finder instead of its files: walk its packages where they lie.
    tops = {_package(module)}
    if found is not None:
        tops.update((found.read_text("top_level.txt") or "").split())
    for top in sorted(tops):
        for folder, path in _walk(top):
            yield path.relative_to(folder).as_posix(), path


def _package(module: str) -> str:
    """The outermost package of a module that is not a namespace, which others may share."""
    names = module.split(".")
    outer = (".".join(names[:length]) for length in range(1, len(names)))
    return next((name for name in outer if getattr(sys.modules.get(name), "__file__", None)), module)


def _walk(name: str) -> Iterator[tuple[Path, Path]]:
    """(import root, file) of a module or package and everything in it."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None:
        spec = find_spec(name) if "." not in name and module is None else None
        file = spec.origin if spec is not None and spec.has_location else None
    if file is None:
        return
    path = Path(file)
    if path.name != "__init__.py":
        yield path.parent, path
        return
    root = path.parents[name.count(".") + 1]
    for inner in sorted(path.parent.rglob("*")):
        if _counts(inner) and inner.is_file():
            yield root, inner


def _counts(path: Path) -> bool:
    return "__pycache__" not in path.parts and path.name.endswith((".py", *DATA, *EXTENSION_SUFFIXES))


@cache
def _content(path: Path) -> str:
    if path.suffix == ".py":
        try:
            return _normal(syntax(path))
        except (SyntaxError, ValueError):
            pass  # a template, or for another Python: its bytes then
    return file_sha256(path)


# --- files of the user's: a file and what it imports from its folder ------------------------------------------------


@cache
def _user_file(module: str) -> str:
    """By what the files are called below the folder: the same files in another place are the same code."""
    folder = folder_of(module)
    assert folder is not None
    prefix = f"{package_of(folder)}."

    def imports(name: str, path: Path) -> Iterator[str]:
        outer = name.split(".")
        yield from (".".join(outer[:length]) for length in range(1, len(outer)))  # packages on the way to it
        # A relative import tells the package; an absolute one may mean a neighbour by its bare name.
        found = (each.removeprefix(prefix) for each in imported(f"{prefix}{name}", path))
        yield from (each for each in found if each != prefix[:-1])

    found = import_closure([module.removeprefix(prefix)], lambda name: _file_of(folder, name), imports)
    return _digest((name, _content(found[name])) for name in sorted(found))


def _file_of(folder: Path, name: str) -> Path | None:
    path = Path(folder, *name.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


# --- plugins of the harness: a module and what it imports among the plugins -----------------------------------------


@cache
def _plugin(name: str, *, with_data: bool) -> str:
    start = _located(name)
    assert start is not None, "a class was imported from it"
    top = name.partition(".")[0]
    found = import_closure(
        [name, *(_submodules(name, start) if start.name == "__init__.py" else ())],
        _located,
        lambda module, path: (each for each in imported(module, path) if each.partition(".")[0] == top),
    )
    pieces = {module: _content(path) for module, path in found.items()}
    if with_data:
        for folder in {path.parent for path in found.values()}:
            pieces |= {f"{folder.name}/{path.name}": _content(path) for path in folder.iterdir() if path.suffix in DATA}
    return _digest(sorted(pieces.items()))


def _submodules(package: str, start: Path) -> list[str]:
    inner = (path.relative_to(start.parent).with_suffix("") for path in start.parent.rglob("*.py"))
    return [".".join((package, *path.parts)) for path in inner if path.name != "__init__"]


def _located(module: str) -> Path | None:
    """The file of a module inside an imported package, found without importing it."""
    top, *inner = module.split(".")
    for folder in getattr(sys.modules.get(top), "__path__", ()):
        path = Path(folder, *inner)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    return None


# --- the harness: definitions and what they use of their module -----------------------------------------------------


def _definitions(module: str, names: Sequence[str]) -> str:
    """Definitions of a module with everything in the module that they use; the whole module where none are named."""
    path = _located(module)
    assert path is not None, f"code_digest lists {module}, which is not there"
    tree = syntax(path)
    if not names:
        return _normal(tree)
    defined = _defined(tree)
    missing = [name for name in names if name not in defined]
    assert not missing, f"code_digest lists {', '.join(missing)} of {module}, which are not there"
    used: dict[str, str] = {}
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in used:
            used[name] = "".join(_normal(node) for node in defined[name])
            inner = (
                node.id for statement in defined[name] for node in ast.walk(statement) if isinstance(node, ast.Name)
            )
            pending += {word for word in inner if word in defined}
    return _digest(sorted(used.items()))


def _used(node: ast.AST, owner: str) -> Iterator[str]:
    """The names that a definition uses, `self.name` as one of its class; what only annotates is not used."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        yield f"{owner}.{node.attr}"
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns"):
            for inner in value if isinstance(value, list) else (value,):
                if isinstance(inner, ast.AST):
                    yield from _used(inner, owner)


def _defined(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """The statements that bind each name at the top of a module, imports included; methods as `Class.name`."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                # One name each: another name imported beside it changes nothing.
                module = statement.module if isinstance(statement, ast.ImportFrom) else None
                level = statement.level if isinstance(statement, ast.ImportFrom) else 0
                bound = (alias.asname or alias.name).partition(".")[0]
                found.setdefault(bound, []).append(ast.ImportFrom(module=module, names=[alias], level=level))
        else:
            for name in _bound(statement):
                found.setdefault(name, []).append(statement)
        if isinstance(statement, ast.ClassDef):
            for inner in statement.body:
                if isinstance(inner, ast.FunctionDef):
                    found.setdefault(f"{statement.name}.{inner.name}", []).append(inner)
    return found


def _bound(statement: ast.stmt) -> Iterable[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


# --- normal form ----------------------------------------------------------------------------------------------------


def _normal(node: ast.AST) -> str:
    """A syntax tree as text: nothing of comments, layout and docstrings, and the same in every version of Python."""
    out: list[str] = []
    _write(node, out.append)
    return hashlib.sha256("".join(out).encode("utf-8", "surrogatepass")).hexdigest()


def _write(node: ast.AST, out: Callable[[str], None]) -> None:
    kind = type(node)
    if kind is ast.Constant:
        out(repr(node.value))  # type: ignore[attr-defined]  # it is a constant
        return
    out(f"{kind.__name__}(")
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            value = [inner for inner in value if not _is_remark(inner)]
        # What is empty is left out: later versions of Python have more fields, empty for the same source.
        if value is None or name in _SKIPPED or value == []:
            continue
        if isinstance(value, ast.AST):
            out(f"{name}=")
            _write(value, out)
        elif isinstance(value, list):
            out(f"{name}=[")
            for inner in value:
                if isinstance(inner, ast.AST):
                    _write(inner, out)
                else:
                    out(repr(inner))
                out(",")
        else:
            out(f"{name}={value!r};")
    out(")")


def _is_remark(node: object) -> bool:
    """A text standing alone: a docstring, or one of a constant."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _digest(pieces: Iterable[tuple[str, str]]) -> str:
    hasher = hashlib.sha256()
    for name, content in pieces:
        hasher.update(f"{name} {content}\n".encode())
    return hasher.hexdigest()[:16]
