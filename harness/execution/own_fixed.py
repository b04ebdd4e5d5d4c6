"""The score of a user's own model in the numbers of a hardware entry."""

import math

from harness.api import (
    DivergedError,
    EvaluatedByLayers,
    Evaluation,
    NumberFormat,
    PluginContractError,
    Problem,
    State,
    Task,
)
from harness.discovery.asking import value_of
from harness.fixed_point.own import evaluated_own


def scored(task: Task, problem: Problem, state: State, form: NumberFormat, seed: int) -> Evaluation:
    """The totals of the test split.

    Args:
        task: of the problem.
        problem: with a model of the user's own.
        state: of the finished model.
        form: the numbers.
        seed: the cell's.

    Raises:
        PluginContractError: the task cannot compute its model by another's arithmetic.
        DivergedError: the metric is not finite.
    """
    if not isinstance(problem, EvaluatedByLayers):
        raise PluginContractError(
            f"{task.name} has no `evaluated_by`, which a model of a user's own needs for fixed point; add it, or "
            "leave out the hardware entry's number format"
        )
    found = evaluated_own(problem, state.weights, state.extra, form, seed)
    value = value_of(task, problem, found)
    if not math.isfinite(value):
        raise DivergedError(None, value, f"test {problem.metric.name} as {form.label()}")
    return found
