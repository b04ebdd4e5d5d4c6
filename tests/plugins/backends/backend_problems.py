"""Tiny problems that the tests of both backends train, and what they measure; no framework is needed for it."""

from collections.abc import Iterator, Mapping

import numpy as np
from harness_plugins.patterns.unstructured import Unstructured

from harness.api import (
    LSTM,
    SGD,
    Activation,
    Batch,
    Constant,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Epoch,
    Flatten,
    MaskUpdate,
    Metric,
    Network,
    Pool2D,
    Problem,
    Recipe,
    State,
)
from harness.masks.updates import MaskMaker


class TinyProblem(Problem):
    """Random data with something to learn in it, for any network; every epoch has its own, whatever the seed."""

    def __init__(
        self, network, *, steps=12, batch=4, length=5, classes=11, optimiser=None, clip_norm=5.0, rate=1.0, ids=None
    ):
        self.network = network
        self.recipe = Recipe(
            epochs=10,
            optimiser=optimiser or SGD(),
            learning_rate=Constant(rate=rate),
            clip_norm=clip_norm,
            steps_per_epoch=steps,
        )
        self.metric = Metric(name="accuracy", better="higher", needs_correct=not network.is_recurrent)
        self.shape = (batch, length) if network.input_shape == () else (batch, *network.input_shape)
        self.classes = classes
        self.ids = ids

    @property
    def fingerprint(self) -> str:
        return "tiny"

    @property
    def facts(self) -> Mapping[str, object]:
        return {}

    def initial_weights(self, seed):
        rng = np.random.default_rng([seed, 1])
        return {t.name: rng.uniform(-0.3, 0.3, t.shape).astype(np.float32) for t in self.tensors()}

    def batches(self, split, epoch, rng) -> Iterator[Batch]:
        rng = np.random.default_rng([epoch if split == "train" else 99, 7])
        for _ in range(self.recipe.steps_per_epoch):
            if self.network.input_shape == ():
                words = self.ids if self.ids is not None else self.classes
                inputs = rng.integers(0, words, self.shape).astype(np.int32)
                # The next word follows from this one, so that there is something to learn.
                targets = ((inputs * 3 + 1) % self.classes).astype(np.int32)
            else:
                inputs = rng.standard_normal(self.shape).astype(np.float32)
                targets = (inputs.reshape(len(inputs), -1)[:, : self.classes]).argmax(1).astype(np.int32)
            yield Batch(inputs, targets)

    def value(self, evaluation) -> float:
        return evaluation.nats / evaluation.items


def language_network(words=11, units=6, rate=0.0, layers=2):
    """Embedding, stacked LSTM layers and a softmax, with dropout on the non-recurrent paths."""
    stack = [Embedding(name="embedding", words=words, features=units), Dropout(rate=rate)]
    label = "embedding.features"
    for index in range(layers):
        stack += [LSTM(name=f"lstm_{index}", inputs=units, units=units, input_label=label), Dropout(rate=rate)]
        label = f"lstm_{index}.units"
    stack.append(Dense(name="softmax", inputs=units, units=words, role="softmax", input_label=label))
    return Network(layers=tuple(stack))


def image_network():
    """Every other layer of the vocabulary, on 2 x 9 x 9 images."""
    return Network(
        layers=(
            Conv2D(name="conv_0", inputs=2, outputs=3, kernel=(3, 2), padding=1, input_label="pixels"),
            Activation(function="relu"),
            Pool2D(kind="max", size=2),
            Conv2D(name="conv_1", inputs=3, outputs=4, kernel=(2, 2), stride=2, input_label="conv_0.channels"),
            Activation(function="tanh"),
            Pool2D(kind="mean", size=2),
            Flatten(),
            Dense(name="hidden", inputs=4, units=5, input_label="conv_1.channels"),
            Activation(function="sigmoid"),
            Dropout(rate=0.5),
            Dense(name="output", inputs=5, units=3, input_label="hidden.units"),
        ),
        input_shape=(2, 9, 9),
    )


def matrices(problem):
    return [tensor for tensor in problem.tensors() if tensor.is_prunable]


def masker_of(problem, pattern=None):
    return MaskMaker(pattern or Unstructured(), "uniform", matrices(problem), seed=0)


def epochs_of(updates, steps, count, rate=1.0):
    """A table of updates over a whole training, cut into epochs; one at the very end belongs to the last epoch."""
    cut = [[] for _ in range(count)]
    for step, sparsity in updates:
        index = min(step // steps, count - 1)
        cut[index].append(MaskUpdate(step=step - index * steps, sparsity=sparsity))
    return [Epoch(rates=rate, updates=tuple(part)) for part in cut]


def differing(one, other):
    """Names of the arrays of two states whose bytes differ."""
    pairs = []
    for part in ("weights", "masks", "slots", "extra"):
        left, right = getattr(one, part), getattr(other, part)
        assert left.keys() == right.keys(), (left.keys(), right.keys())
        pairs += [(f"{part}/{name}", left[name], right[name]) for name in left]
    return [name for name, left, right in pairs if left.tobytes() != right.tobytes() or left.dtype != right.dtype]


def saved(state, folder):
    """The state after a way through files."""
    parts = {}
    for part in ("weights", "masks", "slots", "extra"):
        np.savez(
            folder / f"{part}.npz", **{name.replace("/", "|"): value for name, value in getattr(state, part).items()}
        )
        with np.load(folder / f"{part}.npz") as file:
            parts[part] = {name.replace("|", "/"): file[name] for name in file.files}
    return State(**parts)
