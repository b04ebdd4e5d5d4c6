"""Keras models of many kinds of layer, for tests: random classes, told apart by their mean."""

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras import layers

from harness.api import AdamW, Metric, OwnModel


def split(seed, items):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, items)
    return (rng.normal(size=(items, 4, 4, 1)) + labels[:, None, None, None]).astype(np.float32), labels


def everything():
    """A functional model: TF-MOT can wrap its layers but those of attention and inside `Bidirectional`."""
    x = images = layers.Input((4, 4, 1))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depth")(x)
    x = layers.Conv1D(8, 1, groups=2, name="grouped")(layers.Reshape((16, 8))(x))
    x = x + layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LSTM(4, return_sequences=True, dropout=0.2, name="lstm")(x)
    x = layers.Bidirectional(layers.GRU(6, name="gru"), name="both")(x)
    return keras.Model(images, layers.Dense(3, name="out")(layers.Dropout(0.3)(x)))


class Residual(keras.Model):
    """A subclassed model, which TF-MOT does not wrap, with a draw that no layer owns."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(8, name="first")
        self.norm = layers.BatchNormalization(name="norm")
        self.second = layers.Dense(8, name="second", kernel_regularizer="l2")
        self.frozen = layers.Dense(8, name="frozen", trainable=False)
        self.out = layers.Dense(3, name="out")
        self.own = self.add_weight("own", (8, 8))

    def call(self, images, training=False):
        x = tf.nn.relu(self.norm(self.first(tf.reshape(images, (-1, 16))), training=training))
        x = x + self.second(x) + self.frozen(x) @ self.own
        if training:
            x = tf.nn.dropout(x, 0.3)
        return self.out(x)


def own(**changes):
    values = {
        "model": everything,
        "train": split(0, 50),
        "valid": split(1, 20),
        "test": split(2, 20),
        "epochs": 4,
        "batch": 8,
        "learning_rate": 0.02,
        "optimiser": AdamW(),
    }
    return OwnModel(**(values | changes))


def task() -> OwnModel:
    return own()


def subclassed() -> OwnModel:
    """A user's own optimiser and schedule."""
    return own(
        model=Residual,
        prunable=["own"],
        optimiser=lambda variables: keras.optimizers.Adam(0.1, weight_decay=0.01),
        learning_rate=lambda epoch: 0.02 / (1 + epoch),
        clip_norm=1.0,
    )


class Branching(keras.Model):
    """Calls, a loss and a metric with loops and branches over tensors."""

    def __init__(self):
        super().__init__()
        self.first = Doubling()
        self.out = layers.Dense(3, name="out")

    def call(self, images):
        return self.out(self.first(tf.reshape(images, (-1, 16))))


class Doubling(layers.Layer):
    """A layer inside another, with a matrix of its own and a loop that depends on what it gets."""

    def build(self, shape):
        self.kernel = self.add_weight("kernel", (16, 8))

    def call(self, values):
        result = values @ self.kernel
        while tf.reduce_max(tf.abs(result)) < 1:
            result = result * 2
        return result


def branching() -> OwnModel:
    def loss(outputs, targets):
        if tf.reduce_mean(outputs) > 0:
            return tf.reduce_mean(outputs**2)
        return tf.reduce_mean(tf.abs(outputs))

    def measure(outputs, targets):
        twice = 0.0
        for _ in tf.range(2):
            twice += tf.cast(tf.size(targets), tf.float32)
        return twice

    return own(
        model=Branching,
        loss=loss,
        measure=measure,
        metric=Metric(name="twice", better="lower"),
        prunable=["doubling.kernel"],
    )


def stream() -> OwnModel:
    """Data as `tf.data`, shuffled by the seed of the epoch; a plain Sequential with a softmax of Keras."""
    data = tf.data.Dataset.from_tensor_slices(split(0, 48))
    return own(
        model=lambda: keras.Sequential([layers.Flatten(), layers.Dense(6, "relu"), layers.Dense(3, "softmax")]),
        train=lambda seed: data.shuffle(48, seed=seed).batch(8),
        valid=tf.data.Dataset.from_tensor_slices(split(1, 20)).batch(16),
    )


def unsteady() -> OwnModel:
    return own(train=tf.data.Dataset.from_tensor_slices(split(0, 48)).shuffle(48).batch(8))


def own_metric() -> OwnModel:
    """The mean distance of the targets' outputs from 1, from two sums; data as a `Sequence` of batches."""

    def sums(outputs, targets):
        chosen = tf.gather(outputs, tf.cast(targets, tf.int32), batch_dims=1)
        return tf.stack([tf.reduce_sum(tf.abs(1 - chosen)), tf.cast(tf.size(chosen), tf.float32)])

    class Batches(keras.utils.Sequence):
        def __len__(self):
            return 6

        def __getitem__(self, place):
            return tuple(part[place * 8 : place * 8 + 8] for part in split(0, 48))

    return own(
        train=Batches(),
        measure=sums,
        finish=lambda sums, items: float(sums[0] / sums[1]),
        metric=Metric(name="distance", better="lower", digits=3),
    )


def probabilities() -> OwnModel:
    return own(model=lambda: keras.Sequential([layers.Flatten(), layers.Dense(3), layers.Lambda(tf.nn.softmax)]))


def late_error() -> OwnModel:
    """A loss that fails where it is compiled, not on the first batch that is looked at."""

    def loss(outputs, targets):
        if not tf.executing_eagerly():
            raise RuntimeError("the loss gave up")
        return tf.reduce_mean(outputs)

    return own(model=Residual, loss=loss)


def wrong_shape() -> OwnModel:
    return own(model=Residual, loss=lambda outputs, targets: tf.reduce_mean(outputs @ tf.ones((7, 7))))


def not_finite() -> OwnModel:
    return own(model=Residual, loss=lambda outputs, targets: tf.reduce_mean(outputs) * float("nan"))


def out_of_memory() -> OwnModel:
    def loss(outputs, targets):
        return tf.reduce_mean(outputs) + (0.0 if tf.executing_eagerly() else tf.reduce_sum(huge()))

    def huge():
        return tf.random.uniform((1 << 22, 1 << 22))

    return own(model=Residual, loss=loss)


def ends_early() -> OwnModel:
    few = tf.data.Dataset.from_tensor_slices(split(0, 16)).batch(8)
    return own(model=Residual, train=few, steps_per_epoch=3, data_version="1")


def endless() -> OwnModel:
    return own(train=tf.data.Dataset.from_tensor_slices(split(0, 16)).batch(8).repeat())


def pretrained(start: str) -> OwnModel:
    return own(start=start, epochs=0)


def flat(outputs=3, activation=None, **changes):
    return keras.Sequential([layers.Flatten(), layers.Dense(6, "relu", **changes), layers.Dense(outputs, activation)])


def classes(**changes):
    images, labels = split(0, 48)
    hot = np.eye(3, dtype=np.float32)[labels]
    pick = {
        "hot": hot,
        "column": labels[:, None].astype(np.float32),
        "first": (labels[:, None] == 0).astype(np.float32),
    }
    targets = pick.get(changes.pop("targets", ""), labels)
    images = images if changes.pop("inputs", 1) == 1 else [images.reshape(48, 16), images.reshape(48, 16)]
    return own(
        **{"model": flat, "train": (images, targets), "valid": (images, targets), "test": (images, targets), **changes}
    )


def two_of_each():
    """A functional model with two inputs and two outputs."""
    one, other = layers.Input(16), layers.Input(16)
    hidden = layers.Dense(6, "relu", name="hidden")(layers.Concatenate()([one, other]))
    return keras.Model([one, other], [layers.Dense(3, name="p")(hidden), layers.Dense(2, name="q")(hidden)])


def first_loss(outputs, targets):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)(targets, outputs[0])


def first_correct(outputs, targets):
    return tf.reduce_sum(tf.cast(tf.argmax(outputs[0], 1) == tf.cast(targets, tf.int64), tf.float32))


def mixed():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        return flat()
    finally:
        keras.mixed_precision.set_global_policy("float32")


class TrainingItself(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = flat()

    def call(self, images):
        return self.inner(images)

    def train_step(self, data):
        return {}


class Drawn:
    """Items that are augmented by draws from NumPy."""

    def __len__(self):
        return 48

    def __getitem__(self, place):
        images, labels = split(0, 48)
        return images[place] + np.random.normal(size=(4, 4, 1)).astype(np.float32), labels[place]


def compiled(loss):
    model = flat()
    model.compile("adam", loss)
    return model


def padded():
    """Tokens of which the last two are padding, and a target for each."""
    tokens = np.random.default_rng(0).integers(1, 9, (48, 5))
    tokens[:, 3:] = 0
    embedding = lambda: layers.Embedding(9, 4, mask_zero=True)  # noqa: E731
    model = lambda: keras.Sequential([embedding(), layers.Dense(9)])  # noqa: E731
    return own(model=model, train=(tokens, tokens), valid=(tokens, tokens), test=(tokens, tokens))


def stateful():
    state = layers.SimpleRNN(3, stateful=True, name="rnn")
    return keras.Sequential([layers.Reshape((4, 4), batch_input_shape=(8, 4, 4, 1)), state])


SHARED = flat()
BROUGHT = {
    "plain": classes,
    "one-hot targets": lambda: classes(targets="hot"),
    "a column of targets": lambda: classes(targets="column"),
    "a loss of Keras": lambda: classes(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
    "a function of Keras": lambda: classes(
        model=lambda: flat(3, "softmax"), loss=keras.losses.sparse_categorical_crossentropy
    ),
    "two of each": lambda: classes(
        model=two_of_each, inputs=2, loss=first_loss, measure=first_correct, metric=Metric(name="p", better="higher")
    ),
    "mixed precision": lambda: classes(model=mixed),
    "an activity regulariser": lambda: classes(model=lambda: flat(activity_regularizer="l1")),
    "a schedule of Keras": lambda: classes(learning_rate=keras.optimizers.schedules.ExponentialDecay(0.02, 10, 0.5)),
    "one output": lambda: classes(
        model=lambda: flat(1, "sigmoid"), loss=keras.losses.BinaryCrossentropy(), targets="first"
    ),
    "a metric of Keras": lambda: classes(
        measure=keras.metrics.SparseCategoricalAccuracy(), metric=Metric(name="a", better="higher")
    ),
    "a training of its own": lambda: classes(model=TrainingItself),
    "compiled with another loss": lambda: classes(model=lambda: compiled("mse")),
    "constraints": lambda: classes(model=lambda: flat(kernel_constraint="non_neg")),
    "the same model again": lambda: classes(model=lambda: SHARED),
    "masked steps": padded,
    "weights of items": lambda: classes(
        train=tf.data.Dataset.from_tensor_slices((*split(0, 48), np.ones(48, np.float32))).batch(8)
    ),
    "a state from batch to batch": lambda: classes(model=stateful, batch=8),
}


def brought(name: str) -> OwnModel:
    return BROUGHT[name]()


def drawn() -> OwnModel:
    return own(model=flat, train=Drawn(), data_version="1")
