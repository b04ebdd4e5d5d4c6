"""From an experiment file to an experiment: the matrix becomes cells, and every mistake is told at once."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from harness._files import at_home, digest
from harness._text import listed
from harness.api import (
    Backend,
    Component,
    HardwareModel,
    JsonValue,
    Pattern,
    PluginUnavailableError,
    SpecError,
    Strategy,
    Task,
    read_plain_text,
)
from harness.discovery.registry import Registry
from harness.spec.codes import refuse_unknown_codes
from harness.spec.document import AXES, Document, Partial, validate
from harness.spec.entries import SPARSE, Axes, AxisValue, Reader, Value
from harness.spec.experiment import Allocation, Cell, Experiment
from harness.spec.goal import Goal
from harness.spec.source import MAX_BYTES, Problems, read
from harness.spec.targets import goals, means, refuse_unknown

UNSOLVED = 0.5
"""The sparsity of a cell whose target is not solved yet."""

MAX_CELLS = 100_000
"""A larger matrix is refused: it is a slip of the pen, or nobody will live to see its end."""


def load(path: Path, registry: Registry, *, plugins: Sequence[Path] | None = None) -> Experiment:
    """Read and check an experiment file.

    Args:
        path: the file; `data_dir` inside is relative to its folder.
        registry: the plugins it may name.
        plugins: files of plugins in place of those it lists, which are seen from its folder: for a copy of it.

    Raises:
        SpecError: the file is missing or wrong; one line per mistake, `file:line:col path: expected, got`.
        PluginUnavailableError: the file is right, but a plugin it names is broken.
    """
    text = read_plain_text(path, "an experiment file", most=MAX_BYTES)
    return loads(text, registry, filename=str(path), path=path, plugins=plugins)


def loads(
    text: str,
    registry: Registry,
    *,
    filename: str = "spec",
    path: Path | None = None,
    plugins: Sequence[Path] | None = None,
) -> Experiment:
    """Check an experiment given as text; errors as for `load`.

    Args:
        text: the YAML document.
        registry: the plugins it may name.
        filename: what messages call it.
        path: where it came from, if from a file.
        plugins: as for `load`.
    """
    value, problems = read(text, filename)
    document = validate(value, problems)
    # The model and the reader both look at the raw value, so that one mistake hides no other.
    if not isinstance(value, dict):
        problems.finish()  # there is nothing else to say of it
    raw = value if isinstance(value, dict) else {}
    # Plugins of the file first: its entries may name them.
    registry = _with_plugins(registry, raw, problems, path) if plugins is None else registry.with_files(plugins)
    refuse_unknown_codes(raw.get("ignore"), registry, problems)
    reader = Reader(registry, problems, path.parent if path else None)
    axes, hardware = reader.axes(raw), reader.hardware(raw)
    found = _goals(document, hardware, problems) if document is not None else {}
    axes["sparsity"] += found.get(None, [])
    problems.finish()
    assert document is not None  # or there would have been a problem
    # After all mistakes of the file: a plugin that is not installed here may be sound on the user's other machine.
    if reader.unusable:
        raise PluginUnavailableError("\n".join(reader.unusable))
    cells = _Grid(document, axes, reader, problems, found).cells()
    problems.finish()
    models = tuple(cast(HardwareModel, found.value) for found in hardware)
    return Experiment(
        name=document.name,
        digest=_digest(document, cells, models),
        path=path,
        document=_written_out(document, axes, hardware, allocation_inside=reader.allocation_inside),
        scope=tuple(document.scope),
        hardware=models,
        cells=cells,
        device=_device(document),
        precision=document.precision,
        threads=document.threads,
        tolerance=document.tolerance,
        margin=document.margin,
        data_dir=_data_dir(document, path),
        keep_dense=document.keep_dense,
        ignore=tuple(document.ignore),
        plugins=registry.files,
        filename=filename,
        places=reader.places,
    )


def _goals(document: Document, hardware: Sequence[AxisValue], problems: Problems) -> dict[int | None, list[AxisValue]]:
    """What the targets of the matrix mean (at None), and those of `include`, by its entries."""
    every = enumerate((document.matrix.target if document.matrix else None) or [])
    found: dict[int | None, list[AxisValue]] = {
        None: goals([(target, ("matrix", "target", index)) for index, target in every], hardware, problems)
    }
    for index, single in enumerate(document.include):
        path = ("include", index, "target")
        if single.target is not None:
            found[index] = goals([(single.target, path)], hardware, problems)
            if single.sparsity is not None:
                problems.add(path, "expected `sparsity` or `target`, got both; remove one", at="key")
    excluded = [
        (item, ("exclude", place, "target", index))
        for place, partial in enumerate(document.exclude)
        for index, item in enumerate(partial.target or [])
    ]
    refuse_unknown(excluded, [each.value for each in found[None] if isinstance(each.value, Goal)], problems)
    return found


def _with_plugins(registry: Registry, raw: Mapping[str, JsonValue], problems: Problems, path: Path | None) -> Registry:
    """The registry with the plugins of the files that a document lists; a file that cannot be used is a mistake."""
    given = raw.get("plugins")
    listed_files = given if isinstance(given, list) else [given]
    for index, name in enumerate(listed_files):
        if not isinstance(name, str):
            continue  # told already, or nothing
        where = ("plugins", index) if isinstance(given, list) else ("plugins",)
        file = (path.parent if path else Path()) / at_home(name)
        try:
            registry = registry.with_files([file])
        except SpecError as error:
            problems.add(where, str(error))
            continue
        for fault in registry.faults(file):
            problems.add(where, fault)
    return registry


def _device(document: Document) -> str:
    return "cuda:0" if document.device == "cuda" else document.device


def _data_dir(document: Document, path: Path | None) -> Path | None:
    if document.data_dir is None:
        return None
    return (path.parent if path else Path()) / at_home(document.data_dir)


@dataclass
class _Grid:
    """The cells of a document whose entries are all right."""

    document: Document
    axes: Axes
    reader: Reader
    problems: Problems
    goals: Mapping[int | None, Sequence[AxisValue]]

    def cells(self) -> tuple[Cell, ...]:
        """Every cell: baselines first, then the matrix without `exclude`, then `include`."""
        if not self._is_small():
            return ()
        # A dictionary as an ordered set: the order of the axes is the order of all tables.
        cells = dict.fromkeys(self._cell({axis: found.value for axis, found in p.items()}) for p in self._points())
        for index, single in enumerate(self.document.include):
            for cell in self._singles(single.model_dump(exclude_none=True), index):
                if cell in cells:
                    self.problems.add(("include", index), "expected a new cell, got one that the grid has already")
                cells[cell] = None
        if not cells:
            self.problems.add(("exclude",), "expected at least one cell to be left, got none; exclude less")
        # One cell of each training stands for all: a baseline has neither pattern, strategy nor sparsity.
        trainings: dict[tuple[int, int, int], Cell] = {}
        for each in cells:
            trainings.setdefault((id(each.task), id(each.backend), each.seed), each)
        dense = dict.fromkeys(each.baseline() for each in trainings.values())
        return (*dense, *(cell for cell in cells if not cell.is_dense))

    def _is_small(self) -> bool:
        """Whether the matrix is none that explodes."""
        size = 1
        for found in self.axes.values():
            size *= max(1, len(found))
        if size > MAX_CELLS:
            self.problems.add(("matrix",), f"expected at most {MAX_CELLS} cells, got {size}")
        return size <= MAX_CELLS

    def _points(self) -> Iterator[Mapping[str, AxisValue]]:
        """The points of the matrix that no `exclude` takes out; each `exclude` has to take some."""
        if self.document.matrix is None:
            return
        filters = [_Filter.of(partial, self.axes, self.reader) for partial in self.document.exclude]
        names = [axis for axis in AXES if self.axes[axis]]
        for values in itertools.product(*(self.axes[axis] for axis in names)):
            point = dict(zip(names, values, strict=True))
            if not any([one.takes(point) for one in filters]):  # a list: every filter has to see every point
                yield point
        for index, one in enumerate(filters):
            if not one.used:
                self.problems.add(("exclude", index), "expected to leave out at least one cell, got none that fits")

    def _singles(self, entry: Mapping[str, JsonValue], index: int) -> Iterator[Cell]:
        """The cell of an entry of `include`, or one for every hardware entry that its target is for.

        An axis that it leaves out is taken from the matrix if there is only one value.
        """
        # An entry that names nothing of a sparse cell, beside a matrix that has none, is a baseline.
        is_dense = not any(axis in entry or self.axes[axis] for axis in SPARSE) and "target" not in entry
        values: dict[str, Value] = {}
        wanted = [axis for axis in AXES if not (is_dense and axis in SPARSE)]
        levels = self.goals.get(index, ())
        for axis in wanted:
            known = self.axes[axis]
            found = known[0] if len(known) == 1 else None
            if axis in entry:
                found = self.reader.single(axis, entry[axis], ("include", index, axis), self.axes)
            elif axis == "sparsity" and levels:
                found = levels[0]  # each of them in turn, below
            if found is None:
                there = f"; the matrix has {listed(one.label for one in known)}" if known else ""
                self.problems.add(("include", index), f"expected `{axis}`, got nothing{there}")
            else:
                values[axis] = found.value
        if len(values) == len(wanted):
            yield from (self._cell({**values, "sparsity": level.value}) for level in levels)
            if not levels:
                yield self._cell(values)

    def _cell(self, values: Mapping[str, Value]) -> Cell:
        is_dense = "pattern" not in values
        sparsity = values.get("sparsity", 0.0)
        goal = sparsity if isinstance(sparsity, Goal) else None
        return Cell(
            task=cast(Task, values["task"]),
            backend=cast(Backend, values["backend"]),
            pattern=cast("Pattern | None", values.get("pattern")),
            allocation="uniform" if is_dense else cast(Allocation, values["allocation"]),
            strategy=cast("Strategy | None", values.get("strategy")),
            # Until it is solved, any sparsity serves to look whether all else fits.
            sparsity=UNSOLVED if goal else float(cast(float, sparsity)),
            goal=goal,
            is_asked=goal is None,
            seed=cast(int, values["seed"]),
            scope=tuple(self.document.scope),
            precision=self.document.precision,
        )


@dataclass
class _Filter:
    """One entry of `exclude`: by axis, the paths of the values it takes."""

    paths: Mapping[str, set[object]]
    used: bool = False

    @classmethod
    def of(cls, partial: Partial, axes: Axes, reader: Reader) -> "_Filter":
        paths: dict[str, set[object]] = {}
        for axis in AXES:
            values: list[JsonValue] | None = getattr(partial, axis)
            if values is not None:
                found = [each for each in axes[axis] if any(reader.matches(each, axis, value) for value in values)]
                paths[axis] = set(map(_place, found))
        if partial.target is not None:
            # Sparsities and targets are one axis: of an entry that names both, either will do.
            known = [each for each in axes["sparsity"] if isinstance(each.value, Goal)]
            taken = [each for each in known if any(means(item, cast(Goal, each.value)) for item in partial.target)]
            paths["sparsity"] = paths.get("sparsity", set()) | set(map(_place, taken))
        return cls(paths)

    def takes(self, point: Mapping[str, AxisValue]) -> bool:
        """Whether a point has one of the values on every axis that is named."""
        taken = bool(self.paths) and all(
            axis in point and _place(point[axis]) in some for axis, some in self.paths.items()
        )
        self.used |= taken
        return taken


def _place(found: AxisValue) -> object:
    """By where a value stands and not by what it is, as equal numbers may be written in several places.

    A target stands in one for all the hardware entries that it is for.
    """
    return (found.path, found.label) if isinstance(found.value, Goal) else found.path


def _digest(document: Document, cells: tuple[Cell, ...], hardware: tuple[HardwareModel, ...]) -> str:
    """A digest of what is meant, not of how it is written; folders and budgets change no result and stay out."""
    return digest(
        {
            # With labels, which cells' ids leave out: a renamed pattern is another table, so another run's folder.
            "cells": [{"cell": cell.id, **cell.labels()} for cell in cells],
            "scope": [*document.scope],
            "hardware": [{**model.identity(), "label": model.label()} for model in hardware],
            "device": _device(document),
            "precision": document.precision,
            "threads": document.threads,
            "tolerance": document.tolerance,
            "margin": document.margin,
        }
    )


def _written_out(
    document: Document, axes: Axes, hardware: list[AxisValue], *, allocation_inside: bool
) -> dict[str, JsonValue]:
    """The document with every default written out and every entry as a mapping: itself a spec that says the same."""
    content: dict[str, JsonValue] = document.model_dump(mode="json", exclude_none=True)
    content["hardware"] = [_entry(found.value) for found in hardware]
    matrix = content.get("matrix")
    inside: dict[str, JsonValue] = matrix if isinstance(matrix, dict) else {}
    for axis in ("task", "backend", "pattern", "allocation", "strategy"):
        written = [_entry(found.value) for found in axes[axis]]
        if axis in inside:
            inside[axis] = written
        elif axis == "task":
            content[axis] = written
    # The model fills in its default at the top, which would contradict the one in the matrix.
    if allocation_inside:
        del content["allocation"]
    elif isinstance(content.get("allocation"), dict) and axes["allocation"]:
        content["allocation"] = _entry(axes["allocation"][0].value)  # numbers, where it was those of another run
    return content


def _entry(value: Value) -> JsonValue:
    assert not isinstance(value, Goal)  # targets stay as they are written
    if not isinstance(value, Component):
        return dict(value) if isinstance(value, dict) else value
    label: dict[str, JsonValue] = {} if value.own_label is None else {"label": value.own_label}
    return {"name": value.name, **value.parameters(), **label}
