"""A built model in a worker process: training, evaluation and state, one stage at a time."""

from __future__ import annotations

import functools
import math
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import (
    Array,
    Batch,
    DivergedError,
    Epoch,
    EpochResult,
    Evaluation,
    Mask,
    Masker,
    Measurement,
    NumPyOperations,
    Operations,
    PluginContractError,
    Problem,
    Session,
    Settings,
    Split,
    State,
    batch_rng,
    dropout_seed,
)

from . import measuring
from .activity import Activity, Watched, watch
from .build import build
from .loss import entropy
from .operations import TensorFlowOperations
from .optimiser import Rule, clip_scale, dense, masked, rows_summed
from .places import places
from .toolkit import classes, frameworks, memory_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from tensorflow import Tensor, TensorSpec, Variable
    from tf_keras import Model as KerasModel

    from .optimiser import Gradient

    _States = list[Tensor]
    _TrainingStep = Callable[[Array, Array, Array, np.float32, _States], tuple[Tensor, _States]]
    _GradientStep = Callable[[Array, Array, _States], tuple[_States, dict[str, Tensor]]]
    _EvaluationStep = Callable[[Array, Array, _States], tuple[Tensor, Tensor, _States, list[Tensor]]]

_PROGRESS_EVERY = 10  # steps


class KerasSession(Session):
    """Holds the wrapped model; weights are zero until `load`."""

    def __init__(self, problem: Problem, settings: Settings) -> None:
        """Build the network of a problem; TensorFlow has been configured for these settings."""
        self._problem, self._settings = problem, settings
        self._tf = frameworks().tf
        self._model = build(problem.network)
        self._places = places(problem.network)
        # On a GPU its scatter would go through the host to be deterministic.
        self._entropy = entropy if settings.device == "cpu" else self._tf.nn.sparse_softmax_cross_entropy_with_logits
        self._rule = Rule(problem.recipe.optimiser, self._model.variables)
        self._masked: frozenset[str] = frozenset()
        self._steps: dict[frozenset[str], _TrainingStep] = {}

    # --- state ------------------------------------------------------------------------------------------------------

    def load(self, state: State) -> None:
        """Take over weights, masks, optimiser slots and TF-MOT's step counters; what is absent starts anew."""
        self._check_names("weights", state.weights, self._model.variables)
        for name, value in state.weights.items():
            self._assign(name, self._model.variables[name], value)
        for name, slot in self._rule.slots.items():
            tensor = name.partition("/")[2]
            if name not in state.slots:
                slot.assign(self._tf.zeros_like(slot))
            elif tensor:
                self._assign(tensor, slot, state.slots[name])
            else:
                slot.assign(state.slots[name])
        # TF-MOT counts steps from -1, which its callback checks.
        for layer, wrapper in self._model.wrappers.items():
            wrapper.pruning_step.assign(state.extra.get(f"pruning_step/{layer}", np.int64(-1)))
        for mask in self._model.masks.values():
            mask.assign(np.ones(mask.shape, np.float32))
        # Forgotten first: a load after other stages must not keep their masks.
        self._select_masked(frozenset())
        self.set_masks(state.masks)

    def state(self) -> State:
        """A copy of everything that `load` takes."""
        return State(
            weights=self.weights(),
            masks=self.masks(),
            slots={name: self._slot(name, variable) for name, variable in self._rule.slots.items()},
            extra={
                f"pruning_step/{layer}": np.array(wrapper.pruning_step.numpy(), np.int64)
                for layer, wrapper in self._model.wrappers.items()
            },
        )

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The weights of every tensor."""
        return {name: self._outward(name, variable) for name, variable in self._model.variables.items()}

    def masks(self) -> dict[str, Mask]:
        """The masks set so far."""
        return {
            name: self._outward(name, self._model.masks[name]).astype(np.bool_)
            for name in self._places
            if name in self._masked
        }

    def set_masks(self, masks: Mapping[str, Mask]) -> None:
        """Assign the wrappers' masks of these tensors, and zero the masked weights and their optimiser slots.

        Raises:
            PluginContractError: a mask of a tensor that is no matrix, or of another shape.
        """
        for name, mask in masks.items():
            if name not in self._model.masks:
                raise PluginContractError(
                    f"keras_tfmot: masks must be of matrices ({', '.join(self._model.masks)}), got one of '{name}'; "
                    "leave it out"
                )
            self._assign(name, self._model.masks[name], mask.astype(np.float32))
            # Of the mask as it is held, in Keras' orientation.
            kept = self._model.masks[name] > 0
            held = [variable for slot, variable in self._rule.slots.items() if slot.partition("/")[2] == name]
            for variable in (self._model.variables[name], *held):
                # Not a product: -0.5 * 0 is -0.0, whose bytes differ.
                variable.assign(self._tf.where(kept, variable, self._tf.zeros_like(variable)))
        self._select_masked(self._masked | set(masks))

    @functools.cached_property
    def finished(self) -> KerasModel:
        """The model without TF-MOT's wrappers, as `strip_pruning` leaves it; it shares the weights.

        Every score and every exported weight is that of this model: masked weights are zero between any two steps, so
        the wrappers have nothing left to do.
        """
        return frameworks().sparsity.strip_pruning(self._model.keras)

    def operations(self) -> Operations:
        """NumPy's arrays on a CPU: the same bits, without TensorFlow's tenths of a millisecond per small operation."""
        return NumPyOperations() if self._settings.device == "cpu" else TensorFlowOperations()

    def close(self) -> None:
        """Drop the model and its traced functions."""
        self._steps.clear()
        frameworks().keras.backend.clear_session()

    # --- training ---------------------------------------------------------------------------------------------------

    @memory_errors()
    def train_epoch(self, epoch: Epoch, index: int, masker: Masker, progress: Callable[[int], None]) -> EpochResult:
        """Run one epoch under TF-MOT's callback, which follows the epoch's mask updates.

        Raises:
            DivergedError: the loss is NaN or infinite.
        """
        total = self._problem.recipe.steps_per_epoch
        # TF-MOT's callback as Keras' own `fit` calls it, so that whatever it does at a step or an epoch's end is done.
        callback = classes().callback(epoch.updates, total, lambda update: self.set_masks(masker(update, index, self)))
        callback.set_model(self._model.keras)
        callback.on_train_begin()
        callback.on_epoch_begin(index)
        nats, items, states = 0.0, 0, None
        for step, batch in enumerate(self._batches("train", index)):
            callback.on_train_batch_begin(step)
            # States are carried from batch to batch: only the first begins at zero.
            states = states or self._zero_states(batch.inputs)
            loss, states = self._step(batch, self._seeds(index, step), epoch.rate(step), states)
            # At once: a step later all weights would be NaN, and the step that did it unknown.
            if not math.isfinite(loss):
                raise DivergedError(step, loss / len(batch.targets))
            nats, items = nats + loss, items + batch.targets.size
            callback.on_train_batch_end(step)
            if (step + 1) % _PROGRESS_EVERY == 0 or step + 1 == total:
                progress(step + 1)
        callback.on_epoch_end(index)
        callback.on_train_end()
        return EpochResult(nats=nats, items=items)

    def _step(self, batch: Batch, seeds: Array, rate: float, states: list[Tensor]) -> tuple[float, list[Tensor]]:
        nats, after = self._traced_step()(batch.inputs, batch.targets, seeds, np.float32(rate), states)
        return float(nats), after

    def _traced_step(self) -> _TrainingStep:
        """The step for the tensors masked now; a graph per such set, since dense tensors are not to be multiplied."""
        if self._masked not in self._steps:
            seeds = self._tf.TensorSpec((len(self._model.dropouts), 2), self._tf.int32)
            rate = self._tf.TensorSpec((), self._tf.float32)
            signature = (*self._batch_signature(), seeds, rate, self._state_signature())
            self._steps[self._masked] = self._traced(self._training_step, signature)
        return self._steps[self._masked]

    def _training_step(
        self, inputs: Tensor, targets: Tensor, seeds: Tensor, rate: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        nats, after, gradients = self._differentiate(self._model.keras, inputs, targets, seeds, states, training=True)
        # Rows of an embedding stay rows where nothing but their own values moves them.
        collect = rows_summed if self._rule.takes_rows else dense
        gradients = {name: collect(gradient) for name, gradient in gradients.items()}
        for name in sorted(self._masked):
            gradients[name] = masked(gradients[name], self._model.masks[name])
        scale = clip_scale(gradients.values(), self._problem.recipe.clip_norm)
        self._rule.apply(gradients, scale, rate)
        return nats, after

    def _differentiate(
        self,
        model: KerasModel,
        inputs: Tensor,
        targets: Tensor,
        seeds: Tensor,
        states: list[Tensor],
        *,
        training: bool,
    ) -> tuple[Tensor, list[Tensor], dict[str, Gradient]]:
        """Nats of the batch, the states after it, and the gradient of the loss."""
        tf, variables = self._tf, self._model.variables
        with tf.GradientTape() as tape:
            logits, after = self._forward(model, inputs, seeds, states, training=training)
            nats = tf.reduce_sum(self._entropy(targets, logits))
            # A mean over the batch, a sum over its steps: the published recipe's loss, whose clipping norm it decides.
            loss = nats / tf.cast(tf.shape(targets)[0], tf.float32)
        found = tape.gradient(loss, list(variables.values()))
        return nats, after, dict(zip(variables, found, strict=True))

    def _forward(
        self, model: KerasModel, inputs: Tensor, seeds: Tensor, states: list[Tensor], *, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        given = [inputs, *([seeds] if self._model.dropouts else []), *states]
        outputs = model(given if len(given) > 1 else inputs, training=training)
        logits, *after = outputs if isinstance(outputs, list) else [outputs]
        return logits, after

    # --- evaluation -------------------------------------------------------------------------------------------------

    @memory_errors()
    def gradients(self, batches: int, epoch: int) -> dict[str, NDArray[np.float32]]:
        """The mean gradient of the loss over the first training batches, on the model without wrappers."""
        sums: dict[str, NDArray[np.float64]] = {}
        states, seen = None, 0
        for batch in islice(self._batches("train", epoch), batches):
            states = states or self._zero_states(batch.inputs)
            states, found = self._gradient_step(batch.inputs, batch.targets, states)
            seen += 1
            for name, gradient in found.items():
                sums[name] = sums.get(name, np.float64(0)) + gradient.numpy().astype(np.float64)
        return {name: self._places[name].outward((total / seen).astype(np.float32)) for name, total in sums.items()}

    @memory_errors()
    def measured(self, asked: Measurement, epoch: int) -> Mapping[str, NDArray[np.floating]]:
        """Gradients, input norms and moments, H g, or synaptic flow, on the model without wrappers."""
        batches = [(batch.inputs, batch.targets) for batch in islice(self._batches("train", epoch), asked.batches)]
        matrices = {name: self._model.variables[name] for name in self._model.masks}
        if asked.what in ("input_norms", "input_moments"):
            return measuring.input_sums(
                self._watched_values,
                self._watching[1],
                (inputs for inputs, _ in batches),
                self._zero_states,
                moments=asked.what == "input_moments",
            )
        if asked.what == "synaptic_flow":
            shape = self._problem.network.input_shape
            found = measuring.synaptic_flow(self.finished, self._model.variables, list(matrices), shape)
        elif asked.what == "hessian_gradients":
            loss = functools.partial(self._plain_loss, temperature=asked.temperature)
            zero = self._zero_states(batches[0][0])
            found = measuring.hessian_gradients(loss, matrices, batches, zero)
        else:
            return super().measured(asked, epoch)
        return {name: self._places[name].outward(value.numpy()) for name, value in found.items()}

    def _watched_values(self, inputs: Array, states: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        _, rest = self._forward(self._watching[0], inputs, self._no_seeds(), states, training=False)
        return rest[len(states) :], rest[: len(states)]

    def _plain_loss(
        self, inputs: Tensor, targets: Tensor, states: list[Tensor], *, temperature: float
    ) -> tuple[Tensor, list[Tensor]]:
        tf = self._tf
        logits, after = self._forward(self.finished, inputs, self._no_seeds(), states, training=False)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits / temperature)
        return tf.reduce_sum(nats) / tf.cast(tf.shape(targets)[0], tf.float32), after

    @memory_errors()
    def evaluate(self, split: Split) -> Evaluation:
        """Totals over a whole split, by the model without wrappers; for test, the density of activations too."""
        activity = Activity() if split == "test" else None
        step, (_, watched) = self._evaluation_step, self._watching
        nats, correct, items, states = 0.0, 0, 0, None
        for batch in self._batches(split, 0):
            states = states or self._zero_states(batch.inputs)
            batch_nats, batch_correct, states, flags = step(batch.inputs, batch.targets, states)
            nats, correct, items = nats + float(batch_nats), correct + int(batch_correct), items + batch.targets.size
            if activity is not None:
                activity.see(watched, flags)
        return Evaluation(
            nats=nats,
            items=items,
            correct=correct if self._problem.metric.needs_correct else None,
            activation_density=activity.density() if activity else {},
        )

    @functools.cached_property
    def _gradient_step(self) -> _GradientStep:
        def step(inputs: Tensor, targets: Tensor, states: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
            _, after, gradients = self._differentiate(
                self.finished, inputs, targets, self._no_seeds(), states, training=False
            )
            return after, {name: dense(gradients[name]) for name in self._model.masks}

        traced: _GradientStep = self._traced(step, (*self._batch_signature(), self._state_signature()))
        return traced

    @functools.cached_property
    def _watching(self) -> tuple[KerasModel, Watched]:
        """The finished model with what flows into its layers as further outputs, and those layers."""
        return watch(self.finished, self._problem.network)

    @functools.cached_property
    def _evaluation_step(self) -> _EvaluationStep:
        tf = self._tf
        model, _ = self._watching

        def step(
            inputs: Tensor, targets: Tensor, states: list[Tensor]
        ) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
            logits, rest = self._forward(model, inputs, self._no_seeds(), states, training=False)
            after, values = rest[: len(states)], rest[len(states) :]
            # Summed in float64: a test split has 80,000 tokens.
            nats = tf.reduce_sum(tf.cast(self._entropy(targets, logits), tf.float64))
            correct = tf.constant(0)
            if self._problem.metric.needs_correct:
                correct = tf.math.count_nonzero(tf.argmax(logits, axis=-1, output_type=tf.int32) == targets)
            # Also where nobody counts them: that costs nothing beside an LSTM's logits and 1.5 ms per 1,000 images in
            # LeNet-5, a second graph 1 s and 0.1 s. They are counted outside, in a fraction of the time that
            # `tf.math.count_nonzero` takes.
            flags = [value != 0 for value in values]
            return nats, correct, after, flags

        traced: _EvaluationStep = self._traced(step, (*self._batch_signature(), self._state_signature()))
        return traced

    # --- small things -----------------------------------------------------------------------------------------------

    def _traced(self, step: Callable[..., object], signature: tuple[object, ...]) -> Any:  # what TensorFlow returns
        # Without autograph, which reads source files while tracing: one edited under a running job would break it.
        return self._tf.function(step, input_signature=signature, autograph=False)

    def _batches(self, split: Split, epoch: int) -> Iterator[Batch]:
        return self._problem.batches(split, epoch, batch_rng(self._settings.seed, epoch))

    def _zero_states(self, inputs: Array) -> list[Tensor]:
        return [self._tf.zeros((len(inputs), width)) for width in self._model.states]

    def _seeds(self, epoch: int, step: int) -> Array:
        seeds = [dropout_seed(self._settings.seed, epoch, step, layer) for layer in self._model.dropouts]
        return np.array(seeds, np.int32).reshape(-1, 2)

    def _no_seeds(self) -> Tensor:
        return self._tf.zeros((len(self._model.dropouts), 2), self._tf.int32)

    def _batch_signature(self) -> tuple[TensorSpec, TensorSpec]:
        tf, shape = self._tf, self._problem.network.input_shape
        if shape:
            return tf.TensorSpec((None, *shape), tf.float32), tf.TensorSpec((None,), tf.int32)
        return tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.int32)

    def _state_signature(self) -> list[TensorSpec]:
        return [self._tf.TensorSpec((None, width), self._tf.float32) for width in self._model.states]

    def _select_masked(self, names: frozenset[str]) -> None:
        """Tell every wrapper which of its weights have a mask."""
        self._masked = names
        # By reference: the wrapper lists its weights in its own order.
        for wrapper in self._model.wrappers.values():
            held = [mask.ref() for _, mask, _ in wrapper.pruning_vars]
            wrapper.pruning_obj.masked = frozenset(
                held.index(self._model.masks[name].ref()) for name in names if self._model.masks[name].ref() in held
            )

    def _assign(self, name: str, variable: Variable, value: Array) -> None:
        expected = self._places[name].tensor.shape
        if value.shape != expected:
            raise PluginContractError(
                f"keras_tfmot: '{name}' must have the shape {expected}, got {value.shape}; pass arrays as (rows, cols)"
            )
        variable.assign(self._places[name].inward(value))

    def _outward(self, name: str, variable: Variable) -> NDArray[np.float32]:
        held: NDArray[np.float32] = variable.numpy()
        return self._places[name].outward(held)

    def _slot(self, name: str, variable: Variable) -> NDArray[np.float32]:
        tensor = name.partition("/")[2]
        return self._outward(tensor, variable) if tensor else np.array(variable.numpy())

    @staticmethod
    def _check_names(what: str, given: Mapping[str, Array], expected: Mapping[str, object]) -> None:
        if set(given) != set(expected):
            raise PluginContractError(
                f"keras_tfmot: {what} must be of {', '.join(expected)}, got {', '.join(given) or 'none'}; "
                "load a state of the same network"
            )
