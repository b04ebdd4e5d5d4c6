"""What a design moves over the chip's border, layer by layer: bytes, intensity, and the bandwidth it would need."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from harness.api import JsonValue, Product

from .design import Design
from .numerics import Numerics

_OPERATIONS = 2  # one multiply-accumulate is a multiplication and an addition

_STALLS = ("memory_stall", "launch", "layer_overhead", "chain_stall")
"""Cycles in which nothing is computed: what the memory has to keep pace with is the rest."""


@dataclass(frozen=True)
class Traffic:
    """Bytes over the off-chip memory and operations, of one item of every stream: they share the weights.

    Args:
        operations: two per kept weight and position.
        weight_bytes: weights that are not on chip, as stored.
        vector_bytes: inputs and outputs that cross the chip's border.
        cycles: all of them; busy_cycles: without those that wait for memory or start things up.
    """

    operations: int
    weight_bytes: float
    vector_bytes: float
    cycles: float
    busy_cycles: float

    @property
    def read_bytes(self) -> float:
        """Weights and vectors."""
        return self.weight_bytes + self.vector_bytes

    @property
    def intensity(self) -> float | None:
        """Operations per byte; None where nothing crosses the border."""
        return self.operations / self.read_bytes if self.read_bytes else None

    def needed_gbytes_per_s(self, clock_mhz: float) -> float:
        """Bandwidth with which the memory would never be waited for."""
        return self.read_bytes * clock_mhz / self.busy_cycles / 1e3 if self.busy_cycles else 0.0

    def plain(self, clock_mhz: float) -> dict[str, JsonValue]:
        """As JSON values."""
        return {
            "operations": self.operations,
            "weight_bytes": round(self.weight_bytes, 3),
            "vector_bytes": round(self.vector_bytes, 3),
            "intensity": None if self.intensity is None else round(self.intensity, 6),
            "needed_gbytes_per_s": round(self.needed_gbytes_per_s(clock_mhz), 6),
        }


def layer_traffic(design: Design, place: int, numerics: Numerics) -> Traffic:
    """The traffic of one layer: its streamed weights, and its vector if it is the first or the last.

    Vectors between layers stay on chip, but for feature maps that find no room there and those of an engine that keeps
    none. An engine that streams its weights reads them for every run, or for every tile of the layer.
    """
    layer, streams = design.layers[place], design.engine.streams
    # Vectors between layers stay on chip: only the first reads and only the last writes.
    vectors = _inputs(layer.product) * (place == 0) + _outputs(layer.product) * (place == len(design.layers) - 1)
    waiting = sum((layer.parts.get(name, Fraction(0)) for name in _STALLS), Fraction(0))
    return Traffic(
        operations=_OPERATIONS * layer.product.nnz * layer.product.runs * streams,
        weight_bytes=float(layer.weight_bits(design.engine)) / 8,
        vector_bytes=streams
        * (layer.moved_bits or layer.map_bits or vectors * numerics.conditions.activation_bits)
        / 8,
        cycles=float(layer.cycles),
        busy_cycles=float(layer.cycles - waiting),
    )


def traffic(design: Design, numerics: Numerics) -> Traffic:
    """The traffic of all layers together."""
    each = [layer_traffic(design, place, numerics) for place in range(len(design.layers))]
    return Traffic(
        operations=sum(one.operations for one in each),
        weight_bytes=sum(one.weight_bytes for one in each),
        vector_bytes=sum(one.vector_bytes for one in each),
        cycles=float(design.cycles),
        busy_cycles=sum(one.busy_cycles for one in each),
    )


def memory_system(design: Design, numerics: Numerics, origin: str) -> Mapping[str, JsonValue]:
    """The off-chip memory beside what the design asks of it, for a report and for a roofline.

    Args:
        design: what runs.
        numerics: clock and bandwidth.
        origin: who says what the bandwidth is.
    """
    clock, speed = numerics.conditions.clock_mhz, numerics.conditions.bytes_per_cycle
    return {
        **traffic(design, numerics).plain(clock),
        "gbytes_per_s": None if speed is None else round(speed * clock / 1e3, 6),
        "origin": origin,
        "weight_layout": numerics.weight_layout,
        "prefetch_kib": numerics.prefetch_kib,
        "peak_gops": round(_OPERATIONS * design.multipliers * clock / 1e3, 6),
    }


def vector_shortage(design: Design, numerics: Numerics) -> tuple[float, float] | None:
    """What inputs and outputs alone ask of the off-chip memory, and what it gives, in GB/s; None if it gives enough.

    No cycle waits for them, so that a reader has to be told. Feature maps that are streamed are waited for.
    """
    speed, clock = numerics.conditions.bytes_per_cycle, numerics.conditions.clock_mhz
    if speed is None or any(layer.map_bits or layer.moved_bits for layer in design.layers):
        return None
    found = traffic(design, numerics)
    needed = found.vector_bytes / found.busy_cycles if found.busy_cycles else 0.0
    return (needed * clock / 1e3, speed * clock / 1e3) if needed > speed else None


def _inputs(product: Product) -> int:
    """Elements that come in: of a recurrent layer without its own last output, of a convolution the whole image."""
    if product.units is not None:
        # Of [W_x | W_h] only W_x reads from outside; a layer of W_h alone reads what it wrote.
        return product.parts[0].cols * product.steps if len(product.parts) > 1 else 0
    if product.convolution is None:
        return product.cols * product.runs
    # Every input once, though windows overlap: the line buffer keeps what the next window needs.
    return product.convolution.inputs * prod(product.convolution.read)


def _outputs(product: Product) -> int:
    return (product.rows if product.units is None else product.units) * product.runs
