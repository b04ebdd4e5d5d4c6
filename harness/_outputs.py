"""Files that users name for what a command makes: whole or not there, and one sentence where they cannot be written."""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness import _files
from harness.errors import SpecError

_PART = re.compile(r"\..*\.[0-9a-f]{8}\.harness-part")
_IN_PLACE = frozenset((errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV))
"""Why a file may be written though no other can be put in its place: its folder is closed, it is mounted by itself."""

_REASONS = {
    errno.ENXIO: "it is a pipe that nobody reads",
    errno.EISDIR: "it is a folder",
    errno.ELOOP: "it is a link that leads back to itself",
    errno.ENOENT: "its folder does not exist",
    errno.ENOTDIR: "its folder is a file",
    errno.ENAMETOOLONG: "its name is too long",
}


def write_output(path: Path, content: bytes | str, *, is_new: bool = False) -> None:
    """Write a file that a user asked for: whole, or not at all.

    What was there stays until the new content is complete, and its rights stay. A link is followed; a pipe or a device
    is written to as it is, without waiting for a reader. Folders that are missing are made: what took an hour to be
    computed is not lost for one.

    Args:
        path: the file.
        content: a text is written as UTF-8.
        is_new: refuse a file that is there already.

    Raises:
        SpecError: it cannot be written, and nothing half-written remains; the sentence says why.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    try:
        _make_folder(path.parent)
        if is_new:
            # By lexists: a link to nothing would be followed and written through.
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, "")
            _put(path, data, None, is_new=True)
            return
        before = _status(path)
        if before is not None and (_is_of_a_process(path) or not stat.S_ISREG(before.st_mode)):
            _pass_on(path, data)
        else:
            # Through links to the file itself, which a rename would otherwise replace by a plain file.
            _replace(Path(os.path.realpath(path)), data, before)
    except FileExistsError:
        raise SpecError(f"{path} exists already and was left as it is; name another file") from None
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
        # Room helps where there is none; of a folder that is not there, making it does.
        way = {errno.ENOENT: "make it, or name another file"}.get(error.errno or 0, "name another file, or make room")
        raise SpecError(f"{path} cannot be written: {reason}; {way}") from error
    except ValueError:
        raise SpecError(f"{path!s:.200} cannot be written: no file has such a name; name another file") from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # and no folder
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_of_a_process(path: Path) -> bool:
    """Whether a name stands for what a process has open, such as `/dev/stdout`."""
    return str(path).startswith(("/dev/", "/proc/"))


def _pass_on(path: Path, data: bytes) -> None:
    """Write to what is no plain file, or is somebody's output already: behind what is there."""
    # A folder refuses to be opened; so does, in this way, a pipe without a reader.
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "wb", buffering=0) as file:
        os.set_blocking(handle, True)
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]


def _replace(path: Path, data: bytes, before: os.stat_result | None) -> None:
    if before is not None and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    try:
        _put(path, data, before, is_new=False)
    except OSError as error:
        # A new file has nothing that could be overwritten in its place.
        if before is None or error.errno not in _IN_PLACE:
            raise
        _overwrite(path, data)


def _overwrite(path: Path, data: bytes) -> None:
    """Write over a file that nothing can be put in place of; what was there is written back if that fails."""
    with path.open("r+b") as file:
        old = file.read()
        try:
            _fill(file.fileno(), data)
        except OSError:
            with suppress(OSError):
                _fill(file.fileno(), old)
            raise


def _fill(handle: int, data: bytes) -> None:
    os.lseek(handle, 0, os.SEEK_SET)
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]
    # Shorter than before: the end of the old content would follow.
    os.ftruncate(handle, len(data))
    os.fsync(handle)


def _put(path: Path, data: bytes, before: os.stat_result | None, *, is_new: bool) -> None:
    """Make a file and give it its name.

    Raises:
        FileExistsError: it is to be new, and is there.
    """
    with _nameless(path.parent) as handle:
        if handle is None:
            _put_by_name(path, data, before, is_new=is_new)
            return
        _complete(handle, data, before)
        if is_new:
            _name(handle, path)
            return
        part = _part(path)
        # A name for the nameless, then the swap: `link` cannot replace what is there.
        _name(handle, part)
    try:
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def _nameless(folder: Path) -> Iterator[int | None]:
    """A file without a name, of which a kill leaves nothing; None where the file system has none."""
    _sweep(folder)
    handle = None
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with suppress(OSError):  # if it is for more than this, the other way says so
            handle = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def _name(handle: int, path: Path) -> None:
    # A folder is named, which the absolute path makes nothing of, since Python follows links in no other case.
    os.link(f"/proc/self/fd/{handle}", path, src_dir_fd=handle, follow_symlinks=True)


def _put_by_name(path: Path, data: bytes, before: os.stat_result | None, *, is_new: bool) -> None:
    part = _part(path)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        try:
            _lock(handle)
            _complete(handle, data, before)
        finally:
            os.close(handle)
        if is_new and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "")
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _complete(handle: int, data: bytes, before: os.stat_result | None) -> None:
    if before is None:
        _files.readable_as_usual(handle)
    else:
        # The rights that the old file had; without permission to set them it keeps those of a new one.
        with suppress(OSError):
            os.fchmod(handle, stat.S_IMODE(before.st_mode))
    _fill(handle, data)


def _part(path: Path) -> Path:
    """A name of a file on its way to a path; no longer than names may be."""
    start = os.fsdecode(os.fsencode(path.name)[:150])
    return path.with_name(f".{start}.{secrets.token_hex(4)}.harness-part")


def _lock(handle: int) -> bool:
    """Hold a file as long as this process has it open; whether nobody else does."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove what commands left in a folder that were killed while they wrote."""
    with suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries if _PART.fullmatch(entry.name)]:
            with suppress(OSError):
                handle = _files.open_at_once(folder / name)
                try:
                    if _lock(handle):
                        os.unlink(folder / name)
                finally:
                    os.close(handle)
