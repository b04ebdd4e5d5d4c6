"""Batch norms of a Keras model that are parts of the layers before them: seen by its operations, and left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.api import SpecError

from . import keras_names
from .folding import Affine, Fold, Look, Results

if TYPE_CHECKING:
    from tf_keras import Model as KerasModel

    from .keras_names import Held

Call = Callable[..., Any]
"""A call in the place of a layer's."""


def seen(model: KerasModel, run: Callable[[], None], channel_axis: Callable[[Any], int | None]) -> dict[str, str]:
    """Layer -> the batch norm that alone reads its sums.

    Args:
        model: called once, so that all of its variables are there.
        run: sends a batch through it in evaluation.
        channel_axis: of the sums that a layer gives; None where a norm cannot be a part of it.
    """
    if not any(is_norm(each.layer) for each in keras_names.held(model)):
        return {}
    look = Look()

    def layer(each: Held, call: Call) -> Call:
        def watched(*inputs: Any, **named: Any) -> Any:
            result = call(*inputs, **named)
            look.gave(each.name, result)
            return result

        return watched

    def norm(each: Held, call: Call, channels: dict[str, int]) -> Call:
        def watched(values: Any, training: Any = None, **named: Any) -> Any:
            layer, axes = look.layer_of(values), list(each.layer.axis)
            # One that takes the statistics of its batch, as in training, is no constant scale.
            is_constant = not _trains(each.layer, training) and affine(each.layer) is not None
            if not (is_constant and layer is not None and axes == [channels[layer] % len(values.shape)]):
                look.used(values, each.name)
            look.normed(each.name, values)
            with look.passing(values):
                return call(values, training=training, **named)

        return watched

    channels: dict[str, int] = {}

    def by(each: Held) -> Call | None:
        axis = channel_axis(each.layer)
        if axis is not None:
            channels[each.name] = axis
            return layer(each, each.layer.call)
        return norm(each, each.layer.call, channels) if is_norm(each.layer) else None

    try:
        with replaced(model, by), uses(look):
            run()
    except ImportError:  # a TensorFlow whose operations cannot be seen: norms stay in float32 then
        return {}
    return look.folds()


@contextmanager
def replaced(model: KerasModel, by: Callable[[Held], Call | None]) -> Iterator[None]:
    """Layers with another call, eagerly, until the context is left."""
    import tensorflow as tf

    changed = []
    for each in keras_names.held(model):
        # One that has a call of its own on the instance is somebody else's.
        call = by(each) if "call" not in vars(each.layer) else None
        if call is not None:
            object.__setattr__(each.layer, "call", tf.autograph.experimental.do_not_convert(call))
            changed.append(each.layer)
    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)  # TensorFlow's own signature
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(eagerly)
        for layer in changed:
            object.__delattr__(layer, "call")


def is_norm(inner: Any) -> bool:
    """Whether a layer is a batch norm of Keras with its own call."""
    import tf_keras

    known = tf_keras.layers.BatchNormalization
    return isinstance(inner, known) and type(inner).call is known.call


def affine(inner: Any) -> Affine | None:
    """What a batch norm does in evaluation; None for the variants that do something else."""
    if inner.renorm or inner.virtual_batch_size is not None or getattr(inner, "adjustment", None) is not None:
        return None
    gamma, beta = (None if each is None else each.numpy() for each in (inner.gamma, inner.beta))
    return Affine.of(gamma, beta, inner.moving_mean.numpy(), inner.moving_variance.numpy(), inner.epsilon)


def _trains(inner: Any, training: Any) -> bool:
    """Whether a norm takes the statistics of its batch; a frozen one never does."""
    return bool(inner.trainable and training is not None and training)


def watched(layer: str, call: Call, fold: Fold) -> Call:
    """A layer whose results are watched."""

    def call_and_tell(*inputs: Any, **named: Any) -> Any:
        result = call(*inputs, **named)
        fold.gave(layer, result)
        return result

    return call_and_tell


def passed_on(each: Held, call: Call, fold: Fold) -> Call:
    """A norm whose values have it in them already, or which computes them as ever."""
    import tensorflow as tf

    def passed(values: Any, training: Any = None, **named: Any) -> Any:
        with _one_sentence():
            is_done = not _trains(each.layer, training) and fold.takes(each.name, values)
        if is_done:
            # Another object: who reads the layer's own result is still told.
            with fold.passing(values):
                return tf.identity(values)
        return call(values, training=training, **named)

    return passed


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Keep Keras from writing the arguments of a call around what the harness says."""
    try:
        yield
    except SpecError as error:
        error._keras_call_info_injected = True  # type: ignore[attr-defined]  # Keras' own mark of what it has written to
        raise


@contextmanager
def uses(results: Results) -> Iterator[None]:
    """Tell what reads the results of layers."""
    from tensorflow.python.framework import op_callbacks  # what debuggers of TensorFlow see operations by

    def told(kind: Any, inputs: Any, *_: Any, **__: Any) -> None:
        with _one_sentence():
            for value in inputs:
                results.used(value, kind.decode() if isinstance(kind, bytes) else str(kind))

    op_callbacks.add_op_callback(told)
    try:
        yield
    finally:
        op_callbacks.remove_op_callback(told)
