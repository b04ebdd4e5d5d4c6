"""Texts in our sentences: those of others on one line of bounded length, counts and times in words."""

import unicodedata
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
    shown = printable(head)
    if len(shown) <= limit and len(text) <= 4 * limit:
        return shown
    return f"{shown[:limit]}... ({len(text):,} characters)"


def lines(text: str, limit: int = LIMIT, most: int = 200) -> str:
    """A message of one line or several that a terminal can show, whatever words of others stand in it.

    Args:
        text: the message.
        limit: characters of a line that stay.
        most: lines that stay.
    """
    if len(text) <= limit and text.isprintable():
        return text
    every = text[: 2 * limit * most].split("\n")
    shown = [printable(_cut(line, limit)) for line in every[:most]]
    left = text.count("\n") + 1 - len(shown)
    return "\n".join([*shown, f"... and {left:,} lines more"] if left > 0 else shown)


def printable(text: str) -> str:
    """A text in which whatever acts on a terminal, or is in no file, is written as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _cut(line: str, limit: int) -> str:
    """A line without its middle, if it is long: what was wrong stands at its beginning, the way out at its end."""
    if len(line) <= limit:
        return line
    return f"{line[: limit // 2]}... ({len(line):,} characters) ...{line[-limit // 4 :]}"


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


def parted(text: str, separator: str) -> list[str]:
    """Parts of a text; separators inside brackets, as labels have them, do not count."""
    if not is_balanced(text):  # then a bracket is but a letter of a label
        return text.split(separator)
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == separator and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def is_balanced(text: str) -> bool:
    """Whether as many brackets are closed as are opened, of every kind."""
    return all(text.count(one) == text.count(other) for one, other in ("()", "[]", "{}"))


def _escaped(char: str) -> str:
    # Spaces of other widths are readable; whatever acts on a terminal is not.
    if unicodedata.category(char) == "Zs":
        return char  # a space of another width does no harm
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def figure(value: float) -> str:
    """A number for people: four digits, but never fewer than stand before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
