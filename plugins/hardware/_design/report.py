"""From a design and its baselines to the cost that a report shows.

Assumed:

- one engine, the products one after another
- RAM reads never collide
- no overhead beyond the parts listed: latency is a lower bound
- routing is not modelled; biases and activation tables take no RAM
- feature maps of a chain of layers: what shortcuts carry past layers takes no RAM
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from harness.api import Cost, JsonValue, RamPurpose

from .._devices import Device, Usage
from .design import Design, Layer
from .events import event_energy
from .numerics import Numerics
from .resources import Energy, energy
from .search import Bounded
from .traffic import layer_traffic, memory_system, vector_shortage

_CONSTANT_PARTS = ("fill_drain", "elementwise", "write_back", "layer_overhead", "launch", "chain_stall")

_BINS = 10


@dataclass(frozen=True)
class Choice:
    """What a cost was computed with, and what it is compared with.

    Args:
        model: the hardware model.
        device, numerics, budget: what it ran on.
        clock_origin: who says what the clock is.
        exact: whether cycles were counted on the masks.
        given: whether the shape was given and not searched.
        dense: the dense products on a dot-product array of as many multipliers.
        engine_dense: the dense products on the same engine, None if it refuses them.
        fixed: the same products on the shape that one would build without looking at a mask.
        omitted: matrices that are not costed.
        dense_compute: the dense products on the array that computes them fastest, wherever their weights are.
        streaming: the fastest design found that streams weights, None if there is none.
        bandwidth_origin: who says what the off-chip memory delivers.
        pipelined: layers on engines of their own, where that was asked for.
        bounded: how far the search came, where it ended early.
    """

    model: str
    device: Device
    numerics: Numerics
    budget: int
    clock_origin: str
    exact: bool
    given: bool
    dense: Design
    engine_dense: Design | None
    fixed: Design
    omitted: tuple[str, ...]
    dense_compute: Design
    streaming: Design | None = None
    bandwidth_origin: str = ""
    pipelined: JsonValue = None
    bounded: Bounded | None = None


def report(best: Design, choice: Choice) -> Cost:
    """Put the figures of a design beside those of its baselines."""
    clock = choice.numerics.conditions.clock_mhz
    # Whole cycles, once and at the end: each layer's fractions add up before they are rounded.
    cycles, dense_cycles = best.cycles.__ceil__(), choice.dense.cycles.__ceil__()
    latency_us = cycles / clock
    streams = best.engine.streams
    by_events = event_energy(best, choice.device, choice.numerics, latency_us)
    executed = sum(layer.product.nnz * layer.product.runs for layer in best.layers)
    equivalent = sum(layer.product.size * layer.product.runs for layer in best.layers)
    return Cost(
        engine=best.engine.label(),
        shape=best.built,
        cycles=cycles,
        latency_us=latency_us,
        clock_mhz=clock,
        clock_origin=choice.clock_origin,
        streams=streams,
        steps_per_s=streams * 1e6 / (_interval(best, cycles) / clock),
        exact=choice.exact,
        baseline=choice.dense.engine.name,
        dense_cycles=dense_cycles,
        dense_latency_us=dense_cycles / clock,
        # A dense array serves one stream: an engine of several is compared by what it does in the same time.
        speedup=streams * dense_cycles / cycles,
        engine_dense_cycles=None if choice.engine_dense is None else choice.engine_dense.cycles.__ceil__(),
        fixed_shape=choice.fixed.built,
        fixed_cycles=choice.fixed.cycles.__ceil__(),
        # A multiply-accumulate is two operations; cycles over MHz are microseconds, and thousands of operations in one
        # are GOPS.
        gops=2 * executed * streams / latency_us / 1e3,
        effective_gops=2 * equivalent * streams / latency_us / 1e3,
        # Of all multiplier cycles, those that multiply a kept weight.
        utilisation=executed * streams / (best.multipliers * cycles),
        multipliers=best.multipliers,
        dsp=best.dsp,
        ram_blocks=best.memory.blocks,
        # A design without any RAM block still has a kind, under which its zero stands.
        ram_kind=" + ".join(kind for kind, used in best.memory.placement.blocks.items() if used) or _ram_kind(choice),
        lut=None if best.logic is None else best.logic.high.lut,
        ff=None if best.logic is None else best.logic.high.ff,
        ram_share=best.ram_share,
        bandwidth_gbytes_per_s=best.streamed_bits / 8 / latency_us / 1e3,
        resident=best.is_resident,
        fits=best.fits,
        can_run=not best.rank[0],
        bound_by=_bound_by(best),
        energy_uj=_energy(best, choice, latency_us).uj_per_step,
        event_energy_uj=_uj(by_events),
        details={**_details(best, choice), "energy_events": by_events},
        notes=tuple(_notes(best, choice)),
    )


def _interval(best: Design, cycles: int) -> float:
    """Cycles between two items: the latency, or what the busiest circuit takes where every layer has one of its own.

    A recurrent layer waits for its own last output, whatever stands beside it.
    """
    if not best.engine.unrolled or any(layer.product.units is not None for layer in best.layers):
        return cycles
    return float(max(layer.run.issue_cycles * layer.repeats for layer in best.layers))


def _uj(by_events: Mapping[str, JsonValue]) -> float:
    total = by_events["total_uj"]
    assert isinstance(total, int | float)
    return float(total)


def _stall(design: Design) -> Fraction:
    return design.parts().get("memory_stall", Fraction(0))


def _constants(layer: Layer) -> Fraction:
    return sum((layer.parts.get(name, Fraction(0)) for name in _CONSTANT_PARTS), Fraction(0))


def _bound_by(design: Design) -> str:
    """What most of the time goes to."""
    zero = Fraction(0)
    shares = {"compute": zero, "memory": zero, "chain": zero, "serial": zero, "launch": design.launch}
    for layer in design.layers:
        chain = layer.parts.get("chain_stall", zero)
        # The chain is a constant as well, but one of the recurrence and not of the engine.
        constant = _constants(layer) - chain
        shares["serial"] += constant
        left = layer.cycles - constant - chain
        if chain:
            shares["chain"] += left + chain  # the floor decides, whatever is computed below it
        else:
            stall = layer.parts.get("memory_stall", zero)
            shares["memory"] += stall
            shares["compute"] += left - stall
    found = max(shares, key=lambda name: shares[name])
    # Of a circuit of constants the constant cycles are its depth.
    return "depth" if found == "serial" and design.engine.unrolled else found


def _compute_speedup(best: Design, dense: Design) -> float:
    """The speed-up if off-chip memory were never waited for."""
    return float((dense.cycles - _stall(dense)) / (best.cycles - _stall(best)))


def _details(best: Design, choice: Choice) -> dict[str, JsonValue]:
    executed = sum(layer.product.nnz * layer.product.runs for layer in best.layers)
    dense = choice.dense
    return {
        "why": _why(best, choice),
        "hardware_class": best.engine.hardware_class,
        "budget": choice.budget,
        "weight_bits": choice.numerics.conditions.weight_bits,
        "validated_by": best.engine.validated_by,
        "parts": {name: _number(value) for name, value in best.parts().items()},
        # As though every multiplier took a kept weight in every cycle: no engine is quicker.
        "ideal_cycles": -(-executed * best.engine.streams // best.multipliers),
        "layers": _layers(best, choice.numerics),
        "memory_system": dict(memory_system(best, choice.numerics, choice.bandwidth_origin)),
        "ram": {
            **{kind: _plain(purposes) for kind, purposes in best.memory.placement.blocks.items()},
            "distributed": _plain(best.memory.placement.distributed),
        },
        "logic": _logic(best, choice.device),
        "energy": _energy(best, choice, best.cycles.__ceil__() / choice.numerics.conditions.clock_mhz).why,
        "limits": {kind: _limit(usage) for kind, usage in best.usage.items()},
        "clock": {"value": choice.numerics.conditions.clock_mhz, "origin": choice.clock_origin},
        "device": {"id": choice.device.id, "family": choice.device.entry.family},
        "dense": {
            "shape": dense.built,
            "fits": dense.fits,
            "ram_blocks": dense.memory.blocks,
            "memory_stall": _number(_stall(dense)),
        },
        "fixed": {"ram_blocks": choice.fixed.memory.blocks, "fits": choice.fixed.fits},
        "engine_dense": None if choice.engine_dense is None else {"shape": choice.engine_dense.built},
        # Against the dense array that computes fastest: the baseline that was searched weighed its memory, too.
        "speedup_compute_only": round(_compute_speedup(best, choice.dense_compute), 6),
        "streaming": _streaming(choice.streaming, best),
        **({} if choice.bounded is None else {"search": _bounded(choice.bounded)}),
        **({} if choice.pipelined is None else {"pipelined": choice.pipelined}),
    }


def _streaming(found: Design | None, best: Design) -> JsonValue:
    """The fastest shape that streams weights, where it is not the answer itself and would be faster."""
    if found is None or found is best or found.cycles >= best.cycles:
        return None
    return {"shape": found.built, "cycles": found.cycles.__ceil__(), "multipliers": found.multipliers}


def _bounded(search: Bounded) -> JsonValue:
    return {"counted": search.counted, "least_cycles": search.least_cycles}


def _ram_kind(choice: Choice) -> str:
    return choice.device.entry.ram.kind


def _energy(best: Design, choice: Choice, latency_us: float) -> Energy:
    return energy(
        best.engine.name,
        choice.device,
        latency_us=latency_us,
        multipliers=best.multipliers,
        clock_mhz=choice.numerics.conditions.clock_mhz,
        streams=best.engine.streams,
    )


def _plain(counts: Mapping[RamPurpose, int]) -> dict[str, JsonValue]:
    return {str(purpose): count for purpose, count in counts.items()}


def _logic(best: Design, on: Device) -> JsonValue:
    share = best.logic_share(on)
    if best.logic is None or share is None:
        return None
    low, high = best.logic.low, best.logic.high
    return {
        "lut": [low.lut, high.lut],
        "ff": [low.ff, high.ff],
        "share_of_ceiling": round(share, 8),
        "source": best.logic.source,
    }


def _number(value: Fraction) -> float:
    return round(float(value), 6)


def _why(best: Design, choice: Choice) -> str:
    if choice.given:
        return "as given"
    if best.engine.unrolled:
        return "fully unrolled: a circuit for every kept weight, whatever the budget of multipliers"
    which = "the fastest shape found that fits" if best.fits else "no shape fits with all weights on chip; the fastest"
    return f"{which}, of at most {choice.budget} multipliers"


def _layers(best: Design, numerics: Numerics) -> dict[str, JsonValue]:
    """Every layer, what it moves over the chip's border included."""
    clock = numerics.conditions.clock_mhz
    return {
        layer.product.layer: {
            **_layer(layer, best.engine.streams_weights),
            "traffic": layer_traffic(best, place, numerics).plain(clock),
        }
        for place, layer in enumerate(best.layers)
    }


def _layer(layer: Layer, streams_weights: bool) -> dict[str, JsonValue]:
    product, run = layer.product, layer.run
    found: dict[str, JsonValue] = {
        "rows": product.rows,
        "cols": product.cols,
        "runs": product.runs,
        "nonzeros": product.nnz,
        "issue_cycles": _number(run.issue_cycles * layer.repeats),
        "cycles": _number(layer.cycles),
        "parts": {name: _number(value) for name, value in layer.parts.items()},
        "stored_bits": _number(run.stored_bits),
        "words_per_nonzero": _number(run.stored_words / product.nnz) if product.nnz else 0.0,
        "resident_share": 0.0 if streams_weights else _number(1 - layer.streamed),
    }
    if run.busy is not None and len(run.busy):
        counts, edges = np.histogram(run.busy, bins=_BINS)
        found["busy"] = {"pes": counts.tolist(), "from": float(edges[0]), "to": float(edges[-1])}
    if run.fifo_high_water is not None:
        found["fifo_high_water"] = run.fifo_high_water
    if run.notes:
        found["notes"] = list(run.notes)
    return found


def _limit(usage: Usage) -> dict[str, JsonValue]:
    return {
        "used": usage.used,
        "available": usage.available,
        "ceiling": usage.ceiling,
        "share_of_ceiling": round(usage.share, 4),
    }


def _notes(best: Design, choice: Choice) -> list[str]:
    notes = [
        f"{best.engine.label()} {best.built} does not fit {choice.device.id}: {usage.used} {kind} of "
        f"{usage.available} with a ceiling of {usage.ceiling:.0%}"
        for kind, usage in best.usage.items()
        if not usage.fits
    ]
    notes += best.memory.placement.notes
    # An engine that is made to stream has no layer with a share, and needs no warning.
    streamed = [f"{float(layer.streamed):.0%} of {layer.product.layer}" for layer in best.layers if layer.streamed]
    if streamed:
        speed = choice.numerics.conditions.bytes_per_cycle
        rate = None if speed is None else speed * choice.numerics.conditions.clock_mhz / 1e3
        how = f"are streamed at {rate:g} GB/s" if rate else "nor counted: set `bandwidth_gbytes_per_s`"
        notes.append(f"weights do not fit on chip: {', '.join(streamed)} {how}")
    if best.memory.streams_maps:
        notes.append("feature maps do not fit on chip: every convolution reads its input and writes its output there")
    # A speed-up over a dense array that waits says more of memory than of sparsity.
    if best.engine.name != choice.dense.engine.name and _stall(choice.dense) > 0:
        notes.append(
            f"the dense baseline waits for weights that do not fit on chip: without that the speed-up is "
            f"{_compute_speedup(best, choice.dense_compute):.2f}"
        )
    faster = _streaming(choice.streaming, best)
    if isinstance(faster, dict) and not choice.given:
        notes.append(
            f"a design that streams weights would take {faster['cycles']} cycles, {faster['shape']}; this one is the "
            "fastest whose weights all stay on chip"
        )
    shortage = vector_shortage(best, choice.numerics)
    if shortage is not None:
        notes.append(
            f"inputs and outputs alone need {shortage[0]:.3g} GB/s off chip, {shortage[1]:.3g} GB/s are there: they "
            "are not waited for in these cycles"
        )
    # Below that a microsecond says more of the assumed constants than of the mask; the depth of a circuit of constants
    # is what it is about.
    if not best.engine.unrolled and (sum(map(_constants, best.layers)) + best.launch) * 2 > best.cycles:
        notes.append("constants of the engine are more than half of the latency: compare cycles, not microseconds")
    if choice.bounded is not None:
        notes.append(
            f"the search ended early: it counted {choice.bounded.counted} shapes, this is the best of them, and no "
            f"shape takes fewer than {choice.bounded.least_cycles} cycles; a larger `search_millions` counts more"
        )
    several = [f"{layer.product.layer} {layer.product.steps}" for layer in best.layers if layer.product.steps > 1]
    if several:
        notes.append(f"cycles are those of a whole item, not of a time step: steps of {', '.join(several)}")
    if choice.omitted:
        notes.append(f"not costed: {', '.join(choice.omitted)} (a look-up, or a role that was not asked for)")
    return notes
