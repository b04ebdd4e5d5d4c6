"""Sparsities in terms of hardware: the lowest at which a pattern needs no more than a target allows.

Solved by bisection before anything trains, so on masks of weights that nobody has trained (`foreseen.py`). What was
solved is kept in the store, as costs are: a plan, a run and a report of large models solve it once.

    STORE/targets/ab/abcd....json     what came of one target for one pattern
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from pydantic import TypeAdapter

from harness.api import (
    HarnessError,
    JsonValue,
    Matrix,
    Pattern,
    PluginContractError,
    Problem,
    StoreError,
    Task,
    Tensor,
)
from harness.discovery.guard import calling
from harness.masks.beforehand import why_skipped
from harness.planning import code_digest
from harness.planning.foreseen import Foreseen, random_weights
from harness.planning.model_digest import model_digest, package_digest
from harness.planning.stages import digest
from harness.spec import Allocation, Cell, Experiment, Goal, Solved, scope_tensors
from harness.spec.goal import AT_LEAST, quantity
from harness.store import Store

_SOLVED = TypeAdapter(Solved)

STEP = 0.005
"""Between the sparsities that are looked at."""


@dataclass(frozen=True)
class _Need:
    """What masks need of a goal's quantity."""

    value: float
    engine: str = ""
    fits: bool = True


@dataclass
class Targets:
    """Solves the goals of cells, each combination of task, pattern and allocation once.

    Args:
        experiment: whose cells they are.
        problems: its tasks with their data.
        store: where solutions are kept; without one all are made anew.
    """

    experiment: Experiment
    problems: Mapping[Task, Problem]
    store: Store | None = None
    _found: dict[tuple[object, ...], Solved] = field(default_factory=dict)
    _foreseen: dict[tuple[object, ...], Foreseen] = field(default_factory=dict)
    _weights: dict[Task, dict[str, Matrix]] = field(default_factory=dict)

    def solved(self) -> Experiment:
        """The experiment with a sparsity for every goal; equal cells are one, in the place of the first.

        The goals that a setting cannot reach are one cell, too, which is skipped: its sparsity is 0.
        """
        cells: dict[str, Cell] = {}
        for cell in self.experiment.cells:
            found = self._solved(cell)
            # By what it is but for a goal that is missed: several of those would have one place in every table.
            place = found.id if found.goal is None else replace(found, goal=None).id
            known = cells.get(place)
            if known is not None:
                solved, is_asked = (*known.solved, *found.solved), known.is_asked or found.is_asked
                found = replace(known, solved=solved, is_asked=is_asked)
            cells[place] = found
        return replace(self.experiment, cells=tuple(cells.values()))

    def _solved(self, cell: Cell) -> Cell:
        if cell.goal is None or cell.pattern is None or cell.task not in self.problems:
            return cell
        setting = (cell.task, cell.pattern, _text(cell.allocation))
        place = (*setting, cell.goal.label())
        if place not in self._found:
            self._found[place] = self._kept(cell.goal, cell.task, cell.pattern, cell.allocation)
        found = self._found[place]
        if found.reason:
            return replace(cell, sparsity=0.0, solved=(found,))
        return replace(cell, goal=None, sparsity=found.sparsity, solved=(found,))

    def _kept(self, goal: Goal, task: Task, pattern: Pattern, allocation: Allocation) -> Solved:
        """The solution that the store has, or a new one that it keeps."""
        if self.store is None:
            return self._solution(goal, task, pattern, allocation)
        key = self._digest(goal, task, pattern, allocation)
        path = self.store.folder / "targets" / key[:2] / f"{key}.json"
        # What is missing, cut off or edited is solved anew: nothing depends on the file.
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            content = json.loads(path.read_bytes())
            if content["digest"] == digest(content["solved"]):
                # Through JSON: strict validation of Python values takes no mapping for a dataclass.
                return _SOLVED.validate_json(json.dumps(content["solved"]), strict=True)
        found = self._solution(goal, task, pattern, allocation)
        told: dict[str, JsonValue] = asdict(found)
        # Planning makes no store: it is there once something has run.
        if self.store.folder.is_dir():
            with suppress(OSError, StoreError):
                self.store.place(path, json.dumps({"digest": digest(told), "solved": told}).encode())
        return found

    def _digest(self, goal: Goal, task: Task, pattern: Pattern, allocation: Allocation) -> str:
        """A digest of everything that decides a solution."""
        scope = scope_tensors(self.problems[task], self.experiment.scope)
        network: dict[str, JsonValue] = self.problems[task].network.model_dump(mode="json")
        return digest(
            {
                "goal": goal.label(),
                "models": [model_digest(model) for model in goal.models],
                "pattern": pattern.identity(),
                "pattern code": [part.digest for part in code_digest.parts(pattern)],
                "allocation": _text(allocation),
                "tolerance": self.experiment.tolerance,
                "network": network,
                "scope": [tensor.name for tensor in scope],
                # All of the harness: solving anew is cheap beside an old answer.
                "code": package_digest("harness"),
                "numpy": np.__version__,
            }
        )

    def _solution(self, goal: Goal, task: Task, pattern: Pattern, allocation: Allocation) -> Solved:
        if allocation in ("global", "lamp"):
            return Solved(
                goal.label(),
                reason=f"{goal.label()}: allocation {allocation} shares a sparsity out by trained weights, which are "
                "not there yet; use uniform, erk or a sparsity per tensor",
            )
        setting = (task, pattern, _text(allocation))
        if setting not in self._foreseen:
            scope = scope_tensors(self.problems[task], self.experiment.scope)
            weights = self._weights_of(task, scope)
            self._foreseen[setting] = Foreseen(self.problems[task], scope, pattern, allocation, weights)
        try:
            with calling(pattern):
                return Choice(goal, self._foreseen[setting]).solved(self.experiment.tolerance)
        except PluginContractError:
            raise
        except HarnessError as error:
            return Solved(goal.label(), reason=f"{goal.label()}: {error}")

    def _weights_of(self, task: Task, scope: Sequence[Tensor]) -> dict[str, Matrix]:
        if task not in self._weights:
            self._weights[task] = random_weights(scope)
        return self._weights[task]


def _text(allocation: Allocation) -> str:
    return allocation if isinstance(allocation, str) else str(sorted(allocation.items()))


@dataclass
class Choice:
    """One goal for one pattern on one task's scope."""

    goal: Goal
    foreseen: Foreseen
    refused: str = ""

    def solved(self, tolerance: float) -> Solved:
        """The lowest sparsity that reaches the goal, by bisection; or the one that comes nearest, and why."""
        label, look = self.goal.label(), self.foreseen
        dense = self.need(None)
        if dense is not None and self.goal.is_met(dense.value):
            return Solved(label, reason=f"{label}: {_met_by_dense(self.goal, dense.value)}")
        # Only what the pattern can reach: else the bisection would land on sparsities that are skipped.
        ladder = [
            each
            for each in np.round(np.arange(STEP, 1, STEP), 4).tolist()
            if why_skipped(look.pattern, look.allocation, look.scope, each, tolerance) is None
        ]
        if not ladder:
            return Solved(label, reason=f"{label}: {look.pattern.label()} has no sparsity within the tolerance")
        last = self.need(ladder[-1])
        if last is None:
            return Solved(label, ladder[-1], reason=f"{label}: {self.refused or 'nothing runs it'}")
        if not self.goal.is_met(last.value):
            where = f"{quantity(label, last.value)} at sparsity {look.reached(ladder[-1]):g}"
            return Solved(
                label, ladder[-1], last.value, dense.value if dense else None, last.engine, last.fits,
                reason=f"{label} cannot be reached by {look.pattern.label()}: the nearest is {where}",
            )  # fmt: skip
        # More sparsity is taken to need no more: then the lowest that reaches the goal can be bisected.
        found, need = self._bisected(ladder, last)
        reached = look.reached(found)
        # What is reached is what the cell is called, where asking for it gives the same masks.
        if why_skipped(look.pattern, look.allocation, look.scope, reached, tolerance) is None:
            found = reached if look.reached(reached) == reached else found
        return Solved(label, found, need.value, dense.value if dense else None, need.engine, need.fits)

    def _bisected(self, ladder: Sequence[float], last: _Need) -> tuple[float, _Need]:
        low, high, need = -1, len(ladder) - 1, last
        while high - low > 1:
            middle = (low + high) // 2
            tried = self.need(ladder[middle])
            if tried is not None and self.goal.is_met(tried.value):
                high, need = middle, tried
            else:
                low = middle
        return ladder[high], need

    def need(self, sparsity: float | None) -> _Need | None:
        """What masks of a sparsity need, on the engine that needs least; None where none runs them."""
        # 8,192 bits are a KiB.
        if self.goal.what == "storage_kib":
            return _Need(self.foreseen.stored_bits(sparsity, self.goal.weight_bits) / 8192)
        needs: list[tuple[bool, float, str, float]] = []
        for model in self.goal.models:
            cost = self.foreseen.cost(sparsity, model)
            value = None if isinstance(cost, str) else self.goal.value_of(cost)
            if isinstance(cost, str) or value is None:
                why = cost if isinstance(cost, str) else f"{model.label()} tells no {self.goal.what}"
                self.refused = self.refused or why
                continue
            # What fits beats what does not, as in all tables.
            needs.append((not cost.fits, self.goal.distance(value), cost.engine, value))
        if not needs:
            return None
        misfits, _, engine, value = min(needs)
        return _Need(value, engine, not misfits)


def _met_by_dense(goal: Goal, value: float) -> str:
    """Why a target that the dense model reaches is none, and the way out."""
    if goal.what == "fits":
        return "the dense model fits already; leave the target out"
    if goal.what in AT_LEAST:
        return f"the dense model makes {quantity(goal.label(), value)} already; leave the target out, or raise it"
    return f"the dense model needs {quantity(goal.label(), value)} already; leave the target out, or lower it"


def with_targets(experiment: Experiment, problems: Mapping[Task, Problem], store: Store | None = None) -> Experiment:
    """An experiment whose targets are solved; the same one where it has none."""
    if all(cell.goal is None for cell in experiment.cells):
        return experiment
    return Targets(experiment, problems, store).solved()
