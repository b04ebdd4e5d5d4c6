"""The built-in schedules: points worked out by hand, and how they lie to one another."""

import numpy as np
import pytest
from harness_plugins.schedules.constant import ConstantSchedule
from harness_plugins.schedules.cosine import CosineSchedule
from harness_plugins.schedules.exponential import ExponentialSchedule
from harness_plugins.schedules.linear import LinearSchedule
from harness_plugins.schedules.one_shot import OneShotSchedule
from harness_plugins.schedules.threshold_ramp import ThresholdRamp
from harness_plugins.strategies._shared import sparsities_in_rounds

from harness.api import CubicSchedule


@pytest.mark.parametrize(
    ("schedule", "quarter", "half"),
    [
        (CubicSchedule(), 0.8 * (1 - 27 / 64), 0.8 * 7 / 8),
        (LinearSchedule(), 0.2, 0.4),
        (CosineSchedule(), 0.8 * (1 - (1 + np.sqrt(0.5)) / 2), 0.4),
        (ExponentialSchedule(), 1 - 0.2**0.25, 1 - 0.2**0.5),
        (ConstantSchedule(), 0.8, 0.8),
        (OneShotSchedule(at=0.3), 0.0, 0.8),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_schedule_goes_through_its_points(schedule, quarter, half):
    assert schedule.sparsity(0.25, 0.0, 0.8) == pytest.approx(quarter)
    assert schedule.sparsity(0.5, 0.0, 0.8) == pytest.approx(half)


@pytest.mark.parametrize(
    ("schedule", "quarter", "half"),
    [
        (CubicSchedule(), 0.2 + 0.6 * (1 - 27 / 64), 0.2 + 0.6 * 7 / 8),
        (LinearSchedule(), 0.35, 0.5),
        (CosineSchedule(), 0.2 + 0.6 * (1 - (1 + np.sqrt(0.5)) / 2), 0.5),
        (ExponentialSchedule(), 1 - 0.8 * 0.25**0.25, 0.6),  # of 80 % kept to 20 %: half of it after half the way
        (ConstantSchedule(), 0.8, 0.8),
        (OneShotSchedule(at=0.3), 0.2, 0.8),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_schedule_that_begins_pruned_goes_through_its_points(schedule, quarter, half):
    assert schedule.sparsity(0.25, 0.2, 0.8) == pytest.approx(quarter)
    assert schedule.sparsity(0.5, 0.2, 0.8) == pytest.approx(half)


def test_the_exponential_schedule_is_pruning_in_rounds():
    found = [ExponentialSchedule().sparsity(done / 5, 0.0, 0.9) for done in range(1, 5)]

    assert found == pytest.approx(sparsities_in_rounds(5, 0.9)[:-1])


def test_the_threshold_ramp_prunes_what_its_threshold_prunes_of_normal_weights():
    schedule, final = ThresholdRamp(ramp=0.25, steeper=2), 0.9
    weights = np.abs(np.random.default_rng(0).normal(size=400_000))
    top = np.quantile(weights, final)
    # theta up to the ramp, 2 theta after it; the threshold ends at the 90th percentile.
    theta = top / (0.25 + 2 * 0.75)

    for progress in (0.1, 0.25, 0.5, 0.9):
        threshold = theta * (min(progress, 0.25) + 2 * max(0, progress - 0.25))

        assert schedule.sparsity(progress, 0.0, final) == pytest.approx((weights < threshold).mean(), abs=4e-3)


def test_the_authors_first_slope_follows_from_a_ramp_of_one_and_a_half():
    start, ramp, end, q, every = 100, 400, 1000, 1.0, 10
    theta = 2 * q * every / (2 * (ramp - start) + 3 * (end - ramp))  # their formula

    assert theta * (ramp - start) / every + 1.5 * theta * (end - ramp) / every == pytest.approx(q)
