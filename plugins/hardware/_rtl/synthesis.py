"""Resources of the parts of our Verilog, a processing element and what stands around it, as yosys counts them.

Indicative, no vendor tool.

DSP and RAM counts follow the template; LUT and FF differ from vendor tools several-fold (yosys issue 4798).
"""

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field

from harness.api import Frozen, HarnessError

from .simulate import SOURCES

Template = Literal["bank_pe", "column_pe", "output_lane", "sequencer", "lstm_cell"]
Family = Literal["xc7", "cyclonev"]

_FILES: dict[Template, tuple[str, ...]] = {
    "bank_pe": ("ram", "stream", "adder_tree", "bank_pe"),
    "column_pe": ("ram", "stream", "column_pe"),
    # A way out of one PE, every row with a bias and a shift of its own.
    "output_lane": ("ram", "stream", "requantise", "output_lane"),
    "sequencer": ("sequencer",),
    "lstm_cell": ("ram", "rescale", "lookup", "lstm_cell"),
}

# Words and bits of the memories that a template reads.
_MEMORIES: dict[Template, dict[str, tuple[int, int]]] = {
    "output_lane": {"constants_0000": (64, 40)},
    "lstm_cell": {"sigmoid": (4096, 16), "tanh": (4096, 16)},
}

_COMMANDS: dict[Family, str] = {
    "xc7": "synth_xilinx -family xc7 -flatten",
    "cyclonev": "synth_intel_alm -family cyclonev",
}

# Cells of each family, by what they count as; a multiplier cell of Cyclone V is half a DSP block.
_CELLS: dict[Family, dict[str, str]] = {
    "xc7": {
        "multipliers": r"DSP48E1",
        "ram_18k": r"RAMB18E1",
        "ram_36k": r"RAMB36E1",
        "lut_ram": r"RAM(32|64|128|256).*",
        "lut": r"LUT\d",
        "ff": r"FD[RSCP]E",
    },
    "cyclonev": {
        "multipliers": r"MISTRAL_MUL\d+X\d+",
        "ram_10k": r"MISTRAL_M10K",
        "lut_ram": r"MISTRAL_MLAB",
        "lut": r"MISTRAL_ALUT.*",
        "ff": r"MISTRAL_FF",
    },
}

_LONGEST_S = 300
"""Seconds after which a synthesis is given up."""


class Resources(Frozen):
    """Primitives of one template on one family.

    Args:
        template: the module; its parameters are the defaults in its source.
        family: FPGA family, as yosys names it.
        multipliers: multiplier primitives: DSP48E1, or 18 x 18 multipliers, two of which share an Intel DSP block.
        ram_10k, ram_18k, ram_36k: RAM blocks by size in Kbit.
        lut_ram: cells of distributed RAM.
        lut, ff: look-up tables and flip-flops, indicative.
        tool: what counted them, with its version.
    """

    template: Template
    family: Family
    multipliers: int = Field(ge=0)
    ram_10k: int = Field(default=0, ge=0)
    ram_18k: int = Field(default=0, ge=0)
    ram_36k: int = Field(default=0, ge=0)
    lut_ram: int = Field(default=0, ge=0)
    lut: int = Field(ge=0)
    ff: int = Field(ge=0)
    tool: str


def find_yosys() -> str | None:
    """The path of yosys, or None; looks at PATH only."""
    return shutil.which("yosys")


def synthesise(template: Template, family: Family) -> Resources:
    """Count the primitives of a template with yosys; takes a few seconds.

    Raises:
        HarnessError: yosys is not installed, or it failed.
    """
    yosys = find_yosys()
    if yosys is None:
        raise HarnessError("synthesis takes `yosys`, got none on PATH; install it, or use the recorded resources")
    sources = " ".join(f'"{SOURCES / name}.v"' for name in _FILES[template])
    with tempfile.TemporaryDirectory(prefix="harness-yosys-") as folder:
        Path(folder, "mem").mkdir()
        for name, (words, bits) in _MEMORIES.get(template, {}).items():
            # Any contents without a pattern: what is all zero would be optimised away.
            text = "".join(f"{(at + 1) * 0x9E3779B97F4A7C15 >> 24 & ((1 << bits) - 1):x}\n" for at in range(words))
            Path(folder, "mem", f"{name}.hex").write_text(text)
        # The top is set before anything is mapped: left to the synthesis, the column PE takes 314 LUTs and not 220.
        # What reads memory files is built with its parameters only, never with defaults that name no file.
        defer = "-defer " if template in _MEMORIES else ""
        read = f"read_verilog {defer}-sv {sources}; hierarchy -top {template}"
        script = f"{read}; {_COMMANDS[family]} -top {template}; tee -q -o stat.json stat -json"
        _call([yosys, "-q", "-p", script], folder)
        statistics = json.loads(Path(folder, "stat.json").read_text())
    cells: dict[str, int] = statistics["design"]["num_cells_by_type"]
    counts = {
        # Whole names: a cell whose name only begins alike is another kind.
        kind: sum(count for cell, count in cells.items() if re.fullmatch(pattern, cell))
        for kind, pattern in _CELLS[family].items()
    }
    return Resources(template=template, family=family, tool=yosys_version(yosys), **counts)


def yosys_version(yosys: str) -> str:
    """Its name and number, e.g. `Yosys 0.23`."""
    return " ".join(_call([yosys, "-V"], None).split()[:2])


def _call(command: list[str], folder: str | None) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_LONGEST_S, check=True)
    except (OSError, subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or error
        raise HarnessError(f"yosys should succeed, got: {str(said).strip()[-500:]}; check its version") from error
    return done.stdout
