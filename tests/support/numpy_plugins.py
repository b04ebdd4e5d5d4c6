"""A whole, tiny backend and task in NumPy: softmax regression, so that the machinery is tested without a framework."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from harness.api import (
    SGD,
    Backend,
    Batch,
    Dense,
    DivergedError,
    Epoch,
    EpochResult,
    Evaluation,
    Masker,
    Metric,
    Network,
    Problem,
    Recipe,
    Session,
    Settings,
    Split,
    State,
    StepDecay,
    StoreError,
    Task,
    batch_rng,
)

KERNEL, BIAS = "output.kernel", "output.bias"


class ToyProblem(Problem):
    """Three noisy classes in twenty dimensions."""

    def __init__(self, task: "ToyTask") -> None:
        layer = Dense(name="output", inputs=20, units=3, role="softmax", input_label="features")
        self.network = Network(layers=(layer,), input_shape=(20,))
        schedule = StepDecay(initial=task.learning_rate, decay=0.5, full_epochs=2)
        self.recipe = Recipe(epochs=task.epochs, optimiser=SGD(), learning_rate=schedule, steps_per_epoch=6)
        self.metric = Metric(name="accuracy", unit="%", better="higher", digits=1, needs_correct=True)
        rng = np.random.default_rng(7)
        centres = rng.normal(size=(3, 20))
        self._data = {}
        for split, size in (("train", 60), ("valid", 40), ("test", 50)):
            labels = rng.integers(0, 3, size).astype(np.int32)
            self._data[split] = ((centres[labels] + rng.normal(size=(size, 20))).astype(np.float32), labels)

    @property
    def fingerprint(self) -> str:
        return "toy"

    @property
    def facts(self) -> Mapping[str, int]:
        return {"train_items": 60}

    def initial_weights(self, seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {KERNEL: rng.normal(0, 0.1, (3, 20)).astype(np.float32), BIAS: np.zeros(3, np.float32)}

    def batches(self, split: Split, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        inputs, labels = self._data[split]
        order = rng.permutation(len(labels)) if split == "train" else np.arange(len(labels))
        for start in range(0, len(labels), 10):
            chosen = order[start : start + 10]
            yield Batch(inputs[chosen], labels[chosen])

    def value(self, evaluation: Evaluation) -> float:
        if evaluation.nats == math.inf:
            math.exp(1e9)  # as a perplexity does: an OverflowError
        return 100 * evaluation.correct / evaluation.items


class ToyTask(Task):
    """A task that needs no file."""

    name: ClassVar[str] = "toy"
    epochs: int = 4
    learning_rate: float = 0.5

    def load(self, data_dir: Path | None) -> Problem:
        return ToyProblem(self)


class NumpySession(Session):
    """Softmax regression by hand."""

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.problem, self.settings = problem, settings
        self._weights: dict[str, np.ndarray] = {}
        self._masks: dict[str, np.ndarray] = {}
        self._overflows = False

    def load(self, state: State) -> None:
        self._weights = {name: array.copy() for name, array in state.weights.items()}
        self._masks = {}
        self.set_masks(state.masks)

    def state(self) -> State:
        return State(self.weights(), self.masks())

    def weights(self) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self._weights.items()}

    def masks(self) -> dict[str, np.ndarray]:
        return {name: mask.copy() for name, mask in self._masks.items()}

    def set_masks(self, masks: Mapping[str, np.ndarray]) -> None:
        for name, mask in masks.items():
            self._masks[name] = mask.copy()
            self._weights[name] *= mask

    def gradients(self, batches: int, epoch: int) -> dict[str, np.ndarray]:
        found = self.problem.batches("train", epoch, batch_rng(self.settings.seed, epoch))
        parts = [self._gradient(batch)[0][KERNEL] for _, batch in zip(range(batches), found, strict=False)]
        return {KERNEL: np.mean(parts, axis=0).astype(np.float32)}

    def train_epoch(self, epoch: Epoch, index: int, masker: Masker, progress: Callable[[int], None]) -> EpochResult:
        self._misbehave(index)
        nats, items, steps = 0.0, 0, self.problem.recipe.steps_per_epoch
        for step, batch in enumerate(self.problem.batches("train", index, batch_rng(self.settings.seed, index))):
            self._update(epoch, step, index, masker)
            gradients, loss = self._gradient(batch)
            if not np.isfinite(loss):
                raise DivergedError(step, loss)
            for name, gradient in gradients.items():
                self._weights[name] -= np.float32(epoch.rate(step)) * gradient
            for name, mask in self._masks.items():
                self._weights[name] *= mask
            nats, items = nats + loss * len(batch.targets), items + len(batch.targets)
            progress(step + 1)
        self._update(epoch, steps, index, masker)
        self._overflows = _break_at(index) == "overflow"
        if _break_at(index) == "infinite":
            self._weights[KERNEL][:] = np.inf
        return EpochResult(nats=nats, items=items)

    def _update(self, epoch: Epoch, step: int, index: int, masker: Masker) -> None:
        for update in epoch.updates:
            if update.step == step:
                self.set_masks(masker(update, index, self))

    def _misbehave(self, index: int) -> None:
        time.sleep(float(os.environ.get("TOY_SECONDS_PER_EPOCH", "0")))
        for _ in range(int(os.environ.get("TOY_LOOPS_PER_EPOCH", "0"))):
            pass
        how = _break_at(index)
        if how and "TOY_BREAKS_ONCE" in os.environ:  # names a file that remembers
            try:
                Path(os.environ["TOY_BREAKS_ONCE"]).touch(exist_ok=False)
            except FileExistsError:
                return
        if how:
            print(f"about to be {how}", flush=True)
        if how in _SIGNALS:
            os.kill(os.getpid(), _SIGNALS[how])
        if how == "exit":
            os._exit(3)
        if how in ("hang", "gate"):
            _wait_at(Path(os.environ.get("TOY_GATE", "/no/gate")), how)
        if how == "memory":
            raise MemoryError("1 PiB is too much")
        if how == "diverged":
            raise DivergedError(3, float("nan"))
        if how == "full":
            raise StoreError("store: no space left")
        if how == "error":
            raise RuntimeError("the toy is broken")

    def _gradient(self, batch: Batch) -> tuple[dict[str, np.ndarray], float]:
        rows = np.arange(len(batch.targets))
        probabilities = self._probabilities(batch)
        loss = float(-np.log(probabilities[rows, batch.targets]).mean())
        probabilities[rows, batch.targets] -= 1
        probabilities /= len(batch.targets)
        return {KERNEL: probabilities.T @ batch.inputs, BIAS: probabilities.sum(axis=0)}, loss

    def _probabilities(self, batch: Batch) -> np.ndarray:
        logits = batch.inputs @ self._weights[KERNEL].T + self._weights[BIAS]
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def evaluate(self, split: Split) -> Evaluation:
        if split == "test" and "TOY_TEST_OVERFLOWS" in os.environ:
            return Evaluation(nats=float("inf"), items=1, correct=0)
        if self._overflows or not np.isfinite(self._weights[KERNEL]).all():
            return Evaluation(nats=float("inf"), items=1, correct=0)
        nats, correct, items = 0.0, 0, 0
        for batch in self.problem.batches(split, 0, np.random.default_rng(0)):
            probabilities = self._probabilities(batch)
            nats -= float(np.log(probabilities[np.arange(len(batch.targets)), batch.targets]).sum())
            correct += int((probabilities.argmax(axis=1) == batch.targets).sum())
            items += len(batch.targets)
        return Evaluation(nats=nats, items=items, correct=correct)


_SIGNALS = {"killed": 9, "segfault": 11}


def _wait_at(gate: Path, how: str) -> None:
    """Hang; at a gate, say first that it is reached, and go on once it is there."""
    if how == "hang":
        time.sleep(600)
    gate.with_suffix(".reached").touch()
    while not gate.exists():
        time.sleep(0.02)


def _break_at(index: int) -> str:
    how, _, epoch = os.environ.get("TOY_BREAKS", "").partition("@")
    return how if how and index == int(epoch) else ""


class NumpyBackend(Backend):
    """NumPy alone; the environment can slow it down or make it break at an epoch (`TOY_BREAKS=killed@2`)."""

    name: ClassVar[str] = "numpy"

    def why_unavailable(self) -> str | None:
        return None

    def versions(self) -> dict[str, str]:
        return {"numpy": np.__version__}

    def open(self, problem: Problem, settings: Settings) -> Session:
        return NumpySession(problem, settings)


class ManyDevices(NumpyBackend):
    """Says that it has seen a GPU."""

    name: ClassVar[str] = "many_devices"

    def devices(self) -> tuple[str, ...]:
        return ("cuda:1", "cpu")
