"""What a Keras model holds: its matrices with roles and axes, and how often each runs for an item.

A Keras kernel is the transpose of the harness's; a convolution is (*kernel, in, out); a GRU has its gates as z, r, h,
the harness as r, z, n; an `EinsumDense`, which attention is made of, has whatever axes its equation says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import Axis, Convolution, ListedTensor, NativeModel, Place, Role, SpecError, Tensor

from .keras_names import Held, held, is_custom_cell, trainable, variables
from .steps import Steps, for_one

if TYPE_CHECKING:
    from tensorflow import Variable
    from tf_keras import Model as KerasModel
    from tf_keras.layers import Layer as KerasLayer


@dataclass(frozen=True)
class _Matrix:
    """How a variable is a matrix: the axes of outputs and of inputs, and what the axes count.

    Args:
        outputs, inputs: axes of the variable.
        role: in the model.
        rows, cols: what the axes are called, and how often every unit stands in them.
    """

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    role: Role
    rows: tuple[str, int] = ("units", 1)
    cols: tuple[str, int] = ("inputs", 1)
    blocks: tuple[int, ...] = ()


def read(
    model: KerasModel,
    outputs: set[int],
    positions: dict[int, int],
    convolutions: dict[int, Convolution],
    steps: dict[int, int | None],
    wrapped: tuple[str, ...],
    prunable: Sequence[str],
    same: Mapping[str, str],
) -> NativeModel:
    """Every trainable tensor of a model, shared ones once.

    Args:
        model: called once, so that all of its variables are there.
        outputs: ids of the layers whose result is the model's own.
        positions: as a call showed, by id of the layer.
        convolutions: their geometry, likewise.
        steps: of the recurrent layers, likewise.
        wrapped: names of the layers that TF-MOT can wrap.
        prunable: further two-dimensional variables that may be pruned, (inputs, outputs).
        same: labels of axes that are to be other ones.

    Raises:
        SpecError: `prunable` or `same` names what is not there.
    """
    names = variables(model)
    _check(prunable, names)
    trained, layers = trainable(model), held(model)
    tensors, places, listed = [], [], []
    for each in layers:
        for part, variable in each.variables.items():
            name = each.full(part)
            if name not in trained:
                if name in names and variable.trainable:
                    listed.append(_row(each, name, variable, None, "frozen"))
                continue
            matrix = matrix_of(each, part, variable, is_output=id(each.layer) in outputs)
            if matrix is None and name in prunable:
                # What the user calls a matrix is taken for one, in the order of a dense kernel.
                matrix = _Matrix((1,), (0,), "dense")
            tensors.append(_tensor(each, name, variable, matrix))
            places.append(_place(name, variable, matrix))
            listed.append(_row(each, name, variable, matrix, "" if matrix else _why_left_out(part, variable)))
    labels = {axis.label for tensor in tensors for axis in (tensor.rows, tensor.cols) if axis is not None}
    unknown = sorted(set(same) - labels)
    if unknown:
        raise SpecError(f"own: `same_units` must name axes of the model, got {unknown[0]!r}; there is {sorted(labels)}")
    return NativeModel(
        framework="keras",
        trained=tuple(_relabelled(tensor, same) for tensor in tensors),
        places=tuple(places),
        positions={each.name: positions[id(each.layer)] for each in layers if id(each.layer) in positions},
        wrapped=wrapped,
        traced={each.name: convolutions[id(each.layer)] for each in layers if id(each.layer) in convolutions},
        listed=tuple(listed),
        steps={each.name: steps[id(each.layer)] for each in layers if id(each.layer) in steps},
    )


def _check(prunable: Sequence[str], names: Mapping[str, Variable]) -> None:
    for name in prunable:
        if name not in names or len(names[name].shape) != 2:
            matrices = ", ".join(each for each, v in names.items() if len(v.shape) == 2) or "none"
            raise SpecError(f"own: `prunable` must name two-dimensional parameters, got {name!r}; there is {matrices}")


def matrix_of(each: Held, part: str, variable: Variable, *, is_output: bool) -> _Matrix | None:
    """How a variable of a known layer is a matrix; None for one that is none."""
    import tf_keras

    layers, layer = tf_keras.layers, each.layer
    found: _Matrix | None = None
    if isinstance(layer, layers.Dense) and part == "kernel":
        found = _Matrix((1,), (0,), "softmax" if is_output else "dense")
    elif isinstance(layer, layers.EinsumDense) and part == "kernel":
        found = _einsum(each, is_output)
    elif isinstance(layer, layers.Embedding) and part == "embeddings":
        found = _Matrix((0,), (1,), "embedding", ("words", 1), ("features", 1))
    elif isinstance(layer, layers.RNN) and not is_custom_cell(layer):
        found = _recurrent(layer, part)
    elif _is_convolution(layer):
        found = _convolution(part, tuple(variable.shape))
    return found


def _convolution(part: str, shape: tuple[int, ...]) -> _Matrix | None:
    """Of (*kernel, in, out); of a depthwise kernel (*kernel, in, multiplier) every channel has its own few outputs."""
    taps, last = tuple(range(len(shape) - 2)), len(shape) - 1
    if part == "depthwise_kernel":
        return _Matrix((last - 1, last), taps, "conv", ("channels", 1))
    if part in ("kernel", "pointwise_kernel"):
        # Columns are (channel, tap), as the harness counts them: so many in a row are of one input.
        repeat = prod(shape[: len(taps)])
        return _Matrix((last,), (last - 1, *taps), "conv", ("channels", 1), ("inputs", repeat))
    return None


def _is_convolution(layer: KerasLayer) -> bool:
    """A transposed one is none: its inputs are not what its columns would be."""
    import tf_keras

    layers = tf_keras.layers
    known = (
        layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.SeparableConv1D, layers.SeparableConv2D,
        layers.DepthwiseConv1D, layers.DepthwiseConv2D,
    )  # fmt: skip
    transposed = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
    return isinstance(layer, known) and not isinstance(layer, transposed)


def _recurrent(layer: KerasLayer, part: str) -> _Matrix | None:
    import tf_keras

    if part not in ("kernel", "recurrent_kernel"):
        return None
    role: Role = "dense"
    gates = 1
    blocks: tuple[int, ...] = ()
    if isinstance(layer.cell, tf_keras.layers.LSTMCell):
        role, gates = "lstm", 4  # i, f, c, o are the harness's i, f, g, o
    elif isinstance(layer.cell, tf_keras.layers.GRUCell):
        # Keras orders the GRU's gates z, r, h.
        role, gates, blocks = "gru", 3, (1, 0, 2)  # z, r, h; the harness has r, z, n
    cols = ("units", 1) if part == "recurrent_kernel" else ("inputs", 1)
    return _Matrix((1,), (0,), role, ("units", gates), cols, blocks)


def _einsum(each: Held, is_output: bool) -> _Matrix | None:
    """Axes of an `EinsumDense` that meet the input are inputs, those that the output has are outputs."""
    import tf_keras

    left, _, result = each.layer.equation.replace("...", "").partition("->")
    given, _, kernel = left.partition(",")
    # An axis of the kernel that input and output both have is neither: it runs along.
    inputs = tuple(place for place, axis in enumerate(kernel) if axis in given and axis not in result)
    outputs = tuple(place for place, axis in enumerate(kernel) if axis in result and axis not in given)
    if len(inputs) + len(outputs) != len(kernel) or not inputs or not outputs:
        return None  # an axis that runs along: a matrix for each of its places
    attention = any(isinstance(around, tf_keras.layers.MultiHeadAttention) for around in each.inside)
    role: Role = "attention" if attention else "softmax" if is_output else "dense"
    return _Matrix(outputs, inputs, role)


def _tensor(each: Held, name: str, variable: Variable, matrix: _Matrix | None) -> Tensor:
    shape = tuple(variable.shape)
    if matrix is None:
        rows = Axis(label=f"{name}.values", size=max(1, prod(shape)))
        return Tensor(name=name, layer=each.name, role="bias", rows=rows)
    label, gates = matrix.rows
    size = prod(shape[axis] for axis in matrix.outputs)
    rows = Axis(label=f"{each.name}.{label}", size=size, repeat=gates, order="blocks" if gates > 1 else "adjacent")
    what, repeat = matrix.cols
    cols = Axis(label=f"{each.name}.{what}", size=prod(shape[axis] for axis in matrix.inputs), repeat=repeat)
    return Tensor(name=name, layer=each.name, role=matrix.role, rows=rows, cols=cols)


def _place(name: str, variable: Variable, matrix: _Matrix | None) -> Place:
    shape = tuple(variable.shape)
    axes = (*matrix.outputs, *matrix.inputs) if matrix is not None else ()
    if axes == tuple(range(len(shape))):
        axes = ()  # as the harness has it
    blocks = matrix.blocks if matrix is not None else ()
    return Place(tensor=name, parameter=name, layout=shape, axes=axes, blocks=blocks)


_GATES = {"lstm": "i f g o", "gru": "r z n"}


def _row(each: Held, name: str, variable: Variable, matrix: _Matrix | None, why: str) -> ListedTensor:
    groups = getattr(each.layer, "groups", 1)
    special = f", {groups} groups" if isinstance(groups, int) and groups > 1 else ""
    return ListedTensor(
        tensor=name,
        kind=type(each.layer).__name__ + special,
        shape=tuple(variable.shape),
        gates=_GATES.get(matrix.role, "") if matrix is not None else "",
        left_out=why,
    )


def _why_left_out(part: str, variable: Variable) -> str:
    rank = len(variable.shape)
    if "bias" in part or rank < 2:
        return "a bias or a vector"
    if rank == 2:
        return "of no layer that is known; name it in `prunable` if it is a matrix"
    return "neither a matrix nor of a layer that is known"


def _relabelled(tensor: Tensor, same: Mapping[str, str]) -> Tensor:
    def axis(given: Axis | None) -> Axis | None:
        return given and given.model_copy(update={"label": same.get(given.label, given.label)})

    return tensor.model_copy(update={"rows": axis(tensor.rows), "cols": axis(tensor.cols)})


# --- a call that is watched -----------------------------------------------------------------------------------------


class Watch:
    """Calls a function after every call of a layer, with the layer, its inputs and its result, until it is closed.

    Args:
        layers: which.
        see: what is called.
    """

    def __init__(self, layers: Sequence[KerasLayer], see: Callable[[KerasLayer, tuple[Any, ...], Any], None]) -> None:
        self._layers = list(layers)
        for layer in self._layers:
            # On the instance, beside Keras' tracking of attributes, and taken off again.
            object.__setattr__(layer, "call", self._watched(layer, layer.call, see))

    def close(self) -> None:
        """Let the layers be as they were."""
        for layer in self._layers:
            object.__delattr__(layer, "call")

    @staticmethod
    def _watched(layer: KerasLayer, inner: Any, see: Callable[[KerasLayer, tuple[Any, ...], Any], None]) -> Any:
        import tensorflow as tf

        @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]  # TensorFlow has no types
        def call(*inputs: Any, **named: Any) -> Any:
            result = converted(inner)(*inputs, **named)
            see(layer, inputs, result)
            return result

        return call


# Autograph turns loops and branches over tensors into those of a graph, and reads source files for it, at any trace.
# The steps of the harness need none of it, and an edit of its files under a running job must not reach into that job.


@contextmanager
def autograph() -> Iterator[None]:
    """What Keras calls inside may be converted: each `call` that a user wrote."""
    import tensorflow as tf
    from tensorflow.python.autograph.core import ag_ctx

    if tf.executing_eagerly():
        yield
        return
    with ag_ctx.ControlStatusCtx(ag_ctx.Status.ENABLED):
        yield


def converted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the user's as a graph takes it; eagerly, as it is."""
    import tensorflow as tf

    if tf.executing_eagerly():
        return function
    with autograph():
        context = tf.__internal__.autograph.control_status_ctx()
    return tf.__internal__.autograph.tf_convert(function, context)  # type: ignore[no-any-return]  # no types


def _geometry(layer: KerasLayer, part: str, taken: Sequence[int], given: Sequence[int]) -> Convolution | None:
    """The geometry of a convolution over lines or images; None in three directions, and of two products in one."""
    if not 3 <= len(given) <= 4 or hasattr(layer, "pointwise_kernel"):
        return None
    first = layer.data_format == "channels_first"
    count = len(given) - 2

    def both(sizes: Sequence[int]) -> tuple[int, int]:
        """Height and width; a line is one row."""
        found = [int(size) for size in sizes]
        return (found[0], found[1]) if count == 2 else (1, found[0])

    def extents(shape: Sequence[int]) -> tuple[int, int]:
        return both(shape[2:] if first else shape[1:-1])

    channels = int(taken[1] if first else taken[-1])
    down, across = both(layer.strides)
    return Convolution(
        inputs=channels,
        kernel=both(layer.kernel_size),
        stride=across,
        output=extents(given),
        image=extents(taken),
        groups=channels if part == "depthwise_kernel" else layer.groups,
        dilation=both(layer.dilation_rate),
        stride_down=None if count == 1 or down == across else down,
    )


class Trace:
    """How often each layer's product runs, and which layer gives the model's result."""

    def __init__(self, model: KerasModel) -> None:
        self._positions: dict[int, int] = {}
        self._sizes: dict[int, set[Convolution | None]] = {}
        self._last: dict[int, Any] = {}
        self._steps = Steps()
        self._parts = {id(each.layer): each for each in held(model)}
        self._watch = Watch([each.layer for each in self._parts.values()], self._see)

    def close(self) -> None:
        """Let the layers be as they were."""
        self._watch.close()

    def per_item(self, items: int) -> dict[int, int]:
        """Products for one item, by id of the layer."""
        return {layer: for_one(count, items) for layer, count in self._positions.items()}

    @property
    def convolutions(self) -> dict[int, Convolution]:
        """Geometry of every convolution that ran at one size, in one or two directions, by id of the layer."""
        return {layer: found for layer, sizes in self._sizes.items() for found in sizes if found and len(sizes) == 1}

    def outputs(self, result: object) -> set[int]:
        """Ids of the layers whose result the model gives as its own, a softmax aside."""
        import tensorflow as tf

        # A softmax as the last layer is looked through: Keras notes what went into it.
        results = [
            each for given in tf.nest.flatten(result) for each in (given, getattr(given, "_keras_logits", given))
        ]
        return {layer for layer, given in self._last.items() if any(given is each for each in results)}

    def steps(self, items: int) -> dict[int, int | None]:
        """Steps of recurrent layers for one item, by id of the layer; None where items differ in them."""
        return {int(layer): count for layer, count in self._steps.per_item(items).items()}

    def _see(self, layer: KerasLayer, inputs: tuple[Any, ...], result: Any) -> None:
        each = self._parts[id(layer)]
        if (lengths := _lengths(layer, inputs)) is not None:
            self._steps.add(str(id(layer)), lengths)
        for part, variable in each.variables.items():
            matrix = matrix_of(each, part, variable, is_output=False)
            if matrix is None or matrix.role in ("lstm", "gru", "embedding") or not hasattr(result, "shape"):
                continue
            outputs = prod(variable.shape[axis] for axis in matrix.outputs)
            values = int(np.prod(result.shape))
            if part == "depthwise_kernel" and "pointwise_kernel" in each.variables:
                # Of a separable convolution only the result of its second product is seen; both run as often.
                values = values // int(each.variables["pointwise_kernel"].shape[-1]) * outputs
            # Results have so many values per position: what remains is how often the product ran.
            self._positions[id(layer)] = self._positions.get(id(layer), 0) + values // outputs
            if matrix.role == "conv" and inputs and hasattr(inputs[0], "shape"):
                self._sizes.setdefault(id(layer), set()).add(_geometry(layer, part, inputs[0].shape, result.shape))
            if matrix.role in ("dense", "softmax"):
                self._last[id(layer)] = result
            # One variable tells how often a layer ran; others would count it again.
            break


def _lengths(layer: KerasLayer, inputs: tuple[Any, ...]) -> list[int] | None:
    """Steps of every item of a batch that a recurrent layer takes, masked ones left out; None of other layers."""
    import tf_keras

    if not isinstance(layer, tf_keras.layers.RNN) or is_custom_cell(layer) or not inputs:
        return None
    (values, *_) = inputs[0] if isinstance(inputs[0], list | tuple) else inputs
    mask = getattr(values, "_keras_mask", None)
    batch, steps = (1, 0) if layer.time_major else (0, 1)
    if mask is not None:
        return [int(each) for each in np.asarray(mask).sum(axis=steps)]
    return [int(values.shape[steps])] * int(values.shape[batch])
