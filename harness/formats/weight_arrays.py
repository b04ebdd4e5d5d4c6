"""What every reader of weights gives: arrays by name, which weights are kept, and what the file says of them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness.api import Convolution
from harness.arrays import Array, Mask
from harness.errors import DataError

MOST_WEIGHTS = 1 << 29
"""Elements that a file may hold: 60 times a 2 x 1500 LSTM with its word matrices, and half a gigabyte of masks."""

BYTES_EACH = 8
"""The widest element that is read."""

MOST_VALUES = 1 << 22
"""Weights whose values are kept beside their mask: more than that is no circuit of constants."""

Orientation = Literal["rows_out", "rows_in"]
"""(outputs, inputs), or (inputs, outputs); with more axes (out, in, *window) or (*window, in, out)."""


@dataclass(frozen=True, eq=False)
class WeightArray:
    """An array of weights of a file.

    Args:
        name: as in the file.
        kept: True where a weight is kept, in the array's own shape.
        orientation: as far as the file says.
        hint: the orientation that its name suggests; a layout that is asked for goes before it.
        lstm: the LSTM or GRU layer it belongs to and whether it is the recurrent matrix, as far as the file says.
        is_lookup: whether the file says that its rows are looked up.
        groups: of a convolution's channels; its outputs each see the inputs of their own group.
        is_transposed: whether it is the kernel of a transposed convolution: one product for every *input* position.
        positions: at how many positions of an item it is multiplied with (outputs, tokens), where the file says it.
        steps: how many time steps of an item it runs, where the file says that of a recurrent layer.
        geometry: strides, groups and sizes of a convolution, where the file says them.
        is_product: whether the file says that it is multiplied by, whatever its name suggests.
        values: the weights themselves, in the array's own shape; None for a mask, and where they are too many to keep.
    """

    name: str
    kept: Mask
    orientation: Orientation | None = None
    hint: Orientation | None = None
    lstm: tuple[str, bool] | None = None
    is_lookup: bool = False
    groups: int = 1
    is_transposed: bool = False
    positions: int | None = None
    steps: int | None = None
    geometry: Convolution | None = None
    is_product: bool = False
    values: Array | None = None


def check_size(path: Path, name: str, shape: tuple[int, ...], most: int) -> None:
    """Pass if an array of this shape may be held.

    Raises:
        DataError: it is too large, or an extent is negative.
    """
    # Negative extents, of damaged headers, would multiply to a small size.
    if min(shape, default=1) < 0:
        raise DataError(f"{path}: expected extents of at least 0, got {name!r} of shape {shape}; write it again")
    if math.prod(shape) > most:
        raise DataError(f"{path}: expected at most {most} weights, got {name!r} of shape {shape}; cut it into layers")


def kept(path: Path, name: str, array: Array) -> Mask:
    """Which elements are not zero.

    Raises:
        DataError: one is NaN or infinite, or they are no numbers.
    """
    check_numbers(path, name, array)
    if array.dtype == np.bool_:
        return array.astype(np.bool_)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{path}: expected finite weights, got NaN or infinity in {name!r}; repair it or give its mask")
    return np.asarray(array != 0)


def check_numbers(path: Path, name: str, array: Array) -> None:
    """Pass if an array holds numbers or booleans.

    Raises:
        DataError: it holds something else.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: expected numbers or booleans, got {name!r} of type {array.dtype}; convert it")


def is_binary(array: Array) -> bool:
    """Whether an array is zeros and ones alone, whatever its type."""
    if array.dtype == np.bool_:
        return True
    return array.dtype.kind in "iuf" and bool(((array == 0) | (array == 1)).all())


def tells_values(array: Array) -> bool:
    """Whether an array has the values of weights, and few enough to keep them beside the mask.

    Zeros and ones alone are a mask, and say nothing of the weights.
    """
    return array.size <= MOST_VALUES and bool(np.isfinite(array).all()) and not is_binary(array)
