"""The table of results: one row per setting, dense first."""

from dataclasses import dataclass

from harness.report import formats
from harness.report.formats import MARKS, Footnotes
from harness.report.page import Column, Grid, Section
from harness.report.rows import REFERENCE, HardwareCell, Row, Table
from harness.results.statistics import ALPHA, CONFIDENCE, Comparison, Verdict, signed_rank_floor


@dataclass(frozen=True)
class _Layout:
    """Which columns a table of results needs."""

    table: Table
    compact: bool
    with_n: bool
    with_reference: bool
    with_before: bool
    with_verdicts: bool


def results(table: Table, *, margin: float | None, compact: bool) -> Section:
    """The section of one task's results; see `document.build`."""
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
    for model, labels in table.models.items():
        columns += _hardware_columns(model, len(labels) > 1, layout.compact)
    return columns


def _hardware_columns(model: str, several: bool, compact: bool) -> list[Column]:
    if compact:
        broken = model.replace("_", "_\n", 1).replace("(", "\n(", 1)
        columns = [Column(f"{broken}\nµs", part="second"), Column("speed-\nup", part="second")]
        return columns + [Column("on", "label", part="second")] * several
    columns = [Column(f"{model}\n{quantity}") for quantity in ("µs", "speed-up", "fits")]
    return columns + [Column(f"{model}\nfastest on", "label")] * several


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
    if layout.with_reference and setting.pattern == layout.table.reference:
        cells.append("")
    elif layout.with_reference:
        cells.append(_difference(row.to_reference, row.reference_verdict, row.why_no_reference, layout, notes))
    return cells + _costs(row, layout, notes)


def _costs(row: Row, layout: _Layout, notes: Footnotes) -> list[str]:
    cells: list[str] = []
    for labels in layout.table.models.values():
        cell = row.fastest(labels)
        cells += _hardware(row, cell, layout.compact, notes)
        cells += [cell.engine] * (len(labels) > 1)
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
    modelled = f" Hardware is {_origin(table, 'hardware')}." if table.hardware else ""
    lines = [
        f"{table.metric} is {_origin(table, 'value')} on the test split, {table.better} is better; sparsity is counted "
        f"on masks.{modelled}"
    ]
    if table.best_possible is not None:
        lines.append(
            f"Best possible {table.metric}: {table.best_possible:.{table.digits}f}, known from the source of the data."
        )
    return lines + _statistics_lines(layout, margin)


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
        if all(row.setting.is_dense for row in table.rows):
            return ["n too small: one seed gives no interval."]
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
