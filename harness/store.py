"""The store: one folder per stage key, files only, content-addressed, checksummed, without pickle.

    STORE/format                            the number of this layout
    STORE/stages/ab/abcd.../stage.json      inputs in clear, metrics, timings, versions, checksums, digest; written last
                            masks.safetensors   the masks, bit-packed
                            state.safetensors   weights, optimiser slots, extras; only where it is kept
    STORE/runs/<run id>/                    spec, records and report of a run

A stage without `stage.json` does not exist. Every file is written to a temporary name, flushed and renamed, so that a
kill leaves either the old file or the new one. Nothing inside is absolute: a copied store still works.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from harness.api import Array, EmptySelectionError, Evaluation, JsonValue, Mask, State, StoreError

STORE_FORMAT = 1
STATE, MASKS, STAGE = "state.safetensors", "masks.safetensors", "stage.json"


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
        seconds: wall-clock time of the stage, evaluation included.
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
    digest: str = ""
    reproduced: bool | None = None
    checksums: dict[str, str] = {}
    cpu: str = ""
    environment: dict[str, JsonValue] = {}


@dataclass(frozen=True)
class Store:
    """A store at a folder; made when first written to."""

    folder: Path

    def prepare(self) -> None:
        """Make the folder and check that it can be written.

        Raises:
            StoreError: it cannot be made or written, or another version of the harness laid it out.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            marker = self.folder / "format"
            if marker.exists():
                self._check_format(marker.read_text().strip())
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            if not marker.exists():
                write_atomic(marker, f"{STORE_FORMAT}\n".encode())
        except OSError as error:
            raise StoreError(
                f"store: {self.folder} cannot be written ({error.strerror}); name another folder with --store"
            ) from None

    def _check_format(self, found: str) -> None:
        if found != str(STORE_FORMAT):
            raise StoreError(
                f"store: {self.folder} has layout {found!r}, this version reads {STORE_FORMAT}; use another --store"
            )

    def stage_folder(self, key: str) -> Path:
        """The folder of a stage."""
        return self.folder / "stages" / key[:2] / key

    def run_folder(self, run_id: str) -> Path:
        """The folder of a run."""
        return self.folder / "runs" / run_id

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, key: str) -> StageRecord | None:
        """The stage's record, or None if there is no such stage.

        Raises:
            DamagedStageError: the record cannot be read or is not the one that was written.
        """
        path = self.stage_folder(key) / STAGE
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            content = json.loads(text)
            checksum = content.pop("checksum")
            record = StageRecord.model_validate(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedStageError(f"store: stage {key} has an unreadable record ({type(error).__name__})") from None
        if checksum != _record_checksum(record) or record.key != key:
            raise DamagedStageError(f"store: the record of stage {key} is not the one that was written")
        return record

    def has_stage(self, key: str) -> bool:
        """Whether the stage was finished."""
        return (self.stage_folder(key) / STAGE).exists()

    def has_state(self, key: str) -> bool:
        """Whether the state after the stage is kept."""
        return (self.stage_folder(key) / STATE).exists()

    def verify_state(self, record: StageRecord) -> None:
        """Compare the kept state with its checksum.

        Raises:
            DamagedStageError: it is missing or differs.
        """
        self._bytes(record, STATE)

    def masks(self, record: StageRecord) -> dict[str, Mask]:
        """The masks after a stage."""
        if MASKS not in record.checksums:
            return {}
        arrays = _parse(record.key, self._bytes(record, MASKS))
        return {
            name.removeprefix("bits/"): _unpack(bits, arrays[f"shape/{name.removeprefix('bits/')}"])
            for name, bits in arrays.items()
            if name.startswith("bits/")
        }

    def state(self, record: StageRecord) -> State:
        """Weights, slots, extras and masks after a stage.

        Raises:
            DamagedStageError: the state is missing or damaged.
        """
        arrays = _parse(record.key, self._bytes(record, STATE))
        parts: dict[str, dict[str, Array]] = {"weights": {}, "slots": {}, "extra": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = array
        return State(
            weights=parts["weights"],  # type: ignore[arg-type]  # float32 as written
            masks=self.masks(record),
            slots=parts["slots"],  # type: ignore[arg-type]  # float32 as written
            extra=parts["extra"],
        )

    def _bytes(self, record: StageRecord, name: str) -> bytes:
        path = self.stage_folder(record.key) / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DamagedStageError(f"store: {name} of stage {record.key} is gone ({error.strerror})") from None
        if hashlib.sha256(content).hexdigest() != record.checksums.get(name):
            raise DamagedStageError(f"store: {name} of stage {record.key} is damaged")
        return content

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, record: StageRecord, state: State | None) -> StageRecord:
        """Write a stage: state and masks first, `stage.json` last.

        Raises:
            StoreError: the disk is full or the store cannot be written; nothing half-written remains.
        """
        folder = self.stage_folder(record.key)
        files: dict[str, bytes] = {}
        digest = record.digest
        if state is not None:
            files[STATE] = save_safetensors(_flat(state))
            if state.masks:
                files[MASKS] = save_safetensors(_packed(state.masks))
            digest = state_digest(state)
        checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        complete = record.model_copy(update={"checksums": checksums, "digest": digest})
        with self._writing(record.key):
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                write_atomic(folder / name, content)
            values = complete.model_dump(mode="json") | {"checksum": _record_checksum(complete)}
            write_atomic(folder / STAGE, json.dumps(values, indent=1, allow_nan=False).encode())
        return complete

    def drop_state(self, key: str) -> None:
        """Forget the state after a stage; record and masks stay."""
        with self._writing(key), suppress(FileNotFoundError):
            (self.stage_folder(key) / STATE).unlink()

    def set_aside(self, key: str) -> None:
        """Take a damaged stage out of use: without its `stage.json` it does not exist; the file stays for a look."""
        path = self.stage_folder(key) / STAGE
        with self._writing(key), suppress(FileNotFoundError):
            path.replace(path.with_suffix(".damaged"))

    @contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"store: stage {key} cannot be written below {self.folder} ({error.strerror}); free some space or name "
                "another folder with --store; everything finished is kept"
            ) from None

    def latest_run(self) -> Path:
        """The folder of the run whose records were written last.

        Raises:
            EmptySelectionError: there is none.
        """
        folders = [path.parent for path in (self.folder / "runs").glob("*/records.json")]
        if not folders:
            raise EmptySelectionError(
                f"store: no run in {self.folder}; `harness run SPEC` makes one, --store names another folder"
            )
        return max(folders, key=lambda folder: (folder / "records.json").stat().st_mtime_ns)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def state_digest(state: State) -> str:
    """SHA-256 over names, shapes, types and bytes of every array of a state, masks included."""
    hasher = hashlib.sha256()
    for name, array in sorted({**_flat(state), **_packed(state.masks)}.items()):
        hasher.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def _record_checksum(record: StageRecord) -> str:
    text = json.dumps(record.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(state: State) -> dict[str, Array]:
    parts: tuple[tuple[str, Mapping[str, Array]], ...] = (
        ("weights", state.weights),
        ("slots", state.slots),
        ("extra", state.extra),
    )
    # Not ascontiguousarray: it makes a vector of a scalar.
    return {f"{part}/{name}": np.asarray(array, order="C") for part, arrays in parts for name, array in arrays.items()}


def _packed(masks: Mapping[str, Mask]) -> dict[str, NDArray[np.uint8] | NDArray[np.int64]]:
    packed: dict[str, NDArray[np.uint8] | NDArray[np.int64]] = {}
    for name, mask in masks.items():
        packed[f"bits/{name}"] = np.packbits(mask)
        packed[f"shape/{name}"] = np.array(mask.shape, dtype=np.int64)
    return packed


def _unpack(bits: Array, shape: Array) -> Mask:
    rows, cols = (int(length) for length in shape)
    return np.unpackbits(bits.astype(np.uint8), count=rows * cols).astype(np.bool_).reshape(rows, cols)


def _parse(key: str, content: bytes) -> dict[str, Array]:
    try:
        return load_safetensors(content)
    except SafetensorError as error:
        raise DamagedStageError(f"store: a file of stage {key} cannot be read ({error})") from None
