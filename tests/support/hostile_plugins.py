"""Plugins that hang, crash and leave processes behind, as the environment says.

HOSTILE     how, e.g. `deaf`; see `misbehave`
HOSTILE_AT  where: `mask` (in a worker), `load` or `cost` (in the command itself)
HOSTILE_IN  a folder that takes the numbers of the processes concerned, in files
"""

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import ClassVar

from numpy_plugins import NumpyBackend, ToyTask

from harness.api import Frame, HardwareModel, Pattern, hookimpl


def misbehave(place: str) -> None:
    """Do what the environment says, if it says so of this place."""
    if os.environ.get("HOSTILE_AT") != place:
        return
    how = os.environ["HOSTILE"]
    if "child" in how:
        _child(away="daemon" in how)
    if "deaf" in how:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    _mark("hangs", os.getpid())
    if "segfault" in how:
        ctypes.string_at(0)
    while True:
        try:
            _lock_for_ever() if "locked" in how else time.sleep(3600)
        except BaseException:
            if "swallows" not in how:
                raise


def _lock_for_ever() -> None:
    """Wait in C and keep the interpreter's lock meanwhile, so that no handler of Python's runs."""
    mutex = ctypes.create_string_buffer(256)  # of zeros: an ordinary one, which waits when locked a second time
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)


def _child(*, away: bool) -> None:
    """A process that outlives this one, unless somebody sees to it; it keeps every pipe open."""
    if os.fork():
        _wait_for(_place("child"))
        return
    if away:
        os.setsid()
        if os.fork():
            os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _mark("child", os.getpid())
    time.sleep(3600)
    os._exit(0)


def _place(name: str) -> Path:
    return Path(os.environ["HOSTILE_IN"]) / name


def _mark(name: str, pid: int) -> None:
    _place(f"{name}.new").write_text(str(pid))
    _place(f"{name}.new").rename(_place(name))


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


class HostilePattern(Pattern):
    """Hangs in a worker."""

    name: ClassVar[str] = "hostile"

    def frame(self, rows: int, cols: int) -> Frame:
        return Frame()

    def mask(self, scores, sparsity):
        misbehave("mask")
        return super().mask(scores, sparsity)


class HostileTask(ToyTask):
    """Hangs while the experiment is checked."""

    name: ClassVar[str] = "hostile"

    def load(self, data_dir):
        misbehave("load")
        return super().load(data_dir)


class HostileModel(HardwareModel):
    """Hangs while masks are costed."""

    name: ClassVar[str] = "hostile"

    def cost(self, workload):
        misbehave("cost")
        return super().cost(workload)


@hookimpl
def register_task():
    return [ToyTask, HostileTask]


@hookimpl
def register_backend():
    return NumpyBackend


@hookimpl
def register_pattern():
    return HostilePattern


@hookimpl
def register_hardware():
    return HostileModel
