"""The user's file: found, imported, and digested with every file of theirs that it imports."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType

from harness.api import OwnCodeError, SpecError, is_own, theirs

_FOLDERS: set[Path] = set()
"""Folders that user files were imported from in this process."""


def located(entry: str, folder: Path) -> tuple[Path, str]:
    """The file of an entry `my_model.py:task` and the name in it.

    Raises:
        SpecError: it is not of that form, or the file is not there.
    """
    file, colon, name = entry.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise SpecError(
            f"own: `entry` must be a file and a function, such as 'my_model.py:task', got {entry!r}; write both"
        )
    path = (folder / Path(file).expanduser()).resolve()
    if not path.is_file():
        raise SpecError(
            f"own: `entry` must name a file from the experiment's folder, {path} is not there; correct '{entry}'"
        )
    return path, name


def imported(path: Path) -> ModuleType:
    """The user's module, imported afresh, its own folder first among the places of modules.

    Raises:
        OwnCodeError: importing it raised; with the line.
    """
    folder = path.parent
    _FOLDERS.add(folder)
    # Two folders may each have a `utils.py`, and a notebook edits its files: neither sees the other's, or older ones.
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name != "__main__" and any(is_own(Path(file), each) for each in _FOLDERS):
            del sys.modules[name]
    sys.path[:] = [str(folder), *(place for place in sys.path if Path(place) not in _FOLDERS)]
    importlib.invalidate_caches()
    # Under its own name, which worker processes of a data loader look it up by; never in the place of another module.
    name = path.stem if path.stem not in sys.modules else f"own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with theirs(folder, f"importing {path.name}"):
        spec.loader.exec_module(module)
    return module


def modules(path: Path) -> set[str]:
    """Top names of the modules that importing a file imports, itself or by other files of the user's."""
    found, seen, pending = set[str](), set[Path](), [path]
    while pending:
        file = pending.pop()
        if file in seen:
            continue
        seen.add(file)
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            continue  # told when it is imported
        for module in _imports(_run_at_once(tree), file, path.parent):
            found.add(module.partition(".")[0])
            pending += _files(module, path.parent)
    return found


def closure(path: Path) -> dict[str, str]:
    """Digests of the user's files that a file imports, itself included, by relative name; packages by their version."""
    folder, found = path.parent, dict[str, str]()
    pending, distributions = [path], packages_distributions()
    while pending:
        file = pending.pop()
        name = file.relative_to(folder).as_posix()
        if name in found:
            continue
        tree = _parsed(file, name)
        found[name] = hashlib.sha256(_plain(tree).encode()).hexdigest()[:16]
        for module in _imports(ast.walk(tree), file, folder):
            # What is no file beside it is a package, or part of one: its version stands for its code.
            files = list(_files(module, folder))
            pending += files
            top = module.partition(".")[0]
            if not files and top in distributions:
                found[f"package {top}"] = ",".join(f"{each} {version(each)}" for each in sorted(distributions[top]))
    return dict(sorted(found.items()))


def _parsed(file: Path, name: str) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise OwnCodeError(
            f"{name}{line}: importing it raised {type(error).__name__}: {error}; mend the file"
        ) from None


def _plain(tree: ast.Module) -> str:
    """The code without comments, docstrings and layout: those change no result."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [inner for inner in body if not _is_remark(inner)]  # type: ignore[attr-defined]  # it has one
    return ast.unparse(tree)


def _is_remark(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _run_at_once(tree: ast.Module) -> Iterator[ast.AST]:
    """What importing a file runs: what stands in functions waits for their calls, what is for types is never run."""
    pending: list[ast.AST] = [*tree.body]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        yield node
        inner = node.orelse if is_typing else ast.iter_child_nodes(node)  # type: ignore[attr-defined]  # an `if` has it
        pending += [each for each in inner if isinstance(each, ast.stmt | ast.ExceptHandler)]


def _imports(nodes: Iterable[ast.AST], file: Path, folder: Path) -> Iterator[str]:
    """Every module that some code may import; names that are no modules do no harm."""
    package = file.relative_to(folder).parent.parts
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*base, *([node.module] if node.module else [])])
            if source:
                yield source
            # A name imported from a package may be a module of it.
            yield from (f"{source}.{alias.name}".lstrip(".") for alias in node.names)


def _files(module: str, folder: Path) -> Iterator[Path]:
    """The files of the user's that importing a module runs: its own and those of the packages around it."""
    place = folder
    for part in module.split("."):
        place = place / part
        for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if file.is_file() and is_own(file, folder):
                yield file
