"""Arrays from files that somebody else wrote: NumPy and safetensors.

Every reader believes nothing: it takes no pickle, bounds what it will hold, and compares what a header declares with
the bytes that are there before it allocates anything.
"""

import json
import lzma
import math
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from harness.api.files import open_plain, read_plain
from harness.arrays import Array
from harness.errors import DataError
from harness.formats.weight_arrays import BYTES_EACH, MOST_WEIGHTS, check_size

WHAT = "a file of masks or weights"

INDEX = ".safetensors.index.json"
"""How the list of the parts of a large safetensors checkpoint ends."""

_HEADERS = 1 << 26
"""Bytes that a file may have beside its weights."""

_MOST_MEMBERS = 100_000
_MOST_INDEX_BYTES = 1 << 26

_SAFETENSORS = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip

_FLOAT8 = {
    "F8_E4M3": (4, "fn"), "F8_E5M2": (5, "ieee"), "F8_E4M3FNUZ": (4, "fnuz"), "F8_E5M2FNUZ": (5, "fnuz"),
}  # fmt: skip
"""Bits of the exponent, and what the codes at the end of the range mean."""

_NUMBERS = re.compile(r"([0-9]+)")

_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, TypeError, KeyError,
    IndexError, OverflowError, NotImplementedError, RuntimeError, RecursionError, MemoryError, SyntaxError,
    tokenize.TokenError,
)  # fmt: skip
"""What the standard library and NumPy raise when an archive or a header is damaged, or made to do harm."""


def open_weights(path: Path, most: int) -> BinaryIO:
    """A file of weights, opened; its size is known to be sensible.

    Raises:
        SpecError: it is missing, no plain file, or larger than `most` elements could be.
        DataError: it is empty.
    """
    # The size is judged by the widest element: the file itself says its type only later.
    stream = open_plain(path, WHAT, most=most * BYTES_EACH + _HEADERS)
    if not stream.peek(1):  # type: ignore[attr-defined]  # a buffered reader
        stream.close()
        raise DataError(f"{path}: expected masks or weights, got an empty file; write it again")
    return stream


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """Damage of any kind as one sentence."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise DataError(f"{path}: expected {what}, got a damaged one ({reason}); write it again") from None


def read_npz(path: Path, most: int = MOST_WEIGHTS) -> dict[str, Array]:
    """The arrays of a NumPy archive, never unpickling.

    Raises:
        SpecError: the file cannot be read.
        DataError: it is no archive, is truncated, holds objects, or declares more than it holds or than is allowed.
    """
    with open_weights(path, most) as file, _told(path, "a NumPy archive (.npz)"), zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        if len(members) > _MOST_MEMBERS:
            raise DataError(f"{path}: expected at most {_MOST_MEMBERS} arrays, got {len(members)}; cut it up")
        # All headers before any data: many small lies add up to more than one large one.
        total = 0
        for member in members:
            with archive.open(member) as stream:
                shape = _header(stream, path, member.filename, most)[0]
            total += math.prod(shape)
            if total > most:
                raise DataError(f"{path}: expected at most {most} weights, got more in all; cut it into layers")
        arrays: dict[str, Array] = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as stream:
                arrays[name] = _npy(stream, member.file_size, path, name, most)
        return arrays


def read_npy(path: Path, most: int = MOST_WEIGHTS) -> Array:
    """The array of a file of NumPy's own format, never unpickling; errors as for `read_npz`."""
    with open_weights(path, most) as file, _told(path, "an array of NumPy (.npy)"):
        return _npy(file, most * BYTES_EACH, path, path.stem, most)


def _header(stream: IO[bytes], path: Path, name: str, most: int) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, whether columns come first, and type."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version in ((2, 0), (3, 0)):  # 3.0 differs in names of fields alone, and fields are no numbers
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"{name!r} has version {version} of the array format")
    if dtype.hasobject:
        raise DataError(
            f"{path}: expected numbers, got {name!r} with Python objects, which are never unpickled; save it "
            "as an array of numbers"
        )
    if not all(type(extent) is int for extent in shape):
        raise ValueError(f"{name!r} has the shape {shape}")
    # A header may name any extents: they are multiplied before anything is read.
    check_size(path, name, shape, most)
    return shape, fortran, dtype


def _npy(stream: IO[bytes], size: int, path: Path, name: str, most: int) -> Array:
    """One array: `size` is the most bytes that may follow."""
    shape, fortran, dtype = _header(stream, path, name, most)
    need = math.prod(shape) * dtype.itemsize
    # No more than is there: a lie in the header must not allocate its size.
    data = stream.read(min(need, size))
    if len(data) < need:
        raise ValueError(f"{name!r} declares {need} bytes and has {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def read_safetensors(path: Path, most: int = MOST_WEIGHTS) -> dict[str, Array]:
    """The arrays of a safetensors file; bfloat16 and the kinds of float8 come as float32.

    They come in the order of the file's header. The library writes names sorted as text: then in the order of the
    numbers in them, so that layer 10 follows layer 9.

    Raises:
        SpecError: the file cannot be read.
        DataError: it is no such file, is truncated, or holds a type that NumPy has no name for.
    """
    from safetensors import SafetensorError, deserialize

    with open_weights(path, most) as file:
        head = file.read(8)
        # The length of the header comes first, little endian; safetensors itself allows 100 MB of it.
        if len(head) < 8 or not 2 <= int.from_bytes(head, "little") <= 100_000_000:
            raise DataError(
                f"{path}: expected safetensors, got a damaged file (it begins with {head.hex()}); write it again"
            )
        content = head + file.read()
    try:
        found = deserialize(content)  # type: ignore[no-untyped-call]  # safetensors has no types for it
    except (SafetensorError, ValueError, OverflowError, MemoryError) as error:
        raise DataError(f"{path}: expected safetensors, got a damaged file ({error}); write it again") from None
    arrays: dict[str, Array] = {}
    total = 0
    # The library answers in an order that differs from process to process.
    places = _places(content)
    for name, tensor in sorted(found, key=lambda each: places.get(each[0], len(places))):
        shape = tuple(tensor["shape"])
        check_size(path, name, shape, most)
        total += math.prod(shape)
        if total > most:
            raise DataError(f"{path}: expected at most {most} weights, got more in all; cut it into layers")
        arrays[name] = _tensor(path, name, tensor["dtype"], tensor["data"]).reshape(shape)
    return arrays


def _places(content: bytes) -> Mapping[str, int]:
    """The place of every tensor of a safetensors file that could be read."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    names = [name for name in header if name != "__metadata__"]
    if names == sorted(names):
        names.sort(key=_by_number)
    return {name: place for place, name in enumerate(names)}


def _by_number(name: str) -> list[tuple[int, str]]:
    """What sorts names by the numbers in them: text and numbers come in turns, so that each meets its like."""
    text, *rest = _NUMBERS.split(name)
    found = [(0, text)]
    for digits, after in zip(rest[::2], rest[1::2], strict=True):
        # The longer number is the larger one: a name may have more digits than Python makes an integer of.
        found += [(len(digits.lstrip("0")), digits.lstrip("0")), (0, after)]
    return found


def _tensor(path: Path, name: str, kind: str, data: bytes) -> Array:
    """The numbers of one tensor, without its shape."""
    if kind == "BF16":
        upper = np.frombuffer(data, "<u2").astype(np.uint32)
        return (upper << 16).view(np.float32)  # bfloat16 is the upper half of a float32
    if kind in _FLOAT8:
        return _float8(*_FLOAT8[kind])[np.frombuffer(data, np.uint8)]
    if kind == "F8_E8M0":  # scales: powers of two, none of them zero
        codes = np.arange(256)
        powers = np.where(codes == 255, np.nan, np.exp2(codes.astype(np.float64) - 127)).astype(np.float32)
        return powers[np.frombuffer(data, np.uint8)]
    if kind in _SAFETENSORS:
        return np.frombuffer(data, _SAFETENSORS[kind])
    # FP4 and its like hold several weights in a byte.
    raise DataError(f"{path}: expected integers, floats or bfloat16, got {name!r} as {kind}; convert it to F32")


def _float8(exponent_bits: int, end: str) -> Array:
    """The value of each of the 256 codes of a kind of float8.

    Source:
        Micikevicius et al., "FP8 Formats for Deep Learning", arXiv 2209.05433, Table 1, for E4M3 ("fn": no infinity)
        and E5M2 (as IEEE); Noune et al., arXiv 2206.02915, for "fnuz": one zero, NaN in the place of minus zero, and
        an exponent bias that is larger by one.
    """
    fraction_bits = 7 - exponent_bits
    codes = np.arange(256)
    exponent = (codes >> fraction_bits) & ((1 << exponent_bits) - 1)
    fraction = (codes & ((1 << fraction_bits) - 1)) / (1 << fraction_bits)
    # The kinds called fnuz, which have no negative zero, have a bias of one more.
    bias = (1 << (exponent_bits - 1)) - (0 if end == "fnuz" else 1)
    small = exponent == 0  # subnormal
    # Subnormal numbers have the exponent of the smallest normal ones, and no leading one.
    values = np.where(small, fraction, 1 + fraction) * np.exp2(np.maximum(exponent, 1) - bias)
    values[codes >= 128] *= -1
    if end == "fnuz":
        values[128] = np.nan
    elif end == "fn":
        values[(codes & 127) == 127] = np.nan
    else:
        top = exponent == (1 << exponent_bits) - 1
        values[top] = np.where(fraction[top] == 0, np.inf, np.nan)
    return np.asarray(values.astype(np.float32))


def read_parts(path: Path, most: int = MOST_WEIGHTS) -> dict[str, Array]:
    """The arrays of all parts of a checkpoint, from the list that Hugging Face puts beside them.

    Raises:
        SpecError: the list or a part cannot be read.
        DataError: the list is no such list, a part lies in another folder, or an array is not where it should be.
    """
    parts = _weight_map(path)
    arrays: dict[str, Array] = {}
    left = most
    # Each part is read once, in the order of the list.
    for part in dict.fromkeys(parts.values()):
        # A name with a path in it could lead anywhere.
        if Path(part).name != part or not part.endswith(".safetensors"):
            raise DataError(f"{path}: expected the names of safetensors files beside it, got {part!r}; mend the list")
        if not path.with_name(part).is_file():
            raise DataError(
                f"{path}: expected its part {part!r} beside it, got no such file; get all {_count(parts)} parts"
            )
        found = read_safetensors(path.with_name(part), left)
        left -= sum(array.size for array in found.values())
        arrays |= {name: found[name] for name, place in parts.items() if place == part and name in found}
    absent = sorted(set(parts) - set(arrays))
    if absent:
        raise DataError(f"{path}: expected {absent[0]!r} in {parts[absent[0]]}, got none there; get the parts again")
    return {name: arrays[name] for name in parts}


def _count(parts: Mapping[str, str]) -> int:
    return len(set(parts.values()))


def _weight_map(path: Path) -> Mapping[str, str]:
    """Which array is in which part."""
    content = read_plain(path, "the list of a checkpoint's parts", most=_MOST_INDEX_BYTES)
    try:
        found = json.loads(content)["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: expected a JSON object with `weight_map`, got another ({error}); get it again"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(part, str) for part in found.values()) or not found:
        raise DataError(
            f"{path}: expected `weight_map` to name a file for every array, got {found!r:.60}; get it again"
        )
    return found
