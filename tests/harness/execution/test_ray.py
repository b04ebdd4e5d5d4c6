"""Runs on a Ray cluster of three nodes, one of which is lost on the way; and what is decided without a cluster."""

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy_plugins import NumpyBackend, ToyTask
from ray_cluster import grid, small
from toy import FineTuning, experiment

from harness.api import PluginUnavailableError, Settings
from harness.execution import ray, ray_node
from harness.execution.run import run
from harness.execution.worker import Done, Failed, Job
from harness.planning.plan import make_plan
from harness.results.records import Record
from harness.store import Store

SUPPORT = Path(__file__).parents[2] / "support"
HERE = {
    "trained_epochs",
    "train_seconds",
    "train_processor_seconds",
    "facts",
}  # which cell first needed a shared epoch, clocks, processors

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed; `pip install sparsity-harness[ray]`"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What runs on a cluster came to; Ray stays out of this process.

    Its parent is called `uv run`, as that of many users' commands is: Ray looks for that, and then copies folders.
    """
    folder = tmp_path_factory.mktemp("cluster")
    environment = os.environ | {"PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SUPPORT / "ray_cluster.py"), str(folder)]
    (folder / "run").write_text(f"import subprocess\nraise SystemExit(subprocess.call({command!r}))\n")
    done = subprocess.run(
        ["uv", "run"], executable=sys.executable, cwd=folder,
        env=environment, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text()) | {"stdout": done.stdout}


def comparable(found_records):
    return [record.model_dump(exclude=HERE) for record in found_records]


@needs_ray
def test_every_cell_has_its_result_though_a_node_was_lost(found):
    assert found["lost"] >= 1
    assert [record["status"] for record in found["grid"]] == ["ok"] * 15


@needs_ray
def test_records_are_those_of_a_run_on_one_machine(found, tmp_path):
    local = run(grid(), store=tmp_path, workers=2).records
    there = [Record.model_validate(record) for record in found["grid"]]

    assert comparable(there) == comparable(local)
    assert sum(record.trained_epochs for record in there) == sum(record.trained_epochs for record in local)


@needs_ray
def test_a_second_run_on_the_cluster_runs_nothing(found):
    assert found["again"] == ["cached"] * 15


@needs_ray
def test_a_stage_that_breaks_its_worker_ends_as_it_does_on_one_machine(found, tmp_path):
    local = run(small("killed@1"), store=tmp_path, workers=1).records

    assert found["killed@1"] == [[record.status, record.reason] for record in local]
    assert found["killed@1"][0][0] == "killed"


@needs_ray
def test_a_stage_that_always_loses_its_actor_is_killed_after_its_retries(found):
    (status, reason), (after, _) = found["actor"]

    assert (status, after) == ("killed", "blocked")
    assert "2 times" in reason


@needs_ray
def test_a_stage_that_no_node_can_hold_is_an_error_at_once(found):
    kind, message = found["no_gpu"]

    assert kind == "SpecError"
    assert "a stage needs 1 CPUs and 1 GPUs on one node, and no node of the cluster has that" in message


@needs_ray
def test_a_stage_computes_on_the_gpu_that_ray_gives_it(found):
    assert found["gpu"] == ["ok", "ok"]
    assert "cuda:0 of 0, 1 threads\n" in found["logs"]


@needs_ray
def test_a_node_with_other_versions_runs_nothing(found):
    status, reason = found["versions"][0]

    assert status == "failed"
    assert "has toy 1 instead of 2; install the same versions on every node" in reason


@needs_ray
def test_nothing_of_ray_is_printed_among_results(found):
    assert found["stdout"] == ""


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(ray, "find_spec", lambda name: None)

    with pytest.raises(PluginUnavailableError, match=r"pip install sparsity-harness\[ray\]"):
        ray.RayExecutor()


@pytest.fixture
def job(tmp_path):
    """The first stage of a plan, and its store."""
    Store(tmp_path / "store").prepare()
    plan = make_plan(experiment((FineTuning(),)), store=tmp_path / "store")
    stage = plan.cells[0].chain[0]
    return Job(stage, ToyTask(), NumpyBackend(), Settings(), None, tmp_path / "store", {"versions": {}})


def test_a_node_that_does_not_see_the_store_says_so(job):
    assert ray_node.why_not_here(job, ray_node.code_of(job)) is None
    (job.store / "format").unlink()

    assert "does not see the store" in ray_node.why_not_here(job, ray_node.code_of(job))


def test_a_node_with_other_code_of_a_plugin_says_which(job):
    planned = ray_node.code_of(job) | {"task toy": "that of another edition"}

    assert ray_node.why_not_here(job, planned) == "has other code of the task toy; install the same on every node"


def test_a_result_in_another_folder_of_the_same_name_is_a_failure(job, monkeypatch):
    monkeypatch.setattr(ray_node, "_SEEN_WITHIN_S", 0.0)
    answer = ray._unless_unseen(Done(None), job)

    assert isinstance(answer, Failed)
    assert "is not the store of this machine" in answer.reason


@given(st.integers(0, 64), st.integers(0, 8), st.integers(1, 8), st.sampled_from([0, 1 / 4, 1 / 3, 1 / 2, 1]))
def test_so_many_actors_fit_a_node_and_not_one_more(cpus, gpus, threads, share):
    times = ray._Demand(threads, share).times_in({"CPU": float(cpus), "GPU": float(gpus)})
    per_gpu = round(1 / share) if share else 0

    assert times * threads <= cpus
    assert not share or times <= gpus * per_gpu
    assert (times + 1) * threads > cpus or (share and times + 1 > gpus * per_gpu)


@pytest.mark.parametrize(
    ("device", "devices", "gpus"),
    [("cpu", (), 0), ("cuda:0", (), 1), ("cuda:0", ("cuda:0", "cuda:1", "cuda:1"), 1 / 2), ("cuda:0", ("cpu",), 0)],
)
def test_as_many_workers_as_name_one_gpu_share_it(job, device, devices, gpus):
    settings = job.settings.model_copy(update={"device": device, "threads": 2})
    jobs = [Job(job.stage, job.task, job.backend, settings, None, job.store, {})]

    assert ray._demand(jobs, devices) == ray._Demand(2, gpus)


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "127.0.0.1:head"])
def test_an_address_where_nobody_answers_is_no_connection(address):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ray._knock(f"127.0.0.1:{port}")

    with pytest.raises((OSError, ValueError)):
        ray._knock(address.format(port=port))
