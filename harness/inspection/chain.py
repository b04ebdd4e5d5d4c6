"""The stages of a cell in their order, as they stand in a store: from its plan, or from its end where there is none."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.api import HarnessError, JsonValue, Problem, Task
from harness.discovery.asking import value_of
from harness.inspection.experiments import experiment_of
from harness.inspection.lookup import FoundCell
from harness.inspection.run_status import status
from harness.inspection.why import place_of
from harness.planning.plan import Plan, make_plan
from harness.planning.stages import Stage, scoring_stage
from harness.results.records import DONE
from harness.store import DamagedStageError, StageRecord, Store


@dataclass(frozen=True)
class Place:
    """A stage in the chain of a cell.

    Args:
        key: of the stage; name: what it is in the chain, as `harness.inspection.why` calls it.
        state: `done`, `running`, `damaged`, `not run`, or the status with which it ended.
        record: what the store has of it, if it is there and whole.
        inputs: what decides its result, in clear; kind: as in `Stage`; neither where nothing more is known of it.
    """

    key: str
    name: str
    state: str
    record: StageRecord | None = None
    inputs: Mapping[str, JsonValue] | None = None
    kind: str = ""


@dataclass(frozen=True)
class Chain:
    """The stages of a cell, as far as they are known.

    Args:
        places: in their order.
        problem: data and metric, where they had to be loaded to know the stages; task: whose they are.
        unknown: why stages are missing here; empty if none is.
    """

    places: tuple[Place, ...] = ()
    problem: Problem | None = None
    task: Task | None = None
    unknown: str = ""


def cell_plan(store: Path, cell: FoundCell, data_dir: Path | None = None) -> Plan:
    """The plan of a cell alone.

    Raises:
        HarnessError: it cannot be planned here: plugins, data or the experiment's file are not what they were.
    """
    return make_plan(experiment_of(cell.folder, only=[cell.record.cell]), store=store, data_dir=data_dir)


def chain(store: Path, cell: FoundCell, data_dir: Path | None = None) -> Chain:
    """The stages of a cell: from the store where all are there, else from its plan, else those that are told of.

    Args:
        store: the store's folder.
        cell: the cell.
        data_dir: where its data is, if it has to be planned.
    """
    shelf, record = Store(store), cell.record
    if not record.stage:
        return Chain()
    # A run that was interrupted may name no end for a cell that it had not begun with.
    ended = ended_of(cell)
    # From the store first: planning loads the task's data, which may be elsewhere by now.
    walked = _walked(shelf, record.stage)
    if walked is not None:
        end = walked[-1]
        test = scoring_stage(Stage(end.key, end.parent, "train", {}, end.epoch_index))
        return Chain((*(_stored(stage) for stage in walked), _place(shelf, test, ended)))
    try:
        plan = cell_plan(store, cell, data_dir)
    except HarnessError as error:
        return Chain(tuple(told(shelf, cell, ended)), unknown=str(error))
    planned = plan.cells[0]
    return Chain(
        tuple(_place(shelf, stage, ended) for stage in planned.stages),
        plan.problems.get(planned.cell.task),
        planned.cell.task,
    )


def ended_of(cell: FoundCell) -> dict[str, str]:
    """States of stages that only a run can tell, by key."""
    found: dict[str, str] = {}
    said = status(cell.folder)
    # Of a run that died the stages are no longer running, whatever its last word was.
    if said.state == "running":
        found = {stage.stage: "running" for stage in said.running}
    failed = cell.record.facts.get("failed_stage")
    if isinstance(failed, str) and failed not in found:
        # A blocked cell waits for a stage that failed in another one.
        found[failed] = "failed" if cell.record.status == "blocked" else cell.record.status
    return found


def _walked(store: Store, end: str) -> list[StageRecord] | None:
    """The chain that leads to a stage, from the initial weights on; None if it is not whole."""
    found: list[StageRecord] = []
    key: str | None = end
    while key is not None:
        try:
            record = store.read(key)
        except DamagedStageError:
            return None
        # A damaged store may have a chain that leads back to itself.
        if record is None or any(record.key == other.key for other in found):
            return None
        found.append(record)
        key = record.parent
    return found[::-1]


def _stored(record: StageRecord) -> Place:
    return Place(record.key, place_of(record.kind, record.epoch_index), "done", record, record.inputs, record.kind)


def _place(store: Store, stage: Stage, ended: Mapping[str, str]) -> Place:
    name = place_of(stage.kind, stage.epoch_index)
    try:
        record = store.read(stage.key)
    except DamagedStageError:
        return Place(stage.key, name, "damaged", None, stage.inputs, stage.kind)
    state = ended.get(stage.key, "done" if record else "not run")
    return Place(stage.key, name, state, record, stage.inputs, stage.kind)


def told(store: Store, cell: FoundCell, ended: Mapping[str, str]) -> Iterator[Place]:
    """The stages of a cell that its run names: the one that failed, and those under way."""
    of_cell = {stage.stage: stage.label for stage in status(cell.folder).running if stage.cell == cell.record.cell}
    for key, state in ended.items():
        if key in of_cell or key == cell.record.facts.get("failed_stage"):
            yield Place(store.checked_key(key), of_cell.get(key, "").rpartition(" · ")[2] or "a stage", state)


def metric_of(cell: FoundCell, found: Chain) -> dict[str, float]:
    """The metric of every evaluated stage, by key: on the validation split, and on the test split for the test score.

    Units:
        Those of the cell's record.
    """
    record, places = cell.record, found.places
    values: dict[str, float] = {}
    trained = [place.key for place in places if place.record and place.record.kind == "train"]
    if record.status in DONE:
        # As the run computed them, without the task and its data.
        # The value before retraining belongs to the last prune, whatever came between.
        pruned = [place.key for place in places if place.record and place.record.kind == "prune"]
        pairs = list(zip(trained, record.valid_history, strict=False))
        pairs += [(key, record.value_before_retraining) for key in pruned[-1:]]
        pairs += [(place.key, record.value) for place in places if place.name == "test score"]
        values = {key: value for key, value in pairs if value is not None}
    elif found.problem is not None and found.task is not None:
        for place in places:
            evaluation = place.record and (place.record.valid or place.record.test)
            if evaluation:
                values[place.key] = value_of(found.task, found.problem, evaluation)
    return values


def not_finite(cell: FoundCell, values: Mapping[str, float]) -> set[str]:
    """The keys of stages after which the metric was not finite: as the record has them, or as `metric_of` found."""
    told = cell.record.facts.get("not_finite")
    found = {key for key, value in values.items() if not math.isfinite(value)}
    return found | set(told if isinstance(told, dict) else ())
