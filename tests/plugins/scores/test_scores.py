"""The built-in scores against their formulas, written out once more."""

import numpy as np
import pytest
from harness_plugins.scores.grasp import GraspScore
from harness_plugins.scores.movement import MovementScore
from harness_plugins.scores.snip import SnipSensitivity
from harness_plugins.scores.sparsegpt import SparseGPTScore
from harness_plugins.scores.synflow import SynFlowScore
from harness_plugins.scores.taylor import Taylor
from harness_plugins.scores.wanda import WandaScore

from harness.api import Measurement, ScoreInput

RNG = np.random.default_rng(4)
WEIGHTS, OTHER = RNG.normal(size=(2, 3, 5))
INPUTS = RNG.normal(size=(40, 5)) @ RNG.normal(size=(5, 5))


def given(weights=WEIGHTS, **needed):
    return ScoreInput(weights, np.ones(weights.shape, bool), np.random.default_rng(0), needed)


def each(formula):
    """A formula of one weight and what stands in its place."""
    return np.array([[formula(WEIGHTS[i, j], OTHER[i, j]) for j in range(5)] for i in range(3)])


@pytest.mark.parametrize(
    ("score", "need", "formula"),
    [
        (Taylor(), "gradients", lambda w, g: (w * g) ** 2),
        (SnipSensitivity(), "gradients", lambda w, g: abs(w * g)),
        (GraspScore(), "hessian_gradients", lambda w, hg: w * hg),
        (SynFlowScore(), "synaptic_flow", lambda w, flow: abs(w * flow)),
        (MovementScore(), "movement", lambda w, moved: moved),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_score_is_its_formula(score, need, formula):
    assert score.needs == (need,)
    np.testing.assert_allclose(score.scores(given(**{need: OTHER})), each(formula), rtol=1e-12)


def test_wanda_is_the_weight_times_the_norm_of_its_input():
    norms = np.linalg.norm(INPUTS, axis=0)

    scores = WandaScore().scores(given(input_norms=norms))

    expected = [[abs(WEIGHTS[i, j]) * np.sqrt((INPUTS[:, j] ** 2).sum()) for j in range(5)] for i in range(3)]
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_what_is_measured_has_the_authors_parameters():
    assert GraspScore().measurements() == (Measurement(what="hessian_gradients", batches=1, temperature=200.0),)
    assert SnipSensitivity().measurements() == (Measurement(what="gradients", batches=1),)
    assert MovementScore().measurements() == ()
    assert MovementScore().revives


def damped(damping):
    hessian = 2 * INPUTS.T @ INPUTS
    return hessian + damping * np.mean(np.diag(hessian)) * np.eye(5)


def by_surgery(mask, damping=0.01):
    """Optimal brain surgery from the left: what is pruned is made up for by the columns right of it alone."""
    weights, hessian = WEIGHTS.copy(), damped(damping)
    for row in range(3):
        for col in range(5):
            if not mask[row, col]:
                inverse = np.linalg.inv(hessian[col:, col:])
                weights[row, col:] -= weights[row, col] / inverse[0, 0] * inverse[:, 0]
    return weights * mask


@pytest.mark.parametrize("block", [1, 2, 5, 128])
def test_sparsegpt_updates_as_optimal_brain_surgery_does_column_by_column(block):
    mask = np.random.default_rng(1).random((3, 5)) < 0.5
    score = SparseGPTScore(block=block)

    solved = score.solved(given(input_moments=INPUTS.T @ INPUTS), mask)

    np.testing.assert_allclose(solved, by_surgery(mask), rtol=1e-8, atol=1e-10)


def test_sparsegpt_ranks_by_what_removing_a_weight_costs_the_columns_right_of_it():
    scores = SparseGPTScore().scores(given(input_moments=INPUTS.T @ INPUTS))

    costs = [1 / np.linalg.inv(damped(0.01)[col:, col:])[0, 0] for col in range(5)]
    np.testing.assert_allclose(scores, WEIGHTS**2 * np.array(costs), rtol=1e-8)


def test_sparsegpt_keeps_outputs_nearer_than_pruning_alone():
    mask = np.random.default_rng(1).random((3, 5)) < 0.6

    solved = SparseGPTScore().solved(given(input_moments=INPUTS.T @ INPUTS), mask)

    wanted = INPUTS @ WEIGHTS.T
    assert np.linalg.norm(INPUTS @ solved.T - wanted) < np.linalg.norm(INPUTS @ (WEIGHTS * mask).T - wanted)


def test_sparsegpt_takes_inputs_that_never_fire():
    inputs = INPUTS.copy()
    inputs[:, 2] = 0
    what = given(input_moments=inputs.T @ inputs)

    scores = SparseGPTScore().scores(what)

    assert (scores[:, 2] == 0).all() and (scores[:, [0, 1, 3, 4]] > 0).all()
    assert np.isfinite(SparseGPTScore().solved(what, np.ones((3, 5), bool))).all()
