"""What the operating system tells: cores that may be used, processes killed for memory, a parent that has died."""

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_FIRST_VICTIM = "500"  # of -1000 to 1000: the kernel frees memory by ending a worker, not the run


def cores(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use: its affinity, and the quota of its container.

    Args:
        cgroup: where the control groups are mounted; version 2 and version 1 are read.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    # A quota of less than a core still needs one worker.
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def _quota(cgroup: Path) -> float | None:
    with suppress(OSError, ValueError):
        limit, period = (cgroup / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    with suppress(OSError, ValueError):
        micros = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
        # cgroup v1: no limit is -1.
        return None if micros <= 0 else micros / int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
    return None


def oom_kills(cgroup: Path = _CGROUP, kernel: Path = Path("/proc/vmstat")) -> int:
    """Processes that the kernel has killed for memory so far, in this container or else on this machine.

    Args:
        cgroup: where the control groups are mounted.
        kernel: the kernel's own counters.
    """
    # The container's counter first: the kernel's counts what other containers lost, too.
    for path in (cgroup / "memory.events", cgroup / "memory" / "memory.oom_control", kernel):
        with suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0


def die_with(parent: int, *, is_bound: bool) -> None:
    """Let this process end when its parent does, however that ends, and before its parent where memory is short.

    Args:
        parent: the parent's process number.
        is_bound: whether the kernel may end this process with the thread that started it, which is at once.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_VICTIM)
    if is_bound and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The kernel's promise is missing elsewhere, and came too late if the parent died before it was made.
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
