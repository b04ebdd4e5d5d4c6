"""A file of validation targets: figures of published accelerators with their origins, and the rules that use them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from harness.api import SpecError, load_yaml, read_plain_text
from harness.api.validation import Check, CheckKind, FigureOrigin

_MOST_BYTES = 1_000_000
"""A larger file holds no targets."""


@dataclass(frozen=True)
class Target:
    """One figure of the file: its value, where it comes from, and where it stands."""

    value: float
    origin: FigureOrigin
    source: str
    place: str

    def share(self) -> float:
        """The value of a figure that must be a fraction.

        Raises:
            ValueError: it is 1 or more.
        """
        if self.value >= 1:
            raise ValueError(f"{self.place} must be a fraction below 1, got {self.value:g}")
        return self.value


@dataclass(frozen=True)
class Rule:
    """One rule of the file; `tolerance` is a fraction, several by name, or words."""

    id: str
    kind: CheckKind
    target: str
    tolerance: object
    place: str

    @property
    def is_gate(self) -> bool:
        """Whether it can fail."""
        return self.kind != "report"


class Targets:
    """A file of targets; every question that it cannot answer is a sentence with the file and the place."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            SpecError: it cannot be read, is not YAML, or has another form.
        """
        self.path = path
        content = _load(path)
        # Versions are told apart before anything is read: another one may mean another thing by the same name.
        if content.get("version") != 1:
            raise self._wrong("version", "1", content.get("version"), "write `version: 1`")
        sources = content.get("sources", {})
        if not isinstance(sources, dict):
            raise self._wrong("sources", "a mapping of names to texts", sources, "list the sources by name")
        self._sources: dict[str, object] = sources
        self._accelerators = self._by_id(content.get("accelerators"), "accelerators")
        gates = content.get("gates")
        rules = gates.get("rules") if isinstance(gates, dict) else None
        self.rules = tuple(self._rule(entry, name) for name, entry in self._by_id(rules, "gates.rules").items())

    def figure(self, accelerator: str, name: str, part: str | None = None) -> Target:
        """A figure, or one part of a group of figures that share an origin.

        Raises:
            SpecError: it is missing or is no positive number.
        """
        group = self._group(accelerator, name)
        key = "value" if part is None else part
        return self._target(group.get(key), group, f"{accelerator}.{name}.{key}")

    def table(self, accelerator: str, name: str) -> list[dict[str, object]]:
        """The rows of a table of figures, by column.

        Raises:
            SpecError: it is missing, or a row has another length than the columns.
        """
        group, place = self._group(accelerator, name), f"{accelerator}.{name}"
        columns, rows = group.get("columns"), group.get("rows")
        if not isinstance(columns, list) or not isinstance(rows, list) or not rows:
            raise self._wrong(place, "`columns` and at least one of `rows`", group, "list both")
        for index, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != len(columns):
                wanted = f"{len(columns)} values, {', '.join(map(str, columns))},"
                raise self._wrong(f"{place}.rows[{index}]", wanted, row, "give one value per column")
        # By name, since columns of another table stand in another order.
        return [dict(zip(map(str, columns), row, strict=True)) for row in rows]

    def cell(self, accelerator: str, name: str, row: int, column: str) -> Target:
        """One figure of a table."""
        group, place = self._group(accelerator, name), f"{accelerator}.{name}.rows[{row}].{column}"
        rows = self.table(accelerator, name)
        return self._target(rows[row].get(column) if row < len(rows) else None, group, place)

    def tolerance(self, rule: Rule, name: str | None = None) -> float:
        """The tolerance of a gate, or one of several, as a fraction.

        Raises:
            SpecError: it is no positive number.
        """
        found = rule.tolerance
        if name is not None:
            found = found.get(name) if isinstance(found, dict) else None
        place = f"{rule.place}.tolerance" + (f".{name}" if name else "")
        return self._positive(found, place, "give the largest relative error allowed, e.g. 0.10")

    def _group(self, accelerator: str, name: str) -> Mapping[str, object]:
        entry = self._accelerators.get(accelerator)
        if entry is None:
            known = ", ".join(self._accelerators)
            raise self._wrong("accelerators", f"an entry {accelerator!r}", known, "add it or drop its rules")
        group = entry.get(name)
        if not isinstance(group, dict):
            way_out = "give it as {value, origin, source}"
            raise self._wrong(f"accelerators.{accelerator}.{name}", "a figure", group, way_out)
        return group

    def _target(self, found: object, group: Mapping[str, object], place: str) -> Target:
        value = self._positive(found, f"accelerators.{place}", "give the figure in the unit that its name ends with")
        origin = group.get("origin")
        if origin not in get_args(FigureOrigin):
            wanted = f"one of {', '.join(get_args(FigureOrigin))}"
            raise self._wrong(f"accelerators.{place.rsplit('.', 1)[0]}.origin", wanted, origin, "name the origin")
        source = str(group.get("source", ""))
        quoted = " (as quoted by somebody else)" if group.get("via") == "secondary" else ""
        return Target(value, _origin(origin), str(self._sources.get(source, source)) + quoted, place)

    def _positive(self, found: object, place: str, way_out: str) -> float:
        # A bool is an int to Python, and `true` is no figure.
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found) or found <= 0:
            raise self._wrong(place, "a number above 0", found, way_out)
        return float(found)

    def _rule(self, entry: Mapping[str, object], name: str) -> Rule:
        place, kind = f"gates.rules.{name}", entry.get("kind")
        if kind not in get_args(CheckKind):
            raise self._wrong(f"{place}.kind", f"one of {', '.join(get_args(CheckKind))}", kind, "name the kind")
        return Rule(name, _kind(kind), str(entry.get("target", "")), entry.get("tolerance"), place)

    def _by_id(self, entries: object, place: str) -> dict[str, Mapping[str, object]]:
        if not isinstance(entries, list) or not entries:
            raise self._wrong(place, "a list with at least one entry", entries, "see the file that the package brings")
        found: dict[str, Mapping[str, object]] = {}
        for index, entry in enumerate(entries):
            name = entry.get("id") if isinstance(entry, dict) else None
            if not isinstance(name, str):
                raise self._wrong(f"{place}[{index}]", "a mapping with an `id`", entry, "give it a name")
            if name in found:
                raise self._wrong(f"{place}[{index}].id", "a name of its own", name, "rename one of the two")
            found[name] = entry
        return found

    def _wrong(self, place: str, expected: str, found: object, way_out: str) -> SpecError:
        shown = "nothing" if found is None else repr(found)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        return SpecError(f"{self.path}: expected {expected} at {place}, got {shown}; {way_out}")


Evaluation = Callable[[Rule, Targets], list[Check]]
"""What evaluates one rule."""


def compared(
    rule: Rule,
    what: str,
    model: str,
    modelled: float | None,
    target: Target,
    unit: str,
    *,
    within: float | None = None,
    parameters: Mapping[str, float] | None = None,
    note: str = "",
) -> Check:
    """A figure beside its target; `within` is the largest relative error of a gate, None for a report."""
    error = None if modelled is None else modelled / target.value - 1
    return Check(
        id=rule.id,
        kind=rule.kind,
        what=what,
        model=model,
        modelled=modelled,
        published=target.value,
        unit=unit,
        error=error,
        gate="" if within is None else f"within {100 * within:g} %",
        # A figure that could not be modelled fails its gate: it was asked for.
        passed=None if within is None else error is not None and abs(error) <= within,
        parameters=dict(parameters or {}),
        origin=target.origin,
        source=target.source,
        place=target.place,
        note=note,
    )


def allowed(rule: Rule, targets: Targets) -> float | None:
    """The largest relative error of a gate; None for a report."""
    return targets.tolerance(rule) if rule.is_gate else None


def _load(path: Path) -> Mapping[str, object]:
    from ruamel.yaml.error import YAMLError

    text = read_plain_text(path, "a file of targets", most=_MOST_BYTES)
    try:
        content = load_yaml(text)
    except ValueError as error:
        raise SpecError(f"{path}: expected plain YAML, got {error}; mend it") from None
    except YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = "an unknown line" if where is None else f"line {where.line + 1}"
        problem = getattr(error, "problem", None) or "something else"
        raise SpecError(f"{path}: expected YAML, got {problem} at {line}; mend it there") from error
    if not isinstance(content, dict):
        raise SpecError(
            f"{path}: expected a mapping with `version`, `sources`, `accelerators` and `gates`, got "
            f"{type(content).__name__}; see the file that the package brings"
        )
    return content


def _origin(text: object) -> FigureOrigin:
    return next(origin for origin in get_args(FigureOrigin) if origin == text)


def _kind(text: object) -> CheckKind:
    return next(kind for kind in get_args(CheckKind) if kind == text)
