"""Arrays from files that somebody else wrote: nothing is executed, and no size is believed before it is checked.

Every reader takes `most`, the most elements one file may hold, and compares what a header declares with the bytes that
are there before it allocates anything.
"""

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from harness.api.errors import DataError, SpecError
from harness.api.values import Array, Mask

MOST_WEIGHTS = 1 << 29
"""Elements that a file may hold: 60 times a 2 x 1500 LSTM with its word matrices, and half a gigabyte of masks."""

_BYTES_EACH = 8
"""The widest element that is read."""

_SAFETENSORS = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip


Orientation = Literal["rows_out", "rows_in"]
"""(outputs, inputs), or (inputs, outputs); four axes are (out, in, height, width) or (height, width, in, out)."""


@dataclass(frozen=True, eq=False)
class Found:
    """An array of a file.

    Args:
        name: as in the file.
        kept: True where it is not zero, in its own shape.
        orientation: as far as the file says.
        lstm: the LSTM layer it belongs to and whether it is the recurrent matrix, as far as the file says.
        is_lookup: whether the file says that its rows are looked up.
    """

    name: str
    kept: Mask
    orientation: Orientation | None = None
    lstm: tuple[str, bool] | None = None
    is_lookup: bool = False


def checked_file(path: Path, most: int) -> Path:
    """A path, if it is a file of a size that may be read.

    Raises:
        SpecError: it does not exist, is a folder or cannot be looked at.
        DataError: it is empty, or larger than `most` elements could be.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}); name a file of masks or weights") from None
    if not path.is_file():
        raise SpecError(f"expected one file of masks or weights, got {path}, which is none; name a file")
    if size == 0:
        raise DataError(f"{path}: expected masks or weights, got an empty file; write it again")
    if size > most * _BYTES_EACH:
        raise DataError(f"{path}: expected at most {most} weights, got {size} bytes; cut it into layers")
    return path


def _bytes(path: Path, most: int) -> bytes:
    try:
        return checked_file(path, most).read_bytes()
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}); name a file of masks or weights") from None


def check_size(path: Path, name: str, shape: tuple[int, ...], most: int) -> None:
    """Pass if an array of this shape may be held.

    Raises:
        DataError: it is too large, or an extent is negative.
    """
    if min(shape, default=1) < 0 or math.prod(shape) > most:
        raise DataError(f"{path}: expected at most {most} weights, got {name!r} of shape {shape}; cut it into layers")


def read_npz(path: Path, most: int = MOST_WEIGHTS) -> dict[str, Array]:
    """The arrays of a NumPy archive, never unpickling.

    Raises:
        SpecError: the file cannot be read.
        DataError: it is no archive, is truncated, holds objects, or declares more than it holds or than is allowed.
    """
    arrays: dict[str, Array] = {}
    checked_file(path, most)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            total = sum(member.file_size for member in members)
            if total > most * _BYTES_EACH:
                raise DataError(f"{path}: expected at most {most} weights, got {total} bytes unpacked; cut it up")
            for member in members:
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as stream:
                    arrays[name] = _npy(stream, member.file_size, path, name, most)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{path}: expected a NumPy archive (.npz), got a damaged one ({error}); write it again"
        ) from None
    return arrays


def _npy(stream: IO[bytes], size: int, path: Path, name: str, most: int) -> Array:
    """One member of an archive: `size` is what the archive says it unpacks to."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"{name!r} has version {version} of the array format")
    if dtype.hasobject:
        raise DataError(
            f"{path}: expected numbers, got {name!r} with Python objects, which are never unpickled; save it "
            "as an array of numbers"
        )
    check_size(path, name, shape, most)
    need = math.prod(shape) * dtype.itemsize
    data = stream.read(min(need, size))
    if len(data) < need:
        raise ValueError(f"{name!r} declares {need} bytes and has {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def read_safetensors(path: Path, most: int = MOST_WEIGHTS) -> dict[str, Array]:
    """The arrays of a safetensors file, in the order of its header; bfloat16 comes as float32.

    Raises:
        SpecError: the file cannot be read.
        DataError: it is no such file, is truncated, or holds a type that NumPy has no name for.
    """
    from safetensors import SafetensorError, deserialize

    try:
        found = deserialize(_bytes(path, most))  # type: ignore[no-untyped-call]  # safetensors has no types for it
    except SafetensorError as error:
        raise DataError(f"{path}: expected safetensors, got a damaged file ({error}); write it again") from None
    arrays: dict[str, Array] = {}
    for name, tensor in found:
        shape, kind = tuple(tensor["shape"]), tensor["dtype"]
        check_size(path, name, shape, most)
        if kind == "BF16":
            upper = np.frombuffer(tensor["data"], "<u2").astype(np.uint32)
            arrays[name] = (upper << 16).view(np.float32).reshape(shape)  # bfloat16 is the upper half of a float32
        elif kind in _SAFETENSORS:
            arrays[name] = np.frombuffer(tensor["data"], _SAFETENSORS[kind]).reshape(shape)
        else:
            raise DataError(f"{path}: expected integers, floats or bfloat16, got {name!r} as {kind}; convert it to F32")
    return arrays


def read_mtx(path: Path, most: int = MOST_WEIGHTS) -> Mask:
    """Which entries of a Matrix Market file are not zero; every stored entry of a `pattern` file.

    Shapes:
        -> (rows, cols).

    Raises:
        SpecError: the file cannot be read.
        DataError: its header is wrong, declares more than the file can hold, or it has complex or non-finite values.
    """
    from scipy.io import mminfo, mmread

    size = checked_file(path, most).stat().st_size
    try:
        rows, cols, entries, form, field, _ = mminfo(path)
        check_size(path, path.stem, (rows, cols), most)
        shortest = 2 if form == "array" else 4  # bytes of the line "0" or "1 1"
        if entries * shortest > size + 1:
            raise ValueError(f"{entries} entries are declared in {size} bytes")
        if field == "complex":
            raise ValueError("its values are complex")
        matrix = mmread(path)
    except (ValueError, OverflowError, TypeError, OSError) as error:
        raise DataError(f"{path}: expected a Matrix Market file, got a wrong one ({error}); write it again") from None
    return kept(path, path.stem, matrix) if form == "array" else _dense_mask(path, matrix)


def read_smtx(path: Path, most: int = MOST_WEIGHTS) -> Mask:
    """The mask in a file of the Deep Learning Matrix Collection: `rows, cols, nnz`, row pointers, column indices.

    Shapes:
        -> (rows, cols).

    Raises:
        SpecError: the file cannot be read.
        DataError: its numbers do not describe a sparse matrix.

    Source:
        Gale et al., "Sparse GPU Kernels for Deep Learning", SC 2020: the format of the data set that it published.
    """
    try:
        header, _, rest = _bytes(path, most).decode("ascii").partition("\n")
        rows, cols, nnz = (int(word) for word in header.replace(",", " ").split())
        check_size(path, path.stem, (rows, cols), most)
        numbers = np.array(rest.split(), dtype=np.int64)
        if nnz < 0 or len(numbers) != rows + 1 + nnz:
            raise ValueError(f"{rows} rows and {nnz} weights need {rows + 1 + nnz} numbers, there are {len(numbers)}")
        return _csr_mask((rows, cols), numbers[: rows + 1], numbers[rows + 1 :])
    except (ValueError, OverflowError) as error:
        raise DataError(
            f'{path}: expected "rows, cols, nnz", row pointers and column indices, got something else ({error}); '
            "write it again"
        ) from None


def is_scipy(arrays: Mapping[str, Array]) -> bool:
    """Whether an archive was written by `scipy.sparse.save_npz`."""
    return {"format", "shape", "data"} <= arrays.keys()


def scipy_mask(path: Path, arrays: Mapping[str, Array], most: int = MOST_WEIGHTS) -> Mask:
    """Which entries of a sparse matrix from `scipy.sparse.save_npz` are not zero.

    Shapes:
        -> (rows, cols).

    Raises:
        DataError: the arrays do not describe a sparse matrix.
    """
    from scipy import sparse

    parts = {
        "csr": ("indices", "indptr"),
        "csc": ("indices", "indptr"),
        "bsr": ("indices", "indptr"),
        "coo": ("row", "col"),
    }
    try:
        form = arrays["format"].item()
        form = form.decode("ascii") if isinstance(form, bytes) else str(form)
        if form not in parts:
            raise ValueError(f"its format is {form!r}, not one of {', '.join(parts)}")
        rows, cols = (int(extent) for extent in arrays["shape"])
        check_size(path, path.stem, (rows, cols), most)
        places = tuple(arrays[name] for name in parts[form])
        given = (arrays["data"], places) if form == "coo" else (arrays["data"], *places)
        matrix = getattr(sparse, f"{form}_matrix")(given, shape=(rows, cols))
        if form != "coo":
            matrix.check_format(full_check=True)  # the constructor does not look at every index
    except (KeyError, ValueError, TypeError, OverflowError, IndexError) as error:
        raise DataError(
            f"{path}: expected a sparse matrix of SciPy, got a wrong one ({error}); save it again"
        ) from None
    return _dense_mask(path, matrix)


def kept(path: Path, name: str, array: Array) -> Mask:
    """Which elements are not zero.

    Raises:
        DataError: one is NaN or infinite, or they are no numbers.
    """
    if array.dtype == np.bool_:
        return array.astype(np.bool_)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path}: expected numbers or booleans, got {name!r} of type {array.dtype}; convert it")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{path}: expected finite weights, got NaN or infinity in {name!r}; repair it or give its mask")
    return np.asarray(array != 0)


def _csr_mask(shape: tuple[int, int], pointers: Array, columns: Array) -> Mask:
    pointers, columns = pointers.astype(np.int64), columns.astype(np.int64)
    counts = np.diff(pointers)
    if pointers[0] != 0 or (counts < 0).any() or pointers[-1] != len(columns):
        raise ValueError("the row pointers do not rise from 0 to the number of weights")
    if len(columns) and not 0 <= columns.min() <= columns.max() < shape[1]:
        raise ValueError(f"column indices lie between {columns.min()} and {columns.max()}, of {shape[1]} columns")
    mask = np.zeros(shape, dtype=np.bool_)
    mask[np.repeat(np.arange(shape[0]), counts), columns] = True
    return mask


def _dense_mask(path: Path, matrix: object) -> Mask:
    """The mask of a sparse matrix of SciPy; entries given twice are added, as SciPy does."""
    from scipy import sparse

    entries = sparse.coo_matrix(matrix)
    entries.sum_duplicates()
    mask = np.zeros(entries.shape, dtype=np.bool_)
    mask[entries.row, entries.col] = kept(path, path.stem, entries.data)
    return mask
