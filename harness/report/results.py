"""The table of results: one row per setting, dense first."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from harness._text import listed, plural
from harness.api import JsonValue
from harness.report import added, formats, page
from harness.report.formats import MARKS
from harness.report.page import Column, Medium, Noted, Section, Shown, missing
from harness.report.rows import (
    REFERENCE,
    UNEVEN,
    FixedPoint,
    HardwareCell,
    Row,
    Table,
    is_partial,
    number_formats,
    weight_widths,
)
from harness.results.records import Record
from harness.results.statistics import ALPHA, CONFIDENCE, Comparison, Verdict, signed_rank_floor

_SPLIT = "test"
"""What the metric of a row, and every difference between two, was measured on."""

_FEW_NAMES = 3
"""Layers that a note names; the others it counts."""


@dataclass(frozen=True)
class _Layout:
    """What a table of results is made of, and for."""

    table: Table
    medium: Medium
    with_n: bool
    with_reference: bool
    with_verdicts: bool

    @property
    def compact(self) -> bool:
        """Whether patterns are headings and not a column."""
        return self.medium == "terminal"


def results(table: Table, *, margin: float | None, medium: Medium, columns: Sequence[added.Added] = ()) -> Section:
    """The section of one task's results; see `document.build`."""
    layout = _Layout(
        table=table,
        medium=medium,
        with_n=medium == "page" or len({(row.done, row.planned, row.value is None) for row in table.rows}) > 1,
        with_reference=any(row.to_reference is not None for row in table.rows),
        with_verdicts=table.comparisons > 0 and any(row.value and row.value.n > 1 for row in table.rows),
    )
    grid = page.table(
        # Columns of others stand behind ours, and the reason, which only data formats have, comes last.
        [
            *_columns(layout),
            *added.columns(table, columns),
            Column("", fields=lambda row: {"reason": row.why_no_value}),
        ],
        table.rows,
        medium,
        groups=_groups(table) if layout.compact else {},
        caption=() if medium == "data" else _caption(layout, margin),
    )
    scope = f", pruned: {', '.join(table.scope)}" if table.scope else ""
    return Section(f"Results: {table.task}{scope}", (), grid)


# --- columns --------------------------------------------------------------------------------------------------------


def _columns(layout: _Layout) -> Iterator[Column[Row]]:
    """Every value of a row, in the order in which it is read."""
    table = layout.table
    unit = f", {table.unit}" if table.unit else ""
    yield Column("", fields=lambda row: {"task": table.task})
    yield Column(
        "", lambda row: _first(row, table), short="pattern\n  strategy", on="terminal", kind="label", matters="key"
    )
    yield from _labels()
    yield Column("", fields=lambda row: {"scope": " ".join(table.scope)})
    yield Column(
        "asked\n%",
        _asked,
        lambda row: {"target_sparsity": row.setting.target_sparsity if row.setting.has_sparsity else None},
        matters="key",
    )
    yield Column(
        "reached\n%",
        _reached,
        lambda row: {"sparsity": row.sparsity, "uneven": row.uneven},
        short="got\n%",
    )
    yield Column(
        "whole model\n%",
        lambda row: _percent(row, row.model_sparsity),
        lambda row: {"model_sparsity": row.model_sparsity},
        on="page",
    )
    yield Column(
        "each tensor\n%",
        _each_tensor,
        on="page",
        kind="text",
        when=lambda rows: any(len(row.tensors) > 1 for row in rows),
    )
    yield Column(
        "epochs\n(retraining)",
        lambda row: formats.epochs(row.total_epochs, row.retrain_epochs),
        lambda row: {"total_epochs": row.total_epochs, "retrain_epochs": row.retrain_epochs},
        short="epochs",
    )
    yield Column(
        f"before retraining\n{table.metric}{unit} (valid)",
        lambda row: _before_retraining(row, table.digits),
        lambda row: {"value_before_retraining_split": "valid", "value_before_retraining": row.before_retraining},
        on="page",
        when=lambda rows: any(_before_retraining(row, table.digits) for row in rows),
    )
    yield Column(
        f"{table.metric}{unit}\n(test)", lambda row: _value(row, table.digits), lambda row: _measured(row, table)
    )
    for label in number_formats(record for row in table.rows for record in row.records):
        yield _fixed(label, table)
    yield Column("n", _count, lambda row: {"planned": row.planned, "done": row.done}, when=lambda rows: layout.with_n)
    yield _difference("dense", "to\ndense", layout)
    yield _difference(REFERENCE, "to\nunstr.", layout)
    for model, labels in table.models.items():
        yield from _hardware(model, labels)
    widths = weight_widths(record for row in table.rows for record in row.records)
    for width in widths:
        yield from _stored(width, len(widths) > 1)
    for label in table.hardware:
        yield Column("", fields=partial(_cost, label))


def _asked(row: Row) -> Shown:
    if row.setting.has_sparsity:
        return formats.asked(row.setting.target_sparsity)
    return missing(formats.UNREACHED)


def _labels() -> Iterator[Column[Row]]:
    for name in ("backend", "pattern", "allocation"):
        yield Column(name, attrgetter(f"setting.{name}"), partial(_label, name), on="page", kind="label")
    yield Column(
        "strategy",
        lambda row: "" if row.setting.is_dense else row.setting.strategy,
        partial(_label, "strategy"),
        on="page",
        kind="label",
    )


def _label(name: str, row: Row) -> dict[str, JsonValue]:
    return {name: getattr(row.setting, name)}


def _first(row: Row, table: Table) -> str:
    """What opens a row below the heading of its pattern; a dense row is its own heading."""
    return _group(row, table) if row.setting.is_dense else f"  {row.setting.strategy}"


def _percent(row: Row, sparsity: float | None) -> Shown:
    return missing(row.why_no_value or "not recorded") if sparsity is None else formats.reached(sparsity)


def _reached(row: Row) -> Shown:
    """The sparsity, marked where others at this target kept clearly more or fewer weights."""
    found = _percent(row, row.sparsity)
    return Noted(found + formats.UNEVEN, row.uneven) if row.uneven and isinstance(found, str) else found


def _each_tensor(row: Row) -> str:
    levels = {formats.reached(sparsity) for sparsity in row.tensors.values()}
    if len(levels) == 1 and len(row.tensors) > 1:
        return f"all {levels.pop()}"
    return ", ".join(f"{name} {formats.reached(sparsity)}" for name, sparsity in row.tensors.items())


def _value(row: Row, digits: int) -> Shown:
    return missing(row.why_no_value) if row.value is None else formats.value(row.value, digits)


def _before_retraining(row: Row, digits: int) -> Shown:
    """The validation value right after the last prune; seeds with which it overflowed are told."""
    shown = "" if row.before_retraining is None else f"{row.before_retraining:.{digits}f}"
    # A value that overflowed right after pruning is why retraining was needed, not a fault of the row.
    over = [record.seed for record in row.records if record.value_before_retraining is None and _has_overflowed(record)]
    if not over:
        return shown
    seeds = f"{'seeds' if over[1:] else 'seed'} {listed(over)}"
    return Noted(shown or formats.DASH, f"not finite right after pruning with {seeds}")


def _has_overflowed(record: Record) -> bool:
    stages = record.facts.get("not_finite")
    return isinstance(stages, dict) and "prune" in stages.values()


def _measured(row: Row, table: Table) -> dict[str, JsonValue]:
    return {
        "metric": table.metric,
        "unit": table.unit,
        "better": table.better,
        "n": row.value.n if row.value else 0,
        "value_split": _SPLIT,
        "value": row.value.mean if row.value else None,
        "value_half_interval": row.value.half if row.value else None,
        "best_possible": table.best_possible,
    }


def _fixed(label: str, table: Table) -> Column[Row]:
    """The metric of the model as some hardware computes it: what the costs of that hardware belong to."""

    def shown(row: Row) -> Shown:
        found = row.fixed_point.get(label, FixedPoint())
        if found.value is None:
            return missing(found.reason or row.why_no_value or "not evaluated")
        text = f"{found.value:.{table.digits}f}"
        notes = []
        if found.wrapped:
            notes.append(f"{found.wrapped:,} sums of the test split wrapped around; give more `accumulator_bits`")
        if found.folded:
            notes.append(f"batch norm folded into the layer before it: {_few(found.folded)}")
        if found.in_float:
            notes.append(f"in float32 between the others: {_few(found.in_float)}")
        return Noted(text, "; ".join(notes)) if notes else text

    def fields(row: Row) -> dict[str, JsonValue]:
        found = row.fixed_point.get(label, FixedPoint())
        return {
            f"value as {label}": found.value,
            f"value as {label}, difference": found.difference,
            f"value as {label}, wrapped": None if found.value is None else found.wrapped,
            f"value as {label}, in float32": list(found.in_float),
            f"value as {label}, folded": list(found.folded),
            f"value as {label}, reason": found.reason,
        }

    return Column(f"{table.metric}\nas {label}", shown, fields, short=f"as\n{label}")


def _few(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    few, more = names[:_FEW_NAMES], len(names) - _FEW_NAMES
    return listed([*few, f"{more} more"] if more > 0 else few)


def _count(row: Row) -> Shown:
    count = formats.count(row.done, row.planned)
    return Noted(count, row.why_no_value) if row.value is not None else count


def _difference(baseline: str, short: str, layout: _Layout) -> Column[Row]:
    """The difference to the dense baseline or to the reference pattern, with its verdict."""
    digits, is_dense = layout.table.digits, baseline == "dense"

    def found(row: Row) -> tuple[Comparison | None, Verdict | None, str]:
        if is_dense:
            return row.to_dense, row.dense_verdict, row.why_no_dense
        return row.to_reference, row.reference_verdict, row.why_no_reference

    def shown(row: Row) -> Shown:
        if row.setting.is_dense or (not is_dense and row.setting.pattern == layout.table.reference):
            return ""
        comparison, verdict, why = found(row)
        if comparison is None:
            return missing(why)
        text = formats.difference(comparison, digits, verdict if layout.with_verdicts else None)
        text += formats.uneven(row.uneven_reference and not is_dense)
        # Beside its row's own number of seeds, a difference of fewer would be taken for one of as many.
        if row.value is not None and comparison.difference.n < row.value.n:
            return Noted(text, f"over the {plural(comparison.difference.n, 'seed')} that both have")
        return text

    def fields(row: Row) -> dict[str, JsonValue]:
        comparison, verdict, why = found(row)
        return {
            f"to_{baseline}_split": _SPLIT,
            f"to_{baseline}": comparison.difference.mean if comparison else None,
            f"to_{baseline}_half_interval": comparison.difference.half if comparison else None,
            f"to_{baseline}_n": comparison.difference.n if comparison else 0,
            f"to_{baseline}_verdict": verdict,
            f"to_{baseline}_reason": why,
        }

    return Column(
        "to\ndense" if is_dense else f"to {baseline}",
        shown,
        fields,
        short=short,
        when=lambda rows: is_dense or layout.with_reference,
    )


def _hardware(model: str, labels: Sequence[str]) -> Iterator[Column[Row]]:
    """A row's cost on the fastest engine of one model."""
    several = len(labels) > 1

    def cost(row: Row) -> HardwareCell:
        return row.fastest(labels)

    def number(row: Row, value: float | None, shown: Callable[[float], str]) -> Shown:
        found = cost(row)
        if value is None:
            return missing(found.reason or row.why_no_value or "not costed")
        return Noted(shown(value), found.partly) if found.partly else shown(value)

    def latency(row: Row) -> Shown:
        return number(row, cost(row).latency_us, formats.latency)

    def marked(row: Row) -> Shown:
        found, mark = latency(row), formats.misfit(cost(row).fits)
        # The mark belongs to the number and not to its footnote.
        return found + mark if isinstance(found, str) else found._replace(text=found.text + mark)

    def fits(row: Row) -> Shown:
        found = cost(row).fits
        return number(row, None if found is None else float(found), lambda value: "yes" if value else "no")

    yield Column(f"{model}\nµs", latency, on="page")
    yield Column("", marked, short=f"{page.broken_name(model)}\nµs", on="terminal", subject=model)
    yield Column(
        f"{model}\nspeed-up",
        lambda row: number(row, cost(row).speedup, formats.speedup),
        short="speed-\nup",
        subject=model,
    )
    yield Column(f"{model}\nfits", fits, on="page")
    yield Column(
        f"{model}\nfastest on",
        lambda row: cost(row).engine,
        short="on",
        kind="label",
        subject=model,
        when=lambda rows: several,
    )


def _stored(width: str, is_one_of_several: bool) -> Iterator[Column[Row]]:
    """What the masks take in storage, with weights of so many bits, and in which formats."""

    def bits(row: Row) -> Shown:
        found = row.storage.get(width)
        return formats.kilobits(found.bits) if found else missing(row.why_no_value or "not counted")

    def fields(row: Row) -> dict[str, JsonValue]:
        found = row.storage.get(width)
        return {
            f"storage.{width}.bits": found.bits if found else None,
            f"storage.{width}.dense_bits": found.dense_bits if found else None,
            f"storage.{width}.formats": " ".join(found.formats) if found else None,
        }

    about = (
        f"stored: 1000 bits of the pruned matrices with weights of {width} bits, each in the format that is smallest "
        "for its mask, as counted on it."
    )
    name = f", w{width}" if is_one_of_several else ""
    yield Column(
        f"stored{name}\nkbit", bits, fields, short=f"kbit\nw{width}" if name else "stored\nkbit", matters="extra",
        about=about,
    )  # fmt: skip
    yield Column(
        f"stored{name}\nas",
        lambda row: ", ".join(row.storage[width].formats) if width in row.storage else "",
        on="page",
        kind="label",
    )


def _cost(label: str, row: Row) -> dict[str, JsonValue]:
    """The cost on one engine, for data formats."""
    cell = row.hardware.get(label, HardwareCell())
    return {
        f"{label}.latency_us": cell.latency_us,
        f"{label}.cycles": cell.cycles,
        f"{label}.speedup": cell.speedup,
        f"{label}.fits": cell.fits,
        f"{label}.reason": cell.reason or cell.partly,
    }


def _groups(table: Table) -> dict[int, str]:
    """A heading before the first row of every pattern; a dense row is its own heading."""
    names = [_group(row, table) for row in table.rows]
    return {
        index: name
        for index, name in enumerate(names)
        # Where the pattern changes; rows of one pattern are neighbours by their order.
        if not table.rows[index].setting.is_dense and (index == 0 or names[index - 1] != name)
    }


def _group(row: Row, table: Table) -> str:
    backend = f"{row.setting.backend}: " if len(table.backends) > 1 else ""
    allocation = f", {row.setting.allocation}" if len(table.allocations) > 1 and not row.setting.is_dense else ""
    return f"{backend}{row.setting.pattern}{allocation}"


# --- below the table ------------------------------------------------------------------------------------------------


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
    if layout.with_n and any(not row.is_complete for row in table.rows):
        lines.append("n: seeds with a value, of those that were planned.")
    if any(row.uneven or row.uneven_reference for row in table.rows):
        lines.append(f"{formats.UNEVEN}: kept weights differ by more than {100 * UNEVEN:g} %, not of one sparsity.")
    return lines + _statistics_lines(layout, margin)


def _origin(table: Table, kind: str) -> str:
    found = dict.fromkeys(r.origin[kind] for row in table.rows for r in row.records if kind in r.origin)
    return " and ".join(found) or "origin unknown"


def _statistics_lines(layout: _Layout, margin: float | None) -> list[str]:
    table = layout.table
    compared = [c for row in table.rows for c in (row.to_dense, row.to_reference) if c is not None]
    reference = f" and {table.reference} under the same strategy" if layout.with_reference else ""
    sizes = [row.value.n for row in table.rows if row.value is not None]
    line = f"Differences: to dense{reference}, paired by seed."
    every = f" (n = {sizes[0]} in every row)" if sizes and not layout.with_n else ""
    if not sizes:
        return ["No cell has a value yet: there is nothing to compare."]
    if max(sizes) < 2 <= max(row.planned for row in table.rows):
        return [line, "No setting has more than one seed with a value: an interval and a verdict need two."]
    if max(sizes) < 2:  # an interval needs two seeds
        if all(row.setting.is_dense for row in table.rows):
            return ["n too small: one seed gives no interval."]
        return [line, "n too small: one seed gives no interval and no verdict; differences may be chance."]
    lines = [f"{line} ±: {100 * CONFIDENCE:g} % t interval over n seeds{every}; no ± where n = 1."]
    values = [row.value for row in table.rows if row.value is not None]
    if any(map(formats.is_constant, [*values, *(comparison.difference for comparison in compared)])):
        lines.append(f"{formats.ALL_EQUAL}.")
    if margin is None:
        lines.append("No verdicts: the experiment names no margin within which two results count as equivalent.")
        return lines
    legend = ", ".join(f"{mark} {verdict}" for verdict, mark in MARKS.items())
    lines.append(
        f"Verdicts at p below {ALPHA:.2g}: {legend} (equivalent: TOST within ±{margin:g}); t-tests, Holm-corrected for "
        f"{table.comparisons} comparisons (the intervals are not)."
    )
    # What has not all its seeds yet says nothing of how many there will be.
    whole = [row for row in table.rows if not is_partial(row.records)]
    pairs = [c.difference.n for row in whole for c in (row.to_dense, row.to_reference) if c is not None]
    if pairs and signed_rank_floor(min(pairs)) > ALPHA:
        floor = signed_rank_floor(min(pairs))
        lines.append(
            f"n too small for a test that does not assume normal differences: with {min(pairs)} paired "
            f"seed{'s' if min(pairs) > 1 else ''} a signed-rank test cannot go below p = {floor:.2g}."
        )
    return lines
