"""Learning-rate rewinding."""

import pytest
from harness_plugins.strategies.lr_rewinding import LrRewinding
from recipes import recipe

from harness.api import Prune, Rewind, SpecError, Train


def rates(phase):
    return [phase.lr.at(epoch) for epoch in range(phase.epochs)]


def test_it_repeats_the_end_of_the_dense_schedule_and_keeps_the_weights():
    dense = recipe()

    program = LrRewinding(epochs=5).program(dense, 0.9)

    assert program[:2] == (Train(epochs=13, lr=dense.learning_rate), Prune(sparsity=0.9))
    assert rates(program[2]) == [0.5**5, 0.5**6, 0.5**7, 0.5**8, 0.5**9]
    assert not any(isinstance(phase, Rewind) for phase in program)


def test_the_whole_training_can_be_repeated():
    first, _, again = LrRewinding(epochs=13).program(recipe(), 0.9)

    assert rates(again) == rates(first)


def test_every_round_repeats_the_same_rates():
    program = LrRewinding(epochs=2, rate=0.2).program(recipe(), 0.36)

    assert [rates(phase) for phase in program[2::2]] == [[0.5**8, 0.5**9]] * 2


def test_more_epochs_than_the_recipe_has_are_refused_with_the_way_out():
    with pytest.raises(SpecError, match=r"at most 4 for a recipe of 4 epochs, got 5: .*; set `epochs` to at most 4"):
        LrRewinding(epochs=5).program(recipe(4), 0.9)
