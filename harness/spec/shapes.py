"""What only the shapes of a task can tell: whether scope, patterns, allocations and strategies fit it."""

from collections.abc import Iterator, Mapping, Sequence

from harness._text import listed
from harness._words import suggestion
from harness.api import Pattern, PluginContractError, Problem, Recipe, ShapeError, SpecError, Strategy, Task, Tensor
from harness.discovery.asking import program_of
from harness.discovery.guard import calling
from harness.spec.experiment import Allocation, Cell, Experiment
from harness.spec.source import Place

ALL = "all"
"""The scope of every matrix."""


def scope_tensors(problem: Problem, scope: Sequence[str]) -> tuple[Tensor, ...]:
    """The matrices that are pruned, in network order.

    An entry that names nothing here is passed over: another task of the experiment may have it (`check` sees to that).

    Args:
        problem: the task with its data.
        scope: `all`, roles, layer names or tensor names; biases are never among them.

    Raises:
        SpecError: nothing in this task is named.
    """
    matrices = [tensor for tensor in problem.tensors() if tensor.is_prunable]
    chosen = tuple(tensor for tensor in matrices if any(entry in _names(tensor) for entry in scope))
    if not chosen:
        raise SpecError(
            f"scope: expected at least one matrix of the task, got {listed(scope)}{_existing(scope[0], matrices)}"
        )
    return chosen


def check(experiment: Experiment, problems: Mapping[Task, Problem]) -> None:
    """Refuse what cannot fit, before anything trains.

    Args:
        experiment: what is asked for.
        problems: its tasks with their data, those whose code is at fault left out.

    Raises:
        SpecError: every misfit, one line each with its place in the file: an unknown scope entry, a pattern whose frame
            does not fit a tensor, an allocation of an unknown tensor, a strategy that does not fit the recipe.
    """
    lines: dict[str, Place] = {}
    # By label and message: the same misfit in hundreds of cells is one line.
    for axis, label, message in dict.fromkeys((*_scope_misfits(experiment, problems), *_misfits(experiment, problems))):
        place, path = experiment.places.get((axis, label), (Place(1, 1), axis))
        lines[f"{experiment.filename}:{place.line}:{place.column} {path}: {' '.join(message.split())}"] = place
    if lines:
        raise SpecError("\n".join(sorted(lines, key=lambda text: (lines[text], text))))


Misfit = tuple[str, str, str]
"""(axis, label, message): what does not fit, and why."""


def _scope_misfits(experiment: Experiment, problems: Mapping[Task, Problem]) -> Iterator[Misfit]:
    matrices = [tensor for problem in problems.values() for tensor in problem.tensors() if tensor.is_prunable]
    known = {name for tensor in matrices for name in _names(tensor)}
    biases = {tensor.name for problem in problems.values() for tensor in problem.tensors()} - known
    # Of a task that could not be loaded nothing is known: then no name is called unknown.
    is_complete = all(cell.task in problems for cell in experiment.cells)
    for entry in experiment.scope:
        if entry in biases:
            yield "scope", entry, f"expected a matrix, got '{entry}', which is a bias and is never pruned"
        elif entry not in known and is_complete:  # else the task that could not be loaded may have it
            yield "scope", entry, f"expected a role, layer or tensor, got '{entry}'{_existing(entry, matrices)}"


def _misfits(experiment: Experiment, problems: Mapping[Task, Problem]) -> Iterator[Misfit]:
    """Misfits of the sparse cells, each pair of a task and what has to fit it looked at once."""
    seen: set[tuple[object, ...]] = set()
    scopes: dict[Task, tuple[Tensor, ...]] = {}
    for cell in experiment.cells:
        if cell.pattern is None or cell.strategy is None or cell.task not in problems:
            continue
        # The cells of a grid share their components: most are told from those before without comparing any.
        shared = (cell.task, cell.pattern, cell.allocation, cell.strategy)
        if not _first(seen, *map(id, shared), cell.sparsity):
            continue
        task, problem, labels = cell.task, problems[cell.task], cell.labels()
        if task not in scopes:
            try:
                scopes[task] = scope_tensors(problem, experiment.scope)
            except SpecError as error:
                # An empty scope stands in, so that every other misfit of this task is still told.
                scopes[task] = ()
                if any(True for _ in _known_to_others(experiment, problems, task)):
                    yield "task", labels["task"], str(error)
        if _first(seen, task, "pattern", cell.pattern):
            yield from (("pattern", labels["pattern"], text) for text in _frame_misfits(cell.pattern, scopes[task]))
        if _first(seen, task, "allocation", labels["allocation"]):
            yield from (
                ("allocation", labels["allocation"], text) for text in _share_misfits(cell.allocation, scopes[task])
            )
        if _first(seen, task, "strategy", cell.strategy, cell.sparsity):
            yield from (
                ("strategy", labels["strategy"], text) for text in _program_misfits(cell.strategy, problem.recipe, cell)
            )


def _known_to_others(experiment: Experiment, problems: Mapping[Task, Problem], task: Task) -> Iterator[str]:
    """Scope entries that another task knows: without them the entries themselves are wrong, which is told already."""
    for other, problem in problems.items():
        if other != task:
            names = {name for tensor in problem.tensors() if tensor.is_prunable for name in _names(tensor)}
            yield from (entry for entry in experiment.scope if entry in names)


def _first(seen: set[tuple[object, ...]], *key: object) -> bool:
    fresh = key not in seen
    seen.add(key)
    return fresh


def _frame_misfits(pattern: Pattern, scope: Sequence[Tensor]) -> Iterator[str]:
    for tensor in scope:
        rows, cols = tensor.shape
        try:
            with calling(pattern):
                pattern.for_tensor(tensor).layout(rows, cols)
        except ShapeError as error:
            out = "; or leave it out of `scope`" if len(scope) > 1 else ""
            yield f"{tensor.name} ({rows} x {cols}): {error}{out}"
        except PluginContractError:
            return  # as for strategies


def _share_misfits(allocation: Allocation, scope: Sequence[Tensor]) -> Iterator[str]:
    if isinstance(allocation, str) or not scope:
        return
    names = [tensor.name for tensor in scope]
    for name in allocation:
        if name not in names:
            tail = suggestion(name, names) or f"; the scope holds {listed(names)}"
            yield f"expected a tensor of the scope, got '{name}'{tail}"


def _program_misfits(strategy: Strategy, recipe: Recipe, cell: Cell) -> Iterator[str]:
    try:
        program_of(strategy, recipe, cell.sparsity)
    except SpecError as error:
        yield str(error)
    except PluginContractError:
        pass  # not the author's mistake: its cells fail with that sentence, the others run


def _names(tensor: Tensor) -> tuple[str, str, str, str]:
    """What a scope may call a tensor."""
    return ALL, tensor.role, tensor.layer, tensor.name


def _existing(entry: str, matrices: Sequence[Tensor]) -> str:
    known = list(dict.fromkeys([ALL, *(name for tensor in matrices for name in _names(tensor))]))
    return suggestion(entry, known) + f"; there is {listed(known)}"
