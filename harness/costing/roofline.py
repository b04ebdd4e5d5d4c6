"""Rooflines: what engines reach beside what their multipliers and the off-chip memory would allow.

    attainable GOPS = min(peak GOPS, operations per byte x GB/s)

Everything comes from costs alone, so that a picture of stored records needs no plugin. Operations are executed (two
per kept weight); bytes are those that cross the chip's border for one item: weights that are not on chip, the inputs of
the first layer and the outputs of the last. Only weights are waited for: a point above its slanted roof is a
design whose inputs and outputs alone ask for more than the memory gives.

Source:
    Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52(4), 2009.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.api import Cost, JsonValue


@dataclass(frozen=True)
class Point:
    """One engine, or one of its layers, in a roofline.

    Args:
        engine: the engine's label.
        layer: the layer's name; empty for all layers together.
        intensity: executed operations per off-chip byte.
        gops: operations per second reached, 10^9.
        needed_gbytes_per_s: bandwidth with which the memory would never be waited for.
        resident_share: share of the weights that stay on chip.
        bound_by: what limits the engine; empty for a layer.
    """

    engine: str
    layer: str
    intensity: float
    gops: float
    needed_gbytes_per_s: float
    resident_share: float
    bound_by: str = ""


@dataclass(frozen=True)
class Roof:
    """What bounds the points of one engine.

    Args:
        engine: the engine's label.
        peak_gops: all multipliers busy with kept weights.
        gbytes_per_s: off-chip bandwidth reached; None where none is known.
        origin: who says what the bandwidth is.
    """

    engine: str
    peak_gops: float
    gbytes_per_s: float | None
    origin: str

    @property
    def ridge(self) -> float | None:
        """Operations per byte from which on multipliers and not memory decide; None without a bandwidth."""
        return None if not self.gbytes_per_s else self.peak_gops / self.gbytes_per_s

    def attainable(self, intensity: float) -> float:
        """GOPS below the roof at so many operations per byte.

        Example:
            >>> Roof("bank", peak_gops=400.0, gbytes_per_s=10.0, origin="given").attainable(4.0)
            40.0
        """
        return self.peak_gops if self.gbytes_per_s is None else min(self.peak_gops, self.gbytes_per_s * intensity)


@dataclass(frozen=True)
class Roofline:
    """Roofs and points, engine by engine in the order given; a cost that does not tell its traffic is left out."""

    roofs: tuple[Roof, ...]
    points: tuple[Point, ...]

    def of(self, engine: str) -> tuple[Point, ...]:
        """The points of one engine: all layers together first."""
        return tuple(point for point in self.points if point.engine == engine)


def roofline(costs: Sequence[Cost]) -> Roofline:
    """The roofline of some costs, one per engine.

    Args:
        costs: of engines that run the same workload; also those of records, `Cost.model_validate(record)`.

    Units:
        operations per byte, 10^9 operations per second, 10^9 bytes per second.
    """
    roofs: list[Roof] = []
    points: list[Point] = []
    for cost in costs:
        system = cost.details.get("memory_system")
        if not isinstance(system, Mapping):
            continue
        bandwidth = system.get("gbytes_per_s")
        roofs.append(
            Roof(
                cost.engine,
                _number(system.get("peak_gops")),
                _number(bandwidth) if bandwidth is not None else None,
                str(system.get("origin", "")),
            )
        )
        points += _points(cost, system)
    return Roofline(tuple(roofs), tuple(points))


def _points(cost: Cost, system: Mapping[str, JsonValue]) -> Iterator[Point]:
    """All layers together, then one by one; what moves no byte at all has no place on the axis."""
    layers = cost.details.get("layers")
    named = (
        [(name, layer) for name, layer in layers.items() if isinstance(layer, dict)] if isinstance(layers, dict) else []
    )
    shares = [(_number(layer.get("stored_bits")), _number(layer.get("resident_share"))) for _, layer in named]
    total = sum(bits for bits, _ in shares)
    resident = sum(bits * share for bits, share in shares) / total if total else 1.0
    found = [("", system, cost.gops, resident, cost.bound_by)]
    for name, layer in named:
        traffic, cycles = layer.get("traffic"), _number(layer.get("cycles"))
        if isinstance(traffic, dict) and cycles:
            gops = _number(traffic.get("operations")) * cost.clock_mhz / cycles / 1e3
            found.append((name, traffic, gops, _number(layer.get("resident_share")), ""))
    for name, moved, gops, share, bound in found:
        intensity = moved.get("intensity")
        if intensity is not None:
            needed = _number(moved.get("needed_gbytes_per_s"))
            yield Point(cost.engine, name, _number(intensity), gops, needed, share, bound)


def _number(value: JsonValue) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
