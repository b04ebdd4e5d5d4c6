"""Named checks: what would make a study mean less than it seems to, from records alone.

Every check has a code that never changes its meaning, a page (`docs/checks.md`), and a remedy. What an experiment
silences with `ignore: [SPN007]` is still counted, under `silenced`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.report.checks import classes, costs, course, evidence, training
from harness.report.checks.check import ANCHOR, AddedCheck, Found, NamedCheck, Study, asked
from harness.report.rows import Table
from harness.report.tables import tables
from harness.results.records import Finding, Record, Severity

__all__ = ["ANCHOR", "CHECKS", "AddedCheck", "Found", "NamedCheck", "Study", "Summary", "beforehand", "look", "noted"]

CHECKS: tuple[NamedCheck, ...] = (
    course.partial, course.not_reproduced, training.worse_than_known, course.failures, training.same_split,
    evidence.kept_weights_differ, evidence.one_seed, training.still_improving, training.hardly_gradual,
    training.tiny_rate, training.better_than_dense, training.small_part, costs.mostly_constants,
    costs.empty_tensors, costs.no_fit, costs.other_precision, training.unequal_budgets, evidence.smallest_p,
    costs.not_validated, classes.ranking_turns, course.older_code, course.skips,
)  # fmt: skip
"""Every check, worst first among those of one severity."""

_ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Summary:
    """What all checks say of a study.

    Args:
        found: warnings, worst first.
        silenced: those that the experiment need not hear of.
        passed: codes of the checks that found nothing; idle: of those that the study gives nothing to look at.
    """

    found: tuple[Found, ...]
    silenced: tuple[Found, ...]
    passed: tuple[str, ...]
    idle: tuple[str, ...]

    def of(self, cell: str) -> tuple[Finding, ...]:
        """What is warned of in one cell."""
        return tuple(found.finding for found in self.found if cell in found.cells)

    def lines(self) -> list[str]:
        """What takes meaning or certainty from the study, as sentences, each with its code; notes are not among it."""
        return [f"{each.finding.code} {each.finding.text}." for each in self.found if each.finding.severity != "note"]

    def turn(self) -> str:
        """How the ranking of patterns turns between time-shared arrays and circuits of constants; empty if it does not.

        Both are in a study because somebody asked how they differ: that is an answer, and more than a note.
        """
        told = [each.finding.text for each in self.found if each.finding.code == classes.ranking_turns.code]
        return next((text for text in told if classes.AS_CIRCUIT in text), "")

    def errors(self) -> tuple[str, ...]:
        """The codes of what takes the meaning from the numbers: nothing should be concluded from them."""
        return tuple(dict.fromkeys(each.finding.code for each in self.found if each.finding.severity == "error"))

    def notes(self) -> tuple[str, ...]:
        """The codes of what is worth knowing and no more."""
        return tuple(dict.fromkeys(each.finding.code for each in self.found if each.finding.severity == "note"))


def look(records: Sequence[Record], found: Sequence[Table] | None = None, added: Sequence[AddedCheck] = ()) -> Summary:
    """What the checks say of these records.

    Args:
        records: one per planned cell; what checks of plugins found lies in them.
        found: their tables, where they are made already.
        added: checks of plugins that look anew.
    """
    return _summary(Study(records, tables(records) if found is None else found), CHECKS, added)


def beforehand(records: Sequence[Record], added: Sequence[AddedCheck] = ()) -> Summary:
    """What can be said of a plan, before anything has run."""
    study = Study(records, tables(records))
    own = [check for check in CHECKS if check.is_beforehand]
    return _summary(study, own, [check for check in added if check.is_beforehand])


def noted(records: Sequence[Record], added: Sequence[AddedCheck] = ()) -> list[Record]:
    """The records, each with what the checks warn of in it.

    What a plugin's check found is kept where it is silenced, too: a report, which has no plugins, lists it as that.
    """
    if not records:
        return []
    by_cell: dict[str, list[Finding]] = {}
    summary, own = look(records, added=added), {check.code for check in CHECKS}
    # Our own silenced checks are not noted; those of plugins are, since a report cannot ask them again.
    for found in (*summary.found, *(each for each in summary.silenced if each.finding.code not in own)):
        for cell in found.cells:
            by_cell.setdefault(cell, []).append(found.finding)
    return [
        record if (new := tuple(by_cell.get(record.cell, ()))) == record.checks
        else record.model_copy(update={"checks": new})
        for record in records
    ]  # fmt: skip


def _summary(study: Study, checks: Iterable[NamedCheck], added: Sequence[AddedCheck] = ()) -> Summary:
    # What any record of the study ignores is ignored: they come from one experiment.
    ignored = {code for record in study.records for code in record.ignore}
    every: list[Found] = []
    passed: list[str] = []
    idle: list[str] = []
    for check in checks:
        mine = check.findings(study) if check.applies(study) else []
        every += mine
        if not mine:
            # That nothing was found means something only where there was something to look at.
            (passed if check.applies(study) else idle).append(check.code)
    for other in added:
        theirs = asked(other, study)
        every += theirs or []
        if not theirs:
            (idle if theirs is None else passed).append(other.code)
    every += _foreign(study.records, {other.code for other in added})
    # Stable: within a severity the order of the list above.
    every.sort(key=lambda found: _ORDER.index(found.finding.severity))
    silenced = tuple(found for found in every if found.finding.code in ignored)
    kept = tuple(found for found in every if found.finding.code not in ignored)
    return Summary(kept, silenced, tuple(sorted(passed)), tuple(sorted(idle)))


def _foreign(records: Iterable[Record], anew: set[str]) -> list[Found]:
    """What checks of plugins found while the study ran: a report has no plugins, and takes it from the records."""
    own = {check.code for check in CHECKS} | anew
    cells: dict[Finding, set[str]] = {}
    for record in records:
        for finding in record.checks:
            if finding.code not in own:
                cells.setdefault(finding, set()).add(record.cell)
    return [Found(finding, frozenset(which)) for finding, which in cells.items()]
