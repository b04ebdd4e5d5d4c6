"""The report as data: records in JSON, rows in CSV, numbers unrounded and a missing number an empty field."""

import csv
from collections.abc import Iterator, Sequence
from io import StringIO

from pydantic_core import to_json

from harness.report.rows import REFERENCE, HardwareCell, Row, Table, tables
from harness.results.records import Record
from harness.results.statistics import Comparison

_Field = str | float | int | None


def json_text(records: Sequence[Record]) -> str:
    """One object per planned cell, with every field of its record."""
    return to_json(list(records), indent=2, inf_nan_mode="null").decode() + "\n"


def csv_text(records: Sequence[Record], margin: float | None) -> str:
    """One line per setting: the rows of the report's tables.

    Raises:
        EmptySelectionError: there are no records.
        StoreError: two records are of the same cell.
    """
    found = tables(records, margin)
    labels = list(dict.fromkeys(label for table in found for label in table.hardware))
    lines = [dict(_fields(table, row, labels)) for table in found for row in table.rows]
    file = StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _fields(table: Table, row: Row, labels: Sequence[str]) -> Iterator[tuple[str, _Field]]:
    setting = row.setting
    yield from (("task", setting.task), ("backend", setting.backend), ("pattern", setting.pattern))
    yield from (("allocation", setting.allocation), ("strategy", setting.strategy), ("scope", " ".join(table.scope)))
    yield from (("target_sparsity", setting.target_sparsity), ("sparsity", row.sparsity))
    yield from (("model_sparsity", row.model_sparsity), ("total_epochs", row.total_epochs))
    yield from (("retrain_epochs", row.retrain_epochs), ("planned", row.planned), ("done", row.done))
    yield from (("metric", table.metric), ("unit", table.unit), ("better", table.better))
    yield from (("n", row.value.n if row.value else 0), ("value", row.value.mean if row.value else None))
    yield from (("value_half_interval", row.value.half if row.value else None), ("best_possible", table.best_possible))
    yield ("value_before_retraining", row.before_retraining)
    yield from _comparison("to_dense", row.to_dense, row.dense_verdict, row.why_no_dense)
    yield from _comparison(f"to_{REFERENCE}", row.to_reference, row.reference_verdict, row.why_no_reference)
    for label in labels:
        cell = row.hardware.get(label, HardwareCell())
        yield from ((f"{label}.latency_us", cell.latency_us), (f"{label}.cycles", cell.cycles))
        yield from (
            (f"{label}.speedup", cell.speedup),
            (f"{label}.fits", _yes(cell.fits)),
            (f"{label}.reason", cell.reason),
        )
    yield ("reason", row.why_no_value)


def _comparison(name: str, found: Comparison | None, verdict: str | None, why: str) -> Iterator[tuple[str, _Field]]:
    yield (name, found.difference.mean if found else None)
    yield (f"{name}_half_interval", found.difference.half if found else None)
    yield (f"{name}_n", found.difference.n if found else 0)
    yield (f"{name}_verdict", verdict)
    yield (f"{name}_reason", why)


def _yes(fits: bool | None) -> str | None:
    return None if fits is None else "yes" if fits else "no"
