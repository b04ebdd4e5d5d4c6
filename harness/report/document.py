"""The report as headings, sentences and tables of text, from the same rows for every rendering."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.api import JsonValue
from harness.records import DONE, FAILED, PENDING, Record
from harness.report import formats
from harness.report.comparison import StrategyRow, strategies
from harness.report.formats import MARKS, Footnotes
from harness.report.rows import REFERENCE, HardwareCell, Row, Table, is_partial, tables
from harness.statistics import ALPHA, CONFIDENCE, Comparison, Verdict, signed_rank_floor

_SHOWN_CELLS = 3  # missing cells that a compact report names per reason


@dataclass(frozen=True)
class Column:
    """A column's header, its lines apart by newlines.

    Args:
        kind: labels may be broken before a bracket, texts anywhere, numbers nowhere.
        part: a table too wide is cut in two, and both halves begin with the `key` columns.
    """

    header: str
    kind: Literal["label", "number", "text"] = "number"
    part: Literal["key", "first", "second"] = "first"


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Args:
        groups: headings of groups, by the row that they stand before.
        caption: sentences on how to read it; notes: footnotes.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    groups: Mapping[int, str] = field(default_factory=dict)
    caption: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and a table."""

    heading: str
    sentences: tuple[str, ...] = ()
    grid: Grid | None = None


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    sections: tuple[Section, ...]


def build(records: Sequence[Record], *, title: str, margin: float | None, compact: bool) -> Document:
    """The report.

    Args:
        records: one per planned cell, in the order of the plan.
        title: its heading.
        margin: see `rows.tables`.
        compact: fewer columns and the patterns as headings, for a terminal of 100 to 120 columns.

    Raises:
        EmptySelectionError: there are no records.
        StoreError: two records are of the same cell.
    """
    found = tables(records, margin)
    sections = [_what_ran(records, compact)]
    for table in found:
        sections.append(_results(table, margin, compact))
        compared = strategies(table)
        if compared:
            sections.append(_strategies(table, compared))
    sections.append(_how_to_read(records))
    return Document(title, tuple(sections))


# --- what ran -------------------------------------------------------------------------------------------------------


def _what_ran(records: Sequence[Record], compact: bool) -> Section:
    counts = Counter(record.status for record in records)
    done = sum(counts[status] for status in DONE)
    parts = ", ".join(f"{counts[status]} {status}" for status in dict.fromkeys(record.status for record in records))
    sentences = [f"{done} of {len(records)} planned cells have a result ({parts})."]
    if is_partial(records):
        waiting = sum(counts[status] for status in PENDING)
        sentences.insert(
            0, f"PARTIAL: {waiting} of {len(records)} planned cells have not finished; the numbers below may change."
        )
    if any(record.status in FAILED for record in records):
        sentences.append(
            "Cells that failed were to have a result; cells that were skipped declare why they cannot run."
        )
    doubtful = sum("not_reproduced" in record.facts for record in records)
    if doubtful:
        sentences.append(
            f"NOT REPRODUCED: in {doubtful} cells a stage that was computed again gave other bytes than before."
        )
    missing = [record for record in records if not record.is_done]
    return Section("What ran", tuple(sentences), _missing_grid(records, missing, compact) if missing else None)


def _missing_grid(records: Sequence[Record], missing: Sequence[Record], compact: bool) -> Grid:
    by_reason: dict[tuple[str, str], list[Record]] = {}
    for record in missing:
        by_reason.setdefault((record.status, record.reason), []).append(record)
    several_tasks = len({record.task for record in records}) > 1
    rows = [
        (status, str(len(group)), formats.listed(_named(group, several_tasks), _SHOWN_CELLS if compact else None),
         reason or "not run yet")
        for (status, reason), group in by_reason.items()
    ]  # fmt: skip
    columns = (Column("class", "text"), Column("cells"), Column("which", "text"), Column("why", "text"))
    return Grid(columns, tuple(rows))


def _named(records: Iterable[Record], with_task: bool) -> list[str]:
    """Cells in words, the seeds of a setting together."""
    seeds: dict[str, list[int]] = {}
    for record in records:
        labels = [record.task] if with_task else []
        labels += [record.backend, record.pattern]
        if not record.is_dense:
            labels += [record.strategy, formats.level(record.target_sparsity)]
        seeds.setdefault(" · ".join(labels), []).append(record.seed)
    return [f"{name} · seed {', '.join(map(str, listed))}" for name, listed in seeds.items()]


# --- results --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """Which columns a table of results needs."""

    table: Table
    compact: bool
    with_n: bool
    with_reference: bool
    with_before: bool
    with_verdicts: bool


def _results(table: Table, margin: float | None, compact: bool) -> Section:
    layout = _Layout(
        table=table,
        compact=compact,
        with_n=not compact or len({(row.done, row.planned, row.value is None) for row in table.rows}) > 1,
        with_reference=any(row.to_reference is not None for row in table.rows),
        with_before=not compact and any(row.before_retraining is not None for row in table.rows),
        with_verdicts=table.comparisons > 0 and any(row.value and row.value.n > 1 for row in table.rows),
    )
    notes = Footnotes()
    rows = tuple(tuple(_cells(row, layout, notes)) for row in table.rows)
    grid = Grid(
        columns=tuple(_columns(layout)),
        rows=rows,
        groups=_groups(table) if compact else {},
        caption=tuple(_caption(layout, margin)),
        notes=tuple(notes.lines()),
    )
    scope = f", pruned: {', '.join(table.scope)}" if table.scope else ""
    return Section(f"Results: {table.task}{scope}", (), grid)


def _columns(layout: _Layout) -> list[Column]:
    table = layout.table
    unit = f", {table.unit}" if table.unit else ""
    if layout.compact:
        columns = [Column("pattern\n  strategy", "label", "key"), Column("asked\n%", part="key"), Column("got\n%")]
        columns.append(Column("epochs"))
    else:
        columns = [Column(name, "label") for name in ("backend", "pattern", "allocation", "strategy")]
        columns += [Column("asked\n%"), Column("reached\n%"), Column("whole model\n%"), Column("epochs\n(retraining)")]
    if layout.with_before:
        columns.append(Column(f"before retraining\n{table.metric}{unit} (valid)"))
    columns.append(Column(f"{table.metric}{unit}\n(test)"))
    columns += [Column("n")] if layout.with_n else []
    columns.append(Column("to\ndense"))
    if layout.with_reference:
        columns.append(Column("to\nunstr." if layout.compact else f"to {REFERENCE}"))
    for label in table.hardware:
        columns += _hardware_columns(label, layout.compact)
    return columns


def _hardware_columns(label: str, compact: bool) -> list[Column]:
    if compact:
        broken = label.replace("_", "_\n", 1).replace("(", "\n(", 1)
        return [Column(f"{broken}\nµs", part="second"), Column("speed-\nup", part="second")]
    return [Column(f"{label}\n{quantity}") for quantity in ("µs", "speed-up", "fits")]


def _groups(table: Table) -> dict[int, str]:
    """A heading before the first row of every pattern; a dense row is its own heading."""
    names = [_group(row, table) for row in table.rows]
    return {
        index: name
        for index, name in enumerate(names)
        if not table.rows[index].setting.is_dense and (index == 0 or names[index - 1] != name)
    }


def _group(row: Row, table: Table) -> str:
    backend = f"{row.setting.backend}: " if len(table.backends) > 1 else ""
    allocation = f", {row.setting.allocation}" if len(table.allocations) > 1 and not row.setting.is_dense else ""
    return f"{backend}{row.setting.pattern}{allocation}"


def _cells(row: Row, layout: _Layout, notes: Footnotes) -> list[str]:
    setting, digits = row.setting, layout.table.digits
    strategy = "" if setting.is_dense else setting.strategy
    if layout.compact:
        cells = [_group(row, layout.table) if setting.is_dense else f"  {strategy}"]
    else:
        cells = [setting.backend, setting.pattern, setting.allocation, strategy]
    cells.append(formats.asked(setting.target_sparsity))
    cells.append(
        notes.dash(row.why_no_value or "not recorded") if row.sparsity is None else formats.reached(row.sparsity)
    )
    if not layout.compact:
        whole = row.model_sparsity
        cells.append(notes.dash(row.why_no_value or "not recorded") if whole is None else formats.reached(whole))
    cells.append(formats.epochs(row.total_epochs, row.retrain_epochs))
    if layout.with_before:
        cells.append("" if row.before_retraining is None else f"{row.before_retraining:.{digits}f}")
    cells.append(_value(row, digits, notes))
    cells += [_count(row, notes)] if layout.with_n else []
    if setting.is_dense:
        cells += [""] * (1 + layout.with_reference)
        return cells + _costs(row, layout, notes)
    cells.append(_difference(row.to_dense, row.dense_verdict, row.why_no_dense, layout, notes))
    if layout.with_reference and setting.pattern == REFERENCE:
        cells.append("")
    elif layout.with_reference:
        cells.append(_difference(row.to_reference, row.reference_verdict, row.why_no_reference, layout, notes))
    return cells + _costs(row, layout, notes)


def _costs(row: Row, layout: _Layout, notes: Footnotes) -> list[str]:
    cells: list[str] = []
    for label in layout.table.hardware:
        cells += _hardware(row, row.hardware.get(label, HardwareCell()), layout.compact, notes)
    return cells


def _value(row: Row, digits: int, notes: Footnotes) -> str:
    return notes.dash(row.why_no_value) if row.value is None else formats.value(row.value, digits)


def _count(row: Row, notes: Footnotes) -> str:
    count = formats.count(row.done, row.planned)
    return count + notes.mark(row.why_no_value) if row.why_no_value and row.value is not None else count


def _difference(
    found: Comparison | None, verdict: Verdict | None, why_none: str, layout: _Layout, notes: Footnotes
) -> str:
    if found is None:
        return notes.dash(why_none)
    return formats.difference(found, layout.table.digits, verdict if layout.with_verdicts else None)


def _hardware(row: Row, cell: HardwareCell, compact: bool, notes: Footnotes) -> list[str]:
    missing = notes.dash(cell.reason or row.why_no_value or "not costed") if _lacks(cell) else ""
    latency = missing if cell.latency_us is None else formats.latency(cell.latency_us)
    speedup = missing if cell.speedup is None else formats.speedup(cell.speedup)
    if compact:
        return [latency + formats.misfit(cell.fits), speedup]
    return [latency, speedup, missing if cell.fits is None else "yes" if cell.fits else "no"]


def _lacks(cell: HardwareCell) -> bool:
    return cell.latency_us is None or cell.speedup is None or cell.fits is None


def _caption(layout: _Layout, margin: float | None) -> list[str]:
    table = layout.table
    origins = {kind: _origin(table, kind) for kind in ("value", "hardware")}
    lines = [
        f"{table.metric} ({origins['value']}) on the test split, {table.better} is better; sparsity counted on masks."
    ]
    if table.best_possible is not None:
        lines.append(
            f"Best possible {table.metric}: {table.best_possible:.{table.digits}f}, known from the source of the data."
        )
    lines += _statistics_lines(layout, margin)
    lines.append(
        "Epochs: from initial weights to the pruned model, in brackets those after the first one-shot pruning."
    )
    if table.hardware:
        lines.append(
            f"Hardware ({origins['hardware']}): microseconds per time step or item at batch 1; speed-up over a dense "
            f"array with equally many multipliers at the same clock{'; ✗ does not fit' if layout.compact else ''}."
        )
    return lines


def _origin(table: Table, kind: str) -> str:
    found = dict.fromkeys(r.origin[kind] for row in table.rows for r in row.records if kind in r.origin)
    return " and ".join(found) or "origin unknown"


def _statistics_lines(layout: _Layout, margin: float | None) -> list[str]:
    table = layout.table
    compared = [c for row in table.rows for c in (row.to_dense, row.to_reference) if c is not None]
    reference = f" and {REFERENCE} under the same strategy" if layout.with_reference else ""
    sizes = [row.value.n for row in table.rows if row.value is not None]
    line = f"Differences: to dense{reference}, paired by seed."
    every = f" (n = {sizes[0]} in every row)" if sizes and not layout.with_n else ""
    if max(sizes, default=0) < 2:  # an interval needs two seeds
        return [line, "n too small: one seed gives no interval and no verdict; differences may be chance."]
    lines = [f"{line} ±: {100 * CONFIDENCE:g} % t interval over n seeds{every}; no ± where n = 1."]
    if margin is None:
        lines.append("No verdicts: the experiment names no margin within which two results count as equivalent.")
        return lines
    legend = ", ".join(f"{mark} {verdict}" for verdict, mark in MARKS.items())
    lines.append(
        f"Verdicts at p below {ALPHA:.2g}: {legend} (equivalent: TOST within ±{margin:g}); t-tests, Holm-corrected for "
        f"{table.comparisons} comparisons (the intervals are not)."
    )
    pairs = [c.difference.n for c in compared]
    if pairs and signed_rank_floor(min(pairs)) > ALPHA:
        floor = signed_rank_floor(min(pairs))
        lines.append(
            f"n too small for a test that does not assume normal differences: with {min(pairs)} paired "
            f"seed{'s' if min(pairs) > 1 else ''} a signed-rank test cannot go below p = {floor:.2g}."
        )
    return lines


# --- strategies -----------------------------------------------------------------------------------------------------


def _strategies(table: Table, rows: Sequence[StrategyRow]) -> Section:
    notes = Footnotes()
    levels = list(rows[0].accuracy)
    columns = [Column("strategy", "label", "key"), Column("cells", part="key")]
    columns += [Column(f"to dense\nat {formats.level(level)}") for level in levels]
    columns += [Column("epochs", part="second"), Column("from\ndense", part="second")]
    columns += [Column("choices", part="second"), Column("names", "text", "second")]
    body = []
    for row in rows:
        accuracies = [_accuracy(row, level, table.digits, notes) for level in levels]
        body.append((
            row.strategy, formats.count(row.done, row.planned), *accuracies, formats.spread(*row.epochs),
            formats.spread(*row.epochs_with_dense), str(len(row.hyper_parameters)), ", ".join(row.hyper_parameters),
        ))  # fmt: skip
    caption = (
        f"Accuracy: mean difference in {table.metric} to dense over the cells (pattern, allocation, backend, seed) "
        f"that all strategies finished at this sparsity, their number in brackets; {table.better} is better.",
        "Development cost: training epochs to one pruned model, and what is left of them with a trained dense model at "
        "hand. Ease of use: choices are hyper-parameters beyond the dense recipe.",
    )
    grid = Grid(tuple(columns), tuple(body), caption=caption, notes=tuple(notes.lines()))
    return Section(f"Strategies compared: {table.task}", (), grid)


def _accuracy(row: StrategyRow, level: float, digits: int, notes: Footnotes) -> str:
    accuracy = row.accuracy[level]
    if accuracy is None:
        return notes.dash("no cell that all strategies, and the dense baseline, finished")
    return f"{formats.signed(accuracy.mean, digits)} ({accuracy.cells})"


# --- how to read ----------------------------------------------------------------------------------------------------


def _how_to_read(records: Sequence[Record]) -> Section:
    lines = [
        f"Run {_several(record.run for record in records)}: seeds {_several(str(r.seed) for r in records)}; "
        f"scope {_several(' + '.join(r.scope) for r in records)}; "
        f"allocation {_several(r.allocation for r in records if not r.is_dense)}.",
        f"Computed on {_several(r.device for r in records)} in {_several(r.precision for r in records)}; "
        f"threads: {_several(str(r.threads) for r in records if r.threads is not None)}.",
    ]
    for task in dict.fromkeys(record.task for record in records):
        facts = _facts([record.facts for record in records if record.task == task])
        if facts:
            lines.append(f"Data of {task}: {facts}.")
    versions = dict.fromkeys(f"{name} {version}" for record in records for name, version in record.versions.items())
    if versions:
        lines.append(f"Versions: {', '.join(versions)}.")
    lines.append("The same seed gives every cell the same initial weights and the same batches.")
    return Section("How to read this", tuple(lines))


def _several(values: Iterable[str]) -> str:
    return ", ".join(value for value in dict.fromkeys(values) if value) or "not recorded"


def _facts(facts: Iterable[dict[str, JsonValue]]) -> str:
    seen: dict[str, dict[str, None]] = {}
    for each in facts:
        for name, value in each.items():
            seen.setdefault(name, {})[value if isinstance(value, str) else json.dumps(value)] = None
    return "; ".join(f"{name} {' | '.join(values)}" for name, values in seen.items())
