"""Where the memories of a design lie, and what of its weights and maps finds no room and is streamed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from harness.api import Product, Ram, Run, exact_sum

from .._devices import Device
from .maps import map_bits
from .numerics import Numerics
from .placement import Placement, deepest, place

_STREAM_WORDS = 64
"""Words of weight RAM that every PE sets aside for weights streamed from off-chip memory: a burst's worth, twice."""

_GRU_GATES = 3  # its output is its state

_BUFFER_WIDTH = 512
"""Bits of a word of the prefetch buffer: what memory controllers deliver at a time."""

NONE = Fraction(0)
"""No cycles: made once, since a search adds up hundreds of thousands of them."""


@dataclass(frozen=True)
class Memory:
    """Where every memory lies, and what is streamed from off-chip memory.

    Args:
        placement: of what is on chip.
        streamed: share of every product's weights.
        streams_maps: whether what convolutions take and give crosses the chip's border.
    """

    placement: Placement
    streamed: tuple[Fraction, ...]
    streams_maps: bool = False

    @property
    def blocks(self) -> int:
        """RAM blocks in total, of all kinds together."""
        return self.placement.taken


def _stacked(runs: Sequence[Run]) -> list[Ram]:
    """The memories that serve all products: stacked ones as deep as all together, others as the largest needs."""
    found: dict[tuple[str, bool, bool], Ram] = {}
    for run in runs:
        for ram in run.rams:
            place = (ram.purpose, ram.stacked, ram.small)
            other = found.get(place)
            if other is None:
                found[place] = ram
                continue
            # Stacked: weights of all layers stay. Others are written anew for every layer, so the largest need decides.
            depth = other.depth + ram.depth if ram.stacked else max(other.depth, ram.depth)
            found[place] = replace(
                ram, width=max(other.width, ram.width), depth=depth, count=max(other.count, ram.count)
            )
    return list(found.values())


def memory_of(
    products: Sequence[Product],
    runs: Sequence[Run],
    device: Device,
    numerics: Numerics,
    copies: int,
    ram_blocks: int | None,
    extra: Sequence[Ram],
    maps: Sequence[Ram],
    streams: int = 1,
) -> Memory:
    """Every memory in RAM blocks or distributed RAM; feature maps leave the chip before weights do.

    Args:
        products: what runs.
        runs: each with its memories.
        device: what they are laid out on.
        numerics: widths.
        copies: of the array.
        ram_blocks: what a design may take; None: the device's.
        extra: memories beside those of the runs.
        maps: feature maps, which may lie in off-chip memory.
        streams: inputs served at once, each with a state of its own in recurrent layers.
    """
    extra = [*states(products, numerics, streams), *extra]
    whole = _laid_out(products, runs, device, numerics, copies, ram_blocks, [*extra, *maps])
    if not maps or (whole.placement.fits and not any(whole.streamed)):
        return whole
    apart = replace(_laid_out(products, runs, device, numerics, copies, ram_blocks, extra), streams_maps=True)
    moved = sum(map_bits(product, numerics) for product in products)

    def price(memory: Memory) -> tuple[bool, bool, Fraction]:
        """What fits first, then what keeps its weights, then what moves less."""
        weights = exact_sum(share * run.stored_bits for share, run in zip(memory.streamed, runs, strict=True) if share)
        return not memory.placement.fits, any(memory.streamed), weights + moved * memory.streams_maps

    return min((whole, apart), key=price)


def rams_of(
    products: Sequence[Product], runs: Sequence[Run], numerics: Numerics, copies: int, extra: Sequence[Ram]
) -> tuple[list[Ram], list[Ram]]:
    """The memories of an engine that runs products in turns: all others, and those of its weights."""
    rams = _stacked(runs)
    others = [replace(ram, count=ram.count * copies) if ram.small else ram for ram in rams if ram.purpose != "weights"]
    return [*others, *extra], [ram for ram in rams if ram.purpose == "weights"]


def _laid_out(
    products: Sequence[Product],
    runs: Sequence[Run],
    device: Device,
    numerics: Numerics,
    copies: int,
    ram_blocks: int | None,
    extra: Sequence[Ram],
) -> Memory:
    """Every memory in RAM blocks or distributed RAM; weights last, and what finds no room of them is streamed.

    Weights that are deeper than the RAM blocks allow are streamed for every item, the deepest product first.
    """
    others_rams, weights = rams_of(products, runs, numerics, copies, extra)
    others = place(others_rams, device, small=numerics.vector_memory, ram_blocks=ram_blocks)
    if not weights:
        return Memory(others, (NONE,) * len(runs))
    # An engine has one kind of weight memory, whatever its products.
    (ram,) = weights
    # The other memories keep their places: they cannot be streamed.
    everything = place(weights, device, ram_blocks=ram_blocks, beside=others)
    if everything.fits:
        return Memory(everything, (NONE,) * len(runs))
    if numerics.prefetch_kib:  # needed only where something is streamed
        with_buffer = [*others_rams, _buffer(numerics)]
        others = place(with_buffer, device, small=numerics.vector_memory, ram_blocks=ram_blocks)
    room = deepest(ram.width, ram.count, others.free, device)
    # The weights have room: it is another memory that was asked for and overflows, which streaming does not mend.
    if ram.depth <= room:
        return Memory(everything, (NONE,) * len(runs))
    # What is streamed passes through a buffer that takes room from what stays.
    excess = ram.depth - max(0, room - _STREAM_WORDS)
    kept = replace(ram, depth=ram.depth - excess + _STREAM_WORDS)
    return Memory(place([kept], device, ram_blocks=ram_blocks, beside=others), _streamed(runs, excess))


def _buffer(numerics: Numerics) -> Ram:
    """The buffer in which streamed weights wait for their layer."""
    return Ram("fifo", _BUFFER_WIDTH, -(-8 * 1024 * numerics.prefetch_kib // _BUFFER_WIDTH), 1)


def _streamed(runs: Sequence[Run], excess: int) -> tuple[Fraction, ...]:
    """Share of every product's words that is streamed."""
    depths = [next((ram.depth for ram in run.rams if ram.purpose == "weights"), 0) for run in runs]
    shares = [NONE] * len(runs)
    # One deep product streamed leaves the others alone; stable, so equal ones stay in order.
    for index in sorted(range(len(runs)), key=lambda index: -depths[index]):
        words = min(excess, depths[index])
        shares[index] = Fraction(words, depths[index]) if words else NONE
        excess -= words
    return tuple(shares)


def states(products: Iterable[Product], numerics: Numerics, streams: int) -> list[Ram]:
    """Cell state and output of every LSTM layer, one RAM each, as wide as the element-wise part reads; a GRU has one.

    Where inputs are known ahead, the partial sums of W_x are stored too.
    """
    each, conditions = numerics.elementwise_units, numerics.conditions
    found = []
    for product in products:
        if product.units is None:
            continue
        kept = 1 if product.rows == _GRU_GATES * product.units else 2
        found.append(Ram("state", conditions.activation_bits * each, -(-product.units // each) * streams, kept))
        if numerics.inputs == "known_ahead":
            found.append(Ram("accumulators", conditions.accumulator_bits * each, -(-product.rows // each) * streams, 1))
    return found
