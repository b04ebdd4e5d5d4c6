"""Calls into plugins: whatever goes wrong inside one becomes a sentence that says whose code it was, and where."""

import inspect
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from harness import DISTRIBUTION, _text
from harness.api import (
    Component,
    Cost,
    Evaluation,
    HardwareModel,
    HarnessError,
    JsonValue,
    Phase,
    PluginContractError,
    Problem,
    Recipe,
    Score,
    Strategy,
    Task,
    Workload,
)
from harness.api.promises import kept_program
from harness.discovery.distributions import distribution_of, file_name, offering
from harness.user_files import folder_of

Plugin = Component | Score
"""What a call goes into."""

_HOME = "harness"  # the import name of the harness: its frames are never to blame


@contextmanager
def calling(plugin: Plugin) -> Iterator[None]:
    """Turn what a plugin raises inside into a `PluginContractError` that names it, its distribution, file and line.

    Errors of the harness pass: they are sentences already. So does a lack of memory, which no plugin can help.
    """
    try:
        yield
    except (HarnessError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise PluginContractError(blame(error, (plugin,))) from error


def cost_of(model: HardwareModel, workload: Workload) -> Cost:
    """What a hardware model answers.

    Raises:
        HarnessError: it has no cost for this workload, or its code is at fault; the sentence says which.
    """
    with calling(model):
        cost: object = model.cost(workload)
        if not isinstance(cost, Cost):
            raise refused(model, "a Cost", type(cost).__name__, "cost")
        # Once more by its fields: one that was made without validation may hold anything.
        return Cost.model_validate(cost.model_dump())


def loaded(task: Task, data_dir: Path | None) -> Problem:
    """A task with its data.

    Raises:
        HarnessError: the data is not there, or the task's code is at fault; the sentence says which.
    """
    with calling(task):
        problem: object = task.load(data_dir)
        if not isinstance(problem, Problem):
            raise refused(task, "a Problem", type(problem).__name__, "load")
        problem.tensors(), problem.recipe, problem.metric, problem.fingerprint, problem.facts  # made when first used
        return problem


def effective(component: Component) -> dict[str, JsonValue]:
    """The parameters that a component really uses; those that were given, where it cannot say it as JSON values."""
    try:
        return json.loads(json.dumps(component.effective_parameters(), allow_nan=False))  # type: ignore[no-any-return]
    except Exception:  # it is only for people to read
        return component.parameters()


def value_of(problem: Problem, evaluation: Evaluation) -> float:
    """The metric of an evaluation; infinite where its computation overflows, as `math.exp` of a large loss does."""
    try:
        return problem.value(evaluation)
    except OverflowError:
        return math.inf


def program_of(strategy: Strategy, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
    """The program of a strategy.

    Raises:
        SpecError: it does not fit the recipe.
        PluginContractError: the strategy's code is at fault, or one of its scores needs what nothing supplies.
    """
    with calling(strategy):
        program = kept_program(strategy, recipe, sparsity)
    return program


def refused(plugin: Plugin, expected: str, got: str, method: str = "") -> PluginContractError:
    """The error of a plugin whose answer its contract forbids.

    Args:
        plugin: whose answer it is.
        expected: what its contract demands, in words.
        got: what came instead.
        method: the one that answered, for the place.
    """
    place = _definition(plugin, method)
    return PluginContractError(f"{described(plugin)}: expected {expected}, got {got}{place}; mend the plugin")


def blame(error: BaseException, plugins: Iterable[Plugin] = ()) -> str:
    """A sentence on an exception that came out of plugins: which of them raised it, and where.

    Args:
        error: what was raised.
        plugins: those that were called, the likeliest first; one that the traceback names goes before them.
    """
    frames = list(_frames(error.__traceback__))
    candidates = list(plugins)
    happened = f"exited ({_text.told(error)})" if isinstance(error, SystemExit) else f"raised {_text.told(error)}"
    for module, place, owner in frames:
        if _package(module) == _HOME:
            continue
        found = owner or next((each for each in candidates if _is_of(module, each)), None)
        if found is not None:
            return f"{described(found)} {happened} in {place}; mend the plugin"
    if not candidates:
        return _text.told(error)
    # No frame of a plugin: the harness stumbled over an answer.
    return f"{described(candidates[0])}: an answer of it {happened}{_definition(candidates[0])}; mend the plugin"


def is_foreign(error: BaseException) -> bool:
    """Whether an exception was raised by code of a third party's plugin package."""
    ours = {_HOME, "harness_plugins"}
    theirs = {module.partition(".")[0] for module in offering()} - ours
    modules = [module for module, _, _ in _frames(error.__traceback__)]
    return any(_package(module) in theirs or folder_of(module) is not None for module in modules)


def described(plugin: Plugin) -> str:
    """A plugin in words: its kind, label and distribution."""
    kind = plugin.kind if isinstance(plugin, Component) else "score"
    try:
        label = plugin.label() if isinstance(plugin, Component) else plugin.name
    except Exception:  # a third party may have written that, too
        label = getattr(plugin, "name", type(plugin).__name__)
    return _text.clean(f"{kind} {label}{_owner(type(plugin))}", 300)


def _owner(cls: type) -> str:
    """` of acme 0.3`, as far as entry points tell whose code a class is; nothing for what is built in."""
    file = file_name(cls.__module__)
    if file:
        return f" of {file}"
    found = distribution_of(cls.__module__, offering())
    return "" if found is None or found.name == DISTRIBUTION else f" of {found.name} {found.version}"


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, str, Plugin | None]]:
    """(module, `method (file:line)`, the plugin whose method it is), the innermost first."""
    found = []
    while trace is not None:
        frame, code = trace.tb_frame, trace.tb_frame.f_code
        owner = frame.f_locals.get("self")
        plugin = owner if isinstance(owner, Component | Score) else None
        module = str(frame.f_globals.get("__name__", ""))
        found.append((module, f"{code.co_name} ({_short(code.co_filename, module)}:{trace.tb_lineno})", plugin))
        trace = trace.tb_next
    return reversed(found)


def _short(file: str, module: str) -> str:
    """A file below its import root, the same wherever a package is installed; one of the user's as seen from here."""
    path = Path(file)
    if folder_of(module) is not None:  # the user knows it by its path
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
    depth = module.count(".") + (2 if path.name == "__init__.py" else 1)
    return "/".join(path.parts[-depth:])


def _is_of(module: str, plugin: Plugin) -> bool:
    own = type(plugin).__module__
    return module == own or module.startswith(f"{own}.") or _package(module) == _package(own) != _HOME


def _package(module: str) -> str:
    """The package that a module came with; of a user's own file, whose module is below one of ours, its folder."""
    folder = folder_of(module)
    return module.partition(".")[0] if folder is None else str(folder)


def _definition(plugin: Plugin, method: str = "") -> str:
    """` (file:line)` of a method, or of a plugin's class; nothing where that is not known."""
    thing = getattr(type(plugin), method, type(plugin)) if method else type(plugin)
    try:
        _, line = inspect.getsourcelines(thing)
        file = inspect.getsourcefile(thing) or ""
    except (OSError, TypeError):
        return ""
    return f" ({_short(file, thing.__module__)}:{line})"
