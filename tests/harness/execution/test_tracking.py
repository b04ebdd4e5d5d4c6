"""Trackers: what they are told and in which order, and that none of them can fail, delay or change a run."""

import json
import threading
from typing import ClassVar

import pytest
from toy import FineTuning, experiment
from toy_site import Shell

from harness.api import RunInfo, StageInfo, Tracker
from harness.execution.progress import Progress
from harness.execution.run import run
from harness.execution.tracking import Tracking
from harness.results.records import Record


class Diary(Tracker):
    """Writes down what it is told."""

    name: ClassVar[str] = "diary"
    told: ClassVar[list] = []

    def run_started(self, run):
        self.told.append(("run_started", run))

    def stage_started(self, stage):
        self.told.append(("stage_started", stage))

    def stage_finished(self, stage):
        self.told.append(("stage_finished", stage))

    def cell_finished(self, record):
        self.told.append(("cell_finished", record))

    def run_finished(self, run, state):
        self.told.append(("run_finished", state))


class Broken(Tracker):
    """Raises at the first stage."""

    name: ClassVar[str] = "broken"
    calls: ClassVar[list] = []

    def stage_started(self, stage):
        self.calls.append(stage.key)
        raise RuntimeError("no connection")


class Notes(Progress):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A small grid with one tracker that listens and one that fails, and the same grid again."""
    store = tmp_path_factory.mktemp("store")
    grid, notes = experiment((FineTuning(),)), Notes()
    Diary.told.clear()
    Broken.calls.clear()
    first = run(grid, store=store, workers=2, progress=notes, trackers=[Diary(), Broken()])
    told = list(Diary.told)
    Diary.told.clear()
    again = run(grid, store=store, workers=1, trackers=[Diary()])
    return first, told, notes.notes, again, list(Diary.told)


def test_a_tracker_hears_of_everything_in_order(followed):
    result, told, *_ = followed
    kinds = [kind for kind, _ in told]

    assert kinds[0] == "run_started" and kinds[-1] == "run_finished" and told[-1][1] == "ended"
    assert told[0][1].run == result.run_id and told[0][1].cells == 2
    assert kinds.count("cell_finished") == len(result.records)
    started = [stage.key for kind, stage in told if kind == "stage_started"]
    finished = [stage.key for kind, stage in told if kind == "stage_finished"]
    assert sorted(started) == sorted(finished) and len(set(started)) == len(started)
    for stage in started:
        assert kinds.index("run_started") < told.index(
            next(t for t in told if t[1] is not None and getattr(t[1], "key", "") == stage)
        )


def test_stages_have_their_metrics_and_cells_their_records(followed):
    result, told, *_ = followed
    trained = [stage for kind, stage in told if kind == "stage_finished" and stage.kind == "train"]
    records = {record["cell"]: record for kind, record in told if kind == "cell_finished"}

    assert all({"valid/accuracy", "train/nats"} <= set(stage.metrics) and stage.seconds >= 0 for stage in trained)
    assert sorted(stage.epoch for stage in trained) == [1, 2, 3, 4, 5, 6]
    for record in result.records:
        assert records[record.cell]["value"] == record.value and records[record.cell]["status"] == "ok"


def test_a_tracker_that_raises_is_told_of_once_and_fails_nothing(followed):
    result, _, notes, *_ = followed

    assert [record.status for record in result.records] == ["ok", "ok"]
    assert len(Broken.calls) == 1
    [note] = [note for note in notes if "broken" in note]
    assert "hears no more of this run" in note and "RuntimeError: no connection" in note


def test_cached_cells_are_told_of_and_no_stage(followed):
    *_, again, told = followed

    assert [kind for kind, _ in told] == ["run_started", "cell_finished", "cell_finished", "run_finished"]
    assert [record.status for record in again.records] == ["cached", "cached"]


def test_a_tracker_that_never_comes_back_does_not_keep_a_run_from_its_end():
    held = threading.Event()

    class Stuck(Tracker):
        name: ClassVar[str] = "stuck"

        def run_started(self, run):
            held.wait(60)

    notes = []
    tracking = Tracking([Stuck()], notes.append, patience=0.2)
    tracking.run_started(RunInfo("r", None, 1, 1))
    tracking.records([Record(cell="a", task="t", backend="b", status="ok", value=1.0)], is_last=True)
    tracking.close("ended")
    held.set()

    assert ["stuck" in note and "has not finished after 0.2 s" in note for note in notes] == [True]
    assert set(tracking.faults) == {"stuck"}


def test_a_record_is_told_of_once_it_does_not_change_any_more():
    told = []

    class Cells(Tracker):
        name: ClassVar[str] = "cells"

        def cell_finished(self, record):
            told.append((record["cell"], record["status"]))

    def cell(name, status, **changes):
        return Record(cell=name, task="t", backend="b", status=status, **changes)

    waiting = {"fpga": {"reason": "not costed yet; the run goes on or was interrupted"}}
    tracking = Tracking([Cells()], told.append)
    now = [
        cell("a", "ok"),
        cell("b", "ok", hardware=waiting),
        cell("c", "failed"),
        cell("d", "planned"),
        cell("e", "skipped"),
    ]
    tracking.records(now, is_last=False)
    tracking.records([*now[:3], cell("d", "ok"), now[4]], is_last=True)
    tracking.close("ended")

    assert told == [("a", "ok"), ("e", "skipped"), ("b", "ok"), ("c", "failed"), ("d", "ok")]


def test_without_trackers_no_stage_is_described():
    def never():
        raise AssertionError("nobody listens")

    tracking = Tracking([], print)
    tracking.stage_started(never)
    tracking.stage_finished(never)
    tracking.close("ended")


# --- the command ----------------------------------------------------------------------------------------------------

FILE = '''
from typing import ClassVar

from harness.api import Tracker, hookimpl


class Lines(Tracker):
    """Writes a line per event."""

    name: ClassVar[str] = "lines"
    file: str = "lines.txt"
    times: int = 1

    def write(self, text):
        with open(self.file, "a") as file:
            file.write((text + "\\n") * self.times)

    def cell_finished(self, record):
        self.write(f"cell {record['status']}")

    def run_finished(self, run, state):
        self.write(f"run {state}")


@hookimpl
def register_tracker():
    return Lines
'''


@pytest.fixture
def shell(tmp_path):
    shell = Shell(tmp_path)
    (tmp_path / "lines.py").write_text(FILE)
    shell.spec()
    return shell


def test_a_tracker_in_a_file_of_ones_own_is_asked_for_by_name_with_parameters(shell):
    result = shell(
        "run", "experiment.yaml", "--store", "s", "--workers", "1", "--progress", "none", "--plugin", "lines.py",
        "--track", "lines(file=told.txt, times=2)",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert (shell.folder / "told.txt").read_text().split("\n")[:-1] == ["cell ok"] * 8 + ["run ended"] * 2


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("liens", "unknown tracker 'liens'; did you mean 'lines'?"),
        (
            "lines(times=many)",
            "--track lines(times=many): times: expected a whole number, got 'many'; `harness plugins show lines` has",
        ),
        ("lines(time=3)", "--track lines(time=3): lines has no parameter 'time'; did you mean 'times'?"),
    ],
)
def test_a_tracker_that_cannot_be_made_is_refused_before_anything_runs(shell, asked, told):
    result = shell("run", "experiment.yaml", "--store", "s", "--plugin", "lines.py", "--track", asked)

    assert result.exit_code in (2, 4)
    assert told in " ".join(result.stderr.split())
    assert not (shell.folder / "s").exists()


def test_the_five_methods_are_all_that_a_tracker_may_have_to_say():
    methods = {name for name in vars(Tracker) if name.endswith(("_started", "_finished"))}

    assert methods == {"run_started", "stage_started", "stage_finished", "cell_finished", "run_finished"}
    stage = StageInfo("k", "train", "c", "l", 1, 0)
    assert json.dumps([stage.metrics, stage.seconds]) == "[{}, null]"
