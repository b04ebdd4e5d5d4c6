"""An independent check of results: it reads the files of a run, and shares no code with what ran it.

What it knows of the harness is the form of its files: records, stages, masks, experiments. Keys, metrics, sparsities,
patterns and statistics are computed here once more, by code of its own; hardware models are asked once more about the
masks in the store. What cannot be checked is said.
"""

from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml.error import YAMLError

from harness.api import JsonValue, SpecError, StoreError, load_yaml, read_plain_text
from harness.report.checks import look
from harness.results import records as files
from harness.results.records import Record
from harness.verification.cells import check_cells
from harness.verification.costs import check_costs
from harness.verification.grid import check_grid
from harness.verification.masks import Mask
from harness.verification.outcome import Outcome, Problem
from harness.verification.recompute import check_models
from harness.verification.stages import Store, check_stages
from harness.verification.storage import check_storage
from harness.verification.tables import check_tables

_MOST_BYTES = 1 << 20
"""Of an experiment file."""

__all__ = ["Outcome", "Problem", "verify"]


def verify(path: Path, store: Path | None = None) -> Outcome:
    """Check a file of records, and what lies around it.

    Args:
        path: `records.json`, or the folder of a run.
        store: the store with the stages behind the records; None for the one that a run's folder lies in, if it does.

    Raises:
        StoreError: there are no records to read.
        SpecError: the file has no records, or the store is none.
    """
    folder = path if path.is_dir() else None
    file = path / "records.json" if folder else path
    found = files.read(file)
    if not found:
        raise SpecError(f"verify: expected records in {path}, got none; give the records of a run")
    outcome = Outcome()
    outcome.checked["schema"] += len(found)
    # What many cells share is named by its digest: a word changed there changes all of them.
    for name, is_intact in files.shared_names(file).items():
        outcome.hold(
            is_intact, "files", name, "expected what records share under the beginning of its digest, got another"
        )
    spec = _spec(folder or path.parent, found, outcome)
    tolerance = spec.get("tolerance") if spec else None
    check_grid(found, spec, outcome)
    check_cells(found, float(tolerance) if isinstance(tolerance, int | float) else None, outcome)
    where = store or _around(folder)
    if store is not None and not (store / "stages").is_dir():
        raise SpecError(f"verify: expected a store with stages in {store}, got none; name its folder with --store")
    stages = Store(where) if where else None
    for record in found:
        if stages is None:
            outcome.skip("what test values follow from, stages, masks and weights: no store is given (--store DIR)")
        else:
            check_stages(record, stages, outcome)
        if record.is_done:
            masks = _masks(record, stages)
            check_costs(record, masks, outcome)
            check_storage(record, masks, outcome)
    beside = (folder or path.parent) / "spec.yaml"
    # Hardware models are asked again only where masks and experiment are at hand.
    if stages is not None and spec is not None:
        check_models(beside, found, stages, outcome)
    elif any("cycles" in cost for record in found for cost in record.hardware.values()):
        outcome.skip(
            "costs by their models: that takes the masks of a store and the experiment's spec.yaml", len(found)
        )
    check_tables(found, (folder or path.parent) / "report.md", outcome)
    try:
        outcome.warnings = look(found).lines()
    except StoreError as error:  # two records of one cell: no table can be made of them
        outcome.hold(False, "grid", str(path), str(error).partition(";")[0])
    return outcome


def _masks(record: Record, stages: Store | None) -> Mapping[str, Mask] | None:
    if stages is None:
        return None
    # Problems of a stage were noted by the check of stages: here they are not noted again.
    stage = stages.stage(record.stage, Outcome()) if record.stage else None
    return stages.masks(stage) if stage else None


def _around(folder: Path | None) -> Path | None:
    """The store that a run's folder lies in."""
    if folder is None:
        return None
    store = folder.resolve().parent.parent
    return store if (store / "stages").is_dir() else None


def _spec(folder: Path, records: tuple[Record, ...], outcome: Outcome) -> Mapping[str, JsonValue] | None:
    """The experiment beside the records, if it is theirs."""
    path = folder / "spec.yaml"
    if not path.is_file():
        outcome.skip("what the experiment asked for: its spec.yaml is not there", len(records))
        return None
    text = read_plain_text(path, "the experiment of a run", most=_MOST_BYTES)
    try:
        spec = load_yaml(text)
    except (ValueError, YAMLError):
        spec = None
    if not isinstance(spec, dict):
        raise SpecError(f"verify: expected an experiment in {path}, got none; copy the run's folder whole")
    # A smoke run carries the same experiment under its own name.
    for run in dict.fromkeys(record.run for record in records):
        outcome.hold(
            run.rpartition("-")[0] in (spec.get("name"), f"{spec.get('name')}-smoke"), "labels", run,
            f"expected records of the experiment {spec.get('name')!r} beside them, got those of another",
        )  # fmt: skip
    return spec
