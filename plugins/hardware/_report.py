"""From a design and its dense baseline to the cost that a report shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from harness.api import Cost, JsonValue

from ._bank import BankMap
from ._design import Design, Layer, Numerics, Usage
from ._devices import Device

_CONSTANT_PARTS = ("fill_drain", "elementwise", "serial")

_ASSUMPTIONS = (
    "batch 1; one engine, the products one after another; the next time step begins when this one is done",
    "one kept weight per lane and cycle, RAM reads never collide",
    "no overhead beyond `fill_drain`, `elementwise` and `serial`: latency is a lower bound",
    "logic and routing are not modelled; biases, activation tables and the board's shell take no RAM",
)


@dataclass(frozen=True)
class Choice:
    """What a cost was computed with."""

    model: str
    device: Device
    numerics: Numerics
    budget: int
    clock_given: bool
    shape_given: bool
    lockstep: bool


def report(best: Design, dense: Design, choice: Choice, maps: Mapping[str, BankMap], omitted: tuple[str, ...]) -> Cost:
    """Put the figures of a design beside those of the dense baseline.

    Args:
        best: the design to report.
        dense: the dense baseline; `best` itself for a dense model.
        choice: what both were computed with.
        maps: bank map of every layer; empty for a dense model.
        omitted: matrices that are not costed.
    """
    clock = choice.numerics.clock_mhz
    cycles, dense_cycles = best.cycles.__ceil__(), dense.cycles.__ceil__()
    latency_us = cycles / clock
    executed = sum(layer.mapped.nnz * layer.mapped.shape.pixels for layer in best.layers)
    equivalent = sum(layer.mapped.shape.size * layer.mapped.shape.pixels for layer in best.layers)
    return Cost(
        cycles=cycles,
        latency_us=latency_us,
        clock_mhz=clock,
        dense_cycles=dense_cycles,
        dense_latency_us=dense_cycles / clock,
        speedup=dense_cycles / cycles,
        gops=2 * executed / latency_us / 1e3,
        effective_gops=2 * equivalent / latency_us / 1e3,
        utilisation=executed / (best.multipliers * cycles),
        multipliers=best.multipliers,
        dsp=best.dsp,
        ram_blocks=best.memory.blocks,
        ram_kind=choice.device.entry.ram.kind,
        fits=best.fits,
        bound_by=_bound_by(best),
        details=_details(best, dense, choice, maps, omitted),
        notes=tuple(_notes(best, dense, choice, omitted)),
    )


def _stall(design: Design) -> Fraction:
    return design.parts()["memory_stall"]


def _constants(layer: Layer) -> Fraction:
    return sum((layer.parts[name] for name in _CONSTANT_PARTS), Fraction(0))


def _bound_by(design: Design) -> str:
    """What most of the time goes to."""
    shares = {"compute": Fraction(0), "memory": Fraction(0), "serial": Fraction(0)}
    for layer in design.layers:
        constant = _constants(layer)
        shares["serial"] += constant
        shares["memory" if layer.parts["memory_stall"] > 0 else "compute"] += layer.cycles - constant
    return max(shares, key=lambda name: shares[name])


def _compute_speedup(best: Design, dense: Design) -> float:
    """The speed-up if off-chip memory were never waited for."""
    return float((dense.cycles - _stall(dense)) / (best.cycles - _stall(best)))


def _details(
    best: Design, dense: Design, choice: Choice, maps: Mapping[str, BankMap], omitted: tuple[str, ...]
) -> dict[str, JsonValue]:
    executed = sum(layer.mapped.nnz * layer.mapped.shape.pixels for layer in best.layers)
    return {
        "model": choice.model,
        "origin": "modelled",
        "engine": best.engine,
        "lockstep": choice.lockstep,
        "shape": {"pes": best.pes, "lanes": best.lanes, "why": _why(best, choice)},
        "bank_maps": {layer: _bank_map(item) for layer, item in maps.items()},
        "parts": {name: float(value) for name, value in best.parts().items()},
        "ideal_cycles": -(-executed // best.multipliers),
        "layers": {layer.mapped.shape.layer: _layer(layer) for layer in best.layers},
        "resident": best.is_resident,
        "ram": {
            "kind": choice.device.entry.ram.kind,
            "weights": best.memory.weights,
            "state": best.memory.state,
            "vectors": best.memory.vectors,
            "vectors_in_distributed_ram": best.memory.distributed,
        },
        "limits": {kind: _limit(usage) for kind, usage in best.usage.items()},
        "clock": _clock(choice),
        "device": _device(choice),
        "dense": {
            "engine": dense.engine,
            "pes": dense.pes,
            "lanes": dense.lanes,
            "fits": dense.fits,
            "resident": dense.is_resident,
            "ram_blocks": dense.memory.blocks,
            "memory_stall": float(_stall(dense)),
        },
        "speedup_compute_only": _compute_speedup(best, dense),
        "left_out": list(omitted),
        "assumptions": list(_ASSUMPTIONS),
    }


def _bank_map(bank_map: BankMap) -> dict[str, JsonValue]:
    return {"banks": bank_map.count, "longest": bank_map.longest, "why": bank_map.why}


def _why(best: Design, choice: Choice) -> str:
    if choice.shape_given and best.engine == "bank":
        return "as asked for"
    which = "the fastest shape found that fits" if best.fits else "no shape fits with all weights on chip; the fastest"
    return f"{which}, of at most {choice.budget} multipliers"


def _layer(layer: Layer) -> dict[str, JsonValue]:
    mapped = layer.mapped
    return {
        "rows": mapped.shape.rows,
        "cols": mapped.shape.cols,
        "runs": mapped.shape.pixels,
        "nonzeros": mapped.nnz,
        "issue_cycles": float(mapped.issue.cycles * mapped.shape.pixels),
        "cycles": float(layer.cycles),
        "word_bits": mapped.word_bits,
        "words_per_nonzero": float(mapped.issue.words * mapped.lanes / mapped.nnz) if mapped.nnz else 0.0,
        "resident_share": float(1 - layer.streamed),
    }


def _limit(usage: Usage) -> dict[str, JsonValue]:
    return {"used": usage.used, "available": usage.available, "ceiling": usage.ceiling, "share_of_ceiling": usage.share}


def _clock(choice: Choice) -> dict[str, JsonValue]:
    if choice.clock_given:
        return {"value": choice.numerics.clock_mhz, "origin": "given", "source": "the experiment"}
    return choice.device.entry.clock_mhz.plain()


def _device(choice: Choice) -> dict[str, JsonValue]:
    entry = choice.device.entry
    return {
        "id": choice.device.id,
        "family": entry.family,
        "dsp": entry.dsp.count.plain(),
        "products_per_dsp": choice.device.products_per_dsp(choice.numerics.operand_bits).plain(),
        "ram_blocks": entry.ram.count.plain(),
        "off_chip_gbytes_per_s": None if entry.off_chip is None else entry.off_chip.gbytes_per_s.plain(),
    }


def _notes(best: Design, dense: Design, choice: Choice, omitted: tuple[str, ...]) -> list[str]:
    notes = [
        f"{best.engine} {best.pes} x {best.lanes} does not fit {choice.device.id}: {usage.used} {kind} of "
        f"{usage.available} with a ceiling of {usage.ceiling:.0%}"
        for kind, usage in best.usage.items()
        if usage.share > 1
    ]
    streamed = [f"{float(layer.streamed):.0%} of {layer.mapped.shape.layer}" for layer in best.layers if layer.streamed]
    if streamed:
        speed = choice.numerics.bytes_per_us
        how = f"are streamed at {speed / 1e3:g} GB/s" if speed else "nor counted: set `bandwidth_gbytes_per_s`"
        notes.append(f"weights do not fit on chip: {', '.join(streamed)} {how}")
    if best is not dense and _stall(dense) > 0:
        notes.append(
            f"the dense baseline waits for weights that do not fit on chip: without that the speed-up is "
            f"{_compute_speedup(best, dense):.2f}"
        )
    if sum(map(_constants, best.layers)) * 2 > best.cycles:
        notes.append("constants of the engine are more than half of the latency: compare cycles, not microseconds")
    if omitted:
        notes.append(f"not costed: {', '.join(omitted)} (a look-up, or a role that was not asked for)")
    return notes
