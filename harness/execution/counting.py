"""What a model reaches that only counts how often each class occurs: the least that a trained one has to beat."""

import math

import numpy as np

from harness.api import Evaluation, NativeModel, Problem, batch_rng

_MOST_BATCHES = 20_000
"""Of training data that are counted; frequencies of classes are known long before."""


def without_a_model(problem: Problem) -> float | None:
    """The metric on the test split of a model that predicts every class by its frequency in the training data.

    For text that is a unigram model (perplexity), for images the most frequent class (accuracy); counts are raised by
    one, so that a class that the training data lacks has a probability. None where targets are not class ids, where the
    model and its loss are the user's own, or where the task's code does not give batches here.
    """
    if isinstance(problem.network, NativeModel):
        return None
    try:
        # Its own copy of the first epoch's batches: nothing that is trained sees it.
        train = _counts(problem, "train")
        test = _counts(problem, "test")
        size = max(len(train), len(test))
        # One more of each: a class that training never saw would cost infinitely much.
        seen = np.bincount(np.arange(len(train)), train, minlength=size) + 1.0
        wanted = np.bincount(np.arange(len(test)), test, minlength=size)
        nats = -float(wanted @ np.log(seen / seen.sum()))
        items = int(wanted.sum())
        # The most frequent class, always: what accuracy has to beat.
        found = Evaluation(nats=nats, correct=int(wanted[int(seen.argmax())]), items=items)
        value = problem.value(found)
    except Exception:  # a task of anybody's: what it cannot tell is not known, and no run ends for it
        return None
    return float(value) if items and math.isfinite(value) else None


def _counts(problem: Problem, split: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How often each class is a target in a split."""
    counts = np.zeros(0)
    for place, batch in enumerate(problem.batches(split, 0, batch_rng(0, 0))):  # type: ignore[arg-type]
        if split == "train" and place == _MOST_BATCHES:
            break
        found = np.bincount(np.asarray(batch.targets).ravel(), minlength=len(counts)).astype(np.float64)
        found[: len(counts)] += counts
        counts = found
    return counts
