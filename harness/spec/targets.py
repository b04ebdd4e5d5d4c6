"""Targets in terms of hardware: what they mean beside the hardware entries of an experiment."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from harness._text import listed
from harness._words import suggestion
from harness.api import HardwareModel, PluginContractError
from harness.discovery.asking import group_of, number_format_of
from harness.spec.document import GOALS, Target
from harness.spec.entries import AxisValue
from harness.spec.experiment import Cell, Experiment, Goal
from harness.spec.source import Problems

if TYPE_CHECKING:
    from harness.results.records import Record

TRAINED_BITS = 32
"""Width of a stored weight where no hardware entry says another."""


def goals(targets: Sequence[Target], hardware: Sequence[AxisValue], problems: Problems) -> list[AxisValue]:
    """Every target on every hardware entry that it is for; mistakes are noted.

    Args:
        targets: as the file has them.
        hardware: the models, one per engine for an entry that names none.
        problems: where mistakes are noted.
    """
    entries = _entries(hardware)
    found: dict[str, AxisValue] = {}
    for index, target in enumerate(targets):
        path = ("matrix", "target", index)
        if target.on is not None and target.on not in entries:
            tail = suggestion(target.on, entries) or f"; there is {listed(entries) or 'none'}"
            problems.add((*path, "on"), f"expected the label of a hardware entry, got '{target.on}'{tail}")
            continue
        what = next(name for name in GOALS if getattr(target, name) is not None)
        limit = float(getattr(target, what))
        chosen = {label: models for label, models in entries.items() if target.on in (None, label)}
        if what != "storage_kib" and not chosen:
            problems.add(path, f"expected a hardware entry that says what {what} is, got none; add one to `hardware`")
            continue
        for goal in _storages(limit, chosen) if what == "storage_kib" else _timings(what, limit, chosen):
            first = found.setdefault(goal.label(), AxisValue(goal, path))
            if first.path != path:
                problems.add(path, f"expected every target once, got {goal.label()} again")
    return list(found.values())


def _entries(hardware: Iterable[AxisValue]) -> dict[str, tuple[HardwareModel, ...]]:
    """The models of every entry, by the label that they share."""
    found: dict[str, tuple[HardwareModel, ...]] = {}
    for each in hardware:
        model = cast(HardwareModel, each.value)
        try:
            label = group_of(model)
        except PluginContractError:  # which its costs say
            label = model.label()
        found[label] = (*found.get(label, ()), model)
    return found


def _timings(what: str, limit: float, entries: Mapping[str, tuple[HardwareModel, ...]]) -> list[Goal]:
    return [Goal(what, limit, label, models) for label, models in entries.items()]  # type: ignore[arg-type]  # a literal


def _storages(limit: float, entries: Mapping[str, tuple[HardwareModel, ...]]) -> list[Goal]:
    """One for every width of weights: entries of equal widths store the same."""
    widths: dict[int, None] = {}
    for model in (model for models in entries.values() for model in models):
        try:
            form = number_format_of(model)
        except PluginContractError:  # which its costs say
            continue
        widths |= {form.stored_bits: None} if form else {}
    return [Goal("storage_kib", limit, f"{bits}-bit weights", weight_bits=bits) for bits in widths or (TRAINED_BITS,)]


def recalled(experiment: Experiment, records: Iterable["Record"]) -> Experiment:
    """An experiment whose targets have the sparsities that were solved when it ran, as its records tell.

    Args:
        experiment: as its file says.
        records: of a run of it.
    """
    sparsities: dict[tuple[object, ...], float] = {}
    for record in records:
        place = (record.task, record.backend, record.pattern, record.allocation, record.strategy, record.seed)
        for label in solved_for(record.facts):
            sparsities[(*place, label)] = record.target_sparsity
    cells = dict[Cell, None]()
    for cell in experiment.cells:
        labels = cell.labels()
        names = [labels[axis] for axis in ("task", "backend", "pattern", "allocation", "strategy")]
        label = cell.goal.label() if cell.goal else ""
        sparsity = sparsities.get((*names, cell.seed, label))
        cells[cell if sparsity is None else replace(cell, goal=None, sparsity=sparsity)] = None
    return replace(experiment, cells=tuple(cells))


def solved_for(facts: Mapping[str, object]) -> list[str]:
    """Labels of the targets that the sparsity of a record was solved for, and reaches."""
    listed_targets = facts.get("targets")
    every = listed_targets if isinstance(listed_targets, list) else []
    return [str(each["target"]) for each in every if isinstance(each, dict) and not each.get("reason")]
