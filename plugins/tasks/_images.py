"""Labelled grey images: MNIST from IDX files, and scikit-learn's embedded digits."""

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from harness.api import DataError, Split

from ._shared import find, given, missing

CLASSES = 10
MNIST_SIDE = 28

MAX_BYTES = 1 << 28
"""MNIST's largest file has 47 MB; a header that promises more than 256 MiB is not MNIST's."""

Bytes = NDArray[np.uint8]


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
        DataError: a file is missing, truncated or not what its name says.
    """
    folder = given(data_dir, "mnist", "lenet")
    names = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    paths = {name: find(folder, "mnist", _spellings(name)) for name in names}
    absent = [name for name in names if paths[name] is None]
    # Only both training files or neither: half a training set is an accident, not a wish for the small protocol.
    if absent not in ([], names[:2]):
        raise missing(folder, "mnist", absent, "lenet")
    train_images, train_labels, test_images, test_labels = paths.values()
    test = _pair(cast(Path, test_images), cast(Path, test_labels))
    if train_images is None or train_labels is None:
        count = len(test[1])
        protocol = "the t10k files alone, first 8/10 train, next 1/10 valid, last 1/10 test; not MNIST's usual protocol"
        return _split(*test, (count * 8 // 10, count * 9 // 10), data="mnist", protocol=protocol)
    train = _pair(train_images, train_labels)
    pixels, labels = np.concatenate([train[0], test[0]]), np.concatenate([train[1], test[1]])
    count = len(train[1])
    protocol = "usual: train files (last 1/12 of them, 5,000 of 60,000, as valid), t10k files as test"
    return _split(pixels, labels, (count - count // 12, count), data="mnist", protocol=protocol)


def digits() -> Images:
    """scikit-learn's 1,797 digits of 8 x 8 pixels, in a fixed random order cut 1297 : 200 : 300."""
    # scikit-learn brings SciPy with it: too slow for a command that only lists plugins.
    from sklearn.datasets import load_digits

    data = load_digits()
    # The file is ordered by writer. Raw bits of PCG64 never change between NumPy versions, a permutation() might.
    order = np.argsort(np.random.PCG64(0).random_raw(len(data.target)), kind="stable")
    pixels, labels = data.images.astype(np.uint8)[order], data.target.astype(np.int32)[order]
    protocol = "a fixed random order, cut 1297 train, 200 valid, 300 test"
    return _split(pixels, labels, (1297, 1497), data="digits", protocol=protocol)


def _split(pixels: Bytes, labels: NDArray[np.int32], bounds: tuple[int, int], *, data: str, protocol: str) -> Images:
    parts: dict[Split, slice] = {
        "train": slice(bounds[0]), "valid": slice(*bounds), "test": slice(bounds[1], None),
    }  # fmt: skip
    return Images(
        name=data,
        pixels={split: pixels[part] for split, part in parts.items()},
        labels={split: labels[part] for split, part in parts.items()},
        white=255 if data == "mnist" else 16,
        protocol=protocol,
    )


def _spellings(name: str) -> list[str]:
    """The file names in use: with `.gz` or unpacked, and `images.idx3` as some mirrors have it."""
    return [spelling + end for spelling in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]


def _pair(images: Path, labels: Path) -> tuple[Bytes, NDArray[np.int32]]:
    pixels, classes = _cached(images, 3), _cached(labels, 1)
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


def _cached(path: Path, axes: int) -> Bytes:
    # The time of the last change is part of the key, so a file put in place anew is read again.
    return _read(path, path.stat().st_mtime_ns, axes)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int, axes: int) -> Bytes:
    return read_idx(path, axes)


def read_idx(path: Path, axes: int) -> Bytes:
    """The array of an IDX file of unsigned bytes, packed with gzip or not.

    The header is checked, and the size it promises bounded, before anything of that size is allocated.

    Args:
        path: the file; `.gz` is unpacked.
        axes: number of axes expected.

    Raises:
        DataError: wrong magic number, too large, truncated, too long, or damaged gzip.

    Source:
        http://yann.lecun.com/exdb/mnist/, "the IDX file format": 0, 0, type (8 = unsigned byte), number of axes, then
        each length as a big-endian 32-bit integer, then the data, last axis fastest.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return _parse(cast(BinaryIO, stream), path, axes)
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
    shape = np.frombuffer(header[4:].ljust(4 * axes, b"\0"), dtype=">u4").tolist()
    size = prod(shape)
    if size > MAX_BYTES:
        raise DataError(f"lenet reads at most {MAX_BYTES} bytes, {path} announces {shape}; get the file again")
    content = stream.read(size + 1)
    if len(header) < head or len(content) != size:
        got = len(header) + len(content)
        at_least = "at least " if len(content) > size else ""
        raise DataError(
            f"lenet expects {head + size} bytes in {path} from its header {shape}, got {at_least}{got}; get the file "
            "again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
