"""The small vocabulary of layers that every backend builds, and the tensors that follow from it.

Orientation everywhere outside a backend: a weight matrix is (rows, cols) = (outputs, inputs). LSTM gates come in the
order i, f, g, o along the rows. A convolution is (out, in*kh*kw), the column order being (in, kh, kw). An embedding is
the one exception: (words, features).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.api.component import Frozen

GATES = ("i", "f", "g", "o")

Role = Literal["embedding", "lstm", "gru", "attention", "softmax", "dense", "conv", "bias"]


@dataclass(frozen=True)
class Convolution:
    """The geometry of a convolution whose product runs once per output position.

    Args:
        inputs: input channels of all groups; the columns of the product are (inputs / groups, kernel height, width).
        kernel: height and width.
        stride: from an output position to the next one of its line.
        output: height and width of the output.
        image: height and width of the input, without padding; None where it is not known.
        groups: the outputs fall into so many groups, each of which sees its own inputs only.
        dilation: from a tap of the kernel to the next one, down and across.
        stride_down: from a line of outputs to the next one, where that differs from `stride`.

    Example:
        A 3 x 3 convolution that halves an image of 8 channels.

        >>> halved = Convolution(8, (3, 3), 2, (14, 14), image=(28, 28))
        >>> halved.positions, halved.window, halved.read
        (196, (3, 3), (28, 28))
    """

    inputs: int
    kernel: tuple[int, int]
    stride: int
    output: tuple[int, int]
    image: tuple[int, int] | None = None
    groups: int = 1
    dilation: tuple[int, int] = (1, 1)
    stride_down: int | None = None

    @property
    def positions(self) -> int:
        """Output positions of one item."""
        return self.output[0] * self.output[1]

    @property
    def strides(self) -> tuple[int, int]:
        """Down and across."""
        return (self.stride if self.stride_down is None else self.stride_down), self.stride

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of what an output sees of the input, gaps of a dilated kernel included."""
        height, width = (step * (taps - 1) + 1 for step, taps in zip(self.dilation, self.kernel, strict=True))
        return height, width

    @property
    def read(self) -> tuple[int, int]:
        """Height and width of the input; where they are not known, of what all outputs see without padding."""
        if self.image is not None:
            return self.image
        height, width = (
            (count - 1) * step + seen for count, step, seen in zip(self.output, self.strides, self.window, strict=True)
        )
        return height, width


class Axis(Frozen):
    """One axis of a tensor. Axes with the same label are the same units.

    Args:
        label: what the axis counts, e.g. `lstm_0.units`.
        size: its length.
        repeat: how often every unit stands in it (4 for the gates of an LSTM; kh*kw for the input channels of a
            convolution).
        order: `adjacent` if a unit's places lie together (the taps of a channel), `blocks` if all units stand there
            once, then all of them again (the gates).

    Example:
        The four gates of two units of an LSTM, and two channels under three taps of a convolution.

        >>> Axis(label="lstm_0.units", size=8, repeat=4, order="blocks").units()
        array([0, 1, 0, 1, 0, 1, 0, 1])
        >>> Axis(label="conv.channels", size=6, repeat=3).units()
        array([0, 0, 0, 1, 1, 1])
    """

    label: str
    size: int = Field(gt=0)
    repeat: int = Field(default=1, gt=0)
    order: Literal["adjacent", "blocks"] = "adjacent"

    def units(self) -> NDArray[np.intp]:
        """Which unit stands at each place, 0-based.

        Shapes:
            (size,), values below size / repeat.
        """
        places = np.arange(self.size)
        return places // self.repeat if self.order == "adjacent" else places % (self.size // self.repeat)


class Tensor(Frozen):
    """A trainable tensor, known before any training.

    Args:
        name: `layer.part`, e.g. `lstm_0.recurrent_kernel`.
        layer: the name of its layer.
        role: what it is in the model; scopes name roles, layers or tensors.
        rows: outputs (words for an embedding).
        cols: inputs (features for an embedding); None for a bias.

    Example:
        >>> outputs, inputs = Axis(label="out.units", size=10), Axis(label="pixels", size=784)
        >>> Tensor(name="out.kernel", layer="out", role="dense", rows=outputs, cols=inputs).shape
        (10, 784)
    """

    name: str
    layer: str
    role: Role
    rows: Axis
    cols: Axis | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, cols), or (rows,) for a bias."""
        return (self.rows.size,) if self.cols is None else (self.rows.size, self.cols.size)

    @property
    def is_prunable(self) -> bool:
        """Whether it is a matrix."""
        return self.cols is not None

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.rows.size * (1 if self.cols is None else self.cols.size)


class Embedding(Frozen):
    """Token ids (batch, steps) to vectors (batch, steps, features). Tensor: `table` (words, features)."""

    type: Literal["embedding"] = "embedding"
    name: str
    words: int = Field(gt=0)
    features: int = Field(gt=0)

    def tensors(self) -> tuple[Tensor, ...]:
        """The embedding table, rows = words."""
        rows, cols = (
            Axis(label=f"{self.name}.words", size=self.words),
            Axis(label=f"{self.name}.features", size=self.features),
        )
        return (Tensor(name=f"{self.name}.table", layer=self.name, role="embedding", rows=rows, cols=cols),)


class LSTM(Frozen):
    """One LSTM layer, (batch, steps, inputs) to (batch, steps, units), state carried from batch to batch.

    Sigmoid gates, tanh for candidate and output, one bias. The state is zero at the start of every epoch and every
    evaluation; no gradient crosses a batch border. Tensors: `kernel` (4*units, inputs), `recurrent_kernel`
    (4*units, units), `bias` (4*units,), gates i, f, g, o.
    """

    type: Literal["lstm"] = "lstm"
    name: str
    inputs: int = Field(gt=0)
    units: int = Field(gt=0)
    input_label: str = Field(description="label of the axis the inputs come from")

    def tensors(self) -> tuple[Tensor, ...]:
        """Kernel, recurrent kernel and bias."""
        # All four gates of a unit are one unit: pruned together, or the state would still be computed.
        units = Axis(label=f"{self.name}.units", size=4 * self.units, repeat=4, order="blocks")
        inputs = Axis(label=self.input_label, size=self.inputs)
        recurrent = Axis(label=f"{self.name}.units", size=self.units)
        return (
            Tensor(name=f"{self.name}.kernel", layer=self.name, role="lstm", rows=units, cols=inputs),
            Tensor(name=f"{self.name}.recurrent_kernel", layer=self.name, role="lstm", rows=units, cols=recurrent),
            Tensor(name=f"{self.name}.bias", layer=self.name, role="bias", rows=units),
        )


class Dense(Frozen):
    """An affine layer on the last axis, (..., inputs) to (..., units).

    Tensors: `kernel` (units, inputs), `bias` (units,).
    """

    type: Literal["dense"] = "dense"
    name: str
    inputs: int = Field(gt=0)
    units: int = Field(gt=0)
    role: Literal["dense", "softmax"] = "dense"
    input_label: str
    input_repeat: int = Field(default=1, gt=0, description="pixels per channel where the input is a flattened image")

    def tensors(self) -> tuple[Tensor, ...]:
        """Kernel and bias."""
        rows = Axis(label=f"{self.name}.units", size=self.units)
        cols = Axis(label=self.input_label, size=self.inputs, repeat=self.input_repeat)
        return (
            Tensor(name=f"{self.name}.kernel", layer=self.name, role=self.role, rows=rows, cols=cols),
            Tensor(name=f"{self.name}.bias", layer=self.name, role="bias", rows=rows),
        )


class Conv2D(Frozen):
    """A 2-D convolution without dilation, (batch, in, height, width) to (batch, out, height', width').

    Tensors: `kernel` (out, in*kh*kw) with columns ordered (in, kh, kw), `bias` (out,).
    """

    type: Literal["conv2d"] = "conv2d"
    name: str
    inputs: int = Field(gt=0, description="input channels")
    outputs: int = Field(gt=0, description="output channels")
    kernel: tuple[int, int]
    stride: int = Field(default=1, gt=0)
    padding: int = Field(default=0, ge=0, description="zeros on every side")
    input_label: str

    def tensors(self) -> tuple[Tensor, ...]:
        """Kernel and bias."""
        taps = self.kernel[0] * self.kernel[1]
        rows = Axis(label=f"{self.name}.channels", size=self.outputs)
        cols = Axis(label=self.input_label, size=self.inputs * taps, repeat=taps)
        return (
            Tensor(name=f"{self.name}.kernel", layer=self.name, role="conv", rows=rows, cols=cols),
            Tensor(name=f"{self.name}.bias", layer=self.name, role="bias", rows=rows),
        )


class Pool2D(Frozen):
    """Max or mean pooling over windows of `size` x `size`, stride = size, remainder dropped."""

    type: Literal["pool2d"] = "pool2d"
    kind: Literal["max", "mean"] = "max"
    size: int = Field(gt=0)

    def tensors(self) -> tuple[Tensor, ...]:
        """None."""
        return ()


class Flatten(Frozen):
    """(batch, channels, height, width) to (batch, channels*height*width), channels slowest."""

    type: Literal["flatten"] = "flatten"

    def tensors(self) -> tuple[Tensor, ...]:
        """None."""
        return ()


class Activation(Frozen):
    """An element-wise function."""

    type: Literal["activation"] = "activation"
    function: Literal["relu", "tanh", "sigmoid"]

    def tensors(self) -> tuple[Tensor, ...]:
        """None."""
        return ()


class Dropout(Frozen):
    """Inverted dropout while training (kept values are divided by 1 - rate), nothing while evaluating.

    Stateless: the mask of a step is drawn from `dropout_seed(seed, epoch, step, layer index)`, so a resumed epoch and
    an uninterrupted one are the same. Each framework draws its own bits from that seed.
    """

    type: Literal["dropout"] = "dropout"
    rate: float = Field(ge=0, lt=1)

    def tensors(self) -> tuple[Tensor, ...]:
        """None."""
        return ()


Layer = Annotated[
    Embedding | LSTM | Dense | Conv2D | Pool2D | Flatten | Activation | Dropout, Field(discriminator="type")
]


class Network(Frozen):
    """A stack of layers whose last one gives the logits.

    Args:
        layers: from input to logits.
        input_shape: shape of one item without the batch axis: () for a token id per step, (channels, height, width) or
            (features,) for images and vectors.
    """

    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...] = ()

    def tensors(self) -> tuple[Tensor, ...]:
        """Every trainable tensor, in the order of the layers."""
        return tuple(tensor for layer in self.layers for tensor in layer.tensors())

    def convolutions(self) -> dict[str, Convolution]:
        """The geometry of every convolution whose input size is known, by layer name."""
        found: dict[str, Convolution] = {}
        if len(self.input_shape) != 3:
            return found
        _, height, width = self.input_shape
        for layer in self.layers:
            if layer.type == "conv2d":
                image = height, width
                height, width = (
                    (size + 2 * layer.padding - taps) // layer.stride + 1
                    for size, taps in zip(image, layer.kernel, strict=True)
                )
                found[layer.name] = Convolution(layer.inputs, layer.kernel, layer.stride, (height, width), image)
            elif layer.type == "pool2d":
                height, width = height // layer.size, width // layer.size
        return found

    @property
    def is_recurrent(self) -> bool:
        """Whether a batch has a time axis and state is carried."""
        return any(layer.type == "lstm" for layer in self.layers)


def dropout_seed(seed: int, epoch: int, step: int, layer: int) -> tuple[int, int]:
    """Two 31-bit integers that seed one layer's dropout mask of one step.

    Args:
        seed: the cell's seed.
        epoch: epochs trained before this one in the chain.
        step: 0-based step within the epoch.
        layer: index of the dropout layer in `Network.layers`.
    """
    # splitmix64 over the four numbers: neighbouring steps must not get related streams.
    state = 0x9E3779B97F4A7C15
    for part in (seed, epoch, step, layer):
        state = (state ^ (part + 0x9E3779B97F4A7C15)) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    # 31 bits each, as TensorFlow's stateless seeds are signed 32-bit integers.
    return (state >> 33) & 0x7FFFFFFF, state & 0x7FFFFFFF
