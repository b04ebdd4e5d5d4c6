"""What a run says of itself while it runs, for other processes: `status.json` beside its records.

The file is replaced every second or two and touched in between by the run's heartbeat, so that a run that was killed is
known by a file that grows old, or by its process being gone.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from harness._files import write_atomic
from harness.api import JsonValue, StoreError

FILE = "status.json"

_EVERY_S = 1.0
_BEAT_S = 2.0


class StatusFile:
    """Writes `status.json` of a run.

    Args:
        folder: of the run.
        constant: what does not change while it runs.
    """

    def __init__(self, folder: Path, constant: Mapping[str, JsonValue]) -> None:
        self._path = folder / FILE
        self._constant = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": round(time.time(), 3),
            **constant,
        }
        # As though written just long enough ago: the first status is due at once.
        self._written = -_EVERY_S

    @property
    def is_due(self) -> bool:
        """Whether the file is old enough to be written again."""
        return time.monotonic() - self._written >= _EVERY_S

    def write(self, values: Mapping[str, JsonValue]) -> None:
        """Replace the file.

        Raises:
            StoreError: it cannot be written.
        """
        content = {**self._constant, "written": round(time.time(), 3), **values}
        try:
            write_atomic(self._path, (json.dumps(content, indent=1) + "\n").encode())
        except OSError as error:
            raise StoreError(
                f"store: {self._path} cannot be written ({error.strerror}); free some space or name another folder "
                "with --store; everything finished is kept"
            ) from None
        self._written = time.monotonic()

    def touch(self) -> None:
        """Say that the run is still there."""
        with suppress(OSError):
            os.utime(self._path)


class Heartbeat:
    """Calls something every two seconds while entered, in a thread of its own: a long stage sends no message.

    Args:
        beats: what is called; a store that cannot be written is not its business.
    """

    def __init__(self, *beats: Callable[[], None]) -> None:
        self._beats, self._end = beats, threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(_BEAT_S):
            for beat in self._beats:
                with suppress(StoreError):
                    beat()
