"""What a module imports, read from its source: the code that can have decided what a plugin does.

`import_closure` follows imports wherever they stand, inside functions too. Whose files are followed is its caller's
choice. `DistributionImports` makes that choice for a third party's plugin, and says where it cannot be made.
"""

import ast
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

DATA = (".yaml", ".yml", ".json", ".toml")
"""How the files are called that are data beside code."""

# What may import by a computed name, or run code that this module does not read.
_DYNAMIC_MODULES = frozenset(("builtins", "importlib", "imp", "pkgutil", "runpy", "zipimport"))
_DYNAMIC_NAMES = frozenset(("__import__", "exec", "eval"))
_DYNAMIC_ATTRIBUTES = frozenset(("__import__", "entry_points", "exec_module", "import_module", "load_module"))
_HARMLESS = ("importlib.metadata", "importlib.resources", "importlib.abc")  # they import nothing of a distribution
_LOCATING = frozenset(
    ("__file__", "__path__", "__spec__", "getfile", "getsourcefile")
)  # what a module finds the files of its package by


def import_closure(
    start: Iterable[str], locate: Callable[[str], Path | None], imports: Callable[[str, Path], Iterable[str]]
) -> dict[str, Path]:
    """The files of some modules and of all that these import, by module; a name without a file is left out.

    Args:
        start: the names of the first modules.
        locate: the file of a module, or None for what is not followed.
        imports: the names that the file of a module may import.
    """
    pending, found = list(start), dict[str, Path]()
    while pending:
        module = pending.pop()
        path = None if module in found else locate(module)
        if path is not None:
            found[module] = path
            pending += imports(module, path)
    return found


def imported(module: str, path: Path) -> Iterator[str]:
    """Every module that one may import, anywhere in it; names that are no modules do no harm."""
    for source, names in _sources(module, path):
        # The folder of the plugin kinds itself holds nothing: only what is named in it is imported.
        yield source
        # Every name may be a module of its own or something that the source defines: both are looked for.
        yield from (f"{source}.{name}" for name in names)


def _sources(module: str, path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each `import source` of a module, without names, and each `from source import names`."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in _statements(syntax(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Of an import with n dots, n - 1 packages are left away from the end.
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield source, tuple(alias.name for alias in node.names)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements inside one, at any depth; `ast.walk` would visit every expression as well."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        inner = getattr(node, field, ())
        for statement in inner if isinstance(inner, list) else ():
            yield statement
            yield from _statements(statement)


@cache
def syntax(path: Path) -> ast.Module:
    """The parsed source of a file, read once."""
    return ast.parse(path.read_bytes())


class _UnknownImportError(Exception):
    """What a module imports cannot be read from its source."""


class DistributionImports:
    """What the modules of one distribution import of it.

    Args:
        files: every file of the distribution that may count, by its name below the import root, with slashes.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._names = {path: name for name, path in files.items()}
        self._tops = {name.partition("/")[0].partition(".")[0] for name in files}

    def closure(self, module: str, *, with_data: bool) -> set[str] | None:
        """The names of the files that can decide what a module does; None where its source does not tell.

        Args:
            module: the module that defines a plugin.
            with_data: whether data files beside its modules count even if no module looks for its own place.
        """
        try:
            # A patch elsewhere changes a class without being imported by it: no closure finds it, so nothing is left
            # out.
            if self._locate(module) is None or self._is_patched():
                return None
            found = import_closure([module], self._locate, self._imports)
        except (_UnknownImportError, SyntaxError, ValueError):
            return None
        names = {self._names[path] for path in found.values()}
        folders = {path.parent for path in found.values()} if with_data else set()
        # A module that asks where it lies may read any data of its package, a folder up or down.
        everywhere = any(_locates_files(syntax(path)) for path in found.values())
        data = {name: path for name, path in self._files.items() if path.suffix in DATA}
        return names | {name for name, path in data.items() if everywhere or path.parent in folders}

    def _is_patched(self) -> bool:
        """Whether some module of the distribution changes what another one defines: it need not be imported by that."""
        modules = (name for name in self._files if name.endswith(".py"))
        return any(patches(_module_of(name), self._files[name], self._is_own) for name in modules)

    def _is_own(self, module: str) -> bool:
        return module.partition(".")[0] in self._tops

    def _locate(self, module: str) -> Path | None:
        stem = module.replace(".", "/")
        candidates = (f"{stem}/__init__.py", *(f"{stem}{suffix}" for suffix in (*EXTENSION_SUFFIXES, ".py")))
        return next((self._files[name] for name in candidates if name in self._files), None)

    def _imports(self, module: str, path: Path) -> Iterator[str]:
        # A compiled extension cannot be read at all: it may import anything.
        if path.suffix != ".py" or imports_dynamically(syntax(path)):
            raise _UnknownImportError
        # Importing a module runs the packages around it: they count if they do more than define and import.
        for package in _around(module):
            file = self._locate(package)
            if file is not None and (file.suffix != ".py" or not _only_declares(syntax(file).body)):
                yield package
        for source, names in _sources(module, path):
            if self._is_own(source):
                yield from self._taken(source, names) if names else self._bound(source)

    def _bound(self, source: str) -> Iterator[str]:
        """What `import a.b.c` gives: `a`, and through it all that its packages hold."""
        self._check(source)
        yield source
        yield from _around(source)

    def _taken(self, source: str, names: tuple[str, ...]) -> Iterator[str]:
        """What `from source import names` gives: modules of a package, or what the source itself defines."""
        path = self._locate(source)
        for name in names:
            inner = f"{source}.{name}"
            if name == "*":
                self._check(source)
                yield source
                yield from self._modules_in(source)  # its `__all__` may name them
            elif self._locate(inner) is not None or self._is_folder(inner):
                yield inner
                # `from .tiles import tiles` in a package hides the module of that name.
                if path is not None and path.suffix == ".py" and _binds(syntax(path), name):
                    yield source
            else:
                if path is None and not _lies_elsewhere(inner):
                    self._check(source, folder=False)
                yield source

    def _check(self, module: str, *, folder: bool = True) -> None:
        """Raise for a module of the distribution without a file: made as the package is imported, or not there."""
        known = self._locate(module) is not None or (folder and self._is_folder(module))
        if not known and not _lies_elsewhere(module):
            raise _UnknownImportError

    def _is_folder(self, module: str) -> bool:
        folder = f"{module.replace('.', '/')}/"
        return any(name.startswith(folder) for name in self._files)

    def _modules_in(self, package: str) -> Iterator[str]:
        folder = f"{package.replace('.', '/')}/"
        for name in self._files:
            inner = name.removeprefix(folder)
            if inner != name and not inner.endswith(DATA):
                yield f"{package}.{inner.partition('/')[0].partition('.')[0]}"


def _around(module: str) -> list[str]:
    """The packages that a module lies in, outermost first."""
    names = module.split(".")
    return [".".join(names[:length]) for length in range(1, len(names))]


def _lies_elsewhere(module: str) -> bool:
    """Whether an imported module has a file: one of another distribution, in a namespace that both share."""
    return getattr(sys.modules.get(module), "__file__", None) is not None


def _only_declares(statements: Iterable[ast.stmt]) -> bool:
    """Whether statements only import, define and bind names: then they change no other module."""
    # Whatever runs at import beyond these could register or patch something: the package counts then.
    for each in statements:
        if isinstance(each, ast.If):
            fine = _only_declares((*each.body, *each.orelse))
        elif isinstance(each, ast.Try):
            handled = (inner for handler in each.handlers for inner in handler.body)
            fine = _only_declares((*each.body, *handled, *each.orelse, *each.finalbody))
        elif isinstance(each, ast.Assign):
            fine = all(isinstance(target, ast.Name | ast.Tuple) for target in each.targets)
        elif isinstance(each, ast.AnnAssign):
            fine = isinstance(each.target, ast.Name)
        elif isinstance(each, ast.Expr):
            fine = isinstance(each.value, ast.Constant)
        else:
            declared = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Pass
            fine = isinstance(each, declared)
        if not fine:
            return False
    return True


def _binds(tree: ast.Module, name: str) -> bool:
    """Whether a package gives a name another meaning than that of its module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            return True
        if isinstance(node, ast.ImportFrom) and (node.module or node.level == 0):
            if any((alias.asname or alias.name) == name for alias in node.names):
                return True
        # Also a name bound inside `if` or `try` hides the module: which branch ran is not known here.
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.If | ast.Try):
            if any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node)):
                return True
    return False


def patches(module: str, path: Path, is_own: Callable[[str], bool]) -> bool:
    """Whether a module sets attributes of what it has imported: methods of another module's class, say.

    Args:
        module: its name.
        path: its file.
        is_own: whether an imported module is one whose code the digest is to hold.
    """
    try:
        tree = syntax(path)
    except (SyntaxError, ValueError):
        return False  # what cannot be read cannot be imported either
    taken = set(_taken_names(module, path, is_own))
    return bool(taken) and any(_root(target) in taken for node in ast.walk(tree) for target in _changed(node))


def _taken_names(module: str, path: Path, is_own: Callable[[str], bool]) -> Iterator[str]:
    """The names that a module's imports bind to modules of its own distribution, and to what these define."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in _statements(syntax(path)):
        if isinstance(node, ast.Import):
            yield from ((each.asname or each.name).partition(".")[0] for each in node.names if is_own(each.name))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            if is_own(".".join([*base, *([node.module] if node.module else [])])):
                yield from (each.asname or each.name for each in node.names)


def _changed(node: ast.AST) -> Iterable[ast.expr]:
    """The expressions whose attributes a node sets or deletes."""
    if isinstance(node, ast.Assign | ast.Delete):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
        return node.args[:1]
    else:
        return ()
    return [target.value for target in targets if isinstance(target, ast.Attribute)]


def _root(expression: ast.expr) -> str:
    """The name that a chain of attributes begins with."""
    while isinstance(expression, ast.Attribute):
        expression = expression.value
    return expression.id if isinstance(expression, ast.Name) else ""


def _module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports_dynamically(tree: ast.Module) -> bool:
    """Whether a module may import by a computed name, or run code that is not in its file."""
    return any(_is_dynamic(node) for node in ast.walk(tree))


def _is_dynamic(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _DYNAMIC_NAMES
    if isinstance(node, ast.Attribute):
        # `sys.modules` and `sys.path` change what any import gives.
        of_sys = isinstance(node.value, ast.Name) and node.value.id == "sys" and node.attr in ("modules", "path")
        return of_sys or node.attr in _DYNAMIC_ATTRIBUTES
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        if node.module == "sys" and any(alias.name in ("modules", "path") for alias in node.names):
            return True
        if any(alias.name in _DYNAMIC_ATTRIBUTES for alias in node.names):
            return True
        modules = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return False
    return any(
        name.partition(".")[0] in _DYNAMIC_MODULES
        and not f"{name}.".startswith(tuple(f"{each}." for each in _HARMLESS))
        for name in modules
    )


def _locates_files(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        if (isinstance(node, ast.Name) and node.id in _LOCATING) or (
            isinstance(node, ast.Attribute) and node.attr in _LOCATING
        ):
            return True
        if isinstance(node, ast.Import) and any(alias.name.startswith("importlib.resources") for alias in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("importlib"):
            if any(f"{node.module}.{alias.name}".startswith("importlib.resources") for alias in node.names):
                return True
    return False
