"""States and masks as bytes: what lies in `state.safetensors` and `masks.safetensors`, parsed without trust."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from harness._files import open_at_once, plain_size
from harness.api import Array, Mask, State

MAX_HEADER_BYTES = 1 << 24
"""Of a safetensors file: some hundred bytes for each of a model's tensors."""


def state_bytes(state: State) -> bytes:
    """Weights, slots and extras as one file; the masks have one of their own."""
    return save_safetensors(_flat(state))


def mask_bytes(masks: Mapping[str, Mask]) -> bytes:
    """Masks as one file, a bit for each weight."""
    return save_safetensors(_packed(masks))


def state_of(content: bytes, masks: dict[str, Mask]) -> State:
    """The state that a file holds.

    Args:
        content: of the file.
        masks: that belong to it.

    Raises:
        ValueError: it holds none; what it does instead, as the end of a sentence.
    """
    parts: dict[str, dict[str, Array]] = {"weights": {}, "slots": {}, "extra": {}}
    for name, array in _parsed(content).items():
        part, _, rest = name.partition("/")
        if part not in parts:
            raise ValueError(f"holds {name[:80]!r}, which is no part")
        parts[part][rest] = array
    return State(
        weights=parts["weights"],  # type: ignore[arg-type]  # float32 as written
        masks=masks,
        slots=parts["slots"],  # type: ignore[arg-type]  # float32 as written
        extra=parts["extra"],
    )


def masks_of(content: bytes) -> dict[str, Mask]:
    """The masks that a file holds.

    Raises:
        ValueError: as `state_of`.
    """
    arrays = _parsed(content)
    bits = {name.removeprefix("bits/"): array for name, array in arrays.items() if name.startswith("bits/")}
    try:
        return {name: _unpacked(array, arrays[f"shape/{name}"]) for name, array in bits.items()}
    except (KeyError, ValueError) as error:
        raise ValueError(f"holds no masks ({error})") from None


def array_types(content: bytes) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every array of a safetensors file, as its header has them; `check_size` has seen it."""
    # Never trusted: a file of anybody's may lie in a store.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    try:
        return {
            str(name): (str(entry["dtype"]), tuple(map(int, entry["shape"])))
            for name, entry in header.items() if name != "__metadata__"
        }  # fmt: skip
    except (KeyError, ValueError, TypeError):
        # What cannot be read as types has none: whoever compares them then sees the difference.
        return {}


def state_digest(state: State) -> str:
    """SHA-256 over names, shapes, types and bytes of every array of a state, masks included."""
    hasher = hashlib.sha256()
    for name, array in sorted({**_flat(state), **_packed(state.masks)}.items()):
        hasher.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def check_size(path: Path) -> None:
    """See that a safetensors file is as large as its header says, before all of it is read.

    Raises:
        OSError: it cannot be read.
        ValueError: its header is too large, unreadable, or tells another size.
    """
    with os.fdopen(open_at_once(path), "rb") as file:
        check_open(file)


def check_open(file: BinaryIO) -> None:
    """As `check_size`, for a file that is open at its beginning."""
    size = plain_size(file.fileno())
    # The first eight bytes of a safetensors file are the length of its header.
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(f"its header has {length} bytes, the file {size}")
    try:
        header = json.loads(file.read(length))
        # Offsets count from the end of the header.
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise ValueError("its header cannot be read") from None
    if end != size - 8 - length:
        raise ValueError(f"its header tells of {end} bytes, {size - 8 - length} follow")


def _flat(state: State) -> dict[str, Array]:
    parts: tuple[tuple[str, Mapping[str, Array]], ...] = (
        ("weights", state.weights),
        ("slots", state.slots),
        ("extra", state.extra),
    )
    # Not ascontiguousarray: it makes a vector of a scalar.
    return {f"{part}/{name}": np.asarray(array, order="C") for part, arrays in parts for name, array in arrays.items()}


def _packed(masks: Mapping[str, Mask]) -> dict[str, NDArray[np.uint8] | NDArray[np.int64]]:
    packed: dict[str, NDArray[np.uint8] | NDArray[np.int64]] = {}
    for name, mask in masks.items():
        # A bit a weight, whose number of bytes does not tell the shape: that goes beside it.
        packed[f"bits/{name}"] = np.packbits(mask)
        packed[f"shape/{name}"] = np.array(mask.shape, dtype=np.int64)
    return packed


def _unpacked(bits: Array, shape: Array) -> Mask:
    if bits.dtype != np.uint8 or shape.dtype != np.int64 or shape.shape != (2,):
        raise ValueError(f"bits are {bits.dtype}, their shape {shape.dtype} of shape {shape.shape}")
    rows, cols = (int(length) for length in shape)
    # `unpackbits` would make as many values as it is asked for, whatever there is.
    if bits.ndim != 1 or min(rows, cols) < 0 or (rows * cols + 7) // 8 != bits.size:
        raise ValueError(f"{bits.size} bytes are no mask of {rows} x {cols}")
    return np.unpackbits(bits.astype(np.uint8, copy=False), count=rows * cols).astype(np.bool_).reshape(rows, cols)


def _parsed(content: bytes) -> dict[str, Array]:
    try:
        return load_safetensors(content)
    except SafetensorError as error:
        raise ValueError(f"cannot be read ({error})") from None
