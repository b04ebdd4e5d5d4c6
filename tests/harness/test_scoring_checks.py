"""The checks of scores and schedules find planted faults."""

import numpy as np
import pytest

from harness.api import Magnitude, PluginContractError, Schedule, Score, Solver
from harness.testing import check_schedule, check_score


class Faulty(Score):
    """|w|, but for one fault."""

    name = "faulty"
    needs = ("gradients",)
    fault: str = ""

    def scores(self, given):
        weights = given.weights
        if self.fault == "writes":
            weights[0, 0] = 7
        if self.fault == "writes what it needs":
            given.needed["gradients"][0, 0] = 7
        return {
            "shape": lambda: weights.T,
            "list": weights.tolist,
            "integers": lambda: weights.astype(int),
            "divides": lambda: weights / np.abs(weights),
            "unseeded": lambda: np.random.default_rng().random(weights.shape),
        }.get(self.fault, lambda: np.abs(weights))()

    def measurements(self):
        return Magnitude().measurements() if self.fault != "measures" else ForMomentum(batches=1).measurements()


class ForMomentum(Score):
    name = "for_momentum"
    needs = ("input_norms",)
    batches: int = 1

    def scores(self, given):
        return given.weights


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("writes", "the weights to be left as they were"),
        ("writes what it needs", "`gradients` to be left as it was"),
        ("shape", r"scores of shape \(4, 40\), got \(40, 4\)"),
        ("list", "scores in floating point, got list"),
        ("integers", "scores in floating point, got int"),
        ("divides", "all weights zero.*finite scores"),
        ("unseeded", "the same scores for the same weights and the same generator"),
        ("measures", "measurements of what it `needs`, got input_norms"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_fault_of_a_score_is_found(fault, message):
    with pytest.raises(PluginContractError, match=message):
        check_score(Faulty(fault=fault))


def test_a_sound_score_passes():
    check_score(Faulty())


def test_a_solver_that_changes_weights_where_nothing_is_pruned_is_found():
    class Shrinks(Solver):
        name = "shrinks"

        def scores(self, given):
            return np.abs(given.weights)

        def solved(self, given, mask):
            return given.weights * 0.9

    with pytest.raises(PluginContractError, match="weights that stay as they are where nothing is pruned"):
        check_score(Shrinks())


class Crooked(Schedule):
    """A straight line, but for one fault."""

    name = "crooked"
    fault: str = ""

    def sparsity(self, progress, initial, final):
        line = initial + (final - initial) * progress
        return {
            "text": lambda: str(line),
            "falls": lambda: line if progress < 0.5 else initial + (line - initial) * 0.9,
            "beyond": lambda: line * 2,
            "below": lambda: line - 0.01,
            "random": lambda: line * np.random.default_rng().random(),
        }.get(self.fault, lambda: line)()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("text", "numbers, got '0.0'"),
        ("falls", "never falls, got one at progress 0.5"),
        ("beyond", "sparsities between the two"),
        ("below", "sparsities between the two"),
        ("random", "the same when asked twice"),
    ],
)
def test_a_fault_of_a_schedule_is_found(fault, message):
    with pytest.raises(PluginContractError, match=message):
        check_schedule(Crooked(fault=fault))


def test_a_sound_schedule_passes():
    check_schedule(Crooked())
