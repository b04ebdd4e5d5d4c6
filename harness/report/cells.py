"""Every planned cell as a row: what a page lists below its tables, and what data frames are made of."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from harness.report import formats, page
from harness.report.page import Column, Section, Shown, missing
from harness.report.rows import weight_widths
from harness.results.records import Record


def section(records: Sequence[Record]) -> Section:
    """All planned cells, one row each, those without a result with their reason."""
    told = (
        "One row per planned cell and seed, in the order of the plan. `harness show CELL` tells all of one.",
        "Costs are modelled; all of them stand in records.json.",
    )
    return Section("Every cell", told, page.table(list(_columns(records)), records))


def _columns(records: Sequence[Record]) -> Iterator[Column[Record]]:
    yield Column("cell", lambda record: record.cell, kind="label", matters="key")
    for name in ("task", "backend", "pattern", "allocation", "strategy"):
        # Where all cells agree, the heading of the report has it.
        values = {getattr(record, name) for record in records}
        if len(values) > 1 or name in ("pattern", "strategy"):
            yield Column(name, _label(name), kind="label")
    # Nothing is averaged here: each seed is a row.
    yield Column(
        "asked %",
        lambda record: formats.asked(record.target_sparsity) if record.has_sparsity else missing(formats.UNREACHED),
    )
    yield Column("seed", lambda record: str(record.seed))
    yield Column("status", lambda record: record.status, kind="label")
    yield Column("value", _number(lambda record: record.value, None))
    if any(record.metric for record in records):
        yield Column("metric (test)", _metric, kind="label")
    yield Column("valid", _number(lambda record: record.valid_value, None))
    yield Column("reached %", _number(lambda record: record.sparsity, formats.reached))
    yield Column("whole model %", _number(lambda record: record.model_sparsity, formats.reached))
    yield Column("epochs", lambda record: formats.epochs(record.total_epochs, record.retrain_epochs))
    yield Column("s", lambda record: f"{record.train_seconds:.1f}")
    yield Column("costed", _costed)
    for width in weight_widths(records):
        yield Column(f"stored kbit, w{width}", partial(_stored, width))
    yield Column("why", lambda record: record.reason, kind="text")


def _label(name: str) -> Callable[[Record], str]:
    return lambda record: str(getattr(record, name))


def _metric(record: Record) -> str:
    return f"{record.metric}, {record.unit}" if record.unit else record.metric


def _number(get: Callable[[Record], float | None], shown: Callable[[float], str] | None) -> Callable[[Record], Shown]:
    def text(record: Record) -> Shown:
        value = get(record)
        if value is None:
            return missing(record.status if not record.is_done else "not recorded")
        return f"{value:.{record.digits}f}" if shown is None else shown(value)

    return text


def _stored(width: str, record: Record) -> Shown:
    found = record.storage.get(width)
    if found is None:
        return missing(record.status if not record.is_done else "not recorded")
    return f"{formats.kilobits(found.bits)} {', '.join(found.formats)}"


def _costed(record: Record) -> str:
    """How many of the hardware models gave a cost."""
    return formats.count(sum("cycles" in cost for cost in record.hardware.values()), len(record.hardware))
