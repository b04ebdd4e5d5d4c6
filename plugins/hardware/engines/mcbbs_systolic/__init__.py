"""A systolic array for clustered banks (MCBBS): whole convolutions, tile by tile, weights streamed every time."""

from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.api import Conditions, Engine, EngineShape, Line, Part, Product, Ram, Run, even_cuts, hookimpl

from .clusters import cluster_fill
from .latency import (
    BLOCK_BYTES,
    BUFFER_BYTES,
    INPUT_HEIGHT,
    INPUT_WIDTH,
    WEIGHTS_PER_BLOCK,
    Array,
    Latency,
    Numbers,
    Window,
    best_latency,
)

_PUBLISHED_RANGE = 4
"""R of the published design."""


class McbbsSystolic(Engine):
    """PE rows take output channels, PE columns take output pixels; every PE multiplies P clusters of C per cycle.

    Runs masks in which whole clusters of C neighbouring input channels stay, equally many in every range of R clusters
    of every row and filter position. The columns of a convolution lie in the order (input, height, width), so the
    clusters of one filter position are `height * width` columns apart: masks banked along neighbouring columns of a
    larger filter are refused. A vector is a convolution with one filter position and one pixel: one PE column works.

    Assumes: weights, inputs and outputs pass through off-chip memory for every tile, as in the published design; one
        overhead per layer, `layer_overhead_us`, which was fitted on a design of 2,688 multipliers. Pooling and
        element-wise layers are not counted.

    Source:
        Liu and Brown, FPL 2021; see `_mcbbs`.
    """

    name: ClassVar[str] = "mcbbs_systolic"
    validated_by: ClassVar[str] = "three published networks; gate `mcbbs` of `harness hardware validate`"
    streams_weights: ClassVar[bool] = True
    whole_layer: ClassVar[bool] = True
    shares_operand: ClassVar[bool] = True
    moves_maps: ClassVar[bool] = True

    pe_rows: int | None = Field(default=None, gt=0, description="PE rows (output channels); None searches")
    pe_columns: int | None = Field(default=None, gt=0, description="PE columns (output pixels); None searches")
    cluster: int = Field(default=1, gt=0, description="C, neighbouring input channels that share an index")
    range_clusters: int | None = Field(
        default=None, gt=0, description="R, clusters of which equally many stay; None takes the masks' banks, else 4"
    )
    parallel_clusters: int = Field(default=16, gt=0, description="P, clusters that a PE multiplies per cycle")
    index_bits: int = Field(default=4, ge=0, description="bits of a cluster's index; more where R needs more")
    layer_overhead_us: float = Field(
        default=44.2, ge=0, description="overhead per layer (fitted on ResNet-50, see `harness hardware validate`)"
    )

    def refusal(self, product: Product) -> str | None:
        """Refuse all but clustered banks, unknown geometry, and filters larger than the input tile."""
        span = self._range(product)
        what = f"it runs clusters of {self.cluster} input channels, equally many of every {span},"
        high, wide = _kernel(product)
        if (why := _untiled(product, high, wide)) is not None:
            return why
        if product.cols < self.cluster * self.parallel_clusters * high * wide:
            return None  # less than one block: worked off as if dense
        for part in product.parts:
            if part.is_dense:
                continue
            if part.mask is None:
                # Counts of banks tell it only if ranges are banks, of single channels and single taps.
                if not self._is_known_banked(part, high * wide, span):
                    return f"{what} and of {part.tensor} only the number of kept weights is known"
                continue
            fill = cluster_fill(part, self.cluster, span, high * wide)
            if fill.broken:
                return f"{what} and {part.tensor} keeps {fill.broken}"
        return None

    def shapes(self, products: Sequence[Product], budget: int) -> Sequence[EngineShape]:
        """Arrays of 1 to 14 columns with as many rows as the budget has, and half as many."""
        parallel, pes = self._pes(budget)
        widest = min(pes // (self.pe_rows or 1), max(_pixels(product)[1] for product in products))
        filters = max(product.rows for product in products)
        found = set()
        # Divisors of 224 and most of its halves, the image sizes of common networks.
        for columns in [self.pe_columns] if self.pe_columns else [1, *(n for n in (2, 4, 7, 14) if n <= widest)]:
            most = max(1, min(pes // columns, filters))
            found |= {(rows, columns) for rows in ((self.pe_rows,) if self.pe_rows else (most, -(-most // 2)))}
        return [self._shape(rows, columns, parallel) for rows, columns in sorted(found, reverse=True)]

    def lines(self, products: Sequence[Product], budget: int) -> Sequence[Sequence[EngineShape]]:
        """Arrays of 1 to 14 columns, with every number of rows that saves a group of filters."""
        parallel, pes = self._pes(budget)
        widest = min(pes // (self.pe_rows or 1), max(_pixels(product)[1] for product in products))
        rows = sorted({cut for product in products for cut in even_cuts(product.rows)})

        def line(columns: int) -> Line:
            sizes = [self.pe_rows] if self.pe_rows else [cut for cut in rows if cut * columns <= pes] or [1]
            return Line(sizes, lambda high: self._shape(high, columns, parallel))

        return [line(n) for n in ([self.pe_columns] if self.pe_columns else range(1, max(1, min(widest, 14)) + 1))]

    def fixed_shape(self, products: Sequence[Product], budget: int) -> EngineShape:
        """Seven columns and up to 24 rows, as published."""
        parallel, pes = self._pes(budget)
        columns = self.pe_columns or max(1, min(7, pes // (self.pe_rows or 1)))
        return self._shape(self.pe_rows or max(1, min(24, pes // columns)), columns, parallel)

    def least_cycles(self, product: Product, shape: EngineShape) -> int:
        """What all multipliers together must do for all pixels."""
        return -(-product.nnz * product.pixels // shape.multipliers)

    def simulate(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The latency formula with the clusters counted on the mask; exact in what it models, as banks are equal."""
        taps = _taps(product)
        span = self._range(product)
        kept = tuple(
            span if part.is_dense else cluster_fill(part, self.cluster, span, taps).most for part in product.parts
        )
        return self._run(product, shape, conditions, kept)

    def expect(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The same with the clusters per range taken from the number of kept weights, rounded up."""
        kept = []
        for part in product.parts:
            # By density: the last range of a row may be shorter than the others.
            kept.append(-(-self._range(product) * part.kept // part.size))
        return self._run(product, shape, conditions, tuple(kept))

    def _pes(self, budget: int) -> tuple[int, int]:
        """Clusters per PE, fewer only where the budget is below one PE, and PEs within the budget."""
        parallel = max(1, min(self.parallel_clusters, budget // self.cluster))
        return parallel, max(1, budget // (self.cluster * parallel))

    def _shape(self, rows: int, columns: int, parallel: int) -> EngineShape:
        block = self.cluster * parallel
        return EngineShape(
            (("pe_rows", rows), ("pe_columns", columns), ("multipliers_per_pe", block)), rows * columns * block
        )

    def _run(self, product: Product, shape: EngineShape, conditions: Conditions, kept: tuple[int, ...]) -> Run:
        taps = _taps(product)
        window = Window(
            # Columns are channels times taps.
            inputs=tuple(part.cols // taps for part in product.parts),
            outputs=product.rows,
            kernel=_kernel(product),
            stride=1 if product.convolution is None else product.convolution.stride,
            output=_pixels(product),
            kept=kept,
        )
        parallel = shape["multipliers_per_pe"] // self.cluster
        span = self._range(product)
        # An index must be able to say any cluster of its range, whatever was published.
        index_bits = max(self.index_bits, (span - 1).bit_length())
        array = Array(shape["pe_rows"], shape["pe_columns"], self.cluster, parallel, span)
        delivered = conditions.bytes_per_cycle
        numbers = Numbers(
            conditions.weight_bits,
            conditions.activation_bits,
            index_bits,
            # Whole bytes a cycle, rounded up: the formula divides into words of them.
            None if delivered is None else max(1, int(np.ceil(delivered - 1e-9))),
        )
        found = best_latency(window, array, numbers)
        words = Fraction(found.blocks * array.block * product.rows)
        # Clusters share an index, so that each value carries a part of one.
        index_share = Fraction(index_bits, self.cluster)
        return Run(
            parts=self._parts(product, found, array, conditions),
            rams=_rams(array, numbers, window, index_bits),
            # Filters come out group by group, one group every so many cycles.
            last=Fraction(found.compute, -(-product.rows // array.rows)),
            last_rows=product.rows - (-(-product.rows // array.rows) - 1) * array.rows,
            stored_bits=words * (conditions.weight_bits + index_share),
            stored_words=words,
            # All PE columns share what a PE row reads: once for every position of a column.
            weight_reads=Fraction(sum(tile.count * tile.width * tile.height for tile in found.tiles)),
            fetches=Fraction(found.fetches),
            moved_bits=(found.pixels * window.channels + product.rows * prod(window.output))
            * conditions.activation_bits,
            # A block for every cycle in which a column is fed: it multiplies for longer, with what it has.
            words={"vector": Fraction(found.fed)},
            busy=_busy(found, array, product.rows),
            notes=_notes(found, delivered),
        )

    def _parts(self, product: Product, found: Latency, array: Array, conditions: Conditions) -> dict[str, Fraction]:
        compute = Fraction(product.nnz * product.pixels, array.multipliers)
        return {
            "compute": compute,
            "tail": found.compute - compute,
            "feed_stall": Fraction(found.feed),
            "memory_stall": found.total - found.array,
            "launch": Fraction(self.layer_overhead_us) * Fraction(conditions.clock_mhz),
            "fill_drain": Fraction(found.transfer),
        }

    def _is_known_banked(self, part: Part, taps: int, span: int) -> bool:
        """Whether the number of equally filled banks alone says that every range keeps equally many clusters."""
        return self.cluster == 1 and taps == 1 and part.banks == part.cols / span

    def _range(self, product: Product) -> int:
        """R: as given; else the size of the banks that all parts are said to have, else the published one."""
        if self.range_clusters is not None:
            return self.range_clusters
        pruned = [part for part in product.parts if not part.is_dense]
        # A range is the size of a bank only if banks divide the columns.
        sizes = {part.cols // part.banks if part.banks and part.cols % part.banks == 0 else None for part in pruned}
        size = sizes.pop() if len(sizes) == 1 and self.cluster == 1 and _taps(product) == 1 else None
        return size or _PUBLISHED_RANGE


def _untiled(product: Product, high: int, wide: int) -> str | None:
    """Why a convolution of so many taps cannot be cut into tiles."""
    if product.pixels > 1 and product.convolution is None:
        return f"it tiles convolutions, and the geometry of {product.layer} is not known"
    if product.groups > 1:
        return f"it hands every input to all rows, and those of {product.layer} see inputs of {product.groups} groups"
    if high > INPUT_HEIGHT or wide > INPUT_WIDTH:
        return f"its input tile is {INPUT_HEIGHT} x {INPUT_WIDTH} pixels, and {product.layer} has {high} x {wide} taps"
    return None


def _kernel(product: Product) -> tuple[int, int]:
    return (1, 1) if product.convolution is None else product.convolution.kernel


def _taps(product: Product) -> int:
    high, wide = _kernel(product)
    return high * wide


def _pixels(product: Product) -> tuple[int, int]:
    return (1, 1) if product.convolution is None else product.convolution.output


def _rams(array: Array, numbers: Numbers, window: Window, index_bits: int) -> tuple[Ram, ...]:
    """Double buffers: inputs and outputs of every PE column, weights of every PE row."""
    block_bits = 8 * BLOCK_BYTES
    deep = 2 * BUFFER_BYTES // BLOCK_BYTES
    single = window.kernel[0] * window.kernel[1] * -(-window.channels * numbers.activation_bits // block_bits)
    values = WEIGHTS_PER_BLOCK * array.block
    return (
        Ram("vector", block_bits, max(deep, 2 * single), array.columns),
        # Not "weights": that is what stays on chip, and here nothing does.
        Ram("fifo", 8 * values + values // array.cluster * index_bits, 2 * BUFFER_BYTES // values, array.rows),
        Ram("accumulators", block_bits, deep, array.columns),
    )


def _busy(found: Latency, array: Array, outputs: int) -> NDArray[np.int64]:
    """Cycles in which every PE multiplies, (rows * columns,): edge tiles and the last filters leave some idle."""
    # Filters are dealt to rows one by one: some rows have one less in the last round.
    filters = np.maximum(0, -(-(outputs - np.arange(array.rows)) // array.rows))
    strips = np.zeros(array.columns, dtype=np.int64)
    for tile in found.tiles:
        strips[: tile.columns] += tile.count * tile.width * tile.height * found.blocks
    busy: NDArray[np.int64] = np.outer(filters, strips).ravel().astype(np.int64)
    return busy


def _notes(found: Latency, delivered: float | None) -> tuple[str, ...]:
    notes = [
        f"tiles of {found.tile[1]} rows and {found.tile[0]} pixels per PE column",
        "weights are read from off-chip memory for every tile",
    ]
    if delivered is None:
        notes.append("off-chip bandwidth is not known: weights are taken to arrive in time")
    return tuple(notes)


@hookimpl
def register_engine() -> type[Engine]:
    """Offer this engine to the harness."""
    return McbbsSystolic
