"""TensorFlow, tf-keras and TF-MOT imported late and quietly, with TF-MOT's own classes refined.

TF-MOT decides masks inside its wrappers, from a schedule and one rule. Here the masks come from the harness, so the
wrapper's schedule never prunes, its weight update touches only what has a mask and only when the callback asks for it,
and the callback follows a table.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.api import MaskUpdate, PluginUnavailableError, Settings

if TYPE_CHECKING:
    from types import ModuleType

    from tensorflow import Operation, Tensor, TensorShape
    from tf_keras.callbacks import Callback
    from tf_keras.layers import Layer as KerasLayer
    from tf_keras.layers import Wrapper


@dataclass(frozen=True)
class Frameworks:
    """The modules of the three packages.

    Args:
        tf: TensorFlow.
        keras: tf-keras, i.e. Keras 2; TF-MOT refuses Keras 3 models.
        sparsity: TF-MOT's public pruning functions.
        callbacks: the module of `UpdatePruningStep`.
        wrapper: the module of `PruneLowMagnitude`, which the public interface hands out only through a function.
        schedule: the module of `PruningSchedule`.
        impl: the module of `Pruning`, the object inside a wrapper that assigns masks and masked weights.
    """

    tf: ModuleType
    keras: ModuleType
    sparsity: ModuleType
    callbacks: ModuleType
    wrapper: ModuleType
    schedule: ModuleType
    impl: ModuleType


@dataclass(frozen=True)
class Classes:
    """The refined classes, see `classes`."""

    wrapper: type[Wrapper]
    callback: type[Callback]
    dropout: type[KerasLayer]


@functools.cache
def frameworks() -> Frameworks:
    """Import the packages; Keras 2 is chosen before TensorFlow looks for a Keras."""
    # Before the first import of TensorFlow in this process, which reads it then.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silent_stderr():
        import tensorflow as tf
        import tensorflow_model_optimization as tfmot
        import tf_keras as keras
        from tensorflow_model_optimization.python.core.sparsity.keras import (
            pruning_callbacks,
            pruning_impl,
            pruning_schedule,
            pruning_wrapper,
        )
    tf.get_logger().setLevel("ERROR")
    sparsity = tfmot.sparsity.keras
    return Frameworks(tf, keras, sparsity, pruning_callbacks, pruning_wrapper, pruning_schedule, pruning_impl)


def configure(settings: Settings) -> None:
    """Set threads, device and determinism for this process; must come before the first operation.

    Raises:
        PluginUnavailableError: the device is not there.
    """
    tf = frameworks().tf
    tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(False)  # float32 is to mean float32 on a GPU, too
    gpus = _gpus(settings.device)
    tf.config.set_visible_devices(gpus, "GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)  # several workers may share one


def _gpus(device: str) -> list[object]:
    if device == "cpu":
        return []
    found = frameworks().tf.config.list_physical_devices("GPU")
    kind, _, number = device.partition(":")
    index = int(number) if number.isdigit() else 0
    if kind != "cuda" or index >= len(found):
        raise PluginUnavailableError(
            f"keras_tfmot: device must be one that TensorFlow sees (cpu and {len(found)} GPUs"
            f"), got '{device}'; set `device: cpu` or install tensorflow[and-cuda]"
        )
    return [found[index]]


@contextmanager
def memory_errors() -> Iterator[None]:
    """Within it, TensorFlow's way of saying that memory has run out becomes Python's."""
    try:
        yield
    except frameworks().tf.errors.ResourceExhaustedError as error:
        raise MemoryError(error.message) from error


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hold back what C++ writes while it loads, since no log level applies yet; it is shown if loading fails."""
    sys.stderr.flush()
    # The file descriptor and not `sys.stderr`, which C++ knows nothing of.
    with tempfile.TemporaryFile() as held:
        kept = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            # Held back and told after all: an import that fails says there why.
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@functools.cache
def classes() -> Classes:
    """TF-MOT's wrapper and callback, refined, and a dropout layer without hidden state."""
    fw = frameworks()
    return Classes(_wrapper_class(fw), _callback_class(fw), _dropout_class(fw))


def _wrapper_class(fw: Frameworks) -> type[Wrapper]:
    tf = fw.tf
    as_it_is = tf.autograph.experimental.do_not_convert  # Keras converts wrappers, and whatever their `call` calls

    class NeverPrunes(fw.schedule.PruningSchedule):  # type: ignore[misc, name-defined]  # TF-MOT has no types
        """A schedule that leaves every mask alone: only the harness assigns masks."""

        @as_it_is  # type: ignore[untyped-decorator]  # TensorFlow has no types
        def __call__(self, step: Tensor) -> tuple[Tensor, Tensor]:
            return tf.constant(False), tf.constant(0.0)

        def get_config(self) -> dict[str, object]:
            return {"class_name": type(self).__name__, "config": {}}

    class MaskedOnly(fw.impl.Pruning):  # type: ignore[misc, name-defined]  # TF-MOT has no types
        """Multiplies weights by masks where there is a mask, at the end of an epoch.

        TF-MOT's own does so in every forward pass, dense weights included. A training step here moves no masked weight,
        so a graph would multiply zeros by zeros: 4 % of the step where embedding and softmax are pruned, too.
        """

        def __init__(self, wrapper: Wrapper) -> None:
            super().__init__(
                training_step_fn=lambda: wrapper.pruning_step,
                pruning_vars=wrapper.pruning_vars,
                pruning_schedule=wrapper.pruning_schedule,
                block_size=wrapper.block_size,
                block_pooling_type=wrapper.block_pooling_type,
            )
            self.masked: frozenset[int] = frozenset()

        @as_it_is  # type: ignore[untyped-decorator]  # TensorFlow has no types
        def conditional_mask_update(self) -> Operation:
            return tf.no_op()  # the schedule never asks for one; its branch would still be traced and optimised

        @as_it_is  # type: ignore[untyped-decorator]  # TensorFlow has no types
        def weight_mask_op(self) -> Operation:
            if not tf.executing_eagerly():  # the wrapper, in a graph; the callback is eager
                return tf.no_op()
            pairs = [(weight, mask) for weight, mask, _ in self._pruning_vars]
            return tf.group([pairs[place][0].assign(tf.multiply(*pairs[place])) for place in sorted(self.masked)])

    class MaskedLayer(fw.wrapper.PruneLowMagnitude):  # type: ignore[misc, name-defined]  # TF-MOT has no types
        """TF-MOT's wrapper; `pruning_obj.masked` says which of its prunable weights have a mask."""

        def __init__(self, layer: KerasLayer) -> None:
            super().__init__(layer, pruning_schedule=NeverPrunes())

        def build(self, input_shape: TensorShape) -> None:
            super().build(input_shape)
            self.pruning_obj = MaskedOnly(self)

    return MaskedLayer


def _callback_class(fw: Frameworks) -> type[Callback]:
    class FollowUpdates(fw.callbacks.UpdatePruningStep):  # type: ignore[misc, name-defined]  # TF-MOT has no types
        """TF-MOT's callback, which counts steps and masks weights at an epoch's end, following a table of updates."""

        def __init__(self, updates: Sequence[MaskUpdate], steps: int, apply: Callable[[MaskUpdate], None]) -> None:
            super().__init__()
            self.updates, self.steps, self.apply = updates, steps, apply

        def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
            for update in self.updates:
                # Before the step, as the api defines it; several at one step in their order.
                if update.step == batch:
                    self.apply(update)

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            # The update of the very end comes after the last step, and is none of a batch.
            self.on_train_batch_begin(self.steps)
            super().on_epoch_end(epoch, logs)

    return FollowUpdates


def _dropout_class(fw: Frameworks) -> type[KerasLayer]:
    tf = fw.tf

    class StatelessDropout(fw.keras.layers.Layer):  # type: ignore[misc, name-defined]  # tf-keras has no types
        """Inverted dropout, its mask drawn from a seed among the inputs; Keras' own has a hidden generator."""

        def __init__(self, rate: float, place: int) -> None:
            super().__init__()
            self.rate, self.place = rate, place

        def call(self, inputs: tuple[Tensor, Tensor], training: bool = False) -> Tensor:
            values, seeds = inputs
            # A rate of 0 draws nothing: the graph is that of a network without dropout.
            if not training or self.rate == 0:
                return values
            # Philox, named: left to itself TensorFlow picks an algorithm by device.
            noise = tf.random.stateless_uniform(tf.shape(values), seeds[self.place], alg="philox")
            return tf.where(noise >= self.rate, values / (1 - self.rate), tf.zeros_like(values))

    return StatelessDropout
