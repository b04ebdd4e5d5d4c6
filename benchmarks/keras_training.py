"""Training speed of the Keras backend beside plain Keras and TF-MOT: `python -m benchmarks.keras_training`.

The model is Zaremba's small one (20 streams x 20 steps, hidden 200, 10,000 words), one thread, pruned to 90 % in its
LSTM layers alone or everywhere. The peers are what their documentation shows: a stateful `Sequential` model, compiled
and fitted; for pruning its layers wrapped by `prune_low_magnitude`, with `UpdatePruningStep`, and their masks made
before anything is timed, so that a timed step makes none, as ours does. Every variant lives in a process of its own;
they take turns, a few steps each, so that whatever else the machine does falls on all of them. A ratio is the median
over the rounds of the ratio within a round; times are CPU seconds. Words are those of Penn Treebank where `--data-dir`
has it, otherwise drawn by Zipf's law. Ends with exit code 1 where a goal is missed.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.api import (
    LSTM,
    SGD,
    Batch,
    Constant,
    Dense,
    Embedding,
    Epoch,
    Evaluation,
    JsonValue,
    Metric,
    Network,
    Problem,
    Recipe,
    Settings,
    Split,
    State,
)

if TYPE_CHECKING:
    from tensorflow import Tensor

BATCH, STEPS, HIDDEN, WORDS, LAYERS = 20, 20, 200, 10_000, 2
SPARSITY = 0.9
CLIP_NORM = 5.0
RATE = 0.1
"""Learning rate; low enough that a model which is pruned all at once does not diverge."""


@dataclass(frozen=True)
class Variant:
    """One way to train: ours or theirs, and what is masked."""

    ours: bool
    masked: str = ""  # "", "lstm" or "all"

    def __str__(self) -> str:
        who = "harness" if self.ours else "TF-MOT" if self.masked else "Keras"
        return f"{who}, {f'{self.masked} pruned' if self.masked else 'dense'}"


@dataclass(frozen=True)
class Goal:
    """How many times as fast as another a variant has to be."""

    variant: Variant
    than: Variant
    at_least: float


PEERS = KERAS, TOOLKIT_LSTM, TOOLKIT = tuple(Variant(ours=False, masked=masked) for masked in ("", "lstm", "all"))
OURS = DENSE, LSTM_ONLY, PRUNED = tuple(Variant(ours=True, masked=masked) for masked in ("", "lstm", "all"))
GOALS = (
    Goal(DENSE, KERAS, 1.0),
    Goal(LSTM_ONLY, TOOLKIT_LSTM, 1.0),
    Goal(PRUNED, TOOLKIT, 1.0),
    Goal(PRUNED, DENSE, 0.9),
)


class Words(Problem):
    """The small language model on one stretch of text, the same in every epoch.

    Args:
        steps: training steps of an epoch.
        data_dir: where `ptb/ptb.train.txt` is; None draws words by Zipf's law.
    """

    def __init__(self, steps: int, data_dir: Path | None) -> None:
        sizes = {"inputs": HIDDEN, "units": HIDDEN, "input_label": "units"}
        lstms = tuple(LSTM.model_validate({"name": f"lstm_{index}", **sizes}) for index in range(LAYERS))
        softmax = Dense(name="softmax", inputs=HIDDEN, units=WORDS, role="softmax", input_label="units")
        self.network = Network(layers=(Embedding(name="embedding", words=WORDS, features=HIDDEN), *lstms, softmax))
        rate = Constant(rate=RATE)
        self.recipe = Recipe(epochs=1, optimiser=SGD(), learning_rate=rate, clip_norm=CLIP_NORM, steps_per_epoch=steps)
        self.metric = Metric(name="perplexity", better="lower")
        self._streams = text(data_dir, BATCH * (STEPS * steps + 1)).reshape(BATCH, -1)

    @property
    def fingerprint(self) -> str:
        """A name: nothing of this is stored."""
        return "benchmark"

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """None."""
        return {}

    def initial_weights(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Uniform in +-0.1."""
        rng = np.random.default_rng(seed)
        return {t.name: rng.uniform(-0.1, 0.1, t.shape).astype(np.float32) for t in self.tensors()}

    def batches(self, split: Split, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Segments of contiguous streams."""
        for start in range(0, STEPS * self.recipe.steps_per_epoch, STEPS):
            inputs, targets = (self._streams[:, at : at + STEPS] for at in (start, start + 1))
            yield Batch(inputs, targets)

    def value(self, evaluation: Evaluation) -> float:
        """Perplexity."""
        return float(np.exp(evaluation.nats / evaluation.items))


def text(data_dir: Path | None, length: int) -> NDArray[np.int32]:
    """Word ids; how often a word repeats within a batch matters to the embedding.

    Shapes:
        -> (length,).
    """
    if data_dir is None:
        return (np.random.default_rng(0).zipf(1.3, length) % WORDS).astype(np.int32)
    words = (data_dir / "ptb" / "ptb.train.txt").read_text().replace("\n", " <eos> ").split()
    ids = {word: index for index, word in enumerate(dict.fromkeys(words))}
    return np.array([ids[word] for word in words[:length]], np.int32)


def is_masked(tensor: str, masked: str) -> bool:
    """Whether the tensor is among those that `masked` means."""
    return masked == "all" or (bool(masked) and tensor.startswith(masked))


def harness_loop(variant: Variant, problem: Words) -> Callable[[], None]:
    """A function that trains an epoch with the backend."""
    from harness_plugins.backends.keras_tfmot import KerasTfmot

    session = KerasTfmot().open(problem, Settings())
    session.load(State(problem.initial_weights(0)))
    rng = np.random.default_rng(1)
    shapes = {tensor.name: tensor.shape for tensor in problem.tensors() if tensor.is_prunable}
    masks = {name: rng.random(shape) >= SPARSITY for name, shape in shapes.items() if is_masked(name, variant.masked)}
    if masks:
        session.set_masks(masks)

    def run() -> None:
        session.train_epoch(Epoch(rates=RATE), 0, lambda *_: {}, lambda _: None)

    return run


def toolkit_loop(variant: Variant, problem: Words) -> Callable[[], None]:
    """A function that trains an epoch as the documentation of Keras and TF-MOT shows."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    layers, pruning = keras.layers, tfmot.sparsity.keras
    schedule = pruning.ConstantSparsity(SPARSITY, begin_step=1, end_step=2, frequency=1)
    model, shape = keras.Sequential(), {"batch_input_shape": (BATCH, STEPS)}

    def add(kind: Callable[..., object], name: str, *sizes: int, **options: object) -> None:
        layer = kind(*sizes, name=name, **options)
        wrapped = is_masked(name, variant.masked)
        model.add(pruning.prune_low_magnitude(layer, pruning_schedule=schedule) if wrapped else layer)

    add(layers.Embedding, "embedding", WORDS, HIDDEN, **shape)
    for index in range(LAYERS):
        add(layers.LSTM, f"lstm_{index}", HIDDEN, return_sequences=True, stateful=True, unit_forget_bias=False)
    add(layers.Dense, "softmax", WORDS)

    def loss(targets: "Tensor", logits: "Tensor") -> "Tensor":
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(targets, tf.int32), logits)
        return tf.reduce_sum(entropy, axis=-1)

    model.compile(keras.optimizers.legacy.SGD(RATE, global_clipnorm=CLIP_NORM), loss=loss)
    callbacks = [pruning.UpdatePruningStep()] if variant.masked else []

    batches = list(problem.batches("train", 0, np.random.default_rng(0)))
    arrays = tuple(np.concatenate([getattr(batch, side) for batch in batches]) for side in ("inputs", "targets"))
    data = tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH, drop_remainder=True)

    def run() -> None:
        model.reset_states()
        history = model.fit(data, verbose=0, callbacks=callbacks)
        if not np.isfinite(history.history["loss"][0]):
            raise RuntimeError("the plain model diverged")

    run()
    masks = [mask.numpy() for layer in model.layers for _, mask, _ in getattr(layer, "pruning_vars", [])]
    if any(abs(mask.mean() + SPARSITY - 1) > 0.01 for mask in masks) or bool(masks) != bool(variant.masked):
        raise RuntimeError(f"TF-MOT was to prune to {SPARSITY}, got {[1 - float(mask.mean()) for mask in masks]}")
    return run


def serve(variant: Variant, load: Callable[[], Words], pipe: Connection) -> None:
    """Answer every message with the CPU seconds that one turn took; None ends it."""
    problem = load()
    run = (harness_loop if variant.ours else toolkit_loop)(variant, problem)
    run()  # graphs and buffers are made once
    pipe.send(0.0)
    while pipe.recv() is not None:
        begin = time.process_time()
        run()
        pipe.send(time.process_time() - begin)


def measure(rounds: int, load: Callable[[], Words]) -> dict[Variant, list[float]]:
    """CPU seconds per turn of every variant, one entry per round."""
    context = get_context("spawn")
    pipes, workers = {}, []
    for variant in (*PEERS, *OURS):
        pipes[variant], theirs = context.Pipe()
        workers.append(context.Process(target=serve, args=(variant, load, theirs), daemon=True))
        workers[-1].start()
        theirs.close()
        pipes[variant].recv()
    seconds: dict[Variant, list[float]] = {variant: [] for variant in (*PEERS, *OURS)}
    for _ in range(rounds):
        for variant, pipe in pipes.items():
            pipe.send("go")
            seconds[variant].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(None)
    for worker in workers:
        worker.join()
    return seconds


def ratio(seconds: Mapping[Variant, list[float]], fast: Variant, slow: Variant) -> float:
    """How many times as fast `fast` is as `slow`: the median over the rounds."""
    return statistics.median(s / f for f, s in zip(seconds[fast], seconds[slow], strict=True))


def main() -> int:
    """Measure, print a table and the goals; 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="training steps per turn")
    parser.add_argument("--data-dir", type=Path, help="folder of ptb/")
    options = parser.parse_args()
    seconds = measure(options.rounds, partial(Words, options.steps, options.data_dir))
    print(
        f"{'variant':22} {'min ms per step':>15} {'median':>8} {'tokens/s':>10} {'x Keras':>8}   (CPU time, measured)"
    )
    for variant in (*PEERS, *OURS):
        least, step = (of(seconds[variant]) / options.steps for of in (min, statistics.median))
        beside = ratio(seconds, variant, KERAS)
        print(f"{variant!s:22} {1e3 * least:15.1f} {1e3 * step:8.1f} {BATCH * STEPS / step:10.0f} {beside:8.2f}")
    print()
    missed = 0
    for goal in GOALS:
        found = ratio(seconds, goal.variant, goal.than)
        missed += found < goal.at_least
        verdict = "met" if found >= goal.at_least else "MISSED"
        print(f"{verdict:6}  {goal.variant} is {found:.2f} x {goal.than}; goal {goal.at_least}")
    print(f"keras_training: {len(GOALS) - missed} of {len(GOALS)} goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
