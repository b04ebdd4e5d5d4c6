"""The N:M engine: N of every M weights of a row, each with a small index that picks its input."""

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from harness.api import Conditions, Engine, EngineShape, Line, Part, Product, Ram, Run, even_cuts, hookimpl

from .._batched import Batched
from ..bank import fill_drain
from .groups import GROUPS, group_fill, mean_fill, most_in_a_group, smallest_group

_BUDGETS = ((Fraction(1), 10), (Fraction(3, 4), 4), (Fraction(1, 2), 4), (Fraction(1, 4), 2))
"""Shares of the budget, and how many of the fastest shapes within each are tried."""


class NM(Batched):
    """M PEs of N lanes; a lane takes the kept weights of its group of m inputs, n cycles for every group.

    It is the bank engine with banks of m columns and k = n, less what its regularity saves: all PEs read the same
    groups at the same time, so one copy of the vector serves them all, and an m-to-1 multiplexer in every lane picks
    the input. The ratio n:m is built in. Groups with fewer weights are padded to n: on an engine for 2:4 a 1:4 mask
    takes as long as a 2:4 mask. Groups with more, those of a dense tensor, pass ceil(kept / n) times.

    Groups begin anew with every tensor; the last group of a row may have fewer columns, never more weights.

    Assumes: one copy of the vector reaches all PEs in a cycle, which a large array needs registers for.

    Source:
        Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv 2104.08378: the format; the array is our own.
    """

    name: ClassVar[str] = "n_m"

    pes: int | None = Field(default=None, gt=0, description="processing elements, rows at a time; None searches")
    lanes: int | None = Field(default=None, gt=0, description="lanes of a PE, groups at a time; None searches")
    n: int | None = Field(default=None, gt=0, description="most weights of a group; None takes the masks'")
    m: int | None = Field(default=None, gt=1, description="columns of a group; None takes the masks', up to 32")

    @model_validator(mode="after")
    def _ratio(self) -> "NM":
        if (self.n is None) != (self.m is None):
            raise ValueError(f"n_m takes `n` and `m` together, got n={self.n} and m={self.m}; give both or neither")
        if self.n is not None and self.m is not None and self.n > self.m:
            raise ValueError(f"n_m keeps n of every m weights, got n={self.n} and m={self.m}; set `n` to at most `m`")
        return self

    def refusal(self, product: Product) -> str | None:
        """A part that is neither dense nor n:m; a batch of a convolution."""
        return self._unbatched(product) or next(
            (why for part in product.parts if (why := self._refusal(part)) is not None), None
        )

    def shapes(self, products: Sequence[Product], budget: int) -> Sequence[EngineShape]:
        """The fastest splits of the budget, and of parts of it, into rows and groups."""
        n, m = self._ratio_of(products)
        found: dict[EngineShape, None] = {}
        # Within parts of the budget as well: the largest array may need more memory than there is.
        for share, number in _BUDGETS:
            for pes, lanes in self._splits(products, m, max(1, int(budget * share)))[:number]:
                found[_shape(pes, lanes, n, m)] = None
        return list(found)

    def lines(self, products: Sequence[Product], budget: int) -> Sequence[Sequence[EngineShape]]:
        """For every number of groups at a time that saves a wave, any number of rows."""
        n, m = self._ratio_of(products)
        rows, most = max(product.rows for product in products), max(1, budget // (self.pes or 1))
        groups = {_groups(product, m) for product in products}
        lanes = {self.lanes} if self.lanes else {cut for count in groups for cut in even_cuts(count, most)}

        def line(lanes: int) -> Line:
            sizes = [self.pes] if self.pes else range(1, max(1, min(rows, budget // lanes)) + 1)
            return Line(sizes, lambda pes: _shape(pes, lanes, n, m))

        return [line(each) for each in sorted(lanes)]

    def fixed_shape(self, products: Sequence[Product], budget: int) -> EngineShape:
        """As square as powers of two allow."""
        # About the root of the budget: 32 for 1,024.
        lanes = self.lanes or 1 << (budget.bit_length() // 2)
        return _shape(self.pes or max(1, budget // lanes), lanes, *self._ratio_of(products))

    def least_cycles(self, product: Product, shape: EngineShape) -> int:
        """Exactly the issue cycles."""
        return _turns(product, shape) * _row_cycles(_slots(product, shape), shape["lanes"]) * self.batch

    def simulate(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """ceil(rows / M) times the cycles of a row: the same for every mask of the ratio."""
        pes, lanes, rows, m = shape["pes"], shape["lanes"], product.rows, shape["m"]
        slots = _slots(product, shape)
        # Every row takes as long: the ratio alone decides.
        each, used, waves = _row_cycles(slots, lanes), min(lanes, len(slots)), -(-len(slots) // lanes)
        depth, reserved = _turns(product, shape) * each, rows * int(slots.sum())
        index_bits = (m - 1).bit_length()
        values = Fraction(rows * each * used)
        run = Run(
            parts={
                "compute": Fraction(product.nnz, pes * lanes),
                "zeros": Fraction(reserved - product.nnz, pes * lanes),
                "lane_mismatch": Fraction(rows * each * lanes - reserved, pes * lanes),
                "tail": depth - Fraction(rows * each, pes),
                "fill_drain": Fraction(fill_drain(lanes)),
            },
            rams=(
                Ram("weights", used * (conditions.weight_bits + index_bits), depth, pes, stacked=True),
                # A whole group is read at once; the next vector is written while this one is read.
                Ram("vector", m * conditions.activation_bits, 2 * waves * product.groups, used, small=True),
            ),
            last=Fraction(each),
            last_rows=(rows // product.groups - 1) % pes + 1,
            stored_bits=values * (conditions.weight_bits + index_bits),
            stored_words=values,
            busy=np.bincount(np.arange(rows) % pes, minlength=pes) * each,
            notes=(f"built for {shape['n']} of every {m} weights: sparser groups take as long",),
        )
        return self._for_all(run, product, pes, conditions)

    def expect(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The same: the ratio alone decides."""
        return self.simulate(product, shape, conditions)

    def _refusal(self, part: Part) -> str | None:
        if part.is_dense:
            return None
        if self.n is not None and self.m is not None:
            fill = group_fill(part, self.m)
            # Without a mask only the mean is known: a tensor that keeps more on average certainly does not fit.
            most = mean_fill(part, self.m) if fill is None else fill.most
            if most <= self.n:
                return None
            return f"it is set to {self.n} of every {self.m} weights, and {part.tensor} keeps up to {most} of {self.m}"
        if smallest_group(part) is not None:
            return None
        needs = f"it runs masks with N of every {', '.join(map(str, GROUPS[:-1]))} or {GROUPS[-1]} weights"
        # 4 as an example for the message: 2:4 is what users mean most often.
        fill = group_fill(part, 4)
        if fill is None:
            return f"{needs}, and of {part.tensor} it is known only how many are kept; set its `n` and `m`"
        return f"{needs}, and {part.tensor} keeps {fill.least} to {fill.most} of 4"

    def _ratio_of(self, products: Sequence[Product]) -> tuple[int, int]:
        """The ratio that serves all masks: the largest M that one of them needs, and the largest N at that M."""
        if self.n is not None and self.m is not None:
            return self.n, self.m
        parts = [part for product in products for part in product.parts if not part.is_dense]
        m = max((smallest_group(part) or 1 for part in parts), default=1)
        # Dense alone asks for no ratio; 2:4 hardware is the one that is built.
        m = m if m > 1 else 4
        return max((most_in_a_group(part, m) for part in parts), default=m), m

    def _splits(self, products: Sequence[Product], m: int, budget: int) -> list[tuple[int, int]]:
        """(pes, lanes) within a budget, fastest first, of equally fast ones those with fewer multipliers."""
        rows = np.array([product.rows for product in products])
        groups = np.array([_groups(product, m) for product in products])
        weight = np.array([product.pixels * max(1, product.nnz) / product.size for product in products])
        # More lanes than groups never work.
        lanes = np.arange(1, max(1, min(budget // (self.pes or 1), int(groups.max()))) + 1)
        lanes = lanes if self.lanes is None else np.array([self.lanes])
        pes = np.clip(budget // lanes, 1, rows.max()) if self.pes is None else np.full(len(lanes), self.pes)
        # Of the same number of row groups, the fewest PEs.
        pes = pes if self.pes is not None else -(-rows.max() // -(-rows.max() // pes))
        cycles = (-(-rows // pes[:, None]) * -(-groups // lanes[:, None]) * weight).sum(axis=1)
        # The last key is the first one that counts: cycles, then multipliers.
        order = np.lexsort((pes * lanes, cycles)).tolist()
        return [(int(pes[index]), int(lanes[index])) for index in order]


def _turns(product: Product, shape: EngineShape) -> int:
    """Rows at a time, over and over; rows that see other inputs wait for their own turn."""
    return product.groups * -(-product.rows // (product.groups * shape["pes"]))


def _groups(product: Product, m: int) -> int:
    return sum(-(-part.cols // m) for part in product.parts)


def _slots(product: Product, shape: EngineShape) -> NDArray[np.int64]:
    """Cycles of every group of a row: n for every pass."""
    n, m = shape["n"], shape["m"]
    # A part that keeps more than n of a group takes it in several passes.
    return np.concatenate(
        [np.full(-(-part.cols // m), n * -(-most_in_a_group(part, m) // n)) for part in product.parts]
    )


def _row_cycles(slots: NDArray[np.int64], lanes: int) -> int:
    """Waves of as many groups as there are lanes; a wave waits for its fullest."""
    return int(np.maximum.reduceat(slots, np.arange(0, len(slots), lanes)).sum())


def _shape(pes: int, lanes: int, n: int, m: int) -> EngineShape:
    return EngineShape((("pes", pes), ("lanes", lanes), ("n", n), ("m", m)), pes * lanes)


@hookimpl
def register_engine() -> type[Engine]:
    """Offer this engine to the harness."""
    return NM
