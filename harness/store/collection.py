"""What nothing in a store needs any more, and its removal.

Metrics and masks are small and always kept, unless asked otherwise. States go that no run would start from again; files
go that were on their way to a name when their writer died; claims of dead runs go. As long as another run is alive,
whatever it may have looked at stays.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness._files import folders
from harness.api import StoreError
from harness.results import records
from harness.results.records import PENDING
from harness.store import DAY_S, MASKS, STAGE, STATE, TEMPORARY, DamagedStageError, StageRecord, Store
from harness.store.claims import SILENCE_S, Claims

Kind = Literal["state", "damaged", "temporary", "claim", "stage"]


@dataclass(frozen=True)
class Item:
    """A file, or a stage's folder, that nothing needs.

    Args:
        kind: what it is.
        path: where it is, seen from the store's folder.
        size_bytes: what its removal frees; nothing for a file that another store shares by a hard link.
    """

    kind: Kind
    path: Path
    size_bytes: int


@dataclass
class Collected:
    """What was, or would be, removed.

    Args:
        items: in the order found.
        kept: why something that is perhaps not needed stays, in sentences.
    """

    items: list[Item] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """Bytes freed."""
        return sum(item.size_bytes for item in self.items)


def collect(folder: Path, *, dry_run: bool = False, unreferenced: bool = False) -> Collected:
    """Remove what nothing in a store needs.

    Args:
        folder: the store.
        dry_run: only tell.
        unreferenced: stages, too, that no run in `runs/` rests on, metrics and masks included.

    Raises:
        StoreError: there is no store, or it cannot be written.
    """
    store = Store(folder)
    store.check_readable()
    with Claims(store) as claims:
        return _Collection(store, claims, dry_run=dry_run).collect(unreferenced=unreferenced)


class _Collection:
    """One round of collecting."""

    def __init__(self, store: Store, claims: Claims, *, dry_run: bool) -> None:
        self._store, self._claims, self._dry_run = store, claims, dry_run
        self._found = Collected()

    def collect(self, *, unreferenced: bool) -> Collected:
        others = self._claims.others()
        # What somebody is writing now is younger than that; a large file over a slow network is given a day.
        age = DAY_S if others else SILENCE_S
        self._remove_files("temporary", self._temporary(age))
        # A run may be about to read any state: only what is nobody's for certain goes.
        if others:
            self._found.kept.append(f"the store is in use by {', '.join(others)}: stages and states stay as they are")
        else:
            stages = _Stages(self._store)
            self._found.kept += stages.remarks()
            self._remove_files("damaged", stages.leftovers())
            gone = stages.unreferenced() if unreferenced else frozenset[str]()
            if unreferenced and stages.is_broken():
                self._found.kept.append(
                    "a chain lacks a stage that was damaged or removed: what no run rests on cannot be told and stays; "
                    "run its experiment again first"
                )
            # Stages before states: a state of a stage that is gone goes with it.
            for key in sorted(gone):
                self._remove_stage(key)
            for key in sorted(stages.passing() - gone):
                self._remove_state(key)
        self._remove_claims()
        return self._found

    def _temporary(self, age: float) -> Iterator[Path]:
        """Files on their way that have not changed for so many seconds."""
        found = self._store.on_their_way()
        for key in self._store.keys():
            found += [path for path in _files(self._store.stage_folder(key)) if TEMPORARY.fullmatch(path.name)]
        now = self._store.now()
        yield from (path for path in found if now - path.lstat().st_mtime > age)

    def _remove_files(self, kind: Kind, paths: Iterator[Path]) -> None:
        for path in paths:
            # At every file: removing many takes longer than the silence that others take for an end.
            self._claims.refresh()
            item = self._item(kind, path)
            if not self._dry_run:
                # A run may have begun since: it may be about to write here.
                if kind == "damaged" and self._claims.others_alive():
                    return
                self._unlink(path)
                _remove_empty(path.parent, self._store)
            self._found.items.append(item)

    def _remove_state(self, key: str) -> None:
        item = self._item("state", self._store.stage_folder(key) / STATE)
        self._claims.refresh()
        if self._dry_run or self._store.drop_state(key, self._claims.others_alive):
            self._found.items.append(item)

    def _remove_stage(self, key: str) -> None:
        """Remove a stage unless a run begins just now: what it may have seen is put back."""
        folder = self._store.stage_folder(key)
        files = _files(folder)
        item = Item("stage", folder.relative_to(self._store.folder), sum(_size(path) for path in files))
        self._claims.refresh()
        if not self._dry_run:
            # The record goes first: a stage without it does not exist, however much of it lies about.
            if not self._store.drop_stage(key, self._claims.others_alive):
                return
            for path in files:
                if path.name != STAGE:
                    self._unlink(path)
            _remove_empty(folder, self._store)
        self._found.items.append(item)

    def _remove_claims(self) -> None:
        for path in tuple(self._claims.stale()):
            item = self._item("claim", path)
            if self._dry_run or self._claims.clear(path):
                self._found.items.append(item)

    def _item(self, kind: Kind, path: Path) -> Item:
        return Item(kind, path.relative_to(self._store.folder), _size(path))

    def _unlink(self, path: Path) -> None:
        try:
            self._store.inside(path.parent)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"gc: {path} cannot be removed ({error.strerror}); make the store writable, or leave it as it is"
            ) from None


class _Stages:
    """All stages of a store, and what rests on what."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records: dict[str, StageRecord] = {}
        self._empty: list[str] = []
        self._unreadable = 0
        for key in store.keys():
            try:
                record = store.read(key)
            except DamagedStageError:
                self._unreadable += 1
                continue
            if record is None:
                self._empty.append(key)
            else:
                self._records[key] = record
        self._ends: set[str] = set()
        self._reached: set[str] = set()
        self._unfinished: list[str] = []
        self._is_lacking = False
        for folder in sorted(folders(store.folder / "runs")):
            self._read_run(folder)

    def _read_run(self, folder: Path) -> None:
        try:
            found = records.read(folder / "records.json")
        except StoreError:
            found = ()
        self._ends.update(record.stage for record in found)
        # Only what is done has to be there; a cell that failed names a stage that may never have been.
        self._reached.update(record.stage for record in found if record.is_done)
        self._is_lacking |= not all(record.is_done or record.status == "skipped" for record in found)
        if not found or any(record.status in PENDING for record in found):
            self._is_lacking = True
            self._unfinished.append(folder.name)

    def remarks(self) -> list[str]:
        """Why something stays."""
        remarks = []
        if self._unfinished:
            remarks.append(
                f"{', '.join(self._unfinished)} is not finished: every state stays that it may go on from; finish it "
                "or remove its folder in runs"
            )
        if self._unreadable:
            remarks.append(
                f"{self._unreadable} stages have a damaged record, or one of another version of harness; a run that "
                "needs them runs them again"
            )
        return remarks

    def leftovers(self) -> Iterator[Path]:
        """What is left of damaged stages that were set aside, and of stages whose run was killed before their end."""
        for key in self._empty:
            for path in _files(self._store.stage_folder(key)):
                # Only what a stage writes: other files in its folder are somebody's.
                if path.name in (STATE, MASKS):
                    yield path
        for key in (*self._empty, *self._records):
            path = (self._store.stage_folder(key) / STAGE).with_suffix(".damaged")
            if os.path.lexists(path):
                yield path

    def passing(self) -> frozenset[str]:
        """Stages whose states no run starts from again.

        Kept are, as after a run: ends, rewind targets, what was pruned, dense models; and the last state of a chain
        that has no end yet.
        """
        # An unfinished run may go on from any of them.
        if self._unfinished:
            return frozenset()
        begun: set[str] = set()
        keep = set(self._ends)
        for record in self._records.values():
            if record.parent is not None:
                # Of a test or a pruning the state before stays: another score or another mask starts there.
                (keep if record.kind in ("test", "prune") else begun).add(record.parent)
            keep |= _source(record)
        return frozenset(
            key
            for key, record in self._records.items()
            if key in begun - keep and MASKS in record.checksums and self._store.has_state(key)
        )

    def is_broken(self) -> bool:
        """Whether a chain lacks a stage, so that what lies before it cannot be followed."""
        parents = {record.parent for record in self._records.values() if record.parent is not None}
        sources = {key for record in self._records.values() for key in _source(record)}
        # Without the missing record nobody knows what it rested on.
        return bool(self._unreadable or (parents | sources | self._reached) - self._records.keys())

    def unreferenced(self) -> frozenset[str]:
        """Stages that no run rests on; while a run lacks a result, not those of chains that have no end yet."""
        if self.is_broken():
            return frozenset()
        tests = {key for key, record in self._records.items() if record.kind == "test"}
        keep = self._ends & self._records.keys()
        if self._is_lacking:
            # The last stages of chains without an end: a run that goes on starts there.
            keep |= self._records.keys() - tests - {record.parent for record in self._records.values()}
        new = set(keep)
        # Down to the beginning of every chain that is kept.
        while new:
            reached = [self._records[key] for key in new]
            new = {key for record in reached for key in {record.parent} | _source(record) if key is not None}
            new = (new & self._records.keys()) - keep
            keep |= new
        return frozenset(self._records.keys() - keep - {key for key in tests if self._records[key].parent in keep})


def _source(record: StageRecord) -> set[str]:
    source = record.inputs.get("source")
    return {source} if isinstance(source, str) else set()


def _files(folder: Path) -> list[Path]:
    """The files of a folder, links among them, but not its folders."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if not entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size(path: Path) -> int:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    # A file that another store links to frees nothing.
    return status.st_size if status.st_nlink == 1 else 0


def _remove_empty(folder: Path, store: Store) -> None:
    """Remove a stage's folder if nothing is left in it."""
    if folder.parent.parent == store.folder / "stages":
        try:
            folder.rmdir()
        except OSError:  # not empty, or gone
            return
