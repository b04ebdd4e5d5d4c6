"""stdout carries the product alone, and what becomes of one that cannot be written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli._common import explained

LOUD = 'import os\nprint("a banner")\nos.system("echo from a program")\n'


@pytest.fixture
def loud(tmp_path):
    """An installed package of plugins that prints when it is imported."""
    (tmp_path / "loud_pkg").mkdir()
    (tmp_path / "loud_pkg" / "__init__.py").write_text("")
    (tmp_path / "loud_pkg" / "shout.py").write_text(LOUD)
    info = tmp_path / "loud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[harness.plugins]\nb = loud_pkg\n")
    return tmp_path


def harness(*arguments, stdout=subprocess.PIPE, site="", **variables):
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        env=os.environ | {"PYTHONPATH": str(site)} | variables,
        stdout=stdout, stderr=subprocess.PIPE, timeout=600, check=False,
    )  # fmt: skip


def test_what_a_plugin_prints_goes_to_stderr(loud):
    done = harness("plugins", "list", "--json", site=loud)

    assert json.loads(done.stdout)
    assert b"a banner" in done.stderr and b"from a program" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
def test_a_full_disk_behind_stdout_is_no_bug():
    with open("/dev/full", "wb") as full:
        done = harness("plugins", "list", stdout=full)

    assert done.returncode == 7
    assert done.stderr.decode() == (
        "error: stdout cannot be written: No space left on device; make room and run it again\n"
    )


@pytest.fixture
def unread():
    """The end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize("arguments", [["--help"], ["plugins", "list"], ["plugins", "list", "--json"]])
def test_a_reader_that_has_gone_is_no_failed_cell_and_no_bug(unread, arguments):
    done = harness(*arguments, stdout=unread)

    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1:strict"])
def test_a_file_name_that_is_no_utf8_is_printed_with_escapes(tmp_path, encoding):
    path = os.fsencode(tmp_path) + b"/caf\xe9.yaml"
    done = harness("init", path, PYTHONIOENCODING=encoding, LC_ALL="C")

    assert done.returncode == 0, done.stderr
    assert "caf\\udce9.yaml" in done.stdout.decode("utf-8")


def test_want_of_memory_is_a_sentence_and_no_bug(capsys):
    assert explained(MemoryError("Unable to allocate 4.00 GiB for an array")) == 2

    told = capsys.readouterr().err
    assert "too little memory: Unable to allocate 4.00 GiB" in told and "Traceback" not in told and "bug" not in told


SUPPORT = Path(__file__).parents[2] / "support"

SPEC = """
name: toy
task: {name: toy, epochs: 1}
scope: [softmax]
tolerance: 0.05
matrix:
  backend: [numpy]
  pattern: [unstructured]
  strategy: [{name: fine_tuning, epochs: 1}]
  sparsity: [0.5]
"""


@pytest.mark.skipif(os.name != "posix", reason="a shell closes them")
def test_a_run_whose_streams_are_all_closed_gets_its_results(tmp_path):
    (tmp_path / "experiment.yaml").write_text(SPEC)
    command = [sys.executable, "-m", "harness", "run", "experiment.yaml", "--store", "store", "--workers", "1"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command, "--plugin", str(SUPPORT / "hostile_plugins.py")],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(SUPPORT)}, timeout=600, check=False,
    )  # fmt: skip

    # Without them the worker's pipes would have their numbers, and what is printed would go into the pipes.
    (records,) = (tmp_path / "store" / "runs").glob("*/records.json")
    assert [each["status"] for each in json.loads(records.read_text())["records"]] == ["ok", "ok"]
    assert done.returncode == 0


def test_a_run_whose_progress_nobody_reads_any_more_goes_on(tmp_path, unread):
    (tmp_path / "experiment.yaml").write_text(SPEC)
    done = subprocess.run(
        [sys.executable, "-m", "harness", "run", "experiment.yaml", "--store", "store", "--workers", "1",
         "--plugin", str(SUPPORT / "hostile_plugins.py")],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(SUPPORT)}, stdout=subprocess.PIPE, stderr=unread, timeout=600,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0
    assert done.stdout.decode().startswith("toy: 2 of 2 cells")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the folder of a process cannot be removed")
def test_a_command_in_a_folder_that_is_gone_says_so(tmp_path):
    (tmp_path / "experiment.yaml").write_text(SPEC)
    (tmp_path / "gone").mkdir()
    command = [sys.executable, "-m", "harness", "validate", str(tmp_path / "experiment.yaml")]
    done = subprocess.run(
        ["sh", "-c", 'cd gone && rmdir ../gone && exec "$@"', "sh", *command, "--plugin",
         str(SUPPORT / "hostile_plugins.py")],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(SUPPORT)}, capture_output=True, timeout=600, check=False,
    )  # fmt: skip

    told = b"error: the folder in which this command stands is gone; change to another one\n"
    assert (done.returncode, done.stderr) == (2, told)
