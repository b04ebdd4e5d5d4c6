"""How much of what flows into the layers is not zero."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from harness.api import LSTM, Conv2D, Dense, Network

from .toolkit import frameworks

if TYPE_CHECKING:
    from tensorflow import Tensor
    from tf_keras import Model as KerasModel

Watched = tuple[LSTM | Dense | Conv2D, ...]


def watch(model: KerasModel, network: Network) -> tuple[KerasModel, Watched]:
    """The model without wrappers, giving in addition what its matrices are multiplied with.

    Returns:
        The model, which shares all layers, and the layers whose inputs its further outputs are, in order: an LSTM layer
        stands there twice, for its inputs and for its outputs; the inputs of a convolution have their padding.
    """
    values: list[Tensor] = []
    layers: list[LSTM | Dense | Conv2D] = []
    for layer in network.layers:
        if isinstance(layer, LSTM):
            built = model.get_layer(layer.name)
            # An LSTM multiplies twice: its inputs, and its own outputs of the step before.
            values += [built.input[0], built.output[0]]
            layers += [layer, layer]
        elif isinstance(layer, Dense | Conv2D):
            values.append(model.get_layer(layer.name).input)
            layers.append(layer)
    return frameworks().keras.Model(model.inputs, [*model.outputs, *values]), tuple(layers)


class Activity:
    """Counts, over the batches of an evaluation, the inputs of layers with matrices that are not exactly zero."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._live: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()

    def see(self, layers: Watched, flags: list[Tensor]) -> None:
        """Take note of a batch: for every watched layer, which values are not zero."""
        for layer, tensor in zip(layers, flags, strict=True):
            flag = np.asarray(memoryview(tensor))  # `tensor.numpy()` would be a copy
            size = flag.size
            if isinstance(layer, Conv2D) and layer.padding:  # whose zeros are no inputs, and are not live either
                batch, height, width, channels = flag.shape
                size = batch * (height - 2 * layer.padding) * (width - 2 * layer.padding) * channels
            self._live[layer.name] += int(np.count_nonzero(flag))
            self._sizes[layer.name] += size

    def density(self) -> dict[str, float]:
        """The fraction that is not zero, by layer name."""
        return {name: self._live[name] / size for name, size in self._sizes.items()}
