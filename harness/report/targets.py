"""Patterns at equal targets: what each is pruned to, what it needs then, and how much of the metric that costs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

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
    for name in ("backend", "pattern", "allocation", "strategy"):
        if len({getattr(line.row.setting, name) for line in lines}) > 1 or name == "pattern":
            yield Column(name, partial(_label, name), kind="label", matters="key")
    yield Column("sparsity\n%", _sparsity)
    yield Column("foreseen", _foreseen)
    yield Column("counted", _counted)
    unit = f", {table.unit}" if table.unit else ""
    yield Column(f"{table.metric}{unit}\n(test)", partial(_value, table.digits))
    if any(line.reference for line in lines):
        yield Column(f"to\n{table.reference}", partial(_difference, table.digits))


def _label(name: str, line: _Line) -> str:
    return str(getattr(line.row.setting, name))


def _why(line: _Line) -> Shown:
    return missing(str(line.told.get("reason")))


def _sparsity(line: _Line) -> Shown:
    return _why(line) if line.told.get("reason") else formats.asked(line.row.setting.target_sparsity)


def _foreseen(line: _Line) -> Shown:
    value = line.told.get("value")
    if line.told.get("reason") or not isinstance(value, int | float):
        return _why(line)
    return f"{value:,.4g}"


def _counted(line: _Line) -> Shown:
    """What trained masks need of what the target is in, on the engine that was foreseen."""
    if line.told.get("reason"):
        return _why(line)
    found = mean_of(_need(line.target, record, line.told.get("engine")) for record in line.row.records)
    return missing(line.row.why_no_value or "not costed") if found is None else f"{found:,.4g}"


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
