"""Texts of others in our sentences: without control characters, and no longer than anybody reads."""

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


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
