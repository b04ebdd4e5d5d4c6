"""The experiment of a run again, from the copy that it keeps (`harness.execution.spec_copy`)."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from harness.api import SpecError, read_plain_text
from harness.inspection.lookup import RECORDS, planned_titles, title
from harness.results import records
from harness.results.records import Record
from harness.spec import Experiment, recalled

SPEC = "spec.yaml"


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
    for is_cut in (False, True):
        each = recalled(_smoke(experiment, rows) if is_cut else experiment, rows)
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


def _smoke(experiment: Experiment, rows: Iterable[Record]) -> Experiment:
    """What a smoke run made of an experiment: the cells have the same labels, and their tasks are cut short."""
    labels, titles = set(map(title, rows)), planned_titles(experiment.cells)
    return replace(
        experiment, cells=tuple(cell for cell in experiment.cells if cell.goal or titles[cell.id] in labels)
    ).smoke()


def _data_dir(found: Path | None, folder: Path) -> Path | None:
    """Where a copied file means its data to be: it was written for another folder, most likely this one."""
    if found is None or found.exists() or not found.is_relative_to(folder):
        return found
    return found.relative_to(folder)
