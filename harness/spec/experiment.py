"""What an experiment file means: cells, and how they are narrowed down."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from harness._files import canonical, digest, sha256
from harness._text import is_balanced, listed, parted, plural
from harness._words import suggestion
from harness.api import (
    Backend,
    Component,
    EmptySelectionError,
    HardwareModel,
    JsonValue,
    Pattern,
    PluginContractError,
    PluginUnavailableError,
    SpecError,
    Strategy,
    Task,
)
from harness.discovery.asking import smoke_of, why_unavailable
from harness.spec.document import AXES
from harness.spec.goal import Goal, Solved
from harness.spec.source import Place

AllocationRule = Literal["uniform", "global", "erk", "lamp"]
Allocation = AllocationRule | dict[str, float]
"""How a sparsity is spread over the scope: equally, by one ranking, or named tensor by tensor."""

DENSE = "dense"
"""The label of pattern and strategy in the dense baseline."""


@dataclass(frozen=True)
class Cell:
    """One training and its costs: a point of the grid, or its dense baseline.

    Args:
        task: data, model and recipe.
        backend: what trains.
        pattern: which weights stay; None for the dense baseline, as is `strategy`.
        allocation: how the sparsity is spread over the scope.
        strategy: when to train and prune.
        sparsity: target fraction of zeros in the scope; 0 for the dense baseline.
        seed: of initial weights, batches and everything random.
        scope: which tensors are pruned, as the spec names them.
        precision: of matrix products.
        goal: what its sparsity is still to be solved for, or cannot be.
        solved: the goals that its sparsity was solved for.
        is_asked: whether its sparsity stands in the spec, or was solved only.
    """

    task: Task
    backend: Backend
    pattern: Pattern | None
    allocation: Allocation
    strategy: Strategy | None
    sparsity: float
    seed: int
    scope: tuple[str, ...] = ("all",)
    precision: Literal["float32", "bfloat16"] = "float32"
    goal: Goal | None = None
    solved: tuple[Solved, ...] = field(default=(), compare=False)
    is_asked: bool = field(default=True, compare=False)

    @property
    def is_dense(self) -> bool:
        """Whether it is a baseline, trained without any mask."""
        return self.pattern is None

    def labels(self) -> dict[str, str]:
        """What tables call it, by axis: task, backend, pattern, allocation, strategy."""
        return {
            "task": _label(self.task),
            "backend": _label(self.backend),
            "pattern": _label(self.pattern) if self.pattern else DENSE,
            "allocation": DENSE if self.is_dense else allocation_label(self.allocation),
            "strategy": _label(self.strategy) if self.strategy else DENSE,
        }

    @cached_property
    def id(self) -> str:
        """Twelve hex digits of everything that decides its result; labels do not, and a baseline has no scope."""
        # The canonical spelling of `digest`, put together from texts that many cells share.
        parts = {
            "backend": _identity(self.backend),
            "precision": _value(self.precision),
            "seed": _value(self.seed),
            "task": _identity(self.task),
        }
        # A baseline has no scope and no allocation, so that all specs on one task share it.
        if self.pattern is not None and self.strategy is not None:
            parts |= {
                "allocation": (
                    _value(self.allocation) if isinstance(self.allocation, str) else canonical(self.allocation)
                ),
                "pattern": _identity(self.pattern),
                "scope": _scope(self.scope),
                "sparsity": _value(self.sparsity) if self.goal is None else canonical(self.goal.label()),
                "strategy": _identity(self.strategy),
            }
        text = ",".join(f'"{name}":{parts[name]}' for name in sorted(parts))
        return sha256(f"{{{text}}}")[:12]

    def __hash__(self) -> int:
        """By what decides the result: an allocation may be a dictionary, which has no hash."""
        return hash(self.id)

    def baseline(self) -> "Cell":
        """The dense cell that this one is compared with."""
        # The value of no mask, spelt in one way: two spellings would be two baselines.
        return replace(
            self, pattern=None, strategy=None, sparsity=0.0, allocation="uniform", goal=None, solved=(), is_asked=True
        )


_MOST_OF_FILTER = 100_000
"""Characters of a filter; a longer one takes long to be looked through."""


@dataclass(frozen=True, repr=False)
class Experiment:
    """A checked experiment: every component made, every cell listed.

    Args:
        name: from the spec.
        digest: of the spec's normalised content; comments, key order, folders and budgets do not enter.
        path: the spec's file, None for a text.
        document: the whole spec with every default written out; itself a spec.
        scope: which tensors are pruned: `all`, roles, layer names or tensor names.
        hardware: models that cost every cell.
        cells: dense baselines first, then the matrix (last axis fastest), then the cells of `include`.
        device, precision, threads: how is trained; `auto` is not resolved yet.
        tolerance: largest distance of the reachable sparsity from the target.
        margin: of equivalence, in the metric's unit.
        ignore: codes of the checks that it silences.
        data_dir: folder of the data sets, resolved against the spec's folder.
        keep_dense: bytes of dense states to keep.
        plugins: the files of the user's that offer plugins to it.
        filename: what messages call the spec.
        places: where in the file what has this axis and label stands: position and path.
    """

    name: str
    digest: str
    path: Path | None
    document: dict[str, JsonValue] = field(compare=False)
    scope: tuple[str, ...]
    hardware: tuple[HardwareModel, ...]
    cells: tuple[Cell, ...]
    device: str
    precision: Literal["float32", "bfloat16"]
    threads: int
    tolerance: float
    margin: float | None
    data_dir: Path | None
    keep_dense: int
    ignore: tuple[str, ...] = field(default=(), compare=False)
    plugins: tuple[Path, ...] = field(default=(), compare=False)
    filename: str = field(default="spec", compare=False)
    places: Mapping[tuple[str, str], tuple[Place, str]] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        # Short: the fields of a run with every engine of a hardware model would fill pages.
        axes = ("task", "backend", "pattern", "strategy", "sparsity", "seed")
        values = {axis: {getattr(cell, axis) for cell in self.cells if not cell.is_dense} for axis in axes}
        told = " x ".join(f"{axis} {len(found)}" for axis, found in values.items() if len(found) > 1)
        return f"<experiment {self.run_id}: {plural(len(self.cells), 'cell')}{f'; {told}' if told else ''}>"

    @property
    def run_id(self) -> str:
        """The name of the run's folder: the spec's name and the beginning of its digest."""
        return f"{self.name}-{self.digest[:8]}"

    def select(self, only: str) -> "Experiment":
        """The cells that meet every condition, with their dense baselines.

        Args:
            only: conditions, parted by commas, such as `pattern=bank_balanced|n_m,seed<2`; operators are `=`, `!=`,
                and for sparsity and seed also `<`, `<=`, `>`, `>=`. A value is a name or a label; of a target its
                label, or the beginning of it: `target=cycles`.

        Raises:
            SpecError: a condition that cannot be read.
            EmptySelectionError: no cell meets them.
        """
        if len(only) > _MOST_OF_FILTER:
            raise SpecError(
                f"only: expected at most {_MOST_OF_FILTER} characters, got {len(only)}; exclude in the file"
            )
        conditions = [_Condition.read(text) for text in _conditions(only)]
        chosen = {cell for cell in self.cells if all(condition.holds(cell) for condition in conditions)}
        # A result without its baseline could not be compared with anything.
        kept = chosen | {cell.baseline() for cell in chosen}
        cells = tuple(cell for cell in self.cells if cell in kept)
        if not cells:
            raise EmptySelectionError(
                f"--only '{only}' leaves none of the {len(self.cells)} cells{self._hint(conditions)}"
            )
        only_these = sorted(condition.text for condition in conditions)
        # Another digest is another run folder: the records of a selection must not replace those of the whole.
        return replace(self, cells=cells, digest=digest({"spec": self.digest, "only": only_these}))

    def targets_to_solve(self) -> int:
        """How many combinations of task, pattern, allocation and target have a sparsity still to be found."""
        return len(
            {
                (cell.task, cell.pattern, cell.labels()["allocation"], cell.goal.label())
                for cell in self.cells
                if cell.goal is not None
            }
        )

    def smoke(self) -> "Experiment":
        """The same grid on tasks cut short, one seed and at most two sparsities: a test of the path, not of numbers."""
        cells: dict[Cell, None] = {}
        for group in _groups(self.cells, lambda cell: replace(cell, seed=0, sparsity=0.0).id):
            # The two ends of the range: what a pattern cannot reach shows at one of them.
            low, high = min(cell.sparsity for cell in group), max(cell.sparsity for cell in group)
            for sparsity in sorted({low, high}):
                first = next(cell for cell in group if cell.sparsity == sparsity)
                cells[replace(first, task=_smoke(first.task))] = None
        # A cell that exists under one seed only still needs its baseline.
        dense = dict.fromkeys(cell.baseline() for cell in cells)
        every = tuple(dense | {cell: None for cell in cells if not cell.is_dense})
        return replace(
            self, name=f"{self.name}-smoke", cells=every, digest=digest({"spec": self.digest, "smoke": True})
        )

    def require_backends(self) -> None:
        """Make sure that every backend can train here; a spec can be checked and planned without.

        Raises:
            PluginUnavailableError: a framework is not installed; one line each, with the remedy.
        """
        backends = dict.fromkeys(cell.backend for cell in self.cells)
        reasons = [
            f"backend '{b.label()}' cannot be used: {reason}" for b in backends if (reason := _why_unavailable(b))
        ]
        if reasons:
            raise PluginUnavailableError("\n".join(reasons))

    def _hint(self, conditions: Iterable["_Condition"]) -> str:
        """What a condition may have misspelt."""
        for condition in conditions:
            if condition.axis not in ("sparsity", "seed"):
                known = sorted({word for cell in self.cells for word in _words(cell, condition.axis)})
                for value in condition.values:
                    if value not in known:
                        tail = suggestion(value, known) or f"; there is {listed(known)}"
                        return f": no {condition.axis} is called '{value}'{tail}"
        return ""


def allocation_label(allocation: Allocation) -> str:
    """An allocation as tables and conditions write it."""
    if isinstance(allocation, str):
        return allocation
    return "{" + ", ".join(f"{name}: {sparsity:g}" for name, sparsity in allocation.items()) + "}"


def _why_unavailable(backend: Backend) -> str | None:
    try:
        return why_unavailable(backend)
    except PluginContractError:
        return None  # its cells fail with that sentence


def _smoke(task: Task) -> Task:
    """A task cut short that keeps its label, so that the tables of both runs read alike."""
    return smoke_of(task).model_copy(update={"own_label": task.label()})


# A grid has thousands of cells and a handful of components, and both of these write JSON.
@lru_cache(maxsize=4096)
def _label(component: Component) -> str:
    return component.label()


@lru_cache(maxsize=4096)
def _identity(component: Component) -> str:
    return canonical(component.identity())


# Typed, since 0, 0.0 and False are one key to a cache and three texts in JSON.
@lru_cache(maxsize=4096, typed=True)
def _value(value: str | float) -> str:
    return canonical(value)


@lru_cache(maxsize=64)
def _scope(scope: tuple[str, ...]) -> str:
    return canonical([*scope])


def _groups(cells: Iterable[Cell], key: Callable[[Cell], str]) -> list[list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return list(groups.values())


def _words(cell: Cell, axis: str) -> tuple[str, ...]:
    """What a cell may be called on an axis that has names: its name and its label."""
    if axis == "target":
        return cell.goal.words if cell.goal else ()
    component = getattr(cell, axis)
    name = (component.name,) if hasattr(component, "name") else ()
    return (*name, cell.labels()[axis])


FILTERS = (*AXES, "target")
"""What `--only` may name."""

_OPERATOR = "(?:!=|<=|>=|=|<|>)"


def _on_dense(text: str) -> str:
    """The way out for somebody who asks for dense models by a bare word."""
    return "; dense models are strategy=dense" if re.search(r"\bdense\b", text) else ""


@dataclass(frozen=True)
class _Condition:
    """One condition of `--only`."""

    axis: str
    operator: str
    values: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.axis}{self.operator}{'|'.join(sorted(self.values))}"

    @classmethod
    def read(cls, text: str) -> "_Condition":
        match = re.fullmatch(rf"\s*([A-Za-z_]+)\s*({_OPERATOR})\s*(\S.*?)\s*", text)
        # `and` may be part of a label; before another condition it is meant as a comma.
        joined = re.split(rf"\s+(?:and|&&?)\s+(?=[A-Za-z_]+\s*{_OPERATOR})", text.strip())
        if match is None or len(joined) > 1:
            hint = f"; conditions are parted by commas: '{','.join(joined)}'" if len(joined) > 1 else _on_dense(text)
            raise SpecError(f"--only: expected conditions such as 'pattern=bank_balanced,seed<2', got '{text}'{hint}")
        axis, operator = match[1], match[2]
        values = tuple(value.strip() for value in parted(match[3], "|"))
        if axis not in FILTERS:
            raise SpecError(f"--only: expected an axis ({listed(FILTERS)}), got '{axis}'{suggestion(axis, FILTERS)}")
        if axis in ("sparsity", "seed"):
            for value in values:
                if not re.fullmatch(r"\d+(\.\d*)?([eE][-+]?\d+)?|\.\d+", value):
                    percent = re.fullmatch(r"([\d.]+)\s*%", value) if axis == "sparsity" else None
                    hint = f"; write {value} as {float(percent[1]) / 100:g}" if percent else _on_dense(value)
                    raise SpecError(f"--only: expected a number for {axis}, got '{value}'{hint}")
                if axis == "sparsity" and float(value) > 1:
                    raise SpecError(
                        f"--only: a sparsity is a fraction of zeros in [0, 1), got '{value}'; write {value} % as "
                        f"{float(value) / 100:g}"
                    )
        elif operator not in ("=", "!="):
            raise SpecError(f"--only: expected = or != for {axis}, got '{operator}'")
        if len(values) > 1 and operator not in ("=", "!="):
            raise SpecError(f"--only: expected one value after '{operator}', got '{match[3]}'")
        return cls(axis, operator, values)

    def holds(self, cell: Cell) -> bool:
        """Whether a cell meets it; a baseline has no sparsity or allocation and no name but `dense`."""
        # Also with `!=`: a baseline has no sparsity that could be another one. It comes with the cells that are
        # compared with it.
        if cell.is_dense and self.axis in ("sparsity", "target", "allocation"):
            return False
        if cell.is_dense and self.axis in ("pattern", "strategy"):
            return self.operator == "=" and DENSE in self.values
        if (cell.goal is not None) == (self.axis == "sparsity") and self.axis in ("sparsity", "target"):
            return False  # what a target comes to is not known yet, and a sparsity was solved for none
        if self.axis in ("sparsity", "seed"):
            return self._compares(getattr(cell, self.axis))
        met = any(value in _words(cell, self.axis) for value in self.values)
        # One of several values is enough for `=`, and none of them may hold for `!=`.
        return met == (self.operator == "=")

    def _compares(self, number: float) -> bool:
        wanted = [float(value) for value in self.values]
        match self.operator:
            case "=":
                return number in wanted
            case "!=":
                return number not in wanted
            case "<":
                return number < wanted[0]
            case "<=":
                return number <= wanted[0]
            case ">":
                return number > wanted[0]
        return number >= wanted[0]


def is_selectable(axis: str, label: str) -> bool:
    """Whether `--only 'axis=label'` means this label and nothing else."""
    try:
        found = [_Condition.read(text) for text in _conditions(f"{axis}={label}")]
    except SpecError:
        return False
    return [condition.values for condition in found] == [(label,)]


def _conditions(text: str) -> list[str]:
    """The conditions of a text; commas and brackets inside a label, paired or not, are the label's."""
    found: list[str] = []
    for part in text.split(","):
        begins = re.match(rf"\s*([A-Za-z_]+)\s*({_OPERATOR}|$)", part)
        is_inside = bool(found) and not is_balanced(found[-1])
        # A comma begins a condition where an axis follows it, or where an operator does and no bracket is open.
        if not found or (begins and (begins[1] in FILTERS or (begins[2] and not is_inside))):
            found.append(part)
        else:
            found[-1] += f",{part}"
    return found
