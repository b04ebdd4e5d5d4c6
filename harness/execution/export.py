"""Hand out a finished cell: its pruned weights and its masks, in one safetensors file."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from harness import records
from harness.api import EmptySelectionError, SpecError, StoreError
from harness.records import Record
from harness.store import Store, write_atomic


def find(store: Store, cell: str) -> Record:
    """The record of a cell, the latest run first; the beginning of an id is enough.

    Raises:
        SpecError: several cells begin so.
        EmptySelectionError: no cell does.
    """
    files = sorted((store.folder / "runs").glob("*/records.json"), key=lambda path: -path.stat().st_mtime_ns)
    matching: dict[str, Record] = {}
    for file in files:
        for record in records.read(file):
            if record.cell.startswith(cell):
                matching.setdefault(record.cell, record)
    if not matching:
        raise EmptySelectionError(
            f"export: no cell {cell!r} in the runs of {store.folder}; `harness report --format json` lists their ids"
        )
    if len(matching) > 1:
        raise SpecError(f"export: {cell!r} begins the ids of {', '.join(sorted(matching))}; write more of the id")
    return next(iter(matching.values()))


def export(store: Path, cell: str, path: Path) -> Record:
    """Write weights and masks of a finished cell.

    Args:
        store: the store's folder.
        cell: id of a cell, or its beginning.
        path: the file to write; `NAME` holds the weights of a tensor (float32, pruned ones zero), `NAME.mask` its mask
            (bool, True = kept), (rows, cols) = (outputs, inputs), LSTM gates i, f, g, o. The metadata says which cell.

    Returns:
        The cell's record.

    Raises:
        SpecError, EmptySelectionError: the id fits several cells, or none.
        StoreError: the cell is not finished, its state is not kept, or the file cannot be written.
    """
    shelf = Store(store)
    record = find(shelf, cell)
    stage = shelf.read(record.stage) if record.stage else None
    if stage is None or not shelf.has_state(stage.key):
        raise StoreError(
            f"export: cell {record.cell} ({record.status}) has no finished model in {store}; run its experiment again"
        )
    state = shelf.state(stage)
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = dict(state.weights)
    arrays.update({f"{name}.mask": mask for name, mask in state.masks.items()})
    described = (
        "run",
        "cell",
        "task",
        "backend",
        "pattern",
        "strategy",
        "target_sparsity",
        "sparsity",
        "seed",
        "metric",
    )
    values = record.model_dump(mode="json")
    metadata = {name: str(values[name]) for name in described} | {"value": json.dumps(record.value), "stage": stage.key}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save(arrays, metadata))
    except OSError as error:
        raise StoreError(f"export: {path} cannot be written ({error.strerror}); name another file with -o") from None
    return record
