"""A finished model evaluated in the numbers of a piece of hardware, its ranges measured on validation data."""

from collections.abc import Iterator

from harness.api import Batch, Embedding, Evaluation, NumberFormat, Operations, Problem, Split, batch_rng

from .network import FixedArithmetic as FixedArithmetic
from .network import FloatArithmetic, Pass, Weights

CALIBRATION_ITEMS = 2000
"""Items of the validation split that ranges of vectors are measured on: whole batches, at least so many items."""


def evaluated(
    problem: Problem, weights: Weights, number_format: NumberFormat, split: Split, ops: Operations, seed: int
) -> Evaluation:
    """Evaluate a model as an engine of this number format computes it.

    Args:
        problem: its network and data.
        weights: of every tensor, pruned ones zero.
        number_format: widths and rules.
        split: what it is scored on; vectors are calibrated on the validation split whatever it is.
        ops: arrays of a backend.
        seed: the cell's.
    """
    exponents = calibrated(problem, weights, number_format, ops, seed)
    arithmetic = FixedArithmetic(ops, problem.network, weights, number_format, exponents)
    run, nats, correct, items = _start(problem, weights, ops), 0.0, 0, 0
    # The same order of batches as in the float evaluation: a recurrent state is carried from one to the next.
    for batch in problem.batches(split, 0, batch_rng(seed, 0)):
        targets = batch.targets.reshape(-1)
        for logits in run.pieces(batch.inputs, arithmetic):
            wanted, targets = targets[: len(logits)], targets[len(logits) :]
            some_nats, hits = ops.score(logits, wanted)
            nats, correct, items = nats + some_nats, correct + hits, items + wanted.size
    hits_or_none = correct if problem.metric.needs_correct else None
    return Evaluation(nats=nats, items=items, correct=hits_or_none, wrapped=arithmetic.wrapped)


def calibrated(
    problem: Problem, weights: Weights, number_format: NumberFormat, ops: Operations, seed: int
) -> dict[str, int]:
    """The steps of vectors and states, as exponents of two, from some validation data."""
    measuring = FloatArithmetic(ops, problem.network, weights, number_format)
    run = _start(problem, weights, ops)
    for batch in _calibration(problem, seed):
        for _ in run.pieces(batch.inputs, measuring):
            pass  # only what passes counts
    return measuring.exponents()


def _start(problem: Problem, weights: Weights, ops: Operations) -> Pass:
    embeddings = [layer.name for layer in problem.network.layers if isinstance(layer, Embedding)]
    return Pass(problem.network, {name: ops.array(weights[f"{name}.table"]) for name in embeddings})


def _calibration(problem: Problem, seed: int) -> Iterator[Batch]:
    seen = 0
    # On validation data, never on the test split, which must select nothing.
    for batch in problem.batches("valid", 0, batch_rng(seed, 0)):
        # The test before the sum: whole batches, since a state is carried through them.
        if seen >= CALIBRATION_ITEMS:
            return
        seen += batch.targets.size
        yield batch
