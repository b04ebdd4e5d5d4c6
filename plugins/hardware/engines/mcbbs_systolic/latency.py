"""Cycles of a systolic array for clustered banks: tiles of a convolution, their search, and what moves the data.

An array of PEs, every PE with P clusters of C multipliers, keeps one output channel per PE row and one strip of output
pixels per PE column. Input channels are cut into ranges of R clusters of which z stay; P ranges are worked off side by
side, so that one weight block, B = C*P values, serves P*R*C input channels. A tile is h rows of u pixels per PE column.

    compute(u, h)   taps * n * u * h * ceil(O / rows)           n blocks per filter position
    feed(u, h)      ceil(O / rows) * h * (u * I' + (1 if one tap else u * kernel width))      I' blocks of input
    array           sum over tiles of max(compute, feed) + first input tile + last output tile
    memory          inputs, outputs and weights once per tile, in words of the off-chip memory
    T               the slowest of array, memory, and the ports of the three buffers

Source:
    Liu and Brown, FPL 2021: the latency formula and the greedy tile search of their public repository
    (mustard-seed/SparseDNNAccelerator, tile.cpp, graph_factory.cpp, model_container.cpp), in our own words.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

BLOCK_BYTES = 64
"""Bytes of one activation block (bitstreams "ab64"): what a buffer port moves per cycle."""

BUFFER_BYTES = 32768
"""Bytes of one side of every double buffer (params.hpp)."""

WEIGHTS_PER_BLOCK = 4
"""A weight port moves as many blocks of B values per cycle."""

INPUT_WIDTH, INPUT_HEIGHT = 8, 31
"""Largest input tile of one PE column, in pixels; also the widest output tile."""

_WORTHWHILE = Fraction(9, 10)
"""A tile replaces the best one only if it takes less than this share of its cycles."""


@dataclass(frozen=True)
class Array:
    """The sizes of the array.

    Args:
        rows: PE rows, one output channel each.
        columns: PE columns, one strip of output pixels each.
        cluster: C, weights that share an index.
        parallel: P, clusters that a PE multiplies per cycle.
        range_clusters: R, clusters of which equally many stay.
    """

    rows: int = 24
    columns: int = 7
    cluster: int = 1
    parallel: int = 16
    range_clusters: int = 4

    @property
    def block(self) -> int:
        """B, multipliers of a PE."""
        return self.cluster * self.parallel

    @property
    def multipliers(self) -> int:
        """Multipliers of the array."""
        return self.rows * self.columns * self.block


@dataclass(frozen=True)
class Numbers:
    """Widths and memory.

    Args:
        weight_bits, activation_bits: bits of a value.
        index_bits: bits of a cluster's index.
        word_bytes: bytes that the off-chip memory delivers per cycle, rounded up; None if it never holds anything up.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    index_bits: int = 4
    word_bytes: int | None = None


@dataclass(frozen=True)
class Window:
    """A layer as the array sees it; a matrix-vector product is one tap and one output position.

    Args:
        inputs: input channels of every stretch with ranges of its own (one, or one per tensor side by side).
        outputs: output channels.
        kernel, stride, output: geometry, height before width.
        kept: clusters that stay in a range, for every stretch.
    """

    inputs: tuple[int, ...]
    outputs: int
    kernel: tuple[int, int]
    stride: int
    output: tuple[int, int]
    kept: tuple[int, ...]

    @property
    def taps(self) -> int:
        """Filter positions."""
        return self.kernel[0] * self.kernel[1]

    @property
    def channels(self) -> int:
        """Input channels in total."""
        return sum(self.inputs)


@dataclass(frozen=True)
class Tile:
    """Equal tiles: so many of `height` rows on `columns` PE columns of `width` pixels each."""

    width: int
    columns: int
    height: int
    count: int


@dataclass(frozen=True)
class Latency:
    """The cycles of one layer with the best tile found.

    Args:
        tile: u and h, pixels per PE column and rows.
        tiles: all tiles, edges included.
        compute: cycles in which weights are multiplied.
        feed: cycles that the array waits for its inputs.
        transfer: input of the first tile and output of the last one.
        total: the whole layer.
        blocks: weight blocks of one filter.
        pixels: input pixels read from off-chip memory, those that tiles share with each of them.
        fed: blocks of inputs that the buffers of all PE columns give to the array.
    """

    tile: tuple[int, int]
    tiles: tuple[Tile, ...]
    compute: int
    feed: int
    transfer: int
    total: Fraction
    blocks: int
    pixels: int
    fed: int

    @property
    def fetches(self) -> int:
        """Tiles: each reads all filters from off-chip memory."""
        return sum(tile.count for tile in self.tiles)

    @property
    def array(self) -> int:
        """What the layer takes if no memory holds it up."""
        return self.compute + self.feed + self.transfer


def blocks_per_tap(window: Window, array: Array) -> int:
    """Weight blocks per filter position, n; a layer of fewer channels than a block is worked off as if dense."""
    if window.channels < array.block:
        return 1
    span = array.block * array.range_clusters
    return sum(kept * _ceil(inputs, span) for inputs, kept in zip(window.inputs, window.kept, strict=True))


@lru_cache(maxsize=4096)
def best_latency(window: Window, array: Array, numbers: Numbers) -> Latency:
    """The latency with the tile that the greedy search settles on: wide before narrow, high before low."""
    best: Latency | None = None
    for width, height in _candidates(window, array, numbers):
        found = latency(window, array, numbers, width, height)
        # Greedy, as in the source: the first tile that is not clearly beaten stays, not the best of all.
        if best is None or found.total < best.total * _WORTHWHILE:
            best = found
    return best or latency(window, array, numbers, 1, 1)


def latency(window: Window, array: Array, numbers: Numbers, width: int, height: int) -> Latency:
    """The latency with tiles of `height` rows and `width` pixels per PE column."""
    tiles = _tiles(window, array, width, height)
    filters = _ceil(window.outputs, array.rows)
    per_tap = blocks_per_tap(window, array)
    feeds = sum(_ceil(inputs, array.block * array.range_clusters) for inputs in window.inputs)
    compute = feed = count = pixels = fed = 0
    for tile in tiles:
        strip = filters * tile.height
        work = window.taps * per_tap * tile.width * strip
        # Inputs of a strip, and what its filter reaches beyond it; a single tap has no neighbours.
        supply = strip * (tile.width * feeds + (1 if window.taps == 1 else tile.width * window.kernel[1]))
        compute += tile.count * work
        # Inputs come while weights are multiplied: only what takes longer than that is waited for.
        feed += tile.count * max(0, supply - work)
        fed += tile.count * tile.columns * supply
        count += tile.count
        pixels += tile.count * _input_pixels(window, tile)
    out_blocks = _words(window.outputs, numbers.activation_bits, BLOCK_BYTES)
    in_blocks = _words(window.channels, numbers.activation_bits, BLOCK_BYTES)
    last = tiles[-1]
    # Before the first tile and after the last one there is nothing to hide the transfer behind.
    transfer = _input_pixels(window, tiles[0]) * in_blocks + last.width * last.columns * last.height * out_blocks
    positions = window.output[0] * window.output[1]
    weights = window.taps * per_tap * array.block
    # Every tile reads all filters again: a small tile saves buffers and costs weight traffic.
    fetches = count * window.outputs
    totals = [
        Fraction(compute + feed + transfer),
        Fraction(pixels * in_blocks),
        Fraction(positions * out_blocks),
        Fraction(fetches * _words(weights, numbers.weight_bits, WEIGHTS_PER_BLOCK * array.block)),
    ]
    # Where nobody knows the bandwidth, weights are taken to arrive in time.
    if numbers.word_bytes is not None:
        index_share = Fraction(numbers.index_bits, array.cluster * numbers.weight_bits)
        totals.append(
            pixels * _words(window.channels, numbers.activation_bits, numbers.word_bytes)
            + positions * _words(window.outputs, numbers.activation_bits, numbers.word_bytes)
            + (1 + index_share) * fetches * _words(weights, numbers.weight_bits, numbers.word_bytes)
        )
    # They work side by side, so the slowest decides.
    return Latency((width, height), tiles, compute, feed, transfer, max(totals), window.taps * per_tap, pixels, fed)


def _candidates(window: Window, array: Array, numbers: Numbers) -> Iterator[tuple[int, int]]:
    """Tiles whose inputs and outputs fit the buffers of a PE column."""
    (rows, cols), (high, wide), stride = window.output, window.kernel, window.stride
    out_bytes = _words(window.outputs, numbers.activation_bits, BLOCK_BYTES) * BLOCK_BYTES
    in_bytes = _words(window.channels, numbers.activation_bits, BLOCK_BYTES) * BLOCK_BYTES
    # The source bounds the height by outputs in words of 8 bytes before it looks at whole blocks.
    coarse = 8 * _words(window.outputs, numbers.activation_bits, 8)
    for width in range(min(_ceil(cols, array.columns), (INPUT_WIDTH - wide) // stride + 1), 0, -1):
        most = min(rows, (INPUT_HEIGHT - high) // stride + 1, BUFFER_BYTES // (width * coarse))
        for height in range(most, 0, -1):
            inputs = ((height - 1) * stride + high) * ((width - 1) * stride + wide) * in_bytes
            if max(inputs, height * width * out_bytes) <= BUFFER_BYTES:
                yield width, height


def _tiles(window: Window, array: Array, width: int, height: int) -> tuple[Tile, ...]:
    """All tiles, the bottom right one last."""
    rows, cols = window.output
    full, rest = divmod(cols, width * array.columns)
    strips = [(width, array.columns, full)] if full else []
    if rest:
        # As many PE columns as divide the rest: strips of one tile have one width.
        columns = next(count for count in range(min(array.columns, rest), 0, -1) if rest % count == 0)
        strips.append((rest // columns, columns, 1))
    full, rest = divmod(rows, height)
    heights = [(height, full)] if full else []
    if rest:
        heights.append((rest, 1))
    return tuple(Tile(wide, columns, high, n * m) for high, n in heights for wide, columns, m in strips)


def _input_pixels(window: Window, tile: Tile) -> int:
    """Input pixels under a tile."""
    (high, wide), stride = window.kernel, window.stride
    return ((tile.height - 1) * stride + high) * ((tile.width * tile.columns - 1) * stride + wide)


def _words(values: int, bits: int, word_bytes: int) -> int:
    return _ceil(values * bits, 8 * word_bytes)


def _ceil(value: int, unit: int) -> int:
    return -(-value // unit)
