"""Rows of results built from records, once: means over seeds, differences, verdicts, and why a number is missing."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from harness.api import EmptySelectionError, JsonValue, SpecError, StoreError
from harness.report.rows import (
    REFERENCE,
    UNEVEN,
    FixedPoint,
    HardwareCell,
    Row,
    Setting,
    Storage,
    Table,
    mean_of,
    number_formats,
    values_by_seed,
    weight_widths,
)
from harness.results.records import DENSE, Record, comparable
from harness.results.statistics import Comparison, compare, interval, verdicts


def tables(records: Sequence[Record], margin: float | None = None) -> tuple[Table, ...]:
    """The rows of these records, one table per task and scope.

    Args:
        records: one per planned cell, in the order of the plan.
        margin: largest difference, in the unit of the metric, that counts as equivalent; None for no verdicts.

    Raises:
        SpecError: the margin is not a positive number.
        EmptySelectionError: there are no records.
        StoreError: two records are of the same cell, as when two runs are mixed.
    """
    if margin is not None and not 0 < margin < math.inf:
        raise SpecError(f"report: expected an equivalence margin above 0, got {margin}; leave it out for no verdicts")
    if not records:
        raise EmptySelectionError(
            "report: expected the records of at least one planned cell, got none; run a spec first"
        )
    groups = _grouped([comparable(record) for record in records])
    subjects = dict.fromkeys((s.task, s.scope) for s in groups if not s.is_dense)
    # A dense baseline is pruned nowhere, so it opens the table of every scope of its task.
    tasks_with_pruning = {task for task, _ in subjects}
    subjects |= dict.fromkeys((s.task, s.scope) for s in groups if s.task not in tasks_with_pruning)
    return tuple(_table(task, scope, _of(groups, task, scope), margin) for task, scope in subjects)


def _grouped(records: Sequence[Record]) -> dict[Setting, tuple[Record, ...]]:
    groups: dict[Setting, dict[int, Record]] = {}
    for record in records:
        group = groups.setdefault(_setting(record), {})
        # Two records of one seed in a row would count it twice, and the pair could not be told.
        if record.seed in group:
            raise StoreError(
                f"report: expected one record per cell, got {group[record.seed].cell!r} and {record.cell!r} with equal "
                "labels and seed; report one run at a time, or give one of them a `label`"
            )
        group[record.seed] = record
    return {setting: tuple(group.values()) for setting, group in groups.items()}


def _of(
    groups: Mapping[Setting, tuple[Record, ...]], task: str, scope: tuple[str, ...]
) -> dict[Setting, tuple[Record, ...]]:
    return {s: group for s, group in groups.items() if s.task == task and (s.is_dense or s.scope == scope)}


def _setting(record: Record) -> Setting:
    if record.is_dense:
        return Setting(record.task, (), record.backend, DENSE, "", DENSE, 0.0)
    return Setting(
        record.task, record.scope, record.backend, record.pattern, record.allocation, record.strategy,
        record.target_sparsity,
    )  # fmt: skip


def _table(
    task: str, scope: tuple[str, ...], groups: Mapping[Setting, tuple[Record, ...]], margin: float | None
) -> Table:
    rows = {setting: _row(setting, group) for setting, group in groups.items()}
    records = [record for group in groups.values() for record in group]
    # The label of the reference pattern; its name where no record has it.
    reference = next((record.pattern for record in records if record.pattern_name == REFERENCE), REFERENCE)
    # Weighed before compared: the mark belongs to the row, whatever it is compared with.
    rows = {setting: _compared(row, rows, reference, margin) for setting, row in _weighed(rows).items()}
    described = next((record for record in records if record.metric), records[0])
    comparisons = 0
    if margin is not None:
        rows, comparisons = _judged(rows, described.better)
    return Table(
        task=task,
        scope=scope or next((record.scope for record in records if record.scope), ()),
        metric=described.metric or "value",
        unit=described.unit,
        better=described.better,
        digits=described.digits,
        best_possible=next((r.best_possible for r in records if r.best_possible is not None), None),
        hardware=tuple(dict.fromkeys(label for record in records for label in record.hardware)),
        models=_models(records),
        rows=_ordered(rows),
        comparisons=comparisons,
        reference=reference,
    )


def _models(records: Iterable[Record]) -> dict[str, tuple[str, ...]]:
    """Labels of the hardware models by what their engines share."""
    models: dict[str, dict[str, None]] = {}
    for record in records:
        for label, cost in record.hardware.items():
            models.setdefault(str(cost.get("model", label)), {})[label] = None
    return {model: tuple(labels) for model, labels in models.items()}


def _ordered(rows: Mapping[Setting, Row]) -> tuple[Row, ...]:
    """Dense first within each backend; labels in the order of the plan, sparsities ascending."""
    # By first appearance: a plan's own order, which no sorting of names would give.
    columns = zip(*(_labels(setting) for setting in rows), strict=True)
    firsts = [{label: index for index, label in enumerate(dict.fromkeys(labels))} for labels in columns]

    def place(row: Row) -> tuple[object, ...]:
        backend, *others = [places[label] for places, label in zip(firsts, _labels(row.setting), strict=True)]
        return (backend, not row.setting.is_dense, *others, row.setting.target_sparsity)

    return tuple(sorted(rows.values(), key=place))


def _labels(setting: Setting) -> tuple[str, str, str, str]:
    return setting.backend, setting.pattern, setting.allocation, setting.strategy


def _row(setting: Setting, records: tuple[Record, ...]) -> Row:
    done = [record for record in records if record.is_done]
    values = list(values_by_seed(records).values())
    return Row(
        setting=setting,
        planned=len(records),
        done=len(values),
        sparsity=mean_of(record.sparsity for record in done),
        model_sparsity=mean_of(record.model_sparsity for record in done),
        total_epochs=max(record.total_epochs for record in records),
        retrain_epochs=max(record.retrain_epochs for record in records),
        value=interval(values) if values else None,
        before_retraining=mean_of(record.value_before_retraining for record in done),
        hardware={label: _cost(done, label) for label in dict.fromkeys(k for r in records for k in r.hardware)},
        records=records,
        fixed_point={label: _fixed_point(done, label) for label in number_formats(records)},
        storage={width: _storage(done, width) for width in weight_widths(done)},
        why_no_value=_why_incomplete(records),
    )


def _fixed_point(done: Sequence[Record], label: str) -> FixedPoint:
    found = [(r, each) for r in done for each in r.fixed_point.values() if each.get("format") == label]
    pairs = [(_number(each.get("value")), r.value, each) for r, each in found]
    scored = [(value, trained, each) for value, trained, each in pairs if value is not None]
    if not scored:
        return FixedPoint(reason=next((str(each["reason"]) for _, each in found if "reason" in each), ""))
    return FixedPoint(
        value=mean_of(value for value, _, _ in scored),
        difference=mean_of(None if trained is None else value - trained for value, trained, _ in scored),
        wrapped=sum(int(_number(each.get("wrapped")) or 0) for _, _, each in scored),
        in_float=tuple(dict.fromkeys(str(name) for _, _, each in scored for name in _names(each.get("in_float")))),
        folded=tuple(dict.fromkeys(str(name) for _, _, each in scored for name in _names(each.get("folded")))),
    )


def _names(found: JsonValue) -> list[JsonValue]:
    """What a list holds, or a mapping."""
    if isinstance(found, dict):
        return list(found.values())
    return found if isinstance(found, list) else []


def _storage(done: Sequence[Record], width: str) -> Storage:
    found = [record.storage[width] for record in done if width in record.storage]
    return Storage(
        bits=math.fsum(each.bits for each in found) / len(found),
        dense_bits=math.fsum(each.dense_bits for each in found) / len(found),
        formats=tuple(dict.fromkeys(name for each in found for name in each.formats)),
    )


def _why_incomplete(records: Sequence[Record]) -> str:
    """Every reason for which a seed of the row has no value, with its number of seeds."""
    reasons: dict[str, list[int]] = {}
    for record in records:
        if record.is_done and not values_by_seed([record]):
            reasons.setdefault("the test value is not finite", []).append(record.seed)
        elif not record.is_done:
            because = f"{record.status}: {record.reason}" if record.reason else record.status
            reasons.setdefault(because, []).append(record.seed)
    # One reason for all seeds needs no list of them.
    if len(reasons) == 1 and len(next(iter(reasons.values()))) == len(records):
        return next(iter(reasons))
    return "; ".join(f"{_seeds(seeds)} {reason}" for reason, seeds in reasons.items())


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _cost(done: Sequence[Record], label: str) -> HardwareCell:
    found = [(record.seed, record.hardware[label]) for record in done if label in record.hardware]
    costs = [cost for _, cost in found]
    costed = [cost for cost in costs if "reason" not in cost]
    if not costed:
        return HardwareCell(reason=next((str(cost["reason"]) for cost in costs), ""))
    return HardwareCell(
        latency_us=mean_of(_number(cost.get("latency_us")) for cost in costed),
        cycles=mean_of(_number(cost.get("cycles")) for cost in costed),
        speedup=mean_of(_number(cost.get("speedup")) for cost in costed),
        fits=all(cost["fits"] is True for cost in costed) if all("fits" in cost for cost in costed) else None,
        engine=str(costed[0].get("engine", "")),
        # An engine may be its own baseline: then its dense row is what speed-ups count from.
        is_baseline=bool(costed[0].get("baseline")) and costed[0].get("engine") == costed[0].get("baseline"),
        partly=_why_partly([(seed, str(cost["reason"])) for seed, cost in found if "reason" in cost]),
    )


def _why_partly(missing: Sequence[tuple[int, str]]) -> str:
    """Which seeds have no cost beside others that have one."""
    reasons: dict[str, list[int]] = {}
    for seed, reason in missing:
        reasons.setdefault(reason, []).append(seed)
    told = "; ".join(f"{_seeds(seeds)} {reason}" for reason, seeds in reasons.items())
    return f"a mean without seeds that have no cost: {told}" if told else ""


def _number(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _compared(row: Row, rows: Mapping[Setting, Row], reference: str, margin: float | None) -> Row:
    """The row with its differences; a baseline is not compared with itself."""
    setting = row.setting
    if setting.is_dense:
        return row
    dense = Setting(setting.task, (), setting.backend, DENSE, "", DENSE, 0.0)
    to_dense, why_no_dense = _difference(row, rows.get(dense), margin)
    row = replace(row, to_dense=to_dense, why_no_dense=why_no_dense)
    if setting.pattern == reference:
        return row
    other = rows.get(setting._replace(pattern=reference))
    to_reference, why_no_reference = _difference(row, other, margin)
    uneven = to_reference is not None and other is not None and _apart(_kept(row), _kept(other)) > UNEVEN
    return replace(row, to_reference=to_reference, why_no_reference=why_no_reference, uneven_reference=uneven)


def _weighed(rows: Mapping[Setting, Row]) -> dict[Setting, Row]:
    """The rows, those marked that kept clearly more or fewer weights than others that were asked for the same.

    At a sparsity of 90 % a distance of two points is a fifth of the weights: what was pruned looks equal, what is left
    is not. Of two rows that differ the one further from what was asked for is marked, both where neither is near.
    """
    groups: dict[tuple[str, float], list[Row]] = {}
    for setting, row in rows.items():
        if not setting.is_dense and _kept(row) > 0:
            groups.setdefault((setting.backend, setting.target_sparsity), []).append(row)
    marked = dict(rows)
    for (_, target), group in groups.items():
        # Nearest to the target, not most common: it is the one that kept what was asked for.
        nearest = min(group, key=lambda row: abs(_kept(row) - (1 - target)))
        kept = _kept(nearest)
        for row in group:
            differs = any(_apart(_kept(row), _kept(other)) > UNEVEN for other in group)
            # Half the tolerance: of two that differ, at least one is that far from the nearest.
            if differs and _apart(_kept(row), kept) > UNEVEN / 2:
                marked[row.setting] = replace(row, uneven=_unlike(row, nearest))
    return marked


def _kept(row: Row) -> float:
    """The part of the weights in the scope that is left; 0 where it is not known."""
    return 0.0 if row.sparsity is None else 1 - row.sparsity


def _apart(one: float, other: float) -> float:
    """How far two parts of the weights differ, as a part of the smaller."""
    return max(one, other) / min(one, other) - 1 if min(one, other) > 0 else 0.0


def _unlike(row: Row, other: Row) -> str:
    factor = _kept(row) / _kept(other) - 1
    return (
        f"not at equal sparsity: {100 * _kept(row):.3g} % of the weights are kept, {abs(100 * factor):.0f} % "
        f"{'more' if factor > 0 else 'fewer'} than {other.setting.pattern} ({other.setting.strategy}) keeps"
    )


def _difference(row: Row, other: Row | None, margin: float | None) -> tuple[Comparison | None, str]:
    if not row.values:
        return None, row.why_no_value
    if other is None:
        return None, "the row to compare with is not part of this run"
    if not other.values:
        return None, f"the row to compare with has no value ({other.why_no_value})"
    comparison = compare(row.values, other.values, margin)
    return comparison, "" if comparison else "no seed is common with the row to compare with"


def _judged(rows: Mapping[Setting, Row], better: Literal["lower", "higher"]) -> tuple[dict[Setting, Row], int]:
    """The rows with verdicts, corrected for all comparisons of the table together."""
    comparisons = {(s, "dense"): row.to_dense for s, row in rows.items() if row.to_dense is not None}
    comparisons |= {(s, "reference"): row.to_reference for s, row in rows.items() if row.to_reference is not None}
    found = verdicts(comparisons, better)
    judged = {
        s: replace(row, dense_verdict=found.get((s, "dense")), reference_verdict=found.get((s, "reference")))
        for s, row in rows.items()
    }
    # What has no p, for want of a second pair, is not among those that Holm's correction counts.
    return judged, sum(comparison.p_difference is not None for comparison in comparisons.values())
