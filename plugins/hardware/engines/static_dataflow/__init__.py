"""A fully unrolled circuit: every kept weight is wired, a zero vanishes, and a new input enters every cycle."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal, Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from harness.api import Conditions, Engine, EngineShape, Logic, Mask, Part, Product, Run, hookimpl

from .._drawn import drawn
from .circuit import Circuit, circuit
from .digits import Integers, digit_counts, drawn_values
from .solver import solved, solver_label, why_missing

_MOST_DIGITS = 60_000
"""Digits of a product that are all put into a circuit; of larger ones some rows stand for all."""

_SAMPLED_DIGITS = 20_000
"""And so many digits those rows have, about."""

_SOLVED_DIGITS = 20_000
"""Digits of a product that a solver is given: its time grows with their square, so many take about ten seconds."""


@dataclass(frozen=True)
class _Size:
    """What the circuit of one product takes, and how it was found."""

    adders: int
    luts: int
    registers: int
    stages: int
    digits: int
    notes: tuple[str, ...]


class StaticDataflow(Engine):
    """Every weight is a constant of the circuit: shifts and adders, no multiplier, no weight memory, one input a cycle.

    A row's output is the sum of the canonical signed digits of its weights; pairs of digits that several rows share are
    added once. A zero vanishes and what is left costs what its digits cost, wherever it stands: equally filled banks
    buy nothing, blocks share more. Latency is the tree's depth, with registers every `adders_per_stage` adders; the
    initiation interval is 1, so that convolutions take a cycle per position and layers work at the same time.

        T = positions + ceil(adders on the longest path / adders_per_stage)

    Assumes: one LUT per bit of a sum and one flip-flop per bit that waits; no routing, so that LUTs are indicative and
        fit is optimistic. An ALM holds two bits of a sum: LUTs counted as ALMs are pessimistic. The element-wise part
        of an LSTM is that of the other engines. Without values, those that magnitude pruning leaves of normally
        distributed weights are drawn. Above 60,000 digits some rows stand for all and share nothing: an upper bound.

    Source:
        Shared pairs of canonical signed digits: Hartley, IEEE TCAS-II 43, 1996. The style is that of hls4ml and of FINN
        at full parallelism.
    """

    name: ClassVar[str] = "static_dataflow"
    unrolled: ClassVar[bool] = True
    reads_values: ClassVar[bool] = True

    adders_per_stage: int = Field(default=3, gt=0, description="adders between two registers (assumed)")
    share: bool = Field(default=True, description="whether pairs of digits that several rows have are added once")
    solver: Literal["own", "alkaid"] = Field(
        default="own", description="who looks for the circuit; `alkaid` where it is installed"
    )

    @model_validator(mode="after")
    def _solvers_share(self) -> Self:
        if self.solver != "own" and not self.share:
            raise ValueError(
                f"`solver: {self.solver}` adds shared pairs once, got `share: false`; leave one of them out"
            )
        return self

    def refusal(self, product: Product) -> str | None:
        """Refuse where the solver that is asked for is not installed."""
        return None if self.solver == "own" else why_missing()

    def shapes(self, products: Sequence[Product], budget: int) -> Sequence[EngineShape]:
        """The one that there is: a constant multiplier for every kept weight of all products, whatever the budget."""
        return [self.fixed_shape(products, budget)]

    def fixed_shape(self, products: Sequence[Product], budget: int) -> EngineShape:
        """All kept weights."""
        kept = max(1, sum(product.nnz for product in products))
        return EngineShape((("weights", kept),), kept)

    def lines(self, products: Sequence[Product], budget: int) -> Sequence[Sequence[EngineShape]]:
        """One line of one shape."""
        return [self.shapes(products, budget)]

    def simulate(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The circuit of the real masks, and of the real values where they are known."""
        return self._run(product, shape, conditions)

    def expect(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The circuit of drawn masks and values with these statistics."""
        return self._run(product, shape, conditions, is_told=not product.is_dense)

    def _run(self, product: Product, shape: EngineShape, conditions: Conditions, *, is_told: bool = False) -> Run:
        size = self._size(product, conditions, is_told=is_told)
        busy = Fraction(product.nnz, shape.multipliers)
        return Run(
            parts={
                "compute": busy,
                # Every layer has a circuit of its own, and a time step visits one after another.
                "other_layers": 1 - busy,
                "fill_drain": Fraction(size.stages),
            },
            last=Fraction(1),
            logic=Logic(lut=size.luts, ff=size.registers),
            notes=size.notes,
        )

    def _size(self, product: Product, conditions: Conditions, *, is_told: bool) -> _Size:
        """The circuit's size, found once for a product and its widths."""
        known = _SIZES.setdefault(product, {})
        bits = conditions.value_bits or conditions.weight_bits, conditions.activation_bits
        place = *bits, self.adders_per_stage, self.share, self.solver, is_told
        if place not in known:
            known[place] = self._counted(product, *bits, is_told=is_told)
        return known[place]

    def _circuit(self, values: Integers, input_bits: int, *, share: bool) -> tuple[Circuit, tuple[str, ...]]:
        """The circuit of some rows, and who found it where that is not our own search."""
        if self.solver == "own":
            return circuit(values, input_bits, share=share), ()
        digits = int(digit_counts(values).sum())
        if not share or digits > _SOLVED_DIGITS:
            return circuit(values, input_bits, share=share), (
                f"more than {_SOLVED_DIGITS} digits: found without {self.solver}, which would take long",
            )
        return solved(values, input_bits), (f"found by {solver_label()}, its adders counted as ours are",)

    def _counted(self, product: Product, bits: int, input_bits: int, *, is_told: bool) -> _Size:
        per_weight = float(digit_counts(drawn_values(np.ones((1, 4096), np.bool_), bits, product.density)).mean())
        expected = product.nnz * per_weight
        most = _MOST_DIGITS if expected > _MOST_DIGITS else 0
        rows = np.arange(product.rows)
        if most:
            # Without shared pairs rows do not depend on each other, so that some may stand for all.
            count = min(product.rows, max(1, int(product.rows * _SAMPLED_DIGITS / expected)))
            rows = np.linspace(0, product.rows - 1, count).round().astype(np.intp)
        values, notes = _values(product, rows, bits, is_told=is_told)
        made, by = self._circuit(values, input_bits, share=self.share and not most)
        notes += by
        times = Fraction(product.rows, len(rows))
        if most and self.share:
            notes += (
                f"more than {_MOST_DIGITS} digits: {len(rows)} of {product.rows} rows stand for all, without shared "
                "pairs: an upper bound",
            )
        adders, luts = round(made.adders * times), round(made.luts * times)
        digits = round(made.digits * times)
        told = f"{adders} adders of {luts} bits for {digits} digits of {product.nnz} weights"
        registers = round(made.registers(self.adders_per_stage) * times)
        return _Size(adders, luts, registers, made.stages(self.adders_per_stage), digits, (told, *notes))


_SIZES: WeakKeyDictionary[Product, dict[tuple[object, ...], _Size]] = WeakKeyDictionary()
"""Circuits that were counted, as long as their product lives: a search, its baselines and a report ask again."""


def _values(product: Product, rows: NDArray[np.intp], bits: int, *, is_told: bool) -> tuple[Integers, tuple[str, ...]]:
    """The integers of some rows, and what was taken for granted about them."""
    if is_told or not product.has_masks:
        return _drawn_rows(product, rows, bits)
    if all(part.values is not None for part in product.parts):
        return np.hstack([part.values[rows] for part in product.parts if part.values is not None]), ()
    # Of an LSTM the same tensor rows of all parts: a circuit does not mind the order of rows.
    masks = [_mask_of(part)[rows] for part in product.parts]
    mask = masks[0] if len(masks) == 1 else np.hstack(masks)
    drawn_note = "values are drawn: those that magnitude pruning leaves of normally distributed weights"
    return drawn_values(mask, bits, product.density), (drawn_note,)


def _drawn_rows(product: Product, rows: NDArray[np.intp], bits: int) -> tuple[Integers, tuple[str, ...]]:
    """So many rows of a mask with the statistics of the product, and values for it."""
    parts = tuple((part.cols, round(part.kept * len(rows) / part.rows), part.banks) for part in product.parts)
    mask = drawn((len(rows), parts), 0).mask
    return drawn_values(mask, bits, product.density), ("places and values are drawn from statistics",)


def _mask_of(part: Part) -> Mask:
    return np.ones((part.rows, part.cols), np.bool_) if part.mask is None else part.mask


@hookimpl
def register_engine() -> type[Engine]:
    """Offer this engine to the harness."""
    return StaticDataflow
