"""What a run has to say beside its progress: told at once, and kept in a file beside the logs of its stages."""

import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from harness._files import MOVED, plain_size
from harness._text import clean
from harness.execution.progress import Progress

FILE = Path("logs", "run.log")

_MOST_BYTES = 1 << 20
"""Of the file: a store in which everything is damaged has a line for each stage."""


class Notes(logging.Handler):
    """Notes of one run, from its own code and on what its process moves aside in its store.

    Args:
        store: the folder whose damages are told.
        run: the run's folder.
        progress: who is told.
    """

    def __init__(self, store: Path, run: Path, progress: Progress) -> None:
        super().__init__()
        self._store, self._file, self._progress = store, run / FILE, progress

    def __enter__(self) -> "Notes":
        """Listen."""
        MOVED.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no longer."""
        MOVED.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Tell what was moved aside, if it lay in this run's store: several runs may share a process."""
        place = getattr(record, "place", None)
        if isinstance(place, Path) and place.is_relative_to(self._store):
            self.tell(record.getMessage())

    def tell(self, text: str) -> None:
        """Tell a sentence, and keep it; a file that cannot be written is not its business."""
        self._progress.note(text)
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {clean(text)}\n".encode("utf-8", "backslashreplace")
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # A pipe that lies in its place is not waited for, and nothing is written through a link.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW
            with os.fdopen(os.open(self._file, flags, 0o644), "ab") as file:
                if plain_size(file.fileno()) < _MOST_BYTES:
                    file.write(line)
