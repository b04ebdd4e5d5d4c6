"""Layers on engines of their own: multipliers divided among them, so that the slowest is as fast as may be.

Every layer has an engine of the same kind in a shape of its own, and all work at the same time, each on another item or
on other lines of it. Items follow one another in the cycles of the slowest layer.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from harness.api import Engine, EngineShape, JsonValue, Product

from .._devices import Usage
from .design import Layer, Runner, dsp_blocks, layer_of, logic_of
from .maps import stage_lines
from .memory import rams_of, states
from .placement import Placement, place
from .resources import LogicEstimate, logic_usage
from .search import Setting

_RUNGS = 2
"""Budgets per octave that every layer is offered shapes for."""

_PRICES = (float("inf"), *(4.0**power for power in range(3, -6, -1)), 0.0)
"""RAM blocks that a multiplier may cost, where blocks are short: tried in turns until all stages fit."""

_POLISHES = 24
"""Times that what is left over may go to the slowest layer."""


@dataclass(frozen=True)
class Stage:
    """One layer on an engine of its own, and about how many RAM blocks it takes."""

    shape: EngineShape
    layer: Layer
    blocks: int = 0

    @property
    def cycles(self) -> Fraction:
        """Of one item."""
        return self.layer.cycles


@dataclass(frozen=True)
class Pipeline:
    """All layers at the same time.

    Args:
        stages: in the order of the layers.
        placement: of all memories together.
        usage: of every resource.
        multipliers: of all stages together, copies included.
        dsp: DSP blocks of all stages together.
    """

    stages: tuple[Stage, ...]
    placement: Placement
    usage: dict[str, Usage]
    multipliers: int
    dsp: int

    @property
    def interval(self) -> Fraction:
        """Cycles from an item to the next one: those of the slowest stage."""
        return max(stage.cycles for stage in self.stages)

    @property
    def slowest(self) -> str:
        """The layer that sets the pace."""
        return max(self.stages, key=lambda stage: stage.cycles).layer.product.layer

    @property
    def latency(self) -> Fraction:
        """Cycles of one item through an empty pipeline.

        A convolution begins when the lines under its first window are there, and ends a line after what it reads; every
        other layer begins when the one before it has ended.
        """
        start, end = Fraction(0), self.stages[0].cycles
        for before, stage in zip(self.stages, self.stages[1:], strict=False):
            start, end = _handed_on(before, stage, start, end)
        return end

    @property
    def fits(self) -> bool:
        """Whether all stages fit together, with all weights on chip."""
        return self.placement.fits and all(usage.fits for usage in self.usage.values())

    def plain(self, clock_mhz: float, streams: int) -> dict[str, JsonValue]:
        """As JSON values; rates and latency in the units of a cost."""
        return {
            "steps_per_s": streams * clock_mhz * 1e6 / float(self.interval),
            "latency_us": float(self.latency) / clock_mhz,
            "cycles": self.interval.__ceil__(),
            "slowest": self.slowest,
            "multipliers": self.multipliers,
            "dsp": self.dsp,
            "ram_blocks": self.placement.taken,
            "ram_share": max((usage.share for usage in self.placement.usage.values()), default=0.0),
            "fits": self.fits,
            "stages": {
                stage.layer.product.layer: {
                    "shape": str(stage.shape),
                    "multipliers": stage.shape.multipliers,
                    "cycles": stage.cycles.__ceil__(),
                }
                for stage in self.stages
            },
        }


def _handed_on(before: Stage, stage: Stage, start: Fraction, end: Fraction) -> tuple[Fraction, Fraction]:
    """When a stage begins and ends, if the one before it began and ends then."""
    given, taken = before.layer.product.convolution, stage.layer.product.convolution
    if given is None or taken is None:
        return end, end + stage.cycles
    # Pooling in between makes one line of several.
    needed = -(-min(taken.window[0], taken.read[0]) * given.output[0] // taken.read[0])
    begin = start + before.cycles * min(Fraction(1), Fraction(needed, given.output[0]))
    return begin, max(begin + stage.cycles, end + stage.cycles / taken.output[0])


def why_not(engine: Engine, work: Sequence[Product]) -> str:
    """Why layers cannot have engines of their own; empty if they can."""
    if len(work) < 2:
        return "there is one layer"
    if engine.unrolled:
        return "its layers are circuits of their own already"
    if engine.streams_weights or engine.moves_maps:
        return "it reads off-chip memory by design, which its layers would share"
    return ""


def pipeline(engine: Engine, work: Sequence[Product], runner: Runner, setting: Setting, budget: int) -> Pipeline | None:
    """Divide multipliers among the layers; None if there are too few for the smallest engine of each.

    Args:
        engine: of every layer, each in a shape of its own.
        work: the layers.
        runner: `engine.simulate` or `engine.expect`.
        setting: device, numerics and limits.
        budget: multipliers of all layers together; of one copy where there are several.
    """
    maker = _Maker(engine, work, runner, setting)
    choices = [maker.choices(place, budget) for place in range(len(work))]
    division = divide(choices, budget, maker.joined)
    return None if division is None else maker.joined(maker.polished(division, budget))


def divide(
    choices: Sequence[Sequence[Stage]], budget: int, joined: Callable[[Sequence[Stage]], Pipeline]
) -> list[Stage] | None:
    """The division whose slowest stage is fastest: exact among the choices, as far as multipliers limit it.

    Where memories do not fit beside each other, stages take other shapes, and get slower together until they do; the
    slowest division is the answer if none fits. None if not even the smallest stages stay within the budget.

    Args:
        choices: stages of every layer.
        budget: multipliers of all stages together.
        joined: the stages on one device.
    """
    paces = sorted({stage.cycles for each in choices for stage in each})

    def division(pace: Fraction, price: float) -> list[Stage] | None:
        """The cheapest stages that keep a pace, at so many blocks for a multiplier; None beyond the budget."""
        kept = []
        for each in choices:
            quick = [stage for stage in each if stage.cycles <= pace]
            if not quick:
                return None
            kept.append(min(quick, key=lambda stage: _price(stage, price)))
        return kept if sum(stage.shape.multipliers for stage in kept) <= budget else None

    def fitting(pace: Fraction) -> list[Stage] | None:
        divisions = (division(pace, price) for price in _PRICES)
        return next((found for found in divisions if found is not None and joined(found).fits), None)

    # A slower pace never needs more multipliers, and hardly ever more memory.
    first = _first(len(paces), lambda place: division(paces[place], _PRICES[0]) is not None)
    last = first + _first(len(paces) - first, lambda place: fitting(paces[first + place]) is not None)
    return fitting(paces[last]) or division(paces[last], _PRICES[0])


def _price(stage: Stage, price: float) -> tuple[float, float]:
    """What a stage costs where a multiplier is worth so many RAM blocks; without a bound multipliers come first."""
    multipliers = stage.shape.multipliers
    if price == float("inf"):
        return multipliers, stage.blocks
    return stage.blocks + price * multipliers, multipliers


def _first(size: int, holds: Callable[[int], bool]) -> int:
    """The first of `size` places where something holds that, once it does, holds for all that follow; else the last."""
    low, high = 0, size - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


@dataclass(frozen=True)
class _Maker:
    engine: Engine
    work: Sequence[Product]
    runner: Runner
    setting: Setting

    def choices(self, place: int, budget: int) -> list[Stage]:
        """Stages of a layer, of which none is slower and larger in multipliers and in RAM than another."""
        lines = [line for line in self.engine.lines([self.work[place]], budget) if line]
        rungs = sorted({int(2 ** (step / _RUNGS)) for step in range(_RUNGS * budget.bit_length())} | {budget})
        shapes = {shape: None for rung in rungs if rung <= budget for shape in self._promising(place, lines, rung)}
        return _best(self._stage(place, shape) for shape in shapes)

    def _promising(self, place: int, lines: Sequence[Sequence[EngineShape]], rung: int) -> list[EngineShape]:
        """The largest shape of every line within a budget; of those alike in breadth the fastest by its bound."""
        found: dict[int, tuple[int, int, EngineShape]] = {}
        for line in lines:
            index = bisect_right(line, rung, key=lambda shape: shape.multipliers)
            if index:
                shape = line[index - 1]
                bound = self.engine.least_cycles(self.work[place], shape), shape.multipliers, shape
                # Few wide units and many narrow ones differ in memory more than in cycles: one of each is kept.
                breadth = (shape.multipliers // shape.sizes[0][1]).bit_length()
                if breadth not in found or bound[:2] < found[breadth][:2]:
                    found[breadth] = bound
        return [shape for *_, shape in found.values()]

    def _stage(self, place: int, shape: EngineShape) -> Stage:
        product, numerics = self.work[place], self.setting.numerics
        run = self.runner(product, shape, numerics.conditions)
        layer = layer_of(self.engine, product, run, Fraction(0), shape, self.runner, numerics, streams_maps=False)
        ladder = self.setting.device.ram
        return Stage(shape, layer, sum(ram.count * ladder.blocks(ram.width, ram.depth) for ram in run.rams))

    def polished(self, stages: list[Stage], budget: int) -> list[Stage]:
        """The same with what is left over given to the slowest stage, as long as that helps and fits."""
        for _ in range(_POLISHES):
            slowest = max(range(len(stages)), key=lambda place: stages[place].cycles)
            left = budget - sum(stage.shape.multipliers for stage in stages)
            rung = stages[slowest].shape.multipliers + left
            lines = [line for line in self.engine.lines([self.work[slowest]], rung) if line]
            better = [self._stage(slowest, shape) for shape in self._promising(slowest, lines, rung)]
            fastest = min(better, key=lambda stage: stage.cycles)
            changed = [fastest if place == slowest else stage for place, stage in enumerate(stages)]
            if fastest.cycles >= stages[slowest].cycles or not self.joined(changed).fits:
                break
            stages = changed
        return stages

    def joined(self, stages: Sequence[Stage]) -> Pipeline:
        """Stages beside each other on the device."""
        device, numerics, limits = self.setting.device, self.setting.numerics, self.setting.budget
        copies = 1 if self.engine.whole_layer else numerics.pixel_copies
        others, weights = [], []
        for stage in stages:
            product = stage.layer.product
            lines = [] if self.engine.whole_layer else stage_lines(product, numerics, copies)
            extra = [*states([product], numerics, self.engine.streams), *lines]
            beside, held = rams_of([product], [stage.layer.run], numerics, copies, extra)
            others += beside
            weights += held
        first = place(others, device, small=numerics.vector_memory, ram_blocks=limits.ram_blocks)
        placement = place(weights, device, ram_blocks=limits.ram_blocks, beside=first)
        blocks = [
            dsp_blocks([stage.layer.product], stage.shape.multipliers * copies, device, numerics,
                       shares=self.engine.packs(stage.shape))
            for stage in stages
        ]  # fmt: skip
        dsp = sum(count for count, _ in blocks)
        usage = {"dsp": device.usage("dsp", dsp), **placement.usage}
        logic = _added(
            logic_of(self.engine, stage.shape, stage.shape.multipliers * copies, luts, numerics)
            for stage, (_, luts) in zip(stages, blocks, strict=True)
        )
        if logic is not None:
            usage |= logic_usage(logic.high, placement, device)
            if limits.luts is not None:
                usage["lut_budget"] = Usage(logic.high.lut, limits.luts, 1.0)
        return Pipeline(tuple(stages), placement, usage, copies * sum(s.shape.multipliers for s in stages), dsp)


def _added(estimates: Iterator[LogicEstimate | None]) -> LogicEstimate | None:
    """Logic of all stages together; None where nothing is known of it."""
    total: LogicEstimate | None = None
    for each in estimates:
        if each is None:
            return None
        total = each if total is None else replace(
            total,
            low=replace(total.low, lut=total.low.lut + each.low.lut, ff=total.low.ff + each.low.ff),
            high=replace(total.high, lut=total.high.lut + each.high.lut, ff=total.high.ff + each.high.ff),
        )  # fmt: skip
    return total


def _best(stages: Iterator[Stage]) -> list[Stage]:
    """Those that no other beats in multipliers, cycles and RAM blocks."""
    kept: list[Stage] = []
    for stage in sorted(stages, key=lambda stage: (stage.shape.multipliers, stage.cycles, stage.blocks)):
        if not any(other.cycles <= stage.cycles and other.blocks <= stage.blocks for other in kept):
            kept.append(stage)
    return kept
