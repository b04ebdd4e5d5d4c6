"""The store: stages as files, who computes which, what may go, and stores joined."""

from harness.store.arrays import MAX_HEADER_BYTES, state_digest
from harness.store.files import DAY_S, MASKS, MAX_RECORD_BYTES, STAGE, STATE, TEMPORARY, Store
from harness.store.stage_record import DamagedStageError, StageRecord, metered

__all__ = [
    "DAY_S", "MASKS", "MAX_HEADER_BYTES", "MAX_RECORD_BYTES", "STAGE", "STATE", "TEMPORARY", "DamagedStageError",
    "StageRecord", "Store", "metered", "state_digest",
]  # fmt: skip
