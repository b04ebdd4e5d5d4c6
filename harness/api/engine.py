"""Engines: how the datapath of an accelerator runs one matrix-vector product, in which shapes, with which memories.

An engine knows nothing of devices, of training or of the other engines. A hardware model asks it for shapes within a
budget, runs every product on them, and finds out whether the memories fit.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import isqrt
from typing import ClassVar, Literal, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.api.component import Component
from harness.api.network import Convolution
from harness.arrays import Mask

HardwareClass = Literal["time-shared", "streamed", "systolic", "unrolled"]
"""Arrays that take turns with weights on chip or with weights from memory, arrays that take whole layers, circuits of
constant weights."""

Sharing = Literal["side_by_side", "shared", "in_turn"]
"""How an engine's streams get along: each with multipliers of its own, or taking turns at the same ones, word by word
of the weights or product by product."""

RamPurpose = Literal["weights", "pointers", "accumulators", "vector", "fifo", "state", "lines", "maps"]


@dataclass(frozen=True, eq=False)
class Part:
    """One tensor of a product: some of its columns.

    Args:
        tensor: its name.
        rows, cols: its shape.
        mask: True where a weight is kept, in the tensor's own row order; None where only `kept` is known.
        kept: number of weights kept.
        banks: equally filled banks per row, if any.
        values: the weights as integers of the number format, in the tensor's own row order, where they are known and an
            engine asks for them (`reads_values`).
    """

    tensor: str
    rows: int
    cols: int
    mask: Mask | None
    kept: int
    banks: int | None = None
    values: NDArray[np.int64] | None = None

    @property
    def size(self) -> int:
        """Number of weights, pruned ones included."""
        return self.rows * self.cols

    @property
    def is_dense(self) -> bool:
        """Whether nothing is pruned."""
        return self.kept == self.size

    def counts(self, starts: NDArray[np.intp]) -> NDArray[np.int32]:
        """Weights kept between these columns, row by row; the part must be dense or have a mask.

        Shapes:
            starts (stretches,), the first being 0 -> (rows, stretches).
        """
        if self.is_dense:
            return np.broadcast_to(np.diff(starts, append=self.cols).astype(np.int32), (self.rows, len(starts)))
        assert self.mask is not None
        # `reduceat` sums from each start to the next: one pass over the mask, however many stretches there are.
        kept: NDArray[np.int32] = np.add.reduceat(self.mask, starts, axis=1, dtype=np.int32)
        return kept


@dataclass(frozen=True, eq=False)
class Product:
    """One matrix-vector product: a layer's matrices side by side, `[W_x | W_h]` for an LSTM layer.

    Engine rows of an LSTM layer are unit-major (row 4u + g), so that the four gates of a unit leave the engine
    together: a property of the layout, not of the mask.

    Args:
        layer: the layer's name.
        parts: its tensors, side by side.
        units: units of an LSTM layer, None for other layers.
        pixels: how often the product runs per item (output positions of a convolution).
        convolution: geometry, where the layer is a convolution and it is known.
        activation_density: fraction of the vector's elements that are not zero; only engines that skip use it.
        steps: how often it runs, one after another, where cycles are those of an item of so many time steps; engines
            run one step, and hardware models count all of them.
    """

    layer: str
    parts: tuple[Part, ...]
    units: int | None = None
    pixels: int = 1
    convolution: Convolution | None = None
    activation_density: float = 1.0
    steps: int = 1

    @property
    def runs(self) -> int:
        """How often it is computed."""
        return self.pixels * self.steps

    @cached_property
    def rows(self) -> int:
        """Outputs."""
        return self.parts[0].rows

    @cached_property
    def cols(self) -> int:
        """Inputs of all parts together."""
        return sum(part.cols for part in self.parts)

    @property
    def size(self) -> int:
        """Number of weights, pruned ones included."""
        return self.rows * self.cols

    @cached_property
    def nnz(self) -> int:
        """Weights kept."""
        return sum(part.kept for part in self.parts)

    @property
    def groups(self) -> int:
        """Groups of rows that see inputs of their own: those of a convolution, `cols` of them for every group."""
        return 1 if self.convolution is None else self.convolution.groups

    @property
    def density(self) -> float:
        """Fraction of weights kept."""
        return self.nnz / self.size

    @property
    def is_dense(self) -> bool:
        """Whether nothing is pruned."""
        return self.nnz == self.size

    @property
    def has_masks(self) -> bool:
        """Whether it is known which weights are kept, not only how many."""
        return all(part.is_dense or part.mask is not None for part in self.parts)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First column of every part, and the end of the last one."""
        return (0, *np.cumsum([part.cols for part in self.parts]).tolist())

    @cached_property
    def mask(self) -> Mask:
        """True where a weight is kept, engine row by engine row; needs `has_masks`; not to be written to.

        Shapes:
            (rows, cols).
        """
        # Only a dense part lacks one: `has_masks` was asked before.
        ones = [
            np.ones((part.rows, part.cols), dtype=np.bool_) if part.mask is None else part.mask for part in self.parts
        ]
        if self.units is None:
            return ones[0] if len(ones) == 1 else np.hstack(ones)
        # Engines interleave the gates: a unit's new state needs all four of its rows, which so come one after the
        # other.
        gates = self.rows // self.units
        # Row 4u + g of the engine is row g * units + u of the tensor.
        mask = np.empty((self.units, gates, self.cols), dtype=np.bool_)
        for kept, left in zip(ones, self.offsets, strict=False):
            mask[:, :, left : left + kept.shape[1]] = kept.reshape(gates, self.units, -1).swapaxes(0, 1)
        return mask.reshape(self.rows, self.cols)

    @cached_property
    def row_counts(self) -> NDArray[np.int32]:
        """Weights kept in every engine row; needs `has_masks`."""
        counts: NDArray[np.int32] = self.counts(np.array(self.offsets[:-1])).sum(axis=1, dtype=np.int32)
        return counts

    def counts(self, starts: NDArray[np.intp]) -> NDArray[np.int32]:
        """Weights kept between these columns of the whole product, engine row by engine row.

        The starts must hold the first column of every part.

        Shapes:
            starts (stretches,) -> (rows, stretches).
        """
        pieces = []
        for part, left in zip(self.parts, self.offsets, strict=False):
            # Stretches never cross the border between two tensors.
            inside = starts[(starts >= left) & (starts < left + part.cols)] - left
            pieces.append(part.counts(inside))
        counts = np.hstack(pieces)
        if self.units is None:
            return counts
        gates = self.rows // self.units
        return counts.reshape(gates, self.units, -1).swapaxes(0, 1).reshape(counts.shape)


@dataclass(frozen=True)
class EngineShape:
    """One shape of an engine: its sizes by name, in a fixed order, and the multipliers that they make."""

    sizes: tuple[tuple[str, int], ...]
    multipliers: int

    def __getitem__(self, name: str) -> int:
        return dict(self.sizes)[name]

    def __str__(self) -> str:
        return " ".join(f"{name}={size}" for name, size in self.sizes)


@dataclass(frozen=True)
class Line(Sequence[EngineShape]):
    """Shapes that differ in one size only, smallest first; each is made when it is asked for.

    Args:
        sizes: the values of that size, ascending: often a `range`.
        make: the shape for one of them.
    """

    sizes: Sequence[int]
    make: Callable[[int], EngineShape]

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, index: int) -> EngineShape: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[EngineShape]: ...
    def __getitem__(self, index: int | slice) -> EngineShape | Sequence[EngineShape]:
        if isinstance(index, slice):
            return Line(self.sizes[index], self.make)
        return self.make(self.sizes[index])


def even_cuts(extent: int, most: int | None = None) -> list[int]:
    """Sizes of the largest of n nearly equal pieces, for every n: no other size needs fewer pieces for its length.

    Args:
        extent: what is cut.
        most: the largest size that may be had; None: the extent itself.

    Example:
        >>> even_cuts(10)  # in 10, 5, 4, 3, 2 and 1 pieces
        [1, 2, 3, 4, 5, 10]
    """
    # Up to the root every size may be the best of its number of pieces; beyond it pieces are few and are listed.
    # The ceiling of extent / n takes about twice the root of extent values: no more sizes have to be tried.
    root = isqrt(extent)
    found = {*range(1, root + 1), *(-(-extent // pieces) for pieces in range(1, root + 1))}
    return sorted(size for size in found if most is None or size <= most) or [1]


@dataclass(frozen=True)
class Ram:
    """One kind of memory of an engine, for one product.

    Args:
        purpose: what it holds.
        width: bits of a word; depth: words; count: how many such memories, each addressed on its own.
        stacked: whether products lie behind each other in it, so that their depths add up (weights); otherwise products
            take turns and the deepest decides.
        small: whether it may be built from distributed RAM (MLAB, LUT).
    """

    purpose: RamPurpose
    width: int
    depth: int
    count: int
    stacked: bool = False
    small: bool = False


@dataclass(frozen=True)
class Conditions:
    """What an engine runs under.

    Args:
        weight_bits: bits that are stored for a weight.
        activation_bits, accumulator_bits: widths.
        clock_mhz: the clock.
        bytes_per_cycle: what the off-chip memory delivers per cycle at that clock, None if unknown.
        value_bits: bits of a weight's value, where what is stored is its place in a codebook.
    """

    weight_bits: int = 16
    activation_bits: int = 16
    accumulator_bits: int = 32
    clock_mhz: float = 200.0
    bytes_per_cycle: float | None = None
    value_bits: int | None = None

    @property
    def operand_bits(self) -> int:
        """Bits that a multiplier takes."""
        return max(self.value_bits or self.weight_bits, self.activation_bits)


def exact_sum(cycles: Iterable[Fraction]) -> Fraction:
    """The sum of cycle counts, exactly; whole ones, which nearly all are, without the arithmetic of fractions.

    Example:
        >>> exact_sum([Fraction(2), Fraction(1, 3), Fraction(1, 6)])
        Fraction(5, 2)
    """
    whole, rest = 0, None
    for each in cycles:
        if each.denominator == 1:
            whole += each.numerator
        else:
            # Sums of fractions take gcds: a hundred times dearer than adding integers.
            rest = each if rest is None else rest + each
    return Fraction(whole) if rest is None else whole + rest


@dataclass(frozen=True)
class Run:
    """One product on one shape of an engine.

    Args:
        parts: where the cycles go, exact fractions that sum to the total. `fill_drain` is the engine's constant, paid
            once per product; the rest is paid for every pixel. Names: compute, bank_imbalance, lane_mismatch,
            empty_rows, zeros (multiplied for nothing), tail, pe_imbalance, imbalance (where a model cannot tell them
            apart), index_padding, fifo_stall, feed_stall, occupancy, reduction, tile_load, memory_stall, launch,
            fill_drain.
        rams: its memories.
        last: cycles of the last rows, which nothing behind them can hide.
        last_rows: how many rows leave together at the end; None means all of them.
        stored_bits: bits of all weights as stored, indices and padding included; what is streamed if they do not fit.
        stored_words: values stored, padding included; divided by the non-zeros it says what padding costs.
        weight_reads: how often every stored weight is read while a whole layer runs, for all streams; None: for every
            position.
        fetches: how often every stored weight that is streamed is read from off-chip memory while the run lasts;
            None: once.
        moved_bits: inputs and outputs that cross the chip's border while a whole layer runs, of an engine that moves
            maps; None: inputs of the first layer and outputs of the last.
        words: words that all memories of a purpose move while the run lasts, for all streams, where that is not what
            cycles and weights tell: of `vector` those read, of `accumulators` those read and written.
        busy: cycles in which each PE works, a histogram's raw data; None where it is not known.
        fifo_high_water: most entries that ever waited in one FIFO.
        logic: LUTs and flip-flops of a circuit that serves this product alone; they add up over the products.
        notes: what a reader must know, as sentences.
    """

    parts: Mapping[str, Fraction]
    rams: tuple[Ram, ...] = ()
    last: Fraction = Fraction(0)
    last_rows: int | None = None
    stored_bits: Fraction = Fraction(0)
    stored_words: Fraction = Fraction(0)
    busy: NDArray[np.int64] | None = field(default=None, compare=False)
    fifo_high_water: int | None = None
    logic: "Logic | None" = None
    notes: tuple[str, ...] = ()
    weight_reads: Fraction | None = None
    fetches: Fraction | None = None
    moved_bits: int | None = None
    words: Mapping[RamPurpose, Fraction] = field(default_factory=dict)

    @cached_property
    def cycles(self) -> Fraction:
        """The sum of the parts."""
        return exact_sum(self.parts.values())

    @cached_property
    def issue_cycles(self) -> Fraction:
        """The sum of the parts without `fill_drain`: what one pixel takes once the pipeline is full."""
        return exact_sum(cycles for name, cycles in self.parts.items() if name != "fill_drain")


@dataclass(frozen=True)
class Logic:
    """Logic of an engine beside its multipliers and memories: indicative, never exact."""

    lut: int
    ff: int


class Engine(Component):
    """A datapath whose cycles, memories and multipliers follow from a mask and a shape.

    Subclasses are frozen, have a default for every field, and are registered with the hook `register_engine`. Fields
    that fix a size (`pes`, `lanes`, ...) are None by default: the search then finds them.
    """

    kind: ClassVar[Literal["engine"]] = "engine"
    whole_layer: ClassVar[bool] = False
    """Whether a run covers all pixels of a convolution; otherwise it is one matrix-vector product of them."""
    streams_weights: ClassVar[bool] = False
    """Whether weights are read from off-chip memory every time, by design."""
    moves_maps: ClassVar[bool] = False
    """Whether its runs and memories hold what a convolution takes and gives; otherwise the hardware model adds them."""
    shares_operand: ClassVar[bool] = False
    """Whether neighbouring multipliers share an operand, so that a DSP block may pack two 8-bit products."""
    unrolled: ClassVar[bool] = False
    """Whether every kept weight is a circuit of its own, made of adders: nothing is shared in time, no budget of
    multipliers bounds it, no weight is stored, and the circuits of several layers work at the same time."""
    reads_values: ClassVar[bool] = False
    """Whether its cost depends on the values of the weights (`Part.values`), and not on the masks alone."""
    validated_by: ClassVar[str] = ""
    """Whose measured accelerator its cycles were held against without being fitted to it; empty where nobody's was."""

    clock_mhz: float | None = Field(
        default=None,
        gt=0,
        le=2000,
        description="clock of this engine; None takes what such engines reached, else the device's",
    )

    @property
    def streams(self) -> int:
        """Independent inputs that one run serves at once."""
        return 1

    @property
    def sharing(self) -> Sharing:
        """How they get along; a run's cycles are those of all streams."""
        return "side_by_side"

    @property
    def hardware_class(self) -> HardwareClass:
        """What kind of hardware it is: patterns rank differently on each."""
        if self.unrolled:
            return "unrolled"
        return "streamed" if self.streams_weights else "systolic" if self.whole_layer else "time-shared"

    def refusal(self, product: Product) -> str | None:
        """Why this engine cannot run a product, as the end of a sentence; None if it can.

        Example: "it runs masks with N of every M weights, and lstm_0.kernel keeps up to 7 of 8".
        """
        return None

    @abstractmethod
    def shapes(self, products: Sequence[Product], budget: int) -> Sequence[EngineShape]:
        """Shapes worth trying for these products, each of at most `budget` multipliers; at least one.

        One engine runs all the products, one after another.
        """

    def lines(self, products: Sequence[Product], budget: int) -> Sequence[Sequence[EngineShape]]:
        """Every shape that a search may choose, in lines along which one size grows and cycles fall.

        A search bisects along a line for the largest shape whose memories fit. Unless an engine says better, the lines
        are made of `shapes` for a ladder of budgets, down to one multiplier, since memory may run out long before.
        A larger budget must not take shapes away.
        """
        # Half octaves of the budget: a smaller array may be as fast, where a larger one leaves multipliers idle.
        rungs = {budget} | {
            int(2 ** (step / 2)) for step in range(2 * budget.bit_length()) if 2 ** (step / 2) <= budget
        }
        found = {shape for rung in sorted(rungs) for shape in self.shapes(products, rung)}
        lines: dict[tuple[tuple[str, int], ...], list[EngineShape]] = {}
        # By all sizes but the first: along one line only that one grows, and a search may bisect it.
        for shape in sorted(found, key=lambda shape: (shape.multipliers, shape.sizes)):
            lines.setdefault(shape.sizes[1:], []).append(shape)
        return list(lines.values())

    def outline(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run | None:
        """About what a run takes, cheaply, for engines whose runs take long to count; None: count them.

        A search looks at outlines first and counts the most promising shapes only.
        """
        return None

    @abstractmethod
    def fixed_shape(self, products: Sequence[Product], budget: int) -> EngineShape:
        """The shape that one would build without looking at a mask: to show what the search is worth."""

    def least_cycles(self, product: Product, shape: EngineShape) -> int:
        """A lower bound on the cycles of one run, cheap to compute: the search skips what it rules out."""
        return -(-product.nnz // max(1, shape.multipliers // self.streams))

    @abstractmethod
    def simulate(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The exact cycles of one product on its real mask, and its memories. Needs `product.has_masks`."""

    @abstractmethod
    def expect(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The expected cycles from statistics alone: sizes, non-zeros per part, equally filled banks."""

    def packs(self, shape: EngineShape) -> bool:
        """Whether neighbouring multipliers of a shape share an operand; `shares_operand` unless an engine says more."""
        return self.shares_operand

    def logic(self, shape: EngineShape, conditions: Conditions) -> Logic | None:
        """LUTs and flip-flops beside multipliers and memories; None where nothing is known of them."""
        return None
