"""Plugins of every kind that do one thing wrong: `fault="METHOD:HOW"` says in which method, and how."""

import sys
from typing import ClassVar

import numpy as np
from numpy_plugins import NumpyBackend, NumpySession, ToyProblem, ToyTask

from harness.api import (
    Constant,
    Cost,
    Evaluation,
    Frame,
    Gradient,
    HardwareModel,
    LearningRate,
    Magnitude,
    Pattern,
    Prune,
    Score,
    SparsitySchedule,
    Strategy,
    Train,
    WholeScopePattern,
)

HOW = ("raises", "exits", "none", "wrong", "nan")
COST = {
    "cycles": 1, "latency_us": 1.0, "clock_mhz": 1.0, "dense_cycles": 1, "dense_latency_us": 1.0, "speedup": 1.0,
    "gops": 1.0, "effective_gops": 1.0, "utilisation": 1.0, "multipliers": 1, "dsp": 1, "ram_blocks": 1,
    "ram_kind": "M20K", "fits": True, "bound_by": "compute",
}  # fmt: skip


def go_wrong(how, as_nan=float("nan")):
    """One way of breaking a promise."""
    if how == "raises":
        raise RuntimeError("sabotage")
    if how == "exits":
        sys.exit("sabotage")
    return {"none": None, "wrong": object(), "nan": as_nan}[how]


def sabotaged(*methods, nan=None):
    """A class decorator: these methods do as the instance's `fault` says, and else what they did before."""

    def decorate(cls):
        for name in methods:
            setattr(cls, name, _method(name, getattr(cls, name), (nan or {}).get(name, float("nan"))))
        return cls

    return decorate


def _method(name, original, as_nan):
    def method(self, *args, **named):
        at, _, how = self.fault.partition(":")
        return go_wrong(how, as_nan) if at == name else original(self, *args, **named)

    method.__name__ = name
    return method


@sabotaged("batches", "initial_weights", "tensors", "value", nan={
    "initial_weights": {"output.kernel": np.full((3, 20), np.nan, np.float32), "output.bias": np.zeros(3, np.float32)},
})  # fmt: skip
class Problem(ToyProblem):
    def __init__(self, task):
        self.fault = ""  # until it is made
        super().__init__(task)
        self.fault = task.fault

    @property
    def fingerprint(self):
        return f"toy {self.fault}"  # or equal stages of another cell would stand in

    def __getattribute__(self, name):
        at, _, how = object.__getattribute__(self, "__dict__").get("fault", "").partition(":")
        is_broken = name == at and name in ("network", "recipe", "metric", "fingerprint", "facts")
        return go_wrong(how) if is_broken else super().__getattribute__(name)


@sabotaged("smoke")
class SaboteurTask(ToyTask):
    name: ClassVar[str] = "saboteur_task"
    epochs: int = 1
    fault: str = ""

    def load(self, data_dir):
        at, _, how = self.fault.partition(":")
        return go_wrong(how) if at == "load" else Problem(self)


@sabotaged("frame", "mask", "for_tensor", "reachable", "banks_per_row", "why_not", "why_not_scope")
class SaboteurPattern(Pattern):
    name: ClassVar[str] = "saboteur_pattern"
    fault: str = ""

    def frame(self, rows, cols):
        return Frame()


@sabotaged("masks")
class SaboteurScope(SaboteurPattern):
    name: ClassVar[str] = "saboteur_scope"

    def masks(self, scores, sparsities, tensors):
        return {name: super(SaboteurPattern, self).mask(values, sparsities[name]) for name, values in scores.items()}


assert issubclass(SaboteurScope, WholeScopePattern)


@sabotaged("scores", "measurements")
class SaboteurScore(Score):
    name: ClassVar[str] = "saboteur_score"
    fault: str = ""

    def scores(self, given):
        return np.abs(given.weights)


@sabotaged("at")
class SaboteurRate(LearningRate):
    fault: str = ""

    def at(self, epoch):
        return 0.1

    def from_epoch(self, epoch):
        return self


@sabotaged("updates")
class SaboteurSchedule(SparsitySchedule):
    fault: str = ""
    final: float = 0.5

    def updates(self, steps_per_epoch):
        return [(0, self.final)]


@sabotaged("program", "hyper_parameters", nan={
    "program": (Train.model_construct(type="train", epochs=1, lr=Constant.model_construct(rate=float("nan"))),)
})  # fmt: skip
class SaboteurStrategy(Strategy):
    """Its fault may lie in a part of its program: `lr.at:HOW`, `schedule.updates:HOW`, `score.scores:HOW`."""

    name: ClassVar[str] = "saboteur_strategy"
    fault: str = ""
    needs_gradients: bool = False

    def program(self, recipe, sparsity):
        part, _, fault = self.fault.partition(".")
        rate = SaboteurRate(fault=fault if part == "lr" else "")
        if part == "schedule":
            schedule = SaboteurSchedule(fault=fault, final=sparsity)
            return (Train(epochs=1, lr=recipe.learning_rate), Train(epochs=1, lr=rate, sparsity=schedule))
        score = Gradient() if self.needs_gradients else SaboteurScore(fault=fault) if part == "score" else Magnitude()
        dense = Train(epochs=recipe.epochs, lr=recipe.learning_rate)
        return (dense, Prune(sparsity=sparsity, score=score), Train(epochs=1, lr=rate))


@sabotaged(
    "load", "state", "weights", "masks", "set_masks", "gradients", "measured", "train_epoch", "evaluate", "close",
    nan={"evaluate": Evaluation(nats=float("nan"), items=1, correct=0)},
)  # fmt: skip
class SaboteurSession(NumpySession):
    fault = ""


@sabotaged("why_unavailable", "versions", "why_not", "arithmetic", "open")
class SaboteurBackend(NumpyBackend):
    """`session.METHOD:HOW` lets its session go wrong."""

    name: ClassVar[str] = "saboteur_backend"
    fault: str = ""

    def open(self, problem, settings):
        at, _, how = self.fault.partition(":")
        if at == "open":
            return go_wrong(how)
        session = SaboteurSession(problem, settings)
        session.fault = self.fault.removeprefix("session.")
        return session


@sabotaged(
    "circuit",
    "cost",
    "designs",
    "group",
    "number_format",
    "reads_weights",
    "simulated",
    "variants",
    nan={"cost": Cost.model_construct(**{**COST, "latency_us": float("nan")})},
)
class SaboteurHardware(HardwareModel):
    name: ClassVar[str] = "saboteur_hardware"
    fault: str = ""

    def cost(self, workload):
        return Cost(**COST)
