"""The whole way of a cell, through worker processes, with a backend in NumPy."""

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from harness_plugins.hardware.cycle_simulator import CycleSimulator
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.unstructured import Unstructured
from numpy_plugins import ToyTask
from safetensors.numpy import load_file
from toy import FineTuning, Rewinding, bytes_below, experiment

from harness.api import EmptySelectionError, StoreError
from harness.execution import run as running
from harness.execution.collect import _processor_seconds
from harness.execution.export import export
from harness.execution.graph import Policy, Schedule
from harness.execution.progress import Progress
from harness.execution.run import run
from harness.planning.plan import make_plan
from harness.report import render
from harness.results import records
from harness.store import Store
from harness.store.timeline import attempts

SUPPORT = Path(__file__).parents[2] / "support"


def values(result):
    return [(record.pattern, record.strategy, record.seed, record.value, record.sparsity) for record in result.records]


def epochs_run(result):
    return sum(record.trained_epochs for record in result.records)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A grid of two patterns and two strategies, run once."""
    store = tmp_path_factory.mktemp("store")
    grid = experiment((FineTuning(), Rewinding()), patterns=(Unstructured(), BankBalanced(banks=5)))
    return grid, store, run(grid, store=store, workers=2)


def test_every_planned_cell_has_a_record_with_a_result(finished):
    _, _, result = finished

    assert [record.status for record in result.records] == ["ok"] * 5
    assert all(0 < record.value <= 100 for record in result.records)


def test_sparsity_is_counted_on_the_masks(finished):
    _, _, result = finished
    dense, *pruned = result.records

    assert (dense.sparsity, dense.model_sparsity) == (0.0, 0.0)
    assert [record.sparsity for record in pruned] == [0.5] * 4
    assert pruned[0].model_sparsity == pytest.approx(30 / 63)


def test_the_dense_training_runs_once(finished):
    grid, store, _ = finished
    trained = [Store(store).read(path.name) for path in (store / "stages").glob("*/*")]

    assert sum(record.kind == "train" and not record.inputs.get("updates") for record in trained) == 4 + 2 * 2 + 2 * 1
    assert make_plan(grid, store=store).summary()["epochs_without_sharing"] == 4 + 2 * 6 + 2 * 5


def test_cells_of_one_seed_share_one_dense_model(finished):
    _, _, result = finished

    assert len({record.dense_digest for record in result.records}) == 1


def test_budgets_are_counted_per_cell(finished):
    _, _, result = finished

    assert [(record.total_epochs, record.retrain_epochs) for record in result.records] == [
        (4, 0), (6, 2), (5, 1), (6, 2), (5, 1),
    ]  # fmt: skip


def test_a_second_run_trains_nothing_and_says_cached(finished):
    grid, store, first = finished
    before = {name: text for name, text in bytes_below(store).items() if name.startswith("stages")}
    second = run(grid, store=store, workers=1)

    assert values(second) == values(first)
    assert {record.status for record in second.records} == {"cached"}
    assert epochs_run(second) == 0
    assert {name: text for name, text in bytes_below(store).items() if name.startswith("stages")} == before


def test_one_worker_and_two_give_the_same_numbers(finished, tmp_path):
    grid, _, result = finished

    assert values(run(grid, store=tmp_path, workers=1)) == values(result)


def test_another_strategy_costs_only_its_own_epochs(finished):
    _, store, _ = finished
    wider = experiment((FineTuning(epochs=3),), patterns=(Unstructured(),))
    plan = make_plan(wider, store=store).summary()

    assert plan["epochs_to_run"] == 1
    assert plan["cells_cached"] == 1


def test_a_copied_store_still_works(finished, tmp_path):
    grid, store, _ = finished
    shutil.copytree(store, tmp_path / "copy")

    assert make_plan(grid, store=tmp_path / "copy").summary()["stages_to_run"] == 0


def test_the_run_folder_holds_the_records(finished):
    grid, store, result = finished

    assert result.folder == store / "runs" / grid.run_id
    assert records.read(result.folder / "records.json") is not None


def test_training_has_its_processor_time_beside_the_time_that_passed(finished):
    _, store, result = finished

    for record in result.records:
        assert record.train_processor_seconds is not None and record.train_processor_seconds >= 0
    # Stages that were stored before it was measured: a chain of them has none.
    stage = Store(store).read(result.records[-1].stage)
    assert stage.processor_seconds is not None
    assert _processor_seconds([stage, stage]) == pytest.approx(2 * stage.processor_seconds, abs=0.002)
    assert _processor_seconds([stage, stage.model_copy(update={"processor_seconds": None})]) is None


def test_an_exported_cell_is_pruned_weights_and_their_masks(finished, tmp_path):
    _, store, result = finished
    record = result.records[-1]
    export(store, record.cell[:8], tmp_path / "cell.safetensors")
    arrays = load_file(tmp_path / "cell.safetensors")

    assert arrays["output.kernel"].shape == (3, 20)
    assert not arrays["output.kernel"][~arrays["output.kernel.mask"]].any()
    assert arrays["output.kernel.mask"].mean() == 0.5


def test_exporting_an_unknown_cell_names_the_way_out(finished, tmp_path):
    _, store, _ = finished

    with pytest.raises(EmptySelectionError, match="got 'zzz', which fits none"):
        export(store, "zzz", tmp_path / "cell.safetensors")


@pytest.mark.parametrize("name", ["state.safetensors", "masks.safetensors", "stage.json"])
def test_a_damaged_stage_is_found_and_run_again(finished, tmp_path, name):
    grid, store, result = finished
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    end = Store(copy).stage_folder(result.records[-1].stage)
    content = bytearray((end / name).read_bytes())
    content[len(content) // 2] ^= 4
    (end / name).write_bytes(content)
    shutil.rmtree(next(path.parent for path in copy.rglob("stage.json") if _is_test_of(path, end.name)))
    told = Told()
    again = run(grid, store=copy, workers=1, progress=told)

    assert values(again) == values(result)
    assert again.records[-1].status == "ok"
    assert again.records[-1].trained_epochs == 1
    # Every reader of stderr and of the run's log learns what was moved, where to, and what comes of it.
    # On a slow machine the run says as well that it is costing.
    (note,) = (note for note in told.notes if not note.startswith("hardware costs of"))
    assert note.startswith(f"moved aside: {end / 'stage.json'}, as ")
    assert note.endswith("; it is kept there as stage.damaged, and the stage is run again")
    assert (again.folder / "logs" / "run.log").read_text().endswith(f" {note}\n")
    assert (end / "stage.damaged").is_file()


class Told(Progress):
    """Keeps what is told of the whole run."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_a_model_that_is_trained_again_for_a_score_is_told(finished, tmp_path):
    grid, store, _ = finished
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    only = replace(grid, cells=grid.cells[1:2], hardware=(CycleSimulator(),))
    Store(copy).drop_state(make_plan(only, store=copy).cells[0].end.key)
    told = Told()
    result = run(only, store=copy, workers=1, progress=told)

    # On a slow machine the run says as well that it is costing.
    (note,) = (note for note in told.notes if not note.startswith("hardware costs of"))
    assert note.startswith("1 finished model whose state is gone: trained again (")
    assert next(iter(result.records[0].fixed_point.values()))["value"] > 0


def _is_test_of(path, key):
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return False
    return content["kind"] == "test" and content["parent"] == key


def test_a_state_that_is_needed_again_is_computed_again_and_compared(finished, tmp_path):
    _, store, result = finished
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    dense_end = result.records[0].stage
    Store(copy).drop_state(dense_end)
    wider = experiment((FineTuning(),), sparsities=(0.75,))
    plan = make_plan(wider, store=copy)
    run(wider, store=copy, workers=1)

    assert plan.to_run[dense_end] == "metrics cached, state missing"
    assert Store(copy).read(dense_end).reproduced is True


def test_states_on_the_way_are_dropped_and_the_finished_models_kept(tmp_path):
    grid = experiment((FineTuning(epochs=3),), keep_dense=0)
    result = run(grid, store=tmp_path, workers=1)
    shelf = Store(tmp_path)
    plan = make_plan(grid, store=tmp_path)
    kept = {key for key in plan.stages if shelf.has_state(key)}

    assert kept == {record.stage for record in result.records}


@pytest.mark.parametrize(
    ("how", "status", "word"),
    [
        ("error", "failed", "the toy is broken"),
        ("killed", "killed", "signal 9"),
        ("segfault", "crashed", "signal 11"),
        ("exit", "crashed", "exit code 3"),
        ("memory", "oom", "1 PiB is too much"),
        ("diverged", "diverged", "step 3"),
        ("infinite", "diverged", "weights of output.kernel became inf"),
    ],
)
def test_a_stage_that_breaks_is_a_status_with_its_reason_and_the_rest_is_kept(tmp_path, monkeypatch, how, status, word):
    monkeypatch.setenv("TOY_BREAKS", f"{how}@4")
    broken = run(experiment(), store=tmp_path, workers=1)
    dense, pruned = broken.records

    assert dense.status == "ok"
    assert (pruned.status, pruned.value) == (status, None)
    assert word in pruned.reason

    monkeypatch.delenv("TOY_BREAKS")
    mended = run(experiment(), store=tmp_path, workers=1)

    assert [record.status for record in mended.records] == ["cached", "ok"]
    assert mended.records[1].trained_epochs == 2


def test_a_validation_value_that_overflows_is_told_and_ends_no_chain(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_BREAKS", "overflow@1")
    found = run(experiment(), store=tmp_path, workers=1)

    assert [record.status for record in found.records] == ["ok", "ok"]
    for record in found.records:
        first, second, *rest = record.valid_history
        assert second is None and None not in (first, *rest, record.value, record.valid_value)
        assert list(record.facts["not_finite"].values()) == ["epoch 2"]
    (key,) = found.records[0].facts["not_finite"]
    assert Store(tmp_path).read(key).valid.nats == math.inf
    assert json.loads((found.folder / "records.json").read_text(), parse_constant=pytest.fail)
    text = render(found.records, format="md")
    assert "NOTE: in 2 cells a validation value on the way was not finite" in text and "not_finite" not in text

    again = run(experiment(), store=tmp_path, workers=1)  # it comes back from the store as what it was

    assert [record.status for record in again.records] == ["cached", "cached"]
    assert [record.valid_history for record in again.records] == [record.valid_history for record in found.records]


def test_a_test_value_that_overflows_is_no_result(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_TEST_OVERFLOWS", "1")

    for record in run(experiment(), store=tmp_path, workers=1).records:
        assert record.status == "diverged" and "the test accuracy became inf" in record.reason


def test_cells_behind_a_broken_dense_training_are_blocked(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_BREAKS", "error@1")
    result = run(experiment(seeds=(0,)), store=tmp_path, workers=1)
    dense, pruned = result.records

    assert [dense.status, pruned.status] == ["failed", "blocked"]
    assert f"by numpy · dense · epoch 2 (cell {dense.cell})" in pruned.reason
    assert "the toy is broken" in pruned.reason
    assert dense.facts["failed_stage"] == pruned.facts["failed_stage"]


def test_a_cell_that_shares_a_failed_stage_is_blocked_by_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_BREAKS", "error@4")
    result = run(experiment((FineTuning(epochs=1), FineTuning(epochs=2))), store=tmp_path, workers=1)

    assert [record.status for record in result.records] == ["ok", "failed", "blocked"]


@pytest.mark.parametrize(("how", "status"), [("killed", "killed"), ("memory", "oom"), ("segfault", "crashed")])
def test_a_stage_is_tried_again_where_that_was_asked_for(tmp_path, monkeypatch, how, status):
    monkeypatch.setenv("TOY_BREAKS", f"{how}@4")
    monkeypatch.setenv("TOY_BREAKS_ONCE", str(tmp_path / "broken"))
    policy = Policy(retry=frozenset({status}))
    result = run(experiment(), store=tmp_path / "store", workers=2, policy=policy)

    assert (tmp_path / "broken").exists()
    assert [record.status for record in result.records] == ["ok", "ok"]
    again = [each for each in attempts(result.folder) if each.status != "ok"]
    assert [each.status for each in again] == [status]
    assert [each.status for each in attempts(result.folder) if each.stage == again[0].stage] == [status, "ok"]


def test_a_stage_that_takes_too_long_is_ended_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_BREAKS", "hang@4")
    monkeypatch.setenv("TOY_BREAKS_ONCE", str(tmp_path / "broken"))
    grid = experiment(patterns=(Unstructured(), BankBalanced(banks=5)))
    result = run(grid, store=tmp_path / "store", workers=1, policy=Policy(stage_timeout=10.0))

    assert sorted(record.status for record in result.records) == ["ok", "ok", "timeout"]
    assert "--stage-timeout" in next(record.reason for record in result.records if record.status == "timeout")


def test_a_run_stops_by_itself_when_everything_fails_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_BREAKS", "error@0")
    result = run(experiment(seeds=(0, 1, 2, 3)), store=tmp_path, workers=1)

    assert "the toy is broken" in result.stopped
    assert [record.status for record in result.records[:4]] == ["failed"] * 3 + ["planned"]


def test_what_a_stage_printed_is_kept_and_told_with_its_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_BREAKS", "segfault@4")
    result = run(experiment(), store=tmp_path, workers=1)
    [log] = (result.folder / "logs").iterdir()

    assert log.stem == result.records[1].facts["failed_stage"]
    assert "about to be segfault" in log.read_text() and "Segmentation fault" in log.read_text()
    assert str(log) in result.traces[result.records[1].reason]


def test_the_traceback_of_a_failure_is_in_its_log(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_BREAKS", "error@4")
    result = run(experiment(), store=tmp_path, workers=1)
    [log] = (result.folder / "logs").iterdir()

    assert "RuntimeError: the toy is broken" in log.read_text()
    assert "RuntimeError: the toy is broken" in result.traces[result.records[1].reason]


def test_a_run_says_how_it_ended(finished):
    _, _, result = finished
    status = json.loads((result.folder / "status.json").read_text())

    assert (status["state"], status["epochs_done"], status["running"]) == ("ended", status["epochs"], [])
    assert status["cells"] in ({"ok": 5}, {"cached": 5})
    assert status["pid"] == os.getpid()


def test_a_run_notes_when_and_where_every_stage_that_it_ran_was_run(finished):
    grid, store, result = finished
    found = list(attempts(result.folder))

    plan = make_plan(grid, store=store)
    assert sorted(each.stage for each in found) == sorted(plan.stages)
    assert {each.status for each in found} == {"ok"} and {each.kind for each in found} >= {"init", "train", "test"}
    assert all(each.begun is not None and each.label and each.outcome for each in found)
    # One process a worker, and none of them this one.
    workers = {each.worker.rpartition(" ")[2] for each in found}
    assert 1 <= len(workers) <= 2 and str(os.getpid()) not in workers


class Standings(Progress):
    def __init__(self):
        self.told = []

    def best(self, found):
        self.told.append(found)


def test_the_best_finished_cell_is_told_while_the_run_goes_on_and_of_cached_ones_at_its_beginning(tmp_path):
    grid, first, again = experiment((FineTuning(), Rewinding())), Standings(), Standings()
    result = run(grid, store=tmp_path, workers=1, progress=first)
    run(grid, store=tmp_path, workers=1, progress=again)

    best = max(record.valid_value for record in result.records if not record.is_dense)
    for told in (first.told, again.told):
        [(at, label, outcome)] = told[-1]
        assert (at, outcome) == ("50 %", f"valid accuracy {best:.1f} %") and label.startswith("numpy · unstructured · ")
    assert len(again.told) == 1


def test_a_stage_that_is_damaged_while_the_run_goes_on_is_mended(tmp_path, monkeypatch):
    grid = experiment((Rewinding(),))
    first = run(experiment(()), store=tmp_path, workers=1)  # the dense training alone
    source = next(stage for stage in make_plan(grid, store=tmp_path).cells[1].chain if stage.kind == "rewind").source
    real = Schedule.next

    def damage_and_go_on(self, *place):
        job = real(self, *place)
        if job is not None and job.stage.kind == "prune":
            state = Store(tmp_path).stage_folder(source) / "state.safetensors"
            state.write_bytes(state.read_bytes()[:-3] + b"abc")
        return job

    monkeypatch.setattr(Schedule, "next", damage_and_go_on)
    result = run(grid, store=tmp_path, workers=1)

    assert [record.status for record in first.records] == ["ok"]
    assert result.records[1].status == "ok"


def test_a_full_store_stops_the_run_and_keeps_what_is_finished(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_BREAKS", "full@2")
    result = run(experiment(seeds=(0, 1)), store=tmp_path, workers=1)

    assert result.store_error == "store: no space left"
    assert "ok" not in {record.status for record in result.records}
    monkeypatch.delenv("TOY_BREAKS")
    assert make_plan(experiment(seeds=(0, 1)), store=tmp_path).summary()["epochs_to_run"] < 2 * (4 + 2)


def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="cannot be written"):
        run(experiment(), store=tmp_path / "file")


PROGRAM = """
import itertools
import json
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from toy import FineTuning, experiment
from numpy_plugins import ToyTask
from harness.execution.progress import Progress
from harness.execution.run import run

if __name__ == "__main__":
    result = run(experiment((FineTuning(epochs=4),), task=ToyTask(epochs=6)), store=Path(sys.argv[1]), workers=1)
    epochs = sum(record.trained_epochs for record in result.records)
    print(json.dumps({"epochs": epochs, "values": [record.value for record in result.records]}))
"""


def test_two_runs_at_once_share_the_work(tmp_path):
    program, store = tmp_path / "program.py", tmp_path / "store"
    program.write_text(PROGRAM)
    slow = os.environ | {"TOY_SECONDS_PER_EPOCH": "0.2"}
    command = [sys.executable, program, store, SUPPORT]
    processes = [subprocess.Popen(command, env=slow, stdout=subprocess.PIPE) for _ in range(2)]
    told = [json.loads(process.communicate(timeout=600)[0]) for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert told[0]["values"] == told[1]["values"] and None not in told[0]["values"]
    assert sum(run["epochs"] for run in told) == 10
    assert not [path for path in (store / "claims").rglob("*") if path.is_file()]


def test_a_run_takes_over_from_one_that_is_killed(tmp_path):
    program, store = tmp_path / "program.py", tmp_path / "store"
    program.write_text(PROGRAM)
    slow = os.environ | {"TOY_SECONDS_PER_EPOCH": "600"}
    process = subprocess.Popen([sys.executable, program, store, SUPPORT], env=slow, start_new_session=True)
    grid = experiment((FineTuning(epochs=4),), task=ToyTask(epochs=6))
    _wait_for(lambda: any('"kind": "init"' in path.read_text() for path in store.rglob("stage.json")))
    threading.Timer(2.0, process.kill).start()  # while the other run waits for its stage
    result = run(grid, store=store, workers=1)

    assert process.wait() == -signal.SIGKILL
    assert [record.status for record in result.records] == ["ok", "ok"]
    assert epochs_run(result) == 10


def test_a_run_that_is_killed_goes_on_where_it_was_and_leaves_no_process(tmp_path):
    program, store = tmp_path / "program.py", tmp_path / "store"
    program.write_text(PROGRAM)
    slow = os.environ | {"TOY_SECONDS_PER_EPOCH": "0.4"}
    process = subprocess.Popen([sys.executable, program, store, SUPPORT], env=slow, start_new_session=True)
    grid = experiment((FineTuning(epochs=4),), task=ToyTask(epochs=6))
    _wait_for(lambda: _finished_epochs(store) >= 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _wait_for(lambda: not _is_alive(process.pid))
    done = _finished_epochs(store)
    resumed = run(grid, store=store, workers=1)
    undisturbed = run(grid, store=tmp_path / "other", workers=1)

    assert 3 <= done < 10
    assert values(resumed) == values(undisturbed)
    assert _finished_epochs(store) == 10
    reruns = [Store(store).read(path.parent.name).reproduced for path in store.rglob("stage.json")]
    assert all(reproduced in (None, True) for reproduced in reruns)


def _finished_epochs(store):
    return sum('"kind": "train"' in path.read_text() for path in store.rglob("stage.json"))


def _is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {support!r})
from toy import experiment
from harness.execution.progress import Progress
from harness.execution.run import run
print([record.status for record in run(experiment(), store=Path({store!r}), workers=1).records])
"""


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_a_script_without_a_guard_runs(tmp_path, how):
    text = SCRIPT.format(support=str(Path(__file__).parents[2] / "support"), store=str(tmp_path / "store"))
    script = tmp_path / "script.py"
    script.write_text(text)
    command = [sys.executable, str(script)] if how == "file" else [sys.executable, "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=600, check=False)

    assert done.stdout == "['ok', 'ok']\n", done.stderr


def test_records_are_written_when_they_change_and_not_while_a_long_epoch_goes_on(tmp_path, monkeypatch):
    written, write = [], records.write

    def noticed(path, found, **options):
        written.append(list(found))
        write(path, found, **options)

    monkeypatch.setattr(running.records, "write", noticed)
    # As if every sign of life came after a long time.
    monkeypatch.setattr(running, "_RECORDS_EVERY_S", 0.0)
    monkeypatch.setattr(running, "_RECORDS_SHARE", 1e9)
    found = run(experiment(), store=tmp_path, workers=1)

    between = written[:-1]  # the last is written in any case
    assert len(between) > 2
    assert all(one != other for one, other in itertools.pairwise(between))
    assert written[-1] == list(found.records)
