"""The column engine: columns are broadcast to PEs with FIFOs, which work off the kept weights of their rows."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from math import exp, log, sqrt
from typing import ClassVar, Literal, Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from harness.api import Conditions, Engine, EngineShape, Line, Product, Run, even_cuts, hookimpl, keep_count

from .._drawn import Statistics, drawn, draws, mean_of, statistics
from .expectation import fullest_load
from .memory import ColumnLayout
from .recurrence import (
    FullFlag,
    TrailingRuns,
    broadcast_order,
    column_cycles,
    dense_counts,
    pe_counts,
    run_padding,
    scan_idle,
)

DRAIN = 6
"""Cycles of registers between the first broadcast and the last sum read out, beside one cycle per row of a PE."""

_SHARES = ((Fraction(1), 6), (Fraction(3, 4), 3), (Fraction(1, 2), 3))
"""Shares of the budget and shapes tried at each: RAM blocks may run out before multipliers do."""


_GROUPS = (*range(1, 17), *sorted({round(16 * 2 ** (step / 4)) for step in range(1, 49)}))
"""Groups that are searched: all up to 16, then in steps of a fifth."""


class ColumnFifo(Engine):
    """G groups of P PEs; a group broadcasts its columns, every PE queues them and takes one kept weight per cycle.

    Made for unstructured masks: a FIFO evens out what one column has more on one PE than on another, and only the sum
    over all columns must be balanced. Many PEs per group have few rows each, and then idle columns; many groups need
    copies of the accumulators, which are added as they are read out. Columns go to the groups, and rows to the PEs, in
    turn.

    Units: cycles.
    Assumes: RAM reads never collide; sums of one row that follow each other are forwarded.
    Source:
        Han et al., "EIE: Efficient Inference Engine on Compressed Deep Neural Network", ISCA 2016 (G = 1) and Han et
        al., "ESE: Efficient Speech Recognition Engine with Sparse LSTM on FPGA", FPGA 2017 (channels): the idea; the
        recurrence in cycles is our own.
    """

    name: ClassVar[str] = "column_fifo"

    pes: int | None = Field(default=None, gt=0, description="P, processing elements of a group; None searches")
    groups: int | None = Field(default=None, gt=0, description="G, groups of columns; None searches")
    channels: int = Field(default=1, gt=0, description="inputs served side by side; each has multipliers of its own")
    fifo_depth: int = Field(default=8, gt=0, le=65536, description="D, columns that a PE can queue")
    full_flag: FullFlag = Field(
        default="registered", description="whether the broadcast sees a FIFO's pop at once, a cycle later, or later yet"
    )
    index_bits: int | None = Field(
        default=None, gt=0, le=16, description="bits of a run of zeros between weights; None stores the row instead"
    )
    trailing_runs: TrailingRuns = Field(
        default="not_padded", description="whether the run behind a column's last weight is stored too"
    )
    empty_column_cycles: Literal[0, 1] = Field(default=1, description="cycles of a PE for a column without weights")
    skip: bool = Field(default=True, description="whether columns whose vector element is zero are left out")
    scan_width: int = Field(default=16, gt=0, description="vector elements searched per cycle for one that is not zero")
    activation_seed: int = Field(default=0, ge=0, description="draws which vector elements are zero")

    @model_validator(mode="after")
    def _deep_enough(self) -> Self:
        # Of a late flag one slot is kept free for what is already on its way.
        if self.full_flag == "late" and self.fifo_depth < 2:
            raise ValueError("a FIFO with a late full flag needs fifo_depth >= 2, got 1; set `fifo_depth` to 2 or more")
        return self

    def refusal(self, product: Product) -> str | None:
        """Rows that see inputs of their own: every input goes to all rows."""
        if product.groups == 1:
            return None
        return f"it hands every input to all rows, and those of {product.layer} see inputs of {product.groups} groups"

    @property
    def streams(self) -> int:
        """One input per channel."""
        return self.channels

    def shapes(self, products: Sequence[Product], budget: int) -> Sequence[EngineShape]:
        """For the whole budget and for parts of it, the groups that promise most."""
        if self.pes is not None and self.groups is not None:
            return [self._shape(self.pes, self.groups)]
        found: dict[tuple[int, int], None] = {}
        for share, tries in _SHARES:
            sizes = self._sizes(products, max(1, int(share * budget) // self.channels))
            # By what they promise: the recurrence itself runs on the few that are left.
            sizes.sort(key=lambda size: sum(_estimate(product, *size) * product.pixels for product in products))
            found |= dict.fromkeys(sizes[:tries])
        return [self._shape(pes, groups) for pes, groups in found]

    def _sizes(self, products: Sequence[Product], most: int) -> list[tuple[int, int]]:
        """PEs and groups of at most so many multipliers per channel."""
        rows, cols = max(product.rows for product in products), max(product.cols for product in products)
        limit = max(1, min(cols, most // (self.pes or 1)))
        doubled = [1 << power for power in range(limit.bit_length())]
        # Half steps between powers of two: a third more multipliers may be worth it.
        between = [3 << power for power in range(limit.bit_length()) if 3 << power <= limit]
        choices = [self.groups] if self.groups is not None else sorted({*doubled, *between, limit})
        if self.pes is not None:
            return [(self.pes, groups) for groups in choices]
        # Of PEs with as many rows each the fewest: the others would wait for them.
        return sorted({(_even(rows, max(1, most // groups)), groups) for groups in choices})

    def lines(self, products: Sequence[Product], budget: int) -> Sequence[Sequence[EngineShape]]:
        """For many numbers of groups, every number of PEs that saves one of them a row."""
        most = max(1, budget // self.channels)
        cols = max(product.cols for product in products)
        limit = max(1, min(cols, most // (self.pes or 1)))
        cuts = sorted({cut for product in products for cut in even_cuts(product.rows)})

        def line(groups: int) -> Line:
            sizes = [self.pes] if self.pes else [cut for cut in cuts if cut * groups <= most] or [1]
            return Line(sizes, lambda pes: self._shape(pes, groups))

        return [line(n) for n in ([self.groups] if self.groups else [n for n in _GROUPS if n <= limit])]

    def outline(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run | None:
        """What an unstructured mask of as many weights would take if no FIFO were ever full."""
        pes, groups = shape["pes"], shape["groups"]
        reduction = _reduction(product, pes)
        is_skipping = self.skip and product.activation_density < 1
        share = product.activation_density if is_skipping else 1.0
        padding = self._padding(product, pes)
        mean = _mean_load(product, pes, groups, padding) * share
        spread = _spread(product, pes, groups) * share
        # Rows that are pruned whole leave PEs more uneven than chance does.
        load = max(mean + spread, _fullest(product, pes) / groups * share)
        # Columns that are skipped take no dummy word; else every empty column of a PE has one.
        words = product.nnz + round(padding * pes * product.cols)
        words = words if is_skipping else max(words, round(mean * pes * groups))
        layout = self._layout(product, shape, has_pointers=is_skipping)
        memory = layout.sized(max(1, round(load)), words, conditions)
        parts = {
            "compute": Fraction(round(load)),
            "reduction": Fraction(reduction),
            "fill_drain": Fraction(DRAIN),
        }
        last = -(-product.rows // pes)
        return Run(
            parts, memory.rams, last=Fraction(round(load)), last_rows=min(product.rows, last * pes),
            stored_bits=Fraction(memory.stored_bits), stored_words=Fraction(memory.stored_words),
        )  # fmt: skip

    def _padding(self, product: Product, pes: int) -> float:
        """Entries that pad the indices of a PE's rows of one column, on average, if weights lie anywhere."""
        if self.index_bits is None:
            return 0.0
        stretch, rows = 1 << self.index_bits, product.rows / pes
        # A weight is padded once for every whole stretch of zeros before it; stretches fit into the rows so often.
        empty, fits = (1 - product.density) ** stretch, int(rows / stretch)
        if empty == 1:
            return float(fits * (self.trailing_runs == "padded"))
        whole = empty * (1 - empty**fits) / (1 - empty)  # empty + empty^2 + ..., so often
        longer = (whole - fits * empty ** (fits + 1)) / (1 - empty)  # the same, each times its power
        inner = product.density * (rows * whole - stretch * longer)
        return inner + whole * (self.trailing_runs == "padded")

    def _layout(self, product: Product, shape: EngineShape, *, has_pointers: bool) -> ColumnLayout:
        return ColumnLayout(
            rows=product.rows,
            cols=product.cols,
            pes=shape["pes"],
            groups=shape["groups"],
            index_bits=self.index_bits,
            has_pointers=has_pointers,
            fifo_depth=self.fifo_depth,
            channels=self.channels,
        )

    def fixed_shape(self, products: Sequence[Product], budget: int) -> EngineShape:
        """One group of all PEs, as far as there are rows."""
        groups = self.groups or 1
        rows = max(product.rows for product in products)
        return self._shape(self.pes or max(1, min(rows, budget // (groups * self.channels))), groups)

    def _shape(self, pes: int, groups: int) -> EngineShape:
        return EngineShape((("pes", pes), ("groups", groups)), pes * groups * self.channels)

    def least_cycles(self, product: Product, shape: EngineShape) -> int:
        """What all PEs together must do, or the longest broadcast, and the reduction."""
        pes, groups = shape["pes"], shape["groups"]
        live = self._live(product)
        # Columns that are not broadcast cost nothing, but which weights are theirs is not looked at for a bound.
        broadcasts = product.cols if live is None else int(live.sum())
        work = product.nnz if live is None else 0
        return max(-(-work // (pes * groups)), -(-broadcasts // groups)) + _reduction(product, pes)

    def simulate(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """Exact, by the recurrence over columns."""
        pes, groups = shape["pes"], shape["groups"]
        counts = dense_counts(product.rows, product.cols, pes) if product.is_dense else pe_counts(product.mask, pes)
        if self.index_bits is None or product.is_dense:
            entries = counts  # no run of zeros to pad
        else:
            # What pads a run of zeros is stored, read and multiplied like a weight.
            entries = counts + run_padding(product.mask, pes, self.index_bits, self.trailing_runs)
        live = self._live(product)
        order, lengths = broadcast_order(product.cols, groups, live)
        ran = column_cycles(
            # A row of the table is a step of the broadcast: all groups take their next column at once.
            np.ascontiguousarray(entries.T)[order],
            depth=self.fifo_depth,
            full_flag=self.full_flag,
            least=self.empty_column_cycles,
            idle=None if live is None else scan_idle(order, lengths, self.scan_width),
            lengths=lengths,
        )
        taken = slice(None) if live is None else live
        reduction = _reduction(product, pes)
        parts = {
            **ran.parts(int(counts[:, taken].sum(dtype=np.int64)), int(entries[:, taken].sum(dtype=np.int64))),
            "reduction": Fraction(reduction),
            "fill_drain": Fraction(ran.fill + DRAIN),
        }
        layout = self._layout(product, shape, has_pointers=live is not None)
        memory = layout.memory(entries, conditions)
        issue = sum(parts.values(), -parts["fill_drain"])
        return Run(
            parts=parts,
            rams=memory.rams,
            # Every sum is complete only when the last column is; reading out then delivers P rows per cycle.
            last=issue - (reduction - 1),
            last_rows=product.rows - (-(-product.rows // pes) - 1) * pes,
            stored_bits=Fraction(memory.stored_bits),
            stored_words=Fraction(memory.stored_words),
            busy=ran.busy.ravel(),
            fifo_high_water=ran.fifo_high_water,
            notes=self._notes(live),
        )

    def expect(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The load of the fullest PE in closed form where there is one; the rest on masks drawn from the statistics.

        Full FIFOs, the padding of runs and equally filled banks have no closed form.
        """
        return _expected(self, statistics(product), product.activation_density, shape, conditions)

    @property
    def loads_add_up(self) -> bool:
        """Whether a PE that never waits for a full FIFO is done after the sum over columns of max(weights, 1)."""
        return self.index_bits is None and self.empty_column_cycles == 1

    def _live(self, product: Product) -> NDArray[np.bool_] | None:
        """Columns that are broadcast; None where all are."""
        if not self.skip or product.activation_density >= 1:
            return None
        live = np.zeros(product.cols, dtype=np.bool_)
        # As many as a mask of that density keeps, drawn from a seed of the engine: cost must not vary from run to run.
        count = keep_count(product.cols, 1 - product.activation_density)
        live[np.random.default_rng((self.activation_seed, product.cols)).permutation(product.cols)[:count]] = True
        return live

    def _notes(self, live: NDArray[np.bool_] | None) -> tuple[str, ...]:
        if live is None:
            return ()
        zero = int((~live).sum())
        return (
            f"{zero} of {len(live)} vector elements are taken as zero and skipped, drawn with seed "
            f"{self.activation_seed}; which ones are zero in truth is not known",
        )


def _even(rows: int, most: int) -> int:
    """The fewest PEs with as few rows each as on `most` PEs."""
    per_pe = -(-rows // min(rows, most))
    return -(-rows // per_pe)


def _reduction(product: Product, pes: int) -> int:
    """Cycles that read the sums out, P rows at a time; those of several groups are added on the way."""
    return -(-product.rows // pes)


def _estimate(product: Product, pes: int, groups: int) -> float:
    """Cycles of an unstructured mask if no FIFO were ever full: a PE's mean load, and what the fullest has more."""
    return _mean_load(product, pes, groups) + _spread(product, pes, groups) + _reduction(product, pes)


def _mean_load(product: Product, pes: int, groups: int, padding: float = 0.0) -> float:
    """Cycles of a PE on average, with so many entries of padding a column: one without any entry takes one too."""
    each = product.density * product.rows / pes
    return product.cols / groups * (each + padding + exp(-each - padding))


def _fullest(product: Product, pes: int) -> int:
    """Weights on the PE that has most, all groups together; 0 where no masks are known."""
    if not product.has_masks:
        return 0
    known = _FULLEST.setdefault(product, {})
    if pes not in known:
        counts = product.row_counts
        padded = np.zeros(-(-len(counts) // pes) * pes, dtype=np.int64)
        padded[: len(counts)] = counts
        known[pes] = int(padded.reshape(-1, pes).sum(axis=0).max())
    return known[pes]


_FULLEST: WeakKeyDictionary[Product, dict[int, int]] = WeakKeyDictionary()
"""By product and PEs: shapes of as many PEs share it, whatever their groups."""


def _spread(product: Product, pes: int, groups: int) -> float:
    """What the fullest PE is likely to have more."""
    # The largest of n normal loads lies sqrt(2 ln n) deviations above the mean; the load's variance is about its mean.
    return sqrt(2 * log(pes * groups) * product.nnz / (pes * groups))


# By statistics, not by product: layers alike in them share the draws, which are most of the time.
@lru_cache(maxsize=256)
def _expected(
    engine: ColumnFifo, given: Statistics, activation_density: float, shape: EngineShape, conditions: Conditions
) -> Run:
    masks = [replace(drawn(given, seed), activation_density=activation_density) for seed in range(draws(given))]
    run = mean_of([engine.simulate(mask, shape, conditions) for mask in masks])
    is_skipping = engine.skip and activation_density < 1
    fullest = None if is_skipping else fullest_load(given, shape["pes"], shape["groups"])
    if fullest is None or not engine.loads_add_up:
        return run
    work = run.parts["compute"] + run.parts["empty_columns"]
    imbalance = max(Fraction(0), Fraction(fullest).limit_denominator(1 << 20) - work)
    # Of the drawn runs only the imbalance is replaced, for which a formula is known; waiting for FIFOs stays as drawn.
    gained = imbalance - run.parts["pe_imbalance"]
    return replace(run, parts={**run.parts, "pe_imbalance": imbalance}, last=run.last + gained)


@hookimpl
def register_engine() -> type[Engine]:
    """Offer this engine to the harness."""
    return ColumnFifo
