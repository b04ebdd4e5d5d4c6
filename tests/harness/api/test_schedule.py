"""Schedules laid over a phase."""

import pytest
from pydantic import TypeAdapter, ValidationError

from harness.api import AnySchedule, Cubic, CubicSchedule, Ramp, Schedule


class Step(Schedule):
    """Everything at half of the span."""

    name = "step"

    def sparsity(self, progress, initial, final):
        return initial if progress < 0.5 else final


def test_a_ramp_lists_what_its_schedule_says_and_ends_at_the_target():
    updates = Ramp(schedule=CubicSchedule(), final=0.8, begin=1, end=2, every=5).updates(10)

    assert updates == [(10, 0.0), (15, 0.8 * (1 - 0.5**3)), (20, 0.8)]


def test_updates_that_change_nothing_are_left_out():
    updates = Ramp(schedule=Step(), final=0.8, begin=0, end=4, every=1).updates(2)

    assert updates == [(0, 0.0), (4, 0.8), (8, 0.8)]


def test_the_cubic_ramp_is_bit_for_bit_what_it_was_before_schedules_were_plugins():
    final, initial, span = 0.9, 0.05, 70
    expected = [final + (initial - final) * (1 - step / span) ** 3 for step in range(0, span, 3)]

    updates = Cubic(initial=initial, final=final, begin=0, end=7, every=3).updates(10)

    assert [sparsity for _, sparsity in updates] == [*expected, final]


def test_what_is_no_schedule_is_refused():
    with pytest.raises(ValidationError, match="expected the name of a schedule"):
        TypeAdapter(AnySchedule).validate_python(0.5)
