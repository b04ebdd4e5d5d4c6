"""Checks of report columns and of named checks, and the rows that they are tried on; found in `harness.testing`."""

import math
from collections.abc import Sequence
from dataclasses import replace

from harness.api import JsonValue, ReportColumn, ReportRow, StudyCheck
from harness.api.promises import demand


def check_column(column: ReportColumn, rows: Sequence[ReportRow] | None = None) -> None:
    """What a report column promises of every row it may meet.

    Args:
        column: the column, with any parameters.
        rows: what it is asked about; by default `report_rows()`, on at least one of which it must have a value.

    Raises:
        PluginContractError: the first promise it breaks.
        Exception: whatever the column raises; in a report it would be left empty there.
    """
    where = f"column {column.name}"
    demand(isinstance(column.header, str), where, f"a header that is a text, got {column.header!r}")
    demand(isinstance(column.about, str), where, f"an `about` that is a text, got {column.about!r}")
    weights = ("main", "second", "extra")
    demand(column.matters in weights, where, f"`matters` to be one of {', '.join(weights)}, got {column.matters!r}")
    asked = report_rows() if rows is None else tuple(rows)
    found = False
    for row in asked:
        value, at = column.value(row), f"{where} on {row.pattern}, {row.strategy}, {len(row.values)} seeds"
        number = isinstance(value, int | float) and math.isfinite(value)  # a bool is an int
        demand(value is None or isinstance(value, str) or number, at, f"a finite number, a text or None, got {value!r}")
        demand(value == column.value(row), at, "the same value when asked twice")
        demand(isinstance(column.footnote(row), str), at, "a footnote that is a text")
        if value is not None:
            found = True
            demand(isinstance(column.shown(value), str), at, f"a text for {value!r} from `shown`")
    for some in (asked, asked[:1], ()):
        demand(isinstance(column.applies(some), bool), where, "`applies` to be true or false, for no rows too")
    demand(found or rows is not None, where, "a value for at least one of `report_rows()`; pass `rows` that have one")


def check_study_check(check: StudyCheck, rows: Sequence[ReportRow] | None = None) -> None:
    """What a named check promises of every study it may meet.

    Args:
        check: the check, with any parameters.
        rows: the settings that it is asked about; by default `report_rows()`.

    Raises:
        PluginContractError: the first promise it breaks.
        Exception: whatever the check raises; a report would say that it was not made.
    """
    where = f"check {check.name}"
    asked = report_rows() if rows is None else tuple(rows)
    for some in (asked, asked[:1], ()):
        at = f"{where} on {len(some)} rows"
        demand(isinstance(check.applies(some), bool), at, "`applies` to be true or false, for no rows too")
        if check.applies(some):
            found = _findings(check, some, at)
            demand(found == _findings(check, some, at), at, "the same findings when asked twice")


def _findings(check: StudyCheck, rows: Sequence[ReportRow], at: str) -> list[tuple[str, list[int]]]:
    """Each sentence, with the places of its rows."""
    found, places = [], {id(row): place for place, row in enumerate(rows)}
    for each in check.look(rows) or ():
        pair = isinstance(each, tuple) and len(each) == 2 and isinstance(each[0], str) and bool(each[0].strip())
        demand(pair, at, f"pairs of a sentence and rows from `look`, got {each!r:.80}")
        text, which = each
        mine = [places.get(id(row)) for row in which]
        demand(mine and None not in mine, at, f"{text!r:.60} to be of one or more of the rows that it was given")
        found.append((text, [place for place in mine if place is not None]))
    return found


def report_rows() -> tuple[ReportRow, ...]:
    """Rows as a report has them: a baseline, pruned settings, one with a single seed, some without result or costs."""
    figures = {"cycles": 120.0, "latency_us": 0.6, "speedup": 2.5, "dsp": 64.0}
    record: dict[str, JsonValue] = {"status": "ok", "seed": 0, "value": 10.0, "train_seconds": 12.5}
    dense = ReportRow(
        task="digits", backend="torch", metric="perplexity", values={0: 10.0, 1: 10.4}, sparsity=0.0,
        model_sparsity=0.0, total_epochs=10, hardware={"simulator[a]": figures},
        records=(record, {**record, "seed": 1}),
    )  # fmt: skip
    pruned = replace(
        dense, pattern="unstructured", allocation="uniform", strategy="fine_tuning", target_sparsity=0.9,
        values={0: 11.0, 1: 11.2}, sparsity=0.9, model_sparsity=0.74, total_epochs=15, retrain_epochs=5, dense=dense,
    )  # fmt: skip
    failed = {**record, "status": "failed", "value": None, "reason": "it diverged"}
    return (
        dense,
        pruned,
        replace(pruned, strategy="gradual", values={1: 11.0}, records=(record,)),
        replace(pruned, pattern="block", dense=None),
        replace(pruned, pattern="block", hardware={}),
        replace(pruned, pattern="n_m", values={}, sparsity=None, model_sparsity=None, hardware={}, records=(failed,)),
    )
