"""Logic, indicative and with its range, and energy, only where a board power was published."""

from dataclasses import dataclass, replace

from harness.api import Logic

from .._devices import Device, Figure, Usage
from .placement import Placement

_SYNTHESISED_BITS = 16
"""Operand width of the templates below. Narrower operands save next to nothing: 351 LUTs become 373 with 8 bits."""


@dataclass(frozen=True)
class _Template:
    """LUTs and flip-flops (least, most) per lane, and per PE for its control, of either kind."""

    lane_lut: tuple[int, int]
    lane_ff: tuple[int, int]
    control: tuple[int, int]
    note: str


_BANK = _Template((17, 21), (17, 22), (30, 80), "one-PE templates of 1 to 64 lanes and an array of 4 x 16")
"""Our PE takes 68, 149, 351 and 1,165 LUTs and 73, 159, 371 and 1,213 flip-flops with 1, 4, 16 and 64 lanes (yosys
0.23, xc7, multipliers in DSP blocks); earlier templates 305 to 339 with 16 and 1,320 with 4 x 16. On UltraScale+ yosys
leaves the DSP blocks' pipeline registers outside, up to 37 LUTs and 86 flip-flops per lane: not in the range."""

_COLUMN = _Template((115, 265), (110, 160), (0, 0), "one-PE templates of several depths, the adders of groups left out")
"""Our PE takes 163 LUTs and 130 flip-flops; 116 LUTs with 8 rows, a FIFO of 2 and sums of 32 bits, 264 with 1,024 rows,
a FIFO of 32 and 8,192 weights (yosys 0.23, xc7)."""

_BORROWED = replace(_BANK, note="the bank engine's lanes, which are the same but for indices")

_TEMPLATES = {"bank": _BANK, "dense_mvm": _BORROWED, "column_fifo": _COLUMN}
"""Engines whose lanes have been synthesised; nothing is known of others."""

_PRODUCT_LUT, _PRODUCT_FF = (93, 134), (45, 111)
"""Per multiplier made of LUTs, after routing on XC7Z020, width not stated (working paper on tap banking)."""

_ALM_PER_LUT = 0.92
"""641 ALUTs / 2 per ALM / 351 LUTs: our bank PE on Cyclone V and on xc7 (yosys 0.23), rounded up; column PE: 0.77."""


@dataclass(frozen=True)
class LogicEstimate:
    """LUTs and flip-flops beside DSP blocks and memories: between `low` and `high`, from `source`."""

    low: Logic
    high: Logic
    source: str


def logic(engine: str, *, multipliers: int, pes: int, bits: int, lut_multipliers: int = 0) -> LogicEstimate | None:
    """Indicative logic of an engine; None where no template of its kind has been synthesised.

    Args:
        engine: its name.
        multipliers: all of them, those of LUTs included.
        pes: processing elements, each with its own control.
        bits: the wider operand.
        lut_multipliers: how many multipliers are made of LUTs because the DSP blocks run out.

    Assumes:
        as much for narrow operands as for 16 bits; routing, shell and memory controllers are not counted. Predictors
        without synthesis are off by 10 to 30 %.

    Source:
        yosys 0.23 on one-PE templates; LUT multipliers from a published design on XC7Z020.
    """
    template = _TEMPLATES.get(engine)
    if template is None:
        return None
    # Wider operands grow in proportion, narrower ones save nothing: see the templates.
    lanes = -(-multipliers * max(bits, _SYNTHESISED_BITS) // _SYNTHESISED_BITS)
    low, high = (
        Logic(
            lut=lanes * template.lane_lut[end] + pes * template.control[end] + lut_multipliers * _PRODUCT_LUT[end],
            ff=lanes * template.lane_ff[end] + pes * template.control[end] + lut_multipliers * _PRODUCT_FF[end],
        )
        for end in (0, 1)
    )
    return LogicEstimate(low, high, f"yosys 0.23 on xc7, indicative: {template.note}")


def split_multipliers(products: int, bits: int, device: Device, *, shares_operand: bool = False) -> tuple[int, int]:
    """DSP blocks of so many multipliers, and how many multipliers are left for LUTs once the blocks run out."""
    # DSP blocks first: a multiplier of LUTs costs a hundred of them.
    most = device.most_multipliers(bits, shares_operand=shares_operand)
    packing = int(device.products_per_dsp(bits, shares_operand=shares_operand).value)
    inside = min(products, most)
    return -(-inside // packing), products - inside


def logic_usage(used: Logic, placement: Placement, device: Device) -> dict[str, Usage]:
    """Logic and flip-flops in use, what distributed RAM takes away included; on Intel devices a LUT counts 0.92 ALM."""
    kind = device.entry.logic.kind
    # An ALM holds more than a LUT of the other maker.
    cells = used.lut if kind == "lut" else used.lut * _ALM_PER_LUT
    memory = 0.0 if device.distributed is None else sum(placement.distributed.values()) * device.distributed.cells.value
    return {
        kind: device.usage(kind, round(cells + memory), indicative=True),
        "ff": device.usage("ff", used.ff, indicative=True),
    }


@dataclass(frozen=True)
class Energy:
    """Energy of one step of one stream, in microjoules, or None; `why` says what it rests on, or what is missing."""

    uj_per_step: float | None
    why: str
    power_w: Figure | None = None


def energy(
    engine: str, device: Device, *, latency_us: float, multipliers: int, clock_mhz: float, streams: int = 1
) -> Energy:
    """Board power of a published design of this engine on this chip, times latency.

    There is no split into static power and energy per event: the published powers are one number per board, so an
    engine without one on its chip, or larger or faster than that design, has no energy at all. For smaller or slower
    engines it is an upper bound.

    Args:
        engine: its name.
        device: the chip, or a board with it.
        latency_us: of one step of all streams.
        multipliers: of all streams together.
        clock_mhz: the clock.
        streams: inputs served at once; they share the energy.
    """
    known = device.power(engine)
    # Never scaled from another chip or engine: a board's power is mostly not the array's.
    if known is None:
        return Energy(None, f"no board power of a {engine} engine on {device.chip} is known to calibrate energy with")
    most, fastest = int(known.multipliers.value), known.clock_mhz.value
    # A power that was measured on less says nothing of more.
    if multipliers > most or clock_mhz > fastest:
        return Energy(
            None,
            f"the board power of {known.what} holds up to {most} multipliers at {fastest:g} MHz, not for {multipliers} "
            f"at {clock_mhz:g} MHz",
        )
    # For the whole time: a board draws power while it waits, too.
    return Energy(
        known.power_w.value * latency_us / streams,
        f"calibrated on the board power of {known.what}, {known.power_w.value:g} W with {most} multipliers at "
        f"{fastest:g} MHz: an upper bound for less",
        known.power_w,
    )
