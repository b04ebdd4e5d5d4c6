"""Files that users name: opened only if they are plain files of a sensible size, so that nothing is waited for."""

import codecs
import errno
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from harness.errors import HarnessError, SpecError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark begins this one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte-order marks and what they say of the encoding."""


def open_plain(path: Path, what: str, *, most: int, error: type[HarnessError] = SpecError) -> BinaryIO:
    """A plain file, opened for reading.

    A pipe would be waited for without end, a device may act when it is opened: neither is.

    Args:
        path: the file; links are followed.
        what: what it should be, for messages, such as "an experiment file".
        most: the most bytes that it may have.
        error: what is raised.

    Raises:
        HarnessError: of the class `error`: it is missing, no plain file, too large, or cannot be read.
    """
    reason = _why_not(path, most)
    if reason is None:
        try:
            # Between the look and the opening a pipe may take its place: this does not wait for a writer either.
            # O_BINARY exists on Windows alone, where text mode would change line ends.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        except OSError as failure:
            reason = _told(failure, path)
        else:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return os.fdopen(descriptor, "rb")
            os.close(descriptor)
            reason = "no plain file"
    raise error(f"{path}: expected {what}, got {reason}; check the path")


def read_plain(path: Path, what: str, *, most: int, error: type[HarnessError] = SpecError) -> bytes:
    """The bytes of a plain file; arguments and errors as for `open_plain`."""
    with open_plain(path, what, most=most, error=error) as stream:
        try:
            content = stream.read(most + 1)  # one byte more than is allowed tells that there is more
        except OSError as failure:
            raise error(f"{path}: expected {what}, got {_told(failure, path)}; check the path") from None
    if len(content) > most:  # it has grown since
        raise error(f"{path}: expected {what} of at most {most} bytes, got more; check the path")
    return content


def read_plain_text(path: Path, what: str, *, most: int, error: type[HarnessError] = SpecError) -> str:
    r"""The text of a plain file, every line ended by `\n`; arguments and errors as for `open_plain`.

    It is UTF-8 unless a byte-order mark says UTF-16 or UTF-32; the mark is no part of the text.
    """
    # Read as bytes first: with a decoder in between, a limit would count characters.
    content = read_plain(path, what, most=most, error=error)
    mark, encoding = next((pair for pair in _MARKS if content.startswith(pair[0])), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as failure:
        raise error(
            f"{path}: expected {what} as {encoding.upper()} text, got another byte at offset "
            f"{failure.start + len(mark)}; convert it to UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def data_places(data_dir: Path, name: str) -> tuple[Path, ...]:
    """The folders in which the files of a data set may lie, in the order in which they are looked into.

    `data_dir/name`, then folders whose names differ in case and punctuation alone (`MNIST`, `FashionMNIST`), then
    `data_dir` itself; each is followed by its folder `raw`, where torchvision puts what it has fetched.
    """
    try:
        inside = sorted(child for child in data_dir.iterdir() if child.is_dir())
    except OSError:
        inside = []
    # Data sets are unpacked under names such as `FashionMNIST` and `fashion-mnist`: letters and digits decide.
    alike = [child for child in inside if child.name != name and _letters(child.name) == _letters(name)]
    return tuple(place for folder in (data_dir / name, *alike, data_dir) for place in (folder, folder / "raw"))


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _why_not(path: Path, most: int) -> str | None:
    """What stands in the way of reading a path, from what the file system says of it; it is not opened."""
    try:
        found = path.stat()
    except OSError as failure:
        return _told(failure, path)
    # The system is never asked about such a path: Python refuses it before.
    except ValueError:  # a NUL, or a surrogate that no file name has
        return "a name that no file has"
    if not stat.S_ISREG(found.st_mode):
        return next((kind for is_kind, kind in _KINDS if is_kind(found.st_mode)), "no plain file")
    return None if found.st_size <= most else f"{found.st_size} bytes, more than {most}"


def _told(failure: OSError, path: Path) -> str:
    if failure.errno == errno.ELOOP:
        return "a link that leads back to itself"
    if failure.errno == errno.ENOENT and path.is_symlink():
        return "a link to nothing"
    return {errno.ENOENT: "no such file", errno.EACCES: "a file that you may not read"}.get(
        failure.errno or 0, f"'{failure.strerror}'"
    )
