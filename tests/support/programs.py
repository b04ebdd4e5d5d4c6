"""A program run to its end on the toy problem, in this process, with everything a test wants to look at."""

from dataclasses import dataclass, field

import numpy as np
from numpy_plugins import KERNEL, NumpyBackend, ToyTask

from harness.api import Settings, State
from harness.masks.updates import MaskMaker
from harness.planning.stages import lower


@dataclass
class Seen:
    """What happened: (what, mask, weights after it) in order, and the value at the end."""

    events: list = field(default_factory=list)
    value: float = 0.0

    def masks(self, what):
        return [mask for kind, mask, _ in self.events if kind == what]


def run(strategy, pattern, sparsity=0.7, epochs=8, seed=0):
    """Run a strategy's program on the toy problem as a worker does."""
    problem = ToyTask(epochs=epochs).load(None)
    session = NumpyBackend().open(problem, Settings(seed=seed))
    scope = [tensor for tensor in problem.tensors() if tensor.is_prunable]
    maker, seen = MaskMaker(pattern, "uniform", scope, seed=seed, target=sparsity), Seen()

    def note(what):
        mask = session.masks().get(KERNEL, np.ones(scope[0].shape, np.bool_))
        seen.events.append((what, mask, session.weights()[KERNEL]))

    def masker(update, index, session):
        masks = maker(update, index, session)
        seen.events.append((f"{update.score.name} {update.sparsity:g}", masks[KERNEL], session.weights()[KERNEL]))
        return masks

    session.load(State(problem.initial_weights(seed)))
    states, trained = {0: session.state()}, 0
    for step in lower(strategy.program(problem.recipe, sparsity), problem.recipe):
        if step.kind == "train":
            session.train_epoch(step.epoch, trained, masker, lambda done: None)
            trained += 1
            states[trained] = session.state()
        elif step.kind == "prune":
            session.set_masks(masker(step.update, trained, session))
        else:
            trained, masks = step.to, session.masks()
            weights = problem.initial_weights(10**6 + seed) if step.is_new else states[step.to].weights
            session.load(State(weights))
            session.set_masks(masks)
        note(step.kind)
    seen.value = problem.value(session.evaluate("test"))
    return seen
