"""Models of a user's own: what their file says of one, and what the harness finds in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.api.component import Frozen, JsonValue
from harness.api.network import Convolution, Layer, Network, Tensor
from harness.api.program import SGD, LearningRate, Optimiser, Rates
from harness.api.task import Metric, Problem

MeasureName = Literal["accuracy", "perplexity", "loss"]

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """What the function that `entry` names returns: a model with its data, loss, metric and training.

    Model, data and callables are objects of the user's framework (`Any` here: the harness imports none).

    Args:
        model: makes the model, an `nn.Module` or a `tf_keras.Model`; called under the cell's seed, so that it gives the
            initial weights.
        train, valid, test: a pair (inputs, targets) of arrays or tensors; a map-style data set of such items; an
            iterable of whole batches (a `DataLoader`, a `tf.data.Dataset`, a `Sequence`), iterated anew for every
            epoch; or a function of a seed that returns one, called anew for every epoch. Inputs may be a tuple or a
            mapping: of PyTorch they are then the arguments of the model, of Keras its one nested input; a list of
            arrays that hold all items each is taken for a tuple.
        loss: (outputs, targets) -> the mean over the items of a batch, a scalar; by default cross-entropy over the
            last axis, or over axis 1 where the targets have its other axes. What Keras has gets its targets first.
        items: targets -> how many items a batch has; by default every element of integer targets (of classes in PyTorch
            all but -100), and else the length of the first axis.
        measure: what the metric measures: `accuracy` in percent, `perplexity`, `loss`, or a function (outputs, targets)
            -> sum over the items of a batch, a number or a vector of sums.
        finish: (sums, items) -> the metric's value over a whole split; by default sums / items. For own functions.
        metric: name, unit and direction of an own measure.
        epochs: length of the dense training; 0 takes the model as it comes.
        batch: items of a step, where the data are not batches already. The last, smaller batch of training is dropped.
        optimiser: a rule of the harness, or parameters -> a `torch.optim.Optimizer` or a `tf_keras.optimizers`
            optimiser, whose state is kept as well; the learning rate is the schedule's in all of them.
        learning_rate: one number, a schedule of the harness, or epoch -> a rate, or a rate per step.
        clip_norm: global norm that gradients are clipped to.
        start: a checkpoint whose tensors replace the initial weights and buffers: `.safetensors` or the list of its
            parts; a `state_dict`, or a dictionary with one, that is loaded weights-only; `.weights.h5` or `.keras`, of
            which the weights alone are read.
        prunable: names of further two-dimensional parameters that may be pruned; a Keras one is (inputs, outputs).
        same_units: the label of an axis -> the label that it gets, for axes that are the same units.
        data_version: stands for the data in keys; by default all of the data is read and hashed.
        steps_per_epoch: of training, where the data cannot tell their length.
        facts: what every record is to say of the data.
    """

    model: Callable[[], Any]
    train: Any
    valid: Any
    test: Any
    loss: Callable[[Any, Any], Any] | None = None
    items: Callable[[Any], int] | None = None
    measure: MeasureName | Callable[[Any, Any], Any] = "accuracy"
    finish: Callable[[Any, int], float] | None = None
    metric: Metric | None = None
    epochs: int = 10
    batch: int = 32
    optimiser: Optimiser | Callable[[Any], Any] = field(default_factory=lambda: SGD(momentum=0.9))
    learning_rate: float | LearningRate | Callable[[int], Rates] = 0.01
    clip_norm: float | None = None
    start: Path | str | None = None
    prunable: Sequence[str] = ()
    same_units: Mapping[str, str] = field(default_factory=dict)
    data_version: str | None = None
    steps_per_epoch: int | None = None
    facts: Mapping[str, JsonValue] = field(default_factory=dict)


class Place(Frozen):
    """Where a tensor lies in its parameter, and how it is laid out there.

    Args:
        tensor: name of the tensor.
        parameter: the framework's name of the parameter.
        start, rows: rows of the parameter that holds several tensors (fused q, k, v); all where `rows` is None.
        layout: shape of the parameter in the framework, where that is not the harness's orientation.
        axes: the framework's axes in the order of the harness: outputs, then inputs.
        blocks: which block of the framework's rows stands at each place of the harness's, for gates in another order.
    """

    tensor: str
    parameter: str
    start: int = 0
    rows: int | None = None
    layout: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()

    def outward(self, values: NDArray[_Scalar], shape: tuple[int, ...]) -> NDArray[_Scalar]:
        """A copy of the parameter as the harness sees it.

        Shapes:
            values (*layout) -> (*shape), such as (rows, cols).
        """
        turned = values.transpose(self.axes) if self.axes else values
        matrix = turned.reshape(shape)
        # The harness orders gates i, f, g, o; frameworks have orders of their own, which `blocks` permutes.
        if self.blocks:
            apart = matrix.reshape(len(self.blocks), -1, *matrix.shape[1:])  # (gates, units, inputs)
            matrix = apart[list(self.blocks)].reshape(shape)
        return np.array(matrix, order="C", copy=True)  # a framework may lend out its own memory

    def inward(self, matrix: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """The parameter as the framework holds it; the inverse of `outward`."""
        values = matrix
        if self.blocks:
            apart = values.reshape(len(self.blocks), -1, *values.shape[1:])
            values = apart[np.argsort(self.blocks)].reshape(matrix.shape)
        # Backwards and in reverse order: first the gates, then the axes.
        if self.axes:
            turned = values.reshape([self.layout[axis] for axis in self.axes])
            return turned.transpose(np.argsort(self.axes))
        return values.reshape(self.layout) if self.layout else values


class ListedTensor(Frozen):
    """A trainable tensor of a model as a user knows it, for people to read.

    Args:
        tensor: its name in the harness.
        kind: what holds it, such as `Conv2d`, with what is special of it, such as `8 groups`.
        shape: in the framework.
        gates: of a recurrent layer, in the order of the rows in the harness.
        also: further names of a tied tensor.
        left_out: why it is never pruned; empty where it may be.
    """

    tensor: str
    kind: str
    shape: tuple[int, ...]
    gates: str = ""
    also: tuple[str, ...] = ()
    left_out: str = ""


class NativeModel(Network):
    """A model that one framework builds from the user's code: what was found in it, in place of layers.

    Args:
        framework: whose model it is.
        trained: every trainable tensor, tied ones once.
        places: where each tensor lies.
        positions: how often a layer's product runs for one item, by layer name, as a forward pass showed.
        wrapped: layers that a toolkit of the framework can hold the masks of.
        listed: every parameter, the frozen ones too, for people; decides nothing and is in no key.
        traced: geometry of the convolutions that the forward pass ran at one size; decides no training, is in no key.
        steps: how often a recurrent layer runs for one item, as the forward pass showed; None where items differ in it.
            Likewise in no key.
    """

    layers: tuple[Layer, ...] = ()
    framework: Literal["torch", "keras"]
    trained: tuple[Tensor, ...]
    places: tuple[Place, ...]
    positions: dict[str, int] = Field(default_factory=dict)
    wrapped: tuple[str, ...] = ()
    listed: tuple[ListedTensor, ...] = Field(default=(), exclude=True)
    traced: dict[str, Convolution] = Field(default_factory=dict, exclude=True)
    steps: dict[str, int | None] = Field(default_factory=dict, exclude=True)

    def tensors(self) -> tuple[Tensor, ...]:
        """What was found, in the order of the parameters."""
        return self.trained

    def convolutions(self) -> dict[str, Convolution]:
        """What the forward pass showed."""
        return dict(self.traced)


def opened_here(problem: Problem) -> bool:
    """Whether a problem has a model of the user's own, which is then opened in this process.

    A worker asks before it looks at the network: what is not open yet would be described by another process first.
    """
    # By name and not by class: the class belongs to a plugin, which the harness does not import.
    native = getattr(problem, "native", None)
    if native is None:
        return False
    native()
    return True
