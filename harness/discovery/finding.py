"""Finds plugins: every module on its own, so that one broken plugin is a row and never stops another."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Literal

import pluggy

from harness import DISTRIBUTION
from harness.api import (
    API_VERSION,
    Backend,
    Component,
    Engine,
    HardwareModel,
    Kind,
    Pattern,
    PluginContractError,
    ReportColumn,
    Schedule,
    Score,
    SpecError,
    Strategy,
    StudyCheck,
    Task,
    Tracker,
)
from harness.discovery import hookspecs
from harness.discovery.asking import named, why_unavailable
from harness.discovery.distributions import GROUP
from harness.discovery.guard import place_in_file
from harness.discovery.registry import KINDS, PLURALS, PluginRow, Registry, did_you_mean
from harness.user_files import checked, folder_of, import_file, package_of

BASES: Mapping[Kind, type[Component]] = {
    "task": Task, "pattern": Pattern, "strategy": Strategy, "score": Score, "schedule": Schedule,
    "backend": Backend, "hardware": HardwareModel,
    "engine": Engine, "column": ReportColumn, "check": StudyCheck, "tracker": Tracker,
}  # fmt: skip

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def discover(found: Iterable[EntryPoint] | None = None, files: Iterable[Path] = ()) -> Registry:
    """Import every plugin module, each guarded on its own, and collect what they offer.

    A package whose own `__init__` offers hooks counts as one module; of any other package each module and sub-package
    without a leading underscore is imported.

    Args:
        found: the entry points to follow; those installed in the group `harness.plugins` by default.
        files: Python files of the user's that offer plugins as a module of a package does.

    Raises:
        SpecError: a file is not there, or is none of Python.

    Returns:
        A registry with a plugin manager of its own, so that two calls never share state.
    """
    entries = tuple(entry_points(group=GROUP) if found is None else found)
    return _Discovery().run(entries, tuple(dict.fromkeys(checked(file) for file in files)))


def discover_given(
    files: Iterable[Path], found: Iterable[EntryPoint] | None = None, *, option: str = "--plugin"
) -> Registry:
    """As `discover`, with files that somebody names because they are to be used: one that cannot be is refused.

    Args:
        files: Python files of the user's.
        found: as for `discover`.
        option: what names them, for the sentence.

    Raises:
        SpecError: a file is not there, or what it offers cannot be used; every such thing is told.
    """
    registry = discover(found, files)
    faults = [f"{option}: {fault}" for file in registry.files for fault in registry.faults(file)]
    if faults:
        raise SpecError("\n".join(faults))
    return registry


@dataclass(frozen=True)
class _Origin:
    """Which distribution a module came with, and the kind its entry point suggests."""

    distribution: str
    version: str
    module: str
    kind: Kind | None = None

    def row(self, name: str, kind: Kind | None, error: str, remedy: str) -> PluginRow:
        line = " ".join(error.split())
        return PluginRow(kind, name, "", self.distribution, self.version, self.place, "broken", line, remedy)

    @property
    def place(self) -> str:
        """What a row calls the module: a file of the user's by its path."""
        folder = folder_of(self.module)
        return self.module if folder is None else str(folder / f"{_last(self.module)}.py")

    @property
    def update(self) -> str:
        """What is to be done about a fault of the code."""
        return "mend the file" if folder_of(self.module) else f"upgrade or uninstall {self.distribution}"


class _Discovery:
    """One pass over the entry points."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("harness")
        self.manager.add_hookspecs(hookspecs)
        self.rows: list[PluginRow] = []
        self.origins: dict[str, _Origin] = {}  # by registered name

    def run(self, found: tuple[EntryPoint, ...], files: tuple[Path, ...]) -> Registry:
        # Built-ins first, so that their names are theirs; the rest by distribution, so that the order of installation
        # never decides who owns a name.
        followed: set[str] = set()
        for entry in sorted(
            # False sorts before True: ours first.
            found,
            key=lambda e: (_origin(e).distribution != DISTRIBUTION, _origin(e).distribution, e.name),
        ):
            # Metadata that an earlier name of a distribution left behind lists the same modules once more.
            if entry.value in followed:
                continue
            followed.add(entry.value)
            self._follow(entry)
        for file in files:
            self._follow_file(file)
        self._refuse_misspelt()
        for name, origin in self.origins.items():
            for row in self._offers(_module(self.manager, name), origin):
                self._add(row)
        order = {kind: place for place, kind in enumerate(KINDS)}
        rows = sorted(self.rows, key=lambda r: (order.get(r.kind, len(KINDS)) if r.kind else len(KINDS), r.name))
        return Registry(tuple(rows), self.manager, files, found, discover)

    def _refuse(self, origin: _Origin, error: str, remedy: str) -> None:
        """Make a row of a whole module that cannot be used."""
        self.rows.append(origin.row(_last(origin.module), origin.kind, error, remedy))

    def _follow(self, entry: EntryPoint) -> None:
        origin = _origin(entry)
        if entry.attr:
            self._refuse(
                origin,
                f"an entry point must name a package or a module, got '{entry.value}'",
                f"write '{entry.module}' in the entry points of {origin.distribution}",
            )
            return
        top = self._import(origin)
        # What could not be imported has its row by now.
        if top is None:
            return
        # A package that implements hooks itself is one plugin; the modules below are then its own business.
        if not hasattr(top, "__path__") or _hooks(top):
            self._register(top, origin)
            return
        for info in sorted(pkgutil.iter_modules(top.__path__), key=lambda info: info.name):
            # Helpers beside plugins begin with an underscore, as in the built-in packages.
            if info.name.startswith("_"):
                continue
            inner = _Origin(origin.distribution, origin.version, f"{top.__name__}.{info.name}", origin.kind)
            module = self._import(inner)
            if module is not None:
                self._register(module, inner)

    def _follow_file(self, file: Path) -> None:
        origin = _Origin(_shown(file), "", f"{package_of(file.parent)}.{file.stem}")
        module = self._import(origin)
        if module is None:
            return
        before = len(self.rows)
        self._register(module, origin)
        if not _hooks(module) and len(self.rows) == before:
            remedy = "give it a function marked @hookimpl, such as register_pattern"
            self._refuse(origin, "the file offers no plugin", remedy)

    def _import(self, origin: _Origin) -> ModuleType | None:
        folder = folder_of(origin.module)
        try:
            if folder is not None:
                return import_file(folder / f"{_last(origin.module)}.py")
            return importlib.import_module(origin.module)
        # SystemExit too: a module that calls `sys.exit` at import must not end the command that lists it.
        except (Exception, SystemExit) as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            remedy = (
                f"install '{missing}' or mend the file" if missing and folder is not None
                else f"install '{missing}' or reinstall {origin.distribution}" if missing
                else origin.update
            )  # fmt: skip
            happened = "exited" if isinstance(error, SystemExit) else "raised"
            message = f"{happened} at import: {type(error).__name__}: {error}{place_in_file(error)}"
            self._refuse(origin, message, remedy)
            return None

    def _register(self, module: ModuleType, origin: _Origin) -> None:
        name = f"{origin.distribution}:{origin.module}"
        if name in self.origins:
            return
        if not _hooks(module):
            self._refuse_hookless(module, origin)
            return
        try:
            self.manager.register(module, name)
        except pluggy.PluginValidationError as error:
            # pluggy names the plugin and the hook; only the last line says what is wrong.
            # pluggy has registered it by the time it complains.
            self.manager.unregister(name=name)
            message = f"a hook does not fit its specification: {str(error).splitlines()[-1].strip()}"
            self._refuse(origin, message, "declare the hook without arguments")
            return
        self.origins[name] = origin

    def _refuse_hookless(self, module: ModuleType, origin: _Origin) -> None:
        """Refuse a module that defines components, or hooks without their mark; one of mere helpers is fine."""
        known = {name for name in vars(hookspecs) if name.startswith("register_")}
        unmarked = sorted(name for name in vars(module) if name in known)
        own = [
            thing.__name__ for thing in vars(module).values()
            if inspect.isclass(thing) and issubclass(thing, Component) and not inspect.isabstract(thing)
            and thing.__module__ == module.__name__
        ]  # fmt: skip
        if unmarked or own:
            what = f"{unmarked[0]} is not marked" if unmarked else f"{own[0]} is defined but no hook offers it"
            self._refuse(
                origin,
                f"{what}: the module has no function marked @hookimpl",
                "mark it with @hookimpl, or begin the file's name with an underscore",
            )

    def _refuse_misspelt(self) -> None:
        known = [name for name in vars(hookspecs) if name.startswith("register_")]
        # It tells one fault at a time, and goes on only once that plugin is gone.
        while True:
            try:
                return self.manager.check_pending()
            except pluggy.PluginValidationError as error:
                name = self.manager.get_name(error.plugin)
                assert name is not None
                wrong = next(hook for hook in _hooks(_module(self.manager, name)) if hook not in known)
                origin = self.origins.pop(name)
                self.manager.unregister(name=name)
                self._refuse(
                    origin, f"unknown hook '{wrong}'", f"{did_you_mean(wrong, known)}the hooks are {', '.join(known)}"
                )

    def _offers(self, module: ModuleType, origin: _Origin) -> Iterator[PluginRow]:
        """What one module offers, hook by hook: an implementation that raises takes nothing else with it."""
        for kind in KINDS:
            # Hooks are called one by one: pluggy's own call would stop all others where one raises.
            for implementation in getattr(self.manager.hook, f"register_{kind}").get_hookimpls():
                if implementation.plugin is not module:
                    continue
                try:
                    offered: object = implementation.function()
                except (Exception, SystemExit) as error:
                    message = f"register_{kind} raised {type(error).__name__}: {error}"
                    yield origin.row(_last(origin.module), kind, message, origin.update)
                    continue
                for thing in offered if isinstance(offered, list | tuple) else [offered]:
                    yield _inspected(thing, kind, origin)

    def _add(self, row: PluginRow) -> None:
        # A name is unique within a distribution, and beside the built-in ones; `owner/name` tells strangers apart.
        clash = next(
            (
                r for r in self.rows
                if r.component is not None and (r.kind, r.name) == (row.kind, row.name)
                and r.distribution in (DISTRIBUTION, row.distribution)
            ),
            None,
        )  # fmt: skip
        if clash is None or row.component is None:
            self.rows.append(row)
        elif clash.component is not row.component:  # the same class offered twice is no clash
            reserved = " (built-in names are reserved)" if clash.distribution == DISTRIBUTION else ""
            message = (
                f"two plugins of kind {row.kind} are named '{row.name}': {clash.module} of {clash.distribution} and "
                f"{row.module} of {row.distribution}{reserved}"
            )
            origin = _Origin(row.distribution, row.version, row.module)
            self.rows.append(origin.row(row.name, row.kind, message, f"rename the one of {row.distribution}"))


def _inspected(thing: object, kind: Kind, origin: _Origin) -> PluginRow:
    """The row of what a hook answered, after every check that needs no framework."""
    base = BASES[kind]
    name = getattr(thing, "name", None) if inspect.isclass(thing) else None
    shown = name if isinstance(name, str) and name else _last(origin.module)
    if not inspect.isclass(thing) or not issubclass(thing, base):
        message = f"register_{kind} must return a subclass of {base.__name__} or a list of them, got {thing!r}"
        return origin.row(shown, kind, message, f"return a class that inherits from {base.__name__}")
    if thing.api_version > API_VERSION:
        message = f"{thing.__name__} needs plugin interface {thing.api_version}, this harness has {API_VERSION}"
        return origin.row(shown, kind, message, f"upgrade harness, or install an older {origin.distribution}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        message = f"{thing.__name__} must set `name` to lower-case letters, digits and underscores, got {name!r}"
        return origin.row(shown, kind, message, 'set `name: ClassVar[str] = "my_name"`')
    if inspect.isabstract(thing):
        message = f"{thing.__name__} lacks {', '.join(sorted(thing.__abstractmethods__))}"
        return origin.row(shown, kind, message, f"define what {base.__name__} declares abstract")
    try:
        # Made, hashed and described once, here: everything later relies on components being values.
        component = thing()
        hash(component)
        named(component)
        reason = why_unavailable(component) if isinstance(component, Backend | Tracker) else None
    except (Exception, SystemExit) as error:
        if isinstance(error, PluginContractError):  # a sentence already
            message, remedy = str(error), origin.update
        else:
            message = f"{thing.__name__}() failed: {type(error).__name__}: {error}"
            remedy = "give every field a default that is hashable and fits JSON"
        return origin.row(shown, kind, message, remedy)
    state: Literal["ok", "unavailable"] = "ok" if reason is None else "unavailable"
    summary = (inspect.getdoc(thing) or "").partition("\n")[0]
    place = replace(origin, module=thing.__module__).place
    return PluginRow(
        kind, name, summary, origin.distribution, origin.version, place, state, reason,
        None if reason is None else f"install it, or leave this {kind} out", thing,
    )  # fmt: skip


def _module(manager: pluggy.PluginManager, name: str) -> ModuleType:
    module = manager.get_plugin(name)
    assert isinstance(module, ModuleType)  # nothing else is ever registered
    return module


def _hooks(module: ModuleType) -> list[str]:
    """Names of the hooks that a module implements."""
    marks = {
        name: getattr(thing, "harness_impl", None) for name, thing in vars(module).items() if inspect.isroutine(thing)
    }
    return [mark.get("specname") or name for name, mark in marks.items() if isinstance(mark, dict)]


def _origin(entry: EntryPoint) -> _Origin:
    distribution = entry.dist
    kind = next((kind for kind, plural in PLURALS.items() if entry.name in (kind, plural)), None)
    if distribution is None:
        return _Origin(entry.module.partition(".")[0], "unknown", entry.module, kind)
    return _Origin(distribution.name, distribution.version, entry.module, kind)


def _shown(file: Path) -> str:
    """A file as seen from here, if that is shorter."""
    here = Path.cwd()
    return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)


def _last(module: str) -> str:
    return module.rpartition(".")[2]
