"""Which stage is next, and what happens to one that ends: without any worker."""

import pytest
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.unstructured import Unstructured
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_plugins import NumpyBackend, ToyTask
from toy import FineTuning, Rewinding, experiment

from harness.api import Settings, SpecError, State
from harness.execution.graph import Graph, Policy, Schedule, needed, parse_retry
from harness.execution.worker import Done, Failed, Job
from harness.planning.plan import make_plan
from harness.store import StageRecord, Store


def graph(folder, *strategies, **choices):
    plan = make_plan(experiment(strategies, **choices), store=folder)
    jobs = {
        key: Job(stage, ToyTask(), NumpyBackend(), Settings(), None, folder, {}) for key, stage in plan.stages.items()
    }
    return plan, Graph(jobs)


def done(key, made):
    stage = made.jobs[key].stage
    return Done(StageRecord(key=key, parent=stage.parent, kind=stage.kind, inputs={}))


class OneHolder:
    """Claims, all free but those that somebody else holds."""

    def __init__(self, *held):
        self.held, self.ours, self.shared = set(held), set(), False

    def acquire(self, key):
        if key in self.held:
            return False
        self.ours.add(key)
        return True

    def holder(self, key):
        return "process 7 on elsewhere" if key in self.held else None

    def release(self, key):
        self.ours.discard(key)

    def others_alive(self):
        return self.shared


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Twelve chains from three dense trainings."""
    folder = tmp_path_factory.mktemp("wide")
    patterns = (Unstructured(), BankBalanced(banks=5))
    return graph(folder, FineTuning(), Rewinding(), patterns=patterns, seeds=(0, 1, 2))[1]


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_stage_is_handed_out_once_after_what_it_starts_from(wide, tmp_path_factory, data):
    schedule, ended, running = Schedule(wide, Store(tmp_path_factory.mktemp("store"))), set(), []
    while not schedule.is_over:
        job = schedule.next() if data.draw(st.booleans()) or not running else None
        if job is not None:
            assert set(needed(job)) <= ended
            running.append(job.stage.key)
        elif running:
            key = running.pop(data.draw(st.integers(0, len(running) - 1)))
            schedule.tell(done(key, wide))
            ended.add(key)

    assert ended == set(wide.jobs)


@given(seed=st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_nothing_that_starts_from_a_failure_is_handed_out_and_all_else_is(wide, tmp_path_factory, seed):
    schedule = Schedule(wide, Store(tmp_path_factory.mktemp("store")))
    failed, ended = set(), set()
    while not schedule.is_over:
        job = schedule.next()
        key = job.stage.key
        if seed.random() < 0.1:
            failed.add(key)
            schedule.tell(Failed(key, "diverged", f"at {key}"))
        else:
            ended.add(key)
            schedule.tell(done(key, wide))
    lost = set()
    for key, job in wide.jobs.items():
        if key in failed or any(source in lost for source in needed(job)):
            lost.add(key)

    assert ended == set(wide.jobs) - lost


def test_the_longest_path_goes_first_and_a_worker_goes_on_with_its_chain(wide, tmp_path):
    schedule = Schedule(wide, Store(tmp_path))
    first = schedule.next("numpy")
    second = schedule.next("numpy")
    schedule.tell(done(first.stage.key, wide))
    third = schedule.next("numpy", first.stage.key)

    assert {first.stage.kind, second.stage.kind} == {"init"}
    assert third.stage.parent == first.stage.key
    assert schedule.next("torch") is None


def test_a_retry_is_the_same_stage_once_more(tmp_path):
    _, made = graph(tmp_path, FineTuning())
    told = []
    schedule = Schedule(made, Store(tmp_path), policy=Policy(retry=frozenset({"killed"})), on_message=told.append)
    key = schedule.next().stage.key
    schedule.tell(Failed(key, "killed", "signal 9"))
    again = schedule.next().stage.key
    schedule.tell(Failed(key, "killed", "signal 9"))

    assert again == key
    assert [message.again for message in told] == [True, False]
    assert schedule.is_over


def test_a_failure_of_another_class_is_not_tried_again(tmp_path):
    _, made = graph(tmp_path, FineTuning())
    schedule = Schedule(made, Store(tmp_path), policy=Policy(retry=frozenset({"oom"}), retries=5))
    schedule.tell(Failed(schedule.next().stage.key, "killed", "signal 9"))

    assert schedule.is_over


def test_what_ran_out_of_memory_runs_alone(wide, tmp_path):
    schedule = Schedule(wide, Store(tmp_path), policy=Policy(retry=frozenset({"oom"})))
    hungry, other = schedule.next().stage.key, schedule.next().stage.key
    schedule.tell(Failed(hungry, "oom", "too little"))
    between = []
    while (job := schedule.next()) is not None:
        between.append(job.stage.key)
    for key in [other, *between]:
        schedule.tell(done(key, wide))
    while (job := schedule.next()) is not None and job.stage.key != hungry:
        schedule.tell(done(job.stage.key, wide))

    assert hungry not in between
    assert schedule.is_alone(job.stage.key)
    assert schedule.next() is None


def test_a_stage_that_another_run_holds_is_waited_for_and_the_others_go_on(wide, tmp_path):
    first = Schedule(wide, Store(tmp_path)).next().stage.key
    waits = []
    schedule = Schedule(wide, Store(tmp_path), claims=OneHolder(first), on_wait=waits.append)
    handed = [schedule.next().stage.key, schedule.next().stage.key]

    assert first not in handed
    assert schedule.next() is None and not schedule.is_over
    assert schedule.look_again_s > 0
    assert waits == ["process 7 on elsewhere"]


def test_what_another_run_has_finished_meanwhile_is_taken(tmp_path):
    plan, made = graph(tmp_path, FineTuning())
    store, claims, told = Store(tmp_path), OneHolder(), []
    store.prepare()
    root = next(iter(plan.stages))
    store.write(StageRecord(key=root, parent=None, kind="init", inputs={}), State({}))
    schedule = Schedule(made, store, claims=claims, on_message=told.append)
    job = schedule.next()

    assert [(message.record.key, message.is_found) for message in told] == [(root, True)]
    assert job.stage.parent == root
    assert claims.ours == {job.stage.key}


def test_what_another_run_has_finished_is_run_again_if_its_state_is_gone(tmp_path):
    plan, made = graph(tmp_path, FineTuning())
    store = Store(tmp_path)
    store.prepare()
    root = next(iter(plan.stages))
    store.write(StageRecord(key=root, parent=None, kind="init", inputs={}), State({}))
    store.drop_state(root)

    assert Schedule(made, store, claims=OneHolder()).next().stage.key == root


@pytest.mark.parametrize("shared", [True, False])
def test_states_stay_while_another_run_may_start_from_them(tmp_path, shared):
    plan, made = graph(tmp_path, FineTuning())
    store, claims = Store(tmp_path), OneHolder()
    store.prepare()
    claims.shared = shared
    root, *_ = plan.stages
    schedule = Schedule(Graph(made.jobs, passing=frozenset({root})), store, claims=claims)
    for _ in range(2):
        key = schedule.next().stage.key
        record = StageRecord(key=key, parent=None, kind="init", inputs={})
        schedule.tell(Done(store.write(record, State({}))))

    assert store.has_state(root) is shared


def test_claims_are_given_back_when_a_stage_ends(wide, tmp_path):
    claims = OneHolder()
    schedule = Schedule(wide, Store(tmp_path), claims=claims)
    one, two = schedule.next().stage.key, schedule.next().stage.key
    held = set(claims.ours)
    schedule.tell(Failed(one, "failed", "no"))
    schedule.tell(done(two, wide))

    assert held == {one, two}
    assert claims.ours == set()


def test_the_same_error_in_the_first_stages_stops_the_run(wide, tmp_path):
    schedule = Schedule(wide, Store(tmp_path))
    for number in range(3):
        schedule.tell(Failed(schedule.next().stage.key, "failed", f"no file of worker {number}"))

    assert "the first 3 stages ended alike: failed: no file of worker 2" in schedule.stopped
    assert schedule.next() is None and schedule.is_over


@pytest.mark.parametrize("others", [("diverged", "at step 1"), ("failed", "another thing")])
def test_different_errors_and_divergence_do_not_stop_it(wide, tmp_path, others):
    schedule = Schedule(wide, Store(tmp_path))
    status, reason = others
    for number in range(3):
        failed = Failed(schedule.next().stage.key, status, reason if number or status == "diverged" else "the first")
        schedule.tell(failed)

    assert schedule.stopped is None


def test_no_more_failures_than_allowed(wide, tmp_path):
    schedule = Schedule(wide, Store(tmp_path), policy=Policy(max_failures=2))
    keys = [schedule.next().stage.key for _ in range(3)]
    schedule.tell(Failed(keys[0], "diverged", "a"))
    before = schedule.stopped
    schedule.tell(Failed(keys[1], "diverged", "b"))

    assert before is None and "--max-failures" in schedule.stopped
    assert schedule.next() is None and not schedule.is_over
    schedule.tell(done(keys[2], wide))
    assert schedule.is_over


def test_statuses_to_retry_are_read_from_words():
    assert parse_retry("oom, killed") == {"oom", "killed"}
    with pytest.raises(SpecError, match="got 'diverged'"):
        parse_retry("oom,diverged")
