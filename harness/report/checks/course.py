"""Checks of how the run went: what is missing, and what a result rests on."""

from collections import Counter

from harness._text import plural
from harness.report.checks.check import Study, Warned, named
from harness.results.records import DONE, FAILED, PENDING


@named(
    "SPN017",
    "error",
    "the run has not finished",
    remedy="wait, or give the same `harness run` again: it continues",
    applies=lambda study: bool(study.records),
)
def partial(study: Study) -> Warned:
    """Cells are still to come: the table may change."""
    waiting = [record for record in study.records if record.status in PENDING]
    if waiting:
        have = "has" if len(waiting) == 1 else "have"
        yield f"PARTIAL: {len(waiting)} of {len(study.records)} cells {have} not finished", waiting


@named(
    "SPN015",
    "error",
    "result not reproduced",
    remedy="`harness show CELL` names the stage; look for another machine, thread count or library",
    applies=lambda study: bool(study.done),
)
def not_reproduced(study: Study) -> Warned:
    """A stage that was computed again gave other bytes: the numbers are not a function of what is written down."""
    doubtful = [record for record in study.records if "not_reproduced" in record.facts]
    if doubtful:
        yield f"NOT REPRODUCED: {plural(len(doubtful), 'cell')} gave other bytes when computed again", doubtful


@named(
    "SPN018",
    "error",
    "cells failed",
    remedy="`harness report --full` has the reasons, `harness logs CELL` what was printed",
    applies=lambda study: bool(study.records),
)
def failures(study: Study) -> Warned:
    """Cells that were to have a result have none: what is left may be a selection."""
    failed = [record for record in study.records if record.status in FAILED]
    if failed:
        statuses = Counter(record.status for record in failed)
        told = ", ".join(f"{count} {status}" for status, count in statuses.items())
        yield f"{plural(len(failed), 'cell')} failed: {told}", failed


@named(
    "SPN019",
    "note",
    "cells skipped",
    remedy="`harness plan` tells the reason and what fits instead",
    applies=lambda study: bool(study.records),
    is_beforehand=True,
)
def skips(study: Study) -> Warned:
    """Combinations that a pattern, an engine or a backend declares that it cannot run."""
    skipped = [r for r in study.records if r.status not in DONE | PENDING | FAILED]
    if skipped:
        yield f"{plural(len(skipped), 'cell')} skipped: a pattern or backend declares that it cannot run", skipped


@named(
    "SPN016",
    "note",
    "older code trusted",
    remedy="run without --trust-code before anything is published",
    applies=lambda study: bool(study.done),
)
def older_code(study: Study) -> Warned:
    """Results were taken that an older version of the code made, because the run was told to trust it."""
    trusted = [record for record in study.done if record.facts.get("trusted_code")]
    if trusted:
        yield f"{plural(len(trusted), 'cell')} rest on stages that older code computed (--trust-code)", trusted
