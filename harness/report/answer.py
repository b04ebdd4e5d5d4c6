"""What a run answers, on one screen: what ran, which pattern wins under which strategy, what to beware of."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from rich.cells import cell_len

from harness._text import plural
from harness.report import checks, formats, page, rich
from harness.report.formats import DASH, MARKS
from harness.report.page import Column, Document, Section, Shown
from harness.report.rows import Row, Setting, Table, is_partial
from harness.report.tables import tables
from harness.report.targets import brief, is_solved_only
from harness.results.records import Record
from harness.results.statistics import ALPHA, CONFIDENCE, Comparison, Verdict

T = TypeVar("T")

LINES, WIDTH = 24, 80
"""The terminal on which an answer fits."""

_MOST_WARNINGS = 3

_MOST_CLAUSES = 5
"""Of a sentence of verdicts, beyond which they are counted."""

_ORDER: tuple[Verdict, ...] = ("better", "equivalent", "worse", "not enough evidence")


@dataclass(frozen=True)
class _Line:
    """One pattern under one strategy, at every sparsity.

    Args:
        setting: without its sparsity; rows: by sparsity.
        of: where the line has the best pattern at each sparsity, of how many; then no pattern is in the setting.
    """

    setting: Setting
    rows: dict[float, Row]
    of: int | None = None


@dataclass(frozen=True)
class _Subject:
    """What one table answers, worked out once: it is laid out several times until it fits.

    Args:
        is_dense: whether patterns are compared with the dense model, where the reference pattern is not there.
        factors: cycles of the baseline over those of a row.
        in_words: whether each verdict stands in words beside its sign.
        best: what is shown instead of all lines, where there are too many for a screen.
        is_brief: whether numbers stand without their intervals, since a screen has several tables.
    """

    table: Table
    is_dense: bool
    lines: tuple[_Line, ...]
    factors: dict[Setting, float | None]
    in_words: bool = False
    best: tuple[_Line, ...] = ()
    is_brief: bool = False

    @property
    def baseline(self) -> str:
        """What patterns are compared with."""
        return "dense" if self.is_dense else self.table.reference


def _subject(table: Table) -> _Subject:
    is_dense = not any(row.to_reference for row in table.rows)
    lines = tuple(_lines(table, is_dense=is_dense))
    rows = {row.setting: row for row in table.rows}
    dense = {row.setting.backend: row for row in table.rows if row.setting.is_dense}
    factors = {}
    for row in (row for line in lines for row in line.rows.values()):
        setting = row.setting
        other = dense.get(setting.backend) if is_dense else rows.get(setting._replace(pattern=table.reference))
        own, theirs = _cycles(table, row), _cycles(table, other) if other else None
        # Cycles against cycles of the same kind: what a table's own engines make of either.
        factors[setting] = theirs / own if own and theirs else None
    return _Subject(table, is_dense, lines, factors)


def _best(subject: _Subject) -> _Subject:
    """The same with a line per strategy, of the pattern whose mean is best at each sparsity; itself if that is all."""
    by_strategy: dict[Setting, list[_Line]] = {}
    for line in subject.lines:
        by_strategy.setdefault(line.setting._replace(pattern=""), []).append(line)
    most = max((len(lines) for lines in by_strategy.values()), default=1)
    if most == 1:
        return subject
    sign = -1.0 if subject.table.better == "lower" else 1.0
    made = []
    for setting, lines in by_strategy.items():
        rows: dict[float, Row] = {}
        for level in sorted({level for line in lines for level in line.rows}):
            there = [line.rows[level] for line in lines if level in line.rows]
            found = [
                (sign * comparison.difference.mean, -place, row)
                for place, row in enumerate(there)
                if (comparison := _compared(row, is_dense=subject.is_dense)[0]) is not None
            ]
            rows[level] = max(found)[2] if found else there[0]
        made.append(_Line(setting, rows, of=len(lines)))
    return replace(subject, best=tuple(made))


def first_page(
    records: Sequence[Record], *, title: str, margin: float | None, where: Sequence[tuple[str, str]] = ()
) -> Document:
    """The answer of a run, in at most 24 lines of 80 columns as far as names are not longer than that allows.

    Args:
        records: one per planned cell, in the order of the plan.
        title: of the report.
        margin: see `tables.tables`.
        where: where more is to be found, by name.

    Raises:
        EmptySelectionError: there are no records.
        StoreError: two records are of the same cell.
    """
    found = tables(records, margin)
    every, checked = [_subject(table) for table in found], checks.look(records, found)
    best = [_best(subject) for subject in every]
    short = [replace(subject, is_brief=len(found) > 1) for subject in best]
    fewer = range(_MOST_WARNINGS, 0, -1)
    # First every row; then the best pattern at each target; then of each strategy, too, with fewer warnings; then
    # several tables as one, without intervals, with fewer rows of each, and last with fewer tables, since each is an
    # answer. What is left out is counted where it would stand.
    at_targets = (every,) if any(brief(table) for table in found) else ()
    sizes = [
        (every, LINES, _MOST_WARNINGS, False),
        *((subjects, LINES, warnings, True) for subjects in (*at_targets, best, short) for warnings in fewer),
        *((short[:count], most, 1, True) for count in range(len(found), 0, -1) for most in range(LINES, 0, -1)),
    ]
    warned = checked.lines()
    for subjects, most, warnings, of_targets in sizes:
        ran = _what_ran(records, found, title, are_named=not all(subject.is_brief for subject in subjects))
        opening = _opening(
            ran, subjects, warned[:warnings], margin, most, best_at_targets=of_targets, turn=checked.turn()
        )
        more = [plural(len(found) - len(subjects), "table")] if len(subjects) < len(found) else []
        if len(warned) > warnings:
            more.append(plural(len(warned) - warnings, "warning"))
        # Notes are named only: what does not touch the meaning must not push the answer off the screen.
        notes = [f"notes {', '.join(checked.notes())}"] if checked.notes() else []
        told = [f"more: {', '.join([*more, *notes])} (harness report --full)"] if more or notes else []
        told += [f"{name}: {place}" for name, place in where]
        if opening[-1].warnings:
            end = (*opening[:-1], replace(opening[-1], sentences=tuple(told)))
        else:
            end = (*opening, Section(sentences=tuple(told)))
        document = Document("", end)
        if rich.text(document, WIDTH).count("\n") <= LINES:
            break
    return document


def sections(
    records: Sequence[Record],
    found: Sequence[Table],
    *,
    title: str,
    margin: float | None,
    in_words: bool = False,
) -> tuple[Section, ...]:
    """What opens a report that has room.

    Args:
        records: one per planned cell.
        found: their tables.
        title: of the report.
        margin: see `tables.tables`.
        in_words: whether each verdict stands in words beside its sign.
    """
    subjects, checked = [_subject(table) for table in found], checks.look(records, found)
    if in_words:
        subjects = [replace(subject, in_words=True) for subject in subjects]
    ran = _what_ran(records, found, title)
    return _opening(ran, subjects, checked.lines(), margin, None, turn=checked.turn())


def _opening(
    ran: str,
    subjects: Sequence[_Subject],
    warned: Sequence[str],
    margin: float | None,
    most: int | None,
    *,
    best_at_targets: bool = False,
    turn: str = "",
) -> tuple[Section, ...]:
    """What ran, the answers with at most so many rows, and the warnings."""
    answered = [subject for subject in subjects if subject.lines]
    together = len(answered) > 1 and all(subject.is_brief for subject in answered)
    answers = [_together(answered, margin, most)] if together else []
    for subject in subjects:
        answers += [_answer(subject, margin, most)] if subject.lines and not together else []
        plain = _plain_names(subject.table) if best_at_targets else {}
        answers += brief(subject.table, best=best_at_targets, most=most, plain=plain)
    if turn:
        answers.append(Section(sentences=(f"The ranking turns with the class of hardware: {turn} (SPN022).",)))
    return (
        Section(sentences=(ran,)),
        *answers,
        *([Section(warnings=tuple(f"! {line}" for line in warned))] if warned else []),
    )


# --- what ran -------------------------------------------------------------------------------------------------------


def _what_ran(records: Sequence[Record], found: Sequence[Table], title: str, *, are_named: bool = True) -> str:
    done, seeds = sum(record.is_done for record in records), len({record.seed for record in records})
    told = [f"{done} of {len(records)} cells", f"{plural(seeds, 'seed')}"]
    tasks = list(dict.fromkeys(record.task for record in records))
    # Where they head groups of a table, they are only counted here.
    told += tasks if are_named or len(tasks) == 1 else [f"{len(tasks)} tasks"]
    told += dict.fromkeys(record.backend for record in records)
    dense = [_dense(table, row) for table in found for row in table.rows if row.setting.is_dense and row.value]
    dense = list(dict.fromkeys(dense))
    return f"{title}: {', '.join(told)}." + (f" Dense: {'; '.join(dense)}." if dense else "")


def _dense(table: Table, row: Row) -> str:
    assert row.value is not None
    cycles = _cycles(table, row)
    unit = f" {table.unit}" if table.unit else ""
    text = f"{table.metric} {row.value.mean:.{table.digits}f}{unit}"
    return text + ("" if cycles is None else f", {cycles:,.0f} cycles")


def _cycles(table: Table, row: Row) -> float | None:
    """Cycles on the fastest engine of the model that decides."""
    model = table.main_model
    return None if model is None else row.fastest(table.models[model]).cycles


# --- the answer -----------------------------------------------------------------------------------------------------


def _answer(subject: _Subject, margin: float | None, most: int | None) -> Section:
    table, every = subject.table, subject.best or subject.lines
    shown = every[:most]
    # Every sparsity is a column, also where a pattern lacks it: levels are compared along a row.
    levels = sorted({level for line in every for level in line.rows})
    plain: Mapping[str, str] = _plain_names(table) if subject.best else {}
    columns = [*_labels(every, plain), *_cells(subject, plain, levels)]
    # The eye compares along a row: before a screen breaks it, names lose the settings that tell nothing apart, and what
    # is a choice already loses what it buys.
    if most is not None and _width(columns, shown) > WIDTH:
        plain = _plain_names(table)
        if subject.best:
            subject = replace(subject, factors=dict.fromkeys(subject.factors))
        columns = [*_labels(every, plain), *_cells(subject, plain, levels)]
    sentence, *below = _below(subject, shown, plain, margin)
    heading = f"{table.task} {_against(subject)}"
    return Section(heading, (), page.table(columns, shown, caption=below, notes=[sentence]))


def _together(subjects: Sequence[_Subject], margin: float | None, most: int | None) -> Section:
    """The answers of several tables as groups of one, which has a screen's room for them."""
    plain = _plain_names(*(subject.table for subject in subjects))
    shown = [(subject, line) for subject in subjects for line in (subject.best or subject.lines)[:most]]
    columns = _columns_together(subjects, shown, plain)
    if _width(columns, shown) > WIDTH:
        subjects = [replace(subject, factors=dict.fromkeys(subject.factors)) for subject in subjects]
        shown = [(subject, line) for subject in subjects for line in (subject.best or subject.lines)[:most]]
        columns = _columns_together(subjects, shown, plain)
    # What is true of all of them is told once, the rest beside its task.
    against = [_against(subject) for subject in subjects]
    are_alike = len(set(against)) == 1
    groups: dict[int, str] = {}
    below: dict[str, list[str]] = {}
    for subject, told in zip(subjects, against, strict=True):
        task, lines = subject.table.task, subject.best or subject.lines
        groups[next(place for place, row in enumerate(shown) if row[0] is subject)] = (
            task if are_alike else f"{task} {told}"
        )
        for sentence in _below(subject, lines[:most], plain, margin):
            below.setdefault(sentence, []).append(task)
    notes = [text if len(tasks) == len(subjects) else f"{', '.join(tasks)}: {text}" for text, tasks in below.items()]
    heading = against[0][:1].upper() + against[0][1:] if are_alike else ""
    return Section(heading, (), page.table(columns, shown, groups=groups, notes=notes))


def _columns_together(
    subjects: Sequence[_Subject], shown: Sequence[tuple[_Subject, _Line]], plain: Mapping[str, str]
) -> list[Column[tuple[_Subject, _Line]]]:
    every = [line for subject in subjects for line in subject.best or subject.lines]
    levels = sorted({level for line in every for level in line.rows})

    def of_line(shown: Callable[[_Line], Shown], row: tuple[_Subject, _Line]) -> Shown:
        return shown(row[1])

    def at(level: float, row: tuple[_Subject, _Line]) -> str:
        return _cell(row[0], plain, level, row[1])

    labels = [
        Column(each.header, partial(of_line, each.shown), kind=each.kind, matters=each.matters)
        for each in _labels(every, plain)
        if each.shown is not None
    ]
    return [*labels, *(Column(formats.level(level), partial(at, level), kind="number") for level in levels)]


def _against(subject: _Subject) -> str:
    """What the numbers of a table are: differences to what, in what."""
    table = subject.table
    what = f"{table.metric}{f' in {table.unit}' if table.unit else ''}, {table.better} is better"
    return f"against {subject.baseline}: {what}"


def _below(subject: _Subject, shown: Sequence[_Line], plain: Mapping[str, str], margin: float | None) -> list[str]:
    """How to read a table, and what it leaves out."""
    every = subject.best or subject.lines
    below = _legend(subject, shown, margin)
    left = f"{plural(len(every) - len(shown), 'row')} more" if len(shown) < len(every) else ""
    if subject.best:
        choice = f"Best mean of {plural(max(line.of or 1 for line in shown), 'pattern')}, chosen by these numbers"
        choice += ", without intervals" if subject.is_brief else ""
        left = f"{choice}; {left}, {len(subject.lines)} in all" if left else f"{choice}; all {len(subject.lines)} rows"
    sentence = _sentence(subject, plain, margin)
    return [sentence, *below, *([f"{left}: harness report --full."] if left else [])]


def _lines(table: Table, *, is_dense: bool) -> list[_Line]:
    """What is compared: patterns of one strategy side by side."""
    found: dict[Setting, dict[float, Row]] = {}
    for row in table.rows:
        # What was solved for a target has its own table below: its sparsity is nobody's level.
        if is_solved_only(row):
            continue
        if row.setting.is_pruned and (is_dense or row.setting.pattern != table.reference):
            # All sparsities of a setting are one row: it is the setting without its sparsity that tells rows apart.
            found.setdefault(row.setting._replace(target_sparsity=0.0), {})[row.setting.target_sparsity] = row
    firsts = list(dict.fromkeys(setting.strategy for setting in found))
    lines = [_Line(setting, rows) for setting, rows in found.items()]
    return sorted(lines, key=lambda line: firsts.index(line.setting.strategy))


def _cells(subject: _Subject, plain: Mapping[str, str], levels: Sequence[float]) -> list[Column[_Line]]:
    return [Column(formats.level(level), partial(_cell, subject, plain, level), kind="number") for level in levels]


def _labels(lines: Sequence[_Line], plain: Mapping[str, str]) -> Iterable[Column[_Line]]:
    for name in ("strategy", "pattern", "backend", "allocation"):
        if name == "pattern" and any(line.of for line in lines):
            continue  # it stands beside each number
        # Strategy and pattern are always told; of the others only what differs.
        if name in ("strategy", "pattern") or len({getattr(line.setting, name) for line in lines}) > 1:
            yield Column(name, partial(_label, name, plain), kind="label", matters="key")


def _label(name: str, plain: Mapping[str, str], line: _Line) -> str:
    label = str(getattr(line.setting, name))
    return plain.get(label, label)


def _plain_names(*tables: Table) -> dict[str, str]:
    """Labels that are the only ones of their name in the tables, each with this name."""
    settings = [row.setting for table in tables for row in table.rows]
    labels = {label for setting in settings for label in (setting.pattern, setting.strategy)}
    names = Counter(label.partition("(")[0] for label in labels)
    # Only where the name stands alone: `block` for two block sizes would name neither.
    return {label: name for label in labels if names[name := label.partition("(")[0]] == 1}


def _width(columns: Sequence[Column[T]], lines: Sequence[T]) -> int:
    """Columns of a terminal that the table takes when nothing in it is broken."""
    texts = [[column.head, *(str(column.shown(line)) for line in lines if column.shown)] for column in columns]
    return sum(max(map(cell_len, column)) + 1 for column in texts) - 1


def _compared(row: Row, *, is_dense: bool) -> tuple[Comparison | None, Verdict | None]:
    return (row.to_dense, row.dense_verdict) if is_dense else (row.to_reference, row.reference_verdict)


def _judged(row: Row, *, is_dense: bool) -> Verdict | None:
    """A verdict that more than one seed stands behind."""
    comparison, verdict = _compared(row, is_dense=is_dense)
    return verdict if comparison is not None and comparison.difference.n > 1 else None


def _cell(subject: _Subject, plain: Mapping[str, str], level: float, line: _Line) -> str:
    table, is_dense = subject.table, subject.is_dense
    row = line.rows.get(level)
    if row is None:
        return ""
    comparison, _ = _compared(row, is_dense=is_dense)
    if comparison is None:
        return DASH
    verdict = _judged(row, is_dense=is_dense)
    if subject.is_brief:
        text = formats.signed(comparison.difference.mean, table.digits) + (f" {MARKS[verdict]}" if verdict else "")
    else:
        text = formats.difference(comparison, table.digits, verdict)
    if subject.in_words and verdict is not None:
        text += f" {verdict}"
    text += formats.uneven(row.uneven_reference and not is_dense)
    factor = subject.factors[row.setting]
    text = text if factor is None else f"{text} {formats.speedup(factor)}"
    return f"{plain.get(row.setting.pattern, row.setting.pattern)} {text}" if line.of else text


def _sentence(subject: _Subject, plain: Mapping[str, str], margin: float | None) -> str:
    """The verdicts in words; where there are many, how many."""
    baseline = subject.baseline
    found: dict[tuple[str, Verdict, str], list[str]] = {}
    for line in subject.lines:
        for level, row in sorted(line.rows.items()):
            verdict = _judged(row, is_dense=subject.is_dense)
            if verdict is not None:
                pattern, strategy = (plain.get(name, name) for name in (line.setting.pattern, line.setting.strategy))
                key = (pattern, verdict, strategy)
                # A pattern that kept more weights may be better for that alone.
                is_uneven = row.uneven_reference and not subject.is_dense
                found.setdefault(key, []).append(formats.asked(level) + formats.uneven(is_uneven))
    if not found:
        return _why_no_verdict(subject.table, margin)
    clauses: dict[tuple[str, Verdict], list[str]] = {}
    for (pattern, verdict, strategy), levels in found.items():
        at = ", ".join(dict.fromkeys(levels))
        clauses.setdefault((pattern, verdict), []).append(f"{strategy} at {at} %")
    # More clauses than this nobody reads: counts then.
    if sum(map(len, clauses.values())) > _MOST_CLAUSES:
        counts = Counter(verdict for (_, verdict, _), levels in found.items() for _ in levels)
        told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _ORDER if counts[verdict])
        uneven = sum(level.endswith(formats.UNEVEN) for levels in found.values() for level in levels)
        told += f"; {uneven} of them {formats.UNEVEN}" if uneven else ""
        return f"Answer: of {counts.total()} comparisons with {baseline}: {told}."
    order = sorted(clauses.items(), key=lambda item: (item[0][0], _ORDER.index(item[0][1])))
    told = "; ".join(f"{pattern} {verdict} under {', '.join(at)}" for (pattern, verdict), at in order)
    return f"Answer, against {baseline}: {told}."


def _why_no_verdict(table: Table, margin: float | None) -> str:
    """Why nothing is judged: what has not run yet is another matter than what was never asked for."""
    if margin is None and any(row.value is not None and row.value.n > 1 for row in table.rows):
        return "No verdict: the experiment names no margin for `equivalent`."
    if all(row.planned < 2 for row in table.rows):
        return "No verdict: one seed gives no interval; differences may be chance."
    if is_partial(record for row in table.rows for record in row.records):
        return "No verdict yet: it needs two seeds of both settings, and cells are still to run."
    return "No verdict: no two seeds of both settings have a result."


def _legend(subject: _Subject, lines: Sequence[_Line], margin: float | None) -> list[str]:
    """The meaning of every sign that stands in the table."""
    table, is_dense = subject.table, subject.is_dense
    rows = [row for line in lines for row in line.rows.values()]
    verdicts = {_judged(row, is_dense=is_dense) for row in rows}
    parts = []
    within = f" within {margin:g}" if margin is not None else ""
    words = {verdict: verdict + (within if verdict == "equivalent" else "") for verdict in _ORDER}
    marks = ", ".join(f"{MARKS[verdict]} {words[verdict]}" for verdict in _ORDER if verdict in verdicts)
    if marks:
        parts.append(f"{marks} (p < {ALPHA:.2g}, Holm over {table.comparisons})")
    compared = [_compared(row, is_dense=is_dense)[0] for row in rows]
    if not subject.is_brief and any(each is not None and formats.has_interval(each.difference) for each in compared):
        parts.append(f"±: {100 * CONFIDENCE:g} % interval, paired by seed")
    if not subject.is_brief and any(each is not None and formats.is_constant(each.difference) for each in compared):
        parts.append(formats.ALL_EQUAL)
    if any(subject.factors[row.setting] is not None for row in rows):
        parts.append(
            f"×: modelled cycles of {subject.baseline} over these ({table.main_model}, each on its best engine)"
        )
    if not is_dense and any(row.uneven_reference for row in rows):
        parts.append(f"{formats.UNEVEN}: kept weights differ, not of one sparsity")
    if None in compared:
        parts.append(f"{DASH}: no result (why: harness report --full)")
    return [f"{'; '.join(parts)}."] if parts else []
