"""Devices of workers, as written on the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.api import SpecError
from harness.execution.slots import default_workers, parse_devices

PLACES = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=5)


@given(PLACES)
def test_every_device_counts_as_often_as_it_says(places):
    text = ", ".join(f"cuda:{number}x{count}" for number, count in places)

    assert parse_devices(text) == tuple(f"cuda:{number}" for number, count in places for _ in range(count))


def test_one_worker_needs_no_count():
    assert parse_devices("cuda:0,cuda:1x2") == ("cuda:0", "cuda:1", "cuda:1")
    assert parse_devices("cpu") == ("cpu",)


@pytest.mark.parametrize("text", ["", "cuda", "gpu:0", "cuda:0x0", "cuda:0,,cuda:1", "cpu:0", "cpux-1"])
def test_what_is_no_device_is_refused_with_an_example(text):
    with pytest.raises(SpecError, match=r"write e\.g\."):
        parse_devices(text)


def test_devices_of_two_kinds_are_refused():
    with pytest.raises(SpecError, match="one kind"):
        parse_devices("cpu,cuda:0")


def test_there_are_as_many_workers_as_threads_fit_the_cores():
    assert default_workers(1) >= 1
    assert default_workers(10_000) == 1


def test_a_gpu_has_one_worker_unless_told_otherwise():
    assert default_workers(1, frozenset({"cuda:0"})) == 1
    assert default_workers(1, frozenset({"cuda:0", "cpu"})) == 1
