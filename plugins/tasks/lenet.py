"""LeNet-300-100 and LeNet-5 on small grey images of ten classes, scored by accuracy."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.api import (
    SGD,
    Activation,
    Batch,
    Conv2D,
    DataError,
    Dense,
    Evaluation,
    Flatten,
    JsonValue,
    Layer,
    Metric,
    Network,
    PluginContractError,
    Pool2D,
    Problem,
    Recipe,
    Split,
    StepDecay,
    Task,
    Tensor,
    hookimpl,
)

from . import _images, _shared
from ._images import Images

EVALUATION_BATCH = 500

MODELS = {
    "lenet_300_100": "784-300-100-10 with ReLU",
    "lenet_5": "ReLU and max pooling: conv 6@5x5 padded by 2, pool, conv 16@5x5, pool, 120-84-10",
}
ADAPTED = {
    "lenet_300_100": "64-300-100-10 with ReLU: adapted to 8 x 8 pixels",
    "lenet_5": "adapted to 8 x 8 pixels: conv 6@5x5 padded by 2, pool, conv 16@3x3 padded by 1, pool, 120-84-10, ReLU",
}


class Lenet(Task):
    """A small classifier of grey images. The recipe is this project's own: plain momentum SGD, halved rates at the end.

    Source:
        LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998, for the sizes
        of the layers; ReLU and max pooling replace its squashing functions and trained sub-sampling.
    """

    name: ClassVar[str] = "lenet"
    model: Literal["lenet_300_100", "lenet_5"] = Field(default="lenet_300_100", description="the network")
    data: Literal["digits", "mnist", "fashion_mnist"] = Field(
        default="digits", description="embedded 8 x 8 digits, or the files of MNIST or Fashion-MNIST"
    )
    train_items: int | None = Field(default=None, gt=0, description="use the first images of the training split only")
    eval_items: int | None = Field(default=None, gt=0, description="use the first images of valid and of test only")
    epochs: int = Field(default=15, gt=0, description="dense training, epochs")
    batch: int = Field(default=32, gt=0, description="images per step; the last incomplete batch is dropped")
    learning_rate: float = Field(default=0.05, gt=0, allow_inf_nan=False, description="the full learning rate")
    full_epochs: int = Field(default=8, ge=0, description="epochs at the full learning rate")
    decay: float = Field(default=0.5, gt=0, le=1, description="factor on the rate for every epoch after those")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="heavy-ball momentum")
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="added to the gradient, per weight")

    def load(self, data_dir: Path | None) -> "ImageClassification":
        """Read the images and cut them."""
        if self.data == "digits":
            return ImageClassification(self, _images.digits())
        read = _images.mnist if self.data == "mnist" else _images.fashion_mnist
        return ImageClassification(self, read(data_dir))

    def smoke(self) -> "Lenet":
        """A few images, all epochs: strategies name epochs of the recipe."""
        return self.model_copy(update={"train_items": 64, "eval_items": 100, "batch": 32})


class ImageClassification(Problem):
    """Images with labels, and the network that tells them apart.

    Args:
        task: its parameters.
        images: the whole data set.

    Raises:
        DataError: a split has fewer images than asked for, or too few for one batch.
    """

    metric = Metric(name="accuracy", unit="%", better="higher", digits=2, needs_correct=True)

    def __init__(self, task: Lenet, images: Images) -> None:
        """Cut the splits and build the network."""
        self._task, self._images = task, images
        self._sizes: dict[Split, int] = {
            "train": self._size("train", task.train_items, task.batch),
            "valid": self._size("valid", task.eval_items, 1),
            "test": self._size("test", task.eval_items, 1),
        }
        side = images.pixels["train"].shape[-1]
        self.network = _lenet_5(side) if task.model == "lenet_5" else _lenet_300_100(side)
        self.recipe = Recipe(
            epochs=task.epochs,
            optimiser=SGD(momentum=task.momentum, weight_decay=task.weight_decay),
            learning_rate=StepDecay(initial=task.learning_rate, decay=task.decay, full_epochs=task.full_epochs),
            steps_per_epoch=self._sizes["train"] // task.batch,
        )

    def _size(self, split: Split, asked: int | None, needed: int) -> int:
        there = len(self._images.labels[split])
        if asked is not None and asked > there:
            field = "train_items" if split == "train" else "eval_items"
            raise DataError(f"lenet: {field}={asked} asks for more than the {there} {split} images; lower or omit it")
        size = there if asked is None else asked
        if size < needed:
            raise DataError(f"lenet needs {needed} {split} images for one batch, got {size}; lower batch or add images")
        return size

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the images as cut, the batch and the network."""
        arrays = [part(split) for split in self._sizes for part in (self._pixels, self._labels)]
        rules = f"{self._task.result_version} {self._task.batch} {self._images.white}"
        return _shared.digest([Lenet.name, rules, self.network.model_dump_json()], arrays)

    def _pixels(self, split: Split) -> NDArray[np.uint8]:
        return self._images.pixels[split][: self._sizes[split]]

    def _labels(self, split: Split) -> NDArray[np.int32]:
        return self._images.labels[split][: self._sizes[split]]

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """Data set, protocol, items and the network in words."""
        items: dict[str, JsonValue] = dict(self._sizes.items())
        text = MODELS if self._images.pixels["train"].shape[-1] == _images.MNIST_SIDE else ADAPTED
        return {
            "data": self._images.name,
            "protocol": self._images.protocol,
            "items": items,
            "is_cut": self._task.train_items is not None or self._task.eval_items is not None,
            "classes": _images.CLASSES,
            "model": text[self._task.model],
        }

    def initial_weights(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Kernels uniform within +-sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010), biases zero."""
        return {
            tensor.name: np.zeros(tensor.shape, dtype=np.float32)
            if tensor.cols is None
            else _shared.uniform(tensor, _glorot(tensor), seed)
            for tensor in self.tensors()
        }

    def batches(self, split: Split, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Train: shuffled by `rng`, full batches only. Valid and test: every image, in order.

        Shapes:
            inputs (batch, *input_shape) in [0, 1], targets (batch,).
        """
        pixels, labels = self._pixels(split), self._labels(split)
        if split == "train":
            size, order = self._task.batch, rng.permutation(len(labels))
            # A batch that is not full would weigh its images more in the mean gradient.
            order = order[: self.recipe.steps_per_epoch * size]
        else:
            size, order = EVALUATION_BATCH, np.arange(len(labels))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            inputs = pixels[chosen].astype(np.float32) / np.float32(self._images.white)
            yield Batch(inputs=inputs.reshape(-1, *self.network.input_shape), targets=labels[chosen])

    def value(self, evaluation: Evaluation) -> float:
        """Top-1 accuracy over all items, in percent."""
        if evaluation.correct is None:
            raise PluginContractError(
                "lenet expects an evaluation that counts correct items, got None; the backend has to count them where "
                "`metric.needs_correct` is set"
            )
        return 100 * evaluation.correct / evaluation.items


def _glorot(tensor: Tensor) -> float:
    assert tensor.cols is not None
    # A convolution's fan-out counts every tap of every filter, its fan-in all columns.
    taps = tensor.cols.repeat if tensor.role == "conv" else 1
    return sqrt(6 / (tensor.cols.size + tensor.rows.size * taps))


def _head(sizes: tuple[int, ...], inputs: int, label: str, repeat: int) -> list[Layer]:
    """Dense layers with ReLU between them; the last one gives the logits."""
    layers: list[Layer] = []
    for index, units in enumerate(sizes):
        name = f"dense_{index}"
        dense = Dense(name=name, inputs=inputs, units=units, input_label=label, input_repeat=repeat)
        layers += [dense, Activation(function="relu")]
        inputs, label, repeat = units, f"{name}.units", 1
    logits = Dense(name="softmax", inputs=inputs, units=_images.CLASSES, role="softmax", input_label=label)
    return [*layers, logits]


def _lenet_300_100(side: int) -> Network:
    pixels = side * side
    return Network(layers=tuple(_head((300, 100), pixels, "input.pixels", 1)), input_shape=(pixels,))


def _lenet_5(side: int) -> Network:
    # On 8 x 8 images the second 5 x 5 window would not fit into what the first pooling leaves.
    second, padding = (5, 0) if side == _images.MNIST_SIDE else (3, 1)
    left = (side // 2 + 2 * padding - second + 1) // 2
    layers: list[Layer] = [
        Conv2D(name="conv_0", inputs=1, outputs=6, kernel=(5, 5), padding=2, input_label="input.channels"),
        Activation(function="relu"),
        Pool2D(size=2),
        Conv2D(
            name="conv_1", inputs=6, outputs=16, kernel=(second, second), padding=padding, input_label="conv_0.channels"
        ),
        Activation(function="relu"),
        Pool2D(size=2),
        Flatten(),
        *_head((120, 84), 16 * left * left, "conv_1.channels", left * left),
    ]
    return Network(layers=tuple(layers), input_shape=(1, side, side))


@hookimpl
def register_task() -> type[Task]:
    """Offer this task to the harness."""
    return Lenet
