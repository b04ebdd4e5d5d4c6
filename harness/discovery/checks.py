"""Named checks of third parties, each guarded: whatever one does, the study is reported."""

from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

from harness import _text
from harness.api import HarnessError, ReportRow, StudyCheck
from harness.discovery.columns import offered
from harness.discovery.guard import calling, refused

Findings = list[tuple[str, tuple[ReportRow, ...]]]


class GuardedCheck:
    """A check that never raises: where its code does, that is what it tells.

    Args:
        check: the third party's.

    Attributes:
        fault: what went wrong in it when it looked last, in a sentence with file and line; empty if nothing did.
    """

    def __init__(self, check: StudyCheck) -> None:
        self._check = check
        self.fault = ""

    @property
    def code(self) -> str:
        """Its code, which is none of the harness's."""
        return self._check.code

    @property
    def title(self) -> str:
        """What it warns of."""
        return _text.clean(self._check.title)

    @property
    def severity(self) -> Literal["error", "warning", "note"]:
        """How much that matters."""
        return self._check.severity

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return _text.clean(self._check.remedy)

    @property
    def is_beforehand(self) -> bool:
        """Whether it can look at a plan."""
        return bool(self._check.is_beforehand)

    def look(self, rows: Sequence[ReportRow]) -> Findings | None:
        """Sentences and the rows that they are of, which are among those given; None where it does not apply."""
        self.fault = ""
        try:
            with calling(self._check):
                if not self._check.applies(rows):
                    return None
                return [self._checked(each, rows) for each in self._check.look(rows) or ()]
        # What ends a check never ends a report: even memory that one check used up.
        except (HarnessError, MemoryError, RecursionError) as error:
            self.fault = _text.clean(str(error))
            return []

    def _checked(self, found: object, rows: Sequence[ReportRow]) -> tuple[str, tuple[ReportRow, ...]]:
        match found:
            case (str(text), which) if text.strip() and isinstance(which, Iterable):
                # By identity: rows of equal content exist, and a check has to name those it was given.
                mine, given = tuple(which), set(map(id, rows))
                if mine and all(id(row) in given for row in mine):
                    return _text.clean(text.strip().rstrip(".")), mine
        expected = "a sentence and some of the rows that it was given, from `look`"
        raise refused(self._check, expected, _text.clean(repr(found), 80), "look")


def study_checks(files: Iterable[Path] = (), found: Iterable[EntryPoint] | None = None) -> tuple[GuardedCheck, ...]:
    """The checks that installed packages and files of the user's offer, by code.

    Args, Raises: see `report_columns`.
    """
    made = [component for _, component in offered("check", files, found) if isinstance(component, StudyCheck)]
    return tuple(GuardedCheck(check) for check in sorted(made, key=lambda check: check.code))
