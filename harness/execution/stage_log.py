"""The log of a stage: what a worker prints while it runs one, and the end of that, for whoever asks why it failed."""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness._files import open_at_once, plain_size

LOG_BYTES = 1 << 26
"""Of a stage's log; what is printed beyond it in a fraction of a second is kept too."""

_LOG_LOOK_S = 0.2

_LAST_BYTES = 20_000
"""Of the end of a log, in which these lines are looked for."""

_LINES = 8
"""Lines of a stage's log that are shown with its failure."""


@contextmanager
def logged(log: Path | None) -> Iterator[None]:
    """Let a file take what this process prints inside, C libraries included; one that stays empty is removed."""
    if log is None:
        yield
        return
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o644)  # a pipe: no waiting
    except OSError:  # a full disk: the store says so in its own words
        target = os.open(os.devnull, os.O_WRONLY)
    _flush()
    before = os.dup(1), os.dup(2)
    os.dup2(target, 1)
    os.dup2(target, 2)
    over = threading.Event()
    watch = threading.Thread(target=_bound, args=(target, over), daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()
        _flush()
        for kept, number in zip(before, (1, 2), strict=True):
            os.dup2(kept, number)
            os.close(kept)
        os.close(target)
        with suppress(OSError):
            if log.stat().st_size == 0:
                log.unlink()


def _bound(log: int, over: threading.Event) -> None:
    """Let what is printed go nowhere once a log is full: a plugin may print without end."""
    while not over.wait(_LOG_LOOK_S):
        if os.fstat(log).st_size <= LOG_BYTES:
            continue
        with suppress(OSError):
            os.write(log, f"\n... what came after {LOG_BYTES} bytes is not kept\n".encode())
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)
        os.close(nowhere)
        return


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)  # what C libraries have printed and not written yet


def tail(log: Path | None) -> str:
    """What a stage printed last, and where the rest is; empty if it printed nothing."""
    if log is None:
        return ""
    try:
        with os.fdopen(open_at_once(log), "rb") as file:
            file.seek(max(0, plain_size(file.fileno()) - _LAST_BYTES))
            # Of a file that may be in the middle of a character.
            lines = file.read(_LAST_BYTES).decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([*lines[-_LINES:], f"log: {log}"]) if lines else ""
