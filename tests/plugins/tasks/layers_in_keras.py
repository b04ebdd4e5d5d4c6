"""A model of every kind of layer that is computed in fixed point, and of some that are not."""

import numpy as np
import tensorflow as tf  # noqa: TID253  # imported by scripts in a process of their own
import tf_keras  # noqa: TID253  # imported by scripts in a process of their own
from layer_cases import normed_numbers

layers = tf_keras.layers


class Sub(tf_keras.Model):
    """A subclassed model whose call is a graph and whose state stays."""

    def __init__(self):
        super().__init__()
        self.g = layers.GRU(4, return_sequences=True, stateful=True, name="g")
        self.d = layers.Dense(3, name="d")

    @tf.function
    def call(self, values):
        return self.d(self.g(values))


class Shortcut(tf_keras.Model):
    """A subclassed block whose first norm alone reads what it is given."""

    def __init__(self):
        super().__init__()
        self.first, self.after = layers.Conv2D(3, 3, padding="same", name="first"), norm("after")
        self.second, self.beside = layers.Conv2D(3, 1, name="second"), norm("beside")

    def call(self, values, training=False):
        if values.shape[0] == 1:
            return tf.nn.relu(self.first(values))
        sums = self.second(tf.nn.relu(self.after(self.first(values), training=training)))
        return self.beside(sums, training=training) + sums


def norm(name, **named):
    """A norm whose statistics and parameters differ from channel to channel, as after some training."""
    drawn = {
        each: tf_keras.initializers.RandomUniform(0.2, 2, seed=place)
        for place, each in enumerate(("beta", "gamma", "moving_mean", "moving_variance"))
    }
    given = {f"{each}_initializer": initializer for each, initializer in drawn.items()}
    return layers.BatchNormalization(name=name, **{**given, **named})


def normed():
    """Models with norms, their inputs, what is computed in fixed point, and which norms are parts of layers."""
    rng = np.random.default_rng(1)

    def stacked(shape, *parts):
        return tf_keras.Sequential([layers.Input(shape), *parts]), rng.standard_normal((2, *shape)).astype(np.float32)

    given = layers.Input((6, 6, 2))
    sums = layers.Conv2D(3, 3, use_bias=False, name="conv")(given)
    rest = layers.Conv2D(3, 1, name="other")(layers.ReLU()(norm("norm")(sums)))
    residual = tf_keras.Model(given, layers.Add()([rest, sums]))
    images = rng.standard_normal((2, 6, 6, 2)).astype(np.float32)
    own = Shortcut()
    own(images)
    return {
        "conv": (
            *stacked((6, 6, 2), layers.Conv2D(3, 3, use_bias=False, name="conv"), norm("norm"), layers.ReLU()),
            ["conv", "norm"], {"conv": "norm"},
        ),
        "dense over steps": (
            *stacked((3, 5), layers.Dense(4, name="dense"), norm("norm", scale=False, center=False)),
            ["dense", "norm"], {"dense": "norm"},
        ),
        "depthwise": (
            *stacked((6, 6, 2), layers.DepthwiseConv2D(3, depth_multiplier=2, name="conv"), norm("norm")),
            ["conv", "norm"], {"conv": "norm"},
        ),
        "separable": (
            *stacked((6, 6, 2), layers.SeparableConv2D(4, 3, name="conv"), norm("norm", trainable=False)),
            ["conv", "norm"], {"conv": "norm"},
        ),
        "after an activation": (
            *stacked((6, 6, 2), layers.Conv2D(3, 3, activation="relu", name="conv"), norm("norm")), ["conv"], {},
        ),
        "another axis": (*stacked((3, 5), layers.Dense(4, name="dense"), norm("norm", axis=1)), ["dense"], {}),
        "sums read beside the norm": (residual, images, ["conv", "other"], {}),
        "subclassed": (own, images, ["after", "first", "second"], {"first": "after"}),
    }  # fmt: skip


def contradicted():
    """A model that gives its sums without their norm for one item alone, and two batches."""
    own, images = Shortcut(), np.ones((2, 6, 6, 2), np.float32)
    own(images)
    return own, images, images[:1]


def alone():
    """The layers of `normed_numbers` with their values."""
    numbers = normed_numbers()
    dense = tf_keras.Sequential([layers.Input((18,)), layers.Dense(4), layers.BatchNormalization()])
    conv = tf_keras.Sequential([layers.Input((3, 3, 2)), layers.Conv2D(4, 3), layers.BatchNormalization()])
    kernels = {dense: numbers["weights"].T, conv: numbers["weights"].reshape(4, 2, 3, 3).transpose(2, 3, 1, 0)}
    for model, kernel in kernels.items():
        model.layers[0].set_weights([kernel, numbers["bias"]])
        model.layers[1].set_weights([numbers[name] for name in ("gamma", "beta", "mean", "variance")])
    values = numbers["values"]
    return {"linear": (dense, values), "conv": (conv, values.reshape(6, 2, 3, 3).transpose(0, 2, 3, 1))}


def cases():
    """Models with their inputs."""
    rng = np.random.default_rng(0)

    def alone(kind, shape, *arguments, **named):
        named = {"bias_initializer": "random_normal", "name": "layer", **named}
        return tf_keras.Sequential([layers.Input(shape), kind(*arguments, **named)]), drawn(2, *shape)

    def stacked(shape, *parts):
        return tf_keras.Sequential([layers.Input(shape), *parts]), drawn(2, *shape)

    def drawn(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    sub = Sub()
    sub(drawn(2, 3, 5))  # or its state cannot be forgotten
    words = np.array([[1, 2, 3, 0, 0, 0], [4, 0, 5, 6, 0, 0]])
    found = {
        "dense": alone(layers.Dense, (3, 5), 4, "softmax"),
        "Conv1D": alone(layers.Conv1D, (9, 4), 6, 3, padding="causal", dilation_rate=2, groups=2),
        "Conv2D": alone(layers.Conv2D, (8, 7, 4), 6, (3, 2), strides=2, padding="same", activation="relu"),
        "Conv3D": alone(layers.Conv3D, (4, 5, 6, 2), 3, 2),
        "DepthwiseConv1D": alone(layers.DepthwiseConv1D, (8, 4), 3, depth_multiplier=2, padding="same"),
        "DepthwiseConv2D": alone(layers.DepthwiseConv2D, (8, 7, 4), 3, depth_multiplier=2, padding="same", strides=2),
        "SeparableConv1D": alone(layers.SeparableConv1D, (8, 4), 5, 3, strides=2),
        "SeparableConv2D": alone(layers.SeparableConv2D, (8, 7, 4), 5, 3, padding="same"),
        "LSTM": stacked((4, 5), layers.LSTM(6, return_sequences=True, name="layer"), layers.LSTM(3, name="next")),
        "bidirectional GRU": stacked(
            (4, 5),
            layers.Bidirectional(
                layers.GRU(6, return_sequences=True, bias_initializer="random_normal", name="inner"), name="layer"
            ),
            layers.GRU(3, reset_after=False, go_backwards=True, name="next"),
        ),
        "cells": stacked(
            (4, 5),
            layers.RNN(layers.LSTMCell(3), return_sequences=True, name="layer"),
            layers.SimpleRNN(3, activation="relu", name="next"),
        ),
        "other functions": stacked((4, 5), layers.LSTM(6, recurrent_activation="hard_sigmoid", name="layer")),
        "masked": (
            stacked(
                (6,),
                layers.Embedding(9, 5, mask_zero=True),
                layers.LSTM(6, return_sequences=True, name="lstm"),
                layers.GRU(4, return_sequences=True, name="gru"),
                layers.Dense(3, name="next"),
            )[0],
            words,
        ),
        "stateful inside a tf.function": (sub, drawn(2, 3, 5)),
        "transposed convolution": alone(layers.Conv2DTranspose, (8, 7, 4), 6, 3),
    }
    given = layers.Input((4, 8))
    attended = layers.MultiHeadAttention(2, 4, name="layer")(given, given)
    found["attention"] = tf_keras.Model(given, layers.LayerNormalization()(attended)), drawn(2, 4, 8)
    given = layers.Input((4, 5))
    outputs, h, c = layers.LSTM(6, return_state=True, return_sequences=True, name="layer")(given)
    after = layers.LSTM(6, return_sequences=True, name="next")(outputs, initial_state=[h, c])
    found["states"] = tf_keras.Model(given, [after, h]), drawn(2, 4, 5)
    return found
