"""Which files decide what a plugin does, by whose code it is: a third party's, a user's file, or the harness's own."""

import sys
import uuid
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path

from harness.discovery.distributions import distribution_of, offering
from harness.planning.code_imports import (
    DATA,
    DistributionImports,
    import_closure,
    imported,
    imports_dynamically,
    patches,
    syntax,
)
from harness.planning.code_text import content, digest
from harness.user_files import folder_of, package_of


@cache
def distributions() -> dict[str, Distribution]:
    """The distributions that offer plugins, as `offering` tells, read once."""
    return offering()


def distribution(module: str) -> Distribution | None:
    """The distribution that a module belongs to, as far as entry points tell."""
    return distribution_of(module, distributions())


def plugin_module(module: str) -> str:
    """The module or package directly below the one that an entry point names: one plugin of the harness."""
    # The longest, since one package of plugins may lie within another.
    entry = max((name for name in distributions() if f"{module}.".startswith(f"{name}.")), key=len, default=module)
    inner = module.removeprefix(entry).removeprefix(".").partition(".")[0]
    return f"{entry}.{inner}" if inner else entry


# --- third parties: a module and what it imports of its distribution, or all of that ----------------------------------


@cache
def third_party(module: str, *, with_data: bool) -> str:
    """A digest of a module and of what it imports of its distribution; of all that is in it where that is unknown.

    Args:
        module: the one that defines a plugin.
        with_data: whether data files beside its modules count too.
    """
    files = dict(_files(module))
    if not files:
        # Code without a file (typed at a prompt) cannot be recognised again: only this process may reuse its stages.
        # A random digest is equal to nothing, also in the next process.
        return uuid.uuid4().hex
    names = DistributionImports(files).closure(module, with_data=with_data)
    return digest((name, content(files[name])) for name in sorted(files if names is None else names))


def _files(module: str) -> Iterator[tuple[str, Path]]:
    """Every file of a module's distribution that may decide a result, by its name below the import root."""
    origin = getattr(sys.modules.get(module), "__file__", None) or ""
    found = distribution(module)
    installed = [] if found is None else [(str(file), Path(str(file.locate()))) for file in found.files or ()]
    # Listed as installed, and the module among them: then these are all its files, wherever they lie.
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
    # Names begin below the import root, so that an editable and an installed copy are the same code.
    root = path.parents[name.count(".") + 1]
    for inner in sorted(path.parent.rglob("*")):
        if _counts(inner) and inner.is_file():
            yield root, inner


def _counts(path: Path) -> bool:
    return "__pycache__" not in path.parts and path.name.endswith((".py", *DATA, *EXTENSION_SUFFIXES))


# --- files of the user's: a file and what it imports from its folder ------------------------------------------------


@cache
def user_file(module: str) -> str:
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

    # The module's own package is no module: what it holds was found through the names that are imported from it.
    found = import_closure([module.removeprefix(prefix)], lambda name: _file_of(folder, name), imports)
    every = dict(_python_files(folder))
    # Then everything in the folder counts: an edit too many retrains, an edit too few would hand out an old number.
    if _is_unknown(every, found, prefix):
        found = every
    return digest((name, content(found[name])) for name in sorted(found))


def _is_unknown(every: Mapping[str, Path], found: Mapping[str, Path], prefix: str) -> bool:
    """Whether sources do not tell what decides a result: an import by a computed name, a class changed elsewhere."""

    def is_own(name: str) -> bool:
        return name.removeprefix(prefix).partition(".")[0] in every or name == prefix[:-1]

    try:
        computed = any(imports_dynamically(syntax(path)) for path in found.values())
    except (SyntaxError, ValueError):
        return True
    return computed or any(patches(f"{prefix}{name}", path, is_own) for name, path in every.items())


def _python_files(folder: Path, package: str = "") -> Iterator[tuple[str, Path]]:
    """The modules that lie in a folder and in its packages, by name; a folder of anything else is not looked into."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py" and path.is_file():
            yield (package.rstrip(".") or path.stem) if path.name == "__init__.py" else f"{package}{path.stem}", path
        elif (path / "__init__.py").is_file():
            yield from _python_files(path, f"{package}{path.name}.")


def _file_of(folder: Path, name: str) -> Path | None:
    path = Path(folder, *name.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


# --- plugins of the harness: a module and what it imports among the plugins -----------------------------------------


@cache
def plugin(name: str, *, with_data: bool, without: tuple[str, ...] = ()) -> str:
    """A digest of a plugin of the harness: its module or package, and what that imports among the plugins.

    Args:
        name: as `plugin_module` gives it.
        with_data: whether data files beside its modules count too.
        without: modules of the package that do not count.
    """
    start = located(name)
    assert start is not None, "a class was imported from it"
    top = name.partition(".")[0]
    found = import_closure(
        [name, *(_submodules(name, start) if start.name == "__init__.py" else ())],
        located,
        lambda module, path: (each for each in imported(module, path) if each.partition(".")[0] == top),
    )
    # Digests, not texts: the same neighbour is read once for all plugins that share it.
    left_out = {f"{name}.{module}" for module in without}
    pieces = {module: content(path) for module, path in found.items() if module not in left_out}
    if with_data:
        for folder in {path.parent for path in found.values()}:
            pieces |= {f"{folder.name}/{path.name}": content(path) for path in folder.iterdir() if path.suffix in DATA}
    return digest(sorted(pieces.items()))


@cache
def modules_of(package: str, modules: tuple[str, ...]) -> str:
    """A digest of some modules of a package among the plugins."""
    found = {module: located(f"{package}.{module}") for module in modules}
    missing = [module for module, path in found.items() if path is None]
    assert not missing, f"{package} has no module {missing}"
    return digest((module, content(path)) for module, path in sorted(found.items()) if path is not None)


def _submodules(package: str, start: Path) -> list[str]:
    inner = (path.relative_to(start.parent).with_suffix("") for path in start.parent.rglob("*.py"))
    return [".".join((package, *path.parts)) for path in inner if path.name != "__init__"]


def located(module: str) -> Path | None:
    """The file of a module inside an imported package, found without importing it."""
    # Not by `find_spec`, which imports the parents of what it looks for.
    top, *inner = module.split(".")
    for folder in getattr(sys.modules.get(top), "__path__", ()):
        path = Path(folder, *inner)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    return None
