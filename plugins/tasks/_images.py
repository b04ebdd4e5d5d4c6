"""Labelled grey images: MNIST and Fashion-MNIST from IDX files, and the digits that the package brings."""

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from harness.api import DataError, Split, open_plain

from ._shared import find, given, missing

CLASSES = 10
MNIST_SIDE = 28

MAX_BYTES = 1 << 28
"""MNIST's largest file has 47 MB; a header that promises more than 256 MiB is not MNIST's."""

Bytes = NDArray[np.uint8]

NAMES = tuple(f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))

# SHA-256 of the unpacked files, in the order of NAMES. The two data sets have the same file names.
CONTENTS = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion_mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


@dataclass(frozen=True)
class Images:
    """Images and labels of three splits.

    Args:
        name: e.g. `mnist`.
        pixels: by split, (items, height, width) uint8.
        labels: by split, (items,) int32, below 10.
        white: the largest pixel value.
        protocol: how the splits were made, as records say it.
    """

    name: str
    pixels: Mapping[Split, Bytes]
    labels: Mapping[Split, NDArray[np.int32]]
    white: int
    protocol: str


def mnist(data_dir: Path | None) -> Images:
    """MNIST in its usual protocol; with the t10k files alone, those split 8 : 1 : 1.

    Raises:
        DataError: a file is missing, truncated, of another data set or not what its name says.
    """
    folder, paths = _found(data_dir, "mnist")
    absent = [name for name, path in paths.items() if path is None]
    # Only both training files or neither: half a training set is an accident, not a wish for the small protocol.
    if absent not in ([], list(NAMES[:2])):
        raise missing(folder, "mnist", absent, "lenet")
    _check_set("mnist", paths)
    if not absent:
        return _whole(
            "mnist", paths, "usual: train files (last 1/12 of them, 5,000 of 60,000, as valid), t10k files as test"
        )
    test = _pair(cast(Path, paths[NAMES[2]]), cast(Path, paths[NAMES[3]]))
    count = len(test[1])
    # A folder with the t10k files only is common, since they are small: it is enough to try everything out.
    protocol = "the t10k files alone, first 8/10 train, next 1/10 valid, last 1/10 test; not MNIST's usual protocol"
    return _split(*test, (count * 8 // 10, count * 9 // 10), data="mnist", protocol=protocol)


def fashion_mnist(data_dir: Path | None) -> Images:
    """Fashion-MNIST, all 70,000 images, each file checked by the SHA-256 of its content.

    Raises:
        DataError: a file is missing, damaged or not the published one.

    Source:
        Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
        arXiv 1708.07747; MIT licence.
    """
    folder, paths = _found(data_dir, "fashion_mnist")
    absent = [name for name, path in paths.items() if path is None]
    if absent:
        raise missing(folder, "fashion_mnist", absent, "lenet")
    _check_set("fashion_mnist", paths)
    protocol = "train files, the last 5,000 of 60,000 as valid (this project's own choice), t10k files as test"
    return _whole("fashion_mnist", paths, protocol)


def _found(data_dir: Path | None, data: str) -> tuple[Path, dict[str, Path | None]]:
    """The data folder, and the files by their usual names."""
    folder = given(data_dir, data, "lenet")
    return folder, {name: find(folder, data, _spellings(name)) for name in NAMES}


def _check_set(data: str, paths: Mapping[str, Path | None]) -> None:
    """Pass if no file is of the other data set, and Fashion-MNIST's are the published ones.

    MNIST is taken in subsets too, as people cut it; the files of Fashion-MNIST are only ever used whole.
    """
    for place, (name, path) in enumerate(paths.items()):
        if path is None:
            continue
        got = _cached(path, 3 if "images" in name else 1).sha256
        other = next((each for each, sums in CONTENTS.items() if each != data and got in sums), None)
        if other is not None:
            raise DataError(
                f"lenet expects the data set '{data}', {path} is of '{other}', whose files have the same names; set "
                f"`data: {other}`, or put each data set into a folder of its own"
            )
        if data == "fashion_mnist" and got != CONTENTS[data][place]:
            raise DataError(
                f"lenet expects {name} of Fashion-MNIST with SHA-256 {CONTENTS[data][place]} when unpacked, {path} has "
                f"{got}; get it again with `harness data fetch fashion_mnist`"
            )


def _whole(data: str, paths: Mapping[str, Path | None], protocol: str) -> Images:
    """The last twelfth of the training files as valid, the t10k files as test."""
    train_images, train_labels, test_images, test_labels = (cast(Path, path) for path in paths.values())
    train, test = _pair(train_images, train_labels), _pair(test_images, test_labels)
    pixels, labels = np.concatenate([train[0], test[0]]), np.concatenate([train[1], test[1]])
    count = len(train[1])
    return _split(pixels, labels, (count - count // 12, count), data=data, protocol=protocol)


def digits() -> Images:
    """The 1,797 digits of 8 x 8 pixels that scikit-learn brings, in a fixed random order cut 1297 : 200 : 300.

    Source:
        `digits.md` beside this file.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as data:
        pixels, labels = data["pixels"], data["labels"].astype(np.int32)
    # The file is ordered by writer. Raw bits of PCG64 never change between NumPy versions, a permutation() might.
    order = np.argsort(np.random.PCG64(0).random_raw(len(labels)), kind="stable")
    protocol = "a fixed random order, cut 1297 train, 200 valid, 300 test"
    return _split(pixels[order], labels[order], (1297, 1497), data="digits", protocol=protocol)


def _split(pixels: Bytes, labels: NDArray[np.int32], bounds: tuple[int, int], *, data: str, protocol: str) -> Images:
    parts: dict[Split, slice] = {
        "train": slice(bounds[0]), "valid": slice(*bounds), "test": slice(bounds[1], None),
    }  # fmt: skip
    return Images(
        name=data,
        pixels={split: pixels[part] for split, part in parts.items()},
        labels={split: labels[part] for split, part in parts.items()},
        white=16 if data == "digits" else 255,
        protocol=protocol,
    )


def _spellings(name: str) -> list[str]:
    """The file names in use: with `.gz` or unpacked, and `images.idx3` as some mirrors have it."""
    return [spelling + end for spelling in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]


def _pair(images: Path, labels: Path) -> tuple[Bytes, NDArray[np.int32]]:
    pixels, classes = _cached(images, 3).array, _cached(labels, 1).array
    if pixels.shape[1:] != (MNIST_SIDE, MNIST_SIDE):
        raise DataError(
            f"lenet expects images of {MNIST_SIDE} x {MNIST_SIDE} pixels, {images} has {pixels.shape[1]} x "
            f"{pixels.shape[2]}; give MNIST's files"
        )
    if len(pixels) != len(classes):
        raise DataError(
            f"lenet expects as many labels as images, got {len(classes)} in {labels} and {len(pixels)} in {images}; "
            "take both files from one place"
        )
    if len(classes) and classes.max() >= CLASSES:
        raise DataError(
            f"lenet expects labels from 0 to {CLASSES - 1}, {labels} has {classes.max()}; get the file again"
        )
    return pixels, classes.astype(np.int32)


@dataclass(frozen=True, eq=False)
class _Content:
    """An array, and the SHA-256 of the unpacked file it was read from."""

    array: Bytes
    sha256: str


def _cached(path: Path, axes: int) -> _Content:
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0  # reading it says what is wrong
    # The time of the last change is part of the key, so a file put in place anew is read again.
    return _read(path, changed, axes)


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, axes: int) -> _Content:
    array = read_idx(path, axes)
    # The header again in front of the array: the digest is then that of the unpacked file, however it was packed.
    head = bytes([0, 0, 8, axes]) + np.array(array.shape, dtype=">u4").tobytes()
    sha = hashlib.sha256(head)
    sha.update(array.tobytes())
    return _Content(array, sha.hexdigest())


def read_idx(path: Path, axes: int) -> Bytes:
    """The array of an IDX file of unsigned bytes, packed with gzip or not: its first bytes tell, not its name.

    The header is checked, and the size it promises bounded, before anything of that size is allocated.

    Args:
        path: the file.
        axes: number of axes expected.

    Raises:
        DataError: no plain file, wrong magic number, too large, truncated, too long, or damaged gzip.

    Source:
        http://yann.lecun.com/exdb/mnist/, "the IDX file format": 0, 0, type (8 = unsigned byte), number of axes, then
        each length as a big-endian 32-bit integer, then the data, last axis fastest.
    """
    with open_plain(path, "an IDX file of images or labels", most=MAX_BYTES, error=DataError) as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        try:
            return _parse(cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if packed else stream, path, axes)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"lenet: {path} is a damaged or truncated gzip file ({error}); get it again") from None


def _parse(stream: BinaryIO, path: Path, axes: int) -> Bytes:
    head = 4 + 4 * axes
    header = stream.read(head)
    magic = bytes([0, 0, 8, axes])
    if header[:4] != magic:
        raise DataError(
            f"lenet expects an IDX file that begins with {magic.hex()} (unsigned bytes, {axes} axes), {path} begins "
            f"with {header[:4].hex() or 'nothing'}; check that images and labels are not swapped, or get the file again"
        )
    # Filled up with zeros where the header is cut short: the length check below then says so.
    shape = np.frombuffer(header[4:].ljust(4 * axes, b"\0"), dtype=">u4").tolist()
    size = prod(shape)
    if size > MAX_BYTES:
        raise DataError(f"lenet reads at most {MAX_BYTES} bytes, {path} announces {shape}; get the file again")
    # One byte more than promised tells that there is more.
    content = stream.read(size + 1)
    if len(header) < head or len(content) != size:
        got = len(header) + len(content)
        at_least = "at least " if len(content) > size else ""
        raise DataError(
            f"lenet expects {head + size} bytes in {path} from its header {shape}, got {at_least}{got}; get the file "
            "again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
