"""Targets in terms of hardware: what they mean beside the hardware entries of an experiment."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from harness._text import listed
from harness._words import suggestion
from harness.api import HardwareModel, JsonValue, PluginContractError
from harness.discovery.asking import group_of, number_format_of
from harness.spec.document import GOALS, Target
from harness.spec.entries import AxisValue
from harness.spec.experiment import Cell, Experiment
from harness.spec.goal import Goal
from harness.spec.source import Path, Problems, got

if TYPE_CHECKING:
    from harness.results.records import Record

TRAINED_BITS = 32
"""Width of a stored weight where no hardware entry says another."""


def goals(targets: Iterable[tuple[Target, Path]], hardware: Sequence[AxisValue], problems: Problems) -> list[AxisValue]:
    """Every target on every hardware entry that it is for; mistakes are noted.

    Args:
        targets: as the file has them, and where.
        hardware: the models, one per engine for an entry that names none.
        problems: where mistakes are noted.
    """
    entries = _entries(hardware)
    found: dict[str, AxisValue] = {}
    for target, path in targets:
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
    return [Goal(what, limit, label, models) for label, models in entries.items()]


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


def means(item: JsonValue, goal: Goal) -> bool:
    """Whether an entry of `exclude` means this goal: a word of its label, or a whole target."""
    if not isinstance(item, dict):
        return item in goal.words
    given = {name: limit for name, limit in item.items() if name in GOALS and limit is not None}
    # Of a storage `on` names the width of its weights, which no target may choose.
    is_there = item.get("on") is None or (goal.what != "storage_kib" and item["on"] == goal.on)
    return is_there and given == {goal.what: goal.limit}


def refuse_unknown(excluded: Iterable[tuple[JsonValue, Path]], known: Sequence[Goal], problems: Problems) -> None:
    """Note the targets of `exclude` that name none of an experiment's.

    Args:
        excluded: what the file has, and where.
        known: all goals of the matrix.
        problems: where mistakes are noted.
    """
    for item, path in excluded:
        if not any(means(item, goal) for goal in known):
            words = list(dict.fromkeys(word for goal in known for word in goal.words))
            tail = suggestion(item, words) or f"; there is {listed(goal.label() for goal in known) or 'none'}"
            problems.add(path, f"expected a target of the matrix, got {_written(item)}{tail}")


def _written(item: JsonValue) -> str:
    """A target as somebody wrote it."""
    if isinstance(item, dict):
        return "{" + ", ".join(f"{name}: {value}" for name, value in item.items()) + "}"
    return got(item)


def recalled(experiment: Experiment, records: Iterable["Record"]) -> Experiment:
    """An experiment whose targets have the sparsities that were solved when it ran, as its records tell.

    Args:
        experiment: as its file says.
        records: of a run of it.
    """
    sparsities: dict[tuple[object, ...], float] = {}
    missed: dict[tuple[object, ...], str] = {}
    for record in records:
        place = (record.task, record.backend, record.pattern, record.allocation, record.strategy, record.seed)
        for label in solved_for(record.facts):
            sparsities[(*place, label)] = record.target_sparsity
        for label in solved_for(record.facts, reached=False):
            missed[(*place, label)] = record.cell
    cells = dict[Cell, None]()
    for cell in experiment.cells:
        labels = cell.labels()
        names = [labels[axis] for axis in ("task", "backend", "pattern", "allocation", "strategy")]
        label = cell.goal.label() if cell.goal else ""
        sparsity = sparsities.get((*names, cell.seed, label))
        # The targets that a setting cannot reach are one cell, called by the first of them.
        if missed.get((*names, cell.seed, label), cell.id) != cell.id:
            continue
        cells[cell if sparsity is None else replace(cell, goal=None, sparsity=sparsity)] = None
    return replace(experiment, cells=tuple(cells))


def solved_for(facts: Mapping[str, object], *, reached: bool = True) -> list[str]:
    """Labels of the targets that the sparsity of a record was solved for, and reaches; or of those that none does."""
    listed_targets = facts.get("targets")
    every = listed_targets if isinstance(listed_targets, list) else []
    return [str(each["target"]) for each in every if isinstance(each, dict) and bool(each.get("reason")) is not reached]
