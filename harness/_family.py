"""A process and all that it started, orphans included: found, and ended; Linux tells of them.

A plugin may start processes, which may start others and end before them. Linux hands such orphans to the nearest
ancestor that asked for them, so that nothing gets away from the one that keeps a worker or a command.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

_LOOK_S = 0.02
"""How often it is looked whether they have ended."""

_UNKILLABLE_S = 5.0
"""How long killed processes are waited for: one in a system call that never returns cannot be helped."""


def can_keep() -> bool:
    """Whether this system can keep a process: fork it, and wait for its end and for signals at once."""
    return hasattr(os, "fork") and hasattr(signal, "sigtimedwait")


def adopt() -> None:
    """Let orphans among this process's descendants become its children, where the system can."""
    if sys.platform == "linux":
        # Otherwise orphans go to process 1, and nobody here could wait for them.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def signal_at_death(number: signal.Signals) -> None:
    """Let the kernel send this process a signal when the thread that started it ends, where the system can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def reap() -> dict[int, int]:
    """The exit codes of children that have ended, by process number; negative is the signal that ended one."""
    found: dict[int, int] = {}
    # No child at all is an error to the system: there is nothing to reap then.
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            found[pid] = os.waitstatus_to_exitcode(status)
    return found


def descendants() -> list[int]:
    """The processes below this one, as far as the system tells; those that have ended and wait for their parent too."""
    children: dict[int, list[int]] = {}
    try:
        names = [name for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return []
    for name in names:
        with suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
            # The name of the program may hold anything: fields are counted from its end.
            text = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2]
            children.setdefault(int(text.split()[1]), []).append(int(name))
    found, new = [], [os.getpid()]
    while new:
        # Level by level from this process: a grandchild whose parent has ended belongs to whoever adopted it.
        new = [child for pid in new for child in children.get(pid, ())]
        found += new
    return found


def is_stopped(pid: int) -> bool:
    """Whether a process stands still, by Ctrl-Z or SIGSTOP, as far as the system tells."""
    return _state(pid) == "T"


def stop() -> set[int]:
    """Let every process below this one stand still; those that did so only now, to be continued later."""
    stopped: set[int] = set()
    # Again until nothing new is found: one that is not stopped yet may start another.
    while running := [pid for pid in descendants() if pid not in stopped and _state(pid) not in "TtZX"]:
        for pid in running:
            with suppress(OSError):
                os.kill(pid, signal.SIGSTOP)
        stopped.update(running)
    return stopped


def go_on(stopped: set[int]) -> None:
    """Let processes go on that `stop` made stand still and that are still below this one."""
    for pid in stopped.intersection(descendants()):
        with suppress(OSError):
            os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> str:
    """A process's state in a letter, as Linux has it; X if it is not there, or the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "X"


def end(grace_s: float, is_urgent: Callable[[], bool] = lambda: False) -> dict[int, int]:
    """End every process below this one: ask, and kill what is still there after a while.

    Args:
        grace_s: seconds between asking and killing; 0 asks nobody.
        is_urgent: whether the rest of that time is to be skipped.

    Returns:
        Exit codes of this process's own children, as `reap` has them.
    """
    codes, asked = reap(), set[int]()
    until = time.monotonic() + grace_s
    while left := descendants():
        is_late = grace_s <= 0 or is_urgent() or time.monotonic() >= until
        for pid in left:
            with suppress(OSError):
                if is_late:
                    # SIGKILL again at every look: new processes may have been started meanwhile.
                    os.kill(pid, signal.SIGKILL)
                elif pid not in asked:
                    os.kill(pid, signal.SIGTERM)
        asked.update(left)
        codes |= reap()
        if time.monotonic() >= until + _UNKILLABLE_S:
            break
        time.sleep(_LOOK_S)
    return codes
