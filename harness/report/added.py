"""Columns of third parties in tables of results: rows as they, and checks, see them; their answers as ours."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol, overload

from harness.api import JsonValue, ReportRow
from harness.report.page import Column, Noted, Shown, missing
from harness.report.rows import Row, Setting, Table, mean_of
from harness.results.records import DENSE, Record, dump


class Added(Protocol):
    """A column of somebody else's, guarded: nothing that it is asked raises.

    Attributes:
        fault: the first thing that went wrong in it, in a sentence; empty if nothing did.
    """

    name: str
    fault: str

    @property
    def header(self) -> str: ...  # noqa: D102
    @property
    def matters(self) -> Literal["main", "second", "extra"]: ...  # noqa: D102
    @property
    def about(self) -> str: ...  # noqa: D102
    def applies(self, rows: Sequence[ReportRow]) -> bool: ...  # noqa: D102
    def value(self, row: ReportRow) -> JsonValue: ...  # noqa: D102
    def shown(self, value: JsonValue) -> str: ...  # noqa: D102
    def footnote(self, row: ReportRow) -> str: ...  # noqa: D102


def columns(table: Table, added: Sequence[Added]) -> list[Column[Row]]:
    """Those of the columns that a table needs, every row asked once."""
    if not added:
        return []
    rows = seen(table)
    return [_column(each, rows) for each in added if each.applies(list(rows.values()))]


def seen(table: Table) -> dict[Setting, ReportRow]:
    """The rows of a table as third parties see them."""
    # Baselines first, since every other row is handed its own.
    dense = {row.setting.backend: _seen(row.records) for row in table.rows if row.setting.is_dense}
    return {
        row.setting: dense[row.setting.backend]
        if row.setting.is_dense
        else _seen(row.records, dense.get(row.setting.backend))
        for row in table.rows
    }


def _column(added: Added, rows: Mapping[Setting, ReportRow]) -> Column[Row]:
    values = {setting: added.value(row) for setting, row in rows.items()}
    notes = {setting: added.footnote(row) for setting, row in rows.items()}
    # A column that broke is shown even where it has nothing else, so that its fault is seen below the table.
    has_something = any(value is not None for value in values.values()) or any(notes.values()) or bool(added.fault)

    def shown(row: Row) -> Shown:
        value, note = values[row.setting], notes[row.setting]
        if value is None:
            return missing(note) if note else ""
        return Noted(added.shown(value), note)

    return Column(
        added.header,
        shown,
        lambda row: {added.name: values[row.setting]},
        kind="text" if any(isinstance(value, str) for value in values.values()) else "number",
        matters=added.matters,
        when=lambda _: has_something,
        about=added.about,
    )


def by_cell(records: Sequence[Record], added: Sequence[Added]) -> list[dict[str, JsonValue]]:
    """What the columns have for every cell, by their names; the baseline of a cell is the dense one of its seed."""
    baselines = {(r.task, r.backend, r.seed): _seen([r]) for r in records if r.is_dense}
    cells = [_seen([r], None if r.is_dense else baselines.get((r.task, r.backend, r.seed))) for r in records]
    used = [each for each in added if each.applies(cells)]
    return [{each.name: each.value(cell) for each in used} for cell in cells]


def faults(added: Iterable[Added]) -> list[str]:
    """What went wrong in columns so far, a sentence for each."""
    return [f"column left empty: {each.fault}" for each in added if each.fault]


def _seen(records: Sequence[Record], dense: ReportRow | None = None) -> ReportRow:
    """The cells of one setting as a column sees them."""
    first, done = records[0], [record for record in records if record.is_done]
    finite = {r.seed: r.value for r in done if r.value is not None and math.isfinite(r.value)}
    return ReportRow(
        task=first.task,
        backend=first.backend,
        pattern=first.pattern,
        allocation=first.allocation if first.pattern != DENSE else "",
        strategy=first.strategy,
        target_sparsity=first.target_sparsity,
        sparsity=mean_of(record.sparsity for record in done),
        model_sparsity=mean_of(record.model_sparsity for record in done),
        # The longest, as in our own rows: seeds that failed early have fewer.
        total_epochs=max(record.total_epochs for record in records),
        retrain_epochs=max(record.retrain_epochs for record in records),
        metric=first.metric,
        unit=first.unit,
        better=first.better,
        values=finite,
        hardware=_hardware(done),
        records=_Told(records),
        dense=dense,
    )


def _hardware(done: Sequence[Record]) -> dict[str, dict[str, float]]:
    """The figures of every cost that is there, by label."""
    labels = dict.fromkeys(label for record in done for label in record.hardware)
    return {label: figures for label in labels if (figures := _figures(done, label))}


def _figures(done: Iterable[Record], label: str) -> dict[str, float]:
    """The numbers of a cost, means over the cells that could be costed."""
    costs = [record.hardware[label] for record in done if "cycles" in record.hardware.get(label, {})]
    found: dict[str, list[float]] = {}
    for name, value in (item for cost in costs for item in cost.items()):
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.setdefault(name, []).append(value)
    return {name: mean for name, values in found.items() if (mean := mean_of(values)) is not None}


class _Told(Sequence[Mapping[str, JsonValue]]):
    """Records as plain values, made when they are looked at: most columns never do."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, place: int) -> Mapping[str, JsonValue]: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Mapping[str, JsonValue]]: ...
    def __getitem__(self, place: int | slice) -> Mapping[str, JsonValue] | Sequence[Mapping[str, JsonValue]]:
        return _Told(self._records[place]) if isinstance(place, slice) else dump([self._records[place]])[0]
