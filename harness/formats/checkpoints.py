"""Checkpoints whose arrays are not the weights themselves: compressed, quantised, factored. Decoded, or refused.

Only which weights are zero is decoded: an integer at the zero point of its group stands for zero, whatever the scale.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.arrays import Array, Mask
from harness.errors import DataError
from harness.formats.sparse_files import indices_of, owners_of, scattered
from harness.formats.weight_arrays import Orientation, check_size, kept

Group = Mapping[str, str]
"""The arrays of one module: full name by last part."""

_POINTERS = ("indptr", "crow_indices", "row_offsets", "row_ptr", "rowptr", "row_pointers")
_COLUMNS = ("indices", "col_indices", "column_indices", "col_ind", "colidx", "columns")
_VALUES = ("data", "values", "vals", "compressed")
_SHAPES = ("shape", "size", "dense_shape")

# (what it is, the last parts of the names of its arrays, all of which have to be there)
_REFUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("quantised by GPTQ or AWQ in a way that does not say its zero points", ("qweight",)),
    ("packed integers of compressed-tensors", ("weight_packed",)),
    ("EXL2", ("q_weight",)),
    ("HQQ", ("w_q",)),
    ("AQLM", ("codes", "codebooks")),
    ("VPTQ", ("indices", "centroids")),
    ("QuIP#", ("qidxs",)),
    ("2:4 values and metadata", ("meta",)),
    ("2:4 values and metadata", ("metadata",)),
    ("a bit mask without the shape of its matrix", ("bitmask",)),
    ("compressed values without their places", ("compressed",)),
    ("packed integers", ("packed",)),
    ("packed integers", ("qdata",)),
    ("4-bit blocks of bitsandbytes without their state", ("absmax", "quant_map")),
)

_SCALES = ("weight_scale", "weight_scales", "scale", "scales", "weight_global_scale")


@dataclass
class Decoded:
    """Arrays of weights by name, decoded ones as masks, and what is known of these.

    Args:
        arrays: in the order of the file.
        orientation: of those that were decoded.
        notes: what was decoded, as sentences.
    """

    arrays: dict[str, Array]
    orientation: dict[str, Orientation] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _One:
    """One decoded matrix: its name, its mask, the arrays it is made of, and how it lies as far as that is known."""

    name: str
    mask: Mask
    used: tuple[str, ...]
    orientation: Orientation | None = "rows_out"


class _WrongError(ValueError):
    """The arrays of a module do not fit each other."""


def decoded(path: Path, arrays: Mapping[str, Array], most: int) -> Decoded:
    """The weights of a checkpoint.

    Raises:
        DataError: arrays are packed in a way that is not known, or do not fit each other.
    """
    result = Decoded(dict(arrays))
    groups: dict[str, dict[str, str]] = {}
    for name in arrays:
        stem, _, last = name.rpartition("." if "." in name else "/")
        # Case differs between writers, and no two parts of one module differ by it alone.
        groups.setdefault(stem, {})[last.lower()] = name
    for stem, group in groups.items():
        left: Group | None = group
        while left:  # names without dots put many matrices into one group
            left = _decode_one(path, stem, left, arrays, most, result)
    # After decoding: what is left of a module then is what no decoder has taken.
    for stem, group in groups.items():
        _refuse_packed(path, stem, {last: name for last, name in group.items() if name in result.arrays}, arrays)
    return result


def _decode_one(
    path: Path, stem: str, group: Group, arrays: Mapping[str, Array], most: int, result: Decoded
) -> Group | None:
    """Decode one matrix of a module; what else the module has, or None where nothing is left to decode."""
    # In this order: a bit mask also has values, which coordinates would take for theirs.
    for kind, decode in _DECODERS.items():
        try:
            found = decode(path, stem, group, arrays, most)
        except (_WrongError, ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
            shapes = ", ".join(f"{last} {arrays[name].shape}" for last, name in group.items())
            raise DataError(
                f"{path}: expected {kind} in {stem or 'the file'!r}, got arrays that do not fit each other "
                f"({error}; {shapes:.300}); save the weights unpacked"
            ) from None
        if found is not None:
            _replace(result, found, kind)
            return {last: name for last, name in group.items() if name not in found.used}
    return None


def _replace(result: Decoded, found: _One, kind: str) -> None:
    """Put a decoded matrix where its first array stood."""
    renamed: dict[str, Array] = {}
    placed = False
    for name, array in result.arrays.items():
        if name not in found.used:
            renamed[name] = array
        elif not placed:
            renamed[found.name], placed = found.mask, True
    result.arrays = renamed
    if found.orientation is not None:
        result.orientation[found.name] = found.orientation
    result.notes.append(f"{found.name} is decoded from {kind}")


def _refuse_packed(path: Path, stem: str, group: Group, arrays: Mapping[str, Array]) -> None:
    """Pass if no array of a module is something else than weights."""
    for what, needed in _REFUSED:
        if all(last in group for last in needed) and arrays[group[needed[0]]].ndim > 0:
            # A scalar or a dictionary called `meta` stands in many files: it is packing only beside packed values.
            if needed[0] in ("meta", "metadata") and not {"packed", "values", "compressed", "data"} & group.keys():
                continue
            raise DataError(
                f"{path}: expected weights, got {group[needed[0]]!r}, which is {what}; save the weights unpacked "
                "and name that file"
            )
    blocks = next((last for last in group if last.endswith("_blocks") and f"{last[:-7]}_scales" in group), None)
    if blocks is not None:
        raise DataError(f"{path}: expected weights, got {group[blocks]!r}, which is blocks of MXFP4; save them as BF16")
    weight = group.get("weight")
    if weight is not None and arrays[weight].ndim == 2 and arrays[weight].dtype.kind in "iu":
        # Signed bytes beside a scale are weights as they are; wider or unsigned numbers beside one are packed.
        is_wide = arrays[weight].dtype.itemsize > 1 or arrays[weight].dtype == np.uint8
        if is_wide and any(last in group for last in _SCALES):
            raise DataError(
                f"{path}: expected weights, got {weight!r} as {arrays[weight].dtype} beside scales: several weights in "
                "one number; save them unpacked and name that file"
            )


# --- compressed by places ---------------------------------------------------------------------------------------------


def _weight_name(stem: str) -> str:
    return stem if re.search(r"(^|[./])weight$", stem) or not stem else f"{stem}.weight"


def _shape(group: Group, arrays: Mapping[str, Array]) -> tuple[int, ...] | None:
    """The shape that a module says its weights have."""
    name = next((group[last] for last in _SHAPES if last in group), None)
    if name is None or arrays[name].dtype.kind not in "iu" or not 1 <= arrays[name].size <= 8:
        return None
    return tuple(int(extent) for extent in arrays[name].ravel())


def _bitmask(path: Path, stem: str, group: Group, arrays: Mapping[str, Array], most: int) -> _One | None:
    """compressed-tensors, `sparse-bitmask` and `sparse-24-bitmask`: eight weights a byte, the lowest bit first."""
    shape = _shape(group, arrays)
    if "bitmask" not in group or shape is None:
        return None
    bits = arrays[group["bitmask"]]
    check_size(path, stem, shape, most)
    if bits.dtype != np.uint8 or bits.shape != (*shape[:-1], -(-shape[-1] // 8)):
        raise _WrongError(f"a bit mask of {shape} has {(*shape[:-1], -(-shape[-1] // 8))} bytes")
    # With `count`, since the last byte of a row is filled up.
    mask = np.unpackbits(bits.astype(np.uint8), axis=-1, count=shape[-1], bitorder="little").astype(np.bool_)
    values = group.get("compressed")
    if values is not None and arrays[values].size != mask.sum():
        raise _WrongError(f"{mask.sum()} weights are marked, {arrays[values].size} are there")
    used = [group[last] for last in ("bitmask", "compressed", "row_offsets", *_SHAPES) if last in group]
    return _One(_weight_name(stem), mask, tuple(used), None)


def _rows(path: Path, stem: str, group: Group, arrays: Mapping[str, Array], most: int) -> _One | None:
    """Compressed sparse rows: where each row begins, the column of every entry, its value."""
    pointers, columns, values = (
        next((group[last] for last in names if last in group), None) for names in (_POINTERS, _COLUMNS, _VALUES)
    )
    if pointers is None or columns is None:
        return None
    shape = _shape(group, arrays)
    if shape is None or len(shape) != 2:
        raise _WrongError("the number of columns is not said; save `shape` beside them")
    check_size(path, stem, shape, most)
    indices = indices_of(arrays[columns])
    owners = owners_of(indices_of(arrays[pointers]), shape[0], len(indices))
    data = np.ones(len(indices), dtype=np.bool_) if values is None else kept(path, values, arrays[values])
    used = [each for each in (pointers, columns, values) if each is not None]
    used += [group[last] for last in _SHAPES if last in group]
    return _One(_weight_name(stem), scattered((shape[0], shape[1]), owners, indices, data), tuple(used), None)


def _places(path: Path, stem: str, group: Group, arrays: Mapping[str, Array], most: int) -> _One | None:
    """Coordinates as torch.sparse has them: `indices` (2, entries), `values`, `size`."""
    if not {"indices", "values"} <= group.keys() or arrays[group["indices"]].ndim != 2:
        return None
    shape, indices = _shape(group, arrays), arrays[group["indices"]]
    if shape is None or len(shape) != 2 or len(indices) != 2:
        raise _WrongError("rows and columns are not said; save `size` beside them")
    check_size(path, stem, shape, most)
    data = kept(path, group["values"], arrays[group["values"]])
    mask = scattered((shape[0], shape[1]), indices_of(indices[0]), indices_of(indices[1]), data)
    used = [group["indices"], group["values"], *(group[last] for last in _SHAPES if last in group)]
    return _One(_weight_name(stem), mask, tuple(used), None)


# --- quantised --------------------------------------------------------------------------------------------------------


def _fields(words: Array, bits: int, axis: int) -> NDArray[np.int64]:
    """The unsigned numbers of so many bits in 32-bit words, the lowest bits first, along an axis."""
    if words.dtype.itemsize != 4 or words.dtype.kind not in "iu" or words.ndim != 2:
        raise _WrongError(f"packed integers are two-dimensional words of 32 bits, not {words.dtype} of {words.shape}")
    # As unsigned 32 bits: a shift would drag the sign of an int32 along.
    wide = np.moveaxis(words.astype(np.int64) & 0xFFFFFFFF, axis, -1)  # (others, words)
    shifts = np.arange(32 // bits) * bits
    fields = (wide[..., None] >> shifts) & ((1 << bits) - 1)  # (others, words, 32 / bits)
    return np.moveaxis(fields.reshape(*wide.shape[:-1], -1), -1, axis)


def _spread(zeros: NDArray[np.int64], inputs: int, order: Array | None) -> NDArray[np.int64]:
    """The zero point of every input, from those of its groups.

    Shapes:
        zeros (outputs, groups) -> (outputs, inputs).
    """
    groups = zeros.shape[1]
    if order is None:
        if not groups or inputs % groups:
            raise _WrongError(f"{inputs} inputs are no whole number of {groups} groups")
        return np.repeat(zeros, inputs // groups, axis=1)
    group = indices_of(order)
    if len(group) != inputs or not 0 <= group.min() <= group.max() < groups:
        raise _WrongError(f"the group of every one of {inputs} inputs is not given")
    return zeros[:, group]


def _packed_integers(path: Path, stem: str, group: Group, arrays: Mapping[str, Array], most: int) -> _One | None:
    """compressed-tensors, `pack-quantized`: signed integers, shifted to unsigned ones, packed along the inputs."""
    if not {"weight_packed", "weight_shape"} <= group.keys():
        return None
    words = arrays[group["weight_packed"]]
    shape = tuple(int(extent) for extent in arrays[group["weight_shape"]].ravel())
    if len(shape) != 2 or words.dtype.itemsize != 4:
        return None  # bytes of FP4, or what nobody knows
    check_size(path, stem, shape, most)
    outputs, inputs = shape
    # The width is not said, so it has to follow from the shapes, and from one of them only.
    fitting = [bits for bits in (4, 8, 2, 3) if words.shape == (outputs, -(-inputs // (32 // bits)))]
    if len(fitting) != 1:
        raise _WrongError(f"{words.shape} words for {shape} weights do not say how many bits one has")
    bits = fitting[0]
    weights = _fields(words, bits, 1)[:, :inputs]
    zeros = np.full((outputs, 1), 1 << (bits - 1))  # what 0 is shifted to
    point = group.get("weight_zero_point")
    if point is not None and arrays[point].size:
        points = arrays[point]
        if points.dtype.itemsize == 4:
            zeros = _fields(points, bits, 0)[:outputs]
        else:
            zeros = points.astype(np.int64).reshape(outputs, -1) + (1 << (bits - 1))
    order = arrays[group["weight_g_idx"]] if "weight_g_idx" in group else None
    if order is not None and (order.astype(np.int64) < 0).all():
        order = None  # written where groups are in order
    mask = weights != _spread(zeros, inputs, order)
    lasts = ("weight_packed", "weight_shape", "weight_scale", "weight_zero_point", "weight_g_idx")
    return _One(f"{stem}.weight".lstrip("."), mask, tuple(group[last] for last in lasts if last in group))


_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring outputs stands in which four bits of a word of AWQ, the lowest first."""


def _gptq_or_awq(path: Path, stem: str, group: Group, arrays: Mapping[str, Array], most: int) -> _One | None:
    """`qweight`, `qzeros` and `scales`: GPTQ packs along the inputs, AWQ along the outputs in an order of its own."""
    if not {"qweight", "qzeros", "scales"} <= group.keys():
        return None
    words, points, scales = (arrays[group[last]] for last in ("qweight", "qzeros", "scales"))
    groups, outputs = scales.shape
    # Zero points are packed along the outputs in both formats, which tells how many fit a word.
    per_word = outputs // points.shape[1]
    if points.shape[0] != groups or per_word * points.shape[1] != outputs or per_word not in (4, 8, 16):
        return None  # three bits, which straddle words
    bits = 32 // per_word
    check_size(path, stem, (words.shape[0] * per_word, words.shape[1]), most)
    order = arrays[group["g_idx"]] if "g_idx" in group else None
    zeros = _fields(points, bits, 1)  # (groups, outputs)
    if words.shape[1] == outputs:
        weights = _fields(words, bits, 0)  # (inputs, outputs)
        middle = 1 << (bits - 1)
        if (zeros == middle - 1).all():
            zeros = zeros + 1  # the first version of the format stores them one too low
        elif not (zeros == middle).all():
            return None  # which version, the file does not say
    # Both formats use these names: which side is packed tells them apart.
    elif bits == 4 and words.shape[1] * per_word == outputs:
        inverse = np.argsort(_AWQ_ORDER)
        weights, zeros = (
            fields.reshape(len(fields), -1, 8)[..., inverse].reshape(len(fields), -1)
            for fields in (_fields(words, bits, 1), zeros)
        )
        order = None
    else:
        raise _WrongError("neither inputs nor outputs are packed")
    mask = weights.T != _spread(zeros.T, len(weights), order)
    used = tuple(group[last] for last in ("qweight", "qzeros", "scales", "g_idx") if last in group)
    return _One(f"{stem}.weight".lstrip("."), mask, used)


def _blocks_of_4_bits(path: Path, stem: str, group: Group, arrays: Mapping[str, Array], most: int) -> _One | None:
    """bitsandbytes, NF4 and FP4: two weights a byte, the upper four bits first; each is an index into a table."""
    state = next((name for name in arrays if name.startswith(f"{stem}.quant_state.bitsandbytes__")), None)
    if state is None or not {"absmax", "quant_map"} <= group.keys() or stem not in arrays:
        return None
    shape = tuple(int(extent) for extent in json.loads(arrays[state].astype(np.uint8).tobytes())["shape"])
    check_size(path, stem, shape, most)
    packed, table = arrays[stem].ravel(), arrays[group["quant_map"]].ravel()
    if packed.dtype != np.uint8 or len(table) != 16 or packed.size * 2 < np.prod(shape):
        raise _WrongError(f"{packed.size} bytes and a table of {len(table)} are no {shape} weights")
    # Of an odd number of weights the last byte has a half that means nothing.
    codes = np.stack([packed.astype(np.uint8) >> 4, packed.astype(np.uint8) & 15], axis=-1).ravel()[
        : int(np.prod(shape))
    ]
    used = tuple(name for name in arrays if name == stem or name.startswith(f"{stem}."))
    return _One(stem, np.asarray(table[codes] != 0).reshape(shape), used, None)


def _zero_points(path: Path, stem: str, group: Group, arrays: Mapping[str, Array], most: int) -> _One | None:
    """Integers of their own size beside zero points: per tensor, per output, or per group of inputs."""
    pairs = [(last, f"{last}{end}") for last in group for end in ("_zero_point", "_zp")] + [("weight", "zero_point")]
    weight, point = next(((group[w], group[z]) for w, z in pairs if w in group and z in group), ("", ""))
    if not point:
        return None
    weights, zeros = arrays[weight], arrays[point]
    if weights.dtype.kind not in "iu" or weights.ndim < 2 or zeros.dtype.kind not in "iuf":
        return None
    if zeros.size == 1:
        mask = weights != zeros.ravel()[0]
    elif zeros.shape[0] == len(weights) and zeros.size == len(weights):
        mask = weights != zeros.reshape(-1, *[1] * (weights.ndim - 1))
    elif weights.ndim == zeros.ndim == 2 and len(zeros) == len(weights):
        mask = weights.astype(np.int64) != _spread(zeros.astype(np.int64), weights.shape[1], None)
    else:
        raise _WrongError("zero points are given per tensor, per output or per group of inputs")
    return _One(weight, np.asarray(mask), (weight, point), None)


# --- factored ---------------------------------------------------------------------------------------------------------


def _weight_norm(path: Path, stem: str, group: Group, arrays: Mapping[str, Array], most: int) -> _One | None:
    """Weight normalisation, w = g v / |v|: a gain of zero drops all that it scales."""
    if {"original0", "original1"} <= group.keys():
        gains, directions, name = group["original0"], group["original1"], stem.replace("parametrizations.", "")
    else:
        found = next((last[:-2] for last in group if last.endswith("_g") and f"{last[:-2]}_v" in group), None)
        if found is None:
            return None
        gains, directions, name = group[f"{found}_g"], group[f"{found}_v"], f"{stem}.{found}".lstrip(".")
    if arrays[directions].ndim < 2:
        return None  # the vectors of spectral normalisation
    gain = kept(path, gains, arrays[gains])
    direction = kept(path, directions, arrays[directions])
    if gain.ndim not in (0, direction.ndim):
        raise _WrongError("a gain has as many axes as what it scales")
    return _One(name, direction & gain, (gains, directions), None)


def _quanto(path: Path, stem: str, group: Group, arrays: Mapping[str, Array], most: int) -> _One | None:
    """optimum-quanto: `weight._data` of eight bits, symmetric around zero."""
    if not {"_data", "_scale"} <= group.keys():
        return None
    values = arrays[group["_data"]]
    if values.ndim < 2 or not (values.dtype == np.int8 or values.dtype.kind == "f"):
        raise _WrongError(f"{values.dtype} holds several weights in one number")
    return _One(stem, kept(path, group["_data"], values), (group["_data"], group["_scale"]), None)


_DECODERS: Mapping[str, Callable[[Path, str, Group, Mapping[str, Array], int], _One | None]] = {
    "a bit mask": _bitmask,
    "compressed sparse rows": _rows,
    "coordinates": _places,
    "packed integers of compressed-tensors": _packed_integers,
    "packed integers of GPTQ or AWQ": _gptq_or_awq,
    "4-bit blocks of bitsandbytes": _blocks_of_4_bits,
    "integers around zero points": _zero_points,
    "weight normalisation": _weight_norm,
    "integers of quanto": _quanto,
}
