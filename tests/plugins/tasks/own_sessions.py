"""What scripts of own models do with a session, whichever the framework; they lie beside this file and import it."""

import numpy as np


def half(update, index, session):
    """Keeps the larger half of every matrix, within what was kept before."""
    masks = session.masks()
    found = {}
    for name, weight in session.weights().items():
        if weight.ndim == 2:
            rank = np.abs(weight) + masks.get(name, np.ones(weight.shape, bool))
            found[name] = rank >= np.quantile(rank, update.sparsity)
    return found


def epochs(count):
    from harness.api import Epoch, MaskUpdate

    updates = {1: (MaskUpdate(step=2, sparsity=0.3),), 2: (MaskUpdate(step=1, sparsity=0.5),)}
    return [Epoch(rates=0.02, updates=updates.get(index, ())) for index in range(count)]


def train(session, plan, first=0):
    for index, epoch in enumerate(plan[first:], first):
        session.train_epoch(epoch, index, half, lambda step: None)


def flat(state):
    return {
        f"{part}/{name}": np.asarray(value)
        for part in ("weights", "masks", "slots", "extra")
        for name, value in getattr(state, part).items()
    }


def differing(one, other):
    a, b = flat(one), flat(other)
    return sorted({*a} ^ {*b}) + [name for name in a if name in b and a[name].tobytes() != b[name].tobytes()]
