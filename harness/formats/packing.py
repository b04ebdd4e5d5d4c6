"""Pruned matrices packed, and read back exactly.

One `.npz` holds any number of matrices, each in one format, beside `meta`, a JSON text; nothing is pickled. Indices are
stored in the narrowest unsigned type, values as they are.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from harness.api.component import JsonValue
from harness.arrays import Array, Mask
from harness.errors import DataError, SpecError
from harness.formats import array_files, storage
from harness.formats.sparse_files import owners_of
from harness.formats.weight_arrays import MOST_WEIGHTS, check_size

PackedFormat = Literal["csb", "csr", "bitmap", "n_m", "block"]
FORMATS: tuple[PackedFormat, ...] = get_args(PackedFormat)

_META, _VERSION = "meta", 1


@dataclass(frozen=True, eq=False)
class Packed:
    """One matrix in one format.

    Args:
        format: its name; `dense` for an array of any shape that is kept as it is.
        shape: of the matrix.
        arrays: by name, `values` among them; the shapes are those of `docs/storage.md`.
        sizes: what the shapes follow from: banks and kept (csb), kept and group (n_m), height and width (block).
    """

    format: str
    shape: tuple[int, ...]
    arrays: Mapping[str, Array]
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def index_bits(self) -> int:
        """Bits of one index; 0 where there is none."""
        last = {
            "csb": -(-self.shape[1] // self.sizes["banks"]) if "banks" in self.sizes else 0,
            "csr": self.shape[-1],
            "n_m": self.sizes.get("group", 0),
            "block": self.shape[-1] // self.sizes.get("width", 1),
        }
        return storage.index_bits(last.get(self.format, 0))


def pack(
    matrix: Array,
    form: PackedFormat,
    *,
    mask: Mask | None = None,
    banks: int | None = None,
    n_m: tuple[int, int] | None = None,
    block: tuple[int, int] | None = None,
) -> Packed:
    """A matrix in a format.

    Args:
        matrix: the weights; those outside the mask are taken as zero.
        form: the format.
        mask: True where a weight is kept; None takes every weight that is not zero.
        banks: banks per row of csb; None takes the largest number that are filled equally.
        n_m: N and M; None takes those with the fewest bits.
        block: rows and columns of a block; None takes the largest that is kept or dropped whole.

    Shapes:
        matrix, mask (rows, cols).

    Raises:
        SpecError, ShapeError: the format cannot hold this mask; the sentence says where and what to do instead.
    """
    kept = storage.checked(np.asarray(matrix != 0) if mask is None else mask)
    if form == "csb":
        return _pack_csb(matrix, kept, banks)
    if form == "n_m":
        return _pack_n_m(matrix, kept, n_m)
    if form == "block":
        return _pack_block(matrix, kept, block)
    return _pack_csr(matrix, kept) if form == "csr" else _pack_bitmap(matrix, kept)


def keep(array: Array) -> Packed:
    """An array of any shape as it is: biases, and matrices that nobody pruned."""
    return Packed("dense", array.shape, {"values": array})


def unpack(packed: Packed) -> Array:
    """The matrix, exactly.

    Shapes:
        -> packed.shape.

    Raises:
        DataError: the arrays do not fit each other.
    """
    try:
        matrix = _UNPACK[packed.format](packed)
    except (KeyError, ValueError, IndexError, TypeError, ZeroDivisionError) as error:
        raise DataError(
            f"packed {packed.format} of shape {packed.shape}: expected arrays that describe a matrix, got "
            f"{ {name: array.shape for name, array in packed.arrays.items()} } ({error}); export it again"
        ) from None
    return matrix


def stored(packed: Packed) -> Mask:
    """Which weights are stored: zeros among them too, except where a format pads with zeros.

    Shapes:
        -> packed.shape.

    Raises:
        DataError: the arrays do not fit each other.
    """
    if packed.format in ("csb", "csr", "bitmap"):
        # With ones for values, unpacking gives the mask of what is stored, by the code that gives the weights.
        ones = np.ones(packed.arrays["values"].shape, dtype=np.bool_)
        packed = replace(packed, arrays={**packed.arrays, "values": ones})
    return np.asarray(unpack(packed) != 0)


def write_packed(matrices: Mapping[str, Packed], metadata: Mapping[str, str]) -> bytes:
    """The content of a packed `.npz`: the same matrices give the same bytes."""
    arrays: dict[str, Array] = {}
    entries: list[JsonValue] = []
    for number, (name, packed) in enumerate(matrices.items()):
        arrays |= {f"{number}.{part}": array for part, array in packed.arrays.items()}
        entries.append(
            {"name": name, "format": packed.format, "shape": list(packed.shape), "sizes": dict(packed.sizes)}
        )
    meta = {"packed": _VERSION, "matrices": entries, "metadata": dict(metadata)}
    arrays[_META] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    stream = io.BytesIO()
    # NumPy gives all members one date: equal matrices are equal bytes.
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def read_packed(path: Path) -> dict[str, Array]:
    """The matrices of a packed `.npz`, by name, exactly as they were packed.

    Shapes:
        (rows, cols) = (outputs, inputs) each; biases (rows,).

    Raises:
        SpecError: the file cannot be read.
        DataError: it is no packed file, or a damaged one.
    """
    arrays = array_files.read_npz(path)
    if not is_packed(arrays):
        raise DataError(
            f"{path}: expected packed matrices, got {', '.join(arrays) or 'nothing'}; `harness export` writes them"
        )
    return {name: unpack(packed) for name, packed in packed_of(path, arrays).items()}


def is_packed(arrays: Mapping[str, Array]) -> bool:
    """Whether an archive is one of ours."""
    meta = arrays.get(_META)
    # Recognised by its own description, not by the names of its arrays, which could be anybody's.
    return meta is not None and meta.dtype == np.uint8 and meta.tobytes().startswith(b'{"packed"')


def packed_of(path: Path, arrays: Mapping[str, Array]) -> dict[str, Packed]:
    """The matrices of a packed archive, still packed.

    Raises:
        DataError: its description is damaged, of another version, or declares too large a matrix.
    """
    try:
        meta = json.loads(arrays[_META].tobytes())
        if meta["packed"] != _VERSION:
            raise ValueError(f"version {meta['packed']}, this harness reads {_VERSION}")
        found = {}
        for number, entry in enumerate(meta["matrices"]):
            shape = tuple(int(extent) for extent in entry["shape"])
            check_size(path, entry["name"], shape, MOST_WEIGHTS)
            prefix = f"{number}."
            parts = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            sizes = {str(name): int(size) for name, size in entry["sizes"].items()}
            found[str(entry["name"])] = Packed(str(entry["format"]), shape, parts, sizes)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: expected packed matrices, got a damaged description ({error}); export it again"
        ) from None
    return found


def _narrow(indices: Array, last: int) -> Array:
    # The narrowest type that holds the largest place there can be, not the largest there is: equal shapes, equal types.
    return indices.astype(np.min_scalar_type(max(last, 0)))


def _pack_csb(matrix: Array, mask: Mask, banks: int | None) -> Packed:
    count = storage.even_banks(mask) if banks is None else banks
    where = f"rows keep {_spread(mask)} weights" if count is None else storage.uneven(mask, count)
    if count is None or where is not None:
        raise SpecError(
            f"csb: every bank of every row must keep equally many weights, but {where}; pack it as csr or bitmap"
        )
    rows, cols = mask.shape
    kept = int(np.count_nonzero(mask)) // (rows * count)
    # What remains of a bank's indices is its place in the bank: banks differ in length by one at most.
    places = np.nonzero(mask)[1].reshape(rows, count, kept) - storage.split(cols, count)[None, :, None]
    values = matrix[mask].reshape(rows, count, kept)
    longest = -(-cols // count)
    arrays = {
        "values": np.ascontiguousarray(values.swapaxes(1, 2)),  # (rows, kept, banks): the first of every bank, ...
        "indices": _narrow(np.ascontiguousarray(places.swapaxes(1, 2)), longest - 1),
    }
    return Packed("csb", mask.shape, arrays, {"banks": count, "kept": kept})


def _spread(mask: Mask) -> str:
    totals = np.count_nonzero(mask, axis=1)
    return f"{totals.min()} (row {totals.argmin()}) to {totals.max()} (row {totals.argmax()})"


def _unpack_csb(packed: Packed) -> Array:
    rows, cols = packed.shape
    banks, kept = packed.sizes["banks"], packed.sizes["kept"]
    starts = storage.split(cols, banks)
    indices = _unsigned(packed.arrays["indices"]).reshape(rows, kept, banks)
    _below(indices, np.diff(starts, append=cols))
    return _scattered(packed, (indices + starts).reshape(rows, -1), packed.arrays["values"].reshape(rows, -1))


def _pack_csr(matrix: Array, mask: Mask) -> Packed:
    counts = np.count_nonzero(mask, axis=1)
    pointers = np.concatenate([[0], np.cumsum(counts)])
    arrays = {
        "values": matrix[mask],  # (nnz,)
        "indices": _narrow(np.nonzero(mask)[1], mask.shape[1] - 1),  # (nnz,)
        "pointers": _narrow(pointers, int(pointers[-1])),  # (rows + 1,)
    }
    return Packed("csr", mask.shape, arrays)


def _unpack_csr(packed: Packed) -> Array:
    rows, cols = packed.shape
    indices = _unsigned(packed.arrays["indices"])
    _below(indices, cols)
    matrix = np.zeros((rows, cols), packed.arrays["values"].dtype)
    matrix[owners_of(_unsigned(packed.arrays["pointers"]), rows, len(indices)), indices] = packed.arrays["values"]
    return matrix


def _pack_bitmap(matrix: Array, mask: Mask) -> Packed:
    # Column c is bit c % 8 of byte c // 8, as a memory that is 8 columns wide has it.
    bits = np.packbits(mask, axis=1, bitorder="little")  # (rows, ceil(cols / 8))
    return Packed("bitmap", mask.shape, {"values": matrix[mask], "bits": bits})


def _unpack_bitmap(packed: Packed) -> Array:
    rows, cols = packed.shape
    bits = packed.arrays["bits"].astype(np.uint8).reshape(rows, -(-cols // 8))
    mask = np.unpackbits(bits, axis=1, count=cols, bitorder="little").astype(np.bool_)
    values = packed.arrays["values"]
    if len(values) != np.count_nonzero(mask):
        raise ValueError(f"{np.count_nonzero(mask)} bits are set for {len(values)} values")
    matrix = np.zeros((rows, cols), values.dtype)
    matrix[mask] = values
    return matrix


def _pack_n_m(matrix: Array, mask: Mask, n_m: tuple[int, int] | None) -> Packed:
    found = storage.smallest_n_m(mask, 16) if n_m is None else n_m
    if found is None:
        raise SpecError(
            f"n_m: some weight of every M columns must be dropped, M a power of two that divides {mask.shape[1]}, but "
            "there is no such M; pack it as csr or bitmap"
        )
    kept, group = found
    storage.check_groups(mask, kept, group)
    rows, cols = mask.shape
    tiles = mask.reshape(rows, cols // group, group)
    # A group that keeps fewer is padded with zeros at places that it does not keep, so that places rise and differ.
    chosen = np.sort(np.argsort(~tiles, axis=2, kind="stable")[:, :, :kept], axis=2)  # (rows, groups, kept)
    values = np.take_along_axis(np.where(mask, matrix, matrix.dtype.type(0)).reshape(tiles.shape), chosen, axis=2)
    return Packed(
        "n_m", mask.shape, {"values": values, "indices": _narrow(chosen, group - 1)}, {"kept": kept, "group": group}
    )


def _unpack_n_m(packed: Packed) -> Array:
    rows, cols = packed.shape
    kept, group = packed.sizes["kept"], packed.sizes["group"]
    indices = _unsigned(packed.arrays["indices"]).reshape(rows, cols // group, kept)
    _below(indices, group)
    columns = indices + np.arange(0, cols, group)[None, :, None]
    return _scattered(packed, columns.reshape(rows, -1), packed.arrays["values"].reshape(rows, -1))


def _pack_block(matrix: Array, mask: Mask, block: tuple[int, int] | None) -> Packed:
    height, width = storage.whole_block(mask) if block is None else block
    rows, cols = mask.shape
    if min(height, width) < 1 or rows % height or cols % width:
        raise SpecError(f"block: {height} x {width} must divide {rows} x {cols}; choose divisors")
    if height * width == 1:
        raise SpecError(
            "block: weights must be kept or dropped in blocks, but some stand alone; pack it as csr or bitmap"
        )
    blocks = storage.kept_blocks(mask, height, width)
    tiles = np.where(mask, matrix, matrix.dtype.type(0)).reshape(rows // height, height, cols // width, width)
    inner = _pack_csr(blocks.astype(np.uint8), blocks).arrays
    arrays = {
        "values": tiles.swapaxes(1, 2)[blocks],  # (kept blocks, height, width)
        "indices": inner["indices"],
        "pointers": inner["pointers"],
    }
    return Packed("block", mask.shape, arrays, {"height": height, "width": width})


def _unpack_block(packed: Packed) -> Array:
    rows, cols = packed.shape
    height, width = packed.sizes["height"], packed.sizes["width"]
    indices = _unsigned(packed.arrays["indices"])
    _below(indices, cols // width)
    tiles = np.zeros((rows // height, cols // width, height, width), packed.arrays["values"].dtype)
    tiles[owners_of(_unsigned(packed.arrays["pointers"]), rows // height, len(indices)), indices] = packed.arrays[
        "values"
    ]
    return tiles.swapaxes(1, 2).reshape(rows, cols)


def _unpack_dense(packed: Packed) -> Array:
    return packed.arrays["values"].reshape(packed.shape)


def _unsigned(indices: Array) -> NDArray[np.int64]:
    """Indices that may be added to."""
    # Signed ones could be negative, and NumPy would count them from the end.
    if indices.dtype.kind != "u":
        raise ValueError(f"indices are {indices.dtype}, not unsigned")
    return indices.astype(np.int64)


def _below(indices: NDArray[np.int64], ends: NDArray[np.intp] | int) -> None:
    if (indices >= ends).any():
        raise ValueError(f"index {int(indices.max())} is beyond the end")


def _scattered(packed: Packed, columns: NDArray[np.int64], values: Array) -> Array:
    matrix = np.zeros(packed.shape, values.dtype)
    np.put_along_axis(matrix, columns, values, axis=1)
    return matrix


_UNPACK: Mapping[str, Callable[[Packed], Array]] = {
    "csb": _unpack_csb,
    "csr": _unpack_csr,
    "bitmap": _unpack_bitmap,
    "n_m": _unpack_n_m,
    "block": _unpack_block,
    "dense": _unpack_dense,
}
