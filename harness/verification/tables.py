"""The numbers of a written report, computed once more from the records beside it."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.api import read_plain_text
from harness.results.records import Record
from harness.verification.outcome import Outcome

_VALUE = re.compile(r"(-?\d[\d,]*\.?\d*)(?:\s*±\s*(\d[\d,]*\.?\d*))?")

_MOST_BYTES = 1 << 26
"""Of a report."""

_MINUS = {0x2212: "-"}
"""A minus sign of its own, as typesetters like it."""


def check_tables(records: Sequence[Record], path: Path, outcome: Outcome) -> None:
    """Means and intervals of the table of results in a Markdown report.

    Args:
        records: all of the file.
        path: the report; where there is none, nothing is said of it.
        outcome: where findings go.
    """
    if not path.is_file():
        return
    groups: dict[_Group, dict[str, list[float]]] = defaultdict(dict)
    for record in records:
        shown = groups[_group(record)]
        for column, value in _values(record):
            shown.setdefault(column, []).append(value)
    found = 0
    for heading, row in _rows(read_plain_text(path, "the report of a run", most=_MOST_BYTES)):
        metric = next((name for name in row if name.endswith("(test)")), None)
        if metric is None or "pattern" not in row or "strategy" not in row:
            continue
        mine = [values for group, values in groups.items() if group.is_of(heading, row)]
        if len(mine) != 1:
            continue
        labels = ("pattern", "strategy", "asked %")
        place = " · ".join(row[name] for name in labels if row.get(name) and row[name] != "-")
        for column, values in ((metric, mine[0].get(_TEST)), *((name, mine[0].get(name)) for name in row)):
            match = _VALUE.match(row[column].translate(_MINUS))
            if values and match:
                found += 1
                _check(row[column], match, values, place, outcome)
        if _TEST not in mine[0]:
            text = f"expected no value in the report, as the records have none, got {row[metric]}"
            outcome.hold(not _VALUE.match(row[metric].translate(_MINUS)), "tables", place, text)
    if not found:
        outcome.skip(f"{path.name}: no row of its results could be told apart")


_TEST = "(test)"


def _values(record: Record) -> Iterator[tuple[str, float]]:
    """What a record adds to the means of a row: its test value, and those in the numbers of hardware, by column."""
    if not record.is_done or record.value is None:
        return
    yield _TEST, record.value
    by_format: dict[str, float] = {}
    for score in record.fixed_point.values():
        value = score.get("value")
        if isinstance(value, int | float):
            by_format.setdefault(f"{record.metric} as {score.get('format')}", float(value))
    yield from by_format.items()


class _Group(NamedTuple):
    """What the seeds of one row have in common."""

    task: str
    scope: str
    backend: str
    allocation: str
    labels: tuple[str, ...]

    def is_of(self, heading: str, row: Mapping[str, str]) -> bool:
        """Whether a row below a heading shows it; a table says in its heading or its columns what not all rows share.

        A pooled table names no backend: any may be meant, and only one then has these labels.
        """
        told = re.fullmatch(r"Results: (?P<task>.*?)(?:, pruned: (?P<scope>.*))?", heading)
        if told and (told["task"] != self.task or told["scope"] not in (None, self.scope)):
            return False
        if not row.get("backend", self.backend).startswith(self.backend):
            return False
        if row["pattern"] == "dense":
            return self.labels == ("dense",)
        if row.get("allocation", self.allocation) != self.allocation:
            return False
        return self.labels == (row["pattern"], row["strategy"], row.get("asked %", ""))


def _group(record: Record) -> _Group:
    asked = f"{round(100 * record.target_sparsity, 6):g}"
    labels = ("dense",) if record.is_dense else (record.pattern, record.strategy, asked)
    return _Group(record.task, ", ".join(record.scope), record.backend, record.allocation, labels)


def _check(shown: str, match: re.Match[str], values: Sequence[float], place: str, outcome: Outcome) -> None:
    n = len(values)
    mean = math.fsum(values) / n
    outcome.hold(
        _rounds(mean, match[1]),
        "tables",
        place,
        f"expected a mean of {mean:.6g} over {n} seeds in the report, got {shown}",
    )
    if match[2] and n > 1:
        from scipy import special

        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
        half = float(special.stdtrit(n - 1, 0.975)) * spread
        outcome.hold(
            _rounds(half, match[2]), "tables", place,
            f"expected a 95 % interval of ± {half:.6g} over {n} seeds in the report, got {shown}",
        )  # fmt: skip


def _rounds(value: float, text: str) -> bool:
    """Whether a number as printed is this value, rounded to the digits that it has."""
    plain = text.replace(",", "")
    digits = len(plain.partition(".")[2])
    # Half of the last digit: rounding differs in ties only.
    return bool(abs(value - float(plain)) <= 0.5 * 10.0**-digits * (1 + 1e-6))


def _rows(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of all Markdown tables, by header, each with the heading above it."""
    header: list[str] = []
    heading = ""
    for line in text.splitlines():
        if not line.startswith("|"):
            header = []
            heading = line.lstrip("#").strip() if line.startswith("#") else heading
            continue
        # Pipes inside a cell are escaped: they do not end it.
        cells = [re.sub(r"\\(.)", r"\1", cell).strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
        if not header:
            header = cells
        elif not all(set(cell) <= set("-: ") for cell in cells):
            yield heading, dict(zip(header, cells, strict=False))
