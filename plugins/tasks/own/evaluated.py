"""A user's model evaluated with the arithmetic of an engine: its known layers by that, all else by the framework."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from harness.api import Array, Evaluation, LayerArithmetic, Split, batch_rng, theirs

from .first_batch import number
from .opened import Opened


def norms_in_layers(opened: Opened, seed: int) -> dict[str, str]:
    """Layer -> the batch norm that its sums go into and nothing else does, as a batch of validation data shows it.

    Args:
        opened: the user's task.
        seed: the model is built under it; a state that it keeps is this look's own.
    """
    model = opened.built(seed)

    first = next(opened.batches("valid", batch_rng(seed, 0)), None)
    if first is None:
        return {}
    inputs, targets = first

    def run() -> None:
        # Loss and metric too: they may read what the model hands out beside its logits.
        with theirs(opened.folder, "evaluating the valid split"):
            outputs = opened.forward(model, inputs)
            opened.loss(outputs, targets)
            opened.measured(outputs, targets)

    return opened.way.norms_in_layers(model, run)


def evaluated_by(
    opened: Opened,
    arithmetic: LayerArithmetic,
    weights: Mapping[str, NDArray[np.float32]],
    buffers: Mapping[str, Array],
    folds: Mapping[str, str],
    split: Split,
    seed: int,
    items: int | None,
) -> tuple[Evaluation, set[str]]:
    """Evaluate a model whose known layers another arithmetic computes; and the names of those it has computed.

    Args:
        opened: the user's task.
        arithmetic: computes them.
        weights: of every tensor; they go into a model of this evaluation's own.
        buffers: of the trained model, by name.
        folds: layers with their norms.
        split: what it is scored on.
        seed: the model is built and evaluated under it.
        items: enough of the split; None takes all.
    """
    model, way = opened.built(seed), opened.way
    parameters = {name: np.array(values) for name, values in way.parameters(model).items()}
    for place in opened.network.places:
        whole = parameters[place.parameter]
        part = whole if place.rows is None else whole[place.start : place.start + place.rows]
        part[...] = place.inward(weights[place.tensor]).reshape(part.shape)
    way.filled(model, parameters, buffers)
    way.seed(seed)
    nats, seen, sums = 0.0, 0, np.float64(0)
    with way.computed_by(model, arithmetic, folds) as done, theirs(opened.folder, f"evaluating the {split} split"):
        for inputs, targets in opened.batches(split, batch_rng(seed, 0)):
            outputs = opened.forward(model, inputs)
            count, loss = opened.items(targets), number(opened.loss(outputs, targets))
            sums = sums + opened.sums(opened.measured(outputs, targets), loss * count)
            nats, seen = nats + loss * count, seen + count
            if items is not None and seen >= items:
                break
    with theirs(opened.folder, f"the metric of the {split} split"):
        value = opened.value(sums, seen)
    return Evaluation(nats=nats, items=seen, value=value, folded=done.folded), done.layers
