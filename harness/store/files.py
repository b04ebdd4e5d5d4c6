"""The store: one folder per stage key, files only, content-addressed, checksummed, without pickle.

    STORE/format                            the number of this layout
    STORE/stages/ab/abcd.../stage.json      inputs in clear, metrics, timings, versions, checksums, digest; written last
                            masks.safetensors   the masks, bit-packed
                            state.safetensors   weights, optimiser slots, extras; only where it is kept
    STORE/runs/<run id>/                    spec, records and report of a run
    STORE/claims/                           who is computing which stage (`harness.store.claims`)
    STORE/tmp/                              files on their way to their names

A stage without `stage.json` does not exist. Every file is written to a temporary name, flushed and renamed, so that a
kill leaves either the old file or the new one. Nothing inside is absolute: a copied store still works.

Nothing in a store is believed: names that come from it are checked before they become paths, links are not followed for
writing or deleting, and no file makes us allocate more than the size it really has.
"""

import hashlib
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from harness.api import Array, EmptySelectionError, Evaluation, JsonValue, Mask, State, StoreError

STORE_FORMAT = 1
STATE, MASKS, STAGE = "state.safetensors", "masks.safetensors", "stage.json"

DAY_S = 86_400.0
"""Temporary files older than this belong to nobody."""

MAX_RECORD_BYTES = 1 << 26
"""Of a `stage.json`; one with a learning rate for each of a million steps has a third of it."""

MAX_HEADER_BYTES = 1 << 24
"""Of a safetensors file: some hundred bytes for each of a model's tensors."""

TEMPORARY = re.compile(r"\.(.+\.[a-z0-9_]{8}|.+\.\d+\.tmp|dropping\..+)")
"""Names of files on their way, and of states and records about to be dropped."""

_KEY = re.compile(r"[0-9A-Za-z_-]{1,128}")
_RUN = re.compile(r"[0-9A-Za-z_][0-9A-Za-z._-]{0,199}")
_SETTLE_S = 0.05

T = TypeVar("T")


_UMASK = os.umask(0)  # it can only be asked for by setting it
os.umask(_UMASK)


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
                self._check_format(marker)
            self._sweep(self.now())
            if not marker.exists():
                write_atomic(marker, f"{STORE_FORMAT}\n".encode())
        except OSError as error:
            raise StoreError(
                f"store: {self.folder} cannot be written ({error.strerror}); name another folder with --store"
            ) from None

    def _check_format(self, marker: Path) -> None:
        try:
            found = read_file(marker, limit=64).decode(errors="replace").strip()
        except ValueError:
            found = "a long text"
        if found != str(STORE_FORMAT):
            raise StoreError(
                f"store: {self.folder} has layout {found!r}, this version reads {STORE_FORMAT}; use another --store"
            )

    def check_readable(self) -> None:
        """Check that there is a store to read.

        Raises:
            StoreError: there is none, or another version of the harness laid it out.
        """
        try:
            self._check_format(self.folder / "format")
        except OSError:
            raise StoreError(f"store: there is no store in {self.folder}; name its folder") from None

    def now(self) -> float:
        """The time by the clock of the file system, in seconds; this machine's may differ.

        Raises:
            OSError: the store cannot be written.
        """
        with tempfile.TemporaryFile(dir=self.folder) as file:
            return os.fstat(file.fileno()).st_mtime

    def _sweep(self, now: float) -> None:
        """Remove what writers that died long ago left behind."""
        folder = self.folder / "tmp"
        if not os.path.lexists(folder):
            return
        for path in self.inside(folder).iterdir():
            with suppress(OSError):  # somebody else sweeps, too
                if now - path.lstat().st_mtime > DAY_S:
                    path.unlink()

    def on_their_way(self) -> list[Path]:
        """Files that somebody is writing or dropping now, or was when he died.

        Raises:
            OSError: the store cannot be read.
        """
        places = (self.folder / "tmp", *folders(self.folder / "claims"), *folders(self.folder / "runs"))
        found = list(self.folder.glob(".format.????????"))  # other names here may be the user's
        for place in places:
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
                found += [Path(entry.path) for entry in entries if TEMPORARY.fullmatch(entry.name)]
        return [path for path in found if not path.is_dir()]

    def stage_folder(self, key: str) -> Path:
        """The folder of a stage.

        Raises:
            StoreError: this is no key.
        """
        return self.folder / "stages" / self.checked_key(key)[:2] / key

    def run_folder(self, run_id: str) -> Path:
        """The folder of a run.

        Raises:
            StoreError: this is no name of a folder, or the folder is a link.
        """
        if not _RUN.fullmatch(run_id):
            raise StoreError(
                f"store: a run's id has letters, digits, '.', '_' and '-' and does not begin with '.' or '-', got "
                f"{run_id[:80]!r}; rename the run"
            )
        return self.inside(self.folder / "runs" / run_id)

    def checked_key(self, key: str) -> str:
        """The key, which is safe as a name of a file.

        Raises:
            StoreError: it is no key.
        """
        if not _KEY.fullmatch(key):
            raise StoreError(
                f"store: a stage's key has letters and digits only, got {key[:80]!r}; the file that names it is damaged"
            )
        return key

    def inside(self, path: Path) -> Path:
        """A path to write to or delete, for which no link leads out of the store.

        Raises:
            StoreError: a folder below the store's, or the path itself, is a link.
        """
        for part in (path, *path.parents):
            if part == self.folder:
                return path
            if part.is_symlink():
                raise StoreError(
                    f"store: expected folders and files of its own in {self.folder}, got the link {part}; replace it "
                    "by what it points to, or make the whole store a link"
                )
        raise StoreError(f"store: {path} does not lie in {self.folder}; name its folder with --store")

    def keys(self) -> Iterator[str]:
        """Keys of all folders of stages, finished or not, in no order; links are passed over."""
        for prefix in folders(self.folder / "stages"):
            for key in folders(prefix):
                if _KEY.fullmatch(key.name) and key.name[:2] == prefix.name:
                    yield key.name

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, key: str) -> StageRecord | None:
        """The stage's record, or None if there is no such stage.

        Raises:
            DamagedStageError: the record cannot be read or is not the one that was written.
        """
        path = self.stage_folder(key) / STAGE
        try:
            content = json.loads(read_file(path, limit=MAX_RECORD_BYTES))
            checksum = content.pop("checksum")
            record = StageRecord.model_validate(content)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
        self._settled(record, lambda current: self._bytes(current, STATE))

    def masks(self, record: StageRecord) -> dict[str, Mask]:
        """The masks after a stage.

        Raises:
            DamagedStageError: they are missing or damaged.
        """
        return self._settled(record, self._masks)

    def state(self, record: StageRecord) -> State:
        """Weights, slots, extras and masks after a stage.

        Raises:
            DamagedStageError: the state is missing or damaged.
        """
        return self._settled(record, self._state)

    def _settled(self, record: StageRecord, read: Callable[[StageRecord], T]) -> T:
        """What is read of a stage, read again once if it does not fit its record.

        Another run may be writing the same stage anew: its state is there before the record that tells its checksum.
        """
        try:
            return read(record)
        except DamagedStageError:
            time.sleep(_SETTLE_S)
            current = self.read(record.key)
            if current is None:
                raise
            return read(current)

    def _masks(self, record: StageRecord) -> dict[str, Mask]:
        if MASKS not in record.checksums:
            return {}
        arrays = _parse(record.key, self._bytes(record, MASKS))
        try:
            return {
                name.removeprefix("bits/"): _unpack(bits, arrays[f"shape/{name.removeprefix('bits/')}"])
                for name, bits in arrays.items()
                if name.startswith("bits/")
            }
        except (KeyError, ValueError):
            raise DamagedStageError(f"store: {MASKS} of stage {record.key} holds no masks") from None

    def _state(self, record: StageRecord) -> State:
        arrays = _parse(record.key, self._bytes(record, STATE))
        parts: dict[str, dict[str, Array]] = {"weights": {}, "slots": {}, "extra": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            if part not in parts:
                raise DamagedStageError(f"store: {STATE} of stage {record.key} holds {name[:80]!r}, which is no part")
            parts[part][rest] = array
        return State(
            weights=parts["weights"],  # type: ignore[arg-type]  # float32 as written
            masks=self._masks(record),
            slots=parts["slots"],  # type: ignore[arg-type]  # float32 as written
            extra=parts["extra"],
        )

    def _bytes(self, record: StageRecord, name: str) -> bytes:
        path = self.stage_folder(record.key) / name
        try:
            _check_size(path)
            content = read_file(path)
        except OSError as error:
            raise DamagedStageError(f"store: {name} of stage {record.key} is gone ({error.strerror})") from None
        except ValueError as error:
            raise DamagedStageError(f"store: {name} of stage {record.key} is damaged ({error})") from None
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
            for name, content in files.items():
                self.place(folder / name, content)
        self.write_record(complete)
        return complete

    def write_record(self, record: StageRecord) -> None:
        """Write a stage's `stage.json`, after all its other files: from now on the stage exists.

        Raises:
            StoreError: the disk is full or the store cannot be written.
        """
        values = record.model_dump(mode="json") | {"checksum": _record_checksum(record)}
        with self._writing(record.key):
            self.place(self.stage_folder(record.key) / STAGE, json.dumps(values, indent=1, allow_nan=False).encode())

    def place(self, path: Path, content: bytes) -> None:
        """Write a file of the store, and the folder it lies in.

        Raises:
            OSError: it cannot be written; nothing half-written remains.
        """
        self.place_from(path, lambda file: file.write(content))

    def place_from(self, path: Path, write: Callable[[BinaryIO], object]) -> None:
        """Write a file of the store by way of its `tmp`, where what a kill leaves is found without a search.

        Args:
            path: the file.
            write: writes the content; nothing is placed if it raises.

        Raises:
            OSError: it cannot be written; nothing half-written remains.
        """
        folder = self.inside(self.folder / "tmp")
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(path, folder, write) as temporary:
            for _ in range(2):
                self.inside(path.parent).mkdir(parents=True, exist_ok=True)
                # `harness gc` may remove the folder in between, as it was empty.
                with suppress(FileNotFoundError):
                    return os.replace(temporary, path)
            os.replace(temporary, path)

    def drop_state(self, key: str, wanted: Callable[[], bool] | None = None) -> bool:
        """Forget the state after a stage; record and masks stay.

        Args:
            key: the stage.
            wanted: whether somebody else may want the state, such as `Claims.others_alive`. It is asked again once the
                state is out of sight: who comes later has not seen it, and who came before gets it back.

        Returns:
            Whether it was there and is gone now.
        """
        return self._drop(key, STATE, wanted)

    def drop_stage(self, key: str, wanted: Callable[[], bool] | None = None) -> bool:
        """Forget a stage: without its `stage.json` it does not exist. As `drop_state`; its other files stay."""
        return self._drop(key, STAGE, wanted)

    def _drop(self, key: str, name: str, wanted: Callable[[], bool] | None) -> bool:
        if wanted is not None and wanted():
            return False
        path = self.stage_folder(key) / name
        hidden = self.inside(self.folder / "tmp") / f".dropping.{key}.{name}"  # where a kill leaves it, it is found
        with self._writing(key), suppress(FileNotFoundError, NotADirectoryError):
            self.inside(path.parent)
            hidden.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, hidden)
            if wanted is not None and wanted():
                os.replace(hidden, path)
                return False
            hidden.unlink()
            return True
        return False

    def set_aside(self, key: str) -> None:
        """Take a damaged stage out of use: without its `stage.json` it does not exist; the file stays for a look."""
        path = self.stage_folder(key) / STAGE
        with self._writing(key), suppress(FileNotFoundError, NotADirectoryError):
            self.inside(path.parent)
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
    """Write a file so that it is there whole or not at all.

    Raises:
        OSError: it cannot be written; nothing half-written remains.
    """
    for is_last in (False, True):
        with _temporary(path, path.parent, lambda file: file.write(content)) as temporary:
            try:
                return os.replace(temporary, path)
            except FileNotFoundError:
                # A run that has not told of itself yet is not seen by another one, which may take what is on its way
                # for that of a dead run (`Claims.tidy`); it does so once, at its start.
                if is_last:
                    raise


@contextmanager
def _temporary(path: Path, folder: Path, write: Callable[[BinaryIO], object]) -> Iterator[str]:
    """A flushed file on its way to a name; gone if that fails."""
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            readable_as_usual(handle)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def readable_as_usual(handle: int) -> None:
    """Give a temporary file, which is its owner's alone, the rights of any other new file: stores are shared."""
    if hasattr(os, "fchmod"):
        os.fchmod(handle, 0o666 & ~_UMASK)


def read_file(path: Path, limit: int | None = None) -> bytes:
    """The content of a plain file.

    Raises:
        OSError: it cannot be read, or is no plain file.
        ValueError: it has more than `limit` bytes.
    """
    # Without blocking: a pipe in place of a file would make us wait for ever.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        size = _plain_size(handle)
        if limit is not None and size > limit:
            raise ValueError(f"expected at most {limit} bytes, got {size}")
        return file.read(size)


def _plain_size(handle: int) -> int:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "no plain file")
    return status.st_size


def _check_size(path: Path) -> None:
    """See that a safetensors file is as large as its header says, before all of it is read.

    Raises:
        OSError: it cannot be read.
        ValueError: its header is too large, unreadable, or tells another size.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        size = _plain_size(handle)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"its header has {length} bytes, the file {size}")
        try:
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise ValueError("its header cannot be read") from None
        if end != size - 8 - length:
            raise ValueError(f"its header tells of {end} bytes, {size - 8 - length} follow")


def folders(folder: Path) -> Iterator[Path]:
    """The folders in a folder, in no order; none if it is not there. Links are passed over."""
    try:
        with os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return


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
    # `unpackbits` would make as many values as it is asked for, whatever there is.
    if bits.ndim != 1 or min(rows, cols) < 0 or (rows * cols + 7) // 8 != bits.size:
        raise ValueError(f"{bits.size} bytes are no mask of {rows} x {cols}")
    return np.unpackbits(bits.astype(np.uint8), count=rows * cols).astype(np.bool_).reshape(rows, cols)


def _parse(key: str, content: bytes) -> dict[str, Array]:
    try:
        return load_safetensors(content)
    except SafetensorError as error:
        raise DamagedStageError(f"store: a file of stage {key} cannot be read ({error})") from None
