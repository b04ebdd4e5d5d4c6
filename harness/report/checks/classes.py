"""A check of what kind of hardware a ranking is of: patterns rank differently on different kinds."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from math import log
from statistics import fmean
from typing import NamedTuple

from harness._text import plural
from harness.report.checks.check import Study, Warned, named
from harness.results.records import Record

UNROLLED = "unrolled"
AS_CIRCUIT = "as an unrolled circuit"

_CLEAR = 0.02
"""Relative difference from which on one pattern is ahead of another: less is the luck of masks."""

_Merits = dict[str, dict[str, list[float]]]
"""What every pattern takes, cell by cell, by class of hardware."""


class _Turn(NamedTuple):
    """Two patterns of which one is ahead on one class of hardware and behind on another."""

    first: str
    second: str
    here: tuple[str, float]
    there: tuple[str, float]
    sparsity: float

    @property
    def is_unrolled(self) -> bool:
        """Whether one of the classes is circuits of constants."""
        return UNROLLED in (self.here[0], self.there[0])

    @property
    def clarity(self) -> float:
        """How clear the less clear of both differences is."""
        return min(abs(log(self.here[1])), abs(log(self.there[1])))

    def told(self) -> str:
        """The finding, as a sentence."""
        return (
            f"at {100 * self.sparsity:g} % {self.first} takes {_difference(*self.here)} than {self.second} and "
            f"{_difference(*self.there)}"
        )


@named(
    "SPN022",
    "note",
    "the ranking turns with the class of hardware",
    remedy="say of which class of hardware a conclusion is; `docs/hardware-models.md` tells the classes",
    applies=lambda study: any(_class(cost) for _, cost in study.costs),
)
def ranking_turns(study: Study) -> Warned:
    """A pattern that is ahead of another on one class of hardware is behind it on another.

    Arrays that share multipliers are compared by cycles; circuits of constants, whose cycles are all alike, by LUTs.
    """
    found = [(turn, records) for records in _settings(study).values() for turn in _turns(records)]
    if found:
        # A circuit of constants is costed where somebody asked for it: what turns there is what was asked.
        clearest, _ = max(found, key=lambda each: (each[0].is_unrolled, each[0].clarity))
        more = f" ({plural(len(found), 'pair')} of patterns in all)" if len(found) > 1 else ""
        yield f"{clearest.told()}{more}", [record for _, records in found for record in records]


def _settings(study: Study) -> dict[tuple[object, ...], list[Record]]:
    """Pruned cells that differ in their pattern and seed alone."""
    found: dict[tuple[object, ...], list[Record]] = {}
    for record in study.done:
        if not record.is_dense:
            place = (
                record.task, record.scope, record.backend, record.strategy, record.allocation, record.target_sparsity,
            )  # fmt: skip
            found.setdefault(place, []).append(record)
    return found


def _turns(records: Iterable[Record]) -> Iterator[_Turn]:
    merits: _Merits = {}
    sparsity = 0.0
    for record in records:
        sparsity = record.target_sparsity
        for kind, value in _best(record).items():
            merits.setdefault(kind, {}).setdefault(record.pattern, []).append(value)
    for here, there in combinations(merits, 2):
        both = [pattern for pattern in merits[here] if pattern in merits[there]]
        for pair in combinations(both, 2):
            # The one that is ahead here first.
            first, second = sorted(pair, key=lambda pattern: fmean(merits[here][pattern]))
            ratios = [fmean(merits[kind][first]) / fmean(merits[kind][second]) for kind in (here, there)]
            if ratios[0] < 1 - _CLEAR and ratios[1] > 1 + _CLEAR:
                yield _Turn(first, second, (here, ratios[0]), (there, ratios[1]), sparsity)


def _best(record: Record) -> dict[str, float]:
    """What the record's mask takes on its best engine of every class."""
    found: dict[str, float] = {}
    for cost in record.hardware.values():
        kind = _class(cost)
        value = cost.get("lut" if kind == UNROLLED else "cycles")
        if kind and isinstance(value, int | float) and value > 0:
            found[kind] = min(found.get(kind, float(value)), float(value))
    return found


def _class(cost: Mapping[str, object]) -> str:
    details = cost.get("details")
    return str(details.get("hardware_class") or "") if isinstance(details, dict) else ""


def _difference(kind: str, ratio: float) -> str:
    what = "LUTs" if kind == UNROLLED else "cycles"
    where = AS_CIRCUIT if kind == UNROLLED else f"on {kind} hardware"
    return f"{abs(ratio - 1):.0%} {'fewer' if ratio < 1 else 'more'} {what} {where}".replace("%", " %")
