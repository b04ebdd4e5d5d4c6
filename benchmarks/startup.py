"""How long the command line takes to start, as a ratio to importing the libraries that it is made with.

Run: `python -m benchmarks.startup [--rounds N] [--modules]`. Every round starts one fresh process of each kind, in
turn, so that a busy machine slows all of them alike; the first round only warms the caches of files and is dropped. A
process counts with its processor time, which others on the machine do not lengthen; the time that passed is printed
beside it. The ratio is the median over rounds. Exits 1 if a goal is missed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.results import records
from harness.results.records import Record

PEER = "import typer, pydantic, rich, numpy"
HARNESS = (sys.executable, "-m", "harness")

HEAVY = ("torch", "tensorflow", "tf_keras", "keras", "scipy", "matplotlib", "ray", "numba", "onnx")
"""Libraries that no command below may import."""


@dataclass(frozen=True)
class Case:
    """A command line, and how many times the peer it may take; None for no goal."""

    name: str
    command: tuple[str, ...]
    goal: float | None = None


BASE = Case(PEER, (sys.executable, "-c", PEER))
CASES = (
    Case("harness --help", (*HARNESS, "--help"), 1.5),
    Case("harness plugins list", (*HARNESS, "plugins", "list"), 3.0),
    Case("harness plugins --help", (*HARNESS, "plugins", "--help"), 1.5),
    Case("harness run --help", (*HARNESS, "run", "--help"), 1.5),
    Case("import harness.api", (sys.executable, "-c", "import harness.api")),
)


@dataclass(frozen=True)
class Spent:
    """What one process took, in seconds."""

    processor: float
    passed: float


def spent(command: tuple[str, ...]) -> Spent:
    """Run a command in a process of its own, its output thrown away.

    Raises:
        subprocess.CalledProcessError: it did not end with 0.
    """
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    passed = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Spent(usage.ru_utime + usage.ru_stime, passed)


def imported(command: tuple[str, ...]) -> list[tuple[str, int]]:
    """Modules that a command imports, with the microseconds of their own code, the slowest first."""
    traced = (command[0], "-X", "importtime", *command[1:])
    lines = subprocess.run(
        traced, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True
    ).stderr.splitlines()
    found = []
    for line in lines:
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():  # the heading has no number
            found.append((name.strip(), int(own)))
    return sorted(found, key=lambda pair: -pair[1])


def main() -> int:
    """Time every case; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="processes of each kind that count")
    parser.add_argument("--modules", action="store_true", help="also name the slowest modules of every case")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records.write(Path(folder) / "records.json", [Record(cell="1", task="t", backend="b", value=1.0, status="ok")])
        cases = (BASE, *CASES, Case("harness report of one cell", (*HARNESS, "report", folder)))
        return timed(cases, given.rounds, given.modules)


def timed(cases: Sequence[Case], count: int, with_modules: bool) -> int:
    """Time the cases, of which the first is the peer, in `count` rounds; 1 if a goal is missed."""
    rounds = [[spent(case.command) for case in cases] for _ in range(count + 1)][1:]
    print(f"median of {count} interleaved rounds; processor time decides")
    print(f"{'process':40} {'processor':>10} {'passed':>10} {'ratio':>7} {'passed':>7} {'goal':>9}")
    missed = []
    for place, case in enumerate(cases):
        own, base = [each[place] for each in rounds], [each[0] for each in rounds]
        processor = statistics.median(mine.processor / peer.processor for mine, peer in zip(own, base, strict=True))
        passed = statistics.median(mine.passed / peer.passed for mine, peer in zip(own, base, strict=True))
        goal = "" if case.goal is None else f"<= {case.goal:.1f} x"
        print(
            f"{case.name:40} {1e3 * statistics.median(s.processor for s in own):7.0f} ms "
            f"{1e3 * statistics.median(s.passed for s in own):7.0f} ms {processor:6.2f}x {passed:6.2f}x {goal:>9}"
        )
        if case.goal is not None and processor > case.goal:
            missed.append(f"{case.name} ({processor:.2f} x)")
        modules = imported(case.command)
        if with_modules:
            print(
                "".join(f"    {name:50} {microseconds / 1e3:7.1f} ms\n" for name, microseconds in modules[:8]), end=""
            )
        heavy = sorted({name.partition(".")[0] for name, _ in modules} & set(HEAVY))
        if heavy:
            missed.append(f"{case.name} imports {', '.join(heavy)}")
    print(f"goals missed: {', '.join(missed)}" if missed else "all goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
