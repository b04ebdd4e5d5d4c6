"""What scores need of the inputs of a user's own Keras model: of dense layers, attention and plain convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.api import theirs
from harness.api.inputs import InputSums, patches

from .toolkit import frameworks

if TYPE_CHECKING:
    from tf_keras.layers import Layer as KerasLayer

    from .own import OwnSession


def input_sums(session: OwnSession, batches: Sequence[tuple[Any, Any]], *, moments: bool) -> Mapping[str, NDArray[Any]]:
    """Norms or second moments of what matrices are multiplied with; other layers have none.

    Args:
        session: with the model.
        batches: inputs and targets.
        moments: whether second moments are summed, or norms.
    """
    sums, own, model = InputSums(moments=moments), session._own, session.finished
    matrices = {p.tensor.layer: p.tensor for p in session._places.values() if p.tensor.role in _ROLES}
    layers = {name: layer for name, layer in own.way.named_layers(model).items() if name in matrices}

    def see(name: str, given: Any, result: Any) -> None:
        # Inside a graph there is no value to take; evaluations here are eager.
        if name not in layers or not hasattr(given, "numpy"):
            return
        tensor = matrices[name]
        assert tensor.cols is not None
        rows = _rows(layers[name], given.numpy(), tensor.cols.size)
        if rows is not None:
            sums.add(tensor.name, rows)

    watch = own.way.watched(model, see)
    try:
        for inputs, _ in batches:
            with theirs(own.folder, "the forward pass"):
                own.forward(model, inputs, training=False)
    finally:
        watch.close()
    return sums.found()


_ROLES = ("dense", "softmax", "attention", "conv")


def _rows(layer: KerasLayer, values: NDArray[Any], cols: int) -> NDArray[Any] | None:
    """A row of inputs per position; None where a layer has none of this kind.

    Shapes:
        values as the layer got them -> (positions, cols).
    """
    layers = frameworks().keras.layers
    if isinstance(layer, layers.Dense):
        return values.reshape(-1, cols)
    if isinstance(layer, layers.EinsumDense):
        # Its inputs are the last axes of what it gets, as in all of attention; otherwise there is no such row.
        given, _, kernel = layer.equation.replace("...", "").partition("->")[0].partition(",")
        met = "".join(axis for axis in kernel if axis in given)
        return values.reshape(-1, cols) if given.endswith(met) else None
    # Subclasses of Conv2D may compute anything else.
    if type(layer) is not layers.Conv2D or layer.groups != 1 or set(layer.dilation_rate) != {1}:
        return None
    if layer.data_format != "channels_last" or len(set(layer.strides)) != 1:
        return None
    images = values.transpose(0, 3, 1, 2)
    if layer.padding == "same":
        images = np.pad(images, [(0, 0), (0, 0), *_around(layer, images.shape[2:])])
    return patches(images, tuple(layer.kernel_size), layer.strides[0])


def _around(layer: KerasLayer, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Zeros before and after, as TensorFlow lays them: the odd one after."""
    found = []
    for size, kernel, stride in zip(sizes, layer.kernel_size, layer.strides, strict=True):
        # "Same" padding is as much as makes the output the ceiling of size / stride.
        whole = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        found.append((whole // 2, whole - whole // 2))
    return found
