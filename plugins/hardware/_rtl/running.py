"""The bench of an emitted design in a simulator: what it found, or None where there is none."""

import re
import tempfile
from pathlib import Path

from harness.api import BenchRun, HarnessError

from .simulate import Simulator, call, is_installed, simulator_version

_BENCH = "accelerator_bench"

_LONGEST_S = 3 * 3600
"""Seconds after which a bench is given up: a thousand multipliers and a thousand cycles take minutes."""

_ANSWER = re.compile(r"^products (\d+) values (\d+) wrong (\d+) cycles (\d+) expected (\d+) off (\d+)$", re.MULTILINE)
_VECTORS = re.compile(r"^`define VECTORS (\d+)$", re.MULTILINE)


def find_for_benches() -> Simulator | None:
    """Icarus, which builds a bench in no time, else Verilator 5 or later, else None."""
    return next((name for name in ("icarus", "verilator") if is_installed(name)), None)


def run_bench(folder: Path, simulator: Simulator | None = None) -> BenchRun | None:
    """Run the bench of the design in a folder; nothing is written there.

    Args:
        folder: of the design.
        simulator: None takes the one found.

    Returns:
        What it found; None where no simulator is installed.

    Raises:
        HarnessError: the simulator fails, or prints something else.
    """
    simulator = simulator or find_for_benches()
    if simulator is None:
        return None
    sources = [str(path.relative_to(folder)) for path in sorted(folder.glob("rtl/*.v"))] + [f"bench/{_BENCH}.v"]
    with tempfile.TemporaryDirectory(prefix="harness-rtl-") as made:
        call(_build_command(simulator, sources, Path(made)), folder, longest_s=_LONGEST_S)
        command = ["vvp", "-n", f"{made}/bench"] if simulator == "icarus" else [f"{made}/bench"]
        # A bench that finds a fault ends with an error, and has printed what it found before.
        printed = call(command, folder, may_fail=True, longest_s=_LONGEST_S)
    answer = _ANSWER.search(printed)
    vectors = _VECTORS.search((folder / "rtl" / "design.vh").read_text())
    if answer is None or vectors is None:
        raise HarnessError(
            f"the bench of a design prints what it found, got {printed.strip()[-300:]!r} from {simulator}; check the "
            "simulator's version"
        )
    products, values, wrong, cycles, expected, off = map(int, answer.groups())
    return BenchRun(
        simulator_version(simulator), products, values, wrong, cycles, expected, off, wanted=2 * int(vectors[1])
    )


def _build_command(simulator: Simulator, sources: list[str], made: Path) -> list[str]:
    if simulator == "icarus":
        return ["iverilog", "-g2012", "-I", "rtl", "-s", _BENCH, "-o", str(made / "bench"), *sources]
    plain = "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0"
    return [
        "verilator", "--binary", "--timing", "-Wno-fatal", "-Irtl", "--top-module", _BENCH, "-MAKEFLAGS", plain,
        "--Mdir", str(made), "-o", str(made / "bench"), *sources,
    ]  # fmt: skip
