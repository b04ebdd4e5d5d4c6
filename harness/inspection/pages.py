"""All that a store tells of a cell, for `harness show`."""

from collections.abc import Iterable
from pathlib import Path

from harness.api import JsonValue, Mask
from harness.inspection.chain import Place, chain, metric_of, not_finite
from harness.inspection.logs import logs
from harness.inspection.lookup import RECORDS, FoundCell, runs, title
from harness.inspection.recipe import Step, model_of, optimiser_of, recipe_of
from harness.results import records
from harness.store import Store


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
