"""Sparsities in terms of hardware: the lowest at which a pattern needs no more than a target allows.

Solved by bisection before anything trains, so on masks of weights that nobody has trained: normally distributed ones,
the same every time and for every seed. Masks of a trained model have as many weights, elsewhere: what they need is
counted when they are there, and may differ a little.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from harness.api import (
    HarnessError,
    Mask,
    Matrix,
    Pattern,
    PluginContractError,
    Problem,
    Task,
    Tensor,
    WholeScopePattern,
)
from harness.discovery.asking import cost_of
from harness.discovery.guard import calling
from harness.formats import storage
from harness.masks.allocation import erk_shares
from harness.masks.beforehand import why_skipped
from harness.masks.coupling import Coupling
from harness.masks.updates import is_coupled
from harness.planning.workloads import workload_of
from harness.spec import Cell, Experiment, Goal, Solved, scope_tensors
from harness.spec.experiment import Allocation

STEP = 0.005
"""Between the sparsities that are looked at."""

_SEED = 20_190_220
"""Of the weights that masks are made of; any would do, as long as it stays."""


@dataclass(frozen=True)
class _Need:
    """What masks need of a goal's quantity."""

    value: float
    engine: str = ""


@dataclass
class Targets:
    """Solves the goals of cells, each combination of task, pattern and allocation once.

    Args:
        experiment: whose cells they are.
        problems: its tasks with their data.
    """

    experiment: Experiment
    problems: Mapping[Task, Problem]
    _found: dict[tuple[object, ...], Solved] = field(default_factory=dict)
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
        allocation = cell.allocation if isinstance(cell.allocation, str) else str(sorted(cell.allocation.items()))
        place = (cell.task, cell.pattern, allocation, cell.goal.label())
        if place not in self._found:
            self._found[place] = self._solution(cell.goal, cell.task, cell.pattern, cell.allocation)
        found = self._found[place]
        if found.reason:
            return replace(cell, sparsity=0.0, solved=(found,))
        return replace(cell, goal=None, sparsity=found.sparsity, solved=(found,))

    def _solution(self, goal: Goal, task: Task, pattern: Pattern, allocation: Allocation) -> Solved:
        if allocation in ("global", "lamp"):
            return Solved(
                goal.label(),
                reason=f"{goal.label()}: allocation {allocation} shares a sparsity out by trained weights, which are "
                "not there yet; use uniform, erk or a sparsity per tensor",
            )
        scope = scope_tensors(self.problems[task], self.experiment.scope)
        choice = _Choice(goal, self.problems[task], scope, pattern, allocation, self._weights_of(task, scope))
        try:
            with calling(pattern):
                return choice.solved(self.experiment.tolerance)
        except PluginContractError:
            raise
        except HarnessError as error:
            return Solved(goal.label(), reason=f"{goal.label()}: {error}")

    def _weights_of(self, task: Task, scope: Sequence[Tensor]) -> dict[str, Matrix]:
        if task not in self._weights:
            # Magnitudes of a normal, as before training: no trained weights are there yet.
            rng = np.random.default_rng(_SEED)
            self._weights[task] = {t.name: np.abs(rng.standard_normal(t.shape, dtype=np.float32)) for t in scope}
        return self._weights[task]


@dataclass
class _Choice:
    """One goal for one pattern on one task's scope."""

    goal: Goal
    problem: Problem
    scope: tuple[Tensor, ...]
    pattern: Pattern
    allocation: Allocation
    weights: Mapping[str, Matrix]
    refused: str = ""

    def solved(self, tolerance: float) -> Solved:
        """The lowest sparsity that reaches the goal, by bisection; or the one that comes nearest, and why."""
        label, limit = self.goal.label(), self.goal.limit
        dense = self._need({})
        if dense is not None and dense.value <= limit:
            return Solved(
                label,
                reason=f"{label}: the dense model needs {dense.value:,.4g} already; leave the target out, or lower it",
            )
        # Only what the pattern can reach: else the bisection would land on sparsities that are skipped.
        ladder = [
            each
            for each in np.round(np.arange(STEP, 1, STEP), 4).tolist()
            if why_skipped(self.pattern, self.allocation, self.scope, each, tolerance) is None
        ]
        if not ladder:
            return Solved(label, reason=f"{label}: {self.pattern.label()} has no sparsity within the tolerance")
        last = self._need(self._masks(ladder[-1]))
        if last is None:
            return Solved(label, ladder[-1], reason=f"{label}: {self.refused or 'nothing runs it'}")
        if last.value > limit:
            where = f"{last.value:,.4g} at sparsity {self._reached(ladder[-1]):g}"
            return Solved(
                label, ladder[-1], last.value, dense.value if dense else None, last.engine,
                reason=f"{label} cannot be reached by {self.pattern.label()}: the nearest is {where}",
            )  # fmt: skip
        # More sparsity is taken to need no more: then the lowest that reaches the goal can be bisected.
        found, need = self._bisected(ladder, last)
        reached = self._reached(found)
        # What is reached is what the cell is called, where asking for it gives the same masks.
        if why_skipped(self.pattern, self.allocation, self.scope, reached, tolerance) is None:
            found = reached if self._reached(reached) == reached else found
        return Solved(label, found, need.value, dense.value if dense else None, need.engine)

    def _bisected(self, ladder: Sequence[float], last: _Need) -> tuple[float, _Need]:
        low, high, need = -1, len(ladder) - 1, last
        while high - low > 1:
            middle = (low + high) // 2
            tried = self._need(self._masks(ladder[middle]))
            if tried is not None and tried.value <= self.goal.limit:
                high, need = middle, tried
            else:
                low = middle
        return ladder[high], need

    def _reached(self, sparsity: float) -> float:
        masks = self._masks(sparsity)
        kept, size = sum(int(mask.sum()) for mask in masks.values()), sum(mask.size for mask in masks.values())
        return round(1 - kept / size, 4)

    def _masks(self, sparsity: float) -> dict[str, Mask]:
        scope, pattern = self.scope, self.pattern
        shares = {tensor.name: sparsity for tensor in scope}
        if self.allocation == "erk":
            shares = erk_shares(scope, sparsity)
        elif not isinstance(self.allocation, str):
            shares |= {name: share for name, share in self.allocation.items() if name in shares}
        if isinstance(pattern, WholeScopePattern):
            # One call for the whole scope, as in training.
            return dict(pattern.masks(self.weights, shares, scope))
        if is_coupled(pattern, scope):
            return Coupling.of(scope).masks(self.weights, sparsity)
        return {t.name: pattern.for_tensor(t).mask(self.weights[t.name], shares[t.name]) for t in scope}

    def _need(self, masks: Mapping[str, Mask]) -> _Need | None:
        """What masks need, on the engine that needs least; None where none runs them."""
        # 8,192 bits are a KiB.
        if self.goal.what == "storage_kib":
            return _Need(_stored_bits(self.scope, masks, self.goal.weight_bits) / 8192)
        workload = workload_of(self.pattern if masks else None, self.problem, self.scope, masks, {})
        needs: list[tuple[bool, float, str]] = []
        for model in self.goal.models:
            try:
                cost = cost_of(model, workload)
            except HarnessError as error:
                self.refused = self.refused or str(error)
                continue
            # What fits beats what does not, as in all tables.
            needs.append((not cost.fits, float(getattr(cost, self.goal.what)), cost.engine))
        if not needs:
            return None
        _, value, engine = min(needs)
        return _Need(value, engine)


def _stored_bits(scope: Sequence[Tensor], masks: Mapping[str, Mask], weight_bits: int) -> int:
    """Bits of the scope's matrices, each in the format that is smallest for its mask."""
    bits = 0
    for tensor in scope:
        mask = masks.get(tensor.name)
        if mask is None:
            bits += tensor.size * weight_bits
        else:
            bits += storage.best(storage.sizes(mask, weight_bits=weight_bits)).bits or 0
    return bits


def with_targets(experiment: Experiment, problems: Mapping[Task, Problem]) -> Experiment:
    """An experiment whose targets are solved; the same one where it has none."""
    if all(cell.goal is None for cell in experiment.cells):
        return experiment
    return Targets(experiment, problems).solved()
