"""Chains of stages as jobs: on processes of submitit's, and on a cluster that ends jobs when a test says so."""

import pickle
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.unstructured import Unstructured
from toy import FineTuning, Rewinding, experiment
from toy_site import Shell

from harness.api import HarnessError, SpecError
from harness.execution import slurm
from harness.execution.graph import Policy
from harness.execution.run import run
from harness.store.timeline import attempts

SUPPORT = Path(__file__).parents[2] / "support"
HERE = {
    "trained_epochs",
    "train_seconds",
    "train_processor_seconds",
    "facts",
}  # which cell first needed a shared epoch, clocks, processors

pytestmark = pytest.mark.skipif(
    find_spec("submitit") is None, reason="submitit is not installed; `pip install sparsity-harness[slurm]`"
)


class Cluster:
    """Runs every job to its end as it is submitted; some end before a stage that this cluster cannot run.

    Args:
        loses: whether a stage is one of those.
        times: how often a job ends there before it is run after all.
        state: that of the jobs that end so.
    """

    def __init__(self, loses=lambda stage: False, times=1000, state="TIMEOUT"):
        self.loses, self.times, self.state = loses, times, state
        self.chains, self.running, self.most = [], set(), 0

    def submit(self, chain):
        jobs = pickle.loads(chain.jobs)
        self.chains.append([job.stage.key for job in jobs])
        lost = next((place for place, job in enumerate(jobs) if self.loses(job.stage)), None)
        if lost is not None and self.times:
            self.times -= 1
            jobs = jobs[:lost]
        if jobs:
            replace(chain, jobs=pickle.dumps(jobs))()
        self.running.add(len(self.chains))
        self.most = max(self.most, len(self.running))
        return Ended(self, len(self.chains), self.state)


class Ended:
    """A job that has ended in some state."""

    def __init__(self, cluster, job_id, state):
        self.cluster, self.job_id, self.state = cluster, job_id, state

    def done(self, force_check=False):
        self.cluster.running.discard(self.job_id)
        return True

    def cancel(self):
        raise AssertionError("it has ended")


def on(monkeypatch, cluster):
    """An executor whose jobs go to this cluster, without waiting for words between them."""
    monkeypatch.setattr(slurm, "connect", lambda *_: cluster)
    monkeypatch.setattr(slurm, "_LOOK_S", 0.0)
    return slurm.SlurmExecutor(jobs=2)


def grid():
    return experiment((FineTuning(), Rewinding()), patterns=(Unstructured(), BankBalanced(banks=5)))


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return run(grid(), store=tmp_path_factory.mktemp("local"), workers=2)


def comparable(found):
    return [record.model_dump(exclude=HERE) for record in found.records]


def test_jobs_of_submitit_give_the_records_of_a_run_on_one_machine(local, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    executor = slurm.SlurmExecutor({"time": "30"}, jobs=2, cluster="local")

    found = run(grid(), store=tmp_path, executor=executor)

    assert comparable(found) == comparable(local)
    assert sum(r.trained_epochs for r in found.records) == sum(r.trained_epochs for r in local.records)
    told = list(attempts(found.folder))
    assert len(told) == len(list(attempts(local.folder))) and all(each.worker for each in told)
    assert not (found.folder / "slurm").exists()  # what submitit wrote goes with it


def test_a_chain_goes_on_to_its_end_and_forks_are_jobs_of_their_own(local, tmp_path, monkeypatch):
    cluster = Cluster()

    found = run(grid(), store=tmp_path, executor=on(monkeypatch, cluster))

    assert comparable(found) == comparable(local)
    every = [key for chain in cluster.chains for key in chain]
    assert len(every) == len(set(every)) == len(list(attempts(local.folder)))
    assert len(cluster.chains) == 4  # the dense training with the first pruned model behind it, and three others
    assert cluster.most <= 2


def is_second_epoch(stage):
    return stage.kind == "train" and stage.epoch_index == 1


def test_a_job_that_ends_before_its_chain_is_submitted_again_for_the_rest(local, tmp_path, monkeypatch):
    cluster = Cluster(is_second_epoch, times=2)

    found = run(grid(), store=tmp_path, executor=on(monkeypatch, cluster))

    assert comparable(found) == comparable(local)
    first, again, third = cluster.chains[:3]
    assert again == third == first[2:]  # the initial weights and the first epoch are there


def test_a_stage_that_no_job_ends_has_failed_after_its_retries_and_the_rest_goes_on(tmp_path, monkeypatch):
    def is_of_banks(stage):
        return stage.masking is not None and isinstance(stage.masking.pattern, BankBalanced)

    cells = experiment(patterns=(Unstructured(), BankBalanced(banks=5)))
    found = run(cells, store=tmp_path, executor=on(monkeypatch, Cluster(is_of_banks, state="OUT_OF_MEMORY")))

    assert [record.status for record in found.records] == ["ok", "ok", "oom"]
    assert "4 jobs ended before the stage was done, the last one, " in found.records[2].reason
    assert [slurm._status(state) for state in ("TIMEOUT", "NODE_FAIL", "CANCELLED by 0")] == ["timeout"] + 2 * [
        "killed"
    ]


def test_a_stage_that_fails_ends_as_on_one_machine_and_is_tried_again_where_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_BREAKS", "error@5")
    cells = experiment(patterns=(Unstructured(), BankBalanced(banks=5)))
    here = run(cells, store=tmp_path / "here", workers=1)
    there = run(cells, store=tmp_path / "there", executor=on(monkeypatch, Cluster()))

    assert [(r.status, r.reason) for r in there.records] == [(r.status, r.reason) for r in here.records]

    monkeypatch.setenv("TOY_BREAKS_ONCE", str(tmp_path / "broken"))
    policy = Policy(retry=frozenset({"failed"}))
    again = run(cells, store=tmp_path / "again", executor=on(monkeypatch, Cluster()), policy=policy)
    assert [record.status for record in again.records] == ["ok"] * 3


def test_a_node_with_other_code_refuses_the_chain(tmp_path, monkeypatch):
    cluster = Cluster()
    submit = cluster.submit
    cluster.submit = lambda chain: submit(replace(chain, code={key: {} for key in chain.code}))

    found = run(experiment(), store=tmp_path, executor=on(monkeypatch, cluster))

    assert found.records[0].status == "failed" and "has other code of the" in found.records[0].reason


def test_what_cannot_be_is_said_before_anything_is_submitted(tmp_path):
    with pytest.raises(SpecError, match="partitoin"):
        slurm.SlurmExecutor({"partitoin": "gpu"})
    with pytest.raises(SpecError, match="whole minutes"):
        slurm.SlurmExecutor({"time": "1:00:00"})
    if shutil.which("sbatch") is None:
        with pytest.raises(HarnessError, match="no `sbatch`"):
            run(experiment(), store=tmp_path, executor=slurm.SlurmExecutor())


def test_the_command_line_says_what_belongs_together(tmp_path):
    shell = Shell(tmp_path)
    for arguments in ("--slurm time=5", "--executor slurm --devices cpux2", "--executor slurm --slurm time"):
        assert shell("run", shell.spec(), *arguments.split()).exit_code == 2
