"""Texts in our sentences: those of others on one line of bounded length, counts and times in words."""

from collections.abc import Iterable

LIMIT = 2000
"""Characters of a stranger's text that a record or a message holds; logs hold the rest."""


def clean(text: str, limit: int = LIMIT) -> str:
    """A text on one line that every file, terminal and JSON document can hold.

    Args:
        text: what somebody else wrote: an exception, a name, a word of a file or of a command line.
        limit: characters that stay; a longer text says how long it was.
    """
    # Cut first: escaping 50 MB to show 2,000 characters would take longer than the training.
    head = " ".join(text[: 4 * limit].split())
    shown = "".join(char if char.isprintable() else _escaped(char) for char in head)
    if len(shown) <= limit and len(text) <= 4 * limit:
        return shown
    return f"{shown[:limit]}... ({len(text):,} characters)"


def told(error: BaseException) -> str:
    """`Type: message` of an exception, also of one whose own text cannot be made."""
    try:
        message = str(error)
    except Exception as failed:  # its `__str__` is somebody's code, too
        message = f"(its text cannot be made: {type(failed).__name__})"
    return clean(f"{type(error).__name__}: {message}" if message else type(error).__name__)


def listed(parts: Iterable[object]) -> str:
    """Words or numbers as an enumeration: `a, b, c`."""
    return ", ".join(map(str, parts))


def plural(count: int, noun: str) -> str:
    """A count with its noun: `1 seed`, `3 seeds`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def span(seconds: float) -> str:
    """A stretch of time as one says it: two digits, in the unit that fits."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
