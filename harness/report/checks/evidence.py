"""Checks of how much a comparison can show at all."""

from collections.abc import Iterable

from harness._text import plural
from harness.report import formats
from harness.report.checks.check import Study, Warned, named, records_of
from harness.results.records import Record
from harness.results.statistics import ALPHA, signed_rank_floor


@named(
    "SPN007",
    "warning",
    "one seed",
    remedy="run five seeds or more: `seed: [0, 1, 2, 3, 4]`",
    applies=lambda study: bool(study.records),
    is_beforehand=True,
)
def one_seed(study: Study) -> Warned:
    """One training says nothing of how far another one would have ended."""
    # Skipped rows have no seeds that could be added.
    rows = [row for row in study.rows if row.planned == 1 and _can_run(row.records)]
    if rows:
        yield "one seed: no interval and no verdict, differences may be chance", records_of(rows)


@named(
    "SPN008",
    "note",
    "smallest reachable p above alpha",
    remedy="add seeds: six pairs can reach p = 0.03",
    applies=lambda study: any(row.planned > 1 for row in study.pruned),
    is_beforehand=True,
)
def smallest_p(study: Study) -> Warned:
    """With few pairs no test without an assumption of normality can reach the level that verdicts are made at."""
    rows = [row for row in study.pruned if row.planned > 1 and _can_run(row.records)]
    most = max((row.planned for row in rows), default=0)
    if most and signed_rank_floor(most) > ALPHA:
        yield (
            f"{most} seeds: without assuming normal differences no test goes below p = {signed_rank_floor(most):.3g}",
            records_of(rows),
        )


@named(
    "SPN009",
    "warning",
    "kept weights differ in a comparison",
    remedy="ask for a sparsity that all patterns reach: `harness plan` names the nearest",
    applies=lambda study: any(row.sparsity is not None for row in study.pruned),
)
def kept_weights_differ(study: Study) -> Warned:
    """Settings that were asked for one sparsity keep clearly different numbers of weights."""
    rows = [row for row in study.pruned if row.uneven]
    if rows:
        yield (
            f"{formats.UNEVEN}: {plural(len(rows), 'setting')} kept clearly more or fewer weights than others at "
            "one asked sparsity",
            records_of(rows),
        )


def _can_run(records: Iterable[Record]) -> bool:
    return any(record.status != "skipped" for record in records)
