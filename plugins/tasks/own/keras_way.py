"""Keras 2: how its models are built, started, sent through and asked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.api import Array, LayerArithmetic, NativeModel, OwnModel, SpecError

from . import keras_checks, keras_layers, keras_model, keras_names, keras_wrapping
from .arrays import as_array, items_of
from .folding import Computed
from .way import Way, Wishes


class KerasWay(Way):
    """Models of tf-keras, arrays, `tf.data` and `Sequence`."""

    framework: ClassVar = "keras"
    modules: ClassVar[frozenset[str]] = frozenset({"tensorflow", "tf_keras", "keras"})
    model_class: ClassVar[str] = "tf_keras.Model"

    def seed(self, seed: int) -> None:
        """Seed Python, NumPy and TensorFlow; names and random layers are counted from the start again."""
        import tf_keras

        tf_keras.utils.set_random_seed(seed % 2**32)
        # Names of layers are counted over all models of a process, and a second build must have those of the first.
        tf_keras.backend.reset_uids()
        # Its random layers keep a generator whose state can be set then; their other way cannot be resumed.
        tf_keras.backend.experimental.enable_tf_random_generator()

    def is_model(self, found: object) -> bool:
        """Whether it is a model of Keras 2, which is the one that TF-MOT prunes."""
        import tf_keras

        if isinstance(found, tf_keras.Model):
            return True
        if any(each.__module__.startswith("keras.") for each in type(found).__mro__):
            raise SpecError(
                f"own: `model` must make a model of Keras 2 (tf_keras), got {type(found).__name__} of Keras 3, which "
                "TF-MOT does not prune; `import tf_keras as keras`"
            )
        return False

    def check(self, own: OwnModel) -> None:
        """A metric of Keras keeps a mean of its own."""
        import tf_keras

        if isinstance(own.measure, tf_keras.metrics.Metric):
            raise SpecError(
                f"own: `measure` must be a function (outputs, targets) -> a sum over the items, got "
                f"{type(own.measure).__name__} of Keras, which averages by itself; write one, or take `accuracy`"
            )

    def check_model(self, model: Any, own: OwnModel) -> None:
        """Training is the harness's own: what Keras' `fit` would do beside it is not done."""
        keras_checks.check_model(model, own)

    def check_outputs(self, outputs: Any) -> None:
        """Steps that are masked would be scored like all others."""
        keras_checks.check_outputs(outputs)

    def trained(self, model: Any) -> Mapping[str, Any]:
        """Variables that are not frozen."""
        return keras_names.trainable(model)

    def completed(self, model: Any, inputs: Any) -> None:
        """A subclassed model has its variables after its first call only."""
        keras_checks.check_inputs(model, inputs)
        # Layers may be built late even where the model says that it is built.
        if not model.built or any(not layer.built for layer in keras_names.layers_of(model)):
            self.forward(model, inputs, training=False)
        for variable in model.trainable_weights:
            if variable.dtype != "float32":
                raise SpecError(
                    f"own: parameters must be float32, got {variable.dtype.name} of {variable.name}; convert the model"
                )

    def start(self, model: Any, path: Path) -> None:
        """Of `.keras` and `.weights.h5` only the weights are read; `.safetensors` has them by name, as Keras has."""
        if path.suffix == ".safetensors":
            _load_arrays(model, path)
        # `.keras` and `.h5` may hold code; reading the weights alone runs none of it.
        elif path.suffix in (".keras", ".h5"):
            model.load_weights(str(path))
        else:
            raise SpecError(
                f"a checkpoint of Keras is .weights.h5, .keras or .safetensors, not {path.suffix or 'this'}"
            )

    def parameters(self, model: Any) -> dict[str, NDArray[np.float32]]:
        """By the names that `keras_names` gives them."""
        return {name: variable.numpy() for name, variable in keras_names.trainable(model).items()}

    def variables(self, model: Any) -> dict[str, Any]:
        """Every variable by name, trained or not."""
        return keras_names.variables(model)

    def layers(self, model: Any) -> list[Any]:
        """Every layer, at any depth."""
        return keras_names.layers_of(model)

    def named_layers(self, model: Any) -> dict[str, Any]:
        """The layers that hold variables, by the name that their tensors have."""
        return {each.name: each.layer for each in keras_names.held(model)}

    def watched(self, model: Any, see: Callable[[str, Any, Any], None]) -> keras_model.Watch:
        """Have (layer's name, first input, result) told after every call of a layer with variables, until closed."""
        names = {id(each.layer): each.name for each in keras_names.held(model)}

        def told(layer: Any, inputs: tuple[Any, ...], result: Any) -> None:
            see(names[id(layer)], inputs[0] if inputs else None, result)

        return keras_model.Watch([each.layer for each in keras_names.held(model)], told)

    def traced(self, model: Any, inputs: Any) -> tuple[Any, Any]:
        """A call in evaluation, with every layer's own call watched."""
        trace = keras_model.Trace(model)
        try:
            outputs = self.forward(model, inputs, training=False)
        finally:
            trace.close()
        return outputs, (trace, outputs, inputs)

    def found(self, model: Any, seen: Any, items: int, wishes: Wishes) -> NativeModel:
        """Roles and axes from the layers."""
        trace, outputs, inputs = seen
        wrapped = keras_wrapping.wrappable(model, inputs, outputs)
        return keras_model.read(
            model,
            trace.outputs(outputs),
            trace.per_item(items),
            trace.convolutions,
            trace.steps(items),
            wrapped,
            wishes.prunable,
            wishes.same or {},
        )

    def forward(self, model: Any, inputs: Any, *, training: bool) -> Any:
        """Several inputs are one nested argument; Keras itself converts each `call` that a user wrote."""
        with keras_model.autograph():
            return model(inputs, training=training)

    def filled(self, model: Any, parameters: Mapping[str, Array], buffers: Mapping[str, Array]) -> None:
        """By the names that `keras_names` gives them."""
        for name, variable in keras_names.variables(model).items():
            value = parameters.get(name, buffers.get(name))
            if value is not None:
                variable.assign(value)

    def norms_in_layers(self, model: Any, run: Callable[[], None]) -> dict[str, str]:
        """Eagerly, with every operation of TensorFlow seen."""
        return keras_layers.norms_in_layers(model, run)

    def computed_by(
        self, model: Any, arithmetic: LayerArithmetic, folds: Mapping[str, str]
    ) -> AbstractContextManager[Computed]:
        """Eagerly, so that layers have values in their hands."""
        return keras_layers.computed_by(model, arithmetic, folds)

    def called(self, function: Callable[..., Any], outputs: Any, targets: Any, *, mean: bool) -> Any:
        """With loops and branches over tensors made those of the graph, as in a `call`; those of Keras as they are.

        Keras has the targets first, and its functions give a value for every item.
        """
        import tensorflow as tf
        import tf_keras

        if isinstance(function, tf_keras.losses.Loss):
            return function(targets, outputs)
        if inspect.isfunction(function) and function.__module__.startswith("tf_keras."):
            return (tf.reduce_mean if mean else tf.reduce_sum)(function(targets, outputs))
        return keras_model.converted(function)(outputs, targets)

    def schedule(self, rate: Callable[[int], Any], steps: int) -> Callable[[int], Any]:
        """A schedule of Keras is one of steps, counted from the start of the training."""
        import tf_keras

        if not isinstance(rate, tf_keras.optimizers.schedules.LearningRateSchedule):
            return rate
        return lambda epoch: tuple(float(rate(epoch * steps + step)) for step in range(steps))

    def cross_entropy(self, outputs: Any, targets: Any) -> Any:
        """Of logits over the last axis; where the model ends in a softmax of Keras, of what went into it."""
        import tensorflow as tf

        logits, wanted = self.logits(outputs), tf.convert_to_tensor(targets)
        if _has_shares(logits, wanted):
            return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(tf.cast(wanted, logits.dtype), logits))
        labels = tf.reshape(tf.cast(wanted, tf.int64), tf.shape(logits)[:-1])
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

    def logits(self, outputs: Any) -> Any:
        """What went into a softmax of Keras at the model's end."""
        # What a softmax has rounded to 0 would have an infinite loss; Keras notes its input for this very reason.
        return getattr(outputs, "_keras_logits", outputs)

    def array(self, values: Any) -> NDArray[Any]:
        """In float32 where NumPy has no such type."""
        import tensorflow as tf

        tensor = tf.convert_to_tensor(values)
        found: NDArray[Any] = (tf.cast(tensor, tf.float32) if tensor.dtype.is_floating else tensor).numpy()
        return found

    def twice(self, values: Any) -> Any:
        """One after the other, along the first axis."""
        import tensorflow as tf

        return tf.nest.map_structure(lambda each: tf.concat([each, each], axis=0), values)

    def is_scalar(self, loss: object) -> bool:
        """Whether it is a tensor of one number."""
        import tensorflow as tf

        return isinstance(loss, tf.Tensor | tf.Variable) and loss.shape.num_elements() == 1

    def items(self, targets: Any, ignored: int | None) -> int:
        """Every element of integer targets, or else the length of their first axis."""
        if isinstance(targets, tuple | dict):
            return items_of(targets) or 1
        array = np.asarray(targets)
        return int(array.size if array.dtype.kind in "iub" else len(array))

    def correct(self, outputs: Any, targets: Any) -> Any:
        """How many items have their highest output at the target."""
        import tensorflow as tf

        found, wanted = tf.argmax(outputs, axis=-1, output_type=tf.int64), tf.convert_to_tensor(targets)
        if _has_shares(outputs, wanted):
            return tf.math.count_nonzero(found == tf.argmax(wanted, axis=-1, output_type=tf.int64))
        return tf.math.count_nonzero(found == tf.reshape(tf.cast(wanted, tf.int64), tf.shape(found)))

    def tensor(self, value: Any) -> Any:
        """Doubles as float32; tensors stay what they are."""
        import tensorflow as tf

        if tf.is_tensor(value):
            return tf.cast(value, tf.float32) if value.dtype == tf.float64 else value
        array = as_array(value, texts=True)
        return array.astype(np.float32) if array.dtype == np.float64 else array

    def taken(self, values: Any, chosen: NDArray[np.intp]) -> Any:
        """Some items of an array."""
        return values[chosen]

    def together(self, items: list[Any]) -> Any:
        """Items as one batch, part by part."""
        import tensorflow as tf

        return tf.nest.map_structure(lambda *parts: np.stack([np.asarray(part) for part in parts]), *items)

    def is_stream(self, source: object) -> bool:
        """A `Sequence` has whole batches for its items."""
        import tf_keras

        return isinstance(source, tf_keras.utils.Sequence) or super().is_stream(source)

    def stream(self, source: Any) -> Iterable[Any]:
        """A `Sequence` ends after its length."""
        import tf_keras

        if isinstance(source, tf_keras.utils.Sequence):
            # Its iterator has no end: it begins again after its last batch.
            return (source[place] for place in range(len(source)))
        return source  # type: ignore[no-any-return]  # an iterable, as the data set checks

    def is_endless(self, source: object) -> bool:
        """A `tf.data` that repeats for ever says so."""
        import tensorflow as tf

        return isinstance(source, tf.data.Dataset) and bool(source.cardinality() == tf.data.INFINITE_CARDINALITY)


def _has_shares(outputs: Any, targets: Any) -> bool:
    """Whether targets are a share of every class, such as 0 and 1, and not the number of one."""
    # By what a graph knows of shapes: the number of items may be open.
    return bool(
        targets.dtype.is_floating
        and targets.shape.rank == outputs.shape.rank == 2
        and targets.shape[1] == outputs.shape[1]
    )


def _load_arrays(model: Any, path: Path) -> None:
    """Assign arrays by name: those of the harness, or the variables' own."""
    from safetensors.numpy import load_file

    given = load_file(path)
    for name, variable in keras_names.variables(model).items():
        own = variable.name.partition(":")[0]
        # By the harness's name, by Keras's, with and without the index of the output.
        value = next((given[key] for key in (name, own, f"{own}:0", own.replace("/", ".")) if key in given), None)
        if value is None:
            raise SpecError(f"it lacks {name}; it has {', '.join(sorted(given)[:8]) or 'nothing'}")
        if tuple(value.shape) != tuple(variable.shape):
            raise SpecError(f"{name} must have shape {tuple(variable.shape)}, got {tuple(value.shape)}")
        variable.assign(value)
