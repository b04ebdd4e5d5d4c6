"""Which layers of a Keras model TF-MOT can wrap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .keras_model import matrix_of
from .keras_names import Held, held

if TYPE_CHECKING:
    from tf_keras import Model as KerasModel
    from tf_keras.layers import Layer as KerasLayer


def wrappable(model: KerasModel, inputs: Any, outputs: Any) -> tuple[str, ...]:
    """Names of the layers that TF-MOT's wrapper can hold: none where the model cannot be put together anew.

    TF-MOT clones a model around its wrappers, which a subclassed one does not allow; and a clone that does not compute
    the same (a layer with an incomplete `get_config`) is not the user's model.
    """
    import tensorflow as tf
    import tf_keras

    if not (isinstance(model, tf_keras.Sequential) or getattr(model, "_is_graph_network", False)):
        return ()
    try:
        from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

        # A clone, since wrapping replaces layers: the user's own model stays what it is.
        clone = tf_keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        given = clone(inputs, training=False)
    except Exception:  # whatever a user's layer raises when it is made again: it is masked in place then
        return ()
    # Put together anew, a model whose `call` does more than its layers gives other outputs.
    pairs = zip(tf.nest.flatten(given), tf.nest.flatten(outputs), strict=True)
    if not all(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True) for one, other in pairs):
        return ()
    # Not layers made of layers, such as attention: those have no variables yet where the wrapper looks for them.
    holding = {id(each.layer) for each in held(model) if any(_is_wrapped(each, part) for part in each.variables)}
    return tuple(
        layer.name
        for layer in model.layers
        if id(layer) in holding
        and not _is_nested(layer)
        and _is_called_plainly(layer)
        and PruneRegistry.supports(layer)
    )


def _is_called_plainly(layer: KerasLayer) -> bool:
    """Whether a layer's `call`, which is all that the wrapper calls, is all that it does.

    Around it Keras turns inputs into the numbers of a mixed precision, and adds the loss of an activity regulariser.
    """
    return layer.compute_dtype == layer.variable_dtype and getattr(layer, "activity_regularizer", None) is None


def _is_wrapped(each: Held, part: str) -> bool:
    """Whether a variable is a matrix that TF-MOT's wrapper would hold a mask of."""
    return part != "depthwise_kernel" and matrix_of(each, part, each.variables[part], is_output=False) is not None


def _is_nested(layer: KerasLayer) -> bool:
    import tf_keras

    return isinstance(layer, tf_keras.Model | tf_keras.layers.Wrapper)
