"""Long scripts of tests, run one after another in the background while other tests run.

A test module that has such scripts lists them as `BEFOREHAND`: arguments of Python by name, `{out}` standing for a file
that the script writes. They begin once tests are collected, and a fixture waits for them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class Beforehand:
    def __init__(self):
        self._folder = Path(tempfile.mkdtemp(prefix="harness-beforehand-"))
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._running = None
        self._found = {}

    def start(self, name, arguments):
        """Queue a script, once."""
        if name not in self._found:
            self._found[name] = self._pool.submit(self._run, name, arguments)

    def out(self, name):
        """The file that a script writes."""
        return self._folder / name.replace(" ", "-")

    def wait(self, name, arguments):
        """What a script printed, and with which code it ended; started now if nobody did before."""
        self.start(name, arguments)
        return self._found[name].result()

    def close(self):
        """End what still runs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._running is not None and self._running.poll() is None:
            self._running.kill()
        self._pool.shutdown(wait=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, name, arguments):
        command = [sys.executable, *(str(self.out(name)) if part == "{out}" else part for part in arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._running = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        stdout, stderr = self._running.communicate()
        return subprocess.CompletedProcess(command, self._running.returncode, stdout, stderr)
