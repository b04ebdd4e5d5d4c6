"""Training speed of the PyTorch backend beside a plain PyTorch loop: `python -m benchmarks.training`.

The model is Zaremba's small one (20 streams x 20 steps, hidden 200, 10,000 words), one thread. Every variant lives in a
process of its own; they take turns, a few steps each, so that whatever else the machine does falls on all of them. A
ratio is the median over the rounds of the ratio within a round; times are CPU seconds, which a busy neighbour changes
less than those on the wall. Ends with exit code 1 where a goal is missed.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.api import (
    LSTM,
    SGD,
    Batch,
    Constant,
    Dense,
    Embedding,
    Epoch,
    Evaluation,
    JsonValue,
    Metric,
    Network,
    Problem,
    Recipe,
    Settings,
    Split,
    State,
)

BATCH, STEPS, HIDDEN, WORDS, LAYERS = 20, 20, 200, 10_000, 2
SPARSITY = 0.9
CLIP_NORM = 5.0

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Variant:
    """One way to train: ours or plain, with or without masks."""

    ours: bool
    precision: Precision
    pruned: bool = False

    def __str__(self) -> str:
        return f"{'harness' if self.ours else 'plain loop'}, {self.precision}, {'pruned' if self.pruned else 'dense'}"


@dataclass(frozen=True)
class Goal:
    """How many times as fast as another a variant has to be."""

    variant: Variant
    than: Variant
    at_least: float


VARIANTS = tuple(
    Variant(ours, precision, pruned)
    for precision in ("float32", "bfloat16")
    for ours, pruned in ((False, False), (True, False), (True, True))
)
GOALS = tuple(
    goal
    for plain, dense, pruned in (VARIANTS[:3], VARIANTS[3:])
    for goal in (Goal(dense, plain, 1.2), Goal(pruned, dense, 0.97))
)


class RandomWords(Problem):
    """The small language model on words drawn by Zipf's law: how often a word repeats matters to the embedding."""

    def __init__(self, steps: int) -> None:
        sizes = {"inputs": HIDDEN, "units": HIDDEN, "input_label": "units"}
        lstms = tuple(LSTM.model_validate({"name": f"lstm_{index}", **sizes}) for index in range(LAYERS))
        softmax = Dense(name="softmax", inputs=HIDDEN, units=WORDS, role="softmax", input_label="units")
        self.network = Network(layers=(Embedding(name="embedding", words=WORDS, features=HIDDEN), *lstms, softmax))
        rate = Constant(rate=1.0)
        self.recipe = Recipe(epochs=1, optimiser=SGD(), learning_rate=rate, clip_norm=CLIP_NORM, steps_per_epoch=steps)
        self.metric = Metric(name="perplexity", better="lower")

    @property
    def fingerprint(self) -> str:
        """A name: nothing of this is stored."""
        return "benchmark"

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """None."""
        return {}

    def initial_weights(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Uniform in +-0.1."""
        rng = np.random.default_rng(seed)
        return {t.name: rng.uniform(-0.1, 0.1, t.shape).astype(np.float32) for t in self.tensors()}

    def batches(self, split: Split, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Independent words."""
        for _ in range(self.recipe.steps_per_epoch):
            words = (rng.zipf(1.3, (BATCH, STEPS + 1)) % WORDS).astype(np.int32)
            yield Batch(words[:, :-1], words[:, 1:])

    def value(self, evaluation: Evaluation) -> float:
        """Perplexity."""
        return float(np.exp(evaluation.nats / evaluation.items))


def harness_loop(variant: Variant, steps: int) -> Callable[[], None]:
    """A function that trains `steps` steps with the backend."""
    from harness_plugins.backends.torch_backend import TorchBackend

    problem = RandomWords(steps)
    session = TorchBackend().open(problem, Settings(precision=variant.precision))
    session.load(State(problem.initial_weights(0)))
    if variant.pruned:
        rng = np.random.default_rng(1)
        shapes = {tensor.name: tensor.shape for tensor in problem.tensors() if tensor.is_prunable}
        session.set_masks({name: rng.random(shape) >= SPARSITY for name, shape in shapes.items()})

    def run() -> None:
        session.train_epoch(Epoch(rates=1.0), 0, lambda *_: {}, lambda _: None)

    return run


def plain_loop(variant: Variant, steps: int) -> Callable[[], None]:
    """A function that trains `steps` steps as PyTorch's own examples do."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    embedding, lstm = nn.Embedding(WORDS, HIDDEN), nn.LSTM(HIDDEN, HIDDEN, LAYERS)
    softmax, loss_of = nn.Linear(HIDDEN, WORDS), nn.CrossEntropyLoss(reduction="sum")
    parameters = [*embedding.parameters(), *lstm.parameters(), *softmax.parameters()]
    for parameter in parameters:
        nn.init.uniform_(parameter, -0.1, 0.1)
    optimiser = torch.optim.SGD(parameters, lr=1.0)
    problem = RandomWords(steps)

    def run() -> None:
        state = (torch.zeros(LAYERS, BATCH, HIDDEN), torch.zeros(LAYERS, BATCH, HIDDEN))
        for batch in problem.batches("train", 0, np.random.default_rng(0)):
            inputs, targets = (torch.from_numpy(words).t().long() for words in (batch.inputs, batch.targets))
            with torch.autocast("cpu", torch.bfloat16, enabled=variant.precision == "bfloat16"):
                out, (h, c) = lstm(embedding(inputs), state)
                loss = loss_of(softmax(out).view(-1, WORDS), targets.reshape(-1)) / BATCH
            state = (h.detach().float(), c.detach().float())
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
            optimiser.step()
            if not np.isfinite(loss.item()):
                raise RuntimeError("the plain loop diverged")

    return run


def serve(variant: Variant, steps: int, pipe: Connection) -> None:
    """Answer every message with the CPU seconds that one turn took; None ends it."""
    run = (harness_loop if variant.ours else plain_loop)(variant, steps)
    run()  # caches, buffers and kernels are made once
    pipe.send(0.0)
    while pipe.recv() is not None:
        begin = time.process_time()
        run()
        pipe.send(time.process_time() - begin)


def measure(rounds: int, steps: int) -> dict[Variant, list[float]]:
    """CPU seconds per turn of every variant, one entry per round."""
    context = get_context("spawn")
    pipes, workers = {}, []
    for variant in VARIANTS:
        pipes[variant], theirs = context.Pipe()
        workers.append(context.Process(target=serve, args=(variant, steps, theirs), daemon=True))
        workers[-1].start()
        theirs.close()
        pipes[variant].recv()
    seconds: dict[Variant, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(rounds):
        for variant, pipe in pipes.items():
            pipe.send("go")
            seconds[variant].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(None)
    for worker in workers:
        worker.join()
    return seconds


def ratio(seconds: Mapping[Variant, list[float]], fast: Variant, slow: Variant) -> float:
    """How many times as fast `fast` is as `slow`: the median over the rounds."""
    return statistics.median(s / f for f, s in zip(seconds[fast], seconds[slow], strict=True))


def main() -> int:
    """Measure, print a table and the goals; 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=5, help="training steps per turn")
    options = parser.parse_args()
    seconds = measure(options.rounds, options.steps)
    print(f"{'variant':32} {'ms per step':>12} {'tokens/s':>10} {'x plain loop':>13}   (CPU time, measured)")
    for variant in VARIANTS:
        step = statistics.median(seconds[variant]) / options.steps
        beside = ratio(seconds, variant, Variant(ours=False, precision=variant.precision))
        print(f"{variant!s:32} {1e3 * step:12.1f} {BATCH * STEPS / step:10.0f} {beside:13.2f}")
    print()
    missed = 0
    for goal in GOALS:
        found = ratio(seconds, goal.variant, goal.than)
        missed += found < goal.at_least
        verdict = "met" if found >= goal.at_least else "MISSED"
        print(f"{verdict:6}  {goal.variant} is {found:.2f} x {goal.than}; goal {goal.at_least}")
    print(f"training: {len(GOALS) - missed} of {len(GOALS)} goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
