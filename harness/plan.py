"""From cells to a stage graph, and the bill: which stages there are, which are cached, why the others run.

`plan` and `run` share this one planner: what `harness plan` lists is what `harness run` does.
"""

import multiprocessing
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from shutil import which

from harness.api import Backend, JsonValue, Pattern, Problem, Settings, Task, Tensor, Train
from harness.masking import why_skipped
from harness.spec import Cell, Experiment, check, scope_tensors
from harness.stages import Masking, Stage, chain, leaf, lower, root
from harness.store import DamagedStageError, StageRecord, Store


@dataclass(frozen=True)
class PlannedCell:
    """A cell and the stages that lead to its result.

    Args:
        cell: what was asked for.
        chain: its stages from the initial weights on; empty if it is skipped.
        test: its test score.
        scope: the tensors it prunes.
        skip: the declared reason why it is not run.
        total_epochs: epochs of the chain; retrain_epochs: those after the first prune.
    """

    cell: Cell
    chain: tuple[Stage, ...] = ()
    test: Stage | None = None
    scope: tuple[Tensor, ...] = ()
    skip: str | None = None
    total_epochs: int = 0
    retrain_epochs: int = 0

    @property
    def end(self) -> Stage:
        """The stage that holds the finished model."""
        return self.chain[-1]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The chain and the test."""
        return self.chain if self.test is None else (*self.chain, self.test)


@dataclass(frozen=True)
class Plan:
    """Everything that is known before anything runs.

    Args:
        experiment: what was asked for; problems: its tasks with their data; data_dir: where the data was found.
        store: where stages are kept.
        devices: where each backend computes.
        cells: in the order of the experiment.
        stages: by key, every parent before its children.
        cached: the records of stages that are there and whole.
        to_run: why each of the other stages runs, by key.
        damaged: what was found damaged, by key.
    """

    experiment: Experiment
    problems: Mapping[Task, Problem]
    data_dir: Path | None
    store: Store
    devices: Mapping[Backend, str]
    cells: tuple[PlannedCell, ...]
    stages: Mapping[str, Stage]
    cached: Mapping[str, StageRecord]
    to_run: Mapping[str, str]
    damaged: Mapping[str, str] = field(default_factory=dict)

    def settings(self, cell: Cell) -> Settings:
        """How the session of a cell computes."""
        return _settings(self.experiment, self.devices, cell)

    def is_earlier_end(self, stage: Stage) -> bool:
        """Whether the store holds a test score of this stage: it is the end of some experiment's chain."""
        return self.store.has_stage(leaf(stage).key)

    def is_cached(self, planned: PlannedCell) -> bool:
        """Whether nothing of a cell has to run."""
        return bool(planned.chain) and not any(stage.key in self.to_run for stage in planned.stages)

    def summary(self) -> dict[str, JsonValue]:
        """The bill as plain values."""
        epochs = sum(self.stages[key].kind == "train" for key in self.to_run)
        naive = sum(planned.total_epochs for planned in self.cells)
        distinct = sum(stage.kind == "train" for stage in self.stages.values())
        reasons = Counter(self.to_run.values())
        return {
            "run_id": self.experiment.run_id,
            "cells": len(self.cells),
            "cells_cached": sum(self.is_cached(planned) for planned in self.cells),
            "cells_skipped": sum(planned.skip is not None for planned in self.cells),
            "stages": len(self.stages),
            "cached": len(self.stages) - len(self.to_run),
            "stages_to_run": len(self.to_run),
            "why": dict(sorted(reasons.items())),
            "epochs": distinct,
            "epochs_to_run": epochs,
            "epochs_without_sharing": naive,
            "sharing_ratio": round(distinct / naive, 4) if naive else 1.0,
            "cells_detail": [self._detail(planned) for planned in self.cells],
        }

    def _detail(self, planned: PlannedCell) -> JsonValue:
        run = [stage for stage in planned.stages if stage.key in self.to_run]
        status = "skipped" if planned.skip else ("run" if run else "cached")
        labels: dict[str, JsonValue] = {name: str(label) for name, label in planned.cell.labels().items()}
        return {
            "cell": planned.cell.id,
            **labels,
            "sparsity": planned.cell.sparsity,
            "seed": planned.cell.seed,
            "status": status,
            "reason": planned.skip or (self.to_run[run[0].key] if run else ""),
            "stages": len(planned.stages),
            "stages_to_run": len(run),
            "total_epochs": planned.total_epochs,
            "retrain_epochs": planned.retrain_epochs,
        }


def make_plan(experiment: Experiment, *, store: Path, data_dir: Path | None = None) -> Plan:
    """Plan an experiment: load the data, check what only shapes can tell, lower every cell, look into the store.

    Raises:
        SpecError, DataError: the experiment does not fit its tasks, or their data is not there.
    """
    from harness.data import data_folder

    folder = data_folder(data_dir or experiment.data_dir)
    problems = {task: task.load(folder) for task in dict.fromkeys(cell.task for cell in experiment.cells)}
    check(experiment, problems)
    backends = dict.fromkeys(cell.backend for cell in experiment.cells)
    devices = {backend: resolve_device(experiment.device, backend) for backend in backends}
    lowering = _Lowering(experiment, problems, devices)
    cells = tuple(lowering.planned(cell) for cell in experiment.cells)
    stages = {stage.key: stage for planned in cells for stage in planned.stages}
    shelf = Store(store)
    cached, damaged = _cached(shelf, stages)
    to_run = _to_run(shelf, stages, cached, damaged)
    return Plan(experiment, problems, folder, shelf, devices, cells, stages, cached, to_run, damaged)


def resolve_device(device: str, backend: Backend) -> str:
    """A real device for `auto`: the best that the backend finds; imports no framework into this process.

    Without an NVIDIA driver that is the CPU. With one the backend is asked, in a process of its own, since a framework
    built for the CPU alone finds no GPU.
    """
    if device != "auto":
        return device
    if not has_nvidia_driver() or backend.why_unavailable():
        return "cpu"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(backend.devices).result()[0]


def has_nvidia_driver() -> bool:
    """Whether the system shows an NVIDIA device."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or which("nvidia-smi") is not None


def backend_versions(backend: Backend) -> dict[str, str]:
    """The versions that enter keys; without the framework there are none, and nothing can be cached or run."""
    try:
        return backend.versions()
    except PackageNotFoundError as error:
        return {str(error.name): "not installed"}


def _settings(experiment: Experiment, devices: Mapping[Backend, str], cell: Cell) -> Settings:
    return Settings(
        seed=cell.seed,
        device=devices[cell.backend],
        precision=experiment.precision,
        threads=experiment.threads,
    )


class _Lowering:
    """Lowers cells, doing what many cells share once."""

    def __init__(
        self, experiment: Experiment, problems: Mapping[Task, Problem], devices: Mapping[Backend, str]
    ) -> None:
        self._experiment, self._problems, self._devices = experiment, problems, devices
        self._roots: dict[tuple[Task, Backend, int], Stage] = {}
        self._scopes: dict[Task, tuple[Tensor, ...]] = {}
        self._skips: dict[tuple[object, ...], str | None] = {}

    def planned(self, cell: Cell) -> PlannedCell:
        """One cell with its stages, or with the reason why it is skipped."""
        problem = self._problems[cell.task]
        scope = self._scope(cell.task)
        skip = self._backend_skip(cell) or self._pattern_skip(cell, scope)
        if skip:
            return PlannedCell(cell, scope=scope, skip=skip)
        recipe = problem.recipe
        if cell.strategy is None:
            masking = None
            steps = lower(dense_program(problem), recipe)
        else:
            assert cell.pattern is not None
            names = tuple(tensor.name for tensor in scope)
            masking = Masking(cell.pattern, cell.allocation, names, cell.sparsity)
            steps = lower(cell.strategy.program(recipe, cell.sparsity), recipe)
        stages = chain(self._root(cell), steps, masking)
        first_prune = next((index for index, stage in enumerate(stages) if stage.kind == "prune"), len(stages))
        return PlannedCell(
            cell,
            tuple(stages),
            leaf(stages[-1]),
            scope,
            total_epochs=sum(stage.kind == "train" for stage in stages),
            retrain_epochs=sum(stage.kind == "train" for stage in stages[first_prune:]),
        )

    def _scope(self, task: Task) -> tuple[Tensor, ...]:
        if task not in self._scopes:
            self._scopes[task] = scope_tensors(self._problems[task], self._experiment.scope)
        return self._scopes[task]

    def _root(self, cell: Cell) -> Stage:
        place = (cell.task, cell.backend, cell.seed)
        if place not in self._roots:
            versions = backend_versions(cell.backend)
            settings = _settings(self._experiment, self._devices, cell)
            self._roots[place] = root(cell.task, self._problems[cell.task], cell.backend, settings, versions)
        return self._roots[place]

    def _backend_skip(self, cell: Cell) -> str | None:
        place = (cell.task, cell.backend)
        if place not in self._skips:
            self._skips[place] = cell.backend.why_not(
                self._problems[cell.task], _settings(self._experiment, self._devices, cell)
            )
        return self._skips[place]

    def _pattern_skip(self, cell: Cell, scope: tuple[Tensor, ...]) -> str | None:
        if cell.pattern is None:
            return None
        allocation = cell.allocation if isinstance(cell.allocation, str) else str(sorted(cell.allocation.items()))
        place = (cell.task, cell.pattern, allocation, cell.sparsity)
        if place not in self._skips:
            tolerance = self._experiment.tolerance
            self._skips[place] = why_skipped(cell.pattern, cell.allocation, scope, cell.sparsity, tolerance)
        return self._skips[place]


def dense_program(problem: Problem) -> tuple[Train]:
    """The baseline: the recipe as it is."""
    return (Train(epochs=problem.recipe.epochs, lr=problem.recipe.learning_rate),)


def pattern_banks(pattern: Pattern | None, tensors: Sequence[Tensor]) -> dict[str, int]:
    """Equally filled banks per row, by tensor name, where the pattern has them."""
    if pattern is None:
        return {}
    counts = {tensor.name: pattern.banks_per_row(tensor.shape[0], tensor.shape[1]) for tensor in tensors}
    return {name: banks for name, banks in counts.items() if banks is not None}


def _cached(store: Store, stages: Mapping[str, Stage]) -> tuple[dict[str, StageRecord], dict[str, str]]:
    """Every stage that is there, and what was found damaged on the way."""
    cached: dict[str, StageRecord] = {}
    damaged: dict[str, str] = {}
    for key in stages:
        try:
            record = store.read(key)
            if record is not None:
                store.masks(record)
                cached[key] = record
        except DamagedStageError as error:
            damaged[key] = str(error)
    return cached, damaged


def _to_run(
    store: Store, stages: Mapping[str, Stage], cached: Mapping[str, StageRecord], damaged: dict[str, str]
) -> dict[str, str]:
    """Why each stage has to run, in topological order; states that turn out damaged are added to `damaged`.

    A stage runs if it was never finished, or if something that starts from it runs and its state is not kept.
    """
    reasons: dict[str, str] = {}
    state_wanted: set[str] = set()
    for key in reversed(list(stages)):
        stage = stages[key]
        if key in cached and key in state_wanted and store.has_state(key):
            try:
                store.verify_state(cached[key])
            except DamagedStageError as error:
                damaged[key] = str(error)
        if key in damaged:
            reasons[key] = "damaged: run again"
        elif key not in cached:
            reasons[key] = "not run yet"
        elif key in state_wanted and not store.has_state(key):
            reasons[key] = "metrics cached, state missing"
        if key in reasons:
            state_wanted.update(other for other in (stage.parent, stage.source) if other)
    return {key: reasons[key] for key in stages if key in reasons}
