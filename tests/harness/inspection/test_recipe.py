"""What a cell's stages really did, in words: read from the values in their keys."""

import pytest
from harness_plugins.patterns.unstructured import Unstructured
from harness_plugins.strategies.fine_tuning import FineTuning
from harness_plugins.strategies.gradual import Gradual
from harness_plugins.strategies.lottery_ticket import LotteryTicket
from harness_plugins.strategies.low_rate_rewinding import LowRateRewinding
from harness_plugins.strategies.reinitialise import Reinitialise
from harness_plugins.strategies.set import SET
from harness_plugins.strategies.weight_rewinding import WeightRewinding
from numpy_plugins import ToyTask
from toy import experiment

from harness.api import AdamW, Conv2D, Network, Pool2D
from harness.inspection.recipe import Step, model_of, optimiser_of, recipe_of
from harness.planning.plan import make_plan


def planned(strategy, tmp_path, sparsity=0.5, epochs=8):
    grid = experiment([strategy], patterns=[Unstructured()], sparsities=[sparsity], task=ToyTask(epochs=epochs))
    return make_plan(grid, store=tmp_path).cells[-1]


def told(strategy, tmp_path, **options):
    return recipe_of(
        Step(stage.kind, stage.key, stage.inputs) for stage in planned(strategy, tmp_path, **options).stages
    )


def test_a_one_shot_prune_and_retraining_have_the_rates_that_were_used(tmp_path):
    assert told(FineTuning(epochs=2), tmp_path) == [
        "train epochs 1 to 8, learning rate 0.5 (2 epochs), 0.25, 0.125, 0.0625, 0.03125, 0.01562, 0.007812",
        "prune to 50 % by magnitude",
        "train epochs 9 to 10, learning rate 0.007812",
    ]


def test_many_rates_are_told_by_the_first_and_the_last(tmp_path):
    (first, *_) = told(FineTuning(epochs=1), tmp_path, epochs=12)

    assert first == "train epochs 1 to 12, learning rate 0.5 in the first 2 epochs, 0.0004883 in the last"


def test_a_way_back_names_the_epoch_it_leads_to(tmp_path):
    assert told(WeightRewinding(epochs=3, rounds=2), tmp_path)[1:] == [
        "prune to 29.29 % by magnitude",
        "put weights and optimiser back to those after epoch 5, the masks stay",
        "train epochs 6 to 8, learning rate 0.03125, 0.01562, 0.007812",
        "prune to 50 % by magnitude",
        "put weights and optimiser back to those after epoch 5, the masks stay",
        "train epochs 6 to 8, learning rate 0.03125, 0.01562, 0.007812",
    ]
    assert "draw initial weights afresh, the masks stay" in told(Reinitialise(), tmp_path)


def test_a_schedule_is_told_by_its_updates(tmp_path):
    before, during, after = told(Gradual(), tmp_path)

    assert before == "train epochs 1 to 2, learning rate 0.5"
    assert during.startswith("train epochs 3 to ") and " mask updates from 0 % to 50 % by magnitude" in during
    assert after == "train epoch 8, learning rate 0.007812"
    assert any(
        " mask updates " in line and line.endswith("by magnitude, grown_at_random") for line in told(SET(), tmp_path)
    )


def test_the_network_and_the_optimiser_have_all_their_numbers(tmp_path):
    inputs = planned(FineTuning(), tmp_path).stages[0].inputs
    layers = (Conv2D(name="conv", inputs=1, outputs=6, kernel=(5, 3), padding=2, input_label="pixels"), Pool2D(size=2))
    network = Network(layers=layers, input_shape=(1, 8, 8)).model_dump(mode="json")

    assert model_of(inputs) == "output (inputs=20 units=3)"
    assert (
        model_of({"network": network}) == "conv (inputs=1 outputs=6 kernel=5 x 3 stride=1 padding=2), pool2d (size=2)"
    )
    assert model_of({}) == "" and optimiser_of({}) == ""
    assert optimiser_of(inputs) == "sgd (momentum=0, weight_decay=0), gradients not clipped"
    adam = {"optimiser": AdamW().model_dump(mode="json"), "clip_norm": 0.25}
    assert optimiser_of(adam).startswith("adamw (") and optimiser_of(adam).endswith("gradients clipped at norm 0.25")


# --- which checkpoints a strategy needs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "needed"),
    [
        (FineTuning(), ()),
        (Gradual(), ()),
        (WeightRewinding(epochs=3), (5,)),
        (WeightRewinding(epochs=3, rounds=3), (5,)),
        (LowRateRewinding(epochs=2), (6,)),
        (LotteryTicket(rewind_to=1), (1,)),
        (Reinitialise(), ()),
    ],
    ids=lambda value: value.label() if hasattr(value, "label") else None,
)
def test_a_strategy_that_goes_back_says_which_epochs_of_the_dense_training_it_needs(strategy, needed, tmp_path):
    assert planned(strategy, tmp_path).rewinds_to == needed
