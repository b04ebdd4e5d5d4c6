"""Strategies made of one score, one schedule or straight-through training: their programs."""

import numpy as np
import pytest
from harness_plugins.scores.grasp import GraspScore
from harness_plugins.scores.sparsegpt import SparseGPTScore
from harness_plugins.scores.wanda import WandaScore
from harness_plugins.strategies.grasp import GraSP
from harness_plugins.strategies.movement import Movement
from harness_plugins.strategies.narang import Narang
from harness_plugins.strategies.sparsegpt import SparseGPT
from harness_plugins.strategies.sr_ste import SrSte
from harness_plugins.strategies.synflow import SynFlow
from harness_plugins.strategies.wanda import Wanda
from recipes import recipe

from harness.api import Prune, SpecError, StraightThrough, Train


@pytest.mark.parametrize(
    ("strategy", "score"), [(Wanda(batches=8), WandaScore(batches=8)), (SparseGPT(), SparseGPTScore())]
)
def test_one_pass_after_training_prunes_once_and_retrains_nothing(strategy, score):
    dense, prune = strategy.program(recipe(), 0.9)

    assert isinstance(dense, Train) and dense.epochs == recipe().epochs
    assert prune == Prune(sparsity=0.9, score=score)


def test_grasp_prunes_before_the_first_step():
    prune, train = GraSP(batches=3).program(recipe(), 0.9)

    assert prune.score == GraspScore(batches=3, temperature=200)
    assert train.epochs == recipe().epochs


def test_synflow_prunes_in_a_hundred_steps_of_equal_factors_before_the_first_step():
    (train,) = SynFlow().program(recipe(), 0.99)

    densities = np.array([1 - update.sparsity for update in train.updates])
    assert len(densities) == 100
    assert {update.step for update in train.updates} == {0}
    np.testing.assert_allclose(densities[1:] / densities[:-1], 0.01**0.01, rtol=1e-6)
    assert train.updates[-1].sparsity == 0.99


def test_narang_rises_slowly_then_steeply_and_ends_at_the_target():
    (train,) = Narang(steeper=2).program(recipe(), 0.9)
    updates = train.mask_updates(50)

    # Begin and end of `gradual`: epochs 3 and 9 of 13; the ramp comes a third of the span later.
    assert (updates[0].step, updates[-1].step) == (150, 450)
    assert (updates[0].sparsity, updates[-1].sparsity) == (0, 0.9)
    assert train.sparsity.schedule.ramp == pytest.approx(1 / 3)
    with pytest.raises(SpecError, match="pruning must begin before it ends"):
        Narang(begin_epoch=9, end_epoch=4).program(recipe(), 0.9)


def test_sr_ste_makes_masks_in_every_step_of_dense_weights_that_decay():
    (train,) = SrSte().program(recipe(4), 0.5)

    assert [update.step for update in train.updates] == list(range(4 * 50))
    assert {update.sparsity for update in train.updates} == {0.5}
    assert all(update.score.revives for update in train.updates)
    assert train.through == StraightThrough(decay=2e-4)
    assert SrSte().program(recipe(4, steps_per_epoch=1000), 0.5)[0].updates[1].step == 10


def test_movement_waits_rises_and_follows_its_scores_to_the_end():
    dense, train = Movement(epochs=4, warm_up=0.25, cool_down=0.25, every=10).program(recipe(), 0.8)
    steps, sparsities = zip(*((update.step, update.sparsity) for update in train.updates), strict=True)

    assert dense.epochs == 13 and train.epochs == 4
    assert (steps[0], sparsities[0]) == (50, 0.0)
    assert sparsities[steps.index(100)] == pytest.approx(0.8 * (1 - 0.5**3))
    assert {sparsity for step, sparsity in zip(steps, sparsities, strict=True) if step >= 150} == {0.8}
    assert steps[-1] >= 190
    assert train.lr.at(0) == recipe().learning_rate.at(9)
    assert train.through == StraightThrough()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"epochs": 14}, "`epochs` must be at most 13"), ({"warm_up": 0.5, "cool_down": 0.5}, "must leave a part")],
)
def test_movement_that_does_not_fit_is_refused(parameters, message):
    with pytest.raises(SpecError, match=message):
        Movement(**parameters).program(recipe(), 0.9)


@pytest.mark.parametrize("strategy", [SrSte(), SynFlow(), Movement(), Narang()], ids=lambda each: each.name)
def test_a_model_that_comes_trained_has_no_training_to_prune_in(strategy):
    with pytest.raises(SpecError, match="epochs"):
        strategy.program(recipe(0), 0.9)
