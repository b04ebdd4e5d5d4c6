"""Where a tensor of the network lies in Keras, and the turn between the two orientations.

A Keras kernel is the transpose of ours; its gates i, f, c, o are our i, f, g, o; a convolution is (kh, kw, in, out).
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.api import Array, Conv2D, Embedding, Layer, Network, Tensor

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Place:
    """One tensor and its layer."""

    tensor: Tensor
    layer: Layer

    @property
    def part(self) -> str:
        """The tensor's name within its layer."""
        return self.tensor.name.removeprefix(f"{self.tensor.layer}.")

    def inward(self, array: Array) -> Array:
        """The array as Keras holds it.

        Shapes:
            (rows, cols) -> (cols, rows); a convolution's (out, in*kh*kw) -> (kh, kw, in, out); else as it is.
        """
        # Rows of a table are words, in Keras as in the harness.
        if self.tensor.cols is None or isinstance(self.layer, Embedding):
            return array
        if isinstance(self.layer, Conv2D):
            # Keras has (height, width, in, out), the harness (out, in * height * width).
            return array.reshape(self.layer.outputs, self.layer.inputs, *self.layer.kernel).transpose(2, 3, 1, 0)
        return array.T

    def outward(self, array: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """A copy of the array as the harness holds it; the inverse of `inward`."""
        if isinstance(self.layer, Conv2D) and self.tensor.cols is not None:
            array = array.transpose(3, 2, 0, 1).reshape(self.tensor.shape)
        elif self.tensor.cols is not None and not isinstance(self.layer, Embedding):
            array = array.T
        return np.array(array, order="C", copy=True)  # TensorFlow may lend out its own memory


def places(network: Network) -> dict[str, Place]:
    """The place of every tensor, by name, in network order."""
    return {tensor.name: Place(tensor, layer) for layer in network.layers for tensor in layer.tensors()}
