"""Where the tensors of a user's own model lie in Keras, and the turn between the two orientations."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.api import Array, NativeModel, Place, Tensor

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class OwnPlace:
    """One tensor and where it lies."""

    tensor: Tensor
    place: Place

    def inward(self, array: Array) -> Array:
        """The array as Keras holds it."""
        return self.place.inward(array)

    def outward(self, array: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """A copy of the array as the harness holds it; the inverse of `inward`."""
        return self.place.outward(array, self.tensor.shape)


def own_places(network: NativeModel) -> dict[str, OwnPlace]:
    """The place of every tensor, by name, in network order."""
    return {tensor.name: OwnPlace(tensor, place) for tensor, place in zip(network.trained, network.places, strict=True)}
