"""Training speed of the PyTorch backend beside a plain PyTorch loop: `python -m benchmarks.training [--data-dir DIR]`.

The model is Zaremba's small one (2 layers of 200, 20 streams x 20 steps, 10,000 words), one thread, on the Penn
Treebank of the data folder or, without one, on words drawn by Zipf's law. The plain loop is `nn.LSTM`, `cross_entropy`,
clipping and SGD, from the same weights; both read the same batches.

Every variant lives in a process of its own; they take turns, a few steps each, so that whatever else the machine does
falls on all of them. A ratio is that of the shortest turns, in CPU seconds, which a busy neighbour changes less than
those on the wall. Beside speed: the losses of the first steps against the plain loop's, and the validation perplexity
that bfloat16 reaches against float32's. Ends with exit code 1 where a goal is missed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from harness.api import Batch, Epoch, Problem, Session, Settings, Split, State

if TYPE_CHECKING:
    from torch import Tensor

WORDS, LAYERS, SPARSITY = 10_000, 2, 0.9
PERPLEXITY_GOAL = 0.005
LOSS_STEPS, LOSS_GOAL = 20, 1e-4
LOSS_RATE = 0.1
"""Losses are compared at a tenth of the recipe's rate. At the whole one the first steps overshoot, the loss jumps from
8 to 13 nats, and rounding grows a thousandfold in one step: the plain loop is then 1e-3 nats from itself in float64."""

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Source:
    """Where the words come from: the Penn Treebank in a data folder, or files that `zipf_text` has written."""

    folder: Path
    corpus: Literal["ptb", "text"]

    def problem(self, steps: int | None = None) -> Problem:
        """The small language model on the first steps of the text, None for all of it."""
        from harness_plugins.tasks.lstm_lm import LstmLm

        task = LstmLm(corpus=self.corpus)
        if steps:
            preset = task.settings()
            task = task.model_copy(update={"train_tokens": preset.batch * (preset.steps * steps + 1)})
        return task.load(self.folder)


@dataclass(frozen=True)
class Variant:
    """One way to train: ours or plain, with or without masks."""

    ours: bool
    precision: Precision
    pruned: bool = False

    def __str__(self) -> str:
        return f"{'harness' if self.ours else 'plain loop'}, {self.precision}, {'pruned' if self.pruned else 'dense'}"


PLAIN, PLAIN_LOW = Variant(False, "float32"), Variant(False, "bfloat16")
DENSE, DENSE_LOW = Variant(True, "float32"), Variant(True, "bfloat16")
PRUNED, PRUNED_LOW = Variant(True, "float32", pruned=True), Variant(True, "bfloat16", pruned=True)
VARIANTS = (PLAIN, DENSE, PRUNED, PLAIN_LOW, DENSE_LOW, PRUNED_LOW)
GOALS = ((DENSE, PLAIN, 1.2), (DENSE_LOW, PLAIN, 2.5), (PRUNED, DENSE, 0.97), (PRUNED_LOW, DENSE_LOW, 0.97))
"""How many times as fast as the second the first has to be."""


def zipf_text(folder: Path) -> None:
    """Write a text of independent words: how often a word repeats matters to the embedding."""
    rng = np.random.default_rng(0)
    every = np.arange(WORDS - 1)  # and the end of the only line
    for split, tokens in (("train", 300_000), ("valid", 30_000), ("test", 30_000)):
        words = (rng.zipf(1.3, tokens) - 1) % len(every)
        words = np.concatenate((every, words)) if split == "train" else words
        (folder / f"{split}.txt").write_text(" ".join(f"w{word}" for word in words))


class PlainModel:
    """The network in PyTorch's own modules, from given weights, with the state that it carries on."""

    def __init__(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        import torch
        from torch import nn

        torch.set_num_threads(1)
        weights = {name: torch.from_numpy(value) for name, value in arrays.items()}
        words, hidden = weights["embedding.table"].shape
        self.embedding, self.lstm = nn.Embedding(words, hidden), nn.LSTM(hidden, hidden, LAYERS)
        self.softmax = nn.Linear(hidden, words)
        given = {self.embedding.weight: "embedding.table", self.softmax.weight: "softmax.kernel"}
        given[self.softmax.bias] = "softmax.bias"
        for index in range(LAYERS):
            given[getattr(self.lstm, f"weight_ih_l{index}")] = f"lstm_{index}.kernel"
            given[getattr(self.lstm, f"weight_hh_l{index}")] = f"lstm_{index}.recurrent_kernel"
            given[getattr(self.lstm, f"bias_ih_l{index}")] = f"lstm_{index}.bias"
            # The model has one bias per layer; the module's second one stays zero.
            nn.init.zeros_(getattr(self.lstm, f"bias_hh_l{index}")).requires_grad_(False)
        for parameter, name in given.items():
            parameter.data.copy_(weights[name])
        self.parameters = list(given)
        self.restart(1)

    def restart(self, streams: int) -> None:
        """Begin a text: the state is zero."""
        import torch

        self.state = (torch.zeros(LAYERS, streams, self.lstm.hidden_size),) * 2

    def nats(self, inputs: NDArray[np.int32], targets: NDArray[np.int32]) -> "Tensor":
        """The summed loss of a batch of words, (streams, steps) each."""
        import torch

        given, wanted = (torch.tensor(words, dtype=torch.int64).t() for words in (inputs, targets))
        out, (h, c) = self.lstm(self.embedding(given), self.state)
        self.state = (h.detach().float(), c.detach().float())
        logits = self.softmax(out).view(-1, self.softmax.out_features)
        return torch.nn.functional.cross_entropy(logits, wanted.reshape(-1), reduction="sum")


def plain_losses(problem: Problem, precision: Precision, rate: float = 1.0) -> Iterator[float]:
    """Train an epoch as PyTorch's own examples do; the nats per word of every step."""
    import torch

    model = PlainModel(problem.initial_weights(0))
    optimiser = torch.optim.SGD(model.parameters, lr=rate)
    while True:
        for step, batch in enumerate(problem.batches("train", 0, np.random.default_rng(0))):
            if step == 0:
                model.restart(len(batch.inputs))
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = model.nats(batch.inputs, batch.targets) / len(batch.inputs)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters, problem.recipe.clip_norm)
            optimiser.step()
            value = loss.item() / batch.inputs.shape[1]
            if not np.isfinite(value):
                raise RuntimeError("the plain loop diverged")
            yield value


def session_of(problem: Problem, precision: Precision) -> Session:
    """The backend with the first weights."""
    from harness_plugins.backends.torch_backend import TorchBackend

    session = TorchBackend().open(problem, Settings(precision=precision))
    session.load(State(problem.initial_weights(0)))
    return session


def trained(session: Session, rate: float = 1.0) -> float:
    """Train an epoch; its loss in nats."""
    return session.train_epoch(Epoch(rates=rate), 0, lambda *_: {}, lambda _: None).nats


def work_of(variant: Variant, source: Source, steps: int) -> Callable[[], object]:
    """A function that trains `steps` steps."""
    problem = source.problem(steps)
    if not variant.ours:
        losses = plain_losses(problem, variant.precision)
        return lambda: [next(losses) for _ in range(steps)]
    session = session_of(problem, variant.precision)
    if variant.pruned:
        rng = np.random.default_rng(1)
        shapes = {tensor.name: tensor.shape for tensor in problem.tensors() if tensor.is_prunable}
        session.set_masks({name: rng.random(shape) >= SPARSITY for name, shape in shapes.items()})
    return lambda: trained(session)


def serve(variant: Variant, source: Source, steps: int, pipe: Connection) -> None:
    """Answer every message with the CPU seconds that one turn took; None ends it."""
    work = work_of(variant, source, steps)
    work()  # caches, buffers and kernels are made once
    pipe.send(0.0)
    while pipe.recv() is not None:
        begin = time.process_time()
        work()
        pipe.send(time.process_time() - begin)


def measured(source: Source, rounds: int, steps: int) -> dict[Variant, float]:
    """CPU seconds of the shortest turn of every variant."""
    context = get_context("spawn")
    pipes, workers = {}, []
    for variant in VARIANTS:
        pipes[variant], theirs = context.Pipe()
        workers.append(context.Process(target=serve, args=(variant, source, steps, theirs), daemon=True))
        workers[-1].start()
        theirs.close()
        pipes[variant].recv()
    seconds = dict.fromkeys(VARIANTS, float("inf"))
    for _ in range(rounds):
        for variant, pipe in pipes.items():
            pipe.send("go")
            seconds[variant] = min(seconds[variant], pipe.recv())
    for pipe in pipes.values():
        pipe.send(None)
    for worker in workers:
        worker.join()
    return seconds


def tokens_of(problem: Problem) -> int:
    """Words of a training step."""
    return next(problem.batches("train", 0, np.random.default_rng(0))).inputs.size


class FirstSteps:
    """A problem whose training text ends early; its streams stay those of the whole text."""

    def __init__(self, problem: Problem, steps: int) -> None:
        self._problem, self._steps = problem, steps

    def __getattr__(self, name: str) -> object:
        return getattr(self._problem, name)

    def batches(self, split: Split, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """The first ones."""
        return islice(self._problem.batches(split, epoch, rng), self._steps)


def loss_difference(source: Source) -> float:
    """How far the first losses are from the plain loop's at most, as a fraction of them.

    A session tells what an epoch has lost in all, so epochs of 1, 2, ... steps are run from the first weights.
    """
    problem = source.problem(LOSS_STEPS)
    plain, words = plain_losses(problem, "float32", LOSS_RATE), tokens_of(problem)
    worst = before = 0.0
    for steps in range(1, LOSS_STEPS + 1):
        nats = trained(session_of(cast("Problem", FirstSteps(problem, steps)), "float32"), LOSS_RATE)
        worst = max(worst, abs((nats - before) / words / next(plain) - 1))
        before = nats
    return worst


def perplexity(source: Source, precision: Precision, steps: int | None) -> float:
    """Of the validation text, after an epoch."""
    problem = source.problem(steps)
    session = session_of(problem, precision)
    trained(session)
    return problem.value(session.evaluate("valid"))


def perplexities(source: Source, steps: int | None) -> Mapping[Precision, float]:
    """One process per precision, side by side: here no time is taken."""
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    with get_context("spawn").Pool(2) as pool:
        return dict(zip(precisions, pool.starmap(perplexity, [(source, p, steps) for p in precisions]), strict=True))


def main() -> int:
    """Measure, print a table and the goals; 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-dir", type=Path, help="the data folder that has `ptb`; without it, random words")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=5, help="training steps per turn")
    parser.add_argument("--epoch-steps", type=int, default=300, help="steps before perplexities; 0 for the whole text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Source(options.data_dir, "ptb") if options.data_dir else Source(Path(folder), "text")
        if source.corpus == "text":
            zipf_text(source.folder)
        seconds = measured(source, options.rounds, options.steps)
        with get_context("spawn").Pool(1) as pool:
            difference = pool.apply(loss_difference, (source,))
        reached = perplexities(source, options.epoch_steps or None)
        tokens = tokens_of(source.problem(options.steps))

    print(f"{source.corpus}, one thread, CPU time, best of {options.rounds} turns of {options.steps} steps")
    print(f"{'variant':32} {'ms per step':>12} {'tokens/s':>10} {'x plain float32':>16}")
    for variant in VARIANTS:
        step = seconds[variant] / options.steps
        print(f"{variant!s:32} {1e3 * step:12.1f} {tokens / step:10.0f} {seconds[PLAIN] / seconds[variant]:16.2f}")
    print()
    verdicts = [
        ((found := seconds[than] / seconds[fast]) >= goal, f"{fast} is {found:.2f} x {than}; goal {goal}")
        for fast, than, goal in GOALS
    ]
    text = f"float32 losses of {LOSS_STEPS} steps at rate {LOSS_RATE} are {difference:.1e} from the plain loop's"
    verdicts.append((difference <= LOSS_GOAL, f"{text}; goal {LOSS_GOAL:g}"))
    low, full = reached["bfloat16"], reached["float32"]
    moved, steps = abs(low / full - 1), options.epoch_steps or "all"
    text = f"validation perplexity after {steps} steps: bfloat16 {low:.2f}, float32 {full:.2f}"
    verdicts.append((moved <= PERPLEXITY_GOAL, f"{text}, {moved:.2%} apart; goal {PERPLEXITY_GOAL:.1%}"))
    for met, text in verdicts:
        print(f"{'met' if met else 'MISSED':6}  {text}")
    missed = sum(not met for met, _ in verdicts)
    print(f"training: {len(verdicts) - missed} of {len(verdicts)} goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
