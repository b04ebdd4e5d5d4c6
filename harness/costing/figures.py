"""How figures of hardware are written: the mark of where each comes from, latencies, yes and no."""

import re
from collections.abc import Mapping, Sequence

from harness.api import JsonValue
from harness.report.formats import DASH

ORIGINS: Mapping[str, str] = {
    "published": "ᵖ", "read": "ʳ", "measured": "ᵐ", "derived": "ᵈ", "simulated": "ˢ", "recalled": "ᶜ", "assumed": "ᵃ",
    "given": "ᵍ", "modelled": "",
}  # fmt: skip
"""The mark of every origin of a figure; what a model computes has none."""

_MEANINGS: Mapping[str, str] = {
    "read": "read in its source", "recalled": "recalled, not read again", "derived": "derived from figures read",
    "measured": "measured here", "simulated": "simulated here", "assumed": "assumed", "given": "given by you",
    "published": "published",
}  # fmt: skip


def mark(origin: str) -> str:
    """The mark of an origin, or of a text that begins with one; an asterisk for any other."""
    return ORIGINS.get(_first(origin), "*" if origin else "")


def legend(origins: Sequence[str]) -> str:
    """What the marks stand for; an origin that has none of its own is told in full."""
    marked = dict.fromkeys(origin for origin in origins if mark(origin))
    return "; ".join(dict.fromkeys(f"{mark(each)} {_MEANINGS.get(_first(each), each)}" for each in marked))


def _first(origin: str) -> str:
    return re.split(r"\W", origin, maxsplit=1)[0]


def microseconds(latency_us: float) -> str:
    """A latency; below 10 µs with a digit more."""
    return f"{latency_us:.{2 if latency_us >= 10 else 3}f}"


def yes(value: bool | None) -> str:
    """A statement; a dash where nobody knows."""
    return DASH if value is None else "yes" if value else "no"


def number(value: JsonValue) -> float:
    """A number out of a model's own words; 0 for anything else."""
    return float(value) if isinstance(value, int | float) else 0.0
