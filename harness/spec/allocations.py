"""The layer densities of a cell that has run, as an allocation: the control for other methods at equal layers."""

from collections.abc import Mapping
from pathlib import Path

from harness._text import listed
from harness.api import HarnessError, JsonValue, SpecError
from harness.results import records as files
from harness.results.records import Record
from harness.spec.source import got

KEYS = ("densities_of", "records")
"""What such an entry consists of; no tensor is called so."""


def is_of_a_cell(entry: Mapping[str, JsonValue]) -> bool:
    """Whether an allocation is meant to be that of a cell."""
    return KEYS[0] in entry


def of_a_cell(entry: Mapping[str, JsonValue], folder: Path | None) -> dict[str, float]:
    """The sparsity that every tensor of a cell has reached.

    Args:
        entry: `densities_of`, the beginning of a cell's id, and `records`, a file of records.
        folder: where a relative path starts.

    Source:
        Blalock et al., "What is the State of Neural Network Pruning?", MLSys 2020: methods are to be compared with
        baselines of the same densities in every layer.

    Raises:
        SpecError: the entry is not of that form, the file has no such cell, or the cell has no masks.
    """
    wrong = [key for key in entry if key not in KEYS]
    values = [entry.get(key) for key in KEYS]
    if wrong or not all(isinstance(value, str) and value for value in values):
        raise SpecError(
            "expected {densities_of: CELL, records: FILE}, the beginning of a cell's id and the records.json of its "
            f"run, got {got(dict(entry))}"
        )
    wanted, file = (str(value) for value in values)
    path = (folder or Path()) / file
    try:
        # Ids are prefixes, as `show` takes them; the details of costs, most of the file, are not needed.
        found = [record for record in files.read(path, details=False) if record.cell.startswith(wanted)]
    except HarnessError as error:
        raise SpecError(str(error)) from None
    if len(found) != 1:
        several = listed([record.cell for record in found][:4])
        raise SpecError(
            f"expected `densities_of` to name one cell of {file}, got '{wanted}', which "
            + (f"names {len(found)}: {several}" if found else "names none; `harness show` lists cells with their ids")
        )
    return _sparsities(found[0])


def _sparsities(record: Record) -> dict[str, float]:
    if not record.tensor_sparsity:
        raise SpecError(
            f"expected `densities_of` to name a cell with masks, got {record.cell}, which is "
            f"{'the dense baseline' if record.pattern == 'dense' else record.status}; take a pruned one that has run"
        )
    # A tensor without weights has no allocation that keeps the network whole: no sparsity below 1 says it.
    empty = [name for name, sparsity in record.tensor_sparsity.items() if sparsity >= 1]
    if empty:
        raise SpecError(
            f"expected `densities_of` to name a cell that keeps something everywhere, got {record.cell}, in which "
            f"{listed(empty)} is empty; take another one"
        )
    return dict(record.tensor_sparsity)
