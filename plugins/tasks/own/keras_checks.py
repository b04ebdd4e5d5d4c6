"""What Keras' own training would do with a model, and the harness does not: told before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import OwnModel, SpecError

from . import keras_names

if TYPE_CHECKING:
    from tf_keras import Model as KerasModel

_OF_CLASSES = {"sparse_categorical_crossentropy", "categorical_crossentropy", "SparseCategoricalCrossentropy"}


def check_model(model: KerasModel, own: OwnModel) -> None:
    """Pass if a model is trained by its loss alone.

    Raises:
        SpecError: it carries a state from batch to batch, has a training of its own, a loss that nobody reads, or
            constraints that nobody applies.
    """
    import tf_keras

    for layer in keras_names.layers_of(model):
        if getattr(layer, "stateful", False):
            raise SpecError(
                f"own: {layer.name} is stateful: it begins with what the batch before has left, which a run that is "
                "resumed does not have; set `stateful=False`, and give longer pieces"
            )
    for method in ("train_step", "compute_loss"):
        if getattr(type(model), method) is not getattr(tf_keras.Model, method):
            raise SpecError(
                f"own: {type(model).__name__} has a `{method}` of its own, which the harness never calls; put what it "
                "computes into the model's `call` and into `loss`"
            )
    compiled = getattr(model, "loss", None)
    if own.loss is None and compiled is not None and _name(compiled) not in _OF_CLASSES:
        raise SpecError(
            f"own: the model is compiled with the loss {_name(compiled)}, which the harness does not read; give it as "
            "`loss` of the OwnModel"
        )
    if callable(own.optimiser):
        return
    # Keras' optimisers apply them, after each of their steps.
    for name, variable in keras_names.trainable(model).items():
        if (constraint := getattr(variable, "constraint", None)) is not None:
            raise SpecError(
                f"own: {name} has the constraint {type(constraint).__name__}, which only Keras' optimisers apply; give "
                "one, such as `optimiser=lambda variables: keras.optimizers.SGD(momentum=0.9)`"
            )


def check_inputs(model: KerasModel, inputs: Any) -> None:
    """Pass if a model may take what stands before the targets.

    Raises:
        SpecError: there are several parts for one input: Keras has weights of items behind the targets.
    """
    import tf_keras

    if not isinstance(inputs, tuple) or len(inputs) < 2:
        return
    known = getattr(model, "inputs", None)
    if isinstance(model, tf_keras.Sequential) or (known is not None and len(known) == 1):
        raise SpecError(
            f"own: a batch must be (inputs, targets), got {len(inputs) + 1} parts for a model of one input; the last "
            "part is the targets: of (inputs, targets, weights) leave the weights out, and weigh items in `loss`"
        )


def check_outputs(outputs: Any) -> None:
    """Pass if all steps of the outputs count.

    Raises:
        SpecError: some are masked: Keras' `fit` leaves them out.
    """
    mask = getattr(outputs, "_keras_mask", None)
    if mask is not None and mask.shape == outputs.shape[:-1] and not np.asarray(mask).all():
        raise SpecError(
            "own: the model masks some steps of its outputs, which the default loss and `accuracy` would count; give a "
            "`loss`, a `measure` and `items` that leave them out, such as by targets of 0"
        )


def _name(loss: Any) -> str:
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
