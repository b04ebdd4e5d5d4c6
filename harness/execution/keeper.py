"""The process between the run and a worker: when the worker or the run ends, however it does, nothing of it stays.

A plugin may loop where no signal is heard, may ignore signals, may start processes that hold the worker's pipes or
outlive it. The keeper is a session of its own and does nothing but wait, so that it always hears; it ends everything
below it and then ends as the worker did, with its exit code or by its signal.
"""

import os
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection

from harness import _family

AT_ONCE = signal.SIGUSR1
"""What ends a worker without asking it; SIGTERM asks first."""

GRACE_S = 2.0
"""Seconds that a worker has to end by itself after SIGTERM."""

LOOK_S = 1.0
"""How often it is looked whether the run is still there, which the kernel tells at once where it can; and whether it
stands still, which nobody tells."""


def main(jobs: Connection, report: Connection, parent: int, is_bound: bool) -> None:
    """Start a worker and stay until it ends.

    Args:
        jobs: where the worker's jobs come from.
        report: where its answers go.
        parent: the run's process number.
        is_bound: whether the kernel is to end this process with the thread that started it.
    """
    # Where nothing is kept the worker watches its parent itself.
    if not _family.can_keep():
        _serve(jobs, report, parent, is_bound=is_bound)
        return
    # A Ctrl-C of the terminal is for the run, which decides what becomes of its workers.
    with suppress(OSError):
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blocked and waited for, so that none is lost between two looks.
    awaited = {signal.SIGCHLD, signal.SIGTERM, AT_ONCE}
    signal.pthread_sigmask(signal.SIG_SETMASK, awaited)
    _family.adopt()
    keeper = os.getpid()
    worker = os.fork()  # nothing but Python is loaded, so there is no thread that could be lost
    if worker == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _serve(jobs, report, keeper, is_bound=True)
        return
    jobs.close()
    report.close()
    if is_bound:
        _family.signal_at_death(AT_ONCE)
    code = _keep(worker, parent, awaited)
    # The parent sees how the worker ended, and not that its keeper did well.
    if code < 0:
        _die_of(-code)
    os._exit(code)


def _serve(jobs: Connection, report: Connection, parent: int, *, is_bound: bool) -> None:
    from harness.execution import worker  # not before the fork: libraries start threads

    worker.main(jobs, report, parent, is_bound)


def _keep(worker: int, parent: int, awaited: set[signal.Signals]) -> int:
    """Wait for the end of a worker, or for being told to end it; its exit code, when nothing is left."""
    codes: dict[int, int] = {}
    grace = 0.0
    stopped: set[int] = set()
    while worker not in codes:
        heard = signal.sigtimedwait(awaited, LOOK_S)
        codes |= _family.reap()
        # A terminal stops the run alone: the worker is of another session, and would go on computing.
        if _family.is_stopped(parent):
            stopped |= _family.stop()
        elif stopped:
            _family.go_on(stopped)
            stopped = set()
        if os.getppid() != parent or (heard is not None and heard.si_signo == AT_ONCE):
            break
        if heard is not None and heard.si_signo == signal.SIGTERM:
            grace = GRACE_S
            break
    codes |= _family.end(grace, lambda: AT_ONCE in signal.sigpending())
    return codes.get(worker, 1)


def _die_of(number: int) -> None:
    """End by a signal, without the memory dump that would be this process's and not the worker's."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):  # SIGKILL has no handler
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    time.sleep(LOOK_S)  # not reached but for signals that end nothing
