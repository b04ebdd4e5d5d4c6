"""What users hand over as numbers, as arrays that the frameworks take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.api import DataError


def as_array(value: Any, *, texts: bool = False) -> NDArray[Any]:
    """An array in this machine's byte order and with strides that frameworks read.

    Args:
        value: an array, a table, nested lists, a number.
        texts: whether the framework takes strings.

    Raises:
        DataError: it holds no numbers, or rows of several lengths.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"own: data must be arrays, got rows of several lengths ({error}); pad them") from error
    if array.dtype.kind not in ("biufcSU" if texts else "biufc"):
        raise DataError(
            f"own: data must be numbers, got {array.dtype} of shape {array.shape}; encode them, such as words by their "
            "places in a list"
        )
    # Files of other machines, such as MNIST's, are big-endian; frameworks read the order of this one alone.
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # A flipped array is a view that is read backwards.
    return np.ascontiguousarray(array) if any(stride < 0 for stride in array.strides) else array


def several(value: Any, items: int | None, *, batched: bool) -> Any:
    """Lists of arrays as tuples, at any depth: of a model with several inputs or outputs, each holds all items.

    Args:
        value: what stands for inputs, or for targets.
        items: how many there are; None where nothing tells it.
        batched: whether it is a batch that others have put together; otherwise a list of as many arrays as there are
            items is one of items, and stays one.
    """
    if isinstance(value, Mapping):
        return {name: several(inner, items, batched=batched) for name, inner in value.items()}
    if type(value) is tuple:
        return tuple(several(inner, items, batched=batched) for inner in value)
    if isinstance(value, list) and value and all(getattr(each, "ndim", 0) for each in value):
        lengths = {len(each) for each in value}
        if lengths == {len(value[0]) if items is None else items} and (batched or len(value) != items):
            return tuple(value)
    return value


def items_of(*parts: Any) -> int | None:
    """How many items there are, as the first array says that is no part of a list."""
    for part in parts:
        inner = tuple(part.values()) if isinstance(part, Mapping) else part
        found = items_of(*inner) if type(inner) is tuple else len(inner) if getattr(inner, "ndim", 0) else None
        if found is not None:
            return found
    return None
