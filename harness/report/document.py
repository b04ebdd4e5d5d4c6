"""The report as a whole, from the same rows for every rendering."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from harness._text import plural
from harness.api import JsonValue
from harness.report import added, answer, cells, checks, formats, methods, page
from harness.report.comparison import StrategyRow, strategies
from harness.report.engines import engines
from harness.report.formats import MISFIT
from harness.report.page import Column, Document, Grid, Medium, Noted, Section, Shown, missing
from harness.report.pictures import charts
from harness.report.ranking import ranking
from harness.report.results import results
from harness.report.rows import Table, is_partial
from harness.report.tables import tables
from harness.report.targets import targets
from harness.results.records import DONE, FAILED, OF_A_CELL, PENDING, Record

_SHOWN_CELLS = 3  # missing cells that a compact report names per reason


def build(
    records: Sequence[Record],
    *,
    title: str,
    margin: float | None,
    medium: Medium,
    columns: Sequence[added.Added] = (),
    opens: bool = True,
    pictures: bool = False,
    every_cell: bool = False,
) -> Document:
    """The report.

    Args:
        records: one per planned cell, in the order of the plan.
        title: its heading.
        margin: see `tables.tables`.
        medium: what it is for: a terminal has fewer columns and the patterns as headings; data only the results.
        columns: of third parties, for the tables of results; what goes wrong in one is a warning.
        opens: whether it opens with the answer; in a terminal that is another document.
        pictures: whether there are pictures.
        every_cell: whether every cell is listed, too.

    Raises:
        EmptySelectionError: there are no records.
        StoreError: two records are of the same cell.
    """
    found = tables(records, margin)
    # Data formats are flat: tables of results alone.
    if medium == "data":
        told = [results(table, margin=margin, medium=medium, columns=columns) for table in found]
        return Document(title, tuple(told))
    compact = medium == "terminal"
    opening = answer.sections(records, found, title=title, margin=margin, in_words=pictures) if opens else ()
    drawn = [Section("Pictures", charts=charts(found))] if pictures else []
    opening = (*opening, *(section for section in drawn if section.charts))
    sections = []
    # Once for all tables: findings are of the study.
    checked = checks.look(records, found)
    for table in found:
        sections.append(results(table, margin=margin, medium=medium, columns=columns))
        sections += targets(table)
        sections += ranking(table, margin, checked.errors())
        compared = strategies(table)
        if compared:
            sections.append(_strategies(table, compared))
        sections += engines(table, compact)
    if every_cell:
        sections.append(cells.section(records))
    ran = _what_ran(records, compact)
    ran = replace(ran, warnings=(*ran.warnings, *added.faults(columns)))
    body = (*opening, ran, _checked(checked), *sections, _how_to_read(records), methods.section(records))
    return Document(title, body)


# --- what ran -------------------------------------------------------------------------------------------------------


def _what_ran(records: Sequence[Record], compact: bool) -> Section:
    counts = Counter(record.status for record in records)
    done = sum(counts[status] for status in DONE)
    parts = ", ".join(f"{counts[status]} {status}" for status in dict.fromkeys(record.status for record in records))
    sentences = [f"{done} of {len(records)} planned cells have a result ({parts})."]
    warnings = []
    if is_partial(records):
        waiting = sum(counts[status] for status in PENDING)
        have = "has" if waiting == 1 else "have"
        warnings.append(
            f"PARTIAL: {waiting} of {len(records)} planned cells {have} not finished; the numbers below may change."
        )
    if any(record.status in FAILED for record in records):
        sentences.append(
            "Cells that failed were to have a result; cells that were skipped declare why they cannot run."
        )
    doubtful = sum("not_reproduced" in record.facts for record in records)
    if doubtful:
        warnings.append(
            f"NOT REPRODUCED: in {doubtful} cells a stage that was computed again gave other bytes than before."
        )
    # A value on the way is not the result; it is told and does not lower the row.
    overflowed = sum("not_finite" in record.facts for record in records)
    if overflowed:
        told = plural(overflowed, "cell")
        warnings.append(f"NOTE: in {told} a validation value on the way was not finite; `harness show` says where.")
    missing = [record for record in records if not record.is_done]
    grid = _missing_grid(records, missing, compact) if missing else None
    return Section("What ran", tuple(sentences), grid, warnings=tuple(warnings))


def _missing_grid(records: Sequence[Record], missing: Sequence[Record], compact: bool) -> Grid:
    by_reason: dict[tuple[str, str], list[Record]] = {}
    for record in missing:
        by_reason.setdefault((record.status, record.reason), []).append(record)
    several_tasks = len({record.task for record in records}) > 1
    most = _SHOWN_CELLS if compact else None
    columns: tuple[Column[list[Record]], ...] = (
        Column("class", lambda group: group[0].status, kind="label", matters="key"),
        Column("cells", lambda group: str(len(group)), matters="key"),
        Column("which", lambda group: formats.listed(_named(group, several_tasks), most), kind="text"),
        Column("why", lambda group: group[0].reason or "not run yet", kind="text"),
    )
    return page.table(columns, list(by_reason.values()))


def _named(records: Iterable[Record], with_task: bool) -> list[str]:
    """Cells in words, the seeds of a setting together."""
    seeds: dict[str, list[int]] = {}
    for record in records:
        labels = [record.task] if with_task else []
        labels += [record.backend, record.pattern]
        if not record.is_dense:
            # A target that no sparsity reaches has none.
            level = formats.level(record.target_sparsity) if record.has_sparsity else "a target"
            labels += [record.strategy, level]
        seeds.setdefault(" · ".join(labels), []).append(record.seed)
    return [f"{name} · seed {', '.join(map(str, listed))}" for name, listed in seeds.items()]


# --- checks ---------------------------------------------------------------------------------------------------------


def _checked(summary: checks.Summary) -> Section:
    """What named checks warn of, with the way out, and how many had nothing to say."""
    columns: tuple[Column[checks.Found], ...] = (
        Column("check", lambda found: found.finding.code, kind="label", matters="key"),
        Column("weight", lambda found: found.finding.severity, kind="label", matters="key"),
        Column("what", lambda found: found.finding.text, kind="text"),
        Column("cells", lambda found: str(len(found.cells))),
        Column("what to do", lambda found: found.finding.remedy, kind="text"),
    )
    told = [f"{len(summary.passed)} passed", f"{len(summary.idle)} not applicable"]
    if summary.silenced:
        codes = dict.fromkeys(found.finding.code for found in summary.silenced)
        told.append(f"silenced by the experiment: {', '.join(codes)}")
    sentence = f"Named checks: {len(summary.found)} warnings; {'; '.join(told)}. Each is described in {checks.ANCHOR}."
    return Section("Checks", (sentence,), page.table(columns, summary.found) if summary.found else None)


# --- strategies -----------------------------------------------------------------------------------------------------


def _strategies(table: Table, rows: Sequence[StrategyRow]) -> Section:
    columns: list[Column[StrategyRow]] = [
        Column("strategy", lambda row: row.strategy, kind="label", matters="key"),
        Column("cells", lambda row: formats.count(row.done, row.planned), matters="key"),
        *(
            Column(f"to dense\nat {formats.level(level)}", partial(_accuracy, level, table.digits))
            for level in rows[0].accuracy
        ),
        Column("epochs", lambda row: formats.spread(*row.epochs)),
        Column("from\ndense", _from_dense),
        Column("choices", lambda row: str(len(row.hyper_parameters))),
        Column("names", lambda row: ", ".join(row.hyper_parameters), kind="text"),
    ]
    caption = [
        f"Mean difference in {table.metric} to dense, {table.better} is better; in brackets the number of cells."
    ]
    if any(row.done < row.planned for row in rows):
        caption.append("cells: those with a result, of those that were planned.")
    return Section(f"Strategies compared: {table.task}", (), page.table(columns, rows, caption=caption))


def _from_dense(row: StrategyRow) -> Shown:
    """Epochs with a trained dense model at hand; one that goes back needs more than its end."""
    epochs = formats.spread(*row.epochs_with_dense)
    if not row.rewinds_to:
        return epochs
    places = ["the initial weights" if epoch == 0 else f"epoch {epoch}" for epoch in row.rewinds_to]
    return Noted(
        epochs, f"if weights and optimiser state of the dense training are at hand from {' and '.join(places)}, too"
    )


def _accuracy(level: float, digits: int, row: StrategyRow) -> Shown:
    accuracy = row.accuracy[level]
    if accuracy is None:
        return missing("no cell that all strategies, and the dense baseline, finished")
    return f"{formats.signed(accuracy.mean, digits)} ({accuracy.cells})" + formats.uneven(accuracy.uneven)


# --- how to read ----------------------------------------------------------------------------------------------------


def _how_to_read(records: Sequence[Record]) -> Section:
    lines = [
        f"Run {_several(record.run for record in records)}: seeds {_several(str(r.seed) for r in records)}; "
        f"scope {_several(' + '.join(r.scope) for r in records)}{_allocations(records)}.",
        f"Computed on {_several(map(_machine, records))} in {_several(map(_arithmetic, records))}; "
        f"threads: {_several(str(r.threads) for r in records if r.threads is not None)}.",
    ]
    lines += _definitions(records)
    lines += _hardware(records)
    for task in dict.fromkeys(record.task for record in records):
        # Densities of activations differ from cell to cell: they stand in the records, not in a sentence.
        found = [{k: v for k, v in r.facts.items() if k not in OF_A_CELL} for r in records if r.task == task]
        facts = _facts(found)
        if facts:
            lines.append(f"Data of {task}: {facts}.")
    versions = dict.fromkeys(f"{name} {version}" for record in records for name, version in record.versions.items())
    if versions:
        lines.append(f"Versions: {', '.join(versions)}.")
    lines.append("The same seed gives every cell the same initial weights and the same batches.")
    return Section("How to read this", tuple(lines))


def _machine(record: Record) -> str:
    """The device, and the processor where that is the one."""
    cpu = record.facts.get("cpu")
    return f"{record.device} ({cpu})" if cpu and record.device == "cpu" else record.device


def _arithmetic(record: Record) -> str:
    """The precision, and how it was computed where processors differ in that."""
    way = record.facts.get("arithmetic")
    return f"{record.precision} ({way})" if way else record.precision


def _allocations(records: Sequence[Record]) -> str:
    pruned = [record.allocation for record in records if not record.is_dense]
    return f"; allocation {_several(pruned)}" if pruned else ""


def _definitions(records: Sequence[Record]) -> list[str]:
    lines = ["Epochs: from initial weights to the pruned model; in brackets, those after the first one-shot pruning."]
    if any(record.hardware for record in records):
        lines.append(
            "Hardware: microseconds per time step (or item) at batch 1; speed-up over a dense array with equally many "
            f"multipliers at the same clock; {MISFIT} does not fit its device."
        )
    if any(not record.is_dense for record in records):
        lines.append(
            "Strategies: accuracy over the cells (pattern, allocation, backend, seed) that every strategy finished at "
            "the sparsity; development cost in training epochs to one pruned model, `from dense` where a trained dense "
            "model is at hand; ease of use as choices, the hyper-parameters beyond the dense recipe."
        )
    return lines


def _hardware(records: Sequence[Record]) -> list[str]:
    """What each hardware model stands for, and its warnings with the number of costs that have them."""
    models: dict[str, list[Mapping[str, JsonValue]]] = {}
    for record in records:
        for label, cost in record.hardware.items():
            if "cycles" in cost:
                models.setdefault(str(cost.get("model", label)), []).append(cost)
    lines = []
    for model, costs in models.items():
        warnings: Counter[str] = Counter()
        for each in costs:
            notes = each.get("notes")
            warnings.update(map(str, notes if isinstance(notes, list) else ()))
        told = [_devices(costs)] if any(map(_device, costs)) else []
        told += [f"{note} ({count} of {len(costs)} costs)" for note, count in warnings.items()]
        if told:
            lines.append(f"{model}: {'; '.join(told)}.")
    return lines


def _devices(costs: Sequence[Mapping[str, JsonValue]]) -> str:
    """Devices and clocks, with the clock's origin and the engines that have it."""
    engines: dict[str, dict[str, None]] = {}
    for cost in costs:
        engines.setdefault(_device(cost), {})[str(cost.get("engine") or "")] = None
    return ", ".join(
        device + (f": {', '.join(names)}" if any(names) and len(engines) > 1 else "")
        for device, names in engines.items()
        if device
    )


def _device(cost: Mapping[str, JsonValue]) -> str:
    """Device and clock of a cost, with the clock's origin; empty where the model does not tell them."""
    details = cost.get("details")
    device, clock = (details.get("device"), details.get("clock")) if isinstance(details, dict) else (None, None)
    if not isinstance(device, dict) or not isinstance(clock, dict):
        return ""
    return f"{device.get('id')} at {clock.get('value')} MHz ({clock.get('origin')})"


def _several(values: Iterable[str]) -> str:
    return ", ".join(value for value in dict.fromkeys(values) if value) or "not recorded"


def _facts(facts: Iterable[dict[str, JsonValue]]) -> str:
    seen: dict[str, dict[str, None]] = {}
    for each in facts:
        for name, value in each.items():
            seen.setdefault(name, {})[_fact(value)] = None
    return "; ".join(f"{name} {' | '.join(values)}" for name, values in seen.items())


def _fact(value: JsonValue) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_fact(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_fact(item) for item in value)
    return {True: "yes", False: "no", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)
