"""Which known word somebody may have meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness._words import closest

STRATEGIES = ("fine_tuning", "gradual", "lr_rewinding", "one_shot", "weight_rewinding")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("learning_rate_rewinding", "lr_rewinding"),
        ("LearningRateRewinding", "lr_rewinding"),
        ("rewinding_lr", "lr_rewinding"),
        ("weight-rewinding", "weight_rewinding"),
        ("wieght_rewinding", "weight_rewinding"),
        ("finetuning", "fine_tuning"),
        ("Fine Tuning", "fine_tuning"),
        ("oneshot", "one_shot"),
        ("gradal", "gradual"),
        ("lottery", None),
        ("", None),
    ],
)
def test_it_is_found_by_letters_and_by_words(written, meant):
    assert closest(written, STRATEGIES) == meant


@given(st.sampled_from(STRATEGIES), st.randoms(use_true_random=False))
def test_a_known_word_is_always_itself_whatever_the_order(word, rng):
    known = list(STRATEGIES)
    rng.shuffle(known)

    assert closest(word, known) == word
