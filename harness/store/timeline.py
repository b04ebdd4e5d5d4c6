"""When the stages of a run began and ended, and on which worker: `timeline.jsonl` beside its records.

A line for every attempt at a stage, appended as it ends; a run that goes on later adds to it. It decides nothing: a run
whose timeline cannot be written goes on without one, and whoever reads it leaves out what is no line of it.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness._files import plain_size, read_file

FILE = "timeline.jsonl"

MAX_BYTES = 1 << 29
"""Of a timeline that is read; two million stages have as much."""

_CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

_LONGEST = 20_000
"""Bytes of a line: what labels of any sensible length need, many times over."""

Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]


class Attempt(BaseModel):
    """One attempt at a stage.

    Args:
        stage: its key; cell: the first cell that needs it; label: both in words; kind: train, prune, test, ...
        worker: host and process that ran it; empty where it was never heard of.
        given: when it was handed to a worker; begun: when that began with it, which may first have had to start and
            to load its framework; ended: when its result, or its failure, was there.
        status: ok, or how it ended without a result; interrupted if the run ended first.
        outcome: what it showed, in words; empty where it has no result.
        processor_seconds: processor time that the stage took, as it says itself; None where it did not end.

    Units:
        seconds since the epoch, by the clock of the machine that ran the command.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    stage: str
    cell: str = ""
    label: str = ""
    kind: str = ""
    worker: str = ""
    given: Seconds
    begun: Seconds | None = None
    ended: Seconds
    status: str = "ok"
    outcome: str = ""
    processor_seconds: Seconds | None = None


class TimelineFile:
    """Writes the timeline of a run.

    Args:
        folder: of the run; it is there.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._file: int | None = None
        self._is_lost = False

    def add(self, attempt: Attempt) -> None:
        """Append a line, as one write, so that two runs of one folder never mix theirs."""
        line = json.dumps(attempt.model_dump(mode="json", exclude_defaults=True), separators=(",", ":"))
        with suppress(OSError):
            if self._file is None and not self._is_lost:
                self._is_lost = True  # unless what follows succeeds: a pipe or a folder in its place stays there
                # No link is followed, and a pipe without a reader is not waited for.
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _CAREFUL
                handle = os.open(self._path, flags, 0o644)
                plain_size(handle)
                self._file, self._is_lost = handle, False
            if self._file is not None:
                # The line before may have been cut off by a full disk or the end of its process.
                os.write(self._file, f"\n{line}\n".encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Add no more."""
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None


def attempts(folder: Path) -> Iterator[Attempt]:
    """The attempts of a run in the order in which they ended; none where nobody noted them."""
    try:
        content = read_file(folder / FILE, limit=MAX_BYTES)
    except (OSError, ValueError):
        return
    for line in content.splitlines():
        if line and len(line) <= _LONGEST:
            with suppress(ValidationError):
                yield Attempt.model_validate_json(line)
