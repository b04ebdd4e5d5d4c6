"""How long the rest takes."""

import pytest
from numpy_plugins import NumpyBackend, ToyTask
from toy import FineTuning, experiment

from harness.api import Settings
from harness.execution.eta import Clock, Tally
from harness.execution.graph import Graph
from harness.execution.worker import Job
from harness.planning.plan import make_plan


@pytest.fixture
def made(tmp_path):
    """Two seeds of four dense epochs and two after pruning: chains of six."""
    plan = make_plan(experiment((FineTuning(),), seeds=(0, 1)), store=tmp_path)
    jobs = {
        key: Job(stage, ToyTask(), NumpyBackend(), Settings(), None, tmp_path, {}) for key, stage in plan.stages.items()
    }
    kinds = {key: stage.is_dense for key, stage in plan.stages.items() if stage.kind == "train"}
    return plan, Graph(jobs), kinds


def test_nothing_is_said_before_an_epoch_is_finished(made):
    _, graph, kinds = made

    assert Clock(graph, kinds, 1).tally() == Tally(done=0, epochs=12)
    assert Clock(graph, kinds, 1).tally().words() == "0/12 epochs"


def test_an_epoch_is_expected_to_take_what_its_kind_took(made):
    _, graph, kinds = made
    clock = Clock(graph, kinds, 1)
    dense, pruned = ([key for key, is_dense in kinds.items() if is_dense is kind] for kind in (True, False))
    clock.finished(dense[0], 1.0)
    first = clock.tally()
    clock.finished(pruned[0], 10.0)
    both = clock.tally()

    assert first.left_s == pytest.approx(11 * 1.0)
    assert both.left_s == pytest.approx(7 * 1.0 + 3 * 10.0)
    assert (both.done, both.basis) == (2, 2)
    assert both.words() == "2/12 epochs, about 37 s left, from 2 timed"


def test_workers_share_what_is_left_but_no_chain_is_shared(made):
    _, graph, kinds = made
    first = next(iter(kinds))
    left = {}
    for workers in (1, 2, 50):
        clock = Clock(graph, kinds, workers)
        clock.finished(first, 2.0)
        left[workers] = clock.tally().left_s

    assert left[1] == pytest.approx(22)
    assert left[2] == pytest.approx(12)  # the longest chain has six epochs
    assert left[50] == pytest.approx(12)


def test_what_another_run_computed_is_done_and_tells_no_time(made):
    _, graph, kinds = made
    clock = Clock(graph, kinds, 1)
    clock.finished(next(iter(kinds)), None)

    assert clock.tally() == Tally(done=1, epochs=12)


def test_what_is_lost_is_not_waited_for(made):
    plan, graph, kinds = made
    clock = Clock(graph, kinds, 1)
    clock.finished(next(iter(kinds)), 1.0)
    clock.lost(plan.cells[1].chain[0].key)  # the other seed's beginning

    assert clock.tally().left_s == pytest.approx(5)


def test_scores_take_time_too_once_one_was_timed_and_are_no_epochs(made):
    plan, graph, epochs = made
    kinds = {key: stage.kind for key, stage in plan.stages.items() if stage.kind in ("train", "test")}
    scores = [key for key, kind in kinds.items() if kind == "test"]
    clock = Clock(graph, kinds, 1, epochs)
    clock.finished(next(iter(epochs)), 1.0)
    before = clock.tally()
    clock.finished(scores[0], 5.0)
    after = clock.tally()

    assert before.left_s == pytest.approx(11 * 1.0)
    assert after.left_s == pytest.approx(11 * 1.0 + (len(scores) - 1) * 5.0) and len(scores) > 1
    assert (after.done, after.epochs, after.basis) == (1, 12, 1)
