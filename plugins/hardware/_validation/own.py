"""Rules whose target is our own: the Verilog, the simulator, and the arithmetic of N:M."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as combinations
from typing import TYPE_CHECKING

import numpy as np

from harness.api import Conditions, EngineShape, Mask, Part, Product
from harness.api.validation import Check

from ..engines.bank import Bank
from ..engines.dense_mvm import DenseMvm
from ..engines.n_m import NM
from .targets import Evaluation, Rule, Targets

if TYPE_CHECKING:
    from .._rtl.cases import RtlCheck

SIZES = ((800, 200), (2600, 650), (6000, 1500))
DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
SHAPES = ((16, 16, 16), (32, 32, 32), (64, 64, 64), (64, 64, 50), (32, 16, 50), (16, 16, 64), (128, 8, 8), (512, 4, 4),
          (1024, 2, 2), (40, 50, 50), (32, 25, 100), (7, 13, 13), (16, 64, 100), (200, 10, 20))  # fmt: skip
"""PEs, lanes and banks per row of the grid on which the expectation is held against the simulator."""


@dataclass(frozen=True)
class GridCase:
    """One case of the grid: expected issue cycles, and their mean over simulated masks."""

    rows: int
    cols: int
    density: float
    shape: tuple[int, int, int]
    lockstep: bool
    expected: float
    simulated: float

    @property
    def error(self) -> float:
        """Relative, without its sign."""
        return abs(self.expected / self.simulated - 1)


def grid(
    sizes: tuple[tuple[int, int], ...], densities: tuple[float, ...], masks: int, seed: int = 0
) -> Iterator[GridCase]:
    """The bank engine's expectation against its simulator, on unstructured masks, all shapes and both lock modes."""
    # One generator for all: the masks of a case depend on those before it.
    rng = np.random.default_rng(seed)
    for (rows, cols), density in combinations(sizes, densities):
        drawn = [matrix(rng.random((rows, cols), dtype=np.float32) < density) for _ in range(masks)]
        # The number of weights only: what the expectation sees of a mask.
        told = Product("grid", (Part("grid.kernel", rows, cols, None, round(rows * cols * density)),))
        for sizes_, lockstep in combinations(SHAPES, (False, True)):
            pes, lanes, banks = sizes_
            engine = Bank(pes=pes, lanes=lanes, banks=banks, lockstep=lockstep)
            shape = EngineShape((("pes", pes), ("lanes", lanes)), pes * lanes)
            simulated = [float(engine.simulate(item, shape, Conditions()).issue_cycles) for item in drawn]
            expected = float(engine.expect(told, shape, Conditions()).issue_cycles)
            yield GridCase(rows, cols, density, sizes_, lockstep, expected, float(np.mean(simulated)))


def matrix(mask: Mask) -> Product:
    """A layer of one masked matrix."""
    rows, cols = mask.shape
    return Product("matrix", (Part("matrix.kernel", rows, cols, mask, int(np.count_nonzero(mask))),))


def _rtl_bank(rule: Rule, targets: Targets) -> list[Check]:
    from .._rtl.cases import rtl_bank_check

    return [_rtl(rule, rtl_bank_check())]


def _rtl_column(rule: Rule, targets: Targets) -> list[Check]:
    from .._rtl.cases import rtl_column_check

    return [_rtl(rule, rtl_column_check())]


def _rtl(rule: Rule, found: "RtlCheck") -> Check:
    """Cycles of the Verilog less those of the model: one constant, and every product right."""
    run = f"{found.simulator}, {'run now' if found.is_live else 'as recorded'}"
    return Check(
        id=rule.id,
        kind=rule.kind,
        what=f"largest deviation from one constant, {found.cases} cases",
        model=found.engine,
        modelled=float(found.worst_deviation),
        published=0.0,
        unit="cycles",
        gate="0 cycles beyond one constant, 0 wrong products" if rule.is_gate else "",
        passed=found.holds if rule.is_gate else None,
        origin="simulated",
        source=f"our own Verilog, {run}",
        note=f"the constant is {found.formula}; {found.wrong} wrong products",
    )


def _analytic(rule: Rule, targets: Targets) -> list[Check]:
    """A part of the grid: ten masks of the smallest size, fewer of the larger ones; all shapes, both modes."""
    # All of the grid takes minutes: a part of it is enough to notice that a formula has changed.
    cases = [
        *grid(SIZES[:1], (0.05, 0.1, 0.5), masks=10),
        *grid(SIZES[1:2], (0.2,), masks=4, seed=1),
        *grid(SIZES[2:], (0.1,), masks=2, seed=2),
    ]
    errors = [case.error for case in cases]
    note = f"{len(cases)} of the 504 cases; `python -m benchmarks.analytic_error` runs all"
    found = {"mean": float(np.mean(errors)), "worst": max(errors)}
    return [
        Check(
            id=rule.id,
            kind=rule.kind,
            what=f"{name} error of the expectation against the simulator",
            model="bank",
            modelled=value,
            unit="relative",
            gate=f"at most {targets.tolerance(rule, name):g}" if rule.is_gate else "",
            passed=value <= targets.tolerance(rule, name) if rule.is_gate else None,
            origin="simulated",
            source="our own simulator",
            note=note,
        )
        for name, value in found.items()
    ]


def _nm_exact(rule: Rule, targets: Targets) -> list[Check]:
    """A 2:4 mask on the N:M engine against the dense array of the same shape."""
    rows, cols = 64, 256
    mask = np.random.default_rng(0).random((rows, cols // 4, 4)).argsort(axis=-1) < 2
    product, dense = matrix(mask.reshape(rows, cols)), matrix(np.ones((rows, cols), dtype=np.bool_))
    engine, baseline = NM(pes=8, lanes=16), DenseMvm(pes=8, lanes=16)
    sparse = engine.simulate(product, engine.fixed_shape([product], 128), Conditions()).issue_cycles
    full = baseline.simulate(dense, baseline.fixed_shape([dense], 128), Conditions()).issue_cycles
    return [
        Check(
            id=rule.id,
            kind=rule.kind,
            what="cycles of a 2:4 mask over those of a dense one, same multipliers",
            model="n_m",
            modelled=float(sparse / full),
            published=0.5,
            unit="ratio",
            error=float(sparse / full) / 0.5 - 1,
            gate="exactly half" if rule.is_gate else "",
            passed=2 * sparse == full if rule.is_gate else None,
            origin="derived",
            source="2 of every 4 products",
        )
    ]


OWN: dict[str, Evaluation] = {
    "rtl_bank": _rtl_bank,
    "rtl_column": _rtl_column,
    "analytic_vs_simulator": _analytic,
    "nm_exact": _nm_exact,
}
"""Rules by id."""
