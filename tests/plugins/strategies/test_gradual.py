"""Gradual pruning."""

import pytest
from harness_plugins.strategies.gradual import Gradual
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from recipes import recipe

from harness.api import Gradient, Ramp, SpecError, Train


def test_it_is_one_training_as_long_as_the_dense_one():
    dense = recipe()

    program = Gradual(begin_epoch=3, end_epoch=10, every=100).program(dense, 0.9)

    schedule = Ramp(initial=0.0, final=0.9, begin=3, end=10, every=100)
    assert program == (Train(epochs=13, lr=dense.learning_rate, sparsity=schedule),)
    assert not Gradual.needs_dense_model


@pytest.mark.parametrize(
    ("epochs", "span"), [(1, (0, 1)), (2, (0, 1)), (3, (0, 2)), (4, (1, 3)), (13, (3, 9)), (55, (3, 41))]
)
def test_by_default_it_begins_early_and_leaves_epochs_to_recover(epochs, span):
    assert Gradual().span(recipe(epochs)) == span


def test_an_end_left_open_follows_a_late_begin():
    assert Gradual(begin_epoch=12).span(recipe()) == (12, 13)


@pytest.mark.parametrize("every", [1, 7, 100, 10**6])
def test_whatever_the_frequency_the_target_is_reached_at_the_end_epoch(every):
    (phase,) = Gradual(every=every).program(recipe(), 0.9)

    updates = phase.sparsity.updates(50)

    assert updates[0] == (150, 0.0)
    assert updates[-1] == (450, 0.9)


@given(epochs=st.integers(1, 40), steps=st.integers(1, 3000))
def test_by_default_a_span_has_about_twenty_updates_or_one_every_hundred_steps(epochs, steps):
    dense = recipe(epochs, steps)
    begin, end = Gradual().span(dense)

    (phase,) = Gradual().program(dense, 0.9)

    updates = phase.sparsity.updates(steps)
    assert len(updates) > min(20, (end - begin) * steps)
    assert phase.sparsity.every == 100 or len(updates) <= 41


def test_long_recipes_are_pruned_every_hundred_steps_as_ever():
    (phase,) = Gradual().program(recipe(13, 2323), 0.9)

    assert phase.sparsity.every == 100


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"begin_epoch": 5, "end_epoch": 5}, "got begin_epoch=5 and end_epoch=5"),
        ({"begin_epoch": 8, "end_epoch": 4}, "got begin_epoch=8 and end_epoch=4"),
        ({"end_epoch": 14}, "within the recipe's 13 epochs, got begin_epoch=3 and end_epoch=14"),
        ({"begin_epoch": 13}, "set them so that begin_epoch < end_epoch <= 13"),
        ({"initial": 0.95}, "`initial` must not exceed the target sparsity 0.9, got 0.95"),
    ],
)
def test_a_schedule_that_does_not_fit_the_recipe_is_refused(parameters, sentence):
    with pytest.raises(SpecError, match=sentence):
        Gradual(**parameters).program(recipe(), 0.9)


def test_an_update_frequency_of_nothing_is_refused():
    with pytest.raises(ValidationError, match="greater than 0"):
        Gradual(every=0)


def test_the_score_ranks_every_update():
    assert Gradual(score="gradient").program(recipe(), 0.9)[0].score == Gradient()


def test_schedules_that_begin_alike_share_their_dense_epochs():
    low, high = (Gradual().program(recipe(), target)[0] for target in (0.5, 0.9))

    assert low.lr == high.lr
    assert min(step for step, _ in low.sparsity.updates(50)) == 3 * 50
