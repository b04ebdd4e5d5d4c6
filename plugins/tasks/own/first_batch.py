"""What the first batch shows of a user's loss and metric: mistakes that no framework tells, and numbers would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.api import NativeModel, OwnModel, SpecError, theirs

from .data import mapped
from .way import Way, Wishes

Array = NDArray[Any]
Default = Literal["loss", "measure"]

_DEFAULTS = {"loss": "the default loss, cross-entropy,", "measure": "the measure `accuracy`"}


_TURNS = 4
"""How many other orders of the targets are tried for a metric that is 0."""


class Opened(Protocol):
    """What is asked of a task that is open: its parts, and its functions on a batch."""

    own: OwnModel
    way: Way
    folder: Path

    @property
    def first(self) -> tuple[Any, Any]:
        """A batch of training data."""

    @property
    def targets(self) -> list[Any]:
        """Those of every split whose targets are one array."""

    def built(self, seed: int) -> Any:
        """The model as it begins."""

    def loss(self, outputs: Any, targets: Any) -> Any:
        """The mean over the items of a batch."""

    def items(self, targets: Any) -> int:
        """How many items a batch has."""

    def measured(self, outputs: Any, targets: Any) -> Any:
        """The metric's sum over the items of a batch."""

    def sums(self, measured: Any, nats: float) -> Any:
        """It, or the loss summed over the items."""

    def value(self, sums: Any, items: int) -> float:
        """The metric over a whole split."""


def looked_at(opened: Opened) -> NativeModel:
    """What is found in a model; a batch is sent through it, its loss and its metric.

    Raises:
        SpecError: what they give would make wrong numbers.
        OwnCodeError: one of them raised.
    """
    own, way = opened.own, opened.way
    model, (inputs, targets) = opened.built(0), opened.first
    way.check_model(model, own)
    with theirs(opened.folder, "the model on its first batch"):
        outputs, seen = way.traced(model, inputs)
    with theirs(opened.folder, "the loss of the first batch"):
        if own.loss is None:
            _check_default(opened, "loss", outputs, targets)
            check_logits(way.array(way.logits(outputs)))
        # In the order of a training step, each named: a mistake in the loss is not told as one of the model.
        loss = opened.loss(outputs, targets)
        items = opened.items(targets)
    if not way.is_scalar(loss):
        raise SpecError(f"own: `loss` must give one number, got {kind(loss)}; take the mean over the items")
    with theirs(opened.folder, "the metric of the first batch"):
        if own.measure == "accuracy":
            _check_default(opened, "measure", outputs, targets)
        # One whole round through the user's functions, before anything is trained.
        opened.value(opened.sums(opened.measured(outputs, targets), number(loss) * items), items)
    if own.loss is not None and (both := _once_and_twice(opened, _loss, outputs, targets)):
        check_mean(*both)
    if callable(own.measure) and own.finish is None and (both := _once_and_twice(opened, _sum, outputs, targets)):
        check_sum(*both)
    found = way.found(model, seen, items, Wishes(own.prunable, own.same_units))
    if not found.trained:
        raise SpecError("own: the model must have parameters that are trained, all of its own are frozen; let some be")
    return found


def number(loss: Any) -> float:
    """A loss of either framework."""
    return float(loss.detach() if hasattr(loss, "detach") else loss)


def kind(value: object) -> str:
    """What something is, for people."""
    shape = getattr(value, "shape", None)
    return f"a tensor of shape {tuple(shape)}" if shape is not None else type(value).__name__


def _loss(opened: Opened, outputs: Any, targets: Any) -> float:
    return number(opened.loss(outputs, targets))


def _sum(opened: Opened, outputs: Any, targets: Any) -> float:
    return float(opened.sums(opened.measured(outputs, targets), 0.0))


def _once_and_twice(
    opened: Opened, function: Callable[[Opened, Any, Any], float], outputs: Any, targets: Any
) -> tuple[float, float] | None:
    """What a function gives for a batch, and for the batch twice over; None where it cannot be asked."""
    try:
        # Nought tells nothing: other targets then, as where no class of the batch was met.
        for places in range(_TURNS):
            turned = _turned(opened, targets, places)
            if once := function(opened, outputs, turned):
                both = opened.way.twice(outputs), opened.way.twice(turned)
                is_twice = opened.items(both[1]) == 2 * opened.items(targets)
                return (once, function(opened, *both)) if is_twice else None
    except Exception:  # whatever a function raises that takes a batch of its own size alone
        return None
    return None


def _turned(opened: Opened, targets: Any, places: int) -> Any:
    """Targets of the items so many places on."""
    if not places:
        return targets
    return mapped(targets, lambda each: opened.way.taken(each, (np.arange(len(each)) + places) % len(each)))


def _check_default(opened: Opened, default: Default, outputs: Any, targets: Any) -> None:
    way = opened.way
    classes = check_classes(default, outputs, targets, way.array)
    way.check_outputs(outputs)
    # All of them where they are at hand: a class that is rare is not in the first batch.
    for each in (targets, *opened.targets):
        check_targets(default, way.array(each), classes, way.ignored)


def check_classes(default: Default, outputs: Any, targets: Any, array: Callable[[Any], Array]) -> int:
    """How many classes there are, if outputs and targets are those of a classification.

    Args:
        default: what takes them.
        outputs: of a batch, as the framework has them.
        targets: likewise.
        array: makes an array of one of the framework's.

    Raises:
        SpecError: they are of something else, of which a number would come out all the same.
    """
    what = _DEFAULTS[default]
    for name, value in (("the model gives", outputs), ("the targets are", targets)):
        if not hasattr(value, "shape"):
            raise SpecError(
                f"own: {what} takes one array of outputs and one of targets, {name} {_told(value)}; {_way_out(default)}"
            )
    scores, wanted = array(outputs), array(targets)
    classes = scores.shape[class_axis(scores.shape, wanted.shape)] if scores.ndim > 1 else 1
    if classes < 2:
        raise SpecError(
            f"own: {what} takes an output for every class, the model gives {scores.shape}: one for an item; "
            f"{_way_out(default)}"
        )
    is_shares = wanted.dtype.kind == "f" and wanted.shape == scores.shape and wanted.ndim == 2
    if is_shares or (wanted.size * classes == scores.size and (wanted.dtype.kind != "f" or wanted.size == len(wanted))):
        return int(classes)
    raise SpecError(
        f"own: {what} takes a class for every item, the outputs are {scores.shape}, the targets {wanted.dtype} of "
        f"{wanted.shape}; {_way_out(default)}"
    )


def check_targets(default: Default, wanted: Array, classes: int, ignored: int | None) -> None:
    """Pass if targets are classes, or shares of them.

    Args:
        default: what takes them.
        wanted: of a batch, or of a whole split.
        classes: how many the model has.
        ignored: the class of items that are left out.

    Raises:
        SpecError: an item has no class, several, or one that there is not.
    """
    what = _DEFAULTS[default]
    if wanted.dtype.kind == "f" and wanted.ndim == 2 and wanted.shape[1] == classes:
        if not np.allclose(wanted.sum(axis=-1), 1, atol=1e-3):
            raise SpecError(
                f"own: {what} takes one class an item, some targets have several, or none; {_way_out(default)}"
            )
        return
    found = wanted if ignored is None else wanted[wanted != ignored]
    if found.dtype.kind == "f" and not np.array_equal(found, np.round(found)):
        raise SpecError(
            f"own: {what} takes classes as whole numbers, got {found.min():g} to {found.max():g}; {_way_out(default)}"
        )
    if found.size and (found.min() < 0 or found.max() >= classes):
        raise SpecError(
            f"own: {what} takes classes from 0 to {classes - 1}, since the model has {classes} outputs, got "
            f"{int(found.min())} to {int(found.max())}; number them from 0, or leave items out by a `measure` and "
            "`items` of your own"
        )


def check_logits(outputs: Array) -> None:
    """Pass if outputs are no probabilities: a softmax of a softmax trains, badly, and its loss means nothing.

    Raises:
        SpecError: they are.
    """
    # By the last axis, and of an image's classes by the one after the items.
    for axis in {-1, 1} if outputs.ndim > 1 else ():
        if outputs.shape[axis] > 1 and (outputs >= 0).all() and np.allclose(outputs.sum(axis=axis), 1, atol=1e-4):
            raise SpecError(
                "own: the model's outputs add up to 1, so they are probabilities, and the default loss takes logits; "
                "end the model in a softmax layer of Keras or in none, or give a `loss`"
            )


def check_mean(once: float, twice: float) -> None:
    """Pass if a loss is no sum: of a batch that stands there twice it is the same.

    Raises:
        SpecError: it is twice as much.
    """
    if once and np.isclose(twice, 2 * once, rtol=1e-4, atol=0):
        raise SpecError(
            f"own: `loss` must be the mean over a batch's items, got {once:g} for a batch and {twice:g} for the same "
            "batch twice, which is a sum; divide it by the number of items"
        )


def check_sum(once: float, twice: float) -> None:
    """Pass if a measure is no mean: of a batch that stands there twice it is twice as much.

    Raises:
        SpecError: it is the same.
    """
    if once and np.isclose(once, twice, rtol=1e-6, atol=0):
        raise SpecError(
            f"own: `measure` must be a sum over a batch's items, got {once:g} for a batch and for the same batch "
            "twice, which is a mean; take the sum, which the harness divides by all items"
        )


def class_axis(scores: tuple[int, ...], wanted: tuple[int, ...]) -> int:
    """The axis of the classes: the last one, or axis 1 where the targets have the others, PyTorch's convention."""
    return -1 if wanted in (scores[:-1], (*scores[:-1], 1)) or len(scores) < 3 else 1


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} of {', '.join(map(str, value))}"
    return (
        f"a {type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else f"a {type(value).__name__}"
    )


def _way_out(default: Default) -> str:
    if default == "loss":
        return "give `loss=lambda outputs, targets: ...`, and a `measure`"
    return "give a `measure`: `loss`, or a function with its `metric`"
