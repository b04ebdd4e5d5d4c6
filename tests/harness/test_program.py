"""Learning rates and the schedules of phases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from recipes import recipe

from harness.api import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cubic,
    Epoch,
    Gradient,
    LearningRate,
    MaskUpdate,
    Prune,
    Rewind,
    StepDecay,
    Train,
)


def test_step_decay_is_the_small_language_model_s():
    schedule = StepDecay(initial=1.0, decay=0.5, full_epochs=4)

    assert [schedule.at(epoch) for epoch in range(13)] == [1.0] * 4 + [0.5**power for power in range(1, 10)]


def test_the_last_rate_of_a_recipe_is_that_of_its_last_epoch():
    assert recipe().last_rate == 0.5**9


@given(start=st.integers(0, 20), epoch=st.integers(0, 20))
@settings(deadline=None)
def test_a_schedule_seen_from_a_later_epoch_is_the_same_schedule(start, epoch):
    schedule = StepDecay(initial=2.0, decay=0.8, full_epochs=3)

    assert schedule.from_epoch(start).at(epoch) == schedule.at(start + epoch)


def test_a_schedule_seen_from_its_beginning_is_itself():
    schedule = Constant(rate=0.1)

    assert schedule.from_epoch(0) is schedule


class WarmUp(LearningRate):
    """One rate per step."""

    steps: int

    def at(self, epoch):
        return tuple((step + 1) / self.steps for step in range(self.steps))


def test_a_schedule_may_give_a_rate_for_every_step():
    assert WarmUp(steps=4).last(0) == 1.0
    assert [Epoch(rates=WarmUp(steps=4).at(0)).rate(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert Epoch(rates=0.5).rate(3) == 0.5


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_no_positive_number_is_refused(rate):
    with pytest.raises(ValidationError):
        Constant(rate=rate)


def test_the_cubic_schedule_is_zhu_and_gupta_s():
    updates = Cubic(initial=0.0, final=0.8, begin=1, end=3, every=5).updates(10)

    assert [step for step, _ in updates] == [10, 15, 20, 25, 30]
    assert [sparsity for _, sparsity in updates] == pytest.approx(
        [0.0, 0.8 * (1 - 0.75**3), 0.8 * (1 - 0.5**3), 0.8 * (1 - 0.25**3), 0.8]
    )


@given(
    begin=st.integers(0, 5),
    length=st.integers(1, 5),
    every=st.integers(1, 200),
    steps=st.integers(1, 30),
    bounds=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).map(sorted),
)
@settings(deadline=None)
def test_the_cubic_schedule_rises_at_increasing_steps_and_ends_at_exactly_the_final_sparsity(
    begin, length, every, steps, bounds
):
    schedule = Cubic(initial=bounds[0], final=bounds[1], begin=begin, end=begin + length, every=every)

    listed = schedule.updates(steps)

    at, sparsity = np.array(listed).T
    assert (np.diff(at) > 0).all()
    assert (np.diff(sparsity) >= -1e-15).all()
    assert listed[-1] == ((begin + length) * steps, bounds[1])
    assert listed[0][0] == begin * steps


RIGHT = [
    (SGD, {}, {"momentum": [0, 0.9], "weight_decay": [0, 1e-4]}, {"momentum": [-0.1, 1], "weight_decay": [-0.1]}),
    (Adam, {}, {"beta1": [0, 0.9], "epsilon": [1e-16]}, {"beta1": [1], "beta2": [-0.1, 1], "epsilon": [0]}),
    (AdamW, {}, {"weight_decay": [0]}, {"beta2": [1], "epsilon": [0], "weight_decay": [-1]}),
    (MaskUpdate, {"step": 0, "sparsity": 0.5}, {"sparsity": [0], "progress": [0, 1]},
     {"step": [-1], "sparsity": [1], "progress": [1.1]}),
    (Cubic, {"final": 0.9, "begin": 0, "end": 2, "every": 4}, {"initial": [0, 0.5], "final": [0], "begin": [1]},
     {"initial": [-0.1, 1], "final": [-0.1, 1], "begin": [-1], "end": [0], "every": [0]}),
    (Rewind, {"to": 0}, {"to": [0, 3], "weights": ["new", "kept"]}, {"to": [-1], "weights": ["none"]}),
]  # fmt: skip
"""A class, what it needs, values that its fields take, values that they refuse."""


@pytest.mark.parametrize(("made", "needed", "right", "wrong"), RIGHT, ids=[row[0].__name__ for row in RIGHT])
def test_the_values_of_a_program_are_taken_within_their_range_alone(made, needed, right, wrong):
    for name, values in right.items():
        for value in values:
            assert getattr(made(**(needed | {name: value})), name) == value
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ValidationError):
                made(**(needed | {name: value}))


def test_optimisers_are_by_default_those_of_their_papers():
    assert SGD() == SGD(momentum=0, weight_decay=0)
    assert Adam() == Adam(beta1=0.9, beta2=0.999, epsilon=1e-8)  # Kingma & Ba 2015, Algorithm 1
    assert AdamW() == AdamW(beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.01)
    assert MaskUpdate(step=0, sparsity=0.5).progress == 1 and Rewind(to=1).weights == "kept"


def test_weights_drawn_anew_are_those_of_the_beginning():
    with pytest.raises(ValidationError, match="`to` must be 0, got 2"):
        Rewind(to=2, weights="new")


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 90.0])
def test_pruning_everything_or_less_than_nothing_is_refused(sparsity):
    with pytest.raises(ValidationError):
        Prune(sparsity=sparsity)


def test_phases_with_schedules_of_their_own_keep_them_in_json():
    phase = Train(
        epochs=2, lr=WarmUp(steps=3), sparsity=Cubic(final=0.9, begin=0, end=2, every=4), score=Gradient(batches=9)
    )

    dumped = phase.model_dump()

    assert dumped["lr"] == {"steps": 3}
    assert dumped["sparsity"]["every"] == 4
    assert dumped["sparsity"]["schedule"] == "cubic"
    assert dumped["score"] == {"batches": 9}
