"""The rule of energy: what events explain of published board powers."""

import numpy as np

from harness.api import Conditions, Engine, Product
from harness.api.validation import Check

from .._design.design import design
from .._design.events import event_energy
from .._design.numerics import Budget, Numerics
from .._devices import device
from ..engines.column_fifo import ColumnFifo
from ..engines.csr_stream import CsrStream
from .own import matrix
from .targets import Evaluation, Rule, Targets, allowed, compared

_HISPARSE_ROWS, _HISPARSE_COLS, _HISPARSE_DENSITY = 512, 33000, 0.1
_ESE_MATRICES, _ESE_CHANNELS = ((4096, 665), (512, 1024)), 32


def _board_power(rule: Rule, targets: Targets) -> list[Check]:
    """What events explain of two published powers; the rest of one board foretells the other."""
    ese, hisparse = targets.figure("ese", "power_w"), targets.figure("hisparse", "power_w")
    explained = _ese_watt(targets), _hisparse_watt(targets)
    rest = ese.value - explained[0]
    within = allowed(rule, targets)
    note = "constants are assumed; static power, clocks and the board are not events"
    return [
        *(
            compared(rule, f"power by events, {what}", engine, watt, target, "W", within=within, note=note)
            for what, engine, watt, target in (
                ("ESE", "column_fifo", explained[0], ese),
                ("HiSparse at 90 %", "csr_stream", explained[1], hisparse),
            )
        ),
        compared(
            rule,
            "power by events and the rest of ESE's board, HiSparse at 90 %",
            "csr_stream",
            explained[1] + rest,
            hisparse,
            "W",
            within=within,
            parameters={"rest_w": rest},
            note="the rest is fitted on ESE alone; the boards differ",
        ),
    ]


def _ese_watt(targets: Targets) -> float:
    """Events of all streams over the published time of a step."""
    pes, density = int(targets.figure("ese", "pes_per_channel").value), targets.figure("ese", "density").value
    engine = ColumnFifo(pes=pes, groups=1, channels=_ESE_CHANNELS)
    rng = np.random.default_rng(0)
    work = [matrix(rng.random(size, dtype=np.float32) < density) for size in _ESE_MATRICES]
    latency = targets.figure("ese", "latency_us").value
    conditions = Conditions(weight_bits=12, activation_bits=16, clock_mhz=targets.figure("ese", "clock_mhz").value)
    return _watt(engine, work, "xcku060", conditions, latency)


def _hisparse_watt(targets: Targets) -> float:
    """Events of one product over the time that its published GOPS stand for."""
    engine = CsrStream(channels=int(targets.figure("hisparse", "matrix_channels").value))
    rng = np.random.default_rng(0)
    mask = rng.random((_HISPARSE_ROWS, _HISPARSE_COLS), dtype=np.float32) < _HISPARSE_DENSITY
    work = [matrix(mask)]
    rows = range(len(targets.table("hisparse", "points")))
    near = min(rows, key=lambda row: abs(targets.cell("hisparse", "points", row, "sparsity").value - 0.9))
    gops = targets.cell("hisparse", "points", near, "gops").value
    clock = targets.figure("hisparse", "clock_mhz").value
    # Its numbers have 32 bits, which no DSP block here multiplies at once; the pairs that are read keep their 64.
    conditions = Conditions(weight_bits=16, activation_bits=16, clock_mhz=clock)
    return _watt(engine, work, "alveo_u280", conditions, 2 * work[0].nnz / gops / 1e3)


def _watt(engine: Engine, work: list[Product], name: str, conditions: Conditions, latency_us: float) -> float:
    """Power by events while items take this long; the latency is the published one, so that only energy is tried."""
    target, numerics = device(name), Numerics(conditions=conditions)
    shape = engine.fixed_shape(work, 1)
    made = design(engine, shape, work, engine.expect, target, numerics, Budget())
    total = event_energy(made, target, numerics, latency_us)["total_uj"]
    assert isinstance(total, float)
    return total * engine.streams / latency_us


POWER: dict[str, Evaluation] = {"board_power": _board_power}
"""Rules by id."""
