"""Weight rewinding."""

import pytest
from harness_plugins.strategies.weight_rewinding import WeightRewinding
from recipes import recipe

from harness.api import Prune, Rewind, SpecError, Train


def test_it_prunes_goes_back_and_repeats_the_end_of_the_training():
    dense = recipe()

    program = WeightRewinding(epochs=5).program(dense, 0.9)

    assert program == (
        Train(epochs=13, lr=dense.learning_rate),
        Prune(sparsity=0.9),
        Rewind(to=8),
        Train(epochs=5, lr=dense.learning_rate.from_epoch(8)),
    )


def test_every_round_goes_back_to_the_same_epoch():
    program = WeightRewinding(epochs=3, rounds=3).program(recipe(), 0.9)

    assert [phase.to for phase in program if isinstance(phase, Rewind)] == [10, 10, 10]


def test_going_back_to_the_initial_weights_is_refused_with_the_reason():
    with pytest.raises(SpecError) as caught:
        WeightRewinding(epochs=13).program(recipe(), 0.9)

    assert str(caught.value) == (
        "weight_rewinding: `epochs` must be at most 12 for a recipe of 13 epochs, got 13: it must not go back to the "
        "initial weights, from which a pruned network trains far worse; set `epochs` to at most 12"
    )


def test_a_recipe_of_one_epoch_has_nowhere_to_go_back_to():
    with pytest.raises(SpecError, match="lengthen the recipe"):
        WeightRewinding(epochs=1).program(recipe(1), 0.9)
