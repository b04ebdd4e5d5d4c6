"""From cells to a stage graph, and the bill: which stages there are, which are cached, why the others run.

`plan` and `run` share this one planner: what `harness plan` lists is what `harness run` does.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from harness._text import plural
from harness.api import Backend, Component, JsonValue, NativeModel, PluginContractError, Problem, Settings, Task
from harness.discovery.asking import loaded
from harness.planning.backends import resolve_device
from harness.planning.genuine import Model
from harness.planning.lowering import Lowering, PlannedCell, settings_of
from harness.planning.snapshot import STATE_MISSING, StoreSnapshot, with_trusted_stages
from harness.planning.stages import Stage, scoring_stage
from harness.planning.targets import with_targets
from harness.spec import Cell, Experiment, check
from harness.spec.goal import quantity
from harness.store import StageRecord, Store

Part = TypeVar("Part", bound=Component)

_MOST_DAMAGED = 3
"""Damaged stages that a bill tells one by one."""


@dataclass(frozen=True)
class Plan:
    """Everything that is known before anything runs.

    Args:
        experiment: what was asked for; data_dir: where the data was found.
        problems: its tasks with their data; those whose code is at fault are left out.
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
        return settings_of(self.experiment, self.devices, cell)

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
                # As people count: the epoch that a training stage ends, the one that anything else stands at.
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
            "notes": [*self.notes()],
            "targets": [*self.targets()],
            "cells_detail": [self._detail(planned) for planned in self.cells],
        }

    def warnings(self) -> dict[str, int]:
        """What a reader should know of cells that do run, with the number of those cells."""
        return Counter(planned.warning for planned in self.cells if planned.warning)

    def targets(self) -> tuple[str, ...]:
        """What the targets came to, a line for every pattern."""
        found: dict[str, None] = {}
        for planned in self.cells:
            for solved in planned.cell.solved:
                if not solved.reason and solved.value is not None:
                    by = f" by {solved.engine}" if solved.engine else ""
                    by += "" if solved.fits else ", which does not fit its device,"
                    where = f"{planned.cell.labels()['pattern']} at {100 * solved.sparsity:.4g} %"
                    needed = quantity(solved.goal, solved.value)
                    found[f"{solved.goal}: {where}, {needed}{by} on masks of random weights"] = None
        return tuple(found)

    def notes(self) -> tuple[str, ...]:
        """What a reader should know of stages that run once more though they were finished, in sentences."""
        told = [f"damaged: {reason}" for reason in list(self.damaged.values())[:_MOST_DAMAGED]]
        if len(self.damaged) > _MOST_DAMAGED:
            told.append(f"damaged: {len(self.damaged) - _MOST_DAMAGED} other stages")
        return (*told, *filter(None, [self.trained_again()]))

    def trained_again(self) -> str:
        """A sentence on finished models that are trained again for a score alone, and the way out; empty if none is."""
        again = [key for key, reason in self.to_run.items() if reason.startswith(f"{STATE_MISSING} for")]
        if not again:
            return ""
        scored = {self.stages[key].parent for key in self.to_run if self.stages[key].number_format is not None}
        epochs = sum(self.stages[key].kind == "train" for key in again)
        return (
            f"{plural(len(scored.intersection(again)), 'finished model')} whose state is gone: trained again "
            f"({plural(epochs, 'epoch')}) for a score in the numbers of a hardware entry; merge a store that has the "
            "state, or leave that entry out, and nothing is trained for it"
        )

    def _detail(self, planned: PlannedCell) -> JsonValue:
        run = [stage for stage in planned.stages if stage.key in self.to_run]
        status = "skipped" if planned.skip else "failed" if planned.failure else "run" if run else "cached"
        labels: dict[str, JsonValue] = {name: str(label) for name, label in planned.cell.labels().items()}
        return {
            "cell": planned.cell.id,
            **labels,
            "sparsity": planned.cell.sparsity,
            "targets": [solved.goal for solved in planned.cell.solved],
            "seed": planned.cell.seed,
            "status": status,
            "reason": planned.skip or planned.failure or (self.to_run[run[0].key] if run else ""),
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
    problems, broken = loaded_problems(experiment, folder)
    # Before anything is lowered: a mistake of the file is told whole, with its places.
    check(experiment, problems)
    experiment = with_targets(experiment, problems, Store(store))
    devices = _devices(experiment, broken)
    lowering = Lowering(experiment, problems, devices, broken)
    cells = tuple(lowering.planned(cell) for cell in experiment.cells)
    # The store is listed once; what others finish meanwhile is seen when a stage is about to run.
    snapshot = StoreSnapshot(Store(store), _models(cells, problems))
    if trust_code:
        replaced, found = with_trusted_stages(lowering.stages, snapshot)
        cells, trusted = tuple(cell.moved(replaced.stages) for cell in cells), replaced.trusted
    else:
        found, trusted = snapshot.look(lowering.stages), frozenset()
    return Plan(
        experiment, problems, folder, snapshot.store, devices, cells, found.stages, found.cached, found.to_run,
        found.damaged, trusted,
    )  # fmt: skip


def _models(cells: Sequence[PlannedCell], problems: Mapping[Task, Problem]) -> dict[str, Model]:
    """The model of every stage of these cells, by the stage's key."""
    models: dict[tuple[Task, int], Model] = {}
    found: dict[str, Model] = {}
    for planned in cells:
        task, seed = planned.cell.task, planned.cell.seed
        if task in problems and planned.chain:
            if (task, seed) not in models:
                problem = problems[task]
                tensors = {tensor.name: tensor for tensor in problem.tensors()}
                models[task, seed] = Model(tensors, isinstance(problem.network, NativeModel), seed)
            found |= dict.fromkeys((stage.key for stage in planned.stages), models[task, seed])
    return found


def _distinct(values: Sequence[Part]) -> list[Part]:
    """Every value once; most are the same object, which is cheaper to tell than that two models are equal."""
    return list(dict.fromkeys({id(value): value for value in values}.values()))


def loaded_problems(experiment: Experiment, data_dir: Path | None) -> tuple[dict[Task, Problem], dict[Component, str]]:
    """The tasks of an experiment with their data, and the sentences on those whose code is at fault.

    Raises:
        DataError: data is missing, which nobody's code can help.
    """
    problems: dict[Task, Problem] = {}
    broken: dict[Component, str] = {}
    for task in _distinct([cell.task for cell in experiment.cells]):
        try:
            problems[task] = loaded(task, data_dir)
        except PluginContractError as error:
            broken[task] = str(error)
    return problems, broken


def _devices(experiment: Experiment, broken: dict[Component, str]) -> dict[Backend, str]:
    """Where each backend computes; one that does not say so properly is added to the broken ones."""
    devices: dict[Backend, str] = {}
    for backend in _distinct([cell.backend for cell in experiment.cells]):
        try:
            devices[backend] = resolve_device(experiment.device, backend)
        except PluginContractError as error:
            # Any device serves to plan by: its cells have failed and none of their stages is lowered.
            devices[backend], broken[backend] = "cpu", str(error)
    return devices


def outlook(experiment: Experiment, problems: Mapping[Task, Problem], broken: Mapping[Component, str]) -> Plan:
    """A plan without stages: what `validate` can say of every cell without looking into a store.

    Args:
        experiment: what is asked for, checked.
        problems: its tasks with their data, as `loaded_problems` has them.
        broken: those whose code is at fault, likewise.
    """
    every = dict(broken)
    experiment = with_targets(experiment, problems)
    devices = _devices(experiment, every)
    lowering = Lowering(experiment, problems, devices, every)
    cells = tuple(lowering.outlook(cell) for cell in experiment.cells)
    return Plan(experiment, problems, None, Store(Path()), devices, cells, {}, {}, {})
