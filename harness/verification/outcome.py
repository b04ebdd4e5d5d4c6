"""What a verification finds: problems, what could not be checked, and how much was."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

About = Literal[
    "schema", "grid", "seeds", "labels", "sparsity", "budget", "metric", "stages", "files", "masks", "hardware",
    "storage", "sources", "tables", "named checks",
]  # fmt: skip
"""What a finding is about; one word for each kind of fact that is looked at."""


@dataclass(frozen=True)
class Problem:
    """Something that does not hold.

    Args:
        about: the kind of fact.
        place: the cell or file.
        text: one sentence: what was expected, and what is there.
    """

    about: About
    place: str
    text: str


@dataclass
class Outcome:
    """What was looked at.

    Args:
        checked: number of facts that held or did not, by kind.
        problems: those that did not.
        unchecked: what could not be looked at and why, with its number of cells.
        warnings: what named checks say; they are no problem of the file.
    """

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    unchecked: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    def hold(self, condition: bool, about: About, place: str, text: str) -> bool:
        """Count a fact; where it does not hold, keep the sentence."""
        self.checked[about] += 1
        if not condition:
            self.problems.append(Problem(about, place, text))
        return condition

    def skip(self, why: str, cells: int = 1) -> None:
        """Say that something was not looked at."""
        self.unchecked[why] += cells

    @property
    def is_clean(self) -> bool:
        """Whether everything that could be looked at holds."""
        return not self.problems


def close(one: float | None, other: float | None, part: float = 1e-9) -> bool:
    """Whether two numbers differ by rounding only."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= part * max(abs(one), abs(other), 1e-9)


def several(values: Iterable[object]) -> str:
    """Values as an enumeration, the first five of them."""
    every = [str(value) for value in values]
    return ", ".join(every[:5]) + (f" and {len(every) - 5} more" if len(every) > 5 else "")
