"""A named check of somebody's own: what would make a study mean less than it seems to."""

import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

from harness.api.column import ReportRow
from harness.api.component import Component, Kind
from harness.errors import PluginContractError

_CODE = re.compile(r"(?!SPN)[A-Z]{2,8}[0-9]{3}")


class StudyCheck(Component):
    """A check that every study is held to wherever its package is installed, beside those of `docs/checks.md`.

    Subclasses set `name`, `code`, `title` and, where they have one, `remedy`, and say in `look` what they found. What a
    check sees are the settings of a study, so it works for runs that ended before it was written.

    Example:
        A check that asks for three seeds.

        >>> class FewSeeds(StudyCheck):
        ...     "Fewer than three seeds."
        ...     name = "few_seeds"
        ...     code = "ACME001"
        ...     title = "fewer than three seeds"
        ...     remedy = "run three seeds or more"
        ...     def look(self, rows):
        ...         few = [row for row in rows if len(row.values) < 3]
        ...         if few:
        ...             yield f"{len(few)} of {len(rows)} settings have fewer than three seeds", few
        >>> [text for text, _ in FewSeeds().look([ReportRow(values={0: 11.0})])]
        ['1 of 1 settings have fewer than three seeds']
    """

    kind: ClassVar[Kind] = "check"
    code: ClassVar[str]
    """Two to eight capitals and three digits, such as `ACME001`, for good; those with `SPN` are the harness's."""
    title: ClassVar[str]
    """What it warns of, in a few words."""
    severity: ClassVar[Literal["error", "warning", "note"]] = "warning"
    """What it takes from a study: its meaning, the certainty of an answer, or nothing but ease."""
    remedy: ClassVar[str] = ""
    """What to do about it."""
    is_beforehand: ClassVar[bool] = False
    """Whether a plan tells enough for it, in which no row has a value: then `validate` and `plan` show it too."""

    @abstractmethod
    def look(self, rows: Sequence[ReportRow]) -> Iterable[tuple[str, Iterable[ReportRow]]]:
        """What was found: one sentence each, with its numbers, and the rows it is of; nothing where all is well.

        Args:
            rows: the settings of a study, baselines and failed ones among them; of some plans there are none.
        """

    def applies(self, rows: Sequence[ReportRow]) -> bool:
        """Whether the study has anything that this check is about."""
        return bool(rows)

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a class that does not say what a finding needs.

        Raises:
            PluginContractError: its code, title, severity or remedy cannot stand in a report.
        """
        code, severity = getattr(self, "code", None), self.severity
        wanted = {
            "code": (isinstance(code, str) and _CODE.fullmatch(code), code, "such as ACME001, not beginning with SPN"),
            "title": (_is_told(title := getattr(self, "title", None)), title, "a few words"),
            "severity": (severity in ("error", "warning", "note"), severity, "error, warning or note"),
            "remedy": (isinstance(self.remedy, str), self.remedy, "a text"),
        }
        for name, (is_right, got, expected) in wanted.items():
            if not is_right:
                raise PluginContractError(
                    f"check {self.name}: expected `{name}` to be {expected}, got {got!r}; mend the plugin"
                )


def _is_told(text: object) -> bool:
    return isinstance(text, str) and bool(text.strip())
