"""Files that are there whole or not at all, files of others read without trust, and digests of what they hold."""

import errno
import hashlib
import json
import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from harness._text import clean

MOVED = logging.getLogger("harness.moved")
"""Tells of everything that is moved aside as damaged; `place` of a record is where it lay."""

_UMASK = os.umask(0)  # it can only be asked for by setting it
os.umask(_UMASK)


def at_home(path: str | Path) -> Path:
    """A path with a leading `~` written out; as it is where nobody has that home, as in some containers.

    pathlib's own raises RuntimeError then, and what it is wanted for would say that the file is not there.
    """
    return Path(os.path.expanduser(path))


def occupy_streams() -> None:
    """Let nothing else take the place of a stdin, stdout or stderr that was closed, as some services start programs.

    The next file or pipe that is opened would have its number, and whatever is printed to that number would go there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one; processes that are started later need it, too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def write_atomic(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is there whole or not at all.

    Args:
        path: the file; its folder has to be there.
        content: its bytes, or what writes them, more than once if need be.

    Raises:
        OSError: it cannot be written; nothing half-written remains.
    """
    write = (lambda file: file.write(content)) if isinstance(content, bytes) else content
    # Twice: the second time nothing can be in the way any more.
    for is_last in (False, True):
        with temporary(path, path.parent, write) as made:
            try:
                return replace(made, path)
            except FileNotFoundError:
                # A run that has not told of itself yet is not seen by another one, which may take what is on its way
                # for that of a dead run (`Claims.tidy`); it does so once, at its start.
                if is_last:
                    raise


def replace(made: str | Path, path: Path) -> None:
    """Give a file its name; a folder that has it, where a file belongs, is moved aside and kept for a look.

    Raises:
        OSError: it cannot be.
    """
    try:
        os.replace(made, path)
    except IsADirectoryError:
        aside(path, "a folder lay where a file belongs", "the file is written in its place")
        os.replace(made, path)


def aside(path: Path, why: str, then: str) -> None:
    """Rename what cannot be used, whatever it is, to a name that says so, and tell; gone already is as well.

    Args:
        path: what is renamed.
        why: what is wrong with it, as a clause.
        then: what happens now, as a clause.

    Raises:
        OSError: it cannot be renamed.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        kept = path.with_suffix(".damaged")
        try:
            # The name that is most likely to be looked for; a random one only where that is taken.
            path.replace(kept)
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            kept = path.with_suffix(f".{secrets.token_hex(4)}.damaged")
            path.replace(kept)
        told = clean(f"moved aside: {path}, as {why}; it is kept there as {kept.name}, and {then}")
        # Without a listener, logging prints a warning on stderr as it is: whoever did not ask hears of it, too.
        MOVED.warning("%s", told, extra={"place": path})


@contextmanager
def temporary(path: Path, folder: Path, write: Callable[[BinaryIO], object]) -> Iterator[str]:
    """A flushed file on its way to a name; gone if that fails.

    Args:
        path: where it is to be renamed to by the caller.
        folder: where it lies until then: on the file system of `path`, or it cannot be renamed.
        write: writes its content.
    """
    # Cut short by bytes: a name has 255 of them, and some are left for what mkstemp adds.
    handle, made = tempfile.mkstemp(dir=folder, prefix=f".{os.fsdecode(os.fsencode(path.name)[:200])}.")
    try:
        with os.fdopen(handle, "wb") as file:
            readable_as_usual(handle)
            write(file)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may keep the new name with an empty file
        yield made
    except BaseException:
        with suppress(OSError):
            os.unlink(made)
        raise


def readable_as_usual(handle: int) -> None:
    """Give a temporary file, which is its owner's alone, the rights of any other new file: stores are shared."""
    if hasattr(os, "fchmod"):
        os.fchmod(handle, 0o666 & ~_UMASK)


def open_at_once(path: Path) -> int:
    """A descriptor for reading, without waiting: a pipe in place of a file would make us wait for ever.

    Raises:
        OSError: the file cannot be opened.
    """
    # O_NONBLOCK makes opening a pipe return at once; for a plain file it changes nothing.
    return os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))


def read_file(path: Path, limit: int | None = None) -> bytes:
    """The content of a plain file.

    Raises:
        OSError: it cannot be read, or is no plain file.
        ValueError: it has more than `limit` bytes.
    """
    handle = open_at_once(path)
    with os.fdopen(handle, "rb") as file:
        size = plain_size(handle)
        if limit is not None and size > limit:
            raise ValueError(f"expected at most {limit} bytes, got {size}")
        # As many bytes as it had: a file that grows under us is read as it was.
        return file.read(size)


def plain_size(handle: int) -> int:
    """The bytes of an open plain file.

    Raises:
        OSError: it is none.
    """
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "no plain file")
    return status.st_size


def folders(folder: Path) -> Iterator[Path]:
    """The folders in a folder, in no order; none if it is not there. Links are passed over."""
    try:
        with os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return


def canonical(value: object) -> str:
    """A JSON value in the one spelling that digests are taken of, whatever the order of its keys.

    Raises:
        ValueError: it holds a number that is not finite, which JSON has no word for.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256(content: bytes | str) -> str:
    """SHA-256 in hexadecimal, of a text as UTF-8."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: object) -> str:
    """SHA-256 of a JSON value in hexadecimal: the same for equal content."""
    return sha256(canonical(value))
