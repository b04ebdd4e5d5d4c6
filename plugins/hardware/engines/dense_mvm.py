"""The dense baseline: a dot-product array that multiplies every weight, kept or not."""

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

from pydantic import Field

from harness.api import Conditions, Engine, EngineShape, Line, Product, Ram, Run, even_cuts, hookimpl

from .bank import fill_drain

_TRIES = 64
"""Shapes that are worth laying out in full, fastest first."""


class DenseMvm(Engine):
    """M rows times N inputs per cycle, every weight stored and multiplied: what a sparse engine has to beat at batch 1.

    One copy of the vector serves all rows, no weight has an index, and zeros gain nothing.
    """

    name: ClassVar[str] = "dense_mvm"

    pes: int | None = Field(default=None, gt=0, description="M, rows at a time; None searches")
    lanes: int | None = Field(default=None, gt=0, description="N, inputs at a time; None searches")

    def shapes(self, products: Sequence[Product], budget: int) -> Sequence[EngineShape]:
        """The fastest splits of the budget into rows and inputs."""
        rows, cols = max(product.rows for product in products), max(product.cols for product in products)
        if self.lanes is not None:
            choices = [self.lanes]
        elif self.pes is not None:
            choices = [max(1, min(budget // self.pes, cols))]
        else:
            # More lanes than columns never work.
            choices = list(range(1, min(budget, cols) + 1))
        shapes = [_shape(self.pes or max(1, min(budget // lanes, rows)), lanes) for lanes in choices]

        # At equal budgets only the cycles differ, so they order the shapes without laying any out.
        def issue_cycles(shape: EngineShape) -> int:
            return sum(_groups(product, shape) * _waves(product, shape) * product.pixels for product in products)

        return sorted(shapes, key=issue_cycles)[:_TRIES]

    def lines(self, products: Sequence[Product], budget: int) -> Sequence[Sequence[EngineShape]]:
        """For every number of inputs at a time that saves a wave, any number of rows."""
        rows = max(product.rows for product in products)
        most = max(1, budget // (self.pes or 1))
        lanes = {self.lanes} if self.lanes else {cut for product in products for cut in even_cuts(product.cols, most)}
        return [_line(self.pes, each, min(rows, budget // each)) for each in sorted(lanes)]

    def fixed_shape(self, products: Sequence[Product], budget: int) -> EngineShape:
        """As square as powers of two allow."""
        lanes = self.lanes or 1 << (budget.bit_length() // 2)
        return _shape(self.pes or max(1, budget // lanes), lanes)

    def least_cycles(self, product: Product, shape: EngineShape) -> int:
        """Exactly the issue cycles."""
        return _groups(product, shape) * _waves(product, shape)

    def simulate(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """ceil(rows / M) * ceil(inputs / N) cycles, whatever the mask."""
        pes, lanes = shape["pes"], shape["lanes"]
        depth = _groups(product, shape) * _waves(product, shape)
        # Lanes beyond the columns store nothing, but are there: they are paid for as multipliers.
        used = min(lanes, product.cols)
        compute = Fraction(product.nnz, pes * lanes)
        every = Fraction(product.size, pes * lanes)
        words = Fraction(product.rows * _waves(product, shape))
        return Run(
            parts={
                "compute": compute,
                "zeros": every - compute,
                "tail": depth - every,
                "fill_drain": Fraction(fill_drain(lanes)),
            },
            rams=(
                Ram("weights", used * conditions.weight_bits, depth, pes, stacked=True),
                Ram(
                    "vector", conditions.activation_bits, 2 * product.groups * _waves(product, shape), used, small=True
                ),
            ),
            last=Fraction(_waves(product, shape)),
            last_rows=(product.rows // product.groups - 1) % pes + 1,
            stored_bits=words * used * conditions.weight_bits,
            stored_words=words * used,
        )

    def expect(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The same: nothing depends on where the zeros are."""
        return self.simulate(product, shape, conditions)


def _groups(product: Product, shape: EngineShape) -> int:
    """Rows at a time, over and over; rows that see other inputs wait for their own turn."""
    return product.groups * -(-product.rows // (product.groups * shape["pes"]))


def _waves(product: Product, shape: EngineShape) -> int:
    return -(-product.cols // shape["lanes"])


def _line(pes: int | None, lanes: int, most: int) -> Line:
    """One or any number of PEs, at most `most`, of so many lanes."""
    return Line([pes] if pes else range(1, max(1, most) + 1), lambda size: _shape(size, lanes))


def _shape(pes: int, lanes: int) -> EngineShape:
    return EngineShape((("pes", pes), ("lanes", lanes)), pes * lanes)


@hookimpl
def register_engine() -> type[Engine]:
    """Offer this engine to the harness."""
    return DenseMvm
