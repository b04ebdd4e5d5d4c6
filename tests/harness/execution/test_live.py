"""The live view at every width: nothing wider than the terminal, and names cut last where they tell stages apart."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from harness.execution.eta import Tally
from harness.execution.live import Live, told_apart
from harness.execution.progress import Costing

WIDTHS = (60, 80, 120, 200)
GRADUAL = "gradual(begin_epoch=3, end_epoch=10, every=100)"
LABEL = "torch · bank_balanced(banks={banks}) · " + GRADUAL + " · 0.9 · seed {seed} · epoch 12"
BILL = {
    "cells": 120, "cells_cached": 10, "cells_skipped": 0, "epochs_to_run": 500, "epochs": 700,
    "epochs_without_sharing": 2000,
}  # fmt: skip


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def live():
    """A run that has finished an epoch and computes two; the display itself is never started."""
    clock = Clock()
    live = Live(Console(file=io.StringIO(), width=300), clock)
    live._display.start = lambda: None
    live.begin(BILL, 2)
    for name, banks, seed in (("a", 10, 3), ("b", 10, 4), ("c", 20, 3)):
        live.started(name, LABEL.format(banks=banks, seed=seed))
    live.step("a", 50, 2000)
    live.finished("c", LABEL.format(banks=20, seed=3), "valid perplexity 123.40 (61.2 s)", Tally(12, 500, 4000.0, 5),
                  is_epoch=True)  # fmt: skip
    clock.now += 3725
    return live


@pytest.mark.parametrize("width", WIDTHS)
def test_every_line_fits_and_has_its_count_its_time_and_what_tells_it_apart(live, width):
    lines = list(live.lines(width))

    assert max(map(cell_len, lines)) <= width
    [epochs] = [line for line in lines if line.startswith("epochs")]
    assert "12/500" in epochs and epochs.endswith("1:02:05") and "┄" in epochs
    for seed, count in (("seed 3", "50/2000"), ("seed 4", "0/?")):
        [line] = [line for line in lines if seed in line and count in line]
        assert line.endswith("1:02:05")


@pytest.mark.parametrize("width", (40, *WIDTHS))
def test_costs_after_the_last_epoch_say_which_engine_of_how_many(live, width):
    live.costing(Costing(LABEL.format(banks=10, seed=3), "card(engine=bank)", 3, 12, 5, 7))
    lines = list(live.lines(width))

    assert max(map(cell_len, lines)) <= width
    [cells] = [line for line in lines if line.startswith("hardware")]
    assert "4/7" in cells and "  card(engine=bank)" in lines
    assert any("2/12" in line for line in lines)
    assert not any(line.startswith("epochs") or "left, from" in line for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_time_left_is_told_with_its_basis_and_the_last_outcome_whole(live, width):
    text = "\n".join(live.lines(width))

    assert "left, from 5 timed" in text
    assert "valid perplexity 123.40 (61.2 s)" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_the_best_cells_are_told_with_their_values_whole_the_highest_sparsities_first(live, width):
    label = "torch · bank_balanced(banks=10) · gradual(begin_epoch=3, end_epoch=10) · seed 3"
    live.best([(f"{level} %", label, f"valid perplexity {level}.40") for level in (95, 90, 80, 50)])

    lines = [line for line in live.lines(width) if line.startswith("best at")]

    assert [line.split(":")[0] for line in lines] == ["best at 95 %", "best at 90 %", "best at 80 %"]
    assert all(line.endswith(".40") and "seed 3" in line and cell_len(line) <= width for line in lines)


def test_a_bar_grows_with_what_is_done(live):
    drawn = [next(iter(live.lines(120))).count("━")]
    live.finished("a", "x", "y", Tally(250, 500, None, 5), is_epoch=True)
    drawn.append(next(iter(live.lines(120))).count("━"))

    assert drawn == [0, 12]


def test_a_stage_that_ended_has_no_line_and_a_failure_is_said_above(live):
    live.failed("a", "the label", "oom", "out of memory")
    live.finished("b", "x", "y", Tally(13, 500, None, 5), is_epoch=False)

    assert not any("seed" in line for line in live.lines(200) if not line.startswith("last"))
    assert "the label: oom: out of memory" in live.console.file.getvalue()


def test_before_the_plan_is_made_nothing_is_shown():
    assert list(Live(Console(file=io.StringIO())).lines(80)) == []


def test_what_is_shared_goes_before_what_tells_apart():
    labels = [LABEL.format(banks=banks, seed=seed) for banks, seed in ((10, 3), (20, 3), (20, 4))]

    assert told_apart(labels, 300) == labels
    assert told_apart(labels, 40) == [
        "bank_balanced(banks=10) · seed 3", "bank_balanced(banks=20) · seed 3", "bank_balanced(banks=20) · seed 4",
    ]  # fmt: skip


def test_parameters_go_where_there_is_no_other_version():
    dense, pruned = (
        "torch · dense · seed 3 · epoch 4",
        "torch · bank_balanced(banks=10) · one_shot · 0.9 · seed 4 · prune",
    )

    assert told_apart([dense, pruned], 50) == [dense, "bank_balanced · one_shot · 0.9 · seed 4 · prune"]


PARTS = ("torch", "dense", "a_long_name(x=1)", "a_long_name(x=2)", "0.9", "seed 3", "epoch 12")
parts = st.lists(st.sampled_from(PARTS), min_size=1, max_size=6)


@given(labels=st.lists(parts.map(" · ".join), min_size=1, max_size=5), width=st.integers(1, 80))
def test_no_label_is_wider_than_it_may_be(labels, width):
    for label, shown in zip(labels, told_apart(labels, width), strict=True):
        assert cell_len(shown) <= width
        assert shown == label or cell_len(label) > width


@pytest.mark.parametrize("width", WIDTHS)
def test_a_terminal_shows_the_lines(live, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(live)

    shown = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert shown == [line.rstrip() for line in live.lines(width)]
