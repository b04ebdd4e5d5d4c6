"""How a run stands: what it says of itself, and whether it is still there to say so."""

import json
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.inspection.run_status import counted, status
from harness.results import records
from harness.results.records import Record
from harness.store.claims import SILENCE_S
from harness.store.status_file import StatusFile
from harness.store.timeline import Attempt, TimelineFile

SAID = {
    "state": "running", "cells": {"ok": 2, "running": 1, "planned": 4}, "epochs": 9, "epochs_done": 3, "left_s": 30.0,
    "left_basis": 3, "running": [{"stage": "abc", "cell": "c", "label": "numpy · dense · epoch 4", "since": 1.0}],
}  # fmt: skip


def folder_of(path, *rows, **said):
    """The folder of a run with records, and what it says of itself; None leaves its word out."""
    records.write(path / "toy-1" / "records.json", rows)
    if said:
        StatusFile(path / "toy-1", {"workers": 2}).write(SAID | said)
    return path / "toy-1"


def told(folder, **values):
    """Change what a run has said, with the time of its last sign of life as it was."""
    file = folder / "status.json"
    times = file.stat()
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def heard(folder, seconds_ago):
    now = time.time()
    os.utime(folder / "status.json", (now - seconds_ago, now - seconds_ago))


def test_a_running_run_tells_its_cells_stages_and_time_left(tmp_path):
    found = status(folder_of(tmp_path, state="running"))

    assert (found.run, found.state, found.pid, found.workers) == ("toy-1", "running", os.getpid(), 2)
    assert (found.cells, found.epochs_done, found.epochs, found.left_s) == (SAID["cells"], 3, 9, 30.0)
    assert [stage.label for stage in found.running] == ["numpy · dense · epoch 4"]
    assert found.silent_s < 5


@pytest.mark.parametrize(
    ("said", "state"), [("ended", "finished"), ("stopped", "stopped"), ("interrupted", "interrupted")]
)
def test_a_run_that_ended_stays_so_however_old(tmp_path, said, state):
    folder = folder_of(tmp_path, state=said)
    told(folder, pid=0)
    heard(folder, 1e6)

    assert status(folder).state == state


def test_a_run_whose_process_is_gone_has_died_and_nobody_is_at_its_cells(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder = folder_of(tmp_path, state="running")
    told(folder, pid=gone.pid)

    found = status(folder)

    assert (found.state, found.left_s) == ("died", None)
    assert found.cells == {"ok": 2, "planned": 5}
    assert found.running[0].stage == "abc"


def test_a_process_that_nobody_has_reaped_is_gone_too(tmp_path):
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    folder = folder_of(tmp_path, state="running")
    told(folder, pid=zombie.pid)
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)

    found = status(folder)
    zombie.wait()

    assert found.state == "died"


def test_a_later_process_of_the_same_number_is_another_one(tmp_path):
    folder = folder_of(tmp_path, state="running")
    told(folder, started=time.time() - 1e6)  # this process is younger
    heard(folder, SILENCE_S + 5)

    assert status(folder).state == "died"


def test_a_run_that_is_only_stopped_is_still_there(tmp_path):
    folder = folder_of(tmp_path, state="running")
    heard(folder, SILENCE_S + 5)

    found = status(folder)

    assert found.state == "running"
    assert found.silent_s == pytest.approx(SILENCE_S + 5, abs=2)


@given(silent=st.floats(0, 10 * SILENCE_S))
def test_a_run_on_another_machine_lives_while_it_is_heard(tmp_path_factory, silent):
    folder = folder_of(tmp_path_factory.mktemp("run"), state="running")
    told(folder, host="somewhere-else", pid=os.getpid())

    found = status(folder, now=(folder / "status.json").stat().st_mtime + silent)

    assert found.state == ("running" if found.silent_s <= SILENCE_S else "died")
    assert found.silent_s == pytest.approx(silent, abs=0.06)


def test_another_machine_is_asked_by_the_clock_of_the_file_system(tmp_path):
    folder = folder_of(tmp_path, state="running")
    told(folder, host="somewhere-else")

    assert status(folder).state == "running"


def test_a_copied_folder_of_records_alone_says_what_is_known(tmp_path):
    done = Record(cell="a", task="toy", backend="numpy", status="ok")
    open_ = Record(cell="b", task="toy", backend="numpy")

    over = status(folder_of(tmp_path / "over", done))
    partial = status(folder_of(tmp_path / "partial", done, open_))

    assert (over.state, over.cells, over.host) == ("finished", {"ok": 1}, "")
    assert (partial.state, partial.cells) == ("unknown", {"ok": 1, "planned": 1})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"state": "asleep"}', '{"state": []}', '{"state": "running", "cells": 3}', "[" * 9999]
)
def test_a_status_that_cannot_be_read_leaves_the_records(tmp_path, text):
    folder = folder_of(tmp_path, Record(cell="a", task="toy", backend="numpy"))
    (folder / "status.json").write_text(text)

    assert status(folder).cells == {"planned": 1}


def test_a_newer_harness_may_say_more(tmp_path):
    folder = folder_of(tmp_path, state="running")
    told(folder, temperature=21)

    assert status(folder).state == "running"


def test_the_last_error_is_the_one_whose_log_is_youngest(tmp_path):
    rows = [
        Record(
            cell=cell, task="toy", backend="numpy", status=state, reason=f"{cell} broke", facts={"failed_stage": cell}
        )
        for cell, state in (("first", "oom"), ("second", "crashed"), ("third", "blocked"))
    ]
    folder = folder_of(tmp_path, *rows, state="running", cells={"oom": 1, "crashed": 1, "blocked": 1})
    (folder / "logs").mkdir()
    for age, cell in enumerate(("third", "first", "second")):
        (folder / "logs" / f"{cell}.log").write_text("")
        os.utime(folder / "logs" / f"{cell}.log", (1e9 - age, 1e9 - age))

    assert status(folder).last_error == "oom: toy · numpy · dense · seed 0 (cell first): first broke"


def test_a_look_changes_nothing(tmp_path):
    folder = folder_of(tmp_path, state="running")
    told(folder, host="somewhere-else")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}

    status(folder)

    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before


def test_what_stages_took_is_the_sum_over_all_attempts(tmp_path):
    """A stage of a killed session took time, too; what was never begun took none."""
    folder = folder_of(tmp_path)
    file = TimelineFile(folder)
    for handed, begun, ended, spent in ((1.0, 2.0, 5.5, 3.0), (6.0, 6.0, 8.0, 1.5), (9.0, 9.5, 10.0, None)):
        file.add(Attempt(stage="a", given=handed, begun=begun, ended=ended, processor_seconds=spent))
    file.add(Attempt(stage="b", given=9.0, ended=10.0, status="interrupted"))
    file.close()

    found = counted(status(folder), folder)

    assert (found.attempts, found.stage_seconds, found.processor_seconds, found.measured) == (4, 6.0, 4.5, 2)


def test_a_run_without_a_timeline_tells_of_none(tmp_path):
    folder = folder_of(tmp_path)

    assert counted(status(folder), folder).attempts is None
