"""What a named check is, and what it looks at."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple, Protocol

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


class NamedCheck(ABC):
    """One way in which a study may mean less than it seems to.

    A subclass sets `code`, `title`, `severity` and `remedy`, says in `applies` whether the study has what it looks at,
    and yields from `look` one sentence for each thing that it found, with the cells it is of.
    """

    code: ClassVar[str]
    title: ClassVar[str]
    severity: ClassVar[Severity]
    remedy: ClassVar[str]
    is_beforehand: ClassVar[bool] = False
    """Whether a plan tells enough for it: then `validate` and `plan` show it too."""

    @abstractmethod
    def applies(self, study: Study) -> bool:
        """Whether there is anything in the study that this check is about."""

    @abstractmethod
    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """Sentences with the numbers found, each with the records that it is of; none where all is well."""

    def findings(self, study: Study) -> list[Found]:
        """What it found, with its code."""
        return [
            Found(
                Finding(code=self.code, severity=self.severity, title=self.title, text=text, remedy=self.remedy),
                frozenset(record.cell for record in records),
            )
            for text, records in self.look(study)
        ]


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
