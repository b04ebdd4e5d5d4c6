"""The few array operations with which a model is computed in integers, whatever the framework."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensor = Any
"""A framework's array of float64; it takes +, -, * and / with its like and with numbers, and slices."""


class Operations(ABC):
    """Arrays of one framework on one device, float64 throughout.

    Integers below 2^53 are exact in float64, and so is every sum of them in any order: what these operations give is
    the same bit for bit wherever IEEE arithmetic is. Only `score` may differ in its last digits.
    """

    @abstractmethod
    def array(self, values: NDArray[Any]) -> Tensor:
        """A NumPy array on the device."""

    @abstractmethod
    def numpy(self, values: Tensor) -> NDArray[np.float64]:
        """An array of the device as NumPy's."""

    @abstractmethod
    def matrix(self, values: NDArray[Any], *, is_small: bool) -> Tensor:
        """A matrix on the device, as `product` takes it.

        Args:
            values: multiples of some power of two.
            is_small: whether float32 is exact for it: no sum of absolute products reaches 2^24 of their common unit.

        Shapes:
            (rows, cols).
        """

    @abstractmethod
    def product(self, vectors: Tensor, matrix: Tensor) -> Tensor:
        """Matrix-vector products, exactly, as float64.

        Shapes:
            vectors (items, cols), matrix (rows, cols) -> (items, rows).
        """

    @abstractmethod
    def floor(self, values: Tensor) -> Tensor:
        """The next integers below."""

    @abstractmethod
    def clip(self, values: Tensor, low: float, high: float) -> Tensor:
        """Values no smaller than `low` and no larger than `high`."""

    @abstractmethod
    def larger(self, one: Tensor, other: Tensor) -> Tensor:
        """The larger of two, element by element."""

    @abstractmethod
    def rows(self, table: Tensor, places: Tensor) -> Tensor:
        """Entries (or rows) of a table at integer places, whatever the shape of `places`."""

    @abstractmethod
    def reshape(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """The same values in another shape, last axis fastest."""

    @abstractmethod
    def transpose(self, values: Tensor, axes: Sequence[int]) -> Tensor:
        """The axes in another order."""

    @abstractmethod
    def join(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        """Arrays one behind the other along an axis."""

    @abstractmethod
    def largest(self, values: Tensor) -> float:
        """The largest absolute value; 0 of nothing."""

    @abstractmethod
    def differing(self, one: Tensor, other: Tensor) -> int:
        """Number of elements in which two arrays differ."""

    @abstractmethod
    def score(self, logits: Tensor, targets: NDArray[np.integer]) -> tuple[float, int]:
        """Cross-entropy summed over the items, in nats, and how many have their highest logit at the target.

        Shapes:
            logits (items, classes), targets (items,).
        """


class NumPyOperations(Operations):
    """The same in NumPy: what others must equal."""

    def array(self, values: NDArray[Any]) -> Tensor:
        """The values as float64."""
        return np.asarray(values, dtype=np.float64)

    def numpy(self, values: Tensor) -> NDArray[np.float64]:
        """The array itself."""
        return np.asarray(values, dtype=np.float64)

    def matrix(self, values: NDArray[Any], *, is_small: bool) -> Tensor:
        """In the narrower type where that is exact."""
        # In float32 sums of integers below 2^24 are exact, and twice as fast.
        return np.ascontiguousarray(values, dtype=np.float32 if is_small else np.float64)

    def product(self, vectors: Tensor, matrix: Tensor) -> Tensor:
        """By BLAS."""
        return (vectors.astype(matrix.dtype) @ matrix.T).astype(np.float64)

    def floor(self, values: Tensor) -> Tensor:
        """As `numpy.floor`."""
        return np.floor(values)

    def clip(self, values: Tensor, low: float, high: float) -> Tensor:
        """As `numpy.clip`."""
        return np.clip(values, low, high)

    def larger(self, one: Tensor, other: Tensor) -> Tensor:
        """As `numpy.maximum`."""
        return np.maximum(one, other)

    def rows(self, table: Tensor, places: Tensor) -> Tensor:
        """By fancy indexing."""
        return table[places.astype(np.intp)]

    def reshape(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """As `numpy.reshape`."""
        return values.reshape(tuple(shape))

    def transpose(self, values: Tensor, axes: Sequence[int]) -> Tensor:
        """As `numpy.transpose`."""
        return values.transpose(tuple(axes))

    def join(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        """As `numpy.concatenate`."""
        return np.concatenate(list(parts), axis=axis)

    def largest(self, values: Tensor) -> float:
        """As `numpy.abs` and `numpy.max`."""
        return float(np.abs(values).max(initial=0.0))

    def differing(self, one: Tensor, other: Tensor) -> int:
        """As `numpy.count_nonzero`."""
        return int(np.count_nonzero(one != other))

    def score(self, logits: Tensor, targets: NDArray[np.integer]) -> tuple[float, int]:
        """Shifted by the largest logit, so that no exponential overflows."""
        # A difference to the largest is never positive, so `exp` cannot overflow.
        top = logits.max(axis=1, keepdims=True)
        spread = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        nats = spread - logits[np.arange(len(targets)), targets]
        return float(nats.sum()), int((logits.argmax(axis=1) == targets).sum())
