"""What a named check is, and what it looks at."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

from harness.api import ReportRow
from harness.report.added import seen
from harness.report.rows import Row, Table
from harness.results.records import Finding, Record, Severity

ANCHOR = "docs/checks.md"
"""Where every check is described, under its code."""


class Found(NamedTuple):
    """A finding and the cells that it is of."""

    finding: Finding
    cells: frozenset[str]


@dataclass(frozen=True)
class Study:
    """What a report is made of.

    Args:
        records: one per planned cell.
        tables: their rows, one table per task and scope.
    """

    records: Sequence[Record]
    tables: Sequence[Table] = field(repr=False)

    @cached_property
    def done(self) -> tuple[Record, ...]:
        """The records that have a result."""
        return tuple(record for record in self.records if record.is_done)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows that are no baseline; the baselines where there is nothing else."""
        # A study of baselines alone can still have one seed.
        return self.pruned or tuple(row for table in self.tables for row in table.rows)

    @cached_property
    def pruned(self) -> tuple[Row, ...]:
        """The rows that are no baseline."""
        return tuple(row for table in self.tables for row in table.rows if not row.setting.is_dense)

    @cached_property
    def costs(self) -> tuple[tuple[Record, dict[str, object]], ...]:
        """Every cost of a finished cell, beside its record; reasons for a missing one are none."""
        return tuple(
            (record, dict(cost)) for record in self.done for cost in record.hardware.values() if "cycles" in cost
        )

    @cached_property
    def seen(self) -> tuple[tuple[ReportRow, tuple[str, ...]], ...]:
        """Every row as third parties see it, with the ids of its cells."""
        shown = [(row, rows[row.setting]) for table in self.tables if (rows := seen(table)) for row in table.rows]
        return tuple((each, tuple(record.cell for record in row.records)) for row, each in shown)


Warned = Iterator[tuple[str, Iterable[Record]]]
"""Sentences with the numbers found, each with the records that it is of; none where all is well."""


@dataclass(frozen=True)
class NamedCheck:
    """One way in which a study may mean less than it seems to.

    Args:
        code: what it is known by; never changes its meaning.
        severity: how much of the meaning is at stake.
        title, remedy: the way in a few words, and what to do about it.
        applies: whether the study has what this check is about.
        look: what it finds.
        is_beforehand: whether a plan tells enough for it: then `validate` and `plan` show it too.
    """

    code: str
    severity: Severity
    title: str
    remedy: str
    applies: Callable[[Study], bool]
    look: Callable[[Study], Warned]
    is_beforehand: bool = False

    def findings(self, study: Study) -> list[Found]:
        """What it found, with its code."""
        return [
            Found(
                Finding(code=self.code, severity=self.severity, title=self.title, text=text, remedy=self.remedy),
                frozenset(record.cell for record in records),
            )
            for text, records in self.look(study)
        ]


def named(
    code: str,
    severity: Severity,
    title: str,
    *,
    remedy: str,
    applies: Callable[[Study], bool],
    is_beforehand: bool = False,
) -> Callable[[Callable[[Study], Warned]], NamedCheck]:
    """Make a check of the function below: it yields one sentence for each thing that it finds, with its cells."""
    return lambda look: NamedCheck(code, severity, title, remedy, applies, look, is_beforehand)


class AddedCheck(Protocol):
    """A check of somebody else's, guarded: nothing that it is asked raises.

    Attributes:
        fault: what went wrong in it when it looked last, in a sentence; empty if nothing did.
    """

    fault: str

    @property
    def code(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def severity(self) -> Severity: ...  # noqa: D102
    @property
    def remedy(self) -> str: ...  # noqa: D102
    @property
    def is_beforehand(self) -> bool: ...  # noqa: D102
    def look(self, rows: Sequence[ReportRow]) -> list[tuple[str, tuple[ReportRow, ...]]] | None: ...  # noqa: D102


def asked(check: AddedCheck, study: Study) -> list[Found] | None:
    """What somebody else's check found; that it broke is a finding, too. None where it does not apply."""
    # By identity, as checks name the very rows that they were given.
    cells = {id(row): own for row, own in study.seen}
    found = check.look([row for row, _ in study.seen])
    if check.fault:
        broken = Finding(
            code=check.code, severity="warning", title=f"not checked: {check.title}", text=check.fault,
            remedy="mend the plugin, or take it away",
        )  # fmt: skip
        return [Found(broken, frozenset(cell for own in cells.values() for cell in own))]
    return (
        None
        if found is None
        else [
            Found(
                Finding(code=check.code, severity=check.severity, title=check.title, text=text, remedy=check.remedy),
                frozenset(cell for row in rows for cell in cells[id(row)]),
            )
            for text, rows in found
        ]
    )


def records_of(rows: Iterable[Row]) -> list[Record]:
    """The records behind rows."""
    return [record for row in rows for record in row.records]
