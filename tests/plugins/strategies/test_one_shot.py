"""Pruning once, without retraining."""

import pytest
from harness_plugins.strategies.one_shot import OneShot
from pydantic import ValidationError
from recipes import recipe

from harness.api import Gradient, Magnitude, Prune, Random, Train


def test_it_trains_the_dense_model_and_prunes_it():
    dense = recipe()

    assert OneShot().program(dense, 0.9) == (Train(epochs=13, lr=dense.learning_rate), Prune(sparsity=0.9))


@pytest.mark.parametrize(
    ("score", "expected"), [("magnitude", Magnitude()), ("random", Random()), ("gradient", Gradient())]
)
def test_the_score_is_a_choice_so_random_is_a_baseline(score, expected):
    strategy = OneShot(score=score)

    assert strategy.program(recipe(), 0.9)[1].score == expected
    assert strategy.label() == ("one_shot" if score == "magnitude" else f"one_shot(score={score})")


def test_an_unknown_score_is_refused():
    with pytest.raises(ValidationError, match="a name needs the registry"):
        OneShot(score="magnitud")
