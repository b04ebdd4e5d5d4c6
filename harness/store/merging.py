"""Stores joined: what one store has and another one lacks is brought over, checked on the way.

Interrupted and called again it goes on, since a stage exists in the store that is written to only when its `stage.json`
is there, which comes last.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from harness._files import file_sha256, folders
from harness.api import SpecError, StoreError
from harness.results import records
from harness.results.records import Record
from harness.store import MASKS, STATE, DamagedStageError, StageRecord, Store
from harness.store.arrays import check_open, check_size
from harness.store.claims import Claims

RECORDS = "records.json"

MOST_RUN_BYTES = 1 << 30
"""Of one file of a run: reports, logs, and what says how it stands; records of a large run have some megabytes."""

_CHUNK = 1 << 20


@dataclass
class Merged:
    """What was done.

    Args:
        stages: brought over; states: added to stages that were there without; equal: there already.
        unfinished: folders without a result, passed over.
        runs: folders of runs brought over or joined.
        size_bytes: what was copied; linked files count nothing.
        damaged: what was left out, in words.
        differing: stages that both stores have with other results, in words; the first one there stays.
    """

    stages: int = 0
    states: int = 0
    equal: int = 0
    unfinished: int = 0
    runs: int = 0
    size_bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether everything that is finished in the sources is in the store now."""
        return not self.damaged and not self.differing


def merge(sources: Sequence[Path], target: Path) -> Merged:
    """Bring everything that is finished in some stores into another one.

    Args:
        sources: folders of stores; only read.
        target: folder of the store that is written to; made if need be.

    Raises:
        SpecError: a store is to be merged into itself.
        StoreError: a source is no store, or the target cannot be written; what was brought over until then stays.
    """
    store = Store(target)
    for source in sources:
        Store(source).check_readable()
        if target.exists() and source.samefile(target):
            raise SpecError(f"merge: expected other stores than the one written to, got {source} as both; leave it out")
    # After the sources were looked at: a mistake in their names makes no new store.
    store.prepare()
    merged = Merged()
    # Runs on the target see that somebody else is there, and `harness gc` takes nothing away.
    with Claims(store) as claims:
        for origin in map(Store, sources):
            for key in sorted(origin.keys()):
                claims.refresh()
                _Stage(origin, store, key, merged).bring()
            _Runs(origin, store, merged).bring()
    return merged


class _Stage:
    """One stage on its way."""

    def __init__(self, source: Store, target: Store, key: str, merged: Merged) -> None:
        self._source, self._target, self._key, self._merged = source, target, key, merged

    def bring(self) -> None:
        """Bring the stage, or what is missing of it."""
        try:
            record = self._source.read(self._key)
        except DamagedStageError as error:
            self._leave_out(str(error))
            return
        there = self._there()
        if record is None:
            self._merged.unfinished += 1
        elif there is None:
            self._bring_all(record)
        # A test score has no state and therefore no digest: its totals are compared.
        elif (there.digest, there.test) != (record.digest, record.test):
            self._merged.differing.append(
                f"not reproducible: {record.kind} stage {self._key} has another result in {self._source.folder} than "
                f"in {self._target.folder}, which stays as it is"
            )
        else:
            self._complete(there)

    def _there(self) -> StageRecord | None:
        # A record that cannot be read here may be whole in the other store.
        try:
            return self._target.read(self._key)
        except DamagedStageError as error:
            self._target.set_aside(self._key, str(error), "the stage is brought anew")
            return None

    def _bring_all(self, record: StageRecord) -> None:
        for name in (MASKS, STATE):
            checksum = record.checksums.get(name)
            # A state may have been dropped; masks are always kept.
            if checksum is None or (name == STATE and not os.path.lexists(self._origin(name))):
                continue
            # Perhaps an interrupted merge brought it; under the same name may also lie the file of a killed attempt.
            if not _is_it(self._path(name), checksum) and not self._fetch(name, checksum) and name == MASKS:
                return
        # Last, as in a run: from now on the stage exists.
        self._target.write_record(record)
        self._merged.stages += 1

    def _complete(self, there: StageRecord) -> None:
        """Add what the target no longer has of a stage."""
        # States are dropped on purpose and come back only if the other store still has them.
        absent = [name for name in there.checksums if name in (STATE, MASKS) and not self._path(name).exists()]
        wanted = [name for name in absent if os.path.lexists(self._origin(name))]
        fetched = [name for name in wanted if self._fetch(name, there.checksums[name])]
        if STATE in fetched:
            self._merged.states += 1
        else:
            self._merged.equal += 1

    def _fetch(self, name: str, checksum: str) -> bool:
        """Bring a file; one that is not what its checksum says is named and left out."""
        try:
            copied = _fetch(self._origin(name), self._path(name), self._target, checksum)
        except _DamagedFileError as error:
            self._leave_out(f"store: {name} of stage {self._key} is damaged ({error})")
            return False
        self._merged.size_bytes += copied
        return True

    def _origin(self, name: str) -> Path:
        return self._source.stage_folder(self._key) / name

    def _path(self, name: str) -> Path:
        return self._target.stage_folder(self._key) / name

    def _leave_out(self, reason: str) -> None:
        self._merged.damaged.append(f"{reason}; left out, from {self._source.folder}")


class _Runs:
    """The folders of runs of one store on their way."""

    def __init__(self, source: Store, target: Store, merged: Merged) -> None:
        self._source, self._target, self._merged = source, target, merged

    def bring(self) -> None:
        """Bring every run, or join it with the one of the same name."""
        for folder in folders(self._source.folder / "runs"):
            if not os.path.lexists(folder / RECORDS):  # a run that was killed before it began
                continue
            try:
                self._bring(folder, self._target.run_folder(folder.name))
            except (StoreError, _DamagedFileError) as error:
                self._merged.damaged.append(f"run {folder.name} of {self._source.folder} is left out ({error})")

    def _bring(self, folder: Path, target: Path) -> None:
        ours = records.read(folder / RECORDS)
        theirs = records.read(target / RECORDS) if (target / RECORDS).exists() else ()
        for origin in _files(folder):
            path = target / origin.relative_to(folder)
            # What is there stays: of two runs with one name only the records can be joined.
            if origin.name != RECORDS and not path.exists():
                self._copy(origin, path)
        # The target's first: of equal results the one that is there stays.
        joined = join(theirs, ours)
        if joined != list(theirs):
            self._target.inside(target / RECORDS)
            records.write(target / RECORDS, joined)
            self._merged.runs += 1

    def _copy(self, origin: Path, path: Path) -> None:
        size = origin.stat().st_size
        if size > MOST_RUN_BYTES:
            # It is no result: the run comes without it.
            self._merged.damaged.append(
                f"{origin} has {size} bytes, more than the {MOST_RUN_BYTES} of any file of a run; left out"
            )
        else:
            self._merged.size_bytes += _fetch(origin, path, self._target)


def join(first: Iterable[Record], second: Iterable[Record]) -> list[Record]:
    """The records of two runs of one experiment: every cell of either, with a result wherever one of them has it.

    Args:
        first: whose result stays where both have one.
        second: what is joined to it.
    """
    joined = {record.cell: record for record in first}
    for record in second:
        there = joined.get(record.cell)
        # A result is worth more than a failure, and the first result more than a second one.
        if there is None or (record.is_done and not there.is_done):
            joined[record.cell] = record
    return list(joined.values())


class _DamagedFileError(Exception):
    """A file of a source that is not what it should be."""


def _fetch(origin: Path, path: Path, target: Store, checksum: str | None = None) -> int:
    """Bring one file: a hard link where that is possible, else a copy.

    Returns:
        Bytes copied; 0 for a link.

    Raises:
        _DamagedFileError: the file cannot be read, is a link, or has another checksum.
        StoreError: the target cannot be written.
    """
    # Without following links: a store of anybody's must not read files elsewhere.
    try:
        handle = os.open(origin, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise _DamagedFileError(error.strerror) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _DamagedFileError("it is no plain file")
    with os.fdopen(handle, "rb") as file:
        if checksum is not None:
            _check(file)
        try:
            if checksum is not None and _is_linked(file, origin, path, target, checksum):
                return 0
            target.place_from(path, partial(_copy, file, checksum))
            return file.tell()
        except OSError as error:
            raise StoreError(
                f"merge: {path} cannot be written ({error.strerror}); free some space or name another folder with "
                "--store, and merge again: what was brought over stays"
            ) from None


def _check(file: BufferedReader) -> None:
    """Refuse a file of arrays whose header tells another size: before gigabytes are read for their checksum."""
    try:
        check_open(file)
    except ValueError as error:
        raise _DamagedFileError(str(error)) from None
    except OSError as error:
        raise _DamagedFileError(error.strerror or str(error)) from None
    file.seek(0)


def _is_linked(file: BufferedReader, origin: Path, path: Path, target: Store, checksum: str) -> bool:
    """Link a file of known content, which nobody changes in place; False where it has to be copied."""
    target.inside(path.parent).mkdir(parents=True, exist_ok=True)
    if os.fstat(file.fileno()).st_dev != path.parent.stat().st_dev or os.path.lexists(path):
        return False
    # The file is read through the handle that is then linked: both must be the same one.
    if hashlib.file_digest(file, "sha256").hexdigest() != checksum:
        raise _DamagedFileError("it has another checksum")
    file.seek(0)
    try:
        os.link(origin, path)
    except OSError:  # no hard links here
        return False
    if not os.path.samestat(os.fstat(file.fileno()), path.lstat()):  # a run put another file in its place just now
        path.unlink()
        return False
    return True


def _copy(file: BufferedReader, checksum: str | None, copy: BinaryIO) -> None:
    hasher = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        hasher.update(chunk)
        copy.write(chunk)
    if checksum is not None and hasher.hexdigest() != checksum:
        raise _DamagedFileError("it has another checksum")


def _is_it(path: Path, checksum: str) -> bool:
    """Whether a file of arrays has a content; one whose header tells another size is not read for it."""
    try:
        check_size(path)
        return file_sha256(path) == checksum
    except (OSError, ValueError):
        return False


def _files(folder: Path) -> Iterator[Path]:
    """The plain files of a run's folder and of the folders in it; links and half-written files are passed over."""
    for place in (folder, *folders(folder)):
        for path in sorted(place.iterdir()):
            if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
                yield path
