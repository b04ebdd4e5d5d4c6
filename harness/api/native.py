"""Models of a user's own: what their file says of one, and what the harness finds in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harness.api.component import Frozen, JsonValue
from harness.api.network import Layer, Network, Tensor
from harness.api.program import SGD, LearningRate, Optimiser, Rates
from harness.api.task import Metric

MeasureName = Literal["accuracy", "perplexity", "loss"]


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """What the function that `entry` names returns: a model with its data, loss, metric and training.

    Model, data and callables are objects of the user's framework (`Any` here: the harness imports none).

    Args:
        model: makes the model, an `nn.Module`; called under the cell's seed, so that it gives the initial weights.
        train, valid, test: a pair (inputs, targets) of arrays or tensors; a map-style data set of such items; or an
            iterable of whole batches (a `DataLoader`), iterated anew for every epoch. Inputs may be a tuple or a
            mapping, which are then the arguments of the model.
        loss: (outputs, targets) -> the mean over the items of a batch, a scalar; by default cross-entropy over the
            last axis, or over axis 1 where the targets have its other axes.
        items: targets -> how many items a batch has; by default every element of integer targets, and else the length
            of the first axis.
        measure: what the metric measures: `accuracy` in percent, `perplexity`, `loss`, or a function (outputs, targets)
            -> sum over the items of a batch, a number or a vector of sums.
        finish: (sums, items) -> the metric's value over a whole split; by default sums / items. For own functions.
        metric: name, unit and direction of an own measure.
        epochs: length of the dense training; 0 takes the model as it comes.
        batch: items of a step, where the data are not batches already. The last, smaller batch of training is dropped.
        optimiser: a rule of the harness, or parameters -> a `torch.optim.Optimizer`, whose state is kept as well; the
            learning rate is the schedule's in both.
        learning_rate: one number, a schedule of the harness, or epoch -> a rate, or a rate per step.
        clip_norm: global norm that gradients are clipped to.
        start: a checkpoint whose tensors replace the initial weights and buffers: `.safetensors`, or a `state_dict`
            that is loaded weights-only.
        prunable: names of further two-dimensional parameters that may be pruned.
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
    """Where a tensor lies in its parameter: all of it, or some rows of one that holds several (fused q, k, v).

    Args:
        tensor: name of the tensor.
        parameter: the framework's name of the parameter.
        start, rows: rows of the parameter; all of them where `rows` is None.
    """

    tensor: str
    parameter: str
    start: int = 0
    rows: int | None = None


class NativeModel(Network):
    """A model that one framework builds from the user's code: what was found in it, in place of layers.

    Args:
        framework: whose model it is.
        trained: every trainable tensor, tied ones once.
        places: where each tensor lies.
        positions: how often a layer's product runs for one item, by layer name, as a forward pass showed.
    """

    layers: tuple[Layer, ...] = ()
    framework: Literal["torch", "keras"]
    trained: tuple[Tensor, ...]
    places: tuple[Place, ...]
    positions: dict[str, int] = Field(default_factory=dict)

    def tensors(self) -> tuple[Tensor, ...]:
        """What was found, in the order of the parameters."""
        return self.trained
