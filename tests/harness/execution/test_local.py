"""The stage graph and who goes first."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from numpy_plugins import NumpyBackend, ToyTask
from toy import FineTuning, Rewinding, experiment

from harness.api import Settings
from harness.execution import local
from harness.execution.graph import Graph, Schedule, needed
from harness.execution.local import LocalExecutor
from harness.execution.worker import Job
from harness.planning.plan import make_plan
from harness.store import Store


def graph(tmp_path, *strategies):
    plan = make_plan(experiment(strategies), store=tmp_path)
    jobs = {
        key: Job(stage, ToyTask(), NumpyBackend(), Settings(), None, tmp_path, {}) for key, stage in plan.stages.items()
    }
    return plan, Graph(jobs)


def test_a_stage_waits_for_every_state_it_reads(tmp_path):
    plan, made = graph(tmp_path, Rewinding())
    rewind = next(stage for stage in plan.stages.values() if stage.kind == "rewind")

    assert set(needed(made.jobs[rewind.key])) == {rewind.parent, rewind.source}
    assert made.waiting[rewind.key] == 2


def test_only_the_initial_weights_wait_for_nothing(tmp_path):
    plan, made = graph(tmp_path, FineTuning(), Rewinding())

    assert [plan.stages[key].kind for key, count in made.waiting.items() if count == 0] == ["init"]


def test_a_stage_is_as_long_as_the_longest_training_that_hangs_on_it(tmp_path):
    plan, made = graph(tmp_path, FineTuning(epochs=3), Rewinding())

    assert made.length[plan.cells[0].chain[0].key] == 4 + 3
    assert made.length[plan.cells[0].test.key] == 0


def test_a_model_is_scored_while_it_is_loaded(tmp_path):
    plan, made = graph(tmp_path, FineTuning(), Rewinding())
    started = []
    store = Store(tmp_path)
    store.prepare()
    LocalExecutor(workers=1).run(Schedule(made, store, on_start=started.append))

    for planned in plan.cells:
        assert started.index(planned.test.key) == started.index(planned.end.key) + 1


class InterruptsWorkersAtOnce(LocalExecutor):
    """A terminal's Ctrl-C reaches workers, too, and these as soon as they are there."""

    def _start(self, job):
        slot = super()._start(job)
        for _ in range(20):
            os.kill(slot.process.pid, signal.SIGINT)
            time.sleep(0.02)
        return slot


def test_an_interrupt_is_not_for_workers_however_young(tmp_path, capfd):
    plan, made = graph(tmp_path, FineTuning(epochs=1))
    store = Store(tmp_path)
    store.prepare()
    InterruptsWorkersAtOnce(workers=1).run(Schedule(made, store))

    assert all(store.has_stage(key) for key in plan.stages)
    assert "Traceback" not in capfd.readouterr().err
    assert multiprocessing.active_children() == []
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_time_in_which_everything_stood_still_counts_for_no_stage(monkeypatch):
    clock, stands = [100.0], [0.0]

    def waits(reports, seconds):
        clock[0] += seconds + stands[0]
        return []

    monkeypatch.setattr(local, "wait", waits)
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=time.sleep))
    executor = LocalExecutor(workers=3)
    slots = [local._Slot("toy", None, None, None, None, "key", None, until) for until in (105.0, None)]
    idle = local._Slot("toy", None, None, None, None)
    executor._slots = [*slots, idle]

    executor._wait([], 1.0)
    assert [slot.until for slot in executor._slots] == [105.0, None, None]
    stands[0] = 3600.0
    executor._wait([], 1.0)

    # And the moment that a keeper takes to see that the run goes on.
    assert [slot.until for slot in executor._slots] == [105.0 + 3600.0 + local.keeper.LOOK_S, None, None]


DIES_WHILE_IT_STARTS_A_WORKER = """
import os, signal
from multiprocessing import resource_tracker, util
from types import SimpleNamespace as Some
from harness.execution.local import LocalExecutor

if __name__ == "__main__":
    resource_tracker.ensure_running()
    spawn = util.spawnv_passfds

    def spawn_and_die(*given):
        spawn(*given)
        os.kill(os.getpid(), signal.SIGKILL)

    util.spawnv_passfds = spawn_and_die
    part = Some(name="toy")
    stage = Some(masking=None, epoch=None, update=None)
    LocalExecutor(1)._start(Some(settings=Some(threads=1), backend=part, task=part, stage=stage))
"""


@pytest.mark.skipif(os.name != "posix", reason="processes of POSIX")
def test_a_worker_whose_run_dies_before_it_has_begun_says_nothing():
    done = subprocess.run(
        [sys.executable, "-c", DIES_WHILE_IT_STARTS_A_WORKER], capture_output=True, text=True, timeout=600, check=False
    )  # to the end of the worker, which holds stderr open

    assert done.returncode == -signal.SIGKILL
    assert done.stderr == ""
