"""Models of a user's for `benchmarks.own_model`, in Keras."""

import numpy as np
import tf_keras as keras

from harness.api import SGD, OwnModel

layers = keras.layers


def convolutions() -> keras.Model:
    """Three convolutions with batch norm."""
    parts = [layers.Input((28, 28, 1))]
    for width in (16, 32, 64):
        parts += [layers.Conv2D(width, 3, 2, "same"), layers.BatchNormalization(), layers.ReLU()]
    return keras.Sequential([*parts, layers.Flatten(), layers.Dense(10)])


def tagger() -> keras.Model:
    """An LSTM with a class for its whole input."""
    return keras.Sequential([layers.Input((20, 64)), layers.LSTM(128), layers.Dense(10)])


def task(kind: str = "cnn", items: int = 2560) -> OwnModel:
    """Random items: what is timed does not depend on them."""
    rng = np.random.default_rng(0)
    shape = (28, 28, 1) if kind == "cnn" else (20, 64)
    data = rng.normal(size=(items, *shape)).astype(np.float32), rng.integers(0, 10, items)
    return OwnModel(
        model=convolutions if kind == "cnn" else tagger, train=data, valid=data, test=data, batch=64,
        optimiser=SGD(momentum=0.9), data_version="1",
    )  # fmt: skip
