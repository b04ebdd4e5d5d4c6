"""The array operations of an evaluation in fixed point, in TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import Operations

from .toolkit import frameworks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from tensorflow import Tensor


class TensorFlowOperations(Operations):
    """Arrays of float64 where TensorFlow puts them."""

    def __init__(self) -> None:
        """Take the framework as the session has set it up."""
        self._tf = frameworks().tf

    def array(self, values: NDArray[Any]) -> Tensor:
        """A constant."""
        return self._tf.constant(np.asarray(values, dtype=np.float64))

    def numpy(self, values: Tensor) -> NDArray[np.float64]:
        """A copy on the host."""
        return np.array(values.numpy(), dtype=np.float64)

    def matrix(self, values: NDArray[Any], *, is_small: bool) -> Tensor:
        """In the narrower type where that is exact; transposed, as the product reads it."""
        kind = np.float32 if is_small else np.float64
        return self._tf.constant(np.ascontiguousarray(np.asarray(values).T, dtype=kind))

    def product(self, vectors: Tensor, matrix: Tensor) -> Tensor:
        """By TensorFlow's product; no sum is rounded, so that no order of adding matters."""
        return self._tf.cast(self._tf.cast(vectors, matrix.dtype) @ matrix, self._tf.float64)

    def floor(self, values: Tensor) -> Tensor:
        """As `tf.floor`."""
        return self._tf.floor(values)

    def clip(self, values: Tensor, low: float, high: float) -> Tensor:
        """As `tf.clip_by_value`."""
        return self._tf.clip_by_value(values, low, high)

    def larger(self, one: Tensor, other: Tensor) -> Tensor:
        """As `tf.maximum`."""
        return self._tf.maximum(one, other)

    def rows(self, table: Tensor, places: Tensor) -> Tensor:
        """As `tf.gather`."""
        return self._tf.gather(table, self._tf.cast(places, self._tf.int32))

    def reshape(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """As `tf.reshape`."""
        return self._tf.reshape(values, tuple(shape))

    def transpose(self, values: Tensor, axes: Sequence[int]) -> Tensor:
        """As `tf.transpose`."""
        return self._tf.transpose(values, tuple(axes))

    def join(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        """As `tf.concat`."""
        return self._tf.concat(list(parts), axis)

    def largest(self, values: Tensor) -> float:
        """As `tf.reduce_max` of the absolute values."""
        # TensorFlow's maximum of nothing is -inf.
        return float(self._tf.reduce_max(self._tf.abs(values))) if values.shape.num_elements() else 0.0

    def differing(self, one: Tensor, other: Tensor) -> int:
        """As `tf.math.count_nonzero`."""
        return int(self._tf.math.count_nonzero(one != other))

    def score(self, logits: Tensor, targets: NDArray[np.integer]) -> tuple[float, int]:
        """By TensorFlow's cross-entropy in float64."""
        tf = self._tf
        wanted = tf.constant(np.asarray(targets, dtype=np.int32))
        nats = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(wanted, logits))
        hits = tf.math.count_nonzero(tf.argmax(logits, axis=-1, output_type=tf.int32) == wanted)
        return float(nats), int(hits)
