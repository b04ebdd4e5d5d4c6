"""What the harness asks plugins, question by question: each guarded, each answer held to what its contract promises.

Every call into a plugin that the harness makes in its own process goes through here or through `guard.calling`.
Sessions
are called in workers, where whatever they raise is a failed stage.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from harness._files import canonical
from harness.api import (
    Backend,
    BenchRun,
    Check,
    Circuit,
    Component,
    Cost,
    Engine,
    Evaluation,
    HardwareModel,
    JsonValue,
    Metric,
    NativeModel,
    Network,
    NumberFormat,
    Operands,
    Pattern,
    Phase,
    PluginContractError,
    Problem,
    Recipe,
    Settings,
    Strategy,
    Task,
    Tensor,
    Tracker,
    Workload,
)
from harness.api.promises import kept_program
from harness.discovery.guard import Plugin, calling, described, placed, refused

Answer = TypeVar("Answer")


def asked(plugin: Plugin, ask: Callable[[], object], expected: type[Answer], words: str, method: str) -> Answer:
    """What a plugin answers, if it is of the right type.

    Args:
        plugin: whose code is called.
        ask: calls it.
        expected: the type that its contract promises.
        words: the same in words, such as "a Cost".
        method: that is called, for the place in the sentence.

    Raises:
        PluginContractError: it raised, or answered something else; the sentence says whose, what and where.
    """
    with calling(plugin):
        answer = ask()
    # True is an int to Python, and no contract means it by a number.
    if not isinstance(answer, expected) or (isinstance(answer, bool) and expected is not bool):
        raise refused(plugin, words, type(answer).__name__, method)
    return answer


def reason_of(plugin: Plugin, ask: Callable[[], object], method: str) -> str | None:
    """A declared reason, half a sentence, or None; raises as `asked`."""
    with calling(plugin):
        answer = ask()
    if answer is not None and not isinstance(answer, str):
        raise refused(plugin, "a reason as text, or None", type(answer).__name__, method)
    return answer


# --- tasks ----------------------------------------------------------------------------------------------------------


def loaded(task: Task, data_dir: Path | None) -> Problem:
    """A task with its data.

    Raises:
        HarnessError: the data is not there, or the task's code is at fault; the sentence says which.
    """
    problem = asked(task, lambda: task.load(data_dir), Problem, "a Problem", "load")
    for name, types, words in (
        ("network", Network | NativeModel, "a Network or a NativeModel"),
        ("recipe", Recipe, "a Recipe"),
        ("metric", Metric, "a Metric"),
        ("fingerprint", str, "a text"),
        ("facts", Mapping, "a mapping"),
    ):
        # Made when first used, and therefore somebody's code as well.
        with calling(task):
            value = getattr(problem, name)
        if not isinstance(value, types):
            raise refused(task, f"{words} as `{name}` of its problem", type(value).__name__, "load")
    with calling(task):
        tensors = problem.tensors()
    if not isinstance(tensors, Sequence) or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise refused(task, "a tuple of tensors from its problem", type(tensors).__name__, "load")
    return problem


def smoke_of(task: Task) -> Task:
    """A task cut short; raises as `asked`."""
    return asked(task, task.smoke, Task, "a Task", "smoke")


def initial_weights_of(task: Task, problem: Problem, seed: int) -> dict[str, NDArray[np.float32]]:
    """The weights that a training starts from; raises as `asked`."""
    # Drawn here by the task's code: a wrong shape would surface as an error inside a framework.
    weights = asked(task, lambda: problem.initial_weights(seed), Mapping, "a mapping of weights", "load")
    for tensor in problem.tensors():
        found = weights.get(tensor.name)
        wanted = f"finite initial weights of shape {tensor.shape} for {tensor.name}"
        if not isinstance(found, np.ndarray) or found.shape != tensor.shape:
            shape = f"shape {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
            raise refused(task, wanted, shape, "load")
        if not np.isfinite(found).all():
            raise refused(task, wanted, "NaN or infinite ones", "load")
    return dict(weights)


def value_of(task: Task, problem: Problem, evaluation: Evaluation) -> float:
    """The metric of an evaluation, infinite where its computation overflows; raises as `asked`.

    NaN of a finite loss is a fault, too.
    """
    with calling(task):
        try:
            value: object = problem.value(evaluation)
        except OverflowError:  # as `math.exp` of a large loss has it
            value = math.inf
        # NumPy's scalars are answers of good faith, `np.float32` is no `float` though.
        if isinstance(value, np.generic):
            value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refused(task, "a number as the value of its metric", type(value).__name__, "load")
    # A NaN of a loss that is itself not finite is a divergence, which is a result of the training; else it is a fault.
    if math.isnan(value) and math.isfinite(evaluation.nats):
        raise refused(task, "a number as the value of its metric", "NaN, of a finite loss", "load")
    return float(value)


# --- strategies, patterns -------------------------------------------------------------------------------------------


def program_of(strategy: Strategy, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
    """The program of a strategy.

    Raises:
        SpecError: it does not fit the recipe.
        PluginContractError: the strategy's code is at fault.
    """
    with calling(strategy):
        try:
            program = kept_program(strategy, recipe, sparsity)
        except PluginContractError as error:  # a promise broken, told with the label alone
            # The contract's own sentence begins with the label; what is known here as well is whose code it is, and
            # where.
            what = str(error).removeprefix(strategy.label())
            raise PluginContractError(f"{described(strategy)}{placed(strategy, 'program')}{what}") from None
    return program


def hyper_parameters_of(strategy: Strategy) -> tuple[str, ...]:
    """Names of what a user of a strategy has to choose; raises as `asked`."""
    names = asked(strategy, strategy.hyper_parameters, Sequence, "a tuple of names", "hyper_parameters")
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise refused(strategy, "a tuple of names", repr(names)[:80], "hyper_parameters")
    return tuple(names)


def banks_of(pattern: Pattern, tensor: Tensor) -> int | None:
    """Equally filled banks per row of one tensor, None where the pattern has none; raises as `asked`."""
    # The same kind: a pattern that turned into another one would be masked by one and costed by the other.
    own = asked(pattern, lambda: pattern.for_tensor(tensor), type(pattern), "a pattern of its own kind", "for_tensor")
    with calling(pattern):
        banks: object = own.banks_per_row(tensor.shape[0], tensor.shape[1])
    if banks is not None and (isinstance(banks, bool) or not isinstance(banks, int) or banks < 1):
        raise refused(pattern, "a whole number of banks above 0, or None", repr(banks)[:80], "banks_per_row")
    return banks


# --- backends -------------------------------------------------------------------------------------------------------


def why_unavailable(plugin: Backend | Tracker) -> str | None:
    """Why a backend or a tracker cannot be used here, None if it can; raises as `asked`."""
    return reason_of(plugin, plugin.why_unavailable, "why_unavailable")


def why_not(backend: Backend, problem: Problem, settings: Settings) -> str | None:
    """Why a backend cannot train a problem, None if it can; raises as `asked`."""
    return reason_of(backend, lambda: backend.why_not(problem, settings), "why_not")


def arithmetic_of(backend: Backend, settings: Settings) -> str:
    """How a backend computes, where machines differ; raises as `asked`."""
    return asked(backend, lambda: backend.arithmetic(settings), str, "a text", "arithmetic")


def versions_of(backend: Backend) -> dict[str, str]:
    """The versions that enter keys; without the framework there are none, and nothing can be cached or run.

    Raises:
        PluginContractError: as `asked`.
    """
    with calling(backend):
        try:
            found: object = backend.versions()
        except PackageNotFoundError as error:
            # Such a backend can still be planned with, on a machine that reads results only.
            found = {str(error.name): "not installed"}
    if not isinstance(found, Mapping) or not all(isinstance(text, str) for pair in found.items() for text in pair):
        raise refused(backend, "versions as texts by package", repr(found)[:80], "versions")
    return dict(found)


# --- hardware -------------------------------------------------------------------------------------------------------


def cost_of(model: HardwareModel, workload: Workload) -> Cost:
    """What a hardware model answers.

    Raises:
        HarnessError: it has no cost for this workload, or its code is at fault; the sentence says which.
    """
    cost = asked(model, lambda: model.cost(workload), Cost, "a Cost", "cost")
    with calling(model):
        # Once more by its fields: one that was made without validation may hold anything.
        return Cost.model_validate(cost.model_dump())


def designs_of(model: HardwareModel, workload: Workload) -> tuple[Cost, ...]:
    """The designs that a hardware model tells, at least one; raises as `cost_of`."""
    found = asked(model, lambda: model.designs(workload), tuple, "a tuple of Costs", "designs")
    if not found or not all(isinstance(each, Cost) for each in found):
        raise refused(model, "a tuple of Costs", repr(found)[:80], "designs")
    with calling(model):
        return tuple(Cost.model_validate(each.model_dump()) for each in found)


def circuit_of(model: HardwareModel, workload: Workload, operands: Operands) -> Circuit:
    """A design as Verilog; raises as `cost_of`."""
    found = asked(model, lambda: model.circuit(workload, operands), Circuit, "a Circuit", "circuit")
    for name, text in found.files.items():
        path = PurePosixPath(name)
        if not isinstance(text, str) or path.is_absolute() or not path.parts or ".." in path.parts:
            raise refused(model, "texts by paths within a folder", repr(name)[:80], "circuit")
    return found


def simulated_by(model: HardwareModel, folder: Path) -> BenchRun | None:
    """What the bench of a circuit found, None where nothing can run it; raises as `cost_of`."""
    with calling(model):
        found: object = model.simulated(folder)
    if found is not None and not isinstance(found, BenchRun):
        raise refused(model, "a BenchRun, or None", type(found).__name__, "simulated")
    return found


def group_of(model: HardwareModel) -> str:
    """The label that the variants of one entry share; raises as `asked`."""
    return asked(model, model.group, str, "a text", "group")


def number_format_of(model: HardwareModel) -> NumberFormat | None:
    """The numbers that a hardware model computes in, None where it does not say; raises as `asked`."""
    with calling(model):
        found: object = model.number_format()
    if found is not None and not isinstance(found, NumberFormat):
        raise refused(model, "a NumberFormat, or None", type(found).__name__, "number_format")
    return found


def reads_weights_of(model: HardwareModel) -> bool:
    """Whether a model's cost depends on the values of weights; raises as `asked`."""
    return asked(model, model.reads_weights, bool, "True or False", "reads_weights")


def variants_of(model: HardwareModel, engines: Sequence[type[Engine]]) -> tuple[HardwareModel, ...]:
    """The models that an entry stands for; raises as `asked`."""
    found = asked(model, lambda: model.variants(engines), Sequence, "a tuple of hardware models", "variants")
    if not found or not all(isinstance(each, HardwareModel) for each in found):
        raise refused(model, "a tuple of hardware models", repr(found)[:80], "variants")
    for each in found:
        named(each)
    return tuple(found)


def devices_of(model: type[HardwareModel]) -> tuple[dict[str, JsonValue], ...]:
    """The devices that a kind of hardware model knows; raises as `asked`."""
    found = asked(model(), model.devices, Sequence, "a tuple of rows", "devices")
    if not all(isinstance(row, dict) for row in found):
        raise refused(model(), "a tuple of rows", repr(found)[:80], "devices")
    return tuple(found)


def checks_of(model: type[HardwareModel], targets: Path | None) -> tuple[Check, ...]:
    """The checks of a kind of hardware model against references; raises as `asked`."""
    found = asked(model(), lambda: model.checks(targets), Sequence, "a tuple of checks", "checks")
    if not all(isinstance(check, Check) for check in found):
        raise refused(model(), "a tuple of checks", repr(found)[:80], "checks")
    return tuple(found)


def caveat_of(model: type[HardwareModel]) -> str:
    """What the checks of a hardware model do not show; raises as `asked`."""
    return asked(model(), model.caveat, str, "a text", "caveat")


# --- all kinds ------------------------------------------------------------------------------------------------------


def named(component: Component) -> Component:
    """A component whose label, parameters and identity can be told; all that follows relies on them.

    Raises:
        PluginContractError: as `asked`.
    """
    asked(component, component.label, str, "a text", "label")
    for method in ("parameters", "identity"):
        found = asked(component, getattr(component, method), dict, "JSON values by name", method)
        if not _is_json(found):
            raise refused(component, "JSON values by name, numbers finite", repr(found)[:80], method)
    return component


def effective(component: Component) -> dict[str, JsonValue]:
    """The parameters that a component really uses; those that were given, where it cannot say it as JSON values."""
    # Through JSON, so that what it answers can be printed and stored.
    try:
        found = component.effective_parameters()
        return json.loads(canonical(found))  # type: ignore[no-any-return]  # json.loads is untyped
    except (Exception, SystemExit):  # it is only for people to read
        return component.parameters()


def _is_json(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    # NaN and infinity are floats that JSON cannot hold.
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))
