"""The bank engine: M processing elements of N lanes, one bank of a row per lane."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import ClassVar
from weakref import WeakKeyDictionary

from pydantic import Field

from harness.api import Conditions, Engine, EngineShape, Line, Product, Ram, Run, even_cuts, hookimpl

from .._batched import Batched
from .counts import BankMap, Banks, ExactRows, Issue, fold
from .expectation import ExpectedRows, bank_fills

_FREE_LANES = (*range(1, 65), *(round(64 * 2 ** (step / 16)) for step in range(1, 161)))
"""Lanes searched where banks are cut to the lanes: all of them, and beyond 64 in steps of some 4 %."""

_FEW_LANES = (1, 2, 4, 8, 16, 32, 64)
"""Lanes offered for a mask without equally filled banks: wide PEs wait for their fullest bank, narrow ones need more
copies of the vector. Which costs more depends on the mask and the device."""

_MOST_LANES = 32
"""Numbers of lanes tried for equally filled banks, those with the fewest cycles first."""

_SMALLEST_SHARE = 8
"""Shapes below this fraction (1/8) of the budget are not tried."""

_REGISTERS = 4
"""Cycles beyond the adder tree from the last issue to the last sum: RAM read, multiply, accumulate."""


class Bank(Batched):
    """M PEs of N lanes; a lane takes one kept weight of its bank per cycle, a row waits for its fullest bank.

    Made for bank-balanced masks, N:M and clustered banks, whose banks are filled equally; with one lane per PE it runs
    row-balanced masks without waiting. Any other mask runs too, and pays for its imbalance.

    Source:
        Cao et al., "Efficient and Effective Sparse LSTM on FPGA with Bank-Balanced Sparsity", FPGA 2019: the idea of a
        lane per bank; the array is our own.
    """

    name: ClassVar[str] = "bank"

    pes: int | None = Field(default=None, gt=0, description="M, processing elements; None searches")
    lanes: int | None = Field(default=None, gt=0, description="N, lanes of a processing element; None searches")
    banks: int | None = Field(default=None, gt=0, description="banks per row of every product; None takes the mask's")
    lockstep: bool = Field(default=False, description="whether all PEs wait for the slowest after every row")

    def refusal(self, product: Product) -> str | None:
        """A batch of a convolution."""
        return self._unbatched(product)

    def shapes(self, products: Sequence[Product], budget: int) -> Sequence[EngineShape]:
        """Lanes onto which the banks fold, or 1 to 64; with each the most PEs, then fewer for more groups of rows."""
        candidates = self._lane_choices(products, budget)
        for product in products:
            # Counted once for all lanes: a pass over the mask for each would be most of a search.
            if self._banks(product).even is None:
                self._banks(product).prepare(candidates)
        return [
            _shape(pes, lanes) for lanes in candidates for pes in self._pe_choices(products, max(1, budget // lanes))
        ]

    def lines(self, products: Sequence[Product], budget: int) -> Sequence[Sequence[EngineShape]]:
        """For every number of lanes that could pay, any number of PEs."""
        rows = max(product.rows for product in products)

        def line(lanes: int) -> Line:
            sizes = [self.pes] if self.pes else range(1, max(1, min(rows, budget // lanes)) + 1)
            return Line(sizes, lambda pes: _shape(pes, lanes))

        return [line(lanes) for lanes in self._all_lanes(products, max(1, budget // (self.pes or 1)))]

    def _all_lanes(self, products: Sequence[Product], most: int) -> list[int]:
        """All where banks are cut to the lanes, up to 64 and then ever wider steps; else those that save a wave."""
        if self.lanes is not None:
            return [self.lanes]
        # Banks that are asked for cap the lanes; beyond 64 only those onto which they fold evenly save a wave.
        if self.banks is not None:
            return sorted(lanes for lanes in {*range(1, 65), *even_cuts(self.banks)} if lanes <= min(most, self.banks))
        banks = [self._banks(product) for product in products]
        # More lanes than banks in all have nothing to do.
        widest = min(most, max(sum(count or 0 for count in each.natural) for each in banks))
        free = max((p.cols for p, each in zip(products, banks, strict=True) if None in each.natural), default=0)
        choices = {*range(1, widest + 1), *(lanes for lanes in _FREE_LANES if lanes <= min(most, max(free, 1)))}
        if free:
            return sorted(choices)
        # Of equally fast ones the narrowest: more lanes only take more copies of the vector.
        fastest: dict[tuple[int | None, ...], int] = {}
        for lanes in sorted(choices):
            fastest.setdefault(tuple(each.even_row(lanes) for each in banks), lanes)
        return sorted(fastest.values())

    def fixed_shape(self, products: Sequence[Product], budget: int) -> EngineShape:
        """As square as powers of two allow."""
        # About the root of the budget: 32 for 1,024.
        lanes = self.lanes or 1 << (budget.bit_length() // 2)
        return _shape(self.pes or max(1, budget // lanes), lanes)

    def least_cycles(self, product: Product, shape: EngineShape) -> int:
        """The mean over PEs of what their rows take."""
        even = self._banks(product).even_row(shape["lanes"])
        # Equal rows: exact, and not only a bound.
        if even is not None:
            return -(-product.rows // shape["pes"]) * even * self.batch
        if not product.has_masks:
            return -(-product.nnz // shape.multipliers) * self.batch
        return -(-self._banks(product).least(shape["lanes"]) // shape["pes"]) * self.batch

    def outline(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run | None:
        """The mean of some rows, and what the fullest PE is likely to have more; exact for equally filled banks."""
        banks, pes, lanes = self._banks(product), shape["pes"], shape["lanes"]
        each = banks.outline(lanes)
        groups = -(-product.rows // pes)
        longest = each.longest(groups, pes)
        cycles = Fraction(round(longest))
        words = Fraction(round(each.mean * product.rows))
        # The fullest PE's words are as many as its cycles: one word a cycle.
        issue = Issue(cycles, Fraction(round(each.mean)), round(longest), words, {"compute": cycles})
        return self._run(product, shape, conditions, issue, varies=each.deviation > 0)

    def simulate(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """Exact, in closed form: the sum over waves of the fullest bank, row by row."""
        lanes = shape["lanes"]
        issue = self._exact(product, lanes).issue(shape["pes"], lockstep=self.lockstep)
        return self._run(product, shape, conditions, issue, varies=self._exact(product, lanes).varies)

    def expect(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """Expected: equally filled banks as they are, all others binomial with the density of their tensor."""
        banks = self._banks(product)
        fills = bank_fills(banks, banks.map(shape["lanes"]))
        rows = ExpectedRows(fills, shape["lanes"], product.rows, product.nnz)
        issue = rows.issue(shape["pes"], lockstep=self.lockstep)
        return self._run(product, shape, conditions, issue, varies=rows.varies)

    def bank_map(self, product: Product, lanes: int) -> BankMap:
        """How the columns of a product are cut into banks for PEs with so many lanes, and why so."""
        return self._banks(product).map(lanes)

    def _banks(self, product: Product) -> Banks:
        # By what was asked for too: engines of other `banks` share a product.
        known = _BANKS.setdefault(product, {})
        if self.banks not in known:
            known[self.banks] = Banks(product, self.banks)
        return known[self.banks]

    def _exact(self, product: Product, lanes: int) -> ExactRows:
        return self._banks(product).exact(lanes)

    def _run(self, product: Product, shape: EngineShape, conditions: Conditions, issue: Issue, *, varies: bool) -> Run:
        pes, lanes = shape["pes"], shape["lanes"]
        bank_map = self.bank_map(product, lanes)
        # Lanes beyond the banks never have a weight, and get no memory.
        used, waves = min(lanes, bank_map.count), -(-bank_map.count // lanes)
        # A dense bank's k-th weight is its k-th column.
        index_bits = 0 if product.is_dense else (bank_map.longest - 1).bit_length()
        # Where counts vary, a word says whether it ends its row and which wave it belongs to.
        flags = 1 + (waves - 1).bit_length() if varies else 0
        width = used * (conditions.weight_bits + index_bits) + flags
        # An expectation of rows that are all alike may lie a little below what the weights take at the very least.
        words = max(issue.words, Fraction(product.nnz, used))
        # The next vector is written while this one is read; of a grouped convolution each PE holds all groups' inputs.
        vector_depth = 2 * waves * bank_map.longest * product.groups
        run = Run(
            parts={**issue.parts, "fill_drain": Fraction(fill_drain(lanes))},
            rams=(
                Ram("weights", width, issue.depth, pes, stacked=True),
                # Every lane has a copy of its bank's vector, so that all lanes read at once.
                Ram("vector", conditions.activation_bits, vector_depth, pes * used, small=True),
            ),
            last=issue.last,
            # Rows of the last, perhaps incomplete group: the element-wise part waits for these.
            last_rows=product.rows - (-(-product.rows // pes) - 1) * pes,
            stored_bits=words * width,
            stored_words=words * used,
            busy=issue.busy,
            notes=(f"{bank_map.count} banks of at most {bank_map.longest}: {bank_map.why}",),
        )
        return self._for_all(run, product, pes, conditions)

    def _lane_choices(self, products: Sequence[Product], budget: int) -> list[int]:
        if self.lanes is not None:
            return [self.lanes]
        most = max(1, budget // (self.pes or 1))
        if self.banks is not None:
            return sorted(fold(self.banks, most))
        choices: set[int] = set()
        for product in products:
            natural = self._banks(product).natural
            naturals = [count for count in natural if count is not None]
            # Parts side by side are folded as one row, each alone and all together.
            for count in {*naturals, sum(naturals)} - {0}:
                choices |= fold(count, most)
            if len(naturals) < len(natural):
                choices |= {lanes for lanes in _FEW_LANES if lanes <= most}

        def cycles(lanes: int) -> int:
            # Products whose rows vary count nothing here: their lanes are few (`_FEW_LANES`).
            groups = [-(-product.rows // max(1, min(product.rows, most // lanes))) for product in products]
            rows = [self._banks(product).even_row(lanes) or 0 for product in products]
            return sum(each * row for each, row in zip(groups, rows, strict=True))

        return sorted(sorted(choices, key=cycles)[:_MOST_LANES])

    def _pe_choices(self, products: Sequence[Product], most: int) -> Iterator[int]:
        """The most PEs that the budget allows, then the fewest for every larger number of row groups."""
        if self.pes is not None:
            return iter([self.pes])
        rows = max(product.rows for product in products)
        top = max(1, min(most, rows))
        groups = range(-(-rows // top), -(-rows // -(-top // _SMALLEST_SHARE)) + 1)
        return iter(sorted({top} | {-(-rows // count) for count in groups}, reverse=True))


def fill_drain(lanes: int) -> int:
    """Cycles that fill and drain the pipeline once: the adder tree and the registers around it."""
    return (lanes - 1).bit_length() + _REGISTERS


def _shape(pes: int, lanes: int) -> EngineShape:
    return EngineShape((("pes", pes), ("lanes", lanes)), pes * lanes)


_BANKS: WeakKeyDictionary[Product, dict[int | None, Banks]] = WeakKeyDictionary()
"""Bank counts, kept as long as their product: many shapes share them."""


@hookimpl
def register_engine() -> type[Engine]:
    """Offer this engine to the harness."""
    return Bank
