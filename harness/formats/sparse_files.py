"""One sparse matrix per file: Matrix Market, the Deep Learning Matrix Collection, and SciPy."""

import codecs
import math
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from harness.arrays import Array, Mask
from harness.errors import DataError, SpecError
from harness.formats.array_files import open_weights
from harness.formats.weight_arrays import MOST_WEIGHTS, check_size, kept

_MOST_HEADER = 1 << 16
_MOST_TEXT = 1 << 30
"""Bytes of a text of numbers; more would not fit in memory as words."""

_MARKET = (
    ("coordinate", "array"),
    ("real", "double", "integer", "unsigned-integer", "complex", "pattern"),
    ("general", "symmetric", "skew-symmetric", "hermitian"),
)
"""Form, field and symmetry of the Matrix Market files that are read."""


def read_mtx(path: Path, most: int = MOST_WEIGHTS) -> Mask:
    """Which entries of a Matrix Market file are not zero; every stored entry of a `pattern` file.

    Of a symmetric, skew-symmetric or hermitian matrix the file has one triangle, the other is mirrored. A complex entry
    is zero if both its parts are.

    Shapes:
        -> (rows, cols).

    Raises:
        SpecError: the file cannot be read.
        DataError: its header is wrong, declares other sizes than it holds, or it has non-finite values.

    Source:
        Boisvert, Pozo, Remington, "The Matrix Market Exchange Formats: Initial Design", NISTIR 5935, 1996.
    """
    # Read here: SciPy 1.17 ends the whole process on some damaged files.
    with open_weights(path, most) as file:
        try:
            # Latin-1 decodes every byte: comments may be in any encoding, and numbers are ASCII in all.
            first = file.readline(_MOST_HEADER).removeprefix(codecs.BOM_UTF8).decode("latin-1")
            banner = first.lower().split()
            if len(banner) != 5 or banner[:2] != ["%%matrixmarket", "matrix"]:
                raise ValueError("it does not begin with `%%MatrixMarket matrix`, a form, a field and a symmetry")
            lines = _rest(path, file).decode("latin-1").split("\n")
            body = [line for line in lines if line.strip() and not line.lstrip().startswith("%")]
            return _market_mask(path, tuple(banner[2:]), body, most)
        except (ValueError, OverflowError, IndexError) as error:
            raise DataError(
                f"{path}: expected a Matrix Market file, got a wrong one ({_short(error)}); write it again"
            ) from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _rest(path: Path, file: BinaryIO) -> bytes:
    content = file.read(_MOST_TEXT + 1)
    if len(content) > _MOST_TEXT:
        raise SpecError(f"{path}: expected a text of at most {_MOST_TEXT} bytes, got more; save it as .npz")
    return content


def _market_mask(path: Path, banner: tuple[str, ...], body: list[str], most: int) -> Mask:
    form, field, symmetry = banner
    for given, known in zip(banner, _MARKET, strict=True):
        if given not in known:
            raise ValueError(f"it says {given!r}, which is none of {', '.join(known)}")
    rows, cols, *rest = (int(word) for word in body[0].split())
    check_size(path, path.stem, (rows, cols), most)
    # Symmetry needs a square; the format allows to say it of anything.
    if symmetry != "general" and rows != cols:
        raise ValueError(f"{rows} x {cols} is not {symmetry}")
    if symmetry == "hermitian" and field != "complex":
        raise ValueError(f"a hermitian matrix is complex, not {field}")
    # All at once by NumPy: a line at a time, a million entries would take seconds.
    numbers = _numbers(" ".join(body[1:]))
    parts = {"pattern": 0, "complex": 2}.get(field, 1)  # numbers of one value
    if form == "array":
        if rest or not parts:
            raise ValueError(f"an array has rows and columns of numbers, not {field} with {body[0]!r:.40}")
        return _triangle_mask(rows, cols, symmetry, _not_zero(path, numbers, parts))
    wide = 2 + parts
    if len(rest) != 1:
        raise ValueError(f"its sizes are {body[0]!r:.40}, not rows, columns and entries")
    if len(numbers) != rest[0] * wide:
        raise ValueError(f"{rest[0]} entries of {wide} numbers are declared, {len(numbers)} numbers are there")
    entries = numbers.reshape(-1, wide)
    places = entries[:, :2]
    # Places come as floats here; beyond 2^53 those skip integers.
    if not ((places == np.floor(places)) & (np.abs(places) < 1 << 53)).all():
        raise ValueError("a place is no whole number")
    for numbered, extent, what in zip(places.T, (rows, cols), ("row", "column"), strict=True):
        # Told as the file has it, which counts from 1.
        if numbered.size and not 1 <= numbered.min() <= numbered.max() <= extent:
            raise ValueError(f"{what}s lie between {int(numbered.min())} and {int(numbered.max())}, of 1 to {extent}")
    row, col = places.astype(np.int64).T - 1
    if symmetry == "skew-symmetric" and (row == col).any():
        raise ValueError("a skew-symmetric matrix has nothing on its diagonal, an entry is there")
    data = _not_zero(path, entries[:, 2:].ravel(), parts) if parts else np.ones(len(entries), dtype=np.bool_)
    mask = scattered((rows, cols), row, col, data)
    # Which entries are zero does not change with the sign or the conjugate.
    return mask if symmetry == "general" else mask | mask.T


def _numbers(text: str) -> NDArray[np.float64]:
    """The numbers of a text."""
    words = text.split()
    try:
        return np.array(words, dtype=np.float64)
    except ValueError:
        # Fortran writes the exponents of its double precision with a D.
        return np.array([word.replace("D", "E").replace("d", "e") for word in words], dtype=np.float64)


def _not_zero(path: Path, numbers: NDArray[np.float64], parts: int) -> Mask:
    """Which values are not zero, each of so many numbers."""
    if len(numbers) % parts:
        raise ValueError(f"{len(numbers)} numbers are no values of {parts} each")
    return np.asarray(kept(path, path.stem, numbers).reshape(-1, parts).any(axis=1))


def _triangle_mask(rows: int, cols: int, symmetry: str, data: Mask) -> Mask:
    """An array from what its file has of it: all columns, or of each its part below the diagonal."""
    if symmetry == "general":
        if len(data) != rows * cols:
            raise ValueError(f"{rows} x {cols} numbers are declared, {len(data)} are there")
        return np.asarray(data.reshape(cols, rows).T)  # column by column
    below = 1 if symmetry == "skew-symmetric" else 0  # the diagonal of a skew-symmetric matrix is zero
    # Column by column the file gives the lower triangle, which is the upper one row by row.
    upper_rows, upper_cols = np.triu_indices(rows, below)
    if len(data) != len(upper_rows):
        raise ValueError(f"a {symmetry} array of {rows} rows has {len(upper_rows)} numbers, {len(data)} are there")
    mask = np.zeros((rows, rows), dtype=np.bool_)
    mask[upper_cols, upper_rows] = data  # the lower triangle column by column is the upper one row by row
    return mask | mask.T


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
    with open_weights(path, most) as file:
        try:
            header = file.readline(_MOST_HEADER).decode("ascii")
            rows, cols, nnz = (int(word) for word in header.replace(",", " ").split())
            check_size(path, path.stem, (rows, cols), most)
            numbers = np.array(_rest(path, file).decode("ascii").split(), dtype=np.int64)
            if nnz < 0 or len(numbers) != rows + 1 + nnz:
                raise ValueError(
                    f"{rows} rows and {nnz} weights need {rows + 1 + nnz} numbers, there are {len(numbers)}"
                )
            owners = owners_of(numbers[: rows + 1], rows, nnz)
            return scattered((rows, cols), owners, numbers[rows + 1 :], np.ones(nnz, dtype=np.bool_))
        except (ValueError, OverflowError) as error:
            raise DataError(
                f'{path}: expected "rows, cols, nnz", row pointers and column indices, got something else '
                f"({_short(error)}); write it again"
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
        rows, cols = (int(extent) for extent in indices_of(arrays["shape"]))
        check_size(path, path.stem, (rows, cols), most)
        data = kept(path, path.stem, arrays["data"])
        if data.ndim != {"bsr": 3, "dia": 2}.get(form, 1):
            raise ValueError(f"its data have shape {data.shape}")
        if form == "dia":
            return _diagonals((rows, cols), indices_of(arrays["offsets"]), data)
        if form == "coo":
            # Newer versions of SciPy write one array of coordinates, older ones two.
            places = arrays["coords"] if "coords" in arrays else (arrays["row"], arrays["col"])
            return scattered((rows, cols), indices_of(places[0]), indices_of(places[1]), data)
        if form not in ("csr", "csc", "bsr"):
            raise ValueError(f"its format is {form!r}, not csr, csc, bsr, coo or dia")
        height, width = data.shape[1:] if form == "bsr" else (1, 1)
        if rows % height or cols % width:
            raise ValueError(f"{rows} x {cols} is no whole number of blocks of {height} x {width}")
        tiles = (rows // height, cols // width)
        owners = owners_of(indices_of(arrays["indptr"]), tiles[form == "csc"], len(data))
        indices = indices_of(arrays["indices"])
        if form == "csc":
            return scattered(tiles, indices, owners, data)
        mask = scattered(tiles, owners, indices, data)
        return mask.swapaxes(1, 2).reshape(rows, cols) if form == "bsr" else mask
    except (KeyError, ValueError, TypeError, OverflowError, IndexError, ZeroDivisionError) as error:
        raise DataError(
            f"{path}: expected a sparse matrix of SciPy, got a wrong one ({_short(error)}); save it again"
        ) from None


def _diagonals(shape: tuple[int, int], offsets: NDArray[np.int64], data: Mask) -> Mask:
    """A mask from its diagonals: column j of every diagonal stands in column j of the matrix."""
    if len(offsets) != len(data) or len(np.unique(offsets)) != len(offsets):
        raise ValueError(f"{len(offsets)} offsets are given for {len(data)} diagonals, each once")
    diagonal, cols = np.nonzero(data)
    rows = cols - offsets[diagonal]
    inside = (rows >= 0) & (rows < shape[0]) & (cols < shape[1])  # the ends of a diagonal lie outside, as SciPy pads it
    mask = np.zeros(shape, dtype=np.bool_)
    mask[rows[inside], cols[inside]] = True
    return mask


def indices_of(array: Array) -> NDArray[np.int64]:
    """An array of whole numbers on one axis, or a ValueError."""
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise ValueError(f"indices are {array.dtype} of shape {array.shape}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"an index is {array.max()}")  # which would come out negative
    return array.astype(np.int64)


def owners_of(pointers: NDArray[np.int64], rows: int, entries: int) -> NDArray[np.int64]:
    """The row of every entry, or a ValueError."""
    counts = np.diff(pointers)
    if len(pointers) != rows + 1 or pointers[0] != 0 or (counts < 0).any() or pointers[-1] != entries:
        raise ValueError("the pointers do not rise from 0 to the number of entries")
    return np.repeat(np.arange(rows), counts)


def scattered(shape: tuple[int, int], rows: NDArray[np.int64], cols: NDArray[np.int64], data: Mask) -> Mask:
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
    if math.prod(mask.shape):
        # `logical_or.at` and no assignment: an entry may be given several times.
        np.logical_or.at(mask, (rows, cols), data)
    return mask
