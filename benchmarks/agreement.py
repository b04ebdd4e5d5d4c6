"""How far two frameworks drift apart in one epoch, beside how far one drifts from itself after a tiny push.

    python -m benchmarks.agreement --data-dir DIR

Training an LSTM at learning rate 1 amplifies rounding. So the difference between PyTorch and Keras is printed beside
that between PyTorch and PyTorch with one initial weight moved by 1e-6: where the two are alike, the frameworks differ
by rounding and by nothing else. Relative differences of the weights, norm over norm, the largest of all tensors; loss
in nats per word.
"""

import argparse
import multiprocessing
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from harness.api import Backend, Epoch, Settings, State
from harness.discovery.finding import discover

STEPS = (1, 5, 20, 50, 100, 149)
PUSH = 1e-6
Result = tuple[dict[str, np.ndarray], float]


def trained(backend: str, steps: int, push: float, data_dir: Path) -> Result:
    """Weights and loss after an epoch of so many steps on Penn Treebank."""
    registry = discover()
    tokens = 20 * (20 * steps + 1)
    entry = {"name": "lstm_lm", "corpus": "ptb", "train_tokens": tokens, "eval_tokens": 2000}
    problem = registry.create("task", entry).load(data_dir)
    made = registry.create("backend", backend)
    assert isinstance(made, Backend)
    session = made.open(problem, Settings())
    weights = problem.initial_weights(0)
    weights["lstm_0.kernel"][0, 0] += np.float32(push)
    session.load(State(weights=weights))
    found = session.train_epoch(Epoch(rates=1.0), 0, _no_updates, lambda step: None)
    return session.weights(), found.nats / found.items


def _no_updates(*_: object) -> dict[str, np.ndarray]:
    raise AssertionError("a dense epoch has no mask updates")


def results(backend: str, push: float, data_dir: Path) -> list[Result]:
    """All lengths in one process: a framework each."""
    return [trained(backend, steps, push, data_dir) for steps in STEPS]


def drift(one: Result, other: Result) -> float:
    """The largest relative difference of a tensor."""
    pairs = [(one[0][name].astype(np.float64), other[0][name]) for name in one[0]]
    return max(float(np.linalg.norm(left - right) / np.linalg.norm(left)) for left, right in pairs)


def main() -> None:
    """Run the three trainings and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    data_dir = parser.parse_args().data_dir
    runs = [("torch", 0.0), ("keras_tfmot", 0.0), ("torch", PUSH)]
    context = multiprocessing.get_context("spawn")
    # A process each: two frameworks never share one.
    with context.Pool(2, maxtasksperchild=1) as pool:
        torch, keras, pushed = pool.starmap(results, [(*run, data_dir) for run in runs], chunksize=1)
    table = Table(
        "steps", "torch, keras_tfmot", f"torch, pushed by {PUSH:g}", "loss torch", "loss keras_tfmot", "loss pushed"
    )
    for steps, a, b, c in zip(STEPS, torch, keras, pushed, strict=True):
        table.add_row(str(steps), f"{drift(a, b):.1e}", f"{drift(a, c):.1e}", *(f"{run[1]:.4f}" for run in (a, b, c)))
    Console().print(table)


if __name__ == "__main__":
    main()
