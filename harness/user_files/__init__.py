"""Code that lies in a user's folder, imported as what it is: a module of that folder, and of no package.

`import_file` makes a module of a file. Its name holds its folder (`harness.user_files.<folder>.<stem>`), so that every
process that knows the harness finds it by name alone: a component of such a file goes to a worker like any other.
Inside, what lies beside the file is imported as in a script (`import helpers`) or as in a package (`from . import
helpers`); two folders with a `helpers.py` each never meet.
"""

import builtins
import hashlib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from harness._files import at_home
from harness.errors import SpecError

PREFIX = f"{__name__}."

MOST_BYTES = 1 << 24
"""Of a Python file: more than anybody writes, and less than takes long to read."""


def import_file(path: Path) -> ModuleType:
    """The module of a Python file; read again, with all that lies beside it, once one of these files has changed.

    Raises:
        SpecError: there is no such file, it is far too large, or its name is none that a module can have.
        Exception: whatever the file raises.
    """
    file = checked(path)
    package = package_of(file.parent)
    # All of it: which neighbours an import has read is not recorded, and half-new code would be neither version.
    _forget_changed(package)
    # Python remembers folders' listings by their time of change, too coarse for a file written just before.
    importlib.invalidate_caches()
    return importlib.import_module(f"{package}.{file.stem}")


def checked(path: Path) -> Path:
    """The absolute path of a file that can be imported.

    Raises:
        SpecError: as `import_file`.
    """
    file = Path(os.path.abspath(at_home(path)))
    if file.suffix != ".py" or "." in file.stem:
        raise SpecError(
            f"expected a Python file such as my_pattern.py, got {path}; rename it, with one dot in its name"
        )
    if not file.is_file():
        raise SpecError(f"expected a Python file, got {path}, which is not there; looked for {file}")
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise SpecError(
            f"expected a Python file of at most {MOST_BYTES} bytes, got {path} of {size}; name the one that was meant"
        )
    return file


def package_of(folder: Path) -> str:
    """The name of the package that stands for a folder."""
    # A dot would part the name into packages, a percent sign begin an escape.
    return PREFIX + str(folder).replace("%", "%25").replace(".", "%2E")


def folder_of(module: str) -> Path | None:
    """The folder that a module was imported from, by its name; None for a module of any package."""
    if not module.startswith(PREFIX):
        return None
    return Path(module.removeprefix(PREFIX).partition(".")[0].replace("%2E", ".").replace("%25", "%"))


def beside(folder: Path, name: str) -> bool:
    """Whether a name that is imported in a file means what lies in its folder: a module, or a package."""
    top = folder / name.partition(".")[0]
    return top.with_suffix(".py").is_file() or (top / "__init__.py").is_file()


class _Finder(MetaPathFinder):
    """Finds folders by their names, and what lies in them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(PREFIX):
            return None
        folder = folder_of(fullname)
        assert folder is not None
        if fullname == package_of(folder):
            # A namespace of this one folder: files beside one another need no `__init__.py`.
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(folder)]
            return spec if folder.is_dir() else None
        found = PathFinder.find_spec(fullname, path)
        if found is not None and isinstance(found.loader, SourceFileLoader) and found.origin is not None:
            found.loader = _Loader(fullname, found.origin)
        return found


class _Loader(SourceFileLoader):
    """Runs a file whose absolute imports look into its own folder first, as those of a script do."""

    def exec_module(self, module: ModuleType) -> None:
        folder = folder_of(module.__name__)
        assert folder is not None
        # Python takes the `import` statement of a module from its `__builtins__`; nothing of other modules changes.
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _importer(folder)}
        module.__dict__["__read__"] = _digest(Path(self.path))
        super().exec_module(module)

    def get_code(self, fullname: str) -> CodeType | None:
        """From the source every time: a file edited twice within a second would be taken from a stale cache."""
        return self.source_to_code(self.get_data(self.path), self.path)


def _importer(folder: Path) -> object:
    """The `__import__` of the modules of a folder."""
    package = package_of(folder)

    def imported(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level or not beside(folder, name):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        imported = importlib.import_module(f"{package}.{name}")
        if not fromlist:
            return sys.modules[f"{package}.{name.partition('.')[0]}"]
        # Once more by its full name: `from helpers import inner` may name a module of a package.
        return builtins.__import__(imported.__name__, globals, locals, fromlist, 0)

    return imported


def _forget_changed(package: str) -> None:
    """Let everything of a folder be imported again if one of its files is not what it was."""
    modules = [name for name in sys.modules if name.startswith(f"{package}.")]
    if any(_has_changed(sys.modules[name]) for name in modules):
        for name in modules:
            del sys.modules[name]


def _has_changed(module: ModuleType) -> bool:
    file, read = module.__dict__.get("__file__"), module.__dict__.get("__read__")
    return file is not None and read is not None and read != _digest(Path(file))


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


sys.meta_path.insert(0, _Finder())  # before the finder of files, which would take a folder's modules for a package's
