"""From cells to their chains of stages, or to the reason why they cannot run: what many cells share is done once."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from harness._text import plural
from harness.api import (
    Backend,
    Component,
    HardwareModel,
    NativeModel,
    Network,
    NumberFormat,
    Phase,
    PluginContractError,
    Problem,
    Settings,
    Task,
    Tensor,
    Train,
)
from harness.discovery.asking import (
    arithmetic_of,
    hyper_parameters_of,
    number_format_of,
    program_of,
    versions_of,
    why_not,
    why_unavailable,
)
from harness.discovery.guard import calling
from harness.masks.beforehand import why_skipped
from harness.planning.fitting import nearest_fit
from harness.planning.stages import (
    Masking,
    Stage,
    StageTemplate,
    extended,
    lower,
    root,
    scoring_stage,
    stage_templates,
)
from harness.planning.supplies import why_not_supplied
from harness.planning.workloads import pattern_banks
from harness.spec import Cell, Experiment, scope_tensors


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell and the stages that lead to its result.

    Args:
        cell: what was asked for.
        chain: its stages from the initial weights on; empty if it is skipped.
        test: its test score.
        scope: the tensors it prunes.
        skip: the declared reason why it is not run; failure: what a plugin's code did wrong before anything ran.
        total_epochs: epochs of the chain; retrain_epochs: those after the first prune.
        mask_updates: how often the masks are made anew, one-shot prunes included.
        warning: what a reader should know of a cell that does run, as a sentence.
        gradual_updates: the mask updates that fall into a training epoch.
        prunings: when masks are made, and how sparse; see `Record`.
        start_rate, retrain_rate: the largest learning rate of the first epoch, and of those after the first prune.
        fixed: its test scores in the number formats of the hardware entries.
        rewinds_to: epochs of the dense training that are gone back to: their states are needed beside its end's.
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
    fixed: tuple[Stage, ...] = ()
    rewinds_to: tuple[int, ...] = ()
    failure: str | None = None
    hyper_parameters: tuple[str, ...] = ()
    prunings: tuple[tuple[float, float], ...] = ()

    @property
    def end(self) -> Stage:
        """The stage that holds the finished model."""
        return self.chain[-1]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The chain and its test scores."""
        return self.chain if self.test is None else (*self.chain, self.test, *self.fixed)

    def moved(self, places: Mapping[str, Stage]) -> "PlannedCell":
        """The cell with other stages in the place of its own, by the keys of these."""
        if self.test is None:
            return self
        chain, fixed = (tuple(places[stage.key] for stage in stages) for stages in (self.chain, self.fixed))
        return replace(self, chain=chain, test=places[self.test.key], fixed=fixed)


@dataclass(frozen=True, slots=True)
class _Combination:
    """What the cells of a combination share, whatever their seed.

    Args:
        skip, failure: why they are not run.
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
    rewinds_to: tuple[int, ...] = ()
    failure: str | None = None
    hyper_parameters: tuple[str, ...] = ()
    prunings: tuple[tuple[float, float], ...] = ()

    def cell(
        self, cell: Cell, chain: tuple[Stage, ...] = (), test: Stage | None = None, fixed: tuple[Stage, ...] = ()
    ) -> PlannedCell:
        """One of the cells."""
        return PlannedCell(
            cell, chain, test, self.scope, self.skip, self.total_epochs, self.retrain_epochs, self.mask_updates,
            self.warning, self.gradual_updates, self.start_rate, self.retrain_rate, fixed, self.rewinds_to,
            self.failure, self.hyper_parameters, self.prunings,
        )  # fmt: skip


class Lowering:
    """Lowers cells, doing what many cells share once.

    A grid's cells share their components as objects: what is kept by them is kept by identity, since hashing and
    comparing models of a hundred thousand cells would take longer than all the rest.
    """

    def __init__(
        self,
        experiment: Experiment,
        problems: Mapping[Task, Problem],
        devices: Mapping[Backend, str],
        broken: Mapping[Component, str],
    ) -> None:
        """Begin with no stage.

        Args:
            experiment: whose cells are lowered.
            problems: its tasks with their data.
            devices: where each backend computes.
            broken: tasks and backends whose code is at fault, with the sentence: their cells have failed.
        """
        self.stages: dict[str, Stage] = {}
        self._experiment, self._devices = experiment, devices
        self._problems, self._broken = problems, broken
        self._roots: dict[tuple[int, int, int], Stage] = {}
        self._combinations: dict[tuple[object, ...], _Combination] = {}
        self._dense: dict[tuple[str, tuple[str, ...]], list[Stage]] = {}
        self._by_combination: dict[tuple[str, int], list[Stage]] = {}
        self._scopes: dict[Task, tuple[Tensor, ...]] = {}
        self._skips: dict[tuple[object, ...], str | None] = {}
        self._formats = number_formats(experiment.hardware)

    def planned(self, cell: Cell) -> PlannedCell:
        """One cell with its stages, or with the reason why it is skipped or has failed."""
        if cell.goal is not None:
            return self.outlook(cell)
        combination = self._combination(cell)
        if combination.skip or combination.failure:
            return combination.cell(cell)
        try:
            start = self._root(cell)
        except PluginContractError as error:
            # Only its own cells fail: the same combination on another task may be sound.
            return replace(combination, failure=str(error)).cell(cell)
        dense = self._dense_stages(start, combination)
        chain = extended(dense, combination.pruned, self.stages)
        test = scoring_stage(chain[-1], self.stages)
        own = type(cell.task) if isinstance(self._problems[cell.task].network, NativeModel) else None
        fixed = tuple(scoring_stage(chain[-1], self.stages, each, own) for each in self._formats)
        return combination.cell(cell, tuple(chain), test, fixed)

    def outlook(self, cell: Cell) -> PlannedCell:
        """The same without its stages: whether it can run, and how often it prunes."""
        if cell.goal is not None and cell.task in self._problems:  # a target that no sparsity reaches
            return PlannedCell(cell, scope=self._scope(cell.task), skip="; ".join(each.reason for each in cell.solved))
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
        # By identity, which holds as long as the experiment does: hashing models took most of the planning.
        place = (*map(id, parts), cell.sparsity)
        if place not in self._combinations:
            try:
                self._combinations[place] = self._new_combination(cell)
            except PluginContractError as error:
                # Its cells have failed before they could begin; those of other plugins go on.
                self._combinations[place] = _Combination(self._scopes.get(cell.task, ()), failure=str(error))
        return self._combinations[place]

    def _new_combination(self, cell: Cell) -> _Combination:
        for part in (cell.task, cell.backend):
            if part in self._broken:
                raise PluginContractError(self._broken[part])
        problem = self._problems[cell.task]
        scope = self._scope(cell.task)
        skip = self._backend_skip(cell) or self._pattern_skip(cell, scope)
        if skip:
            return _Combination(scope, skip)
        recipe = problem.recipe
        if cell.strategy is None:
            masking = None
            hyper_parameters: tuple[str, ...] = ()
            program: Sequence[Phase] = dense_program(problem)
            steps = lower(program, recipe)
        else:
            assert cell.pattern is not None
            names = tuple(tensor.name for tensor in scope)
            masking = Masking(cell.pattern, cell.allocation, names, cell.sparsity)
            hyper_parameters = hyper_parameters_of(cell.strategy)
            program = program_of(cell.strategy, recipe, cell.sparsity)
            # Before the chain exists: a score that nothing supplies would else be found out after the dense training.
            if skip := why_not_supplied(cell.backend, problem.network, program, recipe, scope):
                return _Combination(scope, skip)
            with calling(cell.strategy):  # a schedule of its own is asked for every step
                steps = lower(program, recipe)
        found = stage_templates(steps, masking)
        kinds = [template.kind for template in found]
        # Gradual programs have no one-shot prune and nothing that would be retraining.
        first_prune = kinds.index("prune") if "prune" in kinds else len(kinds)
        dense = sum(template.is_dense for template in found)
        gradually = sum(len(template.epoch.updates) for template in found if template.epoch)
        return _Combination(
            scope, None, found[:dense], found[dense:], kinds.count("train"), kinds[first_prune:].count("train"),
            gradually + kinds.count("prune"), _why_hardly_gradual(cell, gradually), gradually,
            _largest_rate([each for each in found if each.kind == "train"][:1]), _largest_rate(found[first_prune:]),
            _rewinds_to(found, dense), None, hyper_parameters, _prunings(found, recipe.steps_per_epoch),
        )  # fmt: skip

    def _scope(self, task: Task) -> tuple[Tensor, ...]:
        if task not in self._scopes:
            self._scopes[task] = scope_tensors(self._problems[task], self._experiment.scope)
        return self._scopes[task]

    def _root(self, cell: Cell) -> Stage:
        place = (id(cell.task), id(cell.backend), cell.seed)
        if place not in self._roots:
            versions = versions_of(cell.backend)
            settings = settings_of(self._experiment, self._devices, cell)
            stage = root(cell.task, self._problems[cell.task], cell.backend, settings, versions)
            self._roots[place] = self.stages.setdefault(stage.key, stage)
        return self._roots[place]

    def _backend_skip(self, cell: Cell) -> str | None:
        place = (cell.task, cell.backend)
        # A skip of backend and task is the same for hundreds of cells, and asking may load a model.
        if place not in self._skips:
            problem = self._problems[cell.task]
            why_unavailable(cell.backend)  # a reason is told by whoever is going to train; a fault fails its cells
            self._skips[place] = _framework_skip(cell.backend, problem.network) or why_not(
                cell.backend, problem, settings_of(self._experiment, self._devices, cell)
            )
        return self._skips[place]

    def _pattern_skip(self, cell: Cell, scope: tuple[Tensor, ...]) -> str | None:
        if cell.pattern is None:
            return None
        # A dictionary cannot be part of a key; the order in which it was written decides nothing.
        allocation = cell.allocation if isinstance(cell.allocation, str) else str(sorted(cell.allocation.items()))
        place = (cell.task, cell.pattern, allocation, cell.sparsity)
        if place not in self._skips:
            tolerance = self._experiment.tolerance
            parts = (cell.pattern, cell.allocation, scope, cell.sparsity, tolerance)
            with calling(cell.pattern):
                reason = why_skipped(*parts)
                instead = nearest_fit(*parts) if reason else ""
            if reason is None:
                pattern_banks(cell.pattern, scope)  # or its hardware would find out after the training
            self._skips[place] = f"{reason}; what fits: {instead}" if instead else reason
        return self._skips[place]


def number_formats(models: Sequence[HardwareModel]) -> tuple[NumberFormat, ...]:
    """The number formats that hardware models name, each once, in their order."""
    found: dict[NumberFormat, None] = {}
    for model in models:
        with suppress(PluginContractError):  # its cost says so
            named = number_format_of(model)
            found |= {} if named is None else {named: None}
    return tuple(found)


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


def _rewinds_to(templates: Sequence[StageTemplate], dense: int) -> tuple[int, ...]:
    """The epochs that rewinds go back to, as far as the first `dense` stages end them; fresh weights are of none."""
    found = {
        template.epoch_index
        for template in templates
        if template.source is not None and template.source <= dense and "weights" not in template.inputs
    }
    return tuple(sorted(found))


_MOST_PRUNINGS = 100
"""Of a cell that are told: a strategy may make its masks anew before every step."""


def _prunings(templates: Sequence[StageTemplate], steps_per_epoch: int) -> tuple[tuple[float, float], ...]:
    """Epochs trained before each mask update, those before a rewind included, and the sparsity asked for."""
    found: list[tuple[float, float]] = []
    trained = 0
    for template in templates:
        updates = template.epoch.updates if template.epoch is not None else ()
        found += [(round(trained + each.step / steps_per_epoch, 4), each.sparsity) for each in updates]
        if template.update is not None:
            found.append((float(trained), template.update.sparsity))
        trained += template.kind == "train"
    if len(found) <= _MOST_PRUNINGS:
        return tuple(found)
    # Spread evenly, with the first and the last of them.
    last = _MOST_PRUNINGS - 1
    return tuple(found[place * (len(found) - 1) // last] for place in range(_MOST_PRUNINGS))


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


def settings_of(experiment: Experiment, devices: Mapping[Backend, str], cell: Cell) -> Settings:
    """How the session of a cell computes, the backend's own way of computing included."""
    settings = Settings(
        seed=cell.seed,
        device=devices[cell.backend],
        precision=experiment.precision,
        threads=experiment.threads,
    )
    arithmetic = arithmetic_of(cell.backend, settings)
    return settings.model_copy(update={"arithmetic": arithmetic}) if arithmetic else settings
