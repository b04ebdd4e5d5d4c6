"""The process above a command: it hears Ctrl-C and SIGTERM also while a plugin's code lets Python hear nothing.

The command runs in a child, which is asked first: it ends its workers and writes what it has. One that does not take
the interrupt, because some code loops without end, is killed after a while; by a second Ctrl-C sooner, by a third at
once. What the command started and left behind is ended with it.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from harness import _family

HEARD_S = 5.0
"""Seconds after an interrupt in which the command has to take it."""

WRAP_UP_S = 60.0
"""Seconds that it then has for writing down what it has."""

AGAIN_S = 2.0
"""Seconds that it has after a second Ctrl-C if it has not taken the first; else as many as for the first."""

ONE_S = 0.5
"""Signals within so many seconds are one: a terminal and `timeout` reach a process by several ways."""

_LOOK_S = 0.1
_LEFT_S = 3.0
"""Seconds that what a command left behind has to end by itself."""

_line: list[int] = []
"""In a command under a supervisor: where it tells that it has taken an interrupt."""


def taken() -> None:
    """Tell the supervisor, where there is one, that an interrupt is heard and results are being kept."""
    for writer in _line:
        with suppress(OSError):
            os.write(writer, b".")


def is_supervised() -> bool:
    """Whether this process is a command under a supervisor."""
    return bool(_line)


def supervised(command: Callable[[], None]) -> None:
    """Run a command in a child of this process, which ends as it does; as it is where the system has no such means."""
    if _line or not _family.can_keep():
        command()
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()  # or both would print it
    with suppress(ValueError, OSError):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, ends of children would not be told
    # What a shell lets its background jobs ignore stays ignored.
    interrupts = {number for number in _INTERRUPTS if signal.getsignal(number) is not signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*interrupts, signal.SIGCHLD, *_STOPS})
    try:
        reader, writer = os.pipe()
        above = os.getpid()
        child = os.fork()
    except OSError:  # no more processes
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        command()
        return
    if child == 0:
        # From here on two processes: the child goes on as the command, this one only watches.
        os.close(reader)
        _line.append(writer)
        _family.signal_at_death(signal.SIGKILL)
        # The parent may have ended between the fork and the request to be told.
        if os.getppid() != above:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        command()
        return
    os.close(writer)
    _family.adopt()
    _Watch(child, reader, interrupts).end()


_STOPS = tuple(getattr(signal, name) for name in ("SIGTSTP",) if hasattr(signal, name))  # Ctrl-Z
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class _Watch:
    """Waits for a command.

    Args:
        child: its process.
        reader: where it tells that it has taken an interrupt.
        interrupts: the signals that end it.
    """

    def __init__(self, child: int, reader: int, interrupts: set[signal.Signals]) -> None:
        self._child, self._reader, self._interrupts = child, reader, interrupts
        self._first: signal.Signals | None = None
        self._last = self._until = 0.0
        self._count = 0
        self._was_killed = self._was_taken = False
        os.set_blocking(reader, False)

    def end(self) -> NoReturn:
        """End as the command does."""
        code = self._wait()
        _family.end(0.0 if self._was_killed else _LEFT_S)
        if self._first is not None and (self._was_killed or code < 0):
            _say("interrupted; what did not answer was ended; what is finished is kept, and the same command continues")
            code = _CODES[self._first]
        elif code < 0:
            _say(_crash(-code))
            code = 128 - code
        os._exit(code)

    def _wait(self) -> int:
        codes: dict[int, int] = {}
        awaited = {*self._interrupts, signal.SIGCHLD, *_STOPS}
        # Without an interrupt there is no deadline, and nothing to wake up for.
        while self._child not in codes:
            heard = signal.sigtimedwait(awaited, _LOOK_S) if self._first else signal.sigwaitinfo(awaited)
            if heard is not None and heard.si_signo in self._interrupts:
                self._interrupted(signal.Signals(heard.si_signo), from_process=heard.si_pid != 0)
            if heard is not None and heard.si_signo in _STOPS:
                self._stand_still(from_process=heard.si_pid != 0)
            codes |= _family.reap()
            if self._first is not None and self._child not in codes and time.monotonic() >= self._deadline():
                self._was_killed = True
                with suppress(OSError):
                    os.kill(self._child, signal.SIGKILL)
        return codes[self._child]

    def _interrupted(self, number: signal.Signals, *, from_process: bool) -> None:
        now = time.monotonic()
        if from_process:  # a terminal's reaches the command by itself
            with suppress(OSError):
                os.kill(self._child, number)
        if self._first is not None and now - self._last < ONE_S:
            # Ctrl-C and what a wrapper hands on are one.
            return
        self._first, self._last, self._count = self._first or number, now, self._count + 1
        # Less time for each further one; the third ends it at once.
        allowed = (HEARD_S, HEARD_S if self._was_taken else AGAIN_S, 0.0)[min(self._count, 3) - 1]
        self._until = now + allowed if self._count == 1 else min(self._until, now + allowed)

    def _stand_still(self, *, from_process: bool) -> None:
        """Stop with the command until somebody lets this process go on, and let the command go on, too."""
        if from_process:  # a terminal's Ctrl-Z reaches the command by itself
            with suppress(OSError):
                os.kill(self._child, signal.SIGTSTP)
        if os.isatty(2):
            with suppress(OSError):
                os.write(2, b"\x1b[?25h")  # the shell that comes back needs the cursor that a display has hidden
        before = time.monotonic()
        # Not SIGSTOP: where there is nobody to continue it, as in a group without a shell, the system passes it over.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        self._until += time.monotonic() - before
        with suppress(OSError):
            os.kill(self._child, signal.SIGCONT)

    def _deadline(self) -> float:
        """When the command has had its time; later if it has taken the interrupt since."""
        with suppress(OSError):
            if os.read(self._reader, 16) and not self._was_taken:
                self._was_taken = True
                self._until = time.monotonic() + (WRAP_UP_S, HEARD_S, 0.0)[min(self._count, 3) - 1]
        return self._until


def _crash(number: int) -> str:
    name = signal.strsignal(number) or "unknown"
    why = "perhaps for lack of memory" if number == signal.SIGKILL else "in a plugin or a library"
    return f"error: the command was ended by signal {number} ({name}), {why}; everything finished is kept"


def _say(text: str) -> None:
    with suppress(OSError):
        if os.isatty(2):
            # Written by hand: at this point no library may be in a state to print.
            os.write(2, b"\x1b[?25h\r")  # a display that was killed has left the cursor hidden
        os.write(2, f"{text}\n".encode())
