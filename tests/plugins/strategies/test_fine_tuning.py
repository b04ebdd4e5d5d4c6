"""Fine-tuning, and the rounds that all retraining strategies share."""

import numpy as np
import pytest
from harness_plugins.strategies.fine_tuning import FineTuning
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from recipes import recipe

from harness.api import Constant, Prune, Random, Train


def densities(strategy, target):
    return [round(1 - phase.sparsity, 9) for phase in strategy.program(recipe(), target) if isinstance(phase, Prune)]


def test_it_retrains_at_the_last_dense_rate():
    dense = recipe()

    program = FineTuning(epochs=5).program(dense, 0.9)

    assert program == (
        Train(epochs=13, lr=dense.learning_rate),
        Prune(sparsity=0.9),
        Train(epochs=5, lr=Constant(rate=0.5**9)),
    )


def test_the_rate_can_be_given():
    assert FineTuning(lr=0.1).program(recipe(), 0.9)[2].lr == Constant(rate=0.1)


def test_it_may_be_longer_than_the_recipe():
    assert FineTuning(epochs=30).program(recipe(2), 0.9)[2].epochs == 30


def test_ten_epochs_begin_with_the_program_of_five():
    five, ten = FineTuning(epochs=5).program(recipe(), 0.9), FineTuning(epochs=10).program(recipe(), 0.9)

    assert five[:2] == ten[:2]
    assert [five[2].lr.at(epoch) for epoch in range(5)] == [ten[2].lr.at(epoch) for epoch in range(5)]


def test_rounds_shrink_the_density_by_equal_factors_to_the_target():
    assert densities(FineTuning(rounds=3), 0.936) == [0.4, 0.16, 0.064]
    assert len(FineTuning(rounds=3, epochs=2).program(recipe(), 0.9)) == 1 + 3 * 2


def test_a_rate_prunes_that_much_of_what_is_left_and_clips_the_last_round():
    """The densities of Renda et al. at 20 % a round."""
    assert densities(FineTuning(rate=0.2), 0.8) == [0.8, 0.64, 0.512, 0.4096, 0.32768, 0.262144, 0.2097152, 0.2]


def test_a_target_on_the_way_of_the_rate_gets_no_round_of_its_own():
    assert densities(FineTuning(rate=0.2), 1 - 0.8**3) == [0.8, 0.64, 0.512]
    assert densities(FineTuning(rate=0.2), 0.36) == [0.8, 0.64]
    assert densities(FineTuning(rate=0.5), 0.3) == [0.7]


def test_two_targets_share_the_rounds_before_them():
    low, high = FineTuning(rate=0.2).program(recipe(), 0.5), FineTuning(rate=0.2).program(recipe(), 0.9)

    assert low[:7] == high[:7]  # dense, and three rounds of pruning and retraining


@given(
    target=st.floats(0.01, 0.99),
    strategy=st.builds(FineTuning, rounds=st.integers(1, 12)) | st.builds(FineTuning, rate=st.floats(0.05, 0.9)),
)
@settings(deadline=None)
def test_rounds_rise_strictly_and_end_at_exactly_the_target(target, strategy):
    reached = strategy.sparsities(target)

    assert (np.diff([0.0, *reached]) > 0).all()
    assert reached[-1] == target


def test_the_score_ranks_every_round():
    phases = FineTuning(rounds=2, score="random").program(recipe(), 0.9)

    assert [phase.score for phase in phases if isinstance(phase, Prune)] == [Random(), Random()]


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"rounds": 3, "rate": 0.2}, "either `rounds` or `rate`, got rounds=3 and rate=0.2"),
        ({"rate": 1.0}, "less than 1"),
        ({"rounds": 0}, "greater than 0"),
        ({"epochs": 0}, "greater than 0"),
        ({"lr": 0.0}, "greater than 0"),
        ({"lr": "first"}, "'last'"),
        ({"lr": float("nan")}, "finite number"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, sentence):
    with pytest.raises(ValidationError, match=sentence):
        FineTuning(**parameters)


def test_it_needs_a_dense_model_and_names_its_hyper_parameters():
    assert FineTuning.needs_dense_model
    assert FineTuning().hyper_parameters() == ("epochs", "lr", "rounds", "score")
    assert FineTuning(rate=0.2).hyper_parameters() == ("epochs", "lr", "rate", "score")
    assert FineTuning(epochs=10, rate=0.2).label() == "fine_tuning(epochs=10, rate=0.2)"
