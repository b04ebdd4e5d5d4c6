"""What a run tells on stderr."""

import io
import json
import re

import pytest
from rich.console import Console

from harness.execution.displays import make
from harness.execution.eta import Tally
from harness.execution.live import Live
from harness.execution.progress import Costing, Json, Plain, Progress

BILL = {
    "cells": 3, "cells_cached": 1, "cells_skipped": 0, "epochs_to_run": 2, "epochs": 4,
    "epochs_without_sharing": 9, "cells_detail": [{"cell": "a"}],
}  # fmt: skip

TALLY = Tally(done=1, epochs=2, left_s=3.2, basis=1)


def told(progress):
    progress.begin(BILL, 2)
    progress.started("k", "torch · dense · epoch 1")
    progress.step("k", 5, 10)
    progress.finished("k", "torch · dense · epoch 1", "valid perplexity 99.00 (3.0 s)", TALLY, is_epoch=True)
    progress.best([("90 %", "torch · one", "valid perplexity 9.00")])
    progress.failed("m", "torch · dense · epoch 2", "diverged", "the loss became nan [at step 3]")
    progress.costing(Costing("torch · one", "card(engine=bank)", 3, 12, 1, 7))
    progress.costing(Costing("torch · one", "card(engine=block)", 4, 12, 1, 7))
    progress.end()


def test_plain_lines_say_what_was_done_and_what_is_left():
    out = io.StringIO()
    told(Plain(Console(file=out, width=200)))
    bill, epoch, failure, costs = out.getvalue().splitlines()

    assert "3 cells (1 cached, 0 skipped), 2 epochs to run of 4 distinct, 9 without sharing; 2 workers" in bill
    assert "epoch 1: valid perplexity 99.00 (3.0 s) [1/2 epochs, about 3 s left, from 1 timed]" in epoch
    assert "diverged: the loss became nan [at step 3]" in failure
    assert "hardware costs: cell 1 of 7, card(engine=bank) (3 of 12): torch · one" in costs


def test_plain_lines_of_costs_come_now_and_then():
    out, now = io.StringIO(), [0.0]
    plain = Plain(Console(file=out, width=200), lambda: now[0])
    for number in range(1, 13):
        plain.costing(Costing("torch · one", f"engine{number}", number, 12, 1, 1))
        now[0] += 4.0

    assert [line.split()[7] for line in out.getvalue().splitlines()] == ["engine1", "engine4", "engine7", "engine10"]


def test_json_is_one_object_per_event_on_stderr(capsys):
    told(Json())
    captured = capsys.readouterr()
    events = [json.loads(line) for line in captured.err.splitlines()]

    assert captured.out == ""
    assert [event["event"] for event in events] == ["begin", "started", "step", "finished", "best", "failed", "costing",
                                                  "costing", "end"]  # fmt: skip
    assert events[6] == {"event": "costing", "label": "torch · one", "model": "card(engine=bank)", "number": 3,
                         "models": 12, "cell": 1, "cells": 7}  # fmt: skip
    assert events[0]["epochs_without_sharing"] == 9
    assert "cells_detail" not in events[0]


def test_nothing_is_nothing(capsys):
    told(make("none", Console()))

    assert capsys.readouterr() == ("", "")


def test_a_live_display_ends_with_the_failures_above_it():
    out = io.StringIO()
    told(Live(Console(file=out, force_terminal=True, width=200)))

    assert "diverged: the loss became nan [at step 3]" in out.getvalue()


def test_the_numbers_of_a_live_display_say_what_they_count():
    out = io.StringIO()
    live = Live(Console(file=out, force_terminal=True, width=200))
    live.begin(BILL, 2)
    live.started("k", "torch · dense · epoch 1")
    live.step("k", 3, 12)
    live._display.refresh()
    live.end()

    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert re.search(r"0/2 +epochs", shown) and re.search(r" 3/12 +steps", shown)


@pytest.mark.parametrize(("is_terminal", "kind"), [(True, Live), (False, Plain)])
def test_auto_is_live_on_a_terminal_only(is_terminal, kind):
    assert type(make("auto", Console(file=io.StringIO(), force_terminal=is_terminal))) is kind
    assert type(make("none", Console())) is Progress
