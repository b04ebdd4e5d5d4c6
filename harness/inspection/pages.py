"""What a store tells of a cell: its stages, what they printed, everything that is known of it."""

import codecs
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from harness._files import open_at_once, plain_size
from harness.api import HarnessError, JsonValue, Mask, Problem, SpecError, Task, read_plain_text
from harness.discovery.asking import value_of
from harness.inspection.lookup import RECORDS, FoundCell, changed, planned_titles, runs, title
from harness.inspection.recipe import Step, model_of, optimiser_of, recipe_of
from harness.inspection.run_status import status
from harness.inspection.why import place_of
from harness.planning.plan import Plan, make_plan
from harness.planning.stages import Stage, scoring_stage
from harness.results import records
from harness.results.records import DONE, PENDING, Record
from harness.spec import Experiment, recalled
from harness.store import DamagedStageError, StageRecord, Store

SPEC = "spec.yaml"

FOLLOW_S = 0.5
"""Between two looks at a log that is followed."""

_CHUNK = 1 << 16


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


@dataclass(frozen=True)
class Log:
    """What a stage printed.

    Args:
        stage: its key; name: what it is in its chain; state: as in `Place`.
        path: the file; None if there is none.
        run: id of the run that has the file; empty if there is none.
    """

    stage: str
    name: str
    state: str
    path: Path | None = None
    run: str = ""


def experiment_of(folder: Path, *, only: Iterable[str] | None = None) -> Experiment:
    """The experiment of a run, from the copy of its file: with the cells that the run had.

    Args:
        folder: of the run.
        only: ids of the cells that are wanted; default: all that the run had.

    Raises:
        SpecError: there is no copy, or other plugins or defaults make other cells of it.
        PluginUnavailableError: a plugin is broken or missing.
    """
    from harness.discovery.finding import discover
    from harness.spec import load

    if not (folder / SPEC).exists():
        raise SpecError(f"expected the experiment file {SPEC} in {folder}, got none; name the file: `harness why` does")
    experiment = load(folder / SPEC, discover(), plugins=plugin_files(folder))
    # The copy lies in another folder than its original, and its relative paths start here now.
    experiment = replace(experiment, data_dir=_data_dir(experiment.data_dir, folder))
    rows = records.read(folder / RECORDS, details=False)
    wanted = {record.cell for record in rows} if only is None else frozenset(only)
    # A smoke run keeps the file as it was written: the same cut is made again, and one of the two has the cells.
    for make in (_as_written, _smoke):
        each = recalled(make(experiment, rows), rows)
        cells = tuple(cell for cell in each.cells if cell.id in wanted)
        if cells:
            return replace(each, cells=cells)
    raise SpecError(
        f"expected the cells of run {folder.name} in {folder / SPEC}, got others: a plugin has other parameters or "
        "defaults than it had; run the experiment again"
    )


def plugin_files(folder: Path) -> tuple[Path, ...] | None:
    """The files of plugins that a run had; None for one of before there were such files."""
    listed = folder / "plugins.json"
    if not listed.exists():
        return None
    try:
        return tuple(
            Path(file) for file in json.loads(read_plain_text(listed, "a list of plugins", most=1_000_000))["files"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(
            f"expected a list of plugin files in {listed}, got {error!r}; run the experiment again"
        ) from None


def _as_written(experiment: Experiment, rows: Iterable[Record]) -> Experiment:
    return experiment


def _smoke(experiment: Experiment, rows: Iterable[Record]) -> Experiment:
    """What a smoke run made of an experiment: the cells have the same labels, and their tasks are cut short."""
    labels, titles = set(map(title, rows)), planned_titles(experiment)
    return replace(
        experiment, cells=tuple(cell for cell in experiment.cells if cell.goal or titles[cell.id] in labels)
    ).smoke()


def _data_dir(found: Path | None, folder: Path) -> Path | None:
    """Where a copied file means its data to be: it was written for another folder, most likely this one."""
    if found is None or found.exists() or not found.is_relative_to(folder):
        return found
    return found.relative_to(folder)


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
    ended = _ended(cell)
    # From the store first: planning loads the task's data, which may be elsewhere by now.
    walked = _walked(shelf, record.stage)
    if walked is not None:
        end = walked[-1]
        test = scoring_stage(Stage(end.key, end.parent, "train", {}, end.epoch_index))
        return Chain((*(_stored(stage) for stage in walked), _place(shelf, test, ended)))
    try:
        plan = cell_plan(store, cell, data_dir)
    except HarnessError as error:
        return Chain(tuple(_told(shelf, cell, ended)), unknown=str(error))
    planned = plan.cells[0]
    return Chain(
        tuple(_place(shelf, stage, ended) for stage in planned.stages),
        plan.problems.get(planned.cell.task),
        planned.cell.task,
    )


def _ended(cell: FoundCell) -> dict[str, str]:
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


def _told(store: Store, cell: FoundCell, ended: Mapping[str, str]) -> Iterator[Place]:
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


# --- logs -----------------------------------------------------------------------------------------------------------


def logs(store: Path, cell: FoundCell, places: Iterable[Place]) -> list[Log]:
    """What the stages of a cell printed: in its own run, or in the latest of the others that ran them.

    A file in which nothing stands is none, unless its stage is running: a run that was killed leaves such files behind.
    """
    # Only runs that trained a stage have its log; later ones found it in the store.
    others = [folder for folder in runs(store) if folder.name != cell.folder.name]
    return [_log(place, [cell.folder, *others]) for place in places]


def _log(place: Place, where: Iterable[Path]) -> Log:
    for folder in where:
        path = folder / "logs" / f"{place.key}.log"
        # An empty log is none, unless its stage is still writing.
        if path.is_file() and not path.is_symlink() and (place.state == "running" or path.stat().st_size):
            return Log(place.key, place.name, place.state, path, folder.name)
    return Log(place.key, place.name, place.state)


def why_no_log(store: Path, cell: FoundCell) -> str:
    """Why there is no log of a cell, in a sentence, and where else something of it stands."""
    record, run = cell.record, cell.folder.name
    name = f"cell {record.cell} ({title(record)})"
    numbers = f"its epochs and what they measured: `harness show {record.cell}`"
    match record.status:
        case "skipped":
            return f"{name} has no log: it is skipped, as {record.reason}"
        case "planned":
            return f"{name} has no log: run {run} has not begun with it, or it has printed nothing"
        case "running":
            return f"{name} has no log: it has printed nothing so far; how far it is: `harness status {run}`"
        case "cached":
            by = _computed_by(store, cell)
            told = f"run {by.name} computed it" if by else "no run that is still here computed it"
            return f"{name} has no log: run {run} found it in the store, {told}, and nothing was printed; {numbers}"
    return f"{name} has no log: no framework or plugin printed anything; {numbers}"


def _computed_by(store: Path, cell: FoundCell) -> Path | None:
    """The run that trained what a cell found in the store."""
    for folder in runs(store):
        if folder.name != cell.folder.name:
            for record in records.read(folder / RECORDS, details=False):
                if record.stage == cell.record.stage and record.status == "ok":
                    return folder
    return None


class Reader:
    """Reads logs on from where it stopped."""

    def __init__(self) -> None:
        self._offsets: Counter[Path] = Counter()
        self._decoders: dict[Path, codecs.IncrementalDecoder] = {}

    def more(self, path: Path) -> Iterator[str]:
        """What a log has beyond what was read of it, in pieces; bytes that are no UTF-8 are replaced."""
        # Incremental, since a piece may end within a character.
        decoder = self._decoders.setdefault(path, codecs.getincrementaldecoder("utf-8")("replace"))
        with suppress(OSError), os.fdopen(open_at_once(path), "rb") as file:
            plain_size(file.fileno())  # what is no plain file may never end
            file.seek(self._offsets[path])
            while chunk := file.read(_CHUNK):
                self._offsets[path] += len(chunk)
                text = decoder.decode(chunk)
                if text:
                    yield text


def follow(store: Path, cell: FoundCell, data_dir: Path | None = None) -> Iterator[tuple[Log, str]]:
    """Every log of a cell in pieces, as they are written; ends when nothing more will come.

    Args:
        store: the store's folder.
        cell: the cell.
        data_dir: as for `chain`.
    """
    reader, found = Reader(), chain(store, cell, data_dir)
    places = {place.key: place for place in found.places}
    while True:
        is_over = not _is_pending(cell)  # asked first: what it wrote before its end is still read
        if found.unknown:  # stages are known only while they run
            places |= {place.key: place for place in _told(Store(store), cell, _ended(cell))}
        for log in logs(store, cell, places.values()):
            if log.path is not None:
                yield from ((log, text) for text in reader.more(log.path))
        if is_over:
            return
        time.sleep(FOLLOW_S)


def _is_pending(cell: FoundCell) -> bool:
    """Whether a cell's run is alive and not done with it."""
    if status(cell.folder).state != "running":
        return False
    # By its time of change: whoever follows a log would else read all records twice a second.
    return _cell_status(cell.folder, cell.record.cell, changed(cell.folder, RECORDS)) in PENDING


@lru_cache(maxsize=8)
def _cell_status(folder: Path, cell: str, written: float) -> str:
    found = records.read(folder / RECORDS, details=False)
    return next((record.status for record in found if record.cell == cell), "planned")


# --- all of a cell --------------------------------------------------------------------------------------------------


def shown(store: Path, cell: FoundCell, data_dir: Path | None = None) -> dict[str, JsonValue]:
    """Everything about a cell, as plain values.

    Args:
        store: the store's folder.
        cell: the cell.
        data_dir: as for `chain`.

    Returns:
        `run`, `cell`, `title`; `record`: all of it; `model`, `optimiser`, `recipe`: what was really used, in words;
        `stages`: key, name, state, seconds, value (None with `not_finite` where it overflowed), reproduced, whether the
        state is kept, folder, log; `code`: distribution, version and digest by what it is; `files`; `also_in`: other
        runs that have the cell; `unknown`: why stages are missing here,
        or empty.

    Units:
        seconds; values in the record's unit.
    """
    # With all details, which the lookup left out.
    full = next(r for r in records.read(cell.folder / RECORDS) if r.cell == cell.record.cell)
    found = chain(store, cell, data_dir)
    values = metric_of(cell, found)
    overflowed = not_finite(cell, values)
    steps = [Step(place.kind, place.key, place.inputs or {}) for place in found.places]
    root = next((step.inputs for step in steps if step.kind == "init"), {})
    shelf = Store(store)
    stages: list[JsonValue] = []
    for place, log in zip(found.places, logs(store, cell, found.places), strict=True):
        stages.append(
            {
                "stage": place.key,
                "name": place.name,
                "state": place.state,
                "seconds": place.record.seconds if place.record else None,
                "value": None if place.key in overflowed else values.get(place.key),
                "not_finite": place.key in overflowed,
                "reproduced": place.record.reproduced if place.record else None,
                "state_kept": shelf.has_state(place.key),
                "folder": shelf.stage_folder(place.key).as_posix(),
                "log": log.path.as_posix() if log.path else None,
            }
        )
    also: list[JsonValue] = [
        folder.name for folder in runs(store) if folder.name != cell.folder.name and _has_cell(folder, full.cell)
    ]
    return {
        "run": cell.folder.name,
        "cell": full.cell,
        "title": title(full),
        "record": records.dump([full])[0],
        "model": model_of(root),
        "optimiser": optimiser_of(root),
        "recipe": [*recipe_of(steps)],
        "stages": stages,
        "code": _code(found.places),
        "files": {"run": cell.folder.as_posix(), "stages": (store / "stages").as_posix()},
        "also_in": also,
        "unknown": found.unknown,
    }


def masks_of(store: Path, cell: FoundCell) -> dict[str, Mask]:
    """The masks of a cell's finished model, by tensor name; none where it has no pruned one here.

    Raises:
        DamagedStageError: they are not what was written.
    """
    shelf = Store(store)
    record = shelf.read(cell.record.stage) if cell.record.stage else None
    return {} if record is None else {name: mask for name, mask in shelf.masks(record).items() if mask.ndim == 2}


def _code(places: Iterable[Place]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for place in places:
        code = (place.inputs or {}).get("code")
        if isinstance(code, dict):
            found |= code
    return found


def _has_cell(folder: Path, cell: str) -> bool:
    return any(record.cell == cell for record in records.read(folder / RECORDS, details=False))
