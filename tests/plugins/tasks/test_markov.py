"""The embedded Markov source: its entropy is exact, its text repeats, and its structure is worth learning."""

import hashlib

import numpy as np
import pytest
from harness_plugins.tasks import _markov
from harness_plugins.tasks._markov import SLOTS, SUCCESSORS, MarkovSource
from hypothesis import given, settings
from hypothesis import strategies as st

SMALL = MarkovSource(words=20, tokens=400, classes=2)


def transition_probabilities(source):
    """P(next word | previous word, last word) of an order-2 source, from the counts alone: (words, words, words)."""
    table = np.zeros((source.words,) * 3)
    following, probabilities = _markov.successors(source), _markov.slot_counts() / SLOTS
    stride = SUCCESSORS // source.classes
    for previous in range(source.words):
        for last in range(source.words):
            for rank in range(SUCCESSORS):
                place = (rank + stride * _markov.rotation([previous, last], source.classes)) % SUCCESSORS
                table[previous, last, following[last, place]] += probabilities[rank]
    return table


def test_the_stated_entropy_is_that_of_the_stationary_chain():
    p = transition_probabilities(SMALL)  # (previous, last, next)
    state = np.full((SMALL.words, SMALL.words), SMALL.words**-2.0)  # over (previous, last)
    for _ in range(200):
        state = np.einsum("ab,abc->bc", state, p)
    logs = np.log(np.where(p > 0, p, 1))

    rate = -(state[..., np.newaxis] * p * logs).sum()

    assert SMALL.entropy == pytest.approx(rate, rel=1e-12)


def test_the_best_score_on_the_test_text_is_what_the_true_model_gives():
    corpus = _markov.corpus(SMALL)
    p, test = transition_probabilities(SMALL), corpus.texts["test"]
    before = int(corpus.texts["valid"][-1])  # the text goes on from split to split

    context = [before, *test[:-1].tolist()]
    nats = [-np.log(p[context[i], test[i], test[i + 1]]) for i in range(len(test) - 1)]

    assert corpus.facts["best_perplexity_on_test_text"] == pytest.approx(np.exp(np.mean(nats)), abs=1e-6)


def test_a_long_text_scores_near_the_entropy_rate():
    facts = _markov.corpus(MarkovSource(tokens=300_000)).facts

    assert facts["best_perplexity_on_test_text"] == pytest.approx(facts["best_perplexity"], rel=0.02)


def test_words_and_pairs_alone_predict_clearly_worse_than_the_source():
    corpus = _markov.corpus(MarkovSource())
    train, test = corpus.texts["train"], corpus.texts["test"]
    singles = np.bincount(train, minlength=corpus.vocabulary) + 0.1
    pairs = np.full((corpus.vocabulary, corpus.vocabulary), 0.1)
    np.add.at(pairs, (train[:-1], train[1:]), 1)

    unigram = np.exp(-np.log(singles / singles.sum())[test[1:]].mean())
    bigram = np.exp(-np.log((pairs / pairs.sum(axis=1, keepdims=True))[test[:-1], test[1:]]).mean())

    assert unigram > 5 * corpus.facts["best_perplexity"]
    assert bigram > 1.5 * corpus.facts["best_perplexity"]


@settings(max_examples=25, deadline=None)
@given(
    words=st.integers(SUCCESSORS, 60), order=st.integers(1, 4), classes=st.integers(1, 16), seed=st.integers(0, 2**32)
)
def test_any_source_makes_the_text_asked_for(words, order, classes, seed):
    source = MarkovSource(words=words, tokens=200, order=order, classes=classes, seed=seed)

    corpus = _markov.corpus(source)

    assert {split: len(text) for split, text in corpus.texts.items()} == {"train": 200, "valid": 1000, "test": 1000}
    assert all(0 <= text.min() and text.max() < words and text.dtype == np.int32 for text in corpus.texts.values())


@settings(deadline=None)
@given(words=st.integers(SUCCESSORS, 60), seed=st.integers(0, 1000))
def test_the_successors_of_a_word_are_all_different(words, seed):
    following = _markov.successors(MarkovSource(words=words, seed=seed))

    assert following.shape == (words, SUCCESSORS)
    assert all(len(set(row)) == SUCCESSORS for row in following.tolist())


def test_the_slots_are_all_used_and_ranked():
    counts = _markov.slot_counts()

    assert counts.sum() == SLOTS
    assert (np.diff(counts) <= 0).all() and counts.min() >= 1


def test_the_seed_changes_the_language():
    first, other = (_markov.corpus(MarkovSource(tokens=200, seed=seed)).texts["train"] for seed in (0, 1))

    assert (first != other).any()


def test_the_default_text_is_the_same_bytes_everywhere():
    text = _markov.corpus(MarkovSource()).texts["train"].astype("<i4")

    assert (
        hashlib.sha256(text.tobytes()).hexdigest() == "81a117f519b3ab358d9d90c475ae2187976591ec13d15bd1c028335fb76f2043"
    )
