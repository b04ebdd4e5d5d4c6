"""Our own Verilog in a simulator: masks and operands go in as memory files, cycles and wrong results come out.

The sources lie in `rtl/`: a bank engine and a column-FIFO engine, each with a bench that checks every dot product
itself. A bench is built once per shape, then runs any number of masks.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache as cached
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.api import HarnessError, Mask, ShapeError

from ..engines.bank.counts import split
from ..engines.column_fifo.recurrence import FullFlag
from .packing import BankWords, bits, column_streams, lines

Simulator = Literal["verilator", "icarus"]
Bench = Literal["bank", "column"]

SOURCES = Path(__file__).parent

_FILES: dict[Bench, tuple[str, ...]] = {
    "bank": ("ram", "stream", "adder_tree", "bank_pe", "bank_engine", "bank_bench"),
    "column": ("ram", "stream", "column_pe", "column_engine", "column_bench"),
}

_COMMANDS: dict[Simulator, tuple[str, ...]] = {"verilator": ("verilator", "g++", "make"), "icarus": ("iverilog", "vvp")}

_VERSION_FLAGS: dict[Simulator, tuple[str, ...]] = {"verilator": ("--version",), "icarus": ("-V",)}

_OLDEST_VERILATOR = 5

# The benches' own widths: `localparam`s of bank_bench.v and column_bench.v.
_VALUE_BITS, _SUM_BITS = 16, 48
_BANK_INDEX_BITS, _BANK_WAVE_BITS, _BANK_DEPTH_BITS, _BANK_ROW_BITS = 6, 4, 12, 14
_COLUMN_ROW_BITS, _COLUMN_DEPTH_BITS, _COLUMN_COLUMN_BITS, _COLUMN_FIFO_BITS = 9, 14, 11, 4

FULL_FLAGS: dict[FullFlag, int] = {"registered": 0, "same_cycle": 1, "late": 2}

_LONGEST_S = 300
"""Seconds after which a build or a simulation is given up."""

_ANSWER = re.compile(r"^cycles (\d+)(?: summed (\d+) high_water (\d+))? wrong (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class RtlRun:
    """What a bench printed.

    Args:
        cycles: clock edges from the start to the last result.
        wrong: results that are missing, too many, or another number than the integer dot product.
        summed: clock edges from the start to the last accumulated product, before partial sums are added up; equal to
            `cycles` where nothing follows.
        high_water: most entries that ever stood in one FIFO; 0 without FIFOs.
    """

    cycles: int
    wrong: int
    summed: int
    high_water: int = 0


def find_simulator() -> Simulator | None:
    """The simulator to use: Verilator 5 or later, else Icarus, else None."""
    return next(filter(is_installed, _COMMANDS), None)


def is_installed(simulator: Simulator) -> bool:
    """Whether a simulator is there, works and is not too old."""
    return all(map(shutil.which, _COMMANDS[simulator])) and _is_recent(simulator)


def simulator_version(simulator: Simulator) -> str:
    """Its name and number, e.g. `Verilator 5.006`.

    Raises:
        HarnessError: it does not say.
    """
    command = shutil.which(_COMMANDS[simulator][0]) or _COMMANDS[simulator][0]
    said = _said_of_itself(command, *_VERSION_FLAGS[simulator])
    found = re.search(r"(Verilator|Icarus Verilog)\D*([\d.]+)", said)
    if found is None:
        raise HarnessError(f"{simulator} should print its version, got {said.strip()[:100]!r}; check its installation")
    return " ".join(found.groups())


@cached
def _said_of_itself(*command: str) -> str:
    return call(command, None)


def _is_recent(simulator: Simulator) -> bool:
    """Whether it can run the benches: Verilator takes one that is written in Verilog since version 5."""
    try:
        version = simulator_version(simulator).split()[-1]
    except HarnessError:
        return False  # installed, but broken
    return simulator != "verilator" or int(version.split(".")[0]) >= _OLDEST_VERILATOR


def default_cache() -> Path:
    """Where built benches are kept unless a caller says otherwise."""
    # Not inside the package, which may be read-only.
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness" / "rtl"


def run_bank(
    mask: Mask,
    *,
    pes: int,
    lanes: int,
    banks: int,
    lockstep: bool = False,
    seed: int = 0,
    cache: Path | None = None,
    simulator: Simulator | None = None,
) -> RtlRun:
    """Run a mask with random 16-bit operands on the bank engine.

    Args:
        mask: True where a weight is kept.
        pes: processing elements.
        lanes: lanes of each; a shape is built if it is not in the cache.
        banks: banks per row, cut as the bank map of the model cuts them.
        lockstep: whether PEs wait for the slowest after every row.
        seed: of the operands.
        cache: folder of built benches; None takes the user's cache.
        simulator: None takes the one found.

    Shapes:
        mask (rows, cols).

    Raises:
        ShapeError: the mask is too large for the memories of the bench.
        HarnessError: no simulator is installed, or it failed.
    """
    rows, cols = mask.shape
    waves, longest = -(-banks // lanes), -(-cols // banks)
    _fits("rows", rows, 1 << _BANK_ROW_BITS)
    _fits("waves", waves, 1 << _BANK_WAVE_BITS)
    _fits("columns per bank", longest, 1 << _BANK_INDEX_BITS)
    weights, vector = _operands(mask, seed)
    starts = split(cols, banks)
    form = BankWords(tuple(starts), lanes, _VALUE_BITS, _BANK_INDEX_BITS, _BANK_WAVE_BITS)
    streams = [[word for row in weights[pe::pes] for word in form.row(row, row != 0)] for pe in range(min(pes, rows))]
    # PEs without a row have a stream all the same, which ends at once.
    streams += [[] for _ in range(pes - len(streams))]
    _fits("words per PE", max(map(len, streams)), 1 << _BANK_DEPTH_BITS)
    files = {
        "words": lines(word for stream in streams for word in stream),
        "counts": lines(map(len, streams)),
        "vector": lines(form.vector(vector, 1 << _BANK_INDEX_BITS, _VALUE_BITS)),
        "expected": _expected(weights, vector),
    }
    bench = _build("bank", {"M": pes, "N": lanes}, cache, simulator)
    return bench.run(files, {"rows": rows, "lockstep": int(lockstep)})


def run_column(
    mask: Mask,
    *,
    groups: int,
    pes: int,
    depth: int,
    full_flag: FullFlag = "registered",
    seed: int = 0,
    cache: Path | None = None,
    simulator: Simulator | None = None,
) -> RtlRun:
    """Run a mask with random 16-bit operands on the column-FIFO engine, partial sums of the groups added up.

    Args:
        mask: True where a weight is kept; column j goes to group j mod `groups`, row r to PE r mod `pes`.
        groups: groups of columns.
        pes: processing elements of each group; a shape is built if it is not in the cache.
        depth: FIFO slots.
        full_flag: which of the three full flags of column_pe.v; a late one takes a depth of at least 2.
        seed: of the operands.
        cache: folder of built benches; None takes the user's cache.
        simulator: None takes the one found.

    Shapes:
        mask (rows, cols).

    Raises:
        ShapeError: the mask or the depth is too large for the memories of the bench.
        HarnessError: no simulator is installed, or it failed.
    """
    rows, cols = mask.shape
    _fits("rows per PE", -(-rows // pes), 1 << _COLUMN_ROW_BITS)
    _fits("columns per group", -(-cols // groups), (1 << _COLUMN_COLUMN_BITS) - 1)
    _fits("FIFO slots", depth, 1 << _COLUMN_FIFO_BITS)
    weights, vector = _operands(mask, seed)
    streams = column_streams(weights, weights != 0, pes, groups, _VALUE_BITS, _COLUMN_ROW_BITS)
    _fits("words per PE", max(map(len, streams)), 1 << _COLUMN_DEPTH_BITS)
    files = {
        "words": lines(word for stream in streams for word in stream),
        "counts": lines(map(len, streams)),
        "columns": lines(len(range(group, cols, groups)) for group in range(groups)),
        "vector": lines(
            bits(value, _VALUE_BITS) for group in range(groups) for value in vector[group::groups].tolist()
        ),
        "expected": _expected(weights, vector),
    }
    bench = _build("column", {"G": groups, "P": pes}, cache, simulator)
    return bench.run(files, {"rows": rows, "depth": depth, "full_flag": FULL_FLAGS[full_flag]})


def _operands(mask: Mask, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Weights, zero where pruned and nowhere else, and a vector: the whole range of 16-bit numbers."""
    generator = np.random.default_rng(seed)
    top = 1 << (_VALUE_BITS - 1)
    # No weight is zero by chance: benches tell kept from pruned by the value.
    weights = generator.integers(1, top, mask.shape) * (1 - 2 * generator.integers(2, size=mask.shape)) * mask
    return np.asarray(weights), generator.integers(-top, top, mask.shape[1:])


def _expected(weights: NDArray[np.int64], vector: NDArray[np.int64]) -> str:
    return lines(bits(value, _SUM_BITS) for value in (weights @ vector).tolist())


def _fits(what: str, got: int, most: int) -> None:
    if got > most:
        raise ShapeError(f"the RTL benches hold at most {most} {what}, got {got}; simulate a smaller matrix")


@dataclass(frozen=True)
class _Built:
    command: tuple[str, ...]
    simulator: Simulator

    def run(self, files: Mapping[str, str], numbers: Mapping[str, int]) -> RtlRun:
        with tempfile.TemporaryDirectory(prefix="harness-rtl-") as folder:
            for name, text in files.items():
                Path(folder, f"{name}.hex").write_text(text)
            arguments = [f"+{name}={name}.hex" for name in files] + [
                f"+{key}={value}" for key, value in numbers.items()
            ]
            printed = call([*self.command, *arguments], Path(folder))
        answer = _ANSWER.search(printed)
        if answer is None:
            raise HarnessError(
                f"an RTL bench prints its cycles, got {printed.strip()[-300:]!r} from {self.simulator}; "
                "check the simulator's version"
            )
        cycles, summed, high_water, wrong = answer.groups()
        return RtlRun(int(cycles), int(wrong), int(summed or cycles), int(high_water or 0))


def _build(bench: Bench, sizes: Mapping[str, int], cache: Path | None, simulator: Simulator | None) -> _Built:
    """A bench of one shape, from the cache if it was built from these very sources before."""
    simulator = simulator or find_simulator()
    if simulator is None:
        raise HarnessError(
            "running the RTL takes `verilator` or `iverilog`, got neither on PATH; install one, or compare with the "
            "recorded cycles"
        )
    sources = [SOURCES / f"{name}.v" for name in _FILES[bench]]
    # Built anew for another simulator or other sources; the masks are files and need no build.
    contents = [simulator_version(simulator).encode(), *(source.read_bytes() for source in sources)]
    digest = hashlib.sha256(b"".join(contents)).hexdigest()[:12]
    shape = "x".join(map(str, sizes.values()))
    target = (cache or default_cache()) / f"{bench}-{shape}-{simulator}-{digest}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        # Built beside its place and renamed: another process never sees half of it.
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder, "bench")
            call(_compile_command(simulator, f"{bench}_bench", sizes, sources, made), Path(folder))
            os.replace(made, target)
    # -n: a simulation that stops ends there, instead of waiting at a prompt.
    return _Built((str(target),) if simulator == "verilator" else ("vvp", "-n", str(target)), simulator)


def _compile_command(
    simulator: Simulator, top: str, sizes: Mapping[str, int], sources: Sequence[Path], made: Path
) -> list[str]:
    files = [str(source) for source in sources]
    if simulator == "icarus":
        return [
            "iverilog", "-g2012", "-s", top, *(f"-P{top}.{name}={size}" for name, size in sizes.items()),
            "-o", str(made), *files,
        ]  # fmt: skip
    # Unoptimised C++: the runs are short, and building is what takes the time.
    plain = "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0"
    return [
        "verilator", "--binary", "--timing", "-Wno-fatal", "--top-module", top, "-MAKEFLAGS", plain,
        *(f"-G{name}={size}" for name, size in sizes.items()), "--Mdir", str(made.parent), "-o", str(made), *files,
    ]  # fmt: skip


def call(command: Sequence[str], folder: Path | None, *, may_fail: bool = False, longest_s: float = _LONGEST_S) -> str:
    """What a program prints.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        may_fail: whether an exit code other than 0 is an answer, too.
        longest_s: seconds after which it is given up.

    Raises:
        HarnessError: it cannot be started, fails or takes too long.
    """
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=longest_s, check=not may_fail
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HarnessError(
            f"{Path(command[0]).name} should run to its end, got: {error}; check its installation"
        ) from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip()[-500:]
        raise HarnessError(
            f"{Path(command[0]).name} should succeed, got exit code {error.returncode}: {said}; check its version"
        ) from error
    return done.stdout
