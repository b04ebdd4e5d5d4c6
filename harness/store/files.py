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

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from harness._files import aside, folders, read_file, replace, sha256, temporary, write_atomic
from harness.api import EmptySelectionError, Mask, State, StoreError
from harness.store.arrays import array_types, check_size, mask_bytes, masks_of, state_bytes, state_digest, state_of
from harness.store.stage_record import (
    STORE_FORMAT,
    DamagedStageError,
    StageRecord,
    processor_seconds,
    record_checksum,
    record_values,
)

STATE, MASKS, STAGE = "state.safetensors", "masks.safetensors", "stage.json"

DAY_S = 86_400.0
"""Temporary files older than this belong to nobody."""

MAX_RECORD_BYTES = 1 << 26
"""Of a `stage.json`; one with a learning rate for each of a million steps has a third of it."""

TEMPORARY = re.compile(r"\.(.+\.[a-z0-9_]{8}|.+\.\d+\.tmp|dropping\..+)")
"""Names of files on their way, and of states and records about to be dropped."""

_KEY = re.compile(r"[0-9A-Za-z_-]{1,128}")
_RUN = re.compile(r"[0-9A-Za-z_][0-9A-Za-z._-]{0,199}")
_SETTLE_S = 0.05

T = TypeVar("T")


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
            # Looked at before anything is written: a store of another layout must stay as it is.
            if marker.exists():
                self._check_format(marker)
            # By the clock that dates the files: that of another machine may be hours off.
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
            # Another process may remove a folder while this one looks.
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
                # The key's first letters again: a folder that was moved elsewhere is not found, and is no stage.
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
        # A record that was copied under another key is whole, and still not the one of this stage.
        if checksum != record_checksum(record) or record.key != key:
            raise DamagedStageError(f"store: the record of stage {key} is not the one that was written")
        return record

    def has_stage(self, key: str) -> bool:
        """Whether the stage was finished."""
        return (self.stage_folder(key) / STAGE).exists()

    def has_state(self, key: str) -> bool:
        """Whether the state after the stage is kept."""
        return (self.stage_folder(key) / STATE).exists()

    def verify_state(
        self, record: StageRecord, check: Callable[[Mapping[str, tuple[str, tuple[int, ...]]]], None] | None = None
    ) -> None:
        """Compare the kept state with its checksum.

        Args:
            record: of the stage.
            check: given type and shape of every array by name, raises a DamagedStageError if they are not as expected.

        Raises:
            DamagedStageError: it is missing or differs.
        """

        def verify(current: StageRecord) -> None:
            content = self._bytes(current, STATE)
            if check is not None:
                check(array_types(content))

        self._settled(record, verify)

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
            # Another process may be writing the stage at this moment; a second look sees all of it or the same damage.
            time.sleep(_SETTLE_S)
            current = self.read(record.key)
            if current is None:
                raise
            return read(current)

    def _masks(self, record: StageRecord) -> dict[str, Mask]:
        return self._parsed(record, MASKS, masks_of) if MASKS in record.checksums else {}

    def _state(self, record: StageRecord) -> State:
        return self._parsed(record, STATE, lambda content: state_of(content, self._masks(record)))

    def _parsed(self, record: StageRecord, name: str, parse: Callable[[bytes], T]) -> T:
        content = self._bytes(record, name)
        try:
            return parse(content)
        except ValueError as error:
            raise DamagedStageError(f"store: {name} of stage {record.key} {error}") from None

    def _bytes(self, record: StageRecord, name: str) -> bytes:
        path = self.stage_folder(record.key) / name
        try:
            check_size(path)
            content = read_file(path)
        except OSError as error:
            raise DamagedStageError(f"store: {name} of stage {record.key} is gone ({error.strerror})") from None
        except ValueError as error:
            raise DamagedStageError(f"store: {name} of stage {record.key} is damaged ({error})") from None
        # After the sizes: a checksum of a file that was cut off is computed in vain.
        if sha256(content) != record.checksums.get(name):
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
            files[STATE] = state_bytes(state)
            if state.masks:
                files[MASKS] = mask_bytes(state.masks)
            digest = state_digest(state)
        checksums = {name: sha256(content) for name, content in files.items()}
        spent = record.processor_seconds if (measured := processor_seconds()) is None else measured
        complete = record.model_copy(update={"checksums": checksums, "digest": digest, "processor_seconds": spent})
        # A stage without its record does not exist: a kill in between leaves nothing that anybody reads.
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
        values = record_values(record) | {"checksum": record_checksum(record)}
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
        with temporary(path, folder, write) as made:
            for _ in range(2):
                self.inside(path.parent).mkdir(parents=True, exist_ok=True)
                # `harness gc` may remove the folder in between, as it was empty.
                with suppress(FileNotFoundError):
                    return replace(made, path)
            replace(made, path)

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
            # Renamed first, as it can be put back; then it is asked once more whether somebody has begun.
            os.replace(path, hidden)
            if wanted is not None and wanted():
                os.replace(hidden, path)
                return False
            hidden.unlink()
            return True
        return False

    def set_aside(self, key: str, why: str = "it is damaged", then: str = "the stage is run again") -> None:
        """Take a damaged stage out of use: without its `stage.json` it does not exist; the file stays for a look.

        Args:
            key: of the stage.
            why: what is wrong with it, as a clause.
            then: what happens now, likewise; both are told.
        """
        path = self.stage_folder(key) / STAGE
        with self._writing(key):
            self.inside(path.parent)
            aside(path, why.removeprefix("store: "), then)

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
        # By the clock that wrote them, finer than a second: runs may follow closely.
        folders = [path.parent for path in (self.folder / "runs").glob("*/records.json")]
        if not folders:
            raise EmptySelectionError(
                f"store: no run in {self.folder}; `harness run SPEC` makes one, --store names another folder"
            )
        return max(folders, key=lambda folder: (folder / "records.json").stat().st_mtime_ns)
