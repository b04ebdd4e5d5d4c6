"""How each quantity is printed: digits are set here and nowhere else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.results.statistics import Comparison, Interval, Verdict

DASH = "–"
MISFIT = "✗"
UNEVEN = "≠"
LATENCY_DIGITS = 2
SPEEDUP_DIGITS = 2
REACHED_DIGITS = 1
KILOBIT_DIGITS = 1

_SMALL, _SMALLEST = 0.1, 1e-5
"""Factors below which two decimals say little, and decimals nothing any more."""

_EQUAL = 1e-9
"""Part of a mean below which an interval's half is rounding: the values behind it are equal."""

ALL_EQUAL = "(all n equal): no spread among n seeds, so no interval, and a mark only where the evidence is enough"
"""The legend of what stands in place of an interval of no width, which would claim a certainty that is not there."""

MARKS: dict[Verdict, str] = {"better": "▲", "worse": "▼", "equivalent": "≈", "not enough evidence": "?"}

UNREACHED = "its target came to no sparsity"
"""What stands for the asked sparsity of such a cell, which has none."""

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass
class Footnotes:
    """Numbers the reasons of a table's missing numbers, equal reasons once."""

    numbers: dict[str, int] = field(default_factory=dict)

    def mark(self, reason: str) -> str:
        """The superscript number of a reason."""
        return superscript(self.numbers.setdefault(reason, len(self.numbers) + 1))

    def dash(self, reason: str) -> str:
        """What stands for a missing number."""
        return DASH + self.mark(reason)

    def lines(self) -> list[str]:
        """The footnotes."""
        return [f"{superscript(number)} {text}" for text, number in self.numbers.items()]


def superscript(number: int) -> str:
    """A footnote's number."""
    return str(number).translate(_SUPERSCRIPTS)


def asked(sparsity: float) -> str:
    """A target sparsity in percent, as short as it was written."""
    return f"{round(100 * sparsity, 6):g}"


def reached(sparsity: float) -> str:
    """An achieved sparsity in percent."""
    return f"{100 * sparsity:.{REACHED_DIGITS}f}"


def level(sparsity: float) -> str:
    """A target sparsity in running text."""
    return f"{asked(sparsity)} %"


def value(number: Interval, digits: int) -> str:
    """A mean with its interval, where there is one."""
    return f"{number.mean:.{digits}f}" + _half(number, digits)


def difference(comparison: Comparison, digits: int, verdict: Verdict | None) -> str:
    """A signed mean difference with its interval and its verdict's mark."""
    number = comparison.difference
    # Without spread "not enough evidence" is part of the words: `+2.00 ± 0.00 ?` reads as a contradiction.
    if is_constant(number) and verdict == "not enough evidence":
        verdict = None
    return signed(number.mean, digits) + _half(number, digits) + (f" {MARKS[verdict]}" if verdict else "")


def is_constant(number: Interval) -> bool:
    """Whether several values are equal but for rounding, so that their spread says nothing."""
    return number.half is not None and number.half <= _EQUAL * abs(number.mean)


def signed(number: float, digits: int) -> str:
    """A difference with its sign; one that rounds to zero has none."""
    # A minus before a zero would claim a direction that the digits do not show.
    text = f"{number:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def has_interval(number: Interval) -> bool:
    """Whether a mean is printed with an interval."""
    return number.half is not None and not is_constant(number)


def _half(number: Interval, digits: int) -> str:
    """What follows a mean; never a width that rounds to nothing."""
    if number.half is None:
        return ""
    if is_constant(number):
        return f" (all {number.n} equal)"
    # A width that would be printed as zero is one that is smaller than the last digit.
    text, least = f"{number.half:.{digits}f}", f"{10**-digits:.{digits}f}"
    return f" ± {text}" if float(text) else f" ± <{least}"


def epochs(total: int, retraining: int) -> str:
    """Epochs in total and, in brackets, those for retraining."""
    return f"{total} ({retraining})" if retraining else str(total)


def spread(fewest: int, most: int) -> str:
    """A range of counts."""
    return str(fewest) if fewest == most else f"{fewest}–{most}"


def count(done: int, planned: int) -> str:
    """The number of seeds, marked where some are missing."""
    return str(done) if done == planned else f"{done}/{planned}"


def latency(microseconds: float) -> str:
    """A latency in microseconds."""
    return f"{microseconds:.{LATENCY_DIGITS}f}"


def kilobits(bits: float) -> str:
    """A size in storage, in thousands of bits."""
    return f"{bits / 1000:,.{KILOBIT_DIGITS}f}"


def misfit(fits: bool | None) -> str:
    """The mark of an engine that does not fit its device."""
    return MISFIT if fits is False else ""


def uneven(is_uneven: object) -> str:
    """The mark of a number that is not of the sparsity it stands at."""
    return UNEVEN if is_uneven else ""


def speedup(number: float) -> str:
    """A factor; a small one has two digits that are not 0, since 0.00 would be no factor at all."""
    if 0 < number < _SMALL:
        return f"{number:.1e}×" if number < _SMALLEST else f"{number:.{1 - math.floor(math.log10(number))}f}×"
    return f"{number:.{SPEEDUP_DIGITS}f}×"


def listed(parts: Sequence[str], most: int | None) -> str:
    """Parts joined by semicolons, shortened to the first `most`."""
    if most is None or len(parts) <= most:
        return "; ".join(parts)
    return "; ".join(parts[:most]) + f"; and {len(parts) - most} more"
