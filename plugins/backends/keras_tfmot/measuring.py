"""What scores need of a model as it stands: its inputs, the Hessian's product with the gradient, synaptic flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.api import Conv2D
from harness.api.inputs import InputSums

from .activity import Watched
from .toolkit import frameworks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tensorflow import Tensor, Variable
    from tf_keras import Model as KerasModel

    Loss = Callable[[Tensor, Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]]
    Batches = Sequence[tuple[NDArray[np.generic], NDArray[np.generic]]]


def input_sums(
    forward: Callable[[NDArray[np.generic], list[Tensor]], tuple[list[Tensor], list[Tensor]]],
    watched: Watched,
    batches: Iterable[NDArray[np.generic]],
    states: Callable[[NDArray[np.generic]], list[Tensor]],
    *,
    moments: bool,
) -> Mapping[str, NDArray[np.floating]]:
    """Norms or second moments of the inputs of every matrix over some batches.

    Args:
        forward: (inputs, states) -> (values that flow into the watched layers, states after).
        watched: those layers, in the order of the values.
        batches: the inputs of every batch.
        states: recurrent state, zero, for a first batch.
        moments: whether second moments are summed, or norms.
    """
    sums, carried = InputSums(moments=moments), None
    for inputs in batches:
        values, carried = forward(inputs, states(inputs) if carried is None else carried)
        for layer, value in zip(watched, values, strict=True):
            array = value.numpy()
            # Images are channels-last inside, and padded already.
            sums.see(layer, array.transpose(0, 3, 1, 2) if isinstance(layer, Conv2D) else array)
    return sums.found()


def hessian_gradients(
    loss: Loss, weights: dict[str, Variable], batches: Batches, zero: list[Tensor]
) -> dict[str, Tensor]:
    """H g, g the mean gradient of the loss and H its mean Hessian over the batches.

    Args:
        loss: (inputs, targets, states) -> (the loss per item, states after).
        weights: the matrices, by tensor name.
        batches: inputs and targets of every batch.
        zero: recurrent state that the first batch begins with.
    """
    # Two passes: the mean gradient has to be known before its product with each batch's Hessian is summed.
    tf, held = frameworks().tf, list(weights.values())
    mean, states = [tf.zeros_like(weight) for weight in held], zero
    for inputs, targets in batches:
        with tf.GradientTape() as tape:
            value, states = loss(inputs, targets, states)
        found = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(value, held)]
        mean = [total + gradient / len(batches) for total, gradient in zip(mean, found, strict=True)]
    product, states = [tf.zeros_like(weight) for weight in held], zero
    for inputs, targets in batches:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as tape:
                value, states = loss(inputs, targets, states)
            found = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(value, held)]
            # The derivative of g . v by the weights is H v as long as v is held fixed.
            inner = tf.add_n([tf.reduce_sum(g * fixed) for g, fixed in zip(found, mean, strict=True)])
        second = outer.gradient(inner, held, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        product = [p + tf.convert_to_tensor(s) / len(batches) for p, s in zip(product, second, strict=True)]
    return dict(zip(weights, product, strict=True))


def synaptic_flow(
    model: KerasModel, variables: dict[str, Variable], matrices: list[str], shape: tuple[int, ...]
) -> dict[str, Tensor]:
    """dR/d|w|, R the summed outputs of the network with weights |w| on one input of ones."""
    tf = frameworks().tf
    before = {name: variable.numpy() for name, variable in variables.items()}
    try:
        for variable in variables.values():
            variable.assign(tf.abs(variable))
        with tf.GradientTape() as tape:
            outputs = model(tf.ones((1, *shape)), training=False)
            flow = tf.reduce_sum(outputs[0] if isinstance(outputs, list) else outputs)
        found = tape.gradient(flow, [variables[name] for name in matrices])
    # Also where a batch raises: a session that goes on with absolute weights would train another model.
    finally:
        for name, variable in variables.items():
            variable.assign(before[name])
    return dict(zip(matrices, found, strict=True))
