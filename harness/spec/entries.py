"""The entries of an experiment file that name plugins: what they mean, or what is wrong with them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import cast, get_args

from pydantic import BaseModel, ValidationError

from harness._text import listed
from harness._words import suggestion
from harness.api import (
    Component,
    Engine,
    HardwareModel,
    HarnessError,
    JsonValue,
    Kind,
    PluginContractError,
    PluginUnavailableError,
    SpecError,
    UnknownPluginError,
)
from harness.discovery.asking import variants_of
from harness.discovery.registry import KINDS, PLURALS, Registry
from harness.spec.allocations import is_of_a_cell, of_a_cell
from harness.spec.document import AXES, explain
from harness.spec.experiment import DENSE, Allocation, AllocationRule, allocation_label, is_selectable
from harness.spec.goal import Goal
from harness.spec.source import Path, Place, Problems, got, shown

Value = Component | Allocation | float | Goal
"""What one axis may hold."""

NUMBERS = ("sparsity", "seed")
"""The axes that hold numbers."""

SPARSE = ("pattern", "strategy", "sparsity")
"""The axes that a dense baseline has not."""

_KINDS: dict[str, Kind] = {
    "task": "task", "backend": "backend", "pattern": "pattern", "strategy": "strategy", "hardware": "hardware",
}  # fmt: skip
_CALLED: Mapping[Kind, str] = {**{kind: kind for kind in KINDS}, "hardware": "hardware model"}
_MAX_LABEL = 80


@dataclass(frozen=True)
class AxisValue:
    """A value of an axis and where in the file it stands."""

    value: Value
    path: Path

    @property
    def label(self) -> str:
        """What tables call it."""
        if isinstance(self.value, Component | Goal):
            return self.value.label()
        return repr(self.value) if isinstance(self.value, float | int) else allocation_label(self.value)

    @property
    def words(self) -> tuple[str, ...]:
        """What `exclude` may call it: its name or its label."""
        return (self.value.name, self.label) if isinstance(self.value, Component) else (self.label,)

    @property
    def identity(self) -> str:
        """Equal for two entries that mean the same, whatever their labels."""
        if isinstance(self.value, Goal):
            return self.value.label()
        value = self.value.identity() if isinstance(self.value, Component) else self.value
        return json.dumps(value, sort_keys=True)


Axes = dict[str, list[AxisValue]]


class Reader:
    """Reads entries and notes every mistake. Works on raw values, so that one mistake hides no other."""

    def __init__(self, registry: Registry, problems: Problems, folder: FilePath | None = None) -> None:
        self.registry = registry
        self.folder = folder  # of the experiment, where its relative paths start
        self.problems = problems
        self.unusable: list[str] = []  # broken plugins; told only if nothing else is wrong
        # The first place of a label is its place: later ones in filters only refer to it.
        self.places: dict[tuple[str, str], tuple[Place, str]] = {}  # by axis and label
        self.allocation_inside = False  # whether the matrix holds the allocations
        self._broken: set[str] = set()  # axes with an entry that could not be read: nothing more is said of them
        self._extras: Axes = {axis: [] for axis in AXES}  # what `include` names, for clashes of labels

    def axes(self, document: Mapping[str, JsonValue]) -> Axes:
        """The values of every axis, from the matrix and the top of the document; then the names in the filters."""
        matrix = document.get("matrix")
        inside: Mapping[str, JsonValue] = matrix if isinstance(matrix, dict) else {}
        axes = {axis: self._axis(axis, document, inside) for axis in AXES}
        if not axes["allocation"] and "allocation" not in self._broken:
            # What is not written is not remembered as a place, so no message points at a line that is not there.
            axes["allocation"] = [AxisValue("uniform", ("allocation",))]
        for axis, found in axes.items():
            self._refuse_doubles(axis, found)
        self._excluded_names(document, axes)
        self._included_names(document, axes)
        self._refuse_gaps(document, inside)
        for entry, path in items(document.get("scope"), ("scope",)):
            self._remember("scope", str(entry), path)
        return axes

    def hardware(self, document: Mapping[str, JsonValue]) -> list[AxisValue]:
        """The hardware models, one per engine for an entry that names none."""
        entries = self._all("hardware", items(document.get("hardware"), ("hardware",)))
        installed = [cast(type[Engine], self.registry.get("engine", name)) for name in self.registry.names("engine")]
        # No budget holds a circuit of constants: it is no peer of the others, and costed where it is named only.
        engines = [engine for engine in installed if not engine.unrolled]
        found = [AxisValue(variant, entry.path) for entry in entries for variant in self._variants(entry, engines)]
        self._refuse_doubles("hardware", found)
        return found

    def _variants(self, entry: AxisValue, engines: Sequence[type[Engine]]) -> tuple[HardwareModel, ...]:
        try:
            return variants_of(cast(HardwareModel, entry.value), engines)
        except PluginContractError as error:
            self.problems.add(entry.path, str(error))
            return ()

    def entry(self, axis: str, item: JsonValue, path: Path) -> AxisValue | None:
        """What one entry means; None with the mistake noted."""
        made: Value | None
        # A wrong number is noted by the document's model, which sees the same value: here it is only passed over.
        if axis in NUMBERS:  # the document's model tells what is wrong with them
            made = item if isinstance(item, int | float) and not isinstance(item, bool) else None
        else:
            made = self._allocation(item, path) if axis == "allocation" else self._component(axis, item, path)
        if made is None:
            self._broken.add(axis)
            return None
        found = AxisValue(made, path)
        if isinstance(made, Component) and made.own_label is not None:
            self._refuse_ambiguous(axis, made.own_label, path)
        self._remember(axis, found.label, path)
        return found

    def _refuse_ambiguous(self, axis: str, label: str, path: Path) -> None:
        """A label of the author's own that tables or `--only` would take for something else."""
        if axis in ("pattern", "strategy") and label == DENSE:
            self.problems.add(path, f"expected another label, got '{DENSE}', which names the dense baseline; rename it")
        elif axis in AXES and not is_selectable(axis, label):
            message = f"expected a label that --only '{axis}=LABEL' can name, got '{label}'; leave | and = out of it"
            self.problems.add(path, message)

    def single(self, axis: str, item: JsonValue, path: Path, axes: Axes) -> AxisValue | None:
        """What an entry of `include` means: a label that the matrix has, or an entry of its own."""
        # A label first: a bare name in `include` means the entry of that name with the parameters that the matrix gives
        # it.
        namesake = next((found for found in axes[axis] if isinstance(item, str) and found.label == item), None)
        return namesake or self.entry(axis, item, path)

    def matches(self, found: AxisValue, axis: str, item: JsonValue) -> bool:
        """Whether a value of `exclude` - a name, a label or a whole entry - means this one."""
        if isinstance(item, str):
            return item in found.words
        if isinstance(item, dict) and isinstance(found.value, Component):
            try:
                # By identity, so that defaults may be written out or left away.
                return AxisValue(self.registry.create(_KINDS[axis], item, self.folder), ()).identity == found.identity
            except (HarnessError, ValidationError):
                return False
        return found.value == item

    def _remember(self, axis: str, label: str, path: Path) -> None:
        self.places.setdefault((axis, label), (self.problems.values.get(path, Place(1, 1)), shown(path)))

    # --- reading ----------------------------------------------------------------------------------------------------

    def _axis(self, axis: str, document: Mapping[str, JsonValue], inside: Mapping[str, JsonValue]) -> list[AxisValue]:
        above = axis in ("task", "allocation") and document.get(axis) is not None
        if above and inside.get(axis) is not None:
            message = f"expected `{axis}` at the top or in the matrix, got both; remove one"
            self.problems.add(("matrix", axis), message, at="key")
        if above:
            top = document[axis]
            # At the top there is one allocation; several are an axis of the matrix.
            return self._all(axis, [(top, (axis,))] if axis == "allocation" else items(top, (axis,)))
        self.allocation_inside |= axis == "allocation" and inside.get(axis) is not None
        default: JsonValue = 0 if axis == "seed" else None
        return self._all(axis, items(inside.get(axis, default), ("matrix", axis)))

    def _all(self, axis: str, entries: Iterable[tuple[JsonValue, Path]]) -> list[AxisValue]:
        return [found for item, path in entries if (found := self.entry(axis, item, path)) is not None]

    def _component(self, axis: str, item: JsonValue, path: Path) -> Component | None:
        kind = _KINDS[axis]
        given: Mapping[str, JsonValue] = {"name": item} if not isinstance(item, dict) else item
        name = given.get("name")
        if not isinstance(name, str):
            wanted = f"expected the name of a {_CALLED[kind]}, or a mapping with `name` and parameters"
            self.problems.add(path, f"{wanted}, got {got(item)}{self._meant(kind, item)}")
            return None
        where = (*path, "name") if isinstance(item, dict) else path
        try:
            component = self.registry.create(kind, given, self.folder)
        except UnknownPluginError:
            self.problems.add(where, self._unknown(kind, name))
        except PluginUnavailableError as error:
            place = self.problems.values.get(where, Place(1, 1))
            self.unusable.append(f"{self.problems.filename}:{place.line}:{place.column} {error}")
        except ValidationError as error:
            known = _Keys(self.registry.get(kind, name), len(path))
            explain(error, self.problems, path, item, known)
        except HarnessError as error:
            self.problems.add((*path, *_culprit(given, str(error))), str(error))
        else:
            return component if self._label_is_right(component, path) else None
        return None

    def _meant(self, kind: Kind, item: JsonValue) -> str:
        """A clause on how an entry is written that has a name as its key, and the parameters below."""
        if not isinstance(item, dict) or len(item) != 1:
            return ""
        ((name, inside),) = item.items()
        if name not in self.registry.names(kind):
            return ""
        written = {"name": name, **inside} if isinstance(inside, dict) else {"name": name}
        return f"; write {{{', '.join(f'{key}: {got(value)}' for key, value in written.items())}}}".replace("'", "")

    def _unknown(self, kind: Kind, name: str) -> str:
        known = self.registry.names(kind)
        # The likeliest mistake of somebody who wants a baseline in the table.
        if name == DENSE and kind in ("pattern", "strategy"):
            return f"expected the name of a {kind}, got 'dense'; the dense baseline needs no mention, every grid has it"
        bare = name.partition("(")[0].strip()
        if bare in known and bare != name:  # as tables and labels show it
            return (
                f"expected the name of a {_CALLED[kind]}, got '{name}'; write {{name: {bare}, ...}} with its parameters"
            )
        tail = suggestion(name.rpartition("/")[2], known) or f"; there is {listed(known) or 'none installed'};"
        everything = f"`harness plugins list {PLURALS[kind]}` shows all"
        return f"expected the name of a {_CALLED[kind]}, got '{name}'{tail} {everything}"

    def _label_is_right(self, component: Component, path: Path) -> bool:
        label = component.own_label
        # '|' parts the values of `--only`.
        if label is None or (
            label.isprintable() and label.strip() == label and "|" not in label and 0 < len(label) <= _MAX_LABEL
        ):
            return True
        wanted = f"expected a label of 1 to {_MAX_LABEL} printable characters without '|' and outer spaces"
        self.problems.add((*path, "label"), f"{wanted}, got {got(label)}")
        return False

    def _allocation(self, item: JsonValue, path: Path) -> Allocation | None:
        rules = get_args(AllocationRule)
        if item in rules:
            return cast(Allocation, item)
        if not isinstance(item, dict) or not item:
            wanted = "expected 'uniform', 'global', 'erk', 'lamp' or a mapping of tensors to sparsities"
            self.problems.add(path, f"{wanted}, got {got(item)}{suggestion(item, rules)}")
            return None
        if is_of_a_cell(item):
            try:
                return of_a_cell(item, self.folder)
            except SpecError as error:
                self.problems.add(path, str(error))
                return None
        shares: dict[str, float] = {}
        for tensor, part in item.items():
            if isinstance(part, int | float) and not isinstance(part, bool) and 0 <= part < 1:
                shares[tensor] = float(part)
            else:
                wanted = "expected a fraction of zeros in [0, 1), such as 0.9"
                self.problems.add((*path, tensor), f"{wanted}, got {got(part)}")
        # An entry with one wrong share is refused as a whole, but each of them has been told by then.
        return shares if len(shares) == len(item) else None

    def _refuse_gaps(self, document: Mapping[str, JsonValue], inside: Mapping[str, JsonValue]) -> None:
        """Whether there is enough to make cells of; a value that could not be read is there all the same."""
        refused = self.problems.refused
        included = [entry for entry, _ in items(document.get("include"), ()) if isinstance(entry, dict)]
        in_all = bool(included) and all("task" in entry for entry in included)
        if not in_all and document.get("task") is None and inside.get("task") is None and ("task",) not in refused:
            self.problems.add((), "expected `task`, got nothing")
        if document.get("matrix") is None and not included and ("matrix",) not in refused:
            self.problems.add((), "expected `matrix` or `include`, got neither")
        # A target stands for a sparsity.
        given = {**inside, "sparsity": inside.get("target")} if inside.get("sparsity") is None else inside
        missing = [axis for axis in SPARSE if given.get(axis) is None and ("matrix", axis) not in refused]
        if 0 < len(missing) < len(SPARSE):
            message = "expected pattern, strategy and sparsity together, or none of them for the dense baseline alone"
            self.problems.add(("matrix",), f"{message}, got no {listed(missing)}")

    # --- doubles and unknown names ----------------------------------------------------------------------------------

    def _refuse_doubles(self, axis: str, found: list[AxisValue]) -> None:
        """Every value once, and no two values under one label."""
        identities: dict[str, AxisValue] = {}
        labels: dict[str, AxisValue] = {}
        for item in found:
            first = identities.setdefault(item.identity, item)
            # By both: equal meanings under two labels are a double, two meanings under one label a clash.
            namesake = labels.setdefault(item.label, item)
            if first is not item:
                line = self.problems.line(first.path)
                self.problems.add(
                    item.path, f"expected every {axis} once, got {item.label} again (first in line {line})"
                )
            elif namesake is not item:
                self._refuse_label(axis, item, namesake)

    def _refuse_label(self, axis: str, item: AxisValue, first: AxisValue) -> None:
        line = self.problems.line(first.path)
        self.problems.add(
            item.path,
            f"expected a label of its own, got '{item.label}' like the {axis} in line {line}; set another `label`",
        )

    def _excluded_names(self, document: Mapping[str, JsonValue], axes: Axes) -> None:
        for entry, path in items(document.get("exclude"), ("exclude",)):
            for axis in AXES if isinstance(entry, dict) else ():
                if axis not in self._broken and isinstance(entry, dict):
                    for item, inner in items(entry.get(axis), (*path, axis)):
                        self._excluded_name(axis, item, inner, axes)

    def _excluded_name(self, axis: str, item: JsonValue, path: Path, axes: Axes) -> None:
        if axis in NUMBERS and (isinstance(item, bool) or not isinstance(item, int | float)):
            return  # told by the document's model
        if not any(self.matches(found, axis, item) for found in axes[axis]):
            words = list(dict.fromkeys(word for found in axes[axis] for word in found.words))
            tail = suggestion(item, words) or f"; there is {listed(words) or 'none'}"
            self.problems.add(path, f"expected a {axis} of the matrix, got {got(item)}{tail}")

    def _included_names(self, document: Mapping[str, JsonValue], axes: Axes) -> None:
        for entry, path in items(document.get("include"), ("include",)):
            for axis in AXES if isinstance(entry, dict) else ():
                raw = entry.get(axis) if isinstance(entry, dict) else None
                found = None if raw is None or axis in NUMBERS else self.single(axis, raw, (*path, axis), axes)
                if found is not None and found not in axes[axis]:
                    self._included_name(axis, found, axes)

    def _included_name(self, axis: str, item: AxisValue, axes: Axes) -> None:
        """What is in the grid already must be the same under the same label."""
        for other in (*axes[axis], *self._extras[axis]):
            # Different in one and equal in the other: a label for two things, or two labels for one.
            if (other.label == item.label) != (other.identity == item.identity):
                return self._refuse_label(axis, item, other)
        self._extras[axis].append(item)
        return None


def items(raw: JsonValue, path: Path) -> list[tuple[JsonValue, Path]]:
    """The entries of a list with their paths; a single value counts as a list of one, null as none."""
    if raw is None:
        return []
    if isinstance(raw, list):
        return [(item, (*path, index)) for index, item in enumerate(raw)]
    return [(raw, path)]


def _culprit(entry: Mapping[str, JsonValue], message: str) -> Path:
    """The parameter whose value a message quotes: an error of the harness raised while validating has no location."""
    return next(((key,) for key, value in entry.items() if isinstance(value, str) and f"'{value}'" in message), ())


@dataclass(frozen=True)
class _Keys:
    """The keys that a component's entry, or a model inside it, may have.

    Args:
        component: the component; its label comes last.
        depth: length of the entry's own path.
    """

    component: type[Component]
    depth: int

    def __call__(self, path: Path) -> list[str]:
        model: type[BaseModel] | None = self.component
        for part in path[self.depth :]:
            if isinstance(part, str) and model is not None:
                named = {field.alias or name: field for name, field in model.model_fields.items()}
                model = _model_in(named[part].annotation) if part in named else None
        if model is None:
            return []
        keys = [field.alias or name for name, field in model.model_fields.items() if name != "own_label"]
        return [*keys, "label"] if model is self.component else keys


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The only model in an annotation such as `Source | None` or `tuple[Source, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [model for part in get_args(annotation) if (model := _model_in(part)) is not None]
    return inner[0] if len(inner) == 1 else None
