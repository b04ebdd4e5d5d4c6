"""The kill matrix: a short form of it passes, and what it looks for it finds."""

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from harness.store import Store

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked for in /proc")


@pytest.fixture(scope="module")
def matrix():
    made = spec_from_file_location("kill_matrix", ROOT / "benchmarks" / "kill_matrix.py")
    module = module_from_spec(made)
    sys.modules["kill_matrix"] = module  # dataclasses look their own module up
    made.loader.exec_module(module)
    yield module
    del sys.modules["kill_matrix"]


@pytest.fixture(scope="module")
def bench(matrix, tmp_path_factory):
    return matrix.Bench(tmp_path_factory.mktemp("kill-matrix"))


@pytest.fixture
def case(matrix, bench):
    """A store in which everything is done, and what may be run on it."""
    made = matrix.Case(bench, random.Random(0), 0)
    shutil.copytree(bench.finished, made.store)
    yield made
    for run in made.runs:
        run.end()


def test_runs_that_are_disturbed_lose_nothing_and_leave_nothing():
    command = [sys.executable, "-m", "benchmarks.kill_matrix", "--instants", "1", "--jobs", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "nothing lost, nothing done twice, nothing left behind"
    for scenario in ("SIGKILL of the run", "SIGKILL of a worker", "Ctrl-C twice", "full disk", "clock set back"):
        assert f"{scenario:28} {1:6} {1:6}" in done.stdout


def test_a_finished_store_settles(case):
    case.settle()

    assert len(case.runs) == 1
    assert case.runs[0].computed == []


def test_a_lost_stage_is_computed_again_and_nothing_else(case, bench):
    key = next(key for key, value in bench.undisturbed.stages.items() if value.startswith("test"))
    shutil.rmtree(Store(case.store).stage_folder(key))
    case.settle()

    assert case.runs[0].computed == [key]


def test_a_finished_stage_that_is_written_again_is_a_fault(matrix, case, bench):
    before = matrix.contents(case.store)
    key = next(iter(before.stages))
    os.utime(Store(case.store).stage_folder(key) / "stage.json")
    after = matrix.contents(case.store)

    with pytest.raises(matrix.FaultError, match=f"1 finished stages were computed again: .*{key}"):
        case.see_nothing_done_twice(before, after)

    case.damaged.add(key)
    case.see_nothing_done_twice(before, after)


def test_epochs_that_were_not_trained_are_a_fault(matrix, case):
    before = matrix.contents(case.store)

    with pytest.raises(matrix.FaultError, match="records tell of 1 epochs, 0 were written"):
        case.see_epochs_told(before, replace(before, told=before.told + 1, trained=1))


def change_record(store, **values):
    """Change the first cell of a finished run."""
    path = next(store.glob("runs/*/records.json"))
    content = json.loads(path.read_text())
    content["records"][0] |= values
    path.write_text(json.dumps(content))


def drop_record(store):
    path = next(store.glob("runs/*/records.json"))
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"records": content["records"][1:]}))


def change_stage(store):
    shelf = Store(store)
    record = shelf.read(next(key for key in sorted(shelf.keys()) if shelf.read(key).kind == "train"))
    shelf.write_record(record.model_copy(update={"reproduced": False}))


def lay(store, place):
    path = store / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("left")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda store: change_record(store, value=1.0), r"cell \w+ differs"),
        (lambda store: change_record(store, sparsity=0.25), r"cell \w+ differs"),
        (lambda store: change_record(store, status="killed", reason="by whom?"), "is killed: by whom?"),
        (drop_record, r"cell \w+ is missing"),
        (change_stage, "not reproduced"),
        (lambda store: shutil.rmtree(next(store.glob("stages/*/*/stage.json")).parent), r"stage \w+ is missing"),
        (lambda store: lay(store, "claims/owners/abc"), "claims/owners/abc left behind"),
        (lambda store: lay(store, "tmp/.state.safetensors.12345678"), "12345678 left behind"),
        (lambda store: lay(store, "runs/x/.records.json.12345678"), "12345678 left behind"),
        (lambda store: next(store.glob("runs/*/status.json")).unlink(), "the run says that it said nothing"),
    ],
)
def test_whatever_is_not_as_it_was_is_told(matrix, case, bench, spoil, told):
    assert matrix.compare(matrix.contents(case.store), bench.undisturbed) == []

    spoil(case.store)
    faults = matrix.compare(matrix.contents(case.store), bench.undisturbed)

    with pytest.raises(matrix.FaultError, match=told):
        matrix.raise_if(faults)


def test_a_record_may_say_how_and_when_it_came_about(matrix, case, bench):
    change_record(case.store, status="cached", trained_epochs=0, train_seconds=9.0)

    assert matrix.compare(matrix.contents(case.store), bench.undisturbed) == []


def test_a_process_that_is_left_is_found_and_ended(matrix, case, monkeypatch):
    monkeypatch.setattr(matrix, "ORPHAN_S", 0.2)
    sleep = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
    marked = os.environ | {"HARNESS_KILL_MATRIX": str(case.store)}
    with (
        subprocess.Popen(sleep, env=marked, stdout=subprocess.PIPE) as orphan,
        subprocess.Popen(sleep, env=marked | {"HARNESS_KILL_MATRIX": f"{case.store}-2"}) as other,
    ):
        orphan.stdout.readline()

        assert matrix.left_running(case.store) == [orphan.pid]
        with pytest.raises(matrix.FaultError, match="1 processes left"):
            case.see_no_orphans()
        assert orphan.wait(300) == -9
        assert other.poll() is None
        other.kill()


def test_a_command_that_never_succeeds_is_a_fault(matrix, case):
    (case.store / "format").write_text("99\n")

    with pytest.raises(matrix.FaultError, match="3 more runs ended with 7"):
        case.settle()


def test_a_run_that_ends_otherwise_than_expected_is_a_fault(matrix, case):
    with pytest.raises(matrix.FaultError, match=r"ended with 0, not \(143,\)"):
        matrix.expect(case.start(), 143)


def test_what_a_stage_starts_from_is_followed_to_its_beginning(matrix):
    parents = {"c": ("b", "s"), "b": ("a",), "s": ("a",), "x": ("a",)}

    assert matrix.ancestors({"c"}, parents) == {"a", "b", "c", "s"}
