"""The numbers of a written report, computed once more from the records beside it."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.results.records import Record
from harness.verification.outcome import Outcome

_VALUE = re.compile(r"(-?\d[\d,]*\.?\d*)(?:\s*±\s*(\d[\d,]*\.?\d*))?")

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
    groups: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for record in records:
        if record.is_done and record.value is not None:
            groups[_key(record)].append(record.value)
    found = 0
    for row in _rows(path.read_text(encoding="utf-8")):
        metric = next((name for name in row if name.endswith("(test)")), None)
        if metric is None or "pattern" not in row or "strategy" not in row:
            continue
        is_dense = row["pattern"] == "dense"
        labels = ("dense",) if is_dense else (row["pattern"], row["strategy"], row.get("asked %", ""))
        # A pooled table names no backend: any may be meant, and only one then has these labels.
        values = [
            each for key, each in groups.items()
            if key[1:] == labels and row.get("backend", key[0]).startswith(key[0])
        ]  # fmt: skip
        match = _VALUE.match(row[metric].translate(_MINUS))
        if len(values) == 1 and match:
            found += 1
            _check(row[metric], match, values[0], " · ".join(labels), outcome)
    if not found:
        outcome.skip(f"{path.name}: no row of its results could be told apart")


def _key(record: Record) -> tuple[str, ...]:
    if record.is_dense:
        return (record.backend, "dense")
    return (record.backend, record.pattern, record.strategy, f"{round(100 * record.target_sparsity, 6):g}")


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


def _rows(text: str) -> Iterator[dict[str, str]]:
    """The rows of all Markdown tables, by header."""
    header: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            header = []
            continue
        # Pipes inside a cell are escaped: they do not end it.
        cells = [re.sub(r"\\(.)", r"\1", cell).strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
        if not header:
            header = cells
        elif not all(set(cell) <= set("-: ") for cell in cells):
            yield dict(zip(header, cells, strict=False))
