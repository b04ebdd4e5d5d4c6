"""What is said of a run that was really interrupted: what has not run yet is not called impossible, or too little."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest
from toy_site import SPEC, Shell

NEVER = (
    r"[Cc]annot run", r"can not run", r"one seed gives", r"one seed:", r"n too small", r"No verdict:", r"\bNaN\b",
    r"\bnan\b", r"None",
)  # fmt: skip


def interrupted(shell, epoch, seeds="0, 1, 2"):
    """A run that stands before an epoch of its first chain, is interrupted there, and ends by itself."""
    spec = SPEC.format(name="toy", pattern="unstructured, row_balanced", epochs=2).replace("[0, 1]", f"[{seeds}]")
    (shell.folder / "experiment.yaml").write_text(f"{spec}hardware: [cycle_simulator]\nmargin: 1.0\n")
    gate = shell.folder / "gate.open"
    process = shell.start(
        "run", "experiment.yaml", "--workers", "1", "--progress", "none", TOY_BREAKS=f"gate@{epoch}", TOY_GATE=str(gate)
    )
    until = time.monotonic() + 300
    while not gate.with_suffix(".reached").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert gate.with_suffix(".reached").exists(), process.communicate()
    process.send_signal(signal.SIGINT)  # what is under way is given up: nobody opens the gate
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    return output


def told(shell):
    """Every form in which a person reads of the run."""
    forms = [("report",), ("report", "--full"), ("report", "--format", "md"), ("status",)]
    return {" ".join(form): " ".join(shell(*form).stdout.split()) for form in forms}


@pytest.fixture(scope="module")
def before_anything(tmp_path_factory):
    """Interrupted in the first dense epoch: no cell is done."""
    shell = Shell(tmp_path_factory.mktemp("nothing"))
    return shell, interrupted(shell, epoch=0)


@pytest.fixture(scope="module")
def after_one(tmp_path_factory):
    """Interrupted in the first retraining epoch: dense models are done, and nothing that is pruned."""
    shell = Shell(tmp_path_factory.mktemp("dense"))
    return shell, interrupted(shell, epoch=4)


@pytest.mark.parametrize("run", ["before_anything", "after_one"])
def test_nothing_that_has_not_run_yet_is_called_impossible_or_too_little(run, request):
    shell, printed = request.getfixturevalue(run)

    for form, text in {**told(shell), "run": " ".join(printed.split())}.items():
        found = [words for words in NEVER if re.search(words, text)]
        assert found == [], f"{form}: {found} in {text}"


@pytest.mark.parametrize("run", ["before_anything", "after_one"])
def test_it_is_told_as_partial_and_as_what_it_waits_for(run, request):
    shell, printed = request.getfixturevalue(run)
    said = told(shell)

    assert "PARTIAL" in said["report"] and "PARTIAL" in said["report --full"] and "interrupted" in said["status"]
    assert "No verdict yet: it needs two seeds of both settings, and cells are still to run." in said["report"]
    assert "PARTIAL" in printed
    records = json.loads(shell("report", "--format", "json").stdout)
    assert {record["status"] for record in records if record["pattern"] != "dense"} == {"planned"}


def test_no_log_is_left_in_which_nothing_stands(before_anything):
    shell, _ = before_anything
    logs = list(shell.folder.glob(".harness/runs/*/logs/*.log"))

    assert all(log.stat().st_size for log in logs)


def test_the_same_command_continues_and_then_everything_is_compared(after_one):
    shell, _ = after_one

    shell.process("run", "experiment.yaml", "--workers", "1", "--progress", "none")

    text = " ".join(shell("report", "--full").stdout.split())
    assert "9 of 9 planned cells have a result" in text and "PARTIAL" not in text
    assert "No verdict yet" not in " ".join(shell("report").stdout.split())


IGNORED = """
import signal, sys, time, weakref
from harness.cli._common import _Signals

class Thing:
    pass

thing = Thing()
# What Python calls here may raise what it likes: it is printed and forgotten.
kept = weakref.ref(thing, lambda _: signal.raise_signal(signal.{name}))
with _Signals() as signals:
    try:
        del thing
        time.sleep(120)
    except KeyboardInterrupt:
        print("interrupted", signals.exit_code)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupt_that_python_ignores_is_not_lost(name, code):
    """A Ctrl-C that came while a thread that had ended was cleared away was a traceback, and interrupted nothing."""
    script = IGNORED.format(name=name)

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)

    assert (done.stdout, done.stderr) == (f"interrupted {code}\n", "")
