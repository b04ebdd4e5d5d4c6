"""Who is computing which stage: claims, so that several runs share one store and no stage is computed twice at once.

    STORE/claims/owners/<run>       one file per run: who it is; its time of change is the run's heartbeat
    STORE/claims/ab/abcd...         a claim on stage abcd...: a hard link to its owner's file (a copy where links fail)
    STORE/claims/ab/abcd....<run>   held for a moment by the one process that may take over a dead run's claim

A claim is a file that is created only if there is none, which every file system does atomically, network ones too;
nothing is locked by the kernel and no folder is renamed. A claim whose owner is dead is taken over, so that nothing
that a kill leaves behind has to be cleared by hand.
"""

import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from harness._files import aside, folders, write_atomic
from harness.api import StoreError
from harness.store import Store

SILENCE_S = 60.0
"""A run on another machine is dead when its heartbeat is older than this."""

_MAX_BYTES = 4096
"""A claim has some 300 bytes; no more than this is read of any."""


@dataclass(frozen=True)
class Owner:
    """Who holds a claim.

    Args:
        run: unique per run, never used again.
        host: the machine's name; machine: its identity, which survives a reboot.
        boot: identity of its boot; namespace: of the process numbers there, which containers have their own of.
        pid: the process; started: when it was, in clock ticks after the boot.
    """

    run: str
    host: str = ""
    machine: str = ""
    boot: str = ""
    namespace: str = ""
    pid: int = 0
    started: int = 0

    def __str__(self) -> str:
        """Part of a sentence."""
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class _Claim:
    """A claim as it lies there.

    Args:
        owner: who made it; None if that cannot be read.
        changed: when it was last touched, in seconds by the clock of the file system.
    """

    owner: Owner | None
    changed: float

    @property
    def instance(self) -> str:
        return self.owner.run if self.owner else "unreadable"


class Claims:
    """The claims of one run, to be closed at its end.

    A run exists for the others from here on, so it is made before the store is looked into: whatever a run has seen
    there is then not cleared away by another one.
    """

    def __init__(self, store: Store) -> None:
        """Enter a run.

        Raises:
            StoreError: the store cannot be written.
        """
        self._folder = store.folder / "claims"
        self._store = store
        # The start time tells this process from a later one that was given the same number.
        self._me = Owner(run=uuid4().hex, pid=os.getpid(), started=_started(os.getpid()) or 0, **_machine())
        self._content = json.dumps(asdict(self._me)).encode()
        self._file = self._folder / "owners" / self._me.run
        self._held: set[str] = set()
        self._dead: set[str] = set()
        self._beats: dict[str, tuple[float, float]] = {}
        self.refresh()

    def __enter__(self) -> "Claims":
        """The claims themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give everything back."""
        self.close()

    def acquire(self, key: str) -> bool:
        """Claim a stage, or take the claim of a dead run over.

        Returns:
            Whether this run holds it now; if not, ask again later.

        Raises:
            StoreError: the store cannot be written.
        """
        if key in self._held:
            return True
        try:
            taken = self._take(self._path(key))
        except OSError as error:
            raise self._unwritable(error) from None
        if taken:
            self._held.add(key)
        return taken

    def holder(self, key: str) -> str | None:
        """Who is computing a stage, as part of a sentence; None if nobody alive is."""
        path = self._path(key)
        claim = _read(path)
        if claim is None or not self._is_alive(claim):
            return None
        return str(claim.owner) if claim.owner else "a process that is just beginning"

    def release(self, key: str) -> None:
        """Give a claim back; one that is not held is left alone."""
        self._held.discard(key)
        path = self._path(key)
        claim = _read(path)
        # Another machine may have taken it over if this one stood still for longer than `SILENCE_S`.
        if claim is not None and claim.owner == self._me:
            with suppress(OSError):
                path.unlink()

    def refresh(self) -> None:
        """Tell the others that this run is alive; call it far more often than every `SILENCE_S` seconds.

        Raises:
            StoreError: the store cannot be written.
        """
        try:
            self._beat()
        except OSError as error:
            raise self._unwritable(error) from None

    def others(self) -> tuple[str, ...]:
        """The other runs that are alive on this store, as parts of a sentence."""
        return tuple(str(claim.owner) for claim in self._others())

    def others_alive(self) -> bool:
        """Whether another run is alive on this store."""
        return next(self._others(), None) is not None

    def stale(self) -> Iterator[Path]:
        """Files of dead runs: their claims first, then what they were known by."""
        owners = self._folder / "owners"
        # A claim is judged by its owner's file, so that goes last.
        for folder in (*(place for place in folders(self._folder) if place != owners), owners):
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
            for name in names:
                claim = None if name.startswith(".") else _read(folder / name)
                if claim is not None and not self._is_alive(claim):
                    yield folder / name

    def clear(self, path: Path) -> bool:
        """Remove one of the `stale` files.

        Returns:
            Whether it is gone; not if somebody alive has taken it over in the meantime.

        Raises:
            StoreError: the store cannot be written.
        """
        try:
            # Taken over before it is removed: between the look and now a living run may have done so.
            if path.parent.name != "owners" and not self._take(self._store.inside(path)):
                return False
            path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None
        return True

    def tidy(self) -> None:
        """Remove what dead runs left behind: their claims and, if no other run is alive, files on their way.

        What cannot be removed stays. Files are looked for before the others are: whoever wrote one of them was there
        by then, and is seen if it is alive.
        """
        with suppress(OSError, StoreError):
            for path in self.stale():
                self.clear(path)
            # Files on their way may be those of a run that is alive: their names do not say whose.
            left = self._store.on_their_way()
            if left and not self.others_alive():
                for path in left:
                    self._store.inside(path).unlink(missing_ok=True)

    def close(self) -> None:
        """Give everything back; the run no longer exists for the others."""
        for key in tuple(self._held):
            self.release(key)
        with suppress(OSError):
            self._file.unlink()

    # --- files ------------------------------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        return self._store.inside(self._folder / self._store.checked_key(key)[:2] / key)

    def _beat(self) -> None:
        try:
            os.utime(self._file)  # without a time: by the clock of the file system, not by this machine's
        except FileNotFoundError:  # the first beat, or swept away by somebody who took this run for dead
            self._store.inside(self._file).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._file, self._content)

    def _take(self, path: Path) -> bool:
        """Create a claim, or replace the one of a dead owner.

        Replacing takes the right to do so first: a claim on that claim, under a name that only this pair has. Whoever
        holds that right is alone with the dead owner's claim, for a dead owner does nothing and others need the right,
        too; it looks again, as somebody may have replaced the claim before. The right of a process that died just then
        is taken over in the same way.
        """
        if self._create(path):
            return True
        claim = _read(path)
        if claim is None:  # given back just now, or not visible here yet, or something that no run made
            return _is_foreign(path) and self._create_in_place_of(path)
        if self._is_alive(claim):
            # Ours all the same where a network file system did what it then reported as failed.
            return claim.owner == self._me
        right = path.with_name(f"{path.name}.{claim.instance[:12]}")
        if not self._take(right):
            return False
        try:
            now = _read(path)
            if now is None or now.instance != claim.instance:
                return False
            write_atomic(path, self._content)
            return True
        finally:
            with suppress(OSError):
                right.unlink()

    def _create(self, path: Path) -> bool:
        """Create a claim unless there is one."""
        for _ in range(2):
            # By a link to the file of this run: it is there with its content at once, and touching that file touches
            # all claims.
            try:
                os.link(self._file, path)
                return True
            except FileExistsError:
                return False
            except FileNotFoundError:  # the first claim below this folder, or this run was swept away
                path.parent.mkdir(parents=True, exist_ok=True)
                self._beat()
            except OSError:  # no hard links here
                break
        # Without hard links the claim is empty for a moment, and is read as one of a process that is just beginning.
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with os.fdopen(handle, "wb") as file:
            file.write(self._content)
        return True

    def _create_in_place_of(self, path: Path) -> bool:
        """Create a claim where something lies that is no plain file."""
        aside(path, "no run makes such a claim", "the stage is claimed anew")
        return self._create(path)

    def _others(self) -> Iterator[_Claim]:
        try:
            # Runs are known by their own files; claims need not be searched.
            names = sorted(os.listdir(self._folder / "owners"))
        except FileNotFoundError:
            return
        for name in names:
            claim = None if name.startswith(".") else _read(self._folder / "owners" / name)
            if claim is not None and claim.owner is not None and claim.owner != self._me and self._is_alive(claim):
                yield claim

    # --- who is alive -----------------------------------------------------------------------------------------------

    def _is_alive(self, claim: _Claim) -> bool:
        owner, me = claim.owner, self._me
        if owner == me:
            return True
        if owner is None:
            return self._is_heard(claim)
        if owner.run in self._dead:
            return False
        # Of this boot and this namespace process numbers can be looked up; start times tell a number's second owner.
        if me.boot and (owner.host, owner.boot, owner.namespace) == (me.host, me.boot, me.namespace):
            alive = _started(owner.pid) == owner.started
        elif me.boot and me.machine and (owner.host, owner.machine) == (me.host, me.machine) and owner.boot != me.boot:
            alive = False  # this machine has been started anew since
        else:
            return self._is_heard(claim)
        if not alive:
            self._dead.add(owner.run)
        return alive

    def _is_heard(self, claim: _Claim) -> bool:
        """Whether an owner on another machine has given a sign of life.

        Both times are the file system's, so that no machine's clock matters; should that clock be set back, a heartbeat
        that does not change while we look on is found out all the same.
        """
        beacon = _read(self._folder / "owners" / claim.instance)
        changed = max(claim.changed, beacon.changed if beacon else 0.0)
        before, since = self._beats.get(claim.instance, (None, 0.0))
        if before != changed:
            since = time.monotonic()
            self._beats[claim.instance] = (changed, since)
        # Our own beat first: both ages are then by the clock of the same file system.
        self.refresh()
        now = self._file.stat().st_mtime
        return now - changed <= SILENCE_S and time.monotonic() - since <= SILENCE_S

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(
            f"store: claims cannot be written below {self._folder} ({error.strerror}); free some space or name another "
            "folder with --store; everything finished is kept"
        )


def _is_foreign(path: Path) -> bool:
    """Whether something lies in a claim's place that is no plain file."""
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _read(path: Path) -> _Claim | None:
    """The claim at a path, or None if there is none.

    Opened and not only looked at: opening makes a network file system ask its server for the times.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    with os.fdopen(handle, "rb") as file:
        changed = os.fstat(file.fileno()).st_mtime
        try:
            content = json.loads(file.read(_MAX_BYTES))
            owner = Owner(**content)
            # Any of the fields may have any type in a file that no run wrote.
            known = all(isinstance(getattr(owner, name), type_) for name, type_ in Owner.__annotations__.items())
        except (ValueError, TypeError, RecursionError, OSError):
            return _Claim(None, changed)
    return _Claim(owner if known and owner.run.isalnum() else None, changed)


@lru_cache(maxsize=1)
def _machine() -> dict[str, str]:
    """Names of this machine, empty where the system has none."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "machine": _line("/etc/machine-id"),
        "boot": _line("/proc/sys/kernel/random/boot_id"),
        "namespace": namespace,
    }


def _line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process of this machine was started, in clock ticks after the boot; None if it runs no more."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name of the program may hold anything, brackets and spaces included: fields are counted from its end.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])  # a zombie is dead, though its parent has not looked
