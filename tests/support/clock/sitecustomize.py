"""A clock that is set back while a program runs; on PYTHONPATH, Python imports this module before anything else.

HARNESS_CLOCK="AT BACK": from the time AT on, in seconds since 1970, the clock of every process is BACK seconds slow.
Monotonic clocks and the file system's times stay as they are.
"""

import os
import time

if "HARNESS_CLOCK" in os.environ:
    _at, _back = map(float, os.environ["HARNESS_CLOCK"].split())
    _time, _time_ns = time.time, time.time_ns

    def _slow() -> float:
        now = _time()
        return now - _back if now >= _at else now

    def _slow_ns() -> int:
        now = _time_ns()
        return now - int(1e9 * _back) if now >= int(1e9 * _at) else now

    time.time, time.time_ns = _slow, _slow_ns
