"""Patterns at equal targets: what each is pruned to, what it needs then, and how much of the metric that costs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from harness._text import figure, plural
from harness.api import JsonValue
from harness.report import formats, page
from harness.report.page import Column, Section, Shown, missing
from harness.report.rows import Row, Table, mean_of
from harness.results.records import Record
from harness.results.statistics import compare


@dataclass(frozen=True)
class _Line:
    """One row of results that was solved for a target.

    Args:
        target: its label.
        row: the results; told: what records say of the target; reference: the same under the reference pattern.
    """

    target: str
    row: Row
    told: Mapping[str, JsonValue]
    reference: Row | None = None


def targets(table: Table) -> list[Section]:
    """The section of a table's targets; none where it has none."""
    lines = list(_lines(table))
    if not lines:
        return []
    below = [
        "Sparsities were solved before training, on masks of random weights (foreseen); counted: on the trained masks, "
        "mean over seeds.",
    ]
    if any(line.reference for line in lines):
        below.append(f"To {table.reference}: paired by seed, at the same target.")
    grid = page.table(list(_columns(table, lines)), lines, caption=below)
    return [Section(f"At equal targets: {table.task}", (), grid)]


def is_solved_only(row: Row) -> bool:
    """Whether a row's sparsity was solved for targets, and stands in no experiment by itself."""
    return bool(_told(row.records)) and not any(record.facts.get("asked_sparsity") is True for record in row.records)


def brief(
    table: Table, *, best: bool = False, most: int | None = None, plain: Mapping[str, str] | None = None
) -> list[Section]:
    """What an answer says of a table's targets: the sparsity found, what is needed there, the metric.

    Args:
        table: the rows of a task.
        best: whether only the best pattern that reaches a target is told, under each strategy.
        most: rows at most; None for all.
        plain: shorter names of patterns and strategies, where there are such.
    """
    every = list(_lines(table))
    if not every:
        return []
    # A target that the dense model meets has nothing to say of any pattern.
    lines = [line for line in every if not _is_met_by_dense(line)]
    lines = _best(table, lines) if best else lines
    shown = lines[:most]
    below = [_legend(shown, has_intervals=not best)] if shown else []
    below += _missed(every, best=best)
    if len(shown) < len(lines):
        below.append(f"{plural(len(lines) - len(shown), 'row')} more: harness report --full.")
    # On a screen a target stands over its rows, where it has several; most formats know no such headings.
    groups: dict[int, str] = {}
    for place, line in enumerate(shown):
        if most is not None and not best and (place == 0 or line.target != shown[place - 1].target):
            groups[place] = line.target
    # A screen has no room for the one word that all storages share.
    target = Column[_Line](
        "target",
        lambda line: line.target.removesuffix(" weights") if best else line.target,
        kind="label",
        matters="key",
    )
    columns = [
        *([] if groups else [target]),
        *_names(lines, ("strategy", "pattern", "backend", "allocation"), plain or {}),
        *_figures(table, lines),
    ]
    what = f"{table.metric}{f' in {table.unit}' if table.unit else ''}, {table.better} is better"
    heading = f"{table.task} at equal targets{', the best pattern at each' if best else ''}: {what}"
    if not shown:
        return [Section(heading, tuple(below))]
    return [Section(heading, (), page.table(columns, shown, groups=groups, caption=below))]


def _is_met_by_dense(line: _Line) -> bool:
    """Whether the dense model needs no more: nothing was looked for."""
    return bool(line.told.get("reason")) and line.told.get("value") is None


def _missed(lines: Sequence[_Line], *, best: bool) -> list[str]:
    """The targets of which no line is shown, in a sentence: what no pattern reaches, and what the dense model meets."""
    by_target: dict[str, list[_Line]] = {}
    for line in lines:
        by_target.setdefault(line.target, []).append(line)
    dense = [target for target, found in by_target.items() if all(map(_is_met_by_dense, found))]
    told = [f"nothing to solve at {', '.join(dense)}"] if dense else []
    nearest = {}
    for target, found in by_target.items():
        values = [value for line in found if isinstance(value := line.told.get("value"), int | float)]
        if best and values and all(line.told.get("reason") for line in found):
            pick = max if target.startswith(_AT_LEAST) else min
            nearest[target] = _quantity(target, float(pick(values)))
    if nearest:
        every = ", ".join(f"{target} (nearest {value})" for target, value in nearest.items())
        told.insert(0, f"no pattern reaches {every}")
    text = "; ".join(told)
    return [f"{text[0].upper()}{text[1:]}."] if text else []


def _best(table: Table, lines: Sequence[_Line]) -> list[_Line]:
    """Of every target and strategy the line with the best metric among those that reach it, where one does."""
    sign = -1.0 if table.better == "lower" else 1.0
    groups: dict[tuple[str, ...], list[_Line]] = {}
    for line in lines:
        groups.setdefault(_place(line), []).append(line)
    found = []
    for group in groups.values():
        reached = [(sign * line.row.value.mean, -place) for place, line in enumerate(group)
                   if line.row.value is not None and not line.told.get("reason")]  # fmt: skip
        there = [line for line in group if not line.told.get("reason")]
        found += [group[-max(reached)[1]]] if reached else there[:1]
    return found


def _figures(table: Table, lines: Sequence[_Line]) -> Iterator[Column[_Line]]:
    """Short columns, whose missing values need no footnotes: the legend says what a dash and brackets are."""
    yield Column("at %", lambda line: "–" if line.told.get("reason") else _text(_sparsity(line)))
    yield Column("needs", _needs)
    yield Column(table.metric, lambda line: _text(_value(table.digits, line)))
    if any(line.reference for line in lines):
        short = f"to {table.reference[:5]}." if len(table.reference) > 7 else ""
        yield Column(f"to {table.reference}", short=short, shown=lambda line: _text(_difference(table.digits, line)))


def _text(shown: Shown) -> str:
    return shown if isinstance(shown, str) else shown.text


def _needs(line: _Line) -> str:
    """What is needed, as counted; in brackets what comes nearest to a target that is missed."""
    if line.told.get("reason"):
        value = line.told.get("value")
        return f"({_quantity(line.target, float(value))})" if isinstance(value, int | float) else formats.DASH
    found = _counted_value(line)
    if found is None:
        return formats.DASH
    misfit = "" if line.told.get("fits", True) else f" {formats.MISFIT}"
    return _quantity(line.target, found) + misfit + ("" if _is_met(line.target, found) else _MISSED)


_MISSED = " !"
_AT_LEAST = ("steps_per_s", "fits")


def _is_met(target: str, value: float) -> bool:
    what, _, limit = target.partition(" on ")[0].partition(" ")
    asked = float(limit or 1)
    # A part in 10^9: sums of means are rounded.
    return value >= asked * (1 - 1e-9) if what in _AT_LEAST else value <= asked * (1 + 1e-9)


def _legend(lines: Sequence[_Line], *, has_intervals: bool) -> str:
    """What the signs mean; intervals are told where there is room: the answer above has them, too."""
    needs = [_needs(line) for line in lines]
    parts = ["at %: the sparsity found before training", "needs: counted on trained masks"]
    if any(each.endswith(_MISSED) for each in needs):
        parts.append("!: the target is missed")
    if any(formats.MISFIT in each for each in needs):
        parts.append(f"{formats.MISFIT}: does not fit its device")
    if any(each.startswith("(") for each in needs):
        parts.append("(...): the nearest, the target is not reached")
    if has_intervals and any(line.reference for line in lines):
        parts.append("±: 95 % interval, paired by seed")
    return "; ".join(parts) + "."


def _lines(table: Table) -> Iterator[_Line]:
    found = [
        _Line(str(told["target"]), row, told)
        for row in table.rows
        for told in _told(row.records)
    ]  # fmt: skip
    # In the order of the experiment, as the rows have them.
    order = list(dict.fromkeys(line.target for line in found))
    references = {_place(line): line.row for line in found if line.row.setting.pattern == table.reference}
    for line in sorted(found, key=lambda each: order.index(each.target)):
        reference = references.get(_place(line))
        # A row is not compared with itself, nor one whose target could not be reached.
        is_other = reference is not None and reference is not line.row and not line.told.get("reason")
        yield _Line(line.target, line.row, line.told, reference if is_other else None)


def _place(line: _Line) -> tuple[str, ...]:
    setting = line.row.setting
    return (line.target, setting.backend, setting.allocation, setting.strategy)


def _told(records: Sequence[Record]) -> list[dict[str, JsonValue]]:
    """What the first of a row's records says of its targets: all of them say the same."""
    # Solved once for a setting, whatever its seed.
    listed = next((record.facts["targets"] for record in records if "targets" in record.facts), [])
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _columns(table: Table, lines: Sequence[_Line]) -> Iterator[Column[_Line]]:
    yield Column("target", lambda line: line.target, kind="label", matters="key")
    yield from _names(lines, ("backend", "pattern", "allocation", "strategy"))
    yield Column("sparsity\n%", _sparsity)
    yield Column("foreseen", _foreseen)
    yield Column("counted", _counted)
    unit = f", {table.unit}" if table.unit else ""
    yield Column(f"{table.metric}{unit}\n(test)", partial(_value, table.digits))
    if any(line.reference for line in lines):
        yield Column(f"to\n{table.reference}", partial(_difference, table.digits))


def _names(
    lines: Sequence[_Line], names: Sequence[str], plain: Mapping[str, str] | None = None
) -> Iterator[Column[_Line]]:
    """The pattern, and of the other axes those on which lines differ."""
    for name in names:
        if len({getattr(line.row.setting, name) for line in lines}) > 1 or name == "pattern":
            yield Column(name, partial(_label, name, plain or {}), kind="label", matters="key")


def _label(name: str, plain: Mapping[str, str], line: _Line) -> str:
    label = str(getattr(line.row.setting, name))
    return plain.get(label, label)


def _why(line: _Line) -> Shown:
    return missing(str(line.told.get("reason")))


def _sparsity(line: _Line) -> Shown:
    return _why(line) if line.told.get("reason") else formats.asked(line.row.setting.target_sparsity)


def _foreseen(line: _Line) -> Shown:
    value = line.told.get("value")
    if line.told.get("reason") or not isinstance(value, int | float):
        return _why(line)
    return _quantity(line.target, value)


def _quantity(target: str, value: float) -> str:
    """A value of what the target is in."""
    if target.startswith("fits "):
        return "fits" if value == 1 else "does not fit"
    return figure(value)


def _counted(line: _Line) -> Shown:
    """What trained masks need of what the target is in, on the engine that was foreseen."""
    if line.told.get("reason"):
        return _why(line)
    found = _counted_value(line)
    return missing(line.row.why_no_value or "not costed") if found is None else _quantity(line.target, found)


def _counted_value(line: _Line) -> float | None:
    return mean_of(_need(line.target, record, line.told.get("engine")) for record in line.row.records)


def _need(target: str, record: Record, engine: JsonValue) -> float | None:
    what, _, place = target.partition(" on ")
    what = what.partition(" ")[0]
    if what == "storage_kib":
        stored = record.storage.get(place.partition("-")[0])
        return None if stored is None else stored.bits / 8192
    for cost in record.hardware.values():
        # On the engine that the target was solved for: another might need less, and answer another question.
        if cost.get("model") == place and cost.get("engine", "") == (engine or ""):
            value = cost.get(what)
            return float(value) if isinstance(value, int | float) else None
    return None


def _value(digits: int, line: _Line) -> Shown:
    if line.row.value is None:
        return _why(line) if line.told.get("reason") else missing(line.row.why_no_value or "no result")
    return formats.value(line.row.value, digits)


def _difference(digits: int, line: _Line) -> Shown:
    if line.reference is None:
        return "" if not line.told.get("reason") else _why(line)
    found = compare(line.row.values, line.reference.values)
    return missing("no seed has both") if found is None else formats.difference(found, digits, None)
