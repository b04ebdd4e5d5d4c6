"""From cells to a stage graph, and the bill: which stages there are, which are cached, why the others run.

`plan` and `run` share this one planner: what `harness plan` lists is what `harness run` does.
"""

import multiprocessing
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from shutil import which
from typing import TypeVar

from harness._text import plural
from harness.api import (
    Backend,
    Component,
    JsonValue,
    NativeModel,
    Network,
    Pattern,
    Phase,
    Problem,
    Settings,
    Task,
    Tensor,
    Train,
)
from harness.discovery.guard import loaded, program_of
from harness.masks.updates import why_skipped
from harness.planning.fitting import nearest_fit
from harness.planning.older_code import OlderCode, TrustedStages
from harness.planning.stages import Masking, Stage, StageTemplate, extended, lower, root, scoring_stage, stage_templates
from harness.spec import Cell, Experiment, check, scope_tensors
from harness.store import DamagedStageError, StageRecord, Store

Part = TypeVar("Part", bound=Component)


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell and the stages that lead to its result.

    Args:
        cell: what was asked for.
        chain: its stages from the initial weights on; empty if it is skipped.
        test: its test score.
        scope: the tensors it prunes.
        skip: the declared reason why it is not run.
        total_epochs: epochs of the chain; retrain_epochs: those after the first prune.
        mask_updates: how often the masks are made anew, one-shot prunes included.
        warning: what a reader should know of a cell that does run, as a sentence.
        gradual_updates: the mask updates that fall into a training epoch.
        start_rate, retrain_rate: the largest learning rate of the first epoch, and of those after the first prune.
    """

    cell: Cell
    chain: tuple[Stage, ...] = ()
    test: Stage | None = None
    scope: tuple[Tensor, ...] = ()
    skip: str | None = None
    total_epochs: int = 0
    retrain_epochs: int = 0
    mask_updates: int = 0
    warning: str = ""
    gradual_updates: int = 0
    start_rate: float | None = None
    retrain_rate: float | None = None

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
        trusted: keys of cached stages that older code made; none unless that was asked for.
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
    trusted: frozenset[str] = frozenset()

    def settings(self, cell: Cell) -> Settings:
        """How the session of a cell computes."""
        return _settings(self.experiment, self.devices, cell)

    def is_earlier_end(self, stage: Stage) -> bool:
        """Whether the store holds a test score of this stage: it is the end of some experiment's chain."""
        return self.store.has_stage(scoring_stage(stage).key)

    def is_cached(self, planned: PlannedCell) -> bool:
        """Whether nothing of a cell has to run."""
        return bool(planned.chain) and not any(stage.key in self.to_run for stage in planned.stages)

    def trusted_by(self, planned: PlannedCell) -> list[str]:
        """Keys of the stages of older code that a cell rests on, in the order of its chain."""
        return [stage.key for stage in planned.stages if stage.key in self.trusted]

    def run_list(self) -> list[JsonValue]:
        """Every stage that `run` would run, in an order in which it could, with the reason and what it starts from."""
        cells: dict[str, int] = Counter(stage.key for planned in self.cells for stage in planned.stages)
        return [
            {
                "stage": key,
                "kind": self.stages[key].kind,
                "epoch": self.stages[key].epoch_index + (self.stages[key].kind == "train"),
                "parent": self.stages[key].parent,
                "reason": reason,
                "cells": cells[key],
            }
            for key, reason in self.to_run.items()
        ]

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
            "trusted": len(self.trusted),
            "why": dict(sorted(reasons.items())),
            "epochs": distinct,
            "epochs_to_run": epochs,
            "epochs_without_sharing": naive,
            "sharing_ratio": round(distinct / naive, 4) if naive else 1.0,
            "warnings": [*self.warnings()],
            "cells_detail": [self._detail(planned) for planned in self.cells],
        }

    def warnings(self) -> dict[str, int]:
        """What a reader should know of cells that do run, with the number of those cells."""
        return Counter(planned.warning for planned in self.cells if planned.warning)

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
            "mask_updates": planned.mask_updates,
            "total_epochs": planned.total_epochs,
            "retrain_epochs": planned.retrain_epochs,
        }


def make_plan(experiment: Experiment, *, store: Path, data_dir: Path | None = None, trust_code: bool = False) -> Plan:
    """Plan an experiment: load the data, check what only shapes can tell, lower every cell, look into the store.

    Args:
        experiment: what is asked for.
        store: where stages are kept; it need not exist.
        data_dir: where the data is; the experiment's own folder by default.
        trust_code: take stages that older code made, where all else is the same and present code has made none.

    Raises:
        SpecError, DataError: the experiment does not fit its tasks, or their data is not there.
    """
    from harness.data import data_folder

    folder = data_folder(data_dir or experiment.data_dir)
    problems = {task: loaded(task, folder) for task in _distinct([cell.task for cell in experiment.cells])}
    check(experiment, problems)
    backends = _distinct([cell.backend for cell in experiment.cells])
    devices = {backend: resolve_device(experiment.device, backend) for backend in backends}
    lowering = _Lowering(experiment, problems, devices)
    cells = tuple(lowering.planned(cell) for cell in experiment.cells)
    snapshot = _StoreSnapshot(Store(store))
    if trust_code:
        cells, found, trusted = _with_trusted_stages(cells, lowering.stages, snapshot)
    else:
        found, trusted = snapshot.look(lowering.stages), frozenset()
    return Plan(
        experiment, problems, folder, snapshot.store, devices, cells, found.stages, found.cached, found.to_run,
        found.damaged, trusted,
    )  # fmt: skip


def _distinct(values: Sequence[Part]) -> list[Part]:
    """Every value once; most are the same object, which is cheaper to tell than that two models are equal."""
    return list(dict.fromkeys({id(value): value for value in values}.values()))


def _with_trusted_stages(
    cells: tuple[PlannedCell, ...], strict: Mapping[str, Stage], snapshot: "_StoreSnapshot"
) -> tuple[tuple[PlannedCell, ...], "_CacheState", frozenset[str]]:
    """The plan with stages of older code in it. None of them is ever run: that would put new results under old keys."""
    older, refused = OlderCode(snapshot.store), set[str]()
    while True:
        replaced = TrustedStages.of(strict, snapshot.present, older, refused)
        stages = {stage.key: stage for stage in replaced.stages.values()}
        found = snapshot.look(stages)
        unusable = replaced.trusted & found.to_run.keys()
        if not unusable:
            break
        refused |= unusable
    place = replaced.stages
    moved = tuple(
        replace(cell, chain=tuple(place[stage.key] for stage in cell.chain), test=place[cell.test.key])
        if cell.test else cell
        for cell in cells
    )  # fmt: skip
    return moved, found, replaced.trusted


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
    settings = Settings(
        seed=cell.seed,
        device=devices[cell.backend],
        precision=experiment.precision,
        threads=experiment.threads,
    )
    arithmetic = cell.backend.arithmetic(settings)
    return settings.model_copy(update={"arithmetic": arithmetic}) if arithmetic else settings


@dataclass(frozen=True, slots=True)
class _Combination:
    """What the cells of a combination share, whatever their seed.

    Args:
        skip: why they are skipped.
        dense, pruned: the templates of their stages, before and from the first mask update on.
        total_epochs and what follows it: as in `PlannedCell`.
    """

    scope: tuple[Tensor, ...]
    skip: str | None = None
    dense: tuple[StageTemplate, ...] = ()
    pruned: tuple[StageTemplate, ...] = ()
    total_epochs: int = 0
    retrain_epochs: int = 0
    mask_updates: int = 0
    warning: str = ""
    gradual_updates: int = 0
    start_rate: float | None = None
    retrain_rate: float | None = None

    def cell(self, cell: Cell, chain: tuple[Stage, ...] = (), test: Stage | None = None) -> PlannedCell:
        """One of the cells."""
        return PlannedCell(
            cell, chain, test, self.scope, self.skip, self.total_epochs, self.retrain_epochs, self.mask_updates,
            self.warning, self.gradual_updates, self.start_rate, self.retrain_rate,
        )  # fmt: skip


class _Lowering:
    """Lowers cells, doing what many cells share once.

    A grid's cells share their components as objects: what is kept by them is kept by identity, since hashing and
    comparing models of a hundred thousand cells would take longer than all the rest.
    """

    def __init__(
        self, experiment: Experiment, problems: Mapping[Task, Problem], devices: Mapping[Backend, str]
    ) -> None:
        self.stages: dict[str, Stage] = {}
        self._experiment, self._devices = experiment, devices
        self._problems = problems
        self._roots: dict[tuple[int, int, int], Stage] = {}
        self._combinations: dict[tuple[object, ...], _Combination] = {}
        self._dense: dict[tuple[str, tuple[str, ...]], list[Stage]] = {}
        self._by_combination: dict[tuple[str, int], list[Stage]] = {}
        self._scopes: dict[Task, tuple[Tensor, ...]] = {}
        self._skips: dict[tuple[object, ...], str | None] = {}

    def planned(self, cell: Cell) -> PlannedCell:
        """One cell with its stages, or with the reason why it is skipped."""
        combination = self._combination(cell)
        if combination.skip:
            return combination.cell(cell)
        dense = self._dense_stages(self._root(cell), combination)
        chain = extended(dense, combination.pruned, self.stages)
        test = scoring_stage(chain[-1], self.stages)
        return combination.cell(cell, tuple(chain), test)

    def outlook(self, cell: Cell) -> PlannedCell:
        """The same without its stages: whether it can run, and how often it prunes."""
        return self._combination(cell).cell(cell)

    def _dense_stages(self, start: Stage, combination: _Combination) -> list[Stage]:
        place = (start.key, id(combination))
        if place not in self._by_combination:
            # Two combinations with the same dense training have equal templates, not the same ones.
            shared = (start.key, tuple(template.work for template in combination.dense))
            if shared not in self._dense:
                self._dense[shared] = extended([start], combination.dense, self.stages)
            self._by_combination[place] = self._dense[shared]
        return self._by_combination[place]

    def _combination(self, cell: Cell) -> _Combination:
        parts = (cell.task, cell.backend, cell.pattern, cell.allocation, cell.strategy)
        place = (*map(id, parts), cell.sparsity)
        if place not in self._combinations:
            self._combinations[place] = self._new_combination(cell)
        return self._combinations[place]

    def _new_combination(self, cell: Cell) -> _Combination:
        problem = self._problems[cell.task]
        scope = self._scope(cell.task)
        skip = self._backend_skip(cell) or self._pattern_skip(cell, scope)
        if skip:
            return _Combination(scope, skip)
        recipe = problem.recipe
        if cell.strategy is None:
            masking = None
            program: Sequence[Phase] = dense_program(problem)
        else:
            assert cell.pattern is not None
            names = tuple(tensor.name for tensor in scope)
            masking = Masking(cell.pattern, cell.allocation, names, cell.sparsity)
            program = program_of(cell.strategy, recipe, cell.sparsity)
        found = stage_templates(lower(program, recipe), masking)
        kinds = [template.kind for template in found]
        first_prune = kinds.index("prune") if "prune" in kinds else len(kinds)
        dense = sum(template.is_dense for template in found)
        gradually = sum(len(template.epoch.updates) for template in found if template.epoch)
        return _Combination(
            scope, None, found[:dense], found[dense:], kinds.count("train"), kinds[first_prune:].count("train"),
            gradually + kinds.count("prune"), _why_hardly_gradual(cell, gradually), gradually,
            _largest_rate([each for each in found if each.kind == "train"][:1]), _largest_rate(found[first_prune:]),
        )  # fmt: skip

    def _scope(self, task: Task) -> tuple[Tensor, ...]:
        if task not in self._scopes:
            self._scopes[task] = scope_tensors(self._problems[task], self._experiment.scope)
        return self._scopes[task]

    def _root(self, cell: Cell) -> Stage:
        place = (id(cell.task), id(cell.backend), cell.seed)
        if place not in self._roots:
            versions = backend_versions(cell.backend)
            settings = _settings(self._experiment, self._devices, cell)
            stage = root(cell.task, self._problems[cell.task], cell.backend, settings, versions)
            self._roots[place] = self.stages.setdefault(stage.key, stage)
        return self._roots[place]

    def _backend_skip(self, cell: Cell) -> str | None:
        place = (cell.task, cell.backend)
        if place not in self._skips:
            problem = self._problems[cell.task]
            self._skips[place] = _framework_skip(cell.backend, problem.network) or cell.backend.why_not(
                problem, _settings(self._experiment, self._devices, cell)
            )
        return self._skips[place]

    def _pattern_skip(self, cell: Cell, scope: tuple[Tensor, ...]) -> str | None:
        if cell.pattern is None:
            return None
        allocation = cell.allocation if isinstance(cell.allocation, str) else str(sorted(cell.allocation.items()))
        place = (cell.task, cell.pattern, allocation, cell.sparsity)
        if place not in self._skips:
            tolerance = self._experiment.tolerance
            parts = (cell.pattern, cell.allocation, scope, cell.sparsity, tolerance)
            reason = why_skipped(*parts)
            instead = nearest_fit(*parts) if reason else ""
            self._skips[place] = f"{reason}; what fits: {instead}" if instead else reason
        return self._skips[place]


def outlook(experiment: Experiment, problems: Mapping[Task, Problem]) -> Plan:
    """A plan without stages: what `validate` can say of every cell without looking into a store.

    Args:
        experiment: what is asked for, checked.
        problems: its tasks with their data.
    """
    backends = _distinct([cell.backend for cell in experiment.cells])
    devices = {each: resolve_device(experiment.device, each) for each in backends}
    lowering = _Lowering(experiment, problems, devices)
    cells = tuple(lowering.outlook(cell) for cell in experiment.cells)
    return Plan(experiment, problems, None, Store(Path()), devices, cells, {}, {}, {})


_FEW_UPDATES = 5
"""Mask updates below which a schedule is closer to a one-shot prune than to what it is called."""


def _why_hardly_gradual(cell: Cell, updates: int) -> str:
    """A sentence where masks are to be made during training and hardly ever are; empty otherwise."""
    if not 0 < updates < _FEW_UPDATES:
        return ""
    name = cell.labels()["strategy"]
    return (
        f"{name} makes {plural(updates, 'mask update')} during its training, fewer than "
        f"{_FEW_UPDATES}: that is hardly gradual; prune more often (for `gradual`, a smaller `every` or a longer "
        "span), or use a one-shot strategy"
    )


def _largest_rate(found: Sequence[StageTemplate]) -> float | None:
    """The largest learning rate of these stages; None where none of them trains."""
    epochs = [template.epoch.rates for template in found if template.epoch is not None]
    return max((rates if isinstance(rates, float) else max(rates) for rates in epochs), default=None)


def _framework_skip(backend: Backend, network: Network) -> str | None:
    """Why a backend cannot train a model of the user's own: it is of another framework."""
    if not isinstance(network, NativeModel) or network.framework in backend.frameworks:
        return None
    return (
        f"{backend.name} trains {' and '.join(backend.frameworks) or 'no'} models of a user's own, this one is of "
        f"{network.framework}; leave the combination out, or give the model in the other framework"
    )


def dense_program(problem: Problem) -> tuple[Train]:
    """The baseline: the recipe as it is."""
    return (Train(epochs=problem.recipe.epochs, lr=problem.recipe.learning_rate),)


def pattern_banks(pattern: Pattern | None, tensors: Sequence[Tensor]) -> dict[str, int]:
    """Equally filled banks per row, by tensor name, where the pattern has them."""
    if pattern is None:
        return {}
    counts = {
        tensor.name: pattern.for_tensor(tensor).banks_per_row(tensor.shape[0], tensor.shape[1]) for tensor in tensors
    }
    return {name: banks for name, banks in counts.items() if banks is not None}


@dataclass(frozen=True)
class _CacheState:
    """What the store says of a plan's stages: as in `Plan`."""

    stages: Mapping[str, Stage]
    cached: Mapping[str, StageRecord]
    to_run: Mapping[str, str]
    damaged: Mapping[str, str]


class _StoreSnapshot:
    """A store that is looked into: what is there is listed once, every record is read once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.present = frozenset(store.keys())
        self._read: dict[str, StageRecord | DamagedStageError | None] = {}

    def look(self, stages: Mapping[str, Stage]) -> _CacheState:
        """What is there, and what has to run."""
        cached: dict[str, StageRecord] = {}
        damaged: dict[str, str] = {}
        for key in stages:
            found = self._record(key) if key in self.present else None
            if isinstance(found, DamagedStageError):
                damaged[key] = str(found)
            elif found is not None:
                cached[key] = found
        to_run = _to_run(self.store, stages, cached, damaged)
        return _CacheState(stages, cached, to_run, damaged)

    def _record(self, key: str) -> StageRecord | DamagedStageError | None:
        """A stage's record, if it is there and whole, its masks included."""
        if key not in self._read:
            try:
                record = self.store.read(key)
                if record is not None:
                    self.store.masks(record)
                self._read[key] = record
            except DamagedStageError as error:
                self._read[key] = error
        return self._read[key]


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
