"""What the system tells of cores and memory, and who dies with whom."""

import os
import subprocess
import sys
import time

import pytest

from harness.execution.machine import cores, oom_kills


@pytest.mark.parametrize(
    ("name", "content", "most"),
    [("cpu.max", "100000 100000\n", 1), ("cpu.max", "50000 100000\n", 1), ("cpu.max", "max 100000\n", 10_000)],
)
def test_the_quota_of_a_container_limits_the_cores(tmp_path, name, content, most):
    (tmp_path / name).write_text(content)

    assert cores(tmp_path) == min(most, cores(tmp_path / "none"))


def test_the_older_control_groups_are_read_too(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")

    assert cores(tmp_path) == 1


def test_affinity_limits_the_cores():
    allowed = sorted(os.sched_getaffinity(0))
    program = "from harness.execution.machine import cores; print(cores())"
    os.sched_setaffinity(0, allowed[:1])
    try:
        output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    finally:
        os.sched_setaffinity(0, allowed)

    assert output == "1\n"


def test_kills_for_memory_are_counted_where_the_container_says_so(tmp_path):
    kernel = tmp_path / "vmstat"
    kernel.write_text("nr_free_pages 5\noom_kill 7\n")
    before = oom_kills(tmp_path, kernel)
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")

    assert (before, oom_kills(tmp_path, kernel)) == (7, 2)
    assert oom_kills(tmp_path / "none", tmp_path / "nothing") == 0


PARENT = """
import os, subprocess, sys
child = "import os, time; from harness.execution.machine import die_with; die_with(os.getppid(), is_bound={}); "
child += "print(os.getpid(), flush=True); time.sleep(600)"
process = subprocess.Popen([sys.executable, "-c", child.format(sys.argv[1] == "bound")])
process.wait()
"""


@pytest.mark.parametrize("how", ["bound", "watching"])
def test_a_worker_dies_with_its_parent_however_that_ends(how):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, how], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()  # the child holds the pipe: it is closed when that has died, too
    until = time.monotonic() + 300
    while _runs(child) and time.monotonic() < until:
        time.sleep(0.05)

    assert not _runs(child)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
