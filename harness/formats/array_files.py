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
from numpy.typing import NDArray

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
        DataError: its header is wrong, declares other sizes than it holds, or it has complex or non-finite values.
    """
    # Read here: SciPy 1.17 ends the whole process on some damaged files.
    try:
        lines = _bytes(path, most).decode("latin-1").split("\n")
        banner = lines[0].lower().split()
        if len(banner) != 5 or banner[:2] != ["%%matrixmarket", "matrix"]:
            raise ValueError("it does not begin with `%%MatrixMarket matrix`, a form, a field and a symmetry")
        body = [line for line in lines[1:] if line.strip() and not line.startswith("%")]
        return _market_mask(path, tuple(banner[2:]), body, most)
    except (ValueError, OverflowError, IndexError) as error:
        raise DataError(f"{path}: expected a Matrix Market file, got a wrong one ({error}); write it again") from None


_MARKET = (
    ("coordinate", "array"),
    ("real", "double", "integer", "pattern"),
    ("general", "symmetric", "skew-symmetric"),
)
"""Form, field and symmetry of the Matrix Market files that are read."""


def _market_mask(path: Path, banner: tuple[str, ...], body: list[str], most: int) -> Mask:
    form, field, symmetry = banner
    for given, known in zip(banner, _MARKET, strict=True):
        if given not in known:
            raise ValueError(f"it says {given!r}, which is none of {', '.join(known)}")
    rows, cols, *rest = (int(word) for word in body[0].split())
    check_size(path, path.stem, (rows, cols), most)
    if symmetry != "general" and rows != cols:
        raise ValueError(f"{rows} x {cols} is not {symmetry}")
    numbers = np.array(" ".join(body[1:]).split(), dtype=np.float64)
    if form == "array":
        if symmetry != "general" or rest or len(numbers) != rows * cols:
            raise ValueError(f"{rows} x {cols} {symmetry} numbers are declared, {len(numbers)} are there")
        return kept(path, path.stem, numbers.reshape(cols, rows).T)  # column by column
    wide = 2 if field == "pattern" else 3
    if len(rest) != 1 or len(numbers) != rest[0] * wide:
        raise ValueError(f"{rest} entries of {wide} numbers are declared, {len(numbers)} numbers are there")
    entries = numbers.reshape(-1, wide)
    places = entries[:, :2]
    if not ((places == np.floor(places)) & (np.abs(places) < 1 << 53)).all():
        raise ValueError("a place is no whole number")
    row, col = places.astype(np.int64).T - 1
    data = kept(path, path.stem, entries[:, 2]) if wide == 3 else np.ones(len(entries), dtype=np.bool_)
    mask = _scattered((rows, cols), row, col, data)
    return mask if symmetry == "general" else mask | mask.T


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
        owners = _owners(numbers[: rows + 1], rows, nnz)
        return _scattered((rows, cols), owners, numbers[rows + 1 :], np.ones(nnz, dtype=np.bool_))
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
    # Read here: SciPy 1.17 believes the shapes of its arrays, and ends the whole process on some damaged files.
    try:
        form = arrays["format"].item()
        form = form.decode("ascii") if isinstance(form, bytes) else str(form)
        rows, cols = (int(extent) for extent in arrays["shape"])
        check_size(path, path.stem, (rows, cols), most)
        data = kept(path, path.stem, arrays["data"])
        if data.ndim != (3 if form == "bsr" else 1):
            raise ValueError(f"its data have shape {data.shape}")
        if form == "coo":
            return _scattered((rows, cols), _indices(arrays["row"]), _indices(arrays["col"]), data)
        if form not in ("csr", "csc", "bsr"):
            raise ValueError(f"its format is {form!r}, not csr, csc, bsr or coo")
        height, width = data.shape[1:] if form == "bsr" else (1, 1)
        tiles = (rows // height, cols // width)
        owners = _owners(_indices(arrays["indptr"]), tiles[form == "csc"], len(data))
        places = (owners, _indices(arrays["indices"]))
        if form == "csc":
            return _scattered(tiles, places[1], places[0], data)
        mask = _scattered(tiles, *places, data)
        if form == "bsr":
            mask = mask.swapaxes(1, 2).reshape(rows, cols)
        return mask
    except (KeyError, ValueError, TypeError, OverflowError, IndexError, ZeroDivisionError) as error:
        raise DataError(
            f"{path}: expected a sparse matrix of SciPy, got a wrong one ({error}); save it again"
        ) from None


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


def _indices(array: Array) -> NDArray[np.int64]:
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise ValueError(f"indices are {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def _owners(pointers: NDArray[np.int64], rows: int, entries: int) -> NDArray[np.int64]:
    """The row of every entry."""
    counts = np.diff(pointers)
    if len(pointers) != rows + 1 or pointers[0] != 0 or (counts < 0).any() or pointers[-1] != entries:
        raise ValueError("the pointers do not rise from 0 to the number of entries")
    return np.repeat(np.arange(rows), counts)


def _scattered(shape: tuple[int, int], rows: NDArray[np.int64], cols: NDArray[np.int64], data: Mask) -> Mask:
    """A mask from its entries, each a single one or a tile; one that is given twice is kept if either is.

    Shapes:
        rows, cols (entries,), data (entries, ...) -> (*shape, ...).
    """
    if not len(rows) == len(cols) == len(data):
        raise ValueError(f"{len(rows)} rows and {len(cols)} columns are given for {len(data)} entries")
    for places, extent, what in ((rows, shape[0], "row"), (cols, shape[1], "column")):
        if len(places) and not 0 <= places.min() <= places.max() < extent:
            raise ValueError(f"{what} indices lie between {places.min()} and {places.max()}, of {extent} {what}s")
    mask = np.zeros((*shape, *data.shape[1:]), dtype=np.bool_)
    np.logical_or.at(mask, (rows, cols), data)
    return mask
