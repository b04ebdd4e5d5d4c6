"""Every stage of a store at a glance: what it did and where it started, read without a check of its checksums."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness._files import read_file
from harness.api import JsonValue
from harness.store import MAX_RECORD_BYTES, STAGE, Store


@dataclass(frozen=True, slots=True)
class StoredStage:
    """What `stage.json` says of a stage's place.

    Args:
        key: its name.
        parent: the key of the stage it started from.
        kind: what it did.
        inputs: what decided its result, in clear.
    """

    key: str
    parent: str | None
    kind: str
    inputs: Mapping[str, JsonValue]


def stored(store: Store) -> Iterator[StoredStage]:
    """The finished stages of a store; a record that cannot be read is passed over, and whoever uses one checks it."""
    for key in store.keys():
        try:
            # Not `Store.read`: verifying thousands of checksums would take minutes, and nothing here is used as a
            # result.
            found = json.loads(read_file(store.stage_folder(key) / STAGE, limit=MAX_RECORD_BYTES))
            stage = StoredStage(found["key"], found["parent"], found["kind"], found["inputs"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if stage.key == key and isinstance(stage.inputs, dict):
            yield stage
