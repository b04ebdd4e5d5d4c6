"""The cycle models against our own Verilog: the cases, what the RTL took, and how far the models are off.

Where no simulator is installed, the models run all the same and meet the cycles recorded in `recorded.json`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache as cached
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field

from harness.api import Conditions, Frozen, Mask, Part, Product, Run, keep_count

from ..engines.bank import Bank
from ..engines.bank.counts import split
from ..engines.column_fifo import DRAIN, ColumnFifo
from ..engines.column_fifo.recurrence import FullFlag
from .simulate import SOURCES, RtlRun, Simulator, find_simulator, run_bank, run_column, simulator_version
from .synthesis import Resources

BANK_LATENCY = 4
"""Cycles of the bank engine beyond its issue cycles and its adder tree's ceil(log2 N) levels: start, weight read,
vector read with multiplication behind it, accumulation."""

COLUMN_LATENCY = 4
"""Cycles of the column engine from the recurrence's last finish to the last sum written, start included."""

COLUMN_DRAIN_LATENCY = 6
"""The same to the last result, where the sums are read out and added, beside one cycle per row of a PE."""

RECORDED = SOURCES / "recorded.json"


class MaskRecipe(Frozen):
    """A mask that anyone can make again.

    Args:
        kind: unstructured (every weight on its own), magnitude (the largest of a matrix whose rows differ in scale, as
            trained ones do), balanced (equally many in every bank), sparse_rows (unstructured, two of three rows
            empty).
        rows, cols: its shape.
        density: fraction of weights kept, or its expectation.
        seed: of the generator.
    """

    kind: Literal["unstructured", "magnitude", "balanced", "sparse_rows"] = "unstructured"
    rows: int = Field(gt=0)
    cols: int = Field(gt=0)
    density: float = Field(ge=0, le=1)
    seed: int = 0

    def mask(self, banks: int = 1) -> Mask:
        """The mask; `banks` per row where it is balanced.

        Shapes:
            (rows, cols).
        """
        generator = np.random.default_rng(self.seed)
        scores = generator.random((self.rows, self.cols))
        if self.kind == "magnitude":
            # Rows differ in scale, so that some keep many weights and others few, as trained ones do.
            scale = np.exp(generator.normal(size=(self.rows, 1)))
            scores = np.abs(generator.normal(size=scores.shape)) * scale
            kept = keep_count(scores.size, 1 - self.density)
            return np.asarray(scores >= np.partition(scores, -kept, axis=None)[-kept])
        if self.kind == "balanced":
            pieces = np.split(scores, split(self.cols, banks)[1:], axis=1)
            kept = keep_count(self.cols // banks, 1 - self.density)
            # Rank within the bank, by sorting twice.
            return np.hstack([np.argsort(np.argsort(piece, axis=1), axis=1) < kept for piece in pieces])
        mask: Mask = scores < self.density
        if self.kind == "sparse_rows":
            mask[np.arange(self.rows) % 3 > 0] = False
        return mask


class Case(Frozen):
    """One mask on one shape of an engine, and what the RTL took for it when it was last recorded.

    Args:
        name: what the case is there for.
        mask: how to make its mask.
        pes: processing elements; of each group in the column engine.
        cycles: clock edges from the start to the last result.
        summed: clock edges to the last accumulated product; differs from `cycles` where partial sums are added up.
        high_water: most entries that ever stood in one FIFO, where there are any.
        wrong: wrong dot products.
    """

    name: str
    mask: MaskRecipe
    pes: int = Field(gt=0)
    cycles: int = 0
    summed: int = 0
    high_water: int = 0
    wrong: int = 0

    @abstractmethod
    def run(self, cache: Path | None = None, simulator: Simulator | None = None) -> RtlRun:
        """Run the RTL."""

    @abstractmethod
    def model(self) -> Run:
        """What the cycle simulator says."""

    @abstractmethod
    def expected(self) -> RtlRun:
        """The model's cycles with the latency of our Verilog, nothing wrong: what the RTL should answer."""

    def answer(self) -> RtlRun:
        """What the RTL answered when the case was recorded."""
        return RtlRun(self.cycles, self.wrong, self.summed, self.high_water)

    def record(self, run: RtlRun) -> Self:
        """The same case with another answer."""
        return self.model_copy(update=asdict(run))


class BankCase(Case):
    """A case of the bank engine; `banks` are per row."""

    lanes: int = Field(gt=0)
    banks: int = Field(gt=0)
    lockstep: bool = False

    def run(self, cache: Path | None = None, simulator: Simulator | None = None) -> RtlRun:
        """Run the RTL."""
        return run_bank(
            self.mask.mask(self.banks),
            pes=self.pes,
            lanes=self.lanes,
            banks=self.banks,
            lockstep=self.lockstep,
            seed=self.mask.seed,
            cache=cache,
            simulator=simulator,
        )

    def model(self) -> Run:
        """The closed form."""
        engine = Bank(pes=self.pes, lanes=self.lanes, banks=self.banks, lockstep=self.lockstep)
        product = _product(self.mask.mask(self.banks))
        return engine.simulate(product, engine.fixed_shape([product], self.pes * self.lanes), Conditions())

    def expected(self) -> RtlRun:
        """Issue cycles and the constant pipeline."""
        cycles = int(self.model().issue_cycles) + (self.lanes - 1).bit_length() + BANK_LATENCY
        return RtlRun(cycles, 0, cycles)


class ColumnCase(Case):
    """A case of the column-FIFO engine."""

    groups: int = Field(gt=0)
    depth: int = Field(gt=0)
    full_flag: FullFlag = "registered"

    def run(self, cache: Path | None = None, simulator: Simulator | None = None) -> RtlRun:
        """Run the RTL."""
        return run_column(
            self.mask.mask(),
            groups=self.groups,
            pes=self.pes,
            depth=self.depth,
            full_flag=self.full_flag,
            seed=self.mask.seed,
            cache=cache,
            simulator=simulator,
        )

    def model(self) -> Run:
        """The recurrence."""
        engine = ColumnFifo(groups=self.groups, pes=self.pes, fifo_depth=self.depth, full_flag=self.full_flag)
        product = _product(self.mask.mask())
        return engine.simulate(product, engine.fixed_shape([product], self.groups * self.pes), Conditions())

    def expected(self) -> RtlRun:
        """The recurrence, then one cycle per row of a PE to read the sums out, which our RTL does for one group too."""
        model = self.model()
        reduction = model.parts.get("reduction", Fraction(0))
        # The recurrence counts the constants of its own pipeline, which our Verilog does not share.
        finish = int(model.cycles - reduction) - DRAIN
        drain = -(-self.mask.rows // self.pes)
        return RtlRun(finish + drain + COLUMN_DRAIN_LATENCY, 0, finish + COLUMN_LATENCY, model.fifo_high_water or 0)


class Recorded(Frozen):
    """What the Verilog tools said when the cases were last recorded.

    Args:
        tools: versions, by tool.
        bank, column: the cases with the cycles of the RTL.
        synthesis: resources of the one-PE templates.
    """

    tools: dict[str, str]
    bank: tuple[BankCase, ...]
    column: tuple[ColumnCase, ...]
    synthesis: tuple[Resources, ...]


@dataclass(frozen=True)
class RtlCheck:
    """A cycle model against the RTL.

    Args:
        engine: the engine's name.
        cases: masks compared.
        constant: cycles that the RTL takes beyond the model's issue cycles, the same in every case.
        formula: the constant as a sentence would give it.
        worst_deviation: the most by which any case departs from model plus constant, in cycles (or in entries of the
            fullest FIFO).
        wrong: dot products of the RTL that differ from the integer result.
        is_live: whether the RTL ran now; else its cycles are the recorded ones.
        simulator: what ran it, now or then.
    """

    engine: str
    cases: int
    constant: int
    formula: str
    worst_deviation: int
    wrong: int
    is_live: bool
    simulator: str

    @property
    def holds(self) -> bool:
        """Whether the model equals the RTL in every case, and the RTL the arithmetic."""
        return self.worst_deviation == 0 and self.wrong == 0


@cached
def recorded() -> Recorded:
    """The recorded cases, cycles and resources."""
    return Recorded.model_validate_json(RECORDED.read_text())


def rtl_bank_check(cache: Path | None = None) -> RtlCheck:
    """The bank model against the bank RTL: independent and lockstep, waves, ragged banks, row tails, empty rows.

    Args:
        cache: folder of built benches; None takes the user's cache.

    Raises:
        HarnessError: a simulator is installed but fails.
    """
    return _check("bank", recorded().bank, BANK_LATENCY, f"ceil(log2 lanes) + {BANK_LATENCY}", cache)


def rtl_column_check(cache: Path | None = None) -> RtlCheck:
    """The column recurrence against the column-FIFO RTL: one group and several, FIFO depths, all full flags, drain.

    Args:
        cache: folder of built benches; None takes the user's cache.

    Raises:
        HarnessError: a simulator is installed but fails.
    """
    formula = (
        f"ceil(rows / PEs of a group) + {COLUMN_DRAIN_LATENCY}; {COLUMN_LATENCY} to the last sum, before the drain"
    )
    return _check("column_fifo", recorded().column, COLUMN_DRAIN_LATENCY, formula, cache)


def _check(engine: str, cases: Sequence[Case], constant: int, formula: str, cache: Path | None) -> RtlCheck:
    simulator = find_simulator()
    # Without a simulator the recorded cycles stand for the RTL: only the model is checked then.
    answers = [case.answer() if simulator is None else case.run(cache, simulator) for case in cases]
    return RtlCheck(
        engine=engine,
        cases=len(cases),
        constant=constant,
        formula=formula,
        worst_deviation=max(_deviation(case.expected(), answer) for case, answer in zip(cases, answers, strict=True)),
        wrong=sum(answer.wrong for answer in answers),
        is_live=simulator is not None,
        simulator=recorded().tools["simulator"] if simulator is None else simulator_version(simulator),
    )


def _deviation(expected: RtlRun, answer: RtlRun) -> int:
    return max(
        abs(expected.cycles - answer.cycles),
        abs(expected.summed - answer.summed),
        abs(expected.high_water - answer.high_water),
    )


def _product(mask: Mask) -> Product:
    rows, cols = mask.shape
    return Product("rtl", (Part("weights", rows, cols, mask, int(np.count_nonzero(mask))),))
