"""What training a model of one's own costs beside a plain loop of the user's: `python -m benchmarks.own_model`.

A convolutional network and an LSTM, in PyTorch and in Keras, one thread, batches of 64, SGD with momentum. The peer is
what a user writes: in PyTorch the loop of its tutorial with `torch.optim.SGD`, in Keras a `tf.function` around a
gradient tape with Keras' own optimiser. Ours and theirs take turns, an epoch of 40 steps each, in one process per
framework; a ratio is the median over the rounds of the ratio within a round, of CPU seconds. Ours is measured dense and
with three quarters of every matrix masked. Ends with exit code 1 where a goal is missed.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from harness.api import Epoch, Settings, State

MODELS = Path(__file__).with_name("own_models")
GOALS = {("cnn", "dense"): 1.05, ("cnn", "masked"): 1.10, ("lstm", "dense"): 1.05, ("lstm", "masked"): 1.10}
KINDS = ("cnn", "lstm")


def plain_torch(problem: Any) -> Callable[[], None]:
    """An epoch of a plain loop."""
    import torch

    opened = problem.native()
    model = opened.built(0)
    optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    x, y = (torch.as_tensor(part) for part in opened.own.train)

    def epoch() -> None:
        model.train()
        order = torch.randperm(len(x))
        for step in range(len(x) // 64):
            chosen = order[step * 64 : step * 64 + 64]
            loss = torch.nn.functional.cross_entropy(model(x[chosen]), y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()

    return epoch


def plain_keras(problem: Any) -> Callable[[], None]:
    """An epoch of a compiled plain loop."""
    import tensorflow as tf
    import tf_keras as keras

    opened = problem.native()
    model = opened.built(0)
    optimiser = keras.optimizers.SGD(0.01, momentum=0.9)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    x, y = opened.own.train

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow has no types
    def train(inputs: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(targets, model(inputs, training=True))
        optimiser.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    def epoch() -> None:
        order = np.random.default_rng(0).permutation(len(x))
        for step in range(len(x) // 64):
            chosen = order[step * 64 : step * 64 + 64]
            float(train(x[chosen], y[chosen]))

    return epoch


def measure(framework: str, rounds: int, answer: Connection) -> None:
    """In a process of its own: ratios of ours to theirs by model and masking."""
    from harness_plugins.backends.keras_tfmot import KerasTfmot
    from harness_plugins.backends.torch_backend import TorchBackend
    from harness_plugins.tasks.own import Own

    backend: Any = TorchBackend() if framework == "torch" else KerasTfmot()
    plain = plain_torch if framework == "torch" else plain_keras
    found: dict[str, float] = {}
    for kind in KINDS:
        values = json.dumps({"entry": f"in_{framework}.py:task", "kind": kind})
        problem = Own.model_validate_json(values, context={"folder": MODELS}).load(None)
        session = backend.open(problem, Settings())
        session.load(State(problem.initial_weights(0)))
        theirs = plain(problem)
        for masking in ("dense", "masked"):
            if masking == "masked":
                weights = {name: w for name, w in session.weights().items() if w.ndim == 2}
                session.set_masks({name: np.abs(w) > np.quantile(np.abs(w), 0.75) for name, w in weights.items()})
            ours = lambda: session.train_epoch(Epoch(rates=0.01), 0, _no_updates, lambda step: None)  # noqa: B023, E731
            ratios = []
            for turn in range(rounds + 1):  # the first traces and warms up
                seconds = [_timed(each) for each in ((ours, theirs) if turn % 2 else (theirs, ours))]
                ratios.append(seconds[0] / seconds[1] if turn % 2 else seconds[1] / seconds[0])
            found[f"{kind} {masking}"] = statistics.median(ratios[1:])
    answer.send(found)


def _no_updates(*given: object) -> Any:
    raise AssertionError("nothing is pruned while it is timed")


def _timed(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> int:
    """Measure, print, compare with the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frameworks", nargs="+", default=["torch", "keras"], choices=["torch", "keras"])
    options = parser.parse_args()
    missed = 0
    print(f"{'framework':<10} {'model':<12} {'ours / theirs':>14} {'goal':>6}")
    for framework in options.frameworks:
        here, there = get_context("spawn").Pipe()
        process = get_context("spawn").Process(target=measure, args=(framework, options.rounds, there))
        process.start()
        there.close()
        found = here.recv()
        process.join()
        for (kind, masking), goal in GOALS.items():
            ratio = found[f"{kind} {masking}"]
            missed += ratio > goal
            print(f"{framework:<10} {kind + ' ' + masking:<12} {ratio:>13.3f}x {goal:>6}")
    print(f"{missed} goals missed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
