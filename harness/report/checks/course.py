"""Checks of how the run went: what is missing, and what a result rests on."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import ClassVar

from harness._text import plural
from harness.report.checks.check import NamedCheck, Study
from harness.results.records import DONE, FAILED, PENDING, Record, Severity


class Partial(NamedCheck):
    """Cells are still to come: the table may change."""

    code: ClassVar[str] = "SPN017"
    title: ClassVar[str] = "the run has not finished"
    severity: ClassVar[Severity] = "error"
    remedy: ClassVar[str] = "wait, or give the same `harness run` again: it continues"

    def applies(self, study: Study) -> bool:
        """Always."""
        return bool(study.records)

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """How many cells wait."""
        waiting = [record for record in study.records if record.status in PENDING]
        if waiting:
            yield f"PARTIAL: {len(waiting)} of {len(study.records)} cells have not finished", waiting


class NotReproduced(NamedCheck):
    """A stage that was computed again gave other bytes: the numbers are not a function of what is written down."""

    code: ClassVar[str] = "SPN015"
    title: ClassVar[str] = "result not reproduced"
    severity: ClassVar[Severity] = "error"
    remedy: ClassVar[str] = "`harness show CELL` names the stage; look for another machine, thread count or library"

    def applies(self, study: Study) -> bool:
        """Where there are results."""
        return bool(study.done)

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """How many cells."""
        doubtful = [record for record in study.records if "not_reproduced" in record.facts]
        if doubtful:
            yield f"NOT REPRODUCED: {plural(len(doubtful), 'cell')} gave other bytes when computed again", doubtful


class Failures(NamedCheck):
    """Cells that were to have a result have none: what is left may be a selection."""

    code: ClassVar[str] = "SPN018"
    title: ClassVar[str] = "cells failed"
    severity: ClassVar[Severity] = "error"
    remedy: ClassVar[str] = "`harness report --full` has the reasons, `harness logs CELL` what was printed"

    def applies(self, study: Study) -> bool:
        """Always."""
        return bool(study.records)

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """How many, by status."""
        failed = [record for record in study.records if record.status in FAILED]
        if failed:
            statuses = Counter(record.status for record in failed)
            told = ", ".join(f"{count} {status}" for status, count in statuses.items())
            yield f"{plural(len(failed), 'cell')} failed: {told}", failed


class Skips(NamedCheck):
    """Combinations that a pattern, an engine or a backend declares that it cannot run."""

    code: ClassVar[str] = "SPN019"
    title: ClassVar[str] = "cells skipped"
    severity: ClassVar[Severity] = "note"
    remedy: ClassVar[str] = "`harness plan` tells the reason and what fits instead"
    is_beforehand: ClassVar[bool] = True

    def applies(self, study: Study) -> bool:
        """Always."""
        return bool(study.records)

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """How many."""
        skipped = [r for r in study.records if r.status not in DONE | PENDING | FAILED]
        if skipped:
            yield f"{plural(len(skipped), 'cell')} skipped: a pattern or backend declares that it cannot run", skipped


class OlderCode(NamedCheck):
    """Results were taken that an older version of the code made, because the run was told to trust it."""

    code: ClassVar[str] = "SPN016"
    title: ClassVar[str] = "older code trusted"
    severity: ClassVar[Severity] = "note"
    remedy: ClassVar[str] = "run without --trust-code before anything is published"

    def applies(self, study: Study) -> bool:
        """Where there are results."""
        return bool(study.done)

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """How many cells."""
        trusted = [record for record in study.done if record.facts.get("trusted_code")]
        if trusted:
            yield f"{plural(len(trusted), 'cell')} rest on stages that older code computed (--trust-code)", trusted
