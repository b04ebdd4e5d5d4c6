"""Checks of how much a comparison can show at all."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from harness._text import plural
from harness.report import formats
from harness.report.checks.check import NamedCheck, Study, records_of
from harness.results.records import Record, Severity
from harness.results.statistics import ALPHA, signed_rank_floor


class OneSeed(NamedCheck):
    """One training says nothing of how far another one would have ended."""

    code: ClassVar[str] = "SPN007"
    title: ClassVar[str] = "one seed"
    severity: ClassVar[Severity] = "warning"
    remedy: ClassVar[str] = "run five seeds or more: `seed: [0, 1, 2, 3, 4]`"
    is_beforehand: ClassVar[bool] = True

    def applies(self, study: Study) -> bool:
        """Always."""
        return bool(study.records)

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """How many settings have one seed alone."""
        # Skipped rows have no seeds that could be added.
        rows = [row for row in study.rows if row.planned == 1 and _can_run(row.records)]
        if rows:
            yield "one seed: no interval and no verdict, differences may be chance", records_of(rows)


class SmallestP(NamedCheck):
    """With few pairs no test without an assumption of normality can reach the level that verdicts are made at."""

    code: ClassVar[str] = "SPN008"
    title: ClassVar[str] = "smallest reachable p above alpha"
    severity: ClassVar[Severity] = "note"
    remedy: ClassVar[str] = "add seeds: six pairs can reach p = 0.03"
    is_beforehand: ClassVar[bool] = True

    def applies(self, study: Study) -> bool:
        """Where there are pairs."""
        return any(row.planned > 1 for row in study.pruned)

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """The most seeds that a setting has."""
        rows = [row for row in study.pruned if row.planned > 1 and _can_run(row.records)]
        most = max((row.planned for row in rows), default=0)
        if most and signed_rank_floor(most) > ALPHA:
            yield (
                f"{most} seeds: without assuming normal differences no test goes below p = "
                f"{signed_rank_floor(most):.3g}",
                records_of(rows),
            )


class KeptWeightsDiffer(NamedCheck):
    """Settings that were asked for one sparsity keep clearly different numbers of weights."""

    code: ClassVar[str] = "SPN009"
    title: ClassVar[str] = "kept weights differ in a comparison"
    severity: ClassVar[Severity] = "warning"
    remedy: ClassVar[str] = "ask for a sparsity that all patterns reach: `harness plan` names the nearest"

    def applies(self, study: Study) -> bool:
        """Where sparsities were counted."""
        return any(row.sparsity is not None for row in study.pruned)

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """How many rows."""
        rows = [row for row in study.pruned if row.uneven]
        if rows:
            yield (
                f"{formats.UNEVEN}: {plural(len(rows), 'setting')} kept clearly more or fewer weights than others at "
                "one asked sparsity",
                records_of(rows),
            )


def _can_run(records: Iterable[Record]) -> bool:
    return any(record.status != "skipped" for record in records)
