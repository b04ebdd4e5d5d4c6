"""An engine of one shape on one device: cycles of every product, memories, multipliers, and whether it fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from harness.api import Conditions, Engine, EngineShape, Logic, Product, Run, exact_sum

from .._devices import Device, Usage
from .bursts import reading_share
from .maps import line_buffers, load_words, map_bits, map_memories
from .memory import NONE, Memory, memory_of
from .numerics import Budget, Numerics
from .products import recurrent
from .resources import LogicEstimate, logic, logic_usage, split_multipliers
from .streaming import Demand, stalls

Runner = Callable[[Product, EngineShape, Conditions], Run]

CELL_PRODUCTS = 3
"""Multiplications of one LSTM unit's element-wise part: f * c, i * g and o * tanh(c)."""


@dataclass(frozen=True)
class Layer:
    """The cycles of one product, all of them, and what of it is streamed: a share of its weights, bits of its maps."""

    product: Product
    run: Run
    parts: dict[str, Fraction]
    streamed: Fraction
    repeats: int
    map_bits: int = 0

    @cached_property
    def cycles(self) -> Fraction:
        """The sum of the parts."""
        return exact_sum(self.parts.values())

    @property
    def moved_bits(self) -> int | None:
        """Bits of inputs and outputs that an engine that moves maps takes over the chip's border; None of others."""
        return None if self.run.moved_bits is None else self.run.moved_bits * self.product.steps

    def weight_bits(self, engine: Engine) -> Fraction:
        """Bits of weights that cross the chip's border: those that are not held there, or all for every run or tile."""
        fetches = Fraction(1) if self.run.fetches is None else self.run.fetches
        if not engine.streams_weights:
            return self.streamed * self.run.stored_bits * fetches * self.product.steps
        return self.run.stored_bits * self.repeats * fetches


@dataclass(frozen=True)
class Design:
    """An engine of one shape with everything that runs on it."""

    engine: Engine
    shape: EngineShape
    layers: tuple[Layer, ...]
    memory: Memory
    multipliers: int
    dsp: int
    logic: LogicEstimate | None
    usage: dict[str, Usage]
    has_bandwidth: bool
    launch: Fraction

    @property
    def copies(self) -> int:
        """Arrays beside each other on different output positions."""
        return max(1, self.multipliers // max(1, self.shape.multipliers))

    @property
    def built(self) -> str:
        """The shape, and how many copies where there are several."""
        return f"{self.shape}" + (f" copies={self.copies}" if self.copies > 1 else "")

    @cached_property
    def cycles(self) -> Fraction:
        """Cycles of one time step or item."""
        return exact_sum((self.launch, *(layer.cycles for layer in self.layers)))

    @property
    def ram_share(self) -> float:
        """Share of its ceiling that the fullest kind of RAM takes; kinds are not added up."""
        return max((usage.share for usage in self.memory.placement.usage.values()), default=0.0)

    def logic_share(self, device: Device) -> float | None:
        """Share of its ceiling that the logic takes, memories of it included; None where nothing is known of it."""
        return None if self.logic is None else self.usage[device.entry.logic.kind].share

    @property
    def streamed_bits(self) -> float:
        """Bits of weights and feature maps that cross the chip's border for one time step or item."""
        return float(
            sum(layer.weight_bits(self.engine) + layer.map_bits + (layer.moved_bits or 0) for layer in self.layers)
        )

    @property
    def is_resident(self) -> bool:
        """Whether all weights stay on chip."""
        return not (self.engine.streams_weights or any(self.memory.streamed))

    @cached_property
    def is_under_ceilings(self) -> bool:
        """Whether every resource stays below its ceiling, the estimated logic included."""
        return self.memory.placement.fits and all(usage.fits for usage in self.usage.values())

    @property
    def fits(self) -> bool:
        """Whether it can be built, with all weights on chip unless the engine is made to stream them."""
        feeds = self.has_bandwidth or not self.memory.streams_maps
        return not any(self.memory.streamed) and self.is_under_ceilings and feeds

    @cached_property
    def rank(self) -> tuple[bool, Fraction, int, int]:
        """What a search minimises: that it can run at all, cycles, RAM blocks; at a tie fewer, larger units."""
        # Bandwidth that nobody knows cannot be waited for: a design that streams without one comes last.
        runs = self.fits or (self.is_under_ceilings and self.has_bandwidth)
        return not runs, self.cycles, self.memory.blocks, self.shape.sizes[0][1]

    @property
    def waits_for_memory(self) -> bool:
        """Whether some layer stands still until weights or data arrive."""
        return any(layer.parts.get("memory_stall") for layer in self.layers)

    def parts(self) -> dict[str, Fraction]:
        """Where the cycles go, summed over the layers."""
        totals: dict[str, Fraction] = {"launch": self.launch} if self.launch else {}
        for layer in self.layers:
            for name, cycles in layer.parts.items():
                totals[name] = totals.get(name, NONE) + cycles
        return totals


def elementwise(product: Product, run: Run, numerics: Numerics, engine: Engine | None = None) -> Fraction:
    """Cycles of the LSTM's element-wise part that its matrix product does not hide.

    Rows are unit-major, so units leave while later rows are still at work: what stays is the units of the last rows, or
    the backlog if there are too few element-wise units.

    Args:
        product: the matrix product.
        run: its cycles.
        numerics: how many units are worked off per cycle, and how long one takes.
        engine: whose streams share the product; None: there is one.
    """
    if product.units is None:
        return NONE
    # Of a batch that shares every word, rows of all inputs leave together.
    inputs = engine.streams if engine is not None and engine.sharing == "shared" else 1
    gates = product.rows // product.units
    # Rows that come out with the last group; all of them where the engine does not say.
    first = product.rows - (product.rows if run.last_rows is None else run.last_rows)
    # Units touched by those rows: rows of a unit's gates follow one another, so a group may begin inside a unit.
    last_units = ((product.rows - 1) // gates - first // gates + 1) * inputs
    each, issue = numerics.elementwise_units, run.issue_cycles
    if engine is not None and engine.sharing == "in_turn":
        issue /= engine.streams  # those of one input: its units are behind nobody else's rows
    # Units that came out earlier and have not been worked off while the matrix product ran.
    backlog = -(-product.units * inputs // each) - issue + run.last
    return max(Fraction(-(-last_units // each)), backlog) + numerics.elementwise_latency


def design(
    engine: Engine,
    shape: EngineShape,
    products: Sequence[Product],
    runner: Runner,
    device: Device,
    numerics: Numerics,
    budget: Budget,
) -> Design:
    """Put products on an engine of one shape; they run one after another.

    All weights that fit stay on chip; the others are streamed anew for every item while their product runs.

    Args:
        engine: what is built.
        shape: in which sizes.
        products: what runs on it.
        runner: `engine.simulate` or `engine.expect`.
        device: what it is built on.
        numerics: widths and constants.
        budget: what it may take beside multipliers.
    """
    runs = [runner(product, shape, numerics.conditions) for product in products]
    # An engine that runs whole layers spreads over pixels by itself.
    copies = 1 if engine.whole_layer else numerics.pixel_copies
    extra = [] if engine.moves_maps or engine.whole_layer else line_buffers(products, numerics, copies)
    maps = [] if engine.moves_maps else map_memories(products, numerics)
    memory = memory_of(products, runs, device, numerics, copies, budget.ram_blocks, extra, maps, engine.streams)
    # The cycles need the share that is streamed, and that is known only once the memories have their places.
    layers = tuple(
        layer_of(engine, product, run, streamed, shape, runner, numerics, memory.streams_maps)
        for product, run, streamed in zip(products, runs, memory.streamed, strict=True)
    )
    layers = _taking_turns(_prefetched(layers, numerics), engine, numerics)
    multipliers = shape.multipliers * copies
    built = 0 if engine.unrolled else multipliers  # constants are multiplied by adders, which its logic counts
    dsp, from_luts = dsp_blocks(products, built, device, numerics, shares=engine.packs(shape))
    estimate = _unrolled(engine, runs, copies) or logic_of(engine, shape, multipliers, from_luts, numerics)
    usage = {"dsp": device.usage("dsp", dsp), **memory.placement.usage}
    if estimate is not None:
        # The high end of the range: what fits must fit for certain.
        usage |= logic_usage(estimate.high, memory.placement, device)
    if budget.luts is not None and estimate is not None:
        usage["lut_budget"] = Usage(estimate.high.lut, budget.luts, 1.0)
    return Design(
        engine=engine,
        shape=shape,
        layers=layers,
        memory=memory,
        multipliers=multipliers,
        dsp=dsp,
        logic=estimate,
        usage=usage,
        has_bandwidth=numerics.conditions.bytes_per_cycle is not None,
        launch=numerics.cycles(numerics.launch_us),
    )


def dsp_blocks(
    products: Sequence[Product], multipliers: int, device: Device, numerics: Numerics, *, shares: bool
) -> tuple[int, int]:
    """DSP blocks of the array and of the LSTM's element-wise part; and the multipliers made of LUTs instead."""
    bits = numerics.conditions.operand_bits
    is_recurrent = any(product.units is not None for product in products)
    # The element-wise part is built once for all layers: they run one after another.
    cell = CELL_PRODUCTS * numerics.elementwise_units * is_recurrent
    if numerics.lut_multipliers:
        return split_multipliers(multipliers + cell, bits, device, shares_operand=shares)
    array = device.products_per_dsp(bits, shares_operand=shares).value
    single = device.products_per_dsp(bits).value  # the element-wise part shares no operand
    # Rounded up together: the last block of the array may hold a product of the other part.
    if array == single:
        return -(-(multipliers + cell) // int(array)), 0
    return -(-multipliers // int(array)) + -(-cell // int(single)), 0


def _unrolled(engine: Engine, runs: Sequence[Run], copies: int) -> LogicEstimate | None:
    """The logic of circuits that serve one product each; None where products share an array."""
    found = [run.logic for run in runs if run.logic is not None]
    if not found:
        return None
    total = Logic(lut=copies * sum(each.lut for each in found), ff=copies * sum(each.ff for each in found))
    return LogicEstimate(total, total, f"engine {engine.name}, counted adder by adder, indicative")


def logic_of(
    engine: Engine, shape: EngineShape, multipliers: int, from_luts: int, numerics: Numerics
) -> LogicEstimate | None:
    """What the engine itself says, else what synthesised templates of its kind say."""
    own = engine.logic(shape, numerics.conditions)
    if own is not None:
        return LogicEstimate(own, own, f"engine {engine.name}, indicative")
    return logic(
        engine.name,
        multipliers=multipliers,
        # Of the column engine `pes` are those of one group.
        pes=dict(shape.sizes).get("pes", 1) * dict(shape.sizes).get("groups", 1) * numerics.pixel_copies,
        bits=numerics.conditions.operand_bits,
        lut_multipliers=from_luts,
    )


def layer_of(
    engine: Engine,
    product: Product,
    run: Run,
    streamed: Fraction,
    shape: EngineShape,
    runner: Runner,
    numerics: Numerics,
    streams_maps: bool,
) -> Layer:
    """The cycles of one product with everything around it.

    Args:
        engine: what it runs on.
        product: what runs.
        run: its cycles and memories on a shape.
        streamed: share of its weights that is streamed.
        shape: the engine's.
        runner: how a product runs.
        numerics: widths and constants.
        streams_maps: whether a convolution's input and output cross the chip's border.
    """
    repeats = 1 if engine.whole_layer else -(-product.pixels // numerics.pixel_copies)
    # The pipeline fills once a layer, not once a position: positions follow one another without a gap.
    parts = {
        name: cycles * repeats if repeats > 1 else cycles for name, cycles in run.parts.items() if name != "fill_drain"
    }
    parts["fill_drain"] = run.parts.get("fill_drain", NONE)
    if product.convolution is not None and not engine.whole_layer:
        # Words of the next position come in while this one is multiplied: only what takes longer is waited for.
        parts["line_buffer_stall"] = repeats * max(NONE, _load(product, numerics) - run.issue_cycles)
    ready = elementwise(product, run, numerics, engine)
    if product.units is not None and numerics.inputs == "known_ahead":
        # W_x of the next step runs while this step's units are finished; only W_h waits for them, and units leave
        # while W_h runs.
        alone = recurrent(product)
        waiting = runner(alone, shape, numerics.conditions)
        ready = elementwise(alone, waiting, numerics, engine)
        tail = waiting.parts.get("fill_drain", NONE) + ready
        left = max(NONE, waiting.issue_cycles + tail - run.issue_cycles)
        ready = min(ready, left)
        parts["fill_drain"] = left - ready
    parts["elementwise"] = ready
    parts["write_back"] = Fraction(numerics.write_back_cycles if product.units is not None else 0)
    parts["layer_overhead"] = numerics.cycles(numerics.layer_us) * (
        engine.streams if engine.sharing == "in_turn" else 1
    )
    moved = map_bits(product, numerics) if streams_maps else 0
    # An engine that reads its weights anyhow has counted them in its run: only what maps add is waited for.
    read = Fraction(repeats) if engine.streams_weights and moved else streamed * (run.fetches or 1)
    # Stalls that the engine counts itself are added to, not replaced: one that streams knows its own.
    parts["memory_stall"] = parts.get("memory_stall", NONE) + _streaming(
        run, read, moved, repeats, product.rows, numerics
    )
    spent = exact_sum(parts.values())
    floor = numerics.cycles(numerics.chain_us) if product.units is not None else NONE
    # A recurrent step cannot end before its chain of dependent operations has, however wide the array is.
    parts["chain_stall"] = max(NONE, floor - spent)
    # Parts that are zero are left out, but for those that every report shows.
    used = {name: cycles for name, cycles in parts.items() if cycles or name in run.parts or name == "memory_stall"}
    if product.steps > 1:  # every step waits for the last one: nothing of them overlaps
        used = {name: cycles * product.steps for name, cycles in used.items()}
    return Layer(product, run, used, streamed, repeats * product.steps, moved)


def _load(product: Product, numerics: Numerics) -> Fraction:
    """Cycles in which the line buffer takes in the new words of one position."""
    # In strips a copy moves on by one position; beside each other, all move on by as many as there are copies.
    step = 1 if numerics.copy_layout == "strips" else numerics.pixel_copies
    return Fraction(-(-load_words(product, step) // numerics.load_words))


def _streaming(run: Run, streamed: Fraction, moved: int, repeats: int, rows: int, numerics: Numerics) -> Fraction:
    """Cycles spent waiting for weights and feature maps that are not on chip."""
    speed = numerics.conditions.bytes_per_cycle
    if not (streamed or moved) or speed is None:
        return NONE
    # Words arrive whole, so the last begun cycle counts.
    share = reading_share(run, rows, numerics.weight_layout, numerics.bursts)
    needed = Fraction((float(streamed * run.stored_bits) / share + moved) / 8 / speed).__ceil__()
    hidden = run.issue_cycles * repeats if numerics.overlap else NONE
    return max(NONE, Fraction(needed) - hidden)


_HIDDEN = ("fill_drain", "elementwise", "write_back")
"""What one input of a batch waits for while the others are at work."""


def _taking_turns(layers: tuple[Layer, ...], engine: Engine, numerics: Numerics) -> tuple[Layer, ...]:
    """The same layers, less what inputs of a batch hide of each other's waiting where whole products take turns.

    A round runs every layer for all inputs in turn. The first input's next layer may begin once the others are done
    with this one, the last input's once the others are done with the next: the shorter of both hides a layer's tail.
    Element-wise units serve one input after another, too.
    """
    inputs = engine.streams
    if engine.sharing != "in_turn" or inputs == 1:
        return layers
    each = [layer.run.issue_cycles * layer.repeats / inputs for layer in layers]
    found = []
    for place, layer in enumerate(layers):
        tail = exact_sum(layer.parts.get(name, NONE) for name in _HIDDEN)
        hidden = (inputs - 1) * min(each[place], each[(place + 1) % len(layers)])
        units = -(-(layer.product.units or 0) // numerics.elementwise_units)
        left = max(NONE, tail - hidden, inputs * (units - each[place]))
        parts = {name: cycles for name, cycles in layer.parts.items() if name not in _HIDDEN}
        # What is left is told as that of which there is most.
        name = max(_HIDDEN, key=lambda name: layer.parts.get(name, NONE))
        parts = {**parts, "fill_drain": NONE, **({name: left} if left else {})}
        found.append(replace(layer, parts=_chained(parts, layer.product, numerics)))
    return tuple(found)


def _chained(parts: dict[str, Fraction], product: Product, numerics: Numerics) -> dict[str, Fraction]:
    """Parts with what a recurrent layer waits for its chain of dependent operations, however wide the array is."""
    rest = {name: cycles for name, cycles in parts.items() if name != "chain_stall"}
    floor = numerics.cycles(numerics.chain_us) if product.units is not None else NONE
    chain = max(NONE, floor - exact_sum(rest.values()))
    return {**rest, "chain_stall": chain} if chain else rest


def _prefetched(layers: tuple[Layer, ...], numerics: Numerics) -> tuple[Layer, ...]:
    """The same layers with what a buffer hides of their streaming; as they are where there is none, or none streams.

    Feature maps are read and written while their layer runs: nothing of them is known ahead.
    """
    speed = numerics.conditions.bytes_per_cycle
    if not numerics.prefetch_kib or speed is None or not any(layer.streamed for layer in layers):
        return layers
    if any(layer.product.steps > 1 for layer in layers):  # a buffer that fills ahead is counted step by step only
        return layers
    demands, alone = [], []
    for layer in layers:
        run, rows = layer.run, layer.product.rows
        waited = _streaming(run, layer.streamed, layer.map_bits, layer.repeats, rows, numerics)
        computing = run.issue_cycles * layer.repeats
        share = reading_share(run, rows, numerics.weight_layout, numerics.bursts)
        demands.append(
            Demand(
                bits=float(layer.streamed * run.stored_bits) / share,
                computing=float(computing),
                rest=float(max(NONE, layer.cycles - computing - waited)),
                bits_per_cycle=8 * speed,
            )
        )
        alone.append(waited)
    found = stalls(demands, 8.0 * 1024 * numerics.prefetch_kib, overlap=numerics.overlap)
    return tuple(
        # What maps make it wait for stays; a buffer never makes it worse.
        layer if layer.map_bits else _waiting(layer, before, min(before, Fraction((wait - 1e-9).__ceil__())), numerics)
        for layer, before, wait in zip(layers, alone, found, strict=True)
    )


def _waiting(layer: Layer, before: Fraction, after: Fraction, numerics: Numerics) -> Layer:
    """A layer that waits for other weights than it did; a chain of dependent operations may then decide."""
    parts = {**layer.parts, "memory_stall": layer.parts["memory_stall"] - before + after}
    return replace(layer, parts=_chained(parts, layer.product, numerics))
