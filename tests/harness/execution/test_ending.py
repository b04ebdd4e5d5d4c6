"""Every run can be ended, and nothing that a plugin started stays behind, whatever its code does meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SUPPORT = Path(__file__).parents[2] / "support"

SPEC = """
name: hostile
task: {task}
scope: [softmax]
tolerance: 0.05
matrix:
  backend: [numpy]
  pattern: [{pattern}]
  strategy: [{{name: fine_tuning, epochs: 1}}]
  sparsity: [0.5]
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are told by Linux alone")


class Command:
    """A command whose plugin misbehaves.

    Args:
        folder: where it runs.
        how, where: see `hostile_plugins`.
    """

    def __init__(self, folder, how, where, *arguments):
        self._folder = folder
        environment = os.environ | {"PYTHONPATH": str(SUPPORT), "HOSTILE": how, "HOSTILE_AT": where}
        # A shell that starts jobs in the background makes them ignore SIGINT; a user's does not.
        start = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        start += "runpy.run_module('harness', run_name='__main__', alter_sys=True)"
        self.process = subprocess.Popen(
            [sys.executable, "-c", start, *arguments, "--plugin", str(SUPPORT / "hostile_plugins.py")],
            cwd=folder, env=environment | {"HOSTILE_IN": str(folder)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def wait_for(self, name):
        """Wait until a process of the plugin is there; its number."""
        path, until = self._folder / name, time.monotonic() + 300
        while not path.exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until, f"{name} never happened"
            time.sleep(0.02)
        return int(path.read_text())

    def end(self, number=None):
        """Send it a signal; its exit code and what it printed on stderr, once nobody holds its pipes any more."""
        if number is not None:
            self.process.send_signal(number)
        try:
            _, errors = self.process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, errors


@pytest.fixture
def begun(tmp_path):
    """Begin a command and wait until its plugin hangs."""
    commands = []

    def begin(how, where, command, *options):
        np.savez(tmp_path / "masks.npz", a=np.eye(8, dtype=bool))
        spec = SPEC.format(task="hostile" if where == "load" else "toy", pattern="hostile")
        (tmp_path / "experiment.yaml").write_text(spec)
        made = Command(tmp_path, how, where, *command, *options)
        commands.append(made)
        return made

    yield begin
    for made in commands:
        made.process.kill()


RUN = ("run", "experiment.yaml", "--store", "store", "--progress", "none")


def stat_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ["X", "0"]


def state_of(pid):
    return stat_of(pid)[0]


def parent_of(pid):
    return int(stat_of(pid)[1])


def is_there(pid):
    return state_of(pid) not in "ZX"


def wait_until(fact, *pids):
    until = time.monotonic() + 300
    while not all(map(fact, pids)):
        assert time.monotonic() < until, [f"{pid}: {stat_of(pid)[:2]}" for pid in pids]
        time.sleep(0.05)


def wait_until_gone(*pids):
    wait_until(lambda pid: not is_there(pid), *pids)


@pytest.mark.parametrize(
    ("how", "number", "code"),
    [
        ("deaf swallows", signal.SIGTERM, 143),
        ("deaf locked child daemon", signal.SIGINT, 130),
    ],
)
def test_a_run_ends_however_its_worker_loops(begun, tmp_path, how, number, code):
    command = begun(how, "mask", RUN)
    worker = command.wait_for("hangs")

    ended, errors = command.end(number)

    assert (ended, errors.strip().count("\n")) == (code, 0), errors
    assert "the same command continues" in errors
    wait_until_gone(worker, *([command.wait_for("child")] if "child" in how else []))
    (said,) = (tmp_path / "store" / "runs").glob("*/status.json")
    assert json.loads(said.read_text())["state"] == "interrupted"


@pytest.mark.parametrize("how", ["deaf child", "deaf locked child daemon"])
def test_nothing_survives_a_run_that_is_killed(begun, how):
    command = begun(how, "mask", RUN)
    worker, child = command.wait_for("hangs"), command.wait_for("child")

    assert command.end(signal.SIGKILL)[0] == -signal.SIGKILL
    wait_until_gone(worker, child)


def test_a_worker_that_crashes_while_its_child_holds_the_pipe_is_a_crash(begun, tmp_path):
    command = begun("segfault child daemon", "mask", RUN)

    code, errors = command.end()

    assert code == 1
    wait_until_gone(command.wait_for("hangs"), command.wait_for("child"))
    (records,) = (tmp_path / "store" / "runs").glob("*/records.json")
    assert "crashed with signal 11" in records.read_text(), errors


def test_a_stage_that_took_too_long_takes_its_children_with_it(begun, tmp_path):
    command = begun("deaf child", "mask", RUN, "--stage-timeout", "1")

    assert command.end()[0] == 1
    wait_until_gone(command.wait_for("hangs"), command.wait_for("child"))
    (records,) = (tmp_path / "store" / "runs").glob("*/records.json")
    assert '"status":"timeout"' in records.read_text()


@pytest.mark.parametrize(
    ("how", "where", "command"),
    [
        ("", "load", ("validate", "experiment.yaml")),
        ("locked child", "load", ("plan", "experiment.yaml", "--store", "store")),
        ("swallows", "cost", ("hardware", "cost", "masks.npz", "--model", "hostile")),
    ],
)
def test_a_command_ends_however_the_plugin_loops_that_it_calls(begun, how, where, command):
    made = begun(how, where, command)
    made.wait_for("hangs")

    code, errors = made.end(signal.SIGINT)

    assert code == 130
    assert errors.startswith("interrupted; ") and errors.count("\n") == 1
    wait_until_gone(*([made.wait_for("child")] if "child" in how else []))


def test_interrupts_that_come_again_and_again_end_a_command_at_once(begun):
    made = begun("locked", "load", ("validate", "experiment.yaml"))
    made.wait_for("hangs")
    until = time.monotonic() + 300
    while made.process.poll() is None and time.monotonic() < until:
        made.process.send_signal(signal.SIGINT)
        time.sleep(0.7)

    assert made.end()[0] == 130


def test_a_plugin_that_crashes_the_command_itself_is_told_in_a_sentence(begun):
    code, errors = begun("segfault", "load", ("validate", "experiment.yaml")).end()

    assert code == 128 + signal.SIGSEGV
    assert errors.splitlines()[-1].startswith("error: the command was ended by signal 11")


PRINTS = """
import os, sys
from pathlib import Path
from harness.execution import stage_log
stage_log.LOG_BYTES = 1000
log = Path(sys.argv[1])
with stage_log.logged(log):
    while b"is not kept" not in log.read_bytes():
        os.write(1, b"x" * 100)
    # The note is written before the rest goes nowhere: what is printed until then may follow it.
    while os.path.samestat(os.fstat(1), log.stat()):
        pass
    size = log.stat().st_size
    os.write(1, b"more")
    assert log.stat().st_size == size
print("and this is printed")
"""


def test_a_log_ends_where_a_plugin_prints_without_end(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PRINTS, str(tmp_path / "stage.log")], capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip

    assert done.stdout == "and this is printed\n", done.stderr


SHELL = """
import os, runpy, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # to give the terminal away is a shell's right
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    runpy.run_module("harness", run_name="__main__", alter_sys=True)
    os._exit(99)
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        os._exit(os.waitstatus_to_exitcode(status))
    os.tcsetpgrp(0, os.getpgrp())
    os.mkdir("stopped")
    sys.stdin.readline()  # `fg`
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
"""


def test_ctrl_z_stops_a_run_with_its_workers_and_fg_continues_them(tmp_path):
    import pty

    (tmp_path / "experiment.yaml").write_text(SPEC.format(task="toy", pattern="hostile"))
    terminal, theirs = pty.openpty()
    environment = {"PYTHONPATH": str(SUPPORT), "HOSTILE": "deaf child daemon", "HOSTILE_AT": "mask"}
    shell = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n{SHELL}", *RUN,
         "--plugin", str(SUPPORT / "hostile_plugins.py")],
        cwd=tmp_path, env=os.environ | environment | {"HOSTILE_IN": str(tmp_path)}, start_new_session=True, text=True,
        stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    try:
        made = Command.__new__(Command)
        made.process, made._folder = shell, tmp_path
        started = made.wait_for("hangs"), made.wait_for("child")
        for _ in range(2):
            os.write(terminal, b"\x1a")
            wait_until(lambda pid: state_of(pid) == "T", *started)
            wait_until(Path.is_dir, tmp_path / "stopped")
            (tmp_path / "stopped").rmdir()
            os.write(terminal, b"fg\n")
            wait_until(lambda pid: state_of(pid) in "RSD", *started)
        os.write(terminal, b"\x03")

        assert shell.wait(300) == 130
        wait_until_gone(*started)
    finally:
        os.close(terminal)  # hangs up whatever is left
        shell.kill()


def test_a_run_that_is_stopped_as_a_process_alone_stops_its_workers_too(begun):
    command = begun("deaf child", "mask", RUN)
    started = command.wait_for("hangs"), command.wait_for("child")
    (run,) = (
        pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if parent_of(pid) == command.process.pid
    )

    os.kill(run, signal.SIGSTOP)
    wait_until(lambda pid: state_of(pid) == "T", *started)
    os.kill(run, signal.SIGCONT)

    wait_until(lambda pid: state_of(pid) in "RSD", *started)
    assert command.end(signal.SIGTERM)[0] == 143
    wait_until_gone(*started)
