"""`harness status | logs | show | why` as their users meet them."""

import json
import re
import shutil
import signal
import time

import pytest
from rich.console import Console
from toy_site import Shell, install_modules
from uncut import WIDTHS, check_uncut

from harness.cli import status
from harness.cli._cell_page import cell_document
from harness.inspection.run_status import RunningStage, RunStatus
from harness.report import rich
from harness.results import records
from harness.results.records import Record

TILES = """
from acme_helper import whole_matrix

from harness.api import Pattern, hookimpl


class Tiles(Pattern):
    name = "tiles"

    def frame(self, rows, cols):
        return whole_matrix()


@hookimpl
def register_pattern():
    return Tiles
"""


WORDS_OF_A_PAGE = (
    "accuracy ", "0.5 asked, 0.5000 reached over softmax", "6, 2 of them after the first prune", "harness 0.1.0",
    "pattern unstructured (sparsity-harness", "epoch 6 ", "output.kernel    0.5000", "test score",
)  # fmt: skip


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a run whose fifth epoch printed something."""
    shell = Shell(tmp_path_factory.mktemp("finished"))
    shell.process("run", shell.spec(), "--workers", "1", TOY_BREAKS="noisy@4")
    return shell


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A folder with a run in which the last epoch of every pruned cell broke."""
    shell = Shell(tmp_path_factory.mktemp("failed"))
    assert shell("run", shell.spec(), TOY_BREAKS="error@5").exit_code == 1
    return shell


def begun(shell, *arguments, epochs=1, **variables):
    """Start a run and wait until it has finished so many epochs."""
    process = shell.start("run", shell.spec(), "--workers", "1", "--progress", "none", *arguments, **variables)
    until = time.monotonic() + 300
    while time.monotonic() < until:
        looked = shell("status", "--json")
        if looked.exit_code == 0 and json.loads(looked.stdout)[0]["epochs_done"] >= epochs:
            return process
        time.sleep(0.1)
    process.kill()
    raise AssertionError(process.communicate()[1])


# --- status ---------------------------------------------------------------------------------------------------------


def test_a_finished_run_says_so(finished):
    text, (row,) = finished("status").stdout, json.loads(finished("status", "--json").stdout)

    assert (
        "  finished  (process " in text
        and "cells   4 in all: 4 ok" in text
        and "12 of the 12 to train are done" in text
    )
    assert (row["state"], row["cells"], row["last_error"]) == ("finished", {"ok": 4}, "")


def test_the_last_error_is_told_with_its_cell(failed):
    text = failed("status").stdout

    assert "2 ok, 2 failed" in text
    assert re.search(
        r"fine_tuning\(epochs=2\) · 0\.5 · seed . \(cell \w+\): backend numpy raised RuntimeError: the toy is broken",
        text,
    )


def test_a_killed_run_is_said_to_have_died_and_the_same_command_continues(shell):
    running = begun(shell, TOY_SECONDS_PER_EPOCH="0.5")
    alive = shell("status").stdout
    running.send_signal(signal.SIGKILL)
    running.communicate()

    dead = shell("status").stdout

    assert (
        "  running  (process " in alive
        and "to train are done, about " in alive
        and "numpy · dense · seed 0 · epoch" in alive
    )
    assert "  died  (process " in dead and "was at" in dead and "running" not in dead
    assert shell("run", "experiment.yaml").exit_code == 0
    assert "  finished  (" in shell("status").stdout


def test_watching_ends_with_the_run(shell):
    running = begun(shell, TOY_SECONDS_PER_EPOCH="0.3")
    watched = shell("status", "--watch")
    running.communicate(timeout=600)

    *lines, first, _, last = [line for line in watched.stdout.splitlines() if line]
    assert len(lines) >= 2 and all(": running, cells: 4 in all: " in line for line in lines)
    assert "  finished  (" in first and last.split()[:5] == ["epochs", "12", "of", "the", "12"]
    assert "\x1b" not in watched.stdout


def test_watching_with_json_prints_an_array_for_every_change(finished):
    watched = finished("status", "--watch", "--json").stdout.splitlines()

    assert [json.loads(line)[0]["state"] for line in watched] == ["finished"]


def test_what_its_stages_took_is_told_beside_a_run(finished):
    [told] = json.loads(finished("status", "--json").stdout)
    shown = finished("status").stdout

    assert told["attempts"] == told["measured"] > 0
    assert told["stage_seconds"] >= 0 and told["processor_seconds"] >= 0
    assert f"took {told['attempts']} stages in " in " ".join(shown.split())
    assert "of processor time" in shown


def test_a_run_is_a_trace_of_its_workers(finished, tmp_path):
    file = tmp_path / "trace.json"

    told = finished("status", "--perfetto", str(file))

    events = json.loads(file.read_text())["traceEvents"]
    stages = [event for event in events if event["ph"] == "X" and event["cat"] != "start"]
    assert told.exit_code == 0 and f"{len(stages)} stages" in told.stdout
    assert {event["args"]["status"] for event in stages} == {"ok"} and {event["tid"] for event in stages} == {1}
    assert finished("status", "--perfetto", str(file), "--watch").exit_code == 2


def test_a_terminal_is_refreshed_in_place(capsys):
    console = Console(force_terminal=True, width=100, height=20)
    looks = [[RunStatus(run="toy-1", state="running", host="h", epochs=2, epochs_done=n)] for n in (0, 1)]

    status._watch_live(looks, console)

    printed = capsys.readouterr().out
    assert "0 of the 2 to train" in printed and "1 of the 2 to train" in printed
    assert "\x1b[1A" in printed  # up again, and over it


@pytest.fixture
def utc(monkeypatch):
    """The time zone of a golden text."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("utc")
def test_runs_in_every_state(golden):
    label = "torch · gradual · 0.9 · epoch 4"
    at = (RunningStage(stage="ab", label=label, since=940.0, step=120, steps=460, before=134.25),)
    base = RunStatus(
        run="a-1", state="running", pid=7, host="node", workers=2, started=100.0, written=1000.0, epochs=40,
        epochs_done=14,
    )  # fmt: skip
    changes = [
        {
            "cells": {"ok": 3, "running": 1},
            "left_s": 180.0,
            "left_basis": 14,
            "running": at,
            "attempts": 14,
            "stage_seconds": 7260.0,
            "processor_seconds": 5400.0,
            "measured": 12,
        },
        {"run": "b-2", "state": "died", "silent_s": 7300.0, "cells": {"ok": 3, "planned": 1}, "running": at},
        {"run": "c-3", "state": "stopped", "reason": "3 stages failed alike", "cells": {"oom": 3}, "last_error": "oom"},
        {"run": "d-4", "state": "unknown", "host": "", "cells": {"ok": 1, "planned": 1}},
        {"run": "e-5", "state": "interrupted", "workers": 1},
    ]
    found = [base.model_copy(update=change) for change in changes]

    document = status.status_document(found)
    golden("status_of_runs", rich.text(document, 120))
    for width in WIDTHS:
        check_uncut(document, width)


# --- logs -----------------------------------------------------------------------------------------------------------


def test_logs_have_headings_and_end_with_a_traceback_where_something_broke(failed):
    found = failed("logs", "unstructured seed 0")

    assert found.exit_code == 0
    assert found.stdout.startswith("== epoch 6 (failed) ")
    assert found.stdout.rstrip().endswith("RuntimeError: the toy is broken")


def test_logs_as_json_list_every_stage(failed):
    found = json.loads(failed("logs", "unstructured seed 0", "--json").stdout)
    states = [(log["name"], log["state"]) for log in found["logs"]]

    assert states[-3:] == [("epoch 5", "done"), ("epoch 6", "failed"), ("test score", "not run")]
    assert "the toy is broken" in found["logs"][-2]["text"] and found["logs"][-3]["text"] is None


def test_a_cell_without_a_log_says_why(finished):
    found = finished("logs", "dense seed=1")

    assert (found.exit_code, found.stdout) == (0, "")
    assert "has no log: no framework or plugin printed anything; its epochs and what they measured:" in found.stderr
    assert re.search(r"`harness show \w{12}`", found.stderr)


def test_following_prints_what_comes_until_the_cell_is_done(shell):
    running = begun(shell, TOY_SECONDS_PER_EPOCH="0.3", TOY_BREAKS="noisy@4")
    followed = shell("logs", "unstructured 0.5 seed 0", "-f")
    running.communicate(timeout=600)

    heading, line = followed.stdout.splitlines()
    assert heading.startswith("== epoch 5 (") and line == "about to be noisy"


# --- show -----------------------------------------------------------------------------------------------------------


def test_everything_about_a_cell_is_a_page_of_html_too(finished, tmp_path):
    printed = finished("show", "unstructured seed 0").stdout
    done = finished("show", "unstructured seed 0", "--html", str(tmp_path / "cell.html"))

    page = (tmp_path / "cell.html").read_text()
    assert done.exit_code == 0 and page.startswith("<!doctype html>") and "<svg" in page
    numbers = re.findall(r"\d+\.\d{2,}", printed)
    assert "Masks of the finished model" in page  # the cell below is pruned
    assert len(re.findall("<h1>", page)) == 1 and page.count("unstructured · uniform") == 2  # in <title> and <h1>
    assert numbers and [number for number in numbers if number not in page] == []
    assert finished("show", "unstructured seed 0", "--html", "a.html", "--json").exit_code == 2


def test_everything_about_a_cell_fits_on_a_page(finished):
    page = finished("show", "unstructured seed 0").stdout

    for words in WORDS_OF_A_PAGE:
        assert words in page, page


def test_a_cell_tells_what_was_really_used(finished):
    page = finished("show", "unstructured seed 0").stdout

    facts = [
        line.split(maxsplit=1) for line in page.splitlines() if line.startswith(("model", "optim", "recipe", "data"))
    ]
    assert [text.strip() for _, text in facts] == [
        "output (inputs=20 units=3)",
        "sgd (momentum=0, weight_decay=0), gradients not clipped",
        "1. train epochs 1 to 4, learning rate 0.5 (2 epochs), 0.25, 0.125",
        "2. prune to 50 % by magnitude",
        "3. train epochs 5 to 6, learning rate 0.125",
        "train_items 60",
    ]
    assert "None" not in page


def test_a_cell_as_json_has_its_whole_record(finished):
    found = json.loads(finished("show", "unstructured seed 0", "--json").stdout)

    assert found["record"]["pattern"] == "unstructured" and found["record"]["valid_history"]
    assert len(found["stages"]) == 9


def test_a_page_is_laid_out_so_and_never_cut(golden):
    cost = {"shape": "pes=4 lanes=16", "cycles": 12345, "latency_us": 61.725, "speedup": 1.9876, "multipliers": 64}
    record = Record(
        cell="abc", task="toy", backend="numpy", pattern="n_m(n=2, m=4)", strategy="gradual", pattern_name="n_m",
        seed=3, task_params={"epochs": 4}, pattern_params={"n": 2, "m": 4}, scope=("softmax",), target_sparsity=0.5,
        sparsity=0.5, model_sparsity=0.476, tensor_sparsity={"output.kernel": 0.5}, metric="accuracy", unit="%",
        better="higher", digits=1, value=97.55, valid_value=98.0, total_epochs=6, retrain_epochs=2, trained_epochs=2,
        train_seconds=12.34, status="ok", device="cpu", threads=1, versions={"harness": "0.1.0", "numpy": "2.4.6"},
        facts={"cpu": "a processor"},
        hardware={
            "sim[n_m]": cost | {"fits": False, "bound_by": "memory"},
            "sim[bank]": {"reason": "bank: the banks of output.kernel differ"},
        },
    )  # fmt: skip
    known = {"stage": "0123456789abcdef", "seconds": 1.26, "value": 98.0, "state_kept": True, "log": "a.log"}
    known["not_finite"] = False
    nothing = {"seconds": None, "value": None, "reproduced": None, "state_kept": False, "log": None}
    nothing["not_finite"] = True
    found = {
        "run": "toy-1",
        "cell": "abc",
        "title": "toy · numpy · n_m(n=2, m=4)",
        "record": records.dump([record])[0],
        "stages": [
            known | {"name": "epoch 6", "state": "done", "reproduced": False},
            nothing | {"name": "test score", "state": "not run", "stage": "fedcba9876543210"},
        ],
        "code": {
            "pattern n_m": {"distribution": "harness", "version": "0.1.0", "digest": "77"},
            "task toy": {"distribution": "", "version": "", "digest": "88"},
        },
        "model": "output (inputs=20 units=3)",
        "optimiser": "sgd (momentum=0), gradients not clipped",
        "recipe": [
            "train epochs 1 to 6, learning rate 0.5 (2 epochs), 0.25, 0.125; 3 mask updates to 50 % by magnitude"
        ],
        "files": {"run": "store/runs/toy-1"},
        "also_in": ["old-1", "old-2"],
        "unknown": "no data here",
    }

    document = cell_document(found)
    golden("page_of_a_cell", rich.text(document, 120))
    for width in WIDTHS:
        check_uncut(document, width)


# --- why ------------------------------------------------------------------------------------------------------------


def test_a_finished_cell_is_cached(finished):
    found = finished("why", "unstructured seed 0")

    assert "cached: nothing would run" in found.stdout
    assert "initial weights to test score  cached" in found.stdout


def test_a_failed_cell_runs_from_where_it_broke(failed):
    found = failed("why", "unstructured seed 0").stdout

    assert "2 of 9 stages would run, from epoch 6 on" in found
    assert "it ended as failed in run toy-" in found and "RuntimeError: the toy is broken" in found


def test_another_spec_is_compared_with_what_is_there(finished):
    finished.spec("longer.yaml", epochs=3)
    found = json.loads(finished("why", "unstructured seed 1", "longer.yaml", "--json").stdout)

    assert [(line["place"], line["status"]) for line in found["stages"]][-3:] == [
        ("epoch 6", "cached"), ("epoch 7", "run"), ("test score", "run"),
    ]  # fmt: skip


def test_a_skipped_cell_has_its_reason_once(finished):
    finished.spec("skipped.yaml", pattern="{name: bank_balanced, banks: 20}")
    lines = finished("why", "bank_balanced seed 0", "skipped.yaml").stdout.splitlines()

    assert lines[1].startswith("skipped: bank_balanced(banks=20): ")
    assert " ".join(lines).count("cannot be reached") == 1


def test_a_cell_that_only_an_earlier_run_had_is_planned_from_that_run(shell):
    assert shell("run", shell.spec("early.yaml", name="early", epochs=1), "--only", "seed=0").exit_code == 0
    assert shell("run", shell.spec("late.yaml", name="late"), "--only", "seed=0").exit_code == 0

    found = json.loads(shell("why", "epochs=1", "--json").stdout)

    assert found["run"].startswith("early-")
    assert {line["status"] for line in found["stages"]} == {"cached"}
    assert "expected one cell" in shell("why", "unstructured").stderr
    assert shell("why", "unstructured", "--run", "late").exit_code == 0


@pytest.mark.parametrize("cut", [("--smoke",), ("--smoke", "--only", "seed=1"), ("--only", "seed=1")])
def test_a_run_that_was_cut_down_is_planned_as_it_was(shell, cut):
    assert shell("run", shell.spec(), *cut).exit_code == 0

    found = shell("why", "unstructured")

    assert found.exit_code == 0, found.stderr
    assert "cached: nothing would run" in found.stdout


def test_an_edited_helper_of_a_third_party_is_named_with_both_versions(shell):
    helper = "from harness.api import Frame\n\n\ndef whole_matrix():\n    return Frame()\n"
    edited = helper.replace("return Frame()", "return Frame(unit=(1, 1))")
    install_modules(shell.site, "acme", {"acme_tiles": TILES, "acme_helper": helper}, version="0.3")
    shell.process("run", shell.spec(pattern="tiles"), "--workers", "1")
    install_modules(shell.site, "acme", {"acme_tiles": TILES, "acme_helper": edited}, version="0.4")

    told = shell.process("why", "tiles seed 0")
    older = shell.process("why", "tiles seed 0", "--trust-code")

    assert "4 of 9 stages would run, from prune on: pattern tiles digest changed: acme 0.3 -> acme 0.4" in told
    assert "cached: nothing would run (4 of 9 stages were made by older code)" in older


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["logs", "show", "why"])
def test_a_name_that_fits_several_cells_ends_with_2_and_names_them(finished, command):
    found = finished(command, "unstructured")

    assert found.exit_code == 2
    assert (
        "which fits 2: " in found.stderr
        and "seed 0); " in found.stderr
        and "add a seed, or write the id of one" in found.stderr
    )


@pytest.mark.parametrize("command", ["logs", "show", "why"])
def test_a_name_that_fits_no_cell_ends_with_5(finished, command):
    found = finished(command, "block")

    assert found.exit_code == 5
    assert "'block', which fits none of 4 cells" in found.stderr


@pytest.mark.parametrize("arguments", [("status",), ("logs", "a"), ("show", "a"), ("why", "a")])
def test_an_empty_store_ends_with_5(finished, arguments):
    found = finished(*arguments, "--store", "empty")

    assert found.exit_code == 5
    assert "no run in empty" in found.stderr and not (finished.folder / "empty").exists()


@pytest.mark.parametrize(
    "arguments",
    [("status", "poster"), ("logs", "dense", "--run", "poster"), ("logs", "dense seed 0", "-f", "--json"),
     ("why", "dense seed 0", "absent.yaml"), ("why", "dense seed 0", "experiment.yaml", "--run", "toy")],
)  # fmt: skip
def test_a_mistake_ends_with_2_and_one_sentence(finished, arguments):
    found = finished(*arguments)

    assert found.exit_code == 2
    assert found.stderr.startswith("error: ") and found.stderr.count("\n") == 1


def test_a_run_without_the_copy_of_its_file_asks_for_the_file(finished, tmp_path):
    copy = shutil.copytree(finished.folder / ".harness", tmp_path / "copy")
    next(copy.glob("runs/*/spec.yaml")).unlink()

    found = finished("why", "dense seed 0", "--store", str(copy))

    assert found.exit_code == 2
    assert "expected the experiment file spec.yaml" in found.stderr
    assert finished("why", "dense seed 0", "experiment.yaml", "--store", str(copy)).exit_code == 0


def test_the_end_of_watching_is_none_of_the_runs(finished, monkeypatch):
    def interrupted(looks, console):
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "_watch_lines", interrupted)

    watched = finished("status", "--watch")

    assert watched.exit_code == 0
    assert "goes on running" in watched.stderr and "same command continues" not in watched.stderr


# --- hardware emit --------------------------------------------------------------------------------------------------


def test_a_finished_cell_becomes_a_design_with_vectors_of_its_validation_data(finished):
    done = finished(
        "hardware", "emit", "unstructured seed 1", "--engine", "bank:pes=2,lanes=2", "-o", "design", "--json"
    )

    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["bench"] is None or found["bench"]["holds"]
    told = (finished.folder / "design" / "README.md").read_text()
    assert "4 of its validation data as the evaluation at this format makes them" in told
    assert "the sums themselves, in units of their rows" in told
