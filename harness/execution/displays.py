"""Progress on stderr: a live display, plain lines, JSON lines, or nothing."""

from typing import Literal

from rich.console import Console

from harness.execution.progress import Json, Plain, Progress

ProgressKind = Literal["auto", "plain", "json", "none"]


def make(kind: ProgressKind, console: Console) -> Progress:
    """The progress of that kind; `auto` is live on a terminal and plain elsewhere."""
    if kind == "none":
        return Progress()
    if kind == "json":
        return Json()
    from harness.execution.live import Live

    return Live(console) if kind == "auto" and console.is_terminal else Plain(console)
