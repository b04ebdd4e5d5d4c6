"""Layers of a Keras model whose products another arithmetic computes: dense ones, convolutions, recurrent layers.

A layer is known where it is Keras' own; one whose `call` the user wrote computes what that says. Projections of
attention are `EinsumDense` layers. A batch norm that alone reads the sums of a dense layer or a convolution is a part
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.api import Cell, LayerArithmetic, Recurrence, Window

from . import keras_names, keras_norms
from .folding import Affine, Computed, Fold
from .keras_norms import Call

if TYPE_CHECKING:
    from tf_keras import Model as KerasModel

    from .keras_names import Held


@contextmanager
def computed_by(
    model: KerasModel, arithmetic: LayerArithmetic, folds: Mapping[str, str] | None = None
) -> Iterator[Computed]:
    """Let an arithmetic compute every layer that is known, until the context is left.

    Args:
        model: with its final weights and statistics.
        arithmetic: computes the layers.
        folds: layer -> the norm that is a part of it, as `norms_in_layers` finds them.

    Yields:
        What it has computed so far.
    """
    layers, done = {each.name: each.layer for each in keras_names.held(model)}, Computed()
    affine = {
        layer: found for layer, norm in (folds or {}).items() if (found := keras_norms.affine(layers[norm])) is not None
    }
    fold = Fold({layer: norm for layer, norm in (folds or {}).items() if layer in affine}, done)

    def by(each: Held) -> Call | None:
        layer = _Layer(each, arithmetic, done.layers, affine.get(each.name))
        call = _call_of(layer)
        if call is not None:
            return call if layer.affine is None else keras_norms.watched(layer.name, call, fold)
        return (
            keras_norms.passed_on(each, each.layer.call, fold) if affine and keras_norms.is_norm(each.layer) else None
        )

    with keras_norms.replaced(model, by), keras_norms.uses(fold) if affine else nullcontext():
        yield done


def norms_in_layers(model: KerasModel, run: Callable[[], None]) -> dict[str, str]:
    """Layer -> the batch norm that alone reads its sums.

    Args:
        model: called once, so that all of its variables are there.
        run: sends a batch through it in evaluation.
    """
    return keras_norms.seen(model, run, _channel_axis)


class _Layer:
    """A layer with what computes it."""

    def __init__(self, each: Held, arithmetic: LayerArithmetic, done: set[str], affine: Affine | None) -> None:
        self.name, self.inner, self.variables = each.name, each.layer, each.variables
        self.arithmetic, self.done, self.affine = arithmetic, done, affine

    def bias(self) -> NDArray[np.float32] | None:
        """One number per row; None where the layer has none."""
        bias = self.variables.get("bias")
        return None if bias is None else bias.numpy().reshape(-1)

    def with_norm(self, weights: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """A matrix and the layer's bias, with the norm that is a part of the layer."""
        return (weights, self.bias()) if self.affine is None else self.affine.folded(weights, self.bias())

    def linear(self, values: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
        """The product with a matrix, (rows, cols)."""
        self.done.add(self.name)
        return self.arithmetic.linear(self.name, values, *self.with_norm(weights))

    def activated(self, values: NDArray[np.float64]) -> Any:
        """What the layer does to its sums."""
        import tensorflow as tf

        found = tf.constant(values, dtype=tf.float32)
        activation = getattr(self.inner, "activation", None)
        return found if activation is None else activation(found)


def _call_of(layer: _Layer) -> Call | None:
    """What takes the place of a layer's call; None for one that is not known."""
    import tf_keras

    layers, inner = tf_keras.layers, layer.inner
    kind = type(inner)
    if isinstance(inner, layers.RNN):
        return _recurrent_call(layer)
    if isinstance(inner, layers.Dense) and kind.call is layers.Dense.call:
        return lambda inputs: layer.activated(layer.linear(inputs.numpy(), layer.variables["kernel"].numpy().T))
    if isinstance(inner, layers.EinsumDense) and kind.call is layers.EinsumDense.call:
        return _einsum_call(layer)
    # Transposed convolutions are subclasses whose `call` is another.
    if any(isinstance(inner, known) and kind.call is known.call for known in _convolutions()):
        return lambda inputs: _convolution(layer, inputs.numpy())
    return None


def _convolutions() -> tuple[Any, ...]:
    from tf_keras import layers

    plain = (layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv1D, layers.DepthwiseConv2D)
    return (*plain, layers.SeparableConv1D, layers.SeparableConv2D)


def _einsum_call(layer: _Layer) -> Call | None:
    """Where the last axes of the input meet the kernel, and the last of the output come from it: a linear layer."""
    given, _, rest = layer.inner.equation.replace("...", "").partition(",")
    kernel, _, result = rest.partition("->")
    met = "".join(axis for axis in kernel if axis in given and axis not in result)
    made = "".join(axis for axis in kernel if axis in result and axis not in given)
    is_linear = len(met) + len(made) == len(kernel) and met and made
    if not (is_linear and given.endswith(met) and result.endswith(made)):
        return None
    if given.removesuffix(met) != result.removesuffix(made):
        return None
    axes = [kernel.index(axis) for axis in made + met]

    def call(inputs: Any) -> Any:
        values, weights = inputs.numpy(), layer.variables["kernel"].numpy().transpose(axes)
        outputs, cols = weights.shape[: len(made)], int(np.prod(weights.shape[len(made) :]))
        before = values.shape[: values.ndim - len(met)]
        sums = layer.linear(values.reshape(*before, cols), weights.reshape(-1, cols))
        return layer.activated(sums.reshape(*before, *outputs))

    return call


def _channel_axis(inner: Any) -> int | None:
    """The channels' axis in the sums of a known layer; None where it gives no sums, or is none that is known."""
    import tf_keras

    layers, kind = tf_keras.layers, type(inner)
    # A function of the layer's own stands between its sums and what comes after.
    if getattr(inner, "activation", None) not in (None, tf_keras.activations.linear):
        return None
    if isinstance(inner, layers.Dense) and kind.call is layers.Dense.call:
        return -1
    if any(isinstance(inner, known) and kind.call is known.call for known in _convolutions()):
        return -1 if inner.data_format == "channels_last" else 1
    return None


# --- convolutions ---------------------------------------------------------------------------------------------------


def _convolution(layer: _Layer, values: NDArray[np.float32]) -> Any:
    """A plain, grouped or depthwise convolution; a separable one is a depthwise one and a pointwise one."""
    inner, is_last = layer.inner, layer.inner.data_format == "channels_last"
    images = np.moveaxis(values, -1, 1) if is_last else values
    layer.done.add(layer.name)
    if "depthwise_kernel" in layer.variables:
        depthwise = layer.variables["depthwise_kernel"].numpy()
        kernel = np.moveaxis(depthwise, (-2, -1), (0, 1))  # (in, multiplier, *taps)
        matrix = kernel.reshape(-1, int(np.prod(kernel.shape[2:])))
        is_whole = "pointwise_kernel" not in layer.variables
        window = _window(layer, images.shape[2:], kernel.shape[2:], groups=images.shape[1])
        name = layer.name if is_whole else f"{layer.name}.depthwise"
        # The norm of a separable layer belongs to its second product.
        weights, bias = layer.with_norm(matrix) if is_whole else (matrix, None)
        sums = layer.arithmetic.convolution(name, images, weights, bias, window)
        if not is_whole:
            pointwise = layer.variables["pointwise_kernel"].numpy()
            taps = tuple(1 for _ in pointwise.shape[:-2])
            by = Window(taps, taps, taps, tuple((0, 0) for _ in taps))
            weights, bias = layer.with_norm(pointwise.reshape(pointwise.shape[-2:]).T)
            sums = layer.arithmetic.convolution(f"{layer.name}.pointwise", sums, weights, bias, by)
    else:
        kernel = np.moveaxis(layer.variables["kernel"].numpy(), (-1, -2), (0, 1))  # (out, in, *taps)
        window = _window(layer, images.shape[2:], kernel.shape[2:], groups=inner.groups)
        matrix, bias = layer.with_norm(kernel.reshape(len(kernel), -1))
        sums = layer.arithmetic.convolution(layer.name, images, matrix, bias, window)
    return layer.activated(np.moveaxis(sums, 1, -1) if is_last else sums)


def _window(layer: _Layer, sizes: tuple[int, ...], taps: tuple[int, ...], groups: int) -> Window:
    """With TensorFlow's padding: of `same` the odd zero comes after."""
    inner = layer.inner
    # A one-dimensional depthwise layer keeps its sizes as those of images of one row.
    strides, dilations = (tuple(each)[-len(taps) :] for each in (inner.strides, inner.dilation_rate))
    padding = []
    for size, kernel, stride, apart in zip(sizes, taps, strides, dilations, strict=True):
        reach = (kernel - 1) * apart
        if inner.padding == "same":
            whole = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
            padding.append((whole // 2, whole - whole // 2))
        else:
            padding.append((reach, 0) if inner.padding == "causal" else (0, 0))
    return Window(tuple(taps), strides, dilations, tuple(padding), groups)


# --- recurrent layers -----------------------------------------------------------------------------------------------


def _recurrent_call(layer: _Layer) -> Call | None:
    """A recurrent layer of a known cell with its usual functions."""
    import tf_keras

    layers, inner = tf_keras.layers, layer.inner
    if type(inner).call not in (layers.RNN.call, layers.LSTM.call, layers.GRU.call, layers.SimpleRNN.call):
        return None
    make = _maker(inner.cell)
    if make is None or inner.time_major:
        return None

    def call(inputs: Any, mask: Any = None, training: Any = None, initial_state: Any = None, **_: Any) -> Any:
        return _recurrent(layer, make(layer), inputs, mask, initial_state)

    return call


def _maker(cell: Any) -> Callable[[_Layer], Cell] | None:
    """What reads the weights of a cell; None where its functions are others than the usual ones."""
    import tf_keras

    layers, functions = tf_keras.layers, tf_keras.activations
    is_usual = cell.activation is functions.tanh
    if type(cell).call is layers.SimpleRNNCell.call:
        is_positive = cell.activation is functions.relu
        return (lambda layer: _plain(layer, is_relu=is_positive)) if is_usual or is_positive else None
    if not is_usual or getattr(cell, "recurrent_activation", None) is not functions.sigmoid:
        return None
    if type(cell).call is layers.LSTMCell.call:
        return _lstm
    return _gru if type(cell).call is layers.GRUCell.call else None


def _matrices(layer: _Layer) -> tuple[NDArray[Any], NDArray[Any]]:
    return layer.variables["kernel"].numpy().T, layer.variables["recurrent_kernel"].numpy().T


def _bias(layer: _Layer, rows: int) -> NDArray[Any]:
    bias = layer.variables.get("bias")
    return np.zeros(rows) if bias is None else bias.numpy()


def _plain(layer: _Layer, *, is_relu: bool) -> Cell:
    kernel, recurrent = _matrices(layer)
    return Cell("rnn", kernel, recurrent, _bias(layer, len(kernel)), function="relu" if is_relu else "tanh")


def _lstm(layer: _Layer) -> Cell:
    kernel, recurrent = _matrices(layer)
    return Cell("lstm", kernel, recurrent, _bias(layer, len(kernel)))


def _gru(layer: _Layer) -> Cell:
    """Keras has the gates as z, r, h."""
    kernel, recurrent = _matrices(layer)
    units = len(kernel) // 3
    order = np.concatenate([np.arange(units, 2 * units), np.arange(units), np.arange(2 * units, 3 * units)])
    bias = _bias(layer, len(kernel))
    of_x, of_h = (bias, None) if bias.ndim == 1 else (bias[0], bias[1][order])
    return Cell(
        "gru", kernel[order], recurrent[order], of_x[order], of_h, resets_after=bool(layer.inner.cell.reset_after)
    )


def _recurrent(layer: _Layer, cell: Cell, inputs: Any, mask: Any, initial: Any) -> Any:
    import tensorflow as tf

    inner, values = layer.inner, inputs.numpy()
    live = None if mask is None else np.asarray(mask, dtype=bool)
    if inner.go_backwards:
        values, live = values[:, ::-1], None if live is None else live[:, ::-1]
    layer.done.add(layer.name)
    start = _start(inner, cell, initial, len(values))
    outputs, last = layer.arithmetic.recurrent(layer.name, values, cell, start, live)
    states = [tf.constant(each, dtype=tf.float32) for each in (last.h, last.c) if each is not None]
    if inner.stateful:
        for held, state in zip(tf.nest.flatten(inner.states), states, strict=True):
            held.assign(state)
    found = tf.constant(outputs if inner.return_sequences else outputs[:, -1], dtype=tf.float32)
    return (found, *states) if inner.return_state else found


def _start(inner: Any, cell: Cell, initial: Any, batch: int) -> Recurrence:
    """The state that is given or kept from the last batch, or zeros."""
    import tensorflow as tf

    states = initial if initial is not None else inner.states if inner.stateful else None
    if states is not None and any(each is not None for each in tf.nest.flatten(states)):
        h, *rest = (each.numpy() for each in tf.nest.flatten(states))
        return Recurrence(h, rest[0] if rest else None)
    zero = np.zeros((batch, cell.recurrent.shape[1]))
    return Recurrence(zero, zero if cell.kind == "lstm" else None)
