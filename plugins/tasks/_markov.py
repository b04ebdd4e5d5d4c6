"""An embedded corpus whose entropy is known: a seeded Markov source, in integer arithmetic only."""

from functools import lru_cache
from math import isqrt
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.api import Frozen, JsonValue

from ._corpora import SPLITS, Corpus, Tokens

SUCCESSORS = 16
"""Words that may follow a context."""

SLOTS = 256
"""Equally probable draws per word: one random byte chooses the next word."""


class MarkovSource(Frozen):
    """A language of `words` words in which `order` words decide how probable the next one is.

    The last word offers 16 successors. How likely each of them is depends on the earlier words, through the class (id
    modulo `classes`) that each belongs to: the classes rotate a fixed list of probabilities over the successors. A
    model has to remember both, and a unigram or bigram model does clearly worse than the source itself.

    Every context has the same probabilities in another order. The entropy rate is therefore that of this one list,
    exactly, whatever the stationary distribution is.
    """

    words: int = Field(default=100, ge=SUCCESSORS, le=2_000, description="vocabulary")
    tokens: int = Field(
        default=60_000,
        ge=100,
        le=20_000_000,
        description="training words; valid and test have a tenth each, at least 1000",
    )
    order: int = Field(default=2, ge=1, le=4, description="words that the next one depends on")
    classes: int = Field(default=4, ge=1, le=SUCCESSORS, description="classes that the earlier words are told apart by")
    seed: int = Field(default=0, ge=0, description="chooses the language and the text; not the cell's seed")

    @property
    def entropy(self) -> float:
        """Entropy rate in nats per word."""
        p = slot_counts() / SLOTS  # (SUCCESSORS,)
        return float(-(p * np.log(p)).sum())


def slot_counts() -> NDArray[np.int64]:
    """How many of the 256 slots each rank has: about 1 / rank^1.5, at least one, largest first.

    Shapes:
        -> (SUCCESSORS,), sum SLOTS.
    """
    # Ranks to the power of 1.5 by an integer root: floating powers may differ between machines in their last bit.
    shares = [10**9 // isqrt(rank**3 * 10**6) for rank in range(1, SUCCESSORS + 1)]
    counts = np.array([max(1, SLOTS * share // sum(shares)) for share in shares], dtype=np.int64)
    # What rounding took goes to the first rank, so that the slots are 256 and an entropy is exact.
    counts[0] += SLOTS - counts.sum()
    return counts


def successors(source: MarkovSource) -> NDArray[np.int64]:
    """The words that may follow each word, all different, frequent words (low ids) more often.

    Shapes:
        -> (words, SUCCESSORS).
    """
    draws = _bits(source, stream=0, count=source.words * source.words).reshape(source.words, source.words)
    # Ranking by draw * (id + words / 8) makes a word about as frequent as 1 / (id + words / 8), much like Zipf's law.
    # 48 bits of draw times at most 12 bits stay below 2^63: exact.
    keys = (draws >> np.uint64(16)) * (np.arange(source.words, dtype=np.uint64) + np.uint64(source.words // 8))
    chosen: NDArray[np.int64] = np.argsort(keys, axis=1, kind="stable")[:, :SUCCESSORS]
    return chosen


def corpus(source: MarkovSource) -> Corpus:
    """The source's text, cut into train, valid and test, with what the source itself would score on the test text."""
    return _corpus(source)


@lru_cache(maxsize=4)
def _corpus(source: MarkovSource) -> Corpus:
    held_out = max(source.tokens // 10, 1000)
    tokens, ranks = _walk(source, source.tokens + 2 * held_out)
    bounds = (0, source.tokens, source.tokens + held_out, source.tokens + 2 * held_out)
    texts = {split: tokens[bounds[i] : bounds[i + 1]] for i, split in enumerate(SPLITS)}
    # By what the source really drew: on a short text the average differs from the entropy rate.
    nats = -np.log(slot_counts() / SLOTS)[ranks[bounds[2] + 1 :]]  # the first word of a text is given, not predicted
    facts: dict[str, JsonValue] = {
        "best_perplexity": round(float(np.exp(source.entropy)), 6),
        "best_perplexity_on_test_text": round(float(np.exp(nats.mean())), 6),
        "origin_of_best_perplexity": "modelled: the entropy of the Markov source, exact",
    }
    return Corpus(name="synthetic", texts=texts, vocabulary=source.words, facts=facts)


def _walk(source: MarkovSource, length: int) -> tuple[Tokens, NDArray[np.int64]]:
    """The text, and for each word the rank of its probability among its context's successors."""
    following = successors(source).tolist()
    rank_of = np.repeat(np.arange(SUCCESSORS), slot_counts())  # (SLOTS,)
    drawn = rank_of[(_bits(source, stream=1, count=length) >> np.uint64(56)).astype(np.int64)]  # (length,)
    stride = SUCCESSORS // source.classes
    history = [0] * source.order
    words = np.empty(length, dtype=np.int32)
    for position, rank in enumerate(cast("list[int]", drawn.tolist())):
        word = following[history[-1]][(rank + stride * rotation(history, source.classes)) % SUCCESSORS]
        words[position] = word
        history = [*history[1:], word]
    words.setflags(write=False)  # cached and shared
    return words, drawn


def rotation(history: list[int], classes: int) -> int:
    """By how many strides the probabilities are rotated: the earlier words' classes, summed; the last word has none."""
    return sum(word % classes for word in history[:-1]) % classes


def _bits(source: MarkovSource, stream: int, count: int) -> NDArray[np.uint64]:
    # Raw bits of PCG64: unlike the methods of a Generator, NumPy promises never to change them.
    seed = np.random.SeedSequence([source.seed, source.words, source.order, source.classes, stream])
    return np.random.PCG64(seed).random_raw(count)
