"""The checks of trackers: each finds the fault that is planted for it, and a tracker that does its work passes."""

import threading
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import PrivateAttr
from typer.testing import CliRunner

from harness.api import PluginContractError, PluginUnavailableError, Tracker
from harness.cli import app
from harness.testing import TrackerChecks, check_tracker

RELEASE = threading.Event()


class Diary(Tracker):
    """Writes down what it hears, for the others to spoil."""

    name: ClassVar[str] = "diary"
    heard: ClassVar[list[list[str]]] = []
    _lines: list[str] = PrivateAttr(default_factory=list)

    def run_started(self, run):
        self._lines.append(f"started {run.cells}")

    def stage_finished(self, stage):
        self._lines.append(f"{stage.kind} {stage.failure or dict(stage.metrics)}")

    def cell_finished(self, record):
        self._lines.append(f"{record['status']} {record['value']}")

    def run_finished(self, run, state):
        self._lines.append(state)
        (run.folder / "diary.txt").write_text("\n".join(self._lines))
        Path("diary.txt").write_text("where the process stands")
        self.heard.append(self._lines)


class Deaf(Tracker):
    """Overrides nothing."""

    name: ClassVar[str] = "deaf"


class Mumbling(Diary):
    """Says nothing of why it cannot be used."""

    def why_unavailable(self):
        return ""


class Absent(Diary):
    """Needs what is not here."""

    def why_unavailable(self):
        return "it needs a server"


class Trusting(Diary):
    """Takes every stage for one with a loss."""

    def stage_finished(self, stage):
        self._lines.append(str(stage.metrics["train/loss"]))


class Leaving(Diary):
    """Gives up in its own way."""

    def cell_finished(self, record):
        raise SystemExit(3)


class Answering(Diary):
    """Answers as if somebody listened."""

    def run_finished(self, run, state):
        return True


class Tidying(Diary):
    """Takes out of a record what it does not need."""

    def cell_finished(self, record):
        record.pop("facts")


class Lingering(Diary):
    """Leaves a thread behind that ends only when it is told to."""

    def run_started(self, run):
        threading.Thread(target=RELEASE.wait, name="lingering").start()


@pytest.mark.parametrize(
    ("tracker", "sentence"),
    [
        (Deaf(), "at least one of run_started, .* it hears of nothing"),
        (Mumbling(), "a sentence or None, got ''"),
        (Trusting(), "stage_finished of a run that ended: the contract expects no exception, .* got KeyError"),
        (Leaving(), "cell_finished of a run that ended: the contract expects no exception, .* got SystemExit"),
        (Answering(), "run_finished of a run that ended: the contract expects no answer, got True"),
        (Tidying(), "what it was told to be left as it was"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_spoilt_tracker_is_found_out(tracker, sentence):
    with pytest.raises(PluginContractError, match=sentence):
        check_tracker(tracker)


def test_a_thread_that_would_keep_the_process_alive_is_found_out(monkeypatch):
    # It never ends by itself, so that waiting for it longer would change nothing.
    monkeypatch.setattr("harness._tracker_checks._ENDS_WITHIN_S", 0.01)
    try:
        with pytest.raises(PluginContractError, match="to end with the run, or to be a daemon, got lingering"):
            check_tracker(Lingering())
    finally:
        RELEASE.set()


def test_a_tracker_hears_of_every_kind_of_run_stage_and_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Diary.heard.clear()

    check_tracker(Diary())

    assert [lines[-1] for lines in Diary.heard] == ["ended", "interrupted", "stopped"]
    whole = Diary.heard[0]
    assert whole[:2] == ["started 4", "cached 39.5"]
    assert {line.split()[0] for line in whole} >= {"train", "prune", "test", "ok", "diverged", "skipped"}
    assert "train the loss became nan at step 7" in whole
    assert list(tmp_path.iterdir()) == []  # what it writes goes with the runs that it is told of


def test_one_that_cannot_be_used_here_was_not_checked():
    with pytest.raises(PluginUnavailableError, match="diary: it needs a server"):
        check_tracker(Absent())


def test_plugins_check_holds_a_tracker_to_its_contract(tmp_path):
    text = """
from typing import ClassVar
from harness.api import Tracker, hookimpl

class Bell(Tracker):
    \"\"\"Rings at every cell.\"\"\"

    name: ClassVar[str] = "bell"

    def cell_finished(self, record):
        return {answer}

@hookimpl
def register_tracker():
    return Bell
"""
    good, bad = tmp_path / "good_bell.py", tmp_path / "bad_bell.py"
    good.write_text(text.format(answer="None"))
    bad.write_text(text.format(answer="record['value'] * 2"))

    passed, failed = (CliRunner().invoke(app, ["plugins", "check", str(file)]) for file in (good, bad))

    assert passed.exit_code == 0, passed.output
    assert "ok  tracker bell, tracker" in passed.output
    assert failed.exit_code == 6
    assert "failed  tracker bell, tracker" in failed.output and "expects no answer, got 79.0" in failed.output


class TestDiary(TrackerChecks):
    """As an author would inherit it."""

    plugin = Diary()
