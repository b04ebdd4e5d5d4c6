"""A streaming engine for compressed rows: (value, index) pairs from memory, several channels, several pairs each."""

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.api import Conditions, Engine, EngineShape, Line, Product, Ram, Run, hookimpl

from .stream import binomial_deviation, expected_largest

_FIXED_CHANNELS = 16
"""Matrix channels of the published design."""


class CsrStream(Engine):
    """Channels read pairs of value and index from off-chip memory; row r belongs to channel r mod channels.

        T = T0 + pairs of the fullest channel * (1 + padding) / (pairs per cycle * occupancy), or what memory delivers

    Any mask runs. The start-up time makes it a poor choice for small matrices, and nothing stays on chip between runs.

    Assumes: `start_up_us` and `occupancy` (bank conflicts, and filling of the format) are those of HiSparse, fitted on
        its 50 % and 95 % points (0.244 ms; 16.0 of a peak of 30.3 billion pairs per second), and carry over to other
        masks and devices. Within a channel, pairs are taken to spread evenly.

    Source:
        Du et al., HiSparse, FPGA 2022, table 6 (points) and sections 2 and 6.1 (channels, pairs per cycle).
    """

    name: ClassVar[str] = "csr_stream"
    validated_by: ClassVar[str] = "HiSparse at four sparsities; gate `hisparse` of `harness hardware validate`"
    streams_weights: ClassVar[bool] = True

    channels: int | None = Field(default=None, gt=0, description="memory channels; None searches")
    pairs_per_cycle: int = Field(default=8, gt=0, description="pairs that a channel takes per cycle")
    pair_bits: int = Field(default=64, gt=0, description="bits of a stored value and its index")
    occupancy: float = Field(default=0.527, gt=0, le=1, description="share of the peak rate that is reached (fitted)")
    padding: float = Field(default=0.0, ge=0, description="stored pairs beyond the kept weights, as a fraction of them")
    start_up_us: float = Field(default=244.0, ge=0, description="time per product that no pair explains (fitted)")

    def shapes(self, products: Sequence[Product], budget: int) -> Sequence[EngineShape]:
        """As many channels as the budget has, and halves of that."""
        if self.channels is not None:
            return [self._shape(self.channels, budget)]
        most = max(1, min(budget // self.pairs_per_cycle, max(product.rows for product in products)))
        counts = []
        while most:
            counts.append(most)
            most //= 2
        return [self._shape(count, budget) for count in counts]

    def lines(self, products: Sequence[Product], budget: int) -> Sequence[Sequence[EngineShape]]:
        """Any number of channels."""
        most = max(1, min(budget // self.pairs_per_cycle, max(product.rows for product in products)))
        sizes = [self.channels] if self.channels is not None else range(1, most + 1)
        return [Line(sizes, lambda channels: self._shape(channels, budget))]

    def fixed_shape(self, products: Sequence[Product], budget: int) -> EngineShape:
        """The 16 channels of the published design, or as many as the budget has."""
        return self._shape(self.channels or max(1, min(_FIXED_CHANNELS, budget // self.pairs_per_cycle)), budget)

    def least_cycles(self, product: Product, shape: EngineShape) -> int:
        """What every channel takes if all have equally many pairs, without the start-up."""
        stretch = (1 + self.padding) / (shape["pairs_per_cycle"] * self.occupancy)
        # Rounded down by more than a float errs: a bound must not lie above what is counted.
        return int(product.nnz / shape["channels"] * stretch * (1 - 1e-9))

    def simulate(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The time of the channel with most pairs, counted on the mask; the rate itself is the fitted one."""
        rows = product.row_counts.astype(np.int64)
        channels = shape["channels"]
        padded = np.zeros(-(-len(rows) // channels) * channels, dtype=np.int64)
        padded[: len(rows)] = rows
        loads: NDArray[np.int64] = padded.reshape(-1, channels).sum(axis=0)
        last = Fraction(int(rows[-1]))
        return self._run(product, shape, conditions, Fraction(int(loads.max())), last, loads)

    def expect(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The same with the expected load of the fullest channel."""
        channels = shape["channels"]
        share, more = divmod(product.rows, channels)  # `more` channels have one row more than the others
        loads = []
        for rows, count in ((share, channels - more), (share + 1, more)):
            if count:
                mean = rows * product.cols * product.density
                loads.append((mean, binomial_deviation(rows * product.cols, product.density), count))
        expected = expected_largest(*loads)
        # Neither below the mean nor above all: a normal sum knows no ends.
        most = max(Fraction(product.nnz, channels), Fraction(min(float(product.nnz), expected)))
        return self._run(product, shape, conditions, most, Fraction(product.nnz, product.rows), None)

    def _shape(self, channels: int, budget: int) -> EngineShape:
        # A budget below one channel narrows it, so that the smallest shape still respects it.
        pairs = self.pairs_per_cycle if self.channels is not None else min(self.pairs_per_cycle, budget)
        return EngineShape((("channels", channels), ("pairs_per_cycle", pairs)), channels * pairs)

    def _run(
        self,
        product: Product,
        shape: EngineShape,
        conditions: Conditions,
        most: Fraction,
        last: Fraction,
        loads: NDArray[np.int64] | None,
    ) -> Run:
        pairs, stretch = shape["pairs_per_cycle"], 1 + Fraction(self.padding)
        per_pair = stretch / (pairs * Fraction(self.occupancy))  # cycles that a channel takes for a kept weight
        compute = Fraction(product.nnz, shape.multipliers)
        spread = Fraction(product.nnz, shape["channels"]) * per_pair
        stored_bits = product.nnz * stretch * self.pair_bits
        delivered = conditions.bytes_per_cycle
        reading = Fraction(0) if delivered is None else stored_bits / (8 * Fraction(delivered))
        notes = ["pairs are read from off-chip memory for every product"]
        if delivered is None:
            notes.append("off-chip bandwidth is not known: pairs are taken to arrive in time")
        return Run(
            parts={
                "compute": compute,
                "occupancy": spread - compute,
                "pe_imbalance": most * per_pair - spread,
                # Reading and multiplying go on side by side: only what reading takes longer is waited for.
                "memory_stall": max(Fraction(0), reading - most * per_pair),
                "launch": Fraction(self.start_up_us) * Fraction(conditions.clock_mhz),
            },
            rams=self._rams(product, shape, conditions),
            last=last * per_pair,
            last_rows=1,
            stored_bits=stored_bits,
            stored_words=product.nnz * stretch,
            busy=None if loads is None else loads // pairs,
            notes=tuple(notes),
        )

    def _rams(self, product: Product, shape: EngineShape, conditions: Conditions) -> tuple[Ram, ...]:
        """Every channel has a copy of the vector, banked so that all its pairs read at once, and its own sums."""
        pairs = shape["pairs_per_cycle"]
        sums = -(-product.rows // shape.multipliers)
        return (
            # Inputs of all groups: a channel's rows may be of any.
            Ram("vector", conditions.activation_bits, -(-product.cols * product.groups // pairs), shape.multipliers),
            Ram("accumulators", conditions.accumulator_bits, sums, shape.multipliers, small=True),
        )


@hookimpl
def register_engine() -> type[Engine]:
    """Offer this engine to the harness."""
    return CsrStream
