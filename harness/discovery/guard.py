"""Calls into plugins: whatever goes wrong inside one becomes a sentence that says whose code it was, and where."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from harness import DISTRIBUTION, _text
from harness.api import Component, HarnessError, PluginContractError, Problem, Score, Session
from harness.discovery.distributions import distribution_of, file_name, offering
from harness.user_files import folder_of

Plugin = Component | Score
"""What a call goes into."""

_HOME = "harness"  # the import name of the harness: its frames are never to blame
_OURS = frozenset((_HOME, "harness_plugins"))


@contextmanager
def calling(plugin: Plugin) -> Iterator[None]:
    """Turn what a plugin raises inside into a `PluginContractError` that names it, its distribution, file and line.

    Errors of the harness pass: they are sentences already. So does a lack of memory, which no plugin can help.
    """
    try:
        yield
    # A memory error is the machine's, not the plugin's, whoever asked for the last byte.
    except (HarnessError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise PluginContractError(blame(error, (plugin,))) from error


@contextmanager
def making(cls: type[Plugin]) -> Iterator[None]:
    """As `calling`, while a plugin is made from its parameters; a ValidationError says by itself what is wrong."""
    try:
        yield
    except (HarnessError, ValidationError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        place = next((place for module, place, _ in _frames(error.__traceback__) if _package(module) != _HOME), "")
        # The class is all there is to name: no instance was made that could be asked for its label.
        happened = f"{_happened(error)} in {place}" if place else _happened(error)
        raise PluginContractError(f"{_described(cls, cls.name)} {happened}; mend the plugin") from error


def refused(plugin: Plugin, expected: str, got: str, method: str = "") -> PluginContractError:
    """The error of a plugin whose answer its contract forbids.

    Args:
        plugin: whose answer it is.
        expected: what its contract demands, in words.
        got: what came instead.
        method: the one that answered, for the place.
    """
    place = placed(plugin, method)
    return PluginContractError(f"{described(plugin)}: expected {expected}, got {got}{place}; mend the plugin")


def blame(error: BaseException, plugins: Iterable[Plugin] = ()) -> str:
    """A sentence on an exception that came out of plugins: which of them raised it, and where.

    Args:
        error: what was raised.
        plugins: those that were called, the likeliest first; one that the traceback names goes before them.
    """
    frames = list(_frames(error.__traceback__))
    candidates = [*plugins]
    # Our own plugins are tested: where one stumbles over what a stranger's inside it answered, it is not to blame.
    ours = [each for each in candidates if _is_ours(type(each).__module__)]
    strangers = [inner for each in ours for inner in _inside(each) if not _is_ours(type(inner).__module__)]
    happened = _happened(error)
    for depth, (module, place, _) in enumerate(frames):
        # Frames of the harness between two plugins are only on the way.
        if _package(module) == _HOME or (strangers and _is_ours(module)):
            continue
        found = _found(frames[depth:], candidates)
        if found is not None:
            return f"{described(found)} {happened} in {place}; mend the plugin"
    if not candidates:
        return _text.told(error)
    # No frame of a plugin: the harness stumbled over an answer.
    likely = [*strangers, *candidates][0]
    return f"{described(likely)}: an answer of it {happened}{placed(likely)}; mend the plugin"


def _found(frames: Sequence[tuple[str, str, object]], candidates: Sequence[Plugin]) -> Plugin | None:
    """The plugin that the innermost of these frames belongs to: whose method called it, else whose module it is of."""
    module = frames[0][0]
    for other, _, owner in frames:
        if _package(other) != _package(module):
            break  # a helper belongs to the method that called it, as long as both are of one package
        if isinstance(owner, Component | Score):
            return owner
        # A problem or session is known to be somebody's by its kind alone: it holds no reference to its plugin.
        kind = "task" if isinstance(owner, Problem) else "backend" if isinstance(owner, Session) else None
        made = next((each for each in candidates if isinstance(each, Component) and each.kind == kind), None)
        if made is not None:
            return made
    return next((each for each in candidates if _is_of(module, each)), None)


def place_in_file(error: BaseException) -> str:
    """`, in function (file:line)` of the innermost place in a user's own file that an exception came through."""
    places = (place for module, place, _ in _frames(error.__traceback__) if folder_of(module) is not None)
    found = next(places, "")
    # Python calls the code of a module so.
    return found.replace("<module>", "") if found.startswith("<module>") else f", in {found}" if found else ""


def _happened(error: BaseException) -> str:
    return f"exited ({_text.told(error)})" if isinstance(error, SystemExit) else f"raised {_text.told(error)}"


def _inside(plugin: Plugin) -> Iterator[Plugin]:
    """The components in a plugin's fields: the engine of a hardware model, the score of a strategy."""
    values = (getattr(plugin, name, None) for name in type(plugin).model_fields)
    return (value for value in values if isinstance(value, Component | Score))


def _is_ours(module: str) -> bool:
    return _package(module) in _OURS


def is_foreign(error: BaseException) -> bool:
    """Whether an exception was raised by code of a third party's plugin package."""
    theirs = {module.partition(".")[0] for module in offering()} - _OURS
    modules = [module for module, _, _ in _frames(error.__traceback__)]
    return any(_package(module) in theirs or folder_of(module) is not None for module in modules)


def described(plugin: Plugin) -> str:
    """A plugin in words: its kind, label and distribution."""
    try:
        label = plugin.label() if isinstance(plugin, Component) else plugin.name
    except (Exception, SystemExit):  # a third party may have written that, too
        label = getattr(plugin, "name", type(plugin).__name__)
    return _described(type(plugin), label)


def _described(cls: type[Plugin], label: str) -> str:
    kind = cls.kind if issubclass(cls, Component) else "score"
    return _text.clean(f"{kind} {label}{_owner(cls)}", 300)


def _owner(cls: type) -> str:
    """` of acme 0.3`, as far as entry points tell whose code a class is; nothing for what is built in."""
    file = file_name(cls.__module__)
    if file:
        return f" of {file}"
    # Read from metadata on each fault: faults are rare, and no import of this module should pay for it.
    found = distribution_of(cls.__module__, offering())
    return "" if found is None or found.name == DISTRIBUTION else f" of {found.name} {found.version}"


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, str, object]]:
    """(module, `method (file:line)`, the object whose method it is), the innermost first."""
    found: list[tuple[str, str, object]] = []
    while trace is not None:
        frame, code = trace.tb_frame, trace.tb_frame.f_code
        module = str(frame.f_globals.get("__name__", ""))
        place = f"{code.co_name} ({_short(code.co_filename, module)}:{trace.tb_lineno})"
        found.append((module, place, frame.f_locals.get("self")))
        trace = trace.tb_next
    return reversed(found)


def _short(file: str, module: str) -> str:
    """A file below its import root, the same wherever a package is installed; one of the user's as seen from here."""
    path = Path(file)
    if folder_of(module) is not None:  # the user knows it by its path
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
    # Paths of installed packages would name the user's machine in messages and in golden files.
    depth = module.count(".") + (2 if path.name == "__init__.py" else 1)
    return "/".join(path.parts[-depth:])


def _is_of(module: str, plugin: Plugin) -> bool:
    own = type(plugin).__module__
    # One package is one author's; the harness itself is everybody's and is never meant.
    return module == own or module.startswith(f"{own}.") or _package(module) == _package(own) != _HOME


def _package(module: str) -> str:
    """The package that a module came with; of a user's own file, whose module is below one of ours, its folder."""
    folder = folder_of(module)
    return module.partition(".")[0] if folder is None else str(folder)


def placed(plugin: Plugin, method: str = "") -> str:
    """` (file:line)` of a method, or of a plugin's class; nothing where that is not known."""
    # The method's line, since a contract is broken by an answer and no frame of it is left.
    thing = getattr(type(plugin), method, type(plugin)) if method else type(plugin)
    try:
        _, line = inspect.getsourcelines(thing)
        file = inspect.getsourcefile(thing) or ""
    except (OSError, TypeError):
        return ""
    return f" ({_short(file, thing.__module__)}:{line})"
