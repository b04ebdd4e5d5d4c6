"""A user's own Keras model, trained under the same rules as a network of the harness.

Layers that TF-MOT can wrap are wrapped, in a clone of the model that shares their variables with the finished one; all
other matrices, and all of a subclassed model, are masked in place.
"""

from __future__ import annotations

import functools
import math
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import (
    DivergedError,
    Epoch,
    EpochResult,
    Evaluation,
    Mask,
    Masker,
    Measurement,
    NativeModel,
    PluginContractError,
    Problem,
    Settings,
    Split,
    State,
    batch_rng,
    dropout_seed,
    theirs,
)

from . import measuring, own_measuring
from .build import Model
from .given_optimiser import GivenRule
from .optimiser import Rule, clip_scale, dense, masked, rows_summed
from .own_places import OwnPlace, own_places
from .randomness import Randomness, may_draw
from .session import _PROGRESS_EVERY, KerasSession
from .toolkit import classes, frameworks, memory_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from tensorflow import Tensor, Variable
    from tf_keras import Model as KerasModel
    from tf_keras.layers import Layer as KerasLayer
    from tf_keras.layers import Wrapper

_BUFFER = "buffer/"


class OwnSession(KerasSession):
    """A `NativeModel` of Keras.

    Variables that are not trained (the statistics of batch norm, frozen layers) are in the state: resuming takes them
    up, and a rewind brings back those of the epoch it goes to. Pruning does not touch them.

    Args:
        problem: with `native()`: the user's model, data, loss and metric.
        settings: seed, device, threads.
    """

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self._problem, self._settings = problem, settings
        self._tf = frameworks().tf
        self._own: Any = problem.native()  # type: ignore[attr-defined]  # a problem with a native model has it
        network = problem.network
        assert isinstance(network, NativeModel)
        self._built = self._own.built(settings.seed)
        self._wrapped = _wrapped(self._built, network.wrapped) if network.wrapped else None
        held = self._own.way.variables(self.finished)
        # The clone has weights of its own, freshly drawn.
        if self._wrapped is not None:
            for name, variable in self._own.way.variables(self._built).items():
                held[name].assign(variable)
        self._places: dict[str, OwnPlace] = own_places(network)  # type: ignore[assignment]  # what the base asks of one
        variables = {name: held[place.place.parameter] for name, place in self._places.items()}
        self._model = self._with_masks(variables)
        self._buffers = {name: variable for name, variable in held.items() if name not in variables}
        self._first_buffers = {name: variable.numpy() for name, variable in self._buffers.items()}
        self._rule: Rule = (
            GivenRule(self._own.own.optimiser, variables, self._own.folder)
            if callable(self._own.own.optimiser)
            else Rule(problem.recipe.optimiser, variables)
        )
        self._randomness = Randomness(self._own.way.layers(self._trained), data_draw=self._own.may_draw("train"))
        self._masked: frozenset[str] = frozenset()
        self._steps: dict[frozenset[str], Any] = {}

    @functools.cached_property
    def finished(self) -> KerasModel:
        """The model without TF-MOT's wrappers."""
        # Without wrappers for everything but training: they would mask again, and cost a pass over the weights.
        return self._built if self._wrapped is None else frameworks().sparsity.strip_pruning(self._wrapped)

    @property
    def _trained(self) -> KerasModel:
        return self._built if self._wrapped is None else self._wrapped

    def _with_masks(self, variables: dict[str, Variable]) -> Model:
        """The wrappers' mask variables where there are some, ours for all other matrices."""
        wrappers: dict[str, Wrapper] = {}
        theirs_by_weight: dict[Any, Variable] = {}
        for layer in self._trained.layers:
            if isinstance(layer, frameworks().wrapper.PruneLowMagnitude):
                wrappers[layer.layer.name] = layer
                theirs_by_weight |= {weight.ref(): mask for weight, mask, _ in layer.pruning_vars}
        masks: dict[str, Variable] = {}
        for name, place in self._places.items():
            if place.tensor.is_prunable:
                weight = variables[name]
                # What TF-MOT does not wrap is masked by us: a depthwise kernel, an attention, a model that cannot be
                # cloned.
                mask = theirs_by_weight.get(weight.ref())
                masks[name] = self._tf.Variable(self._tf.ones_like(weight), trainable=False) if mask is None else mask
        return Model(self._trained, variables, masks, wrappers, (), ())

    # --- state ------------------------------------------------------------------------------------------------------

    def load(self, state: State) -> None:
        """Take over weights, masks, optimiser state and buffers; without buffers they are as they were at first."""
        given = {key.removeprefix(_BUFFER): value for key, value in state.extra.items() if key.startswith(_BUFFER)}
        for name, variable in self._buffers.items():
            if given and name not in given:
                raise PluginContractError(f"keras_tfmot: a state must hold the buffer {name}; load one of this task")
            # A state without buffers is one of initial weights: moving averages begin where the model was built with
            # them.
            variable.assign(given[name] if given else self._first_buffers[name])
        if isinstance(self._rule, GivenRule):
            self._rule.load(state.extra)
        super().load(state)

    def state(self) -> State:
        """A copy of weights, masks, optimiser state and buffers."""
        found = super().state()
        found.extra.update({_BUFFER + name: np.array(value.numpy()) for name, value in self._buffers.items()})
        if isinstance(self._rule, GivenRule):
            found.extra.update(self._rule.state())
        return found

    def set_masks(self, masks: Mapping[str, Mask]) -> None:
        """Assign masks, and zero the masked weights and the state of their optimiser."""
        super().set_masks(masks)
        self._zero_given(masks)

    def _zero_given(self, names: Mapping[str, Mask] | frozenset[str]) -> None:
        """What a user's optimiser keeps of masked weights, and did to them, becomes zero."""
        if not isinstance(self._rule, GivenRule):
            return
        for name in sorted(names):
            weight = self._model.variables[name]
            for variable in (weight, *self._rule.like(weight)):
                kept = self._model.masks[name] > 0
                variable.assign(self._tf.where(kept, variable, self._tf.zeros_like(variable)))

    def close(self) -> None:
        """Drop the model and its traced functions."""
        self._steps.clear()
        with suppress(AttributeError):
            del self._evaluations, self._gradient_function
        super().close()

    # --- training ---------------------------------------------------------------------------------------------------

    @memory_errors()
    def train_epoch(self, epoch: Epoch, index: int, masker: Masker, progress: Callable[[int], None]) -> EpochResult:
        """Run one epoch under TF-MOT's callback, which follows the epoch's mask updates.

        Raises:
            DivergedError: the loss is NaN or infinite.
            OwnCodeError: the user's code raised.
        """
        total = self._problem.recipe.steps_per_epoch
        callback = classes().callback(epoch.updates, total, lambda update: self.set_masks(masker(update, index, self)))
        callback.set_model(self._trained)
        callback.on_train_begin()
        callback.on_epoch_begin(index)
        nats, items = 0.0, 0
        batches, rate_of = self._own_batches("train", index), functools.lru_cache(1)(self._tf.constant)
        self._restart(index)
        for step in range(total):
            callback.on_train_batch_begin(step)
            inputs, targets = next(batches)
            count = self._own.items(targets)
            with theirs(self._own.folder, "a training step"):
                # Mostly the rate is the one before: a tensor already.
                loss = float(self._own_step()(inputs, targets, rate_of(np.float32(epoch.rate(step)))))
            # Told with the line of the user's loss: nothing of theirs is on the stack by now.
            if not math.isfinite(loss):
                raise DivergedError(step, loss, f"training loss ({self._own.loss_place})")
            nats, items = nats + loss * count, items + count
            callback.on_train_batch_end(step)
            if (step + 1) % _PROGRESS_EVERY == 0 or step + 1 == total:
                progress(step + 1)
        callback.on_epoch_end(index)
        callback.on_train_end()
        return EpochResult(nats=nats, items=items)

    def _restart(self, index: int) -> None:
        """Let everything random in an epoch follow from (seed, epoch)."""
        high, low = dropout_seed(self._settings.seed, index, 0, 0)
        if self._randomness.restart(high << 31 | low):
            # A new graph takes seconds to trace, once an epoch, and only for models with such draws.
            self._steps.clear()  # a graph with hidden counters: only a new one begins them again

    def _own_step(self) -> Any:
        """The step for the tensors masked now; a graph per such set."""
        if self._masked not in self._steps:
            self._randomness.before_graph()
            self._steps[self._masked] = self._compiled(self._training)
        step = self._steps[self._masked]
        return lambda *given: self._randomness.seen(step, step(*given))

    def _training(self, inputs: Any, targets: Any, rate: Tensor) -> Tensor:
        loss, gradients = self._slopes(self._trained, inputs, targets, training=True)
        collect = rows_summed if self._rule.takes_rows else dense
        gradients = {name: collect(gradient) for name, gradient in gradients.items()}
        for name in sorted(self._masked):
            gradients[name] = masked(gradients[name], self._model.masks[name])
        scale = clip_scale(gradients.values(), self._problem.recipe.clip_norm)
        self._rule.apply(gradients, scale, rate)
        self._zero_given(self._masked)
        return loss

    def _slopes(self, model: KerasModel, inputs: Any, targets: Any, *, training: bool) -> tuple[Tensor, dict[str, Any]]:
        """The user's loss, and the gradients of it and of what layers add (regularisers)."""
        tf, variables = self._tf, self._model.variables
        with tf.GradientTape() as tape:
            loss = self._own.loss(self._own.forward(model, inputs, training=training), targets)
            added = model.losses
            # Regularisers belong to the loss that is descended, not to the loss that is reported.
            whole = tf.add_n([tf.reshape(loss, ()), *added]) if added else loss
        found = tape.gradient(whole, list(variables.values()), unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return tf.reshape(loss, ()), dict(zip(variables, found, strict=True))

    @memory_errors()
    def gradients(self, batches: int, epoch: int) -> dict[str, NDArray[np.float32]]:
        """The mean gradient of the loss over the first training batches, on the model as in evaluations."""
        sums: dict[str, Any] = {}
        seen = 0
        for inputs, targets in islice(self._own_batches("train", epoch), batches):
            with theirs(self._own.folder, "the gradient of the loss"):
                found = self._gradient_function(inputs, targets)
            seen += 1
            for name, gradient in found.items():
                # In float64, as gradients of many batches are summed.
                sums[name] = sums.get(name, np.float64(0)) + gradient.numpy().astype(np.float64)
        return {name: self._places[name].outward((total / seen).astype(np.float32)) for name, total in sums.items()}

    @functools.cached_property
    def _gradient_function(self) -> Any:
        def step(inputs: Any, targets: Any) -> dict[str, Tensor]:
            _, gradients = self._slopes(self.finished, inputs, targets, training=False)
            return {name: dense(gradients[name]) for name in self._model.masks}

        return self._compiled(step)

    @memory_errors()
    def measured(self, asked: Measurement, epoch: int) -> Mapping[str, NDArray[np.floating]]:
        """Gradients, norms and moments of inputs, or H g, over the first training batches of an epoch."""
        if asked.what == "gradients" and asked.temperature == 1:
            return self.gradients(asked.batches, epoch)
        batches = list(islice(self._own_batches("train", epoch), asked.batches))
        if asked.what in ("input_norms", "input_moments"):
            return own_measuring.input_sums(self, batches, moments=asked.what == "input_moments")
        if asked.what != "hessian_gradients":
            raise PluginContractError(f"keras_tfmot does not measure {asked.what} of a user's own model")

        def loss(inputs: Any, targets: Any, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            outputs = self._own.forward(self.finished, inputs, training=False)
            if asked.temperature != 1:  # of a model that ends in a softmax, what goes into it
                outputs = getattr(outputs, "_keras_logits", outputs) / asked.temperature
            return self._tf.reshape(self._own.loss(outputs, targets), ()), states

        matrices = {name: self._model.variables[name] for name in self._model.masks}
        with theirs(self._own.folder, "differentiating the loss twice"):
            found = measuring.hessian_gradients(loss, matrices, batches, [])
        return {name: self._places[name].outward(value.numpy()) for name, value in found.items()}

    # --- evaluation -------------------------------------------------------------------------------------------------

    @memory_errors()
    def evaluate(self, split: Split) -> Evaluation:
        """Totals over a whole split, the user's metric among them; for test, the density of activations too."""
        live: dict[str, list[int]] = {}
        nats, items, sums = 0.0, 0, np.float64(0)
        with_activity = split == "test"
        step = self._evaluations[with_activity]
        # For what draws even while evaluating: the same draws in every evaluation.
        if self._own.may_draw(split) or may_draw(step):
            self._tf.random.set_seed(self._settings.seed)
        for inputs, targets in self._own_batches(split, 0):
            count = self._own.items(targets)
            with theirs(self._own.folder, f"evaluating the {split} split"):
                loss, measured, flags = step(inputs, targets)
                sums = sums + self._own.sums(None if isinstance(measured, tuple) else measured, float(loss) * count)
            nats, items = nats + float(loss) * count, items + count
            for name, flag in flags:
                seen = live.setdefault(_text(name), [0, 0])
                seen[0] += int(np.count_nonzero(np.asarray(flag)))
                seen[1] += flag.shape.num_elements()
        with theirs(self._own.folder, f"the metric of the {split} split"):
            # After all batches, so that a metric may be more than a mean of means.
            value = self._own.value(sums, items)
        density = {name: count / size for name, (count, size) in live.items() if size}
        return Evaluation(nats=nats, items=items, value=value, activation_density=density)

    @functools.cached_property
    def _evaluations(self) -> dict[bool, Any]:
        return {with_activity: self._compiled(self._evaluation(with_activity)) for with_activity in (False, True)}

    def _evaluation(self, with_activity: bool) -> Any:
        tf, own = self._tf, self._own

        def step(inputs: Any, targets: Any) -> Any:
            graph, flags = tf.compat.v1.get_default_graph(), []

            def see(name: str, given: Any, result: Any) -> None:
                if name not in self._multiplying:
                    return
                for values in _multiplied(given, result, name in self._recurrent):
                    # What a layer sees inside a loop of another one cannot be handed out of it.
                    if getattr(values, "graph", None) is graph and values.dtype.is_floating:
                        flags.append((name, values != 0))

            watch = own.way.watched(self.finished, see) if with_activity else None
            try:
                outputs = own.forward(self.finished, inputs, training=False)
            finally:
                if watch is not None:
                    watch.close()
            loss, measured = own.loss(outputs, targets), own.measured(outputs, targets)
            return tf.reshape(loss, ()), () if measured is None else measured, flags

        return step

    @functools.cached_property
    def _multiplying(self) -> frozenset[str]:
        """Layers whose inputs are multiplied with a matrix; those of an embedding are looked up."""
        tensors = [place.tensor for place in self._places.values()]
        return frozenset(each.layer for each in tensors if each.is_prunable and each.role != "embedding")

    @functools.cached_property
    def _recurrent(self) -> frozenset[str]:
        """Layers whose own outputs are multiplied again, step by step."""
        return frozenset(p.tensor.layer for p in self._places.values() if p.tensor.role in ("lstm", "gru"))

    # --- small things -----------------------------------------------------------------------------------------------

    def _compiled(self, step: Callable[..., object]) -> Any:
        # Without autograph, which reads source files while tracing: the `Way` has it for the user's own code alone.
        return self._tf.function(step, autograph=False, reduce_retracing=True)

    def _own_batches(self, split: Split, epoch: int) -> Iterator[tuple[Any, Any]]:
        yield from self._own.batches(split, batch_rng(self._settings.seed, epoch))


def _multiplied(given: Any, result: Any, is_recurrent: bool) -> Iterator[Any]:
    """What the matrices of a layer are multiplied with."""
    tf = frameworks().tf
    # Recurrent layers give their states behind their outputs.
    outputs = result[0] if isinstance(result, list | tuple) and result else result
    for values in (given, outputs if is_recurrent else None):
        if tf.is_tensor(values):
            yield values


def _wrapped(model: KerasModel, names: tuple[str, ...]) -> KerasModel:
    """A clone of the model in which these layers stand inside TF-MOT's wrappers; its weights are its own."""
    chosen = {id(layer) for layer in model.layers if layer.name in names}

    def clone(layer: KerasLayer) -> KerasLayer:
        fresh = layer.__class__.from_config(layer.get_config())
        return classes().wrapper(fresh) if id(layer) in chosen else fresh

    return frameworks().keras.models.clone_model(model, clone_function=clone)


def _text(name: Any) -> str:
    return name if isinstance(name, str) else name.numpy().decode()
