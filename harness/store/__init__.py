"""The store: stages as files, who computes which, what may go, and stores joined."""

from harness.store.files import (
    DAY_S,
    MASKS,
    MAX_HEADER_BYTES,
    MAX_RECORD_BYTES,
    STAGE,
    STATE,
    TEMPORARY,
    DamagedStageError,
    StageRecord,
    Store,
    folders,
    read_file,
    state_digest,
    write_atomic,
)

__all__ = [
    "DAY_S", "MASKS", "MAX_HEADER_BYTES", "MAX_RECORD_BYTES", "STAGE", "STATE", "TEMPORARY", "DamagedStageError",
    "StageRecord", "Store", "folders", "read_file", "state_digest", "write_atomic",
]  # fmt: skip
