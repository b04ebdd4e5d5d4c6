"""Hand out a finished cell: weights and masks in one safetensors file, or its matrices packed for storage and RTL."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from harness._outputs import write_output
from harness.api import SpecError, State, StoreError
from harness.formats import memory_files, packing
from harness.formats.packing import PackedFormat
from harness.inspection import lookup
from harness.results.records import Record
from harness.store import Store


def find(store: Store, cell: str) -> Record:
    """The record of a cell as the latest run that has it left it; see `lookup.find_cell` for what may be written.

    Raises:
        SpecError: several cells fit.
        EmptySelectionError: none does.
    """
    return lookup.find_cell(store.folder, cell).record


@dataclass(frozen=True)
class Packing:
    """How a cell's pruned matrices are packed.

    Args:
        format: of every pruned matrix; what nobody pruned is kept as it is.
        banks: banks per row of csb; None takes what each mask has.
        memories: folder for memory files, or None for none.
        weight_bits: bits of a weight in them.
        pes: processing elements of the bank engine that they are for, or None for files without its shape.
        lanes: lanes of each, likewise.
    """

    format: PackedFormat
    banks: int | None = None
    memories: Path | None = None
    weight_bits: int = 16
    pes: int | None = None
    lanes: int | None = None


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
        SpecError, EmptySelectionError: the id fits several cells, or none; or a file cannot be written.
        StoreError: the cell is not finished, its state is not kept, or its files are damaged.
    """
    record, state = finished(store, cell)
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = dict(state.weights)
    # Names of masks beside names of weights: a reader needs no other file.
    arrays.update({f"{name}.mask": mask for name, mask in state.masks.items()})
    write_output(path, save(arrays, _described(record)))
    return record


def export_packed(store: Path, cell: str, path: Path, how: Packing) -> Record:
    """Write the matrices of a finished cell, packed; `harness.formats.packing.read_packed` restores them exactly.

    Args:
        store: the store's folder.
        cell: id of a cell, or its beginning.
        path: the `.npz` file to write.
        how: the format, and memory files beside it.

    Returns:
        The cell's record.

    Raises:
        SpecError, EmptySelectionError: the id fits several cells, or none; the format cannot hold a mask; a file
            cannot be written.
        StoreError: the cell is not finished, its state is not kept, or its files are damaged.
    """
    record, state = finished(store, cell)
    if not state.masks:
        raise SpecError(f"export: cell {record.cell} is dense, so there is nothing to pack; export it as safetensors")
    # What is not pruned is kept as it is, so that the file holds the whole model.
    packed = {name: packing.keep(weights) for name, weights in state.weights.items()}
    for name, mask in state.masks.items():
        try:
            packed[name] = packing.pack(state.weights[name], how.format, mask=mask, banks=how.banks)
        except SpecError as error:
            raise SpecError(f"export: {name}: {error}") from None
    # Everything is made before anything is written: a refusal leaves no half of an export.
    files = {path: packing.write_packed(packed, _described(record))}
    if how.memories is not None:
        for name in state.masks:
            texts = memory_files.memory_files(
                name, packed[name], weight_bits=how.weight_bits, pes=how.pes, lanes=how.lanes
            )
            files |= {how.memories / file: text.encode() for file, text in texts.items()}
    for file, content in files.items():
        write_output(file, content)
    return record


def finished(store: Path, cell: str) -> tuple[Record, State]:
    """The record and the state of a finished cell."""
    shelf = Store(store)
    record = find(shelf, cell)
    stage = shelf.read(record.stage) if record.stage else None
    if stage is None or not shelf.has_state(stage.key):
        raise StoreError(
            f"export: cell {record.cell} ({record.status}) has no finished model in {store}; run its experiment again"
        )
    return record, shelf.state(stage)


def _described(record: Record) -> dict[str, str]:
    """Which cell a file comes from."""
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
    metadata = {name: str(values[name]) for name in described}
    return metadata | {"value": json.dumps(record.value), "stage": record.stage}
