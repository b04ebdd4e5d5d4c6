"""Checks of what stands beside the metric: cycles, and the masks they were counted on."""

from collections.abc import Mapping

from harness._text import plural
from harness.report.checks.check import Study, Warned, named, records_of
from harness.results.records import Record

_BITS = {"float32": 32, "bfloat16": 16}

_CONSTANTS = ("launch", "fill_drain", "elementwise")
"""Parts of a cost that no pruning makes smaller."""

_MOSTLY = 0.5

_STRUCTURED = 0.9
"""Part of a tensor's sparsity from which on its empty rows are what the pattern is for, and no accident."""


@named(
    "SPN011",
    "warning",
    "cost modelled at another precision than accuracy",
    remedy="evaluate the model in those numbers too (`evaluated: true`), or read the metric as a bound",
    applies=lambda study: any(isinstance(_detail(cost, "weight_bits"), int) for _, cost in study.costs),
)
def other_precision(study: Study) -> Warned:
    """Metric and cycles are of two different models: the hardware computes in fewer bits."""
    found: dict[tuple[int, str, str], list[Record]] = {}
    for record, cost in study.costs:
        bits = _detail(cost, "weight_bits")
        # float32 costs at 32 bits agree; only a different width is another model.
        if isinstance(bits, int) and bits != _BITS[record.precision] and not _is_scored(record, cost):
            found.setdefault((bits, record.metric, record.precision), []).append(record)
    for (bits, metric, precision), records in found.items():
        yield f"cycles are of a model with {bits}-bit weights, {metric} of {precision}", records


def _is_scored(record: Record, cost: Mapping[str, object]) -> bool:
    """Whether the model was evaluated in the numbers that its cost is of."""
    return record.fixed_point.get(str(cost.get("model")), {}).get("value") is not None


@named(
    "SPN012",
    "warning",
    "hardware time dominated by constants",
    remedy="take a larger model or fewer multipliers; compare cycles of computing, not microseconds",
    applies=lambda study: any(isinstance(_detail(cost, "parts"), dict) for _, cost in study.costs),
)
def mostly_constants(study: Study) -> Warned:
    """Most of the time goes into what no pruning shortens: such a latency cannot tell patterns apart."""
    rows = []
    for table in study.tables:
        model = table.main_model
        for row in table.rows if model else ():
            costed = [record for record in row.records if record.is_done]
            labels = table.models[model or ""]
            # The best engine alone: nobody builds the others, and their constants would hide in a mean.
            best = min(
                (record.hardware[label] for record in costed for label in labels if _is_cost(record, label)),
                key=lambda cost: _number(cost["cycles"]),
                default=None,
            )
            share = _constant_share(dict(best)) if best else 0.0
            if share > _MOSTLY and not row.setting.is_dense:
                rows.append((share, row))
    if rows:
        yield (
            f"up to {100 * max(share for share, _ in rows):.0f} % of the cycles are constants in "
            f"{plural(len(rows), 'setting')}: launch, filling, element-wise work",
            records_of(row for _, row in rows),
        )


@named(
    "SPN013",
    "warning",
    "dead units or empty tensors",
    remedy="lower the sparsity of that tensor, or use `allocation: uniform`",
    applies=lambda study: any(record.tensor_sparsity for record in study.done),
)
def empty_tensors(study: Study) -> Warned:
    """A whole matrix was pruned away, or single units of a pattern that is not made for that."""
    empty: dict[str, list[Record]] = {}
    dead: list[tuple[float, str, Record]] = []
    for record in study.done:
        for name, sparsity in record.tensor_sparsity.items():
            if sparsity >= 1:
                empty.setdefault(name, []).append(record)
        counted = record.facts.get("empty_rows")
        for name, part in (counted if isinstance(counted, dict) else {}).items():
            # Patterns that remove whole rows leave as many rows empty as they remove weights.
            if 0 < _number(part) < _STRUCTURED * record.tensor_sparsity.get(name, 0.0):
                dead.append((_number(part), name, record))
    for name, records in empty.items():
        yield f"{name} has no weight left in {plural(len(records), 'cell')}", records
    if dead:
        part, name, _ = max(dead, key=lambda each: each[0])
        # One record may have several dead tensors and still be one cell.
        cells = list({id(record): record for *_, record in dead}.values())
        yield f"rows without a weight in {plural(len(cells), 'cell')}, up to {100 * part:.1f} % of {name}", cells


@named(
    "SPN014",
    "note",
    "engine without external validation",
    remedy="`harness hardware validate` says what each engine was compared with",
    applies=lambda study: any(isinstance(_detail(cost, "validated_by"), str) for _, cost in study.costs),
)
def not_validated(study: Study) -> Warned:
    """The cycles come from a model that no measured accelerator of anybody else was compared with."""
    found: dict[str, list[Record]] = {}
    for record, cost in study.costs:
        if _detail(cost, "validated_by") == "":
            found.setdefault(str(cost.get("engine")), []).append(record)
    if found:
        cells = {record.cell: record for records in found.values() for record in records}
        yield f"no external figure validates {', '.join(sorted(found))}", cells.values()


@named(
    "SPN020",
    "warning",
    "no engine fits the device",
    remedy="take a larger device, a smaller model or fewer weight bits",
    applies=lambda study: any("fits" in cost for _, cost in study.costs),
)
def no_fit(study: Study) -> Warned:
    """On no engine does the model fit the device: the cycles are of a circuit that cannot be built."""
    rows = [
        row for table in study.tables for row in table.rows
        # `is False`: a model that does not say whether it fits is not accused.
        if (model := table.main_model) and row.fastest(table.models[model]).fits is False
    ]  # fmt: skip
    if rows:
        yield f"{plural(len(rows), 'row')} of hardware: no engine fits the device", records_of(rows)


def _detail(cost: dict[str, object], name: str) -> object:
    details = cost.get("details")
    return details.get(name) if isinstance(details, dict) else None


def _is_cost(record: Record, label: str) -> bool:
    cost = record.hardware.get(label, {})
    return isinstance(cost.get("cycles"), int | float)


def _constant_share(cost: dict[str, object]) -> float:
    parts, cycles = _detail(cost, "parts"), _number(cost.get("cycles"))
    if not isinstance(parts, dict) or cycles <= 0:
        return 0.0
    return sum(_number(parts.get(name)) for name in _CONSTANTS) / cycles


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
