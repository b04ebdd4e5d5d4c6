"""What `stage.json` says of a stage, and the checksum by which it is known to be the one that was written."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pydantic import BaseModel, ConfigDict

from harness._files import sha256
from harness.api import Evaluation, JsonValue, StoreError

STORE_FORMAT = 1


class DamagedStageError(StoreError):
    """A stage whose files are not what its checksums say."""


class StageRecord(BaseModel):
    """What `stage.json` holds.

    Args:
        key: the stage's key; the folder's name.
        parent: the key of the stage it started from.
        kind: init, train, prune, rewind or test.
        inputs: what the key is a digest of, in clear.
        epoch_index: epochs trained in the chain before this stage.
        train: totals of the training epoch (train stages).
        valid: totals over the validation split, after the stage.
        test: totals over the test split (test stages).
        seconds: wall-clock time of the stage, evaluation included; time in which its process was stopped counts.
        processor_seconds: processor time of all threads of its process, from the job to the written stage, so that the
            first stage of a process has the loading of data and framework in it; what was stopped, or had to wait for
            others on the machine, took none. None where nobody measured; what an accelerator computed is not in it.
        digest: SHA-256 over the state's arrays.
        reproduced: None for a first run; whether a later run of the same stage had the same digest.
        checksums: SHA-256 by file.
        cpu: the kind of processor.
        environment: versions and threads, as run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = STORE_FORMAT
    key: str
    parent: str | None
    kind: str
    inputs: dict[str, JsonValue]
    epoch_index: int = 0
    train: Evaluation | None = None
    valid: Evaluation | None = None
    test: Evaluation | None = None
    seconds: float = 0.0
    processor_seconds: float | None = None
    digest: str = ""
    reproduced: bool | None = None
    checksums: dict[str, str] = {}
    cpu: str = ""
    environment: dict[str, JsonValue] = {}


_began: ContextVar[float | None] = ContextVar("_began", default=None)


@contextmanager
def metered() -> Iterator[None]:
    """While entered, a stage that is written says what processor time its process has used since."""
    token = _began.set(time.process_time())
    try:
        yield
    finally:
        _began.reset(token)


def processor_seconds() -> float | None:
    """Processor time since `metered` was entered; None outside."""
    began = _began.get()
    return None if began is None else round(time.process_time() - began, 3)


def record_values(record: StageRecord) -> dict[str, JsonValue]:
    """The fields of a record as `stage.json` has them."""
    # Left out where it is not known: stages that were written before it was measured keep their checksum.
    unknown = {"processor_seconds"} if record.processor_seconds is None else set()
    return record.model_dump(mode="json", exclude=unknown)


def record_checksum(record: StageRecord) -> str:
    """The checksum that stands in `stage.json` beside the record's fields."""
    # Spelled with spaces, unlike `harness._files.canonical`: existing stores were written so.
    return sha256(json.dumps(record_values(record), sort_keys=True))
