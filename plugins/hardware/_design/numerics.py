"""What every design is costed with: widths, constants, layouts and limits."""

from fractions import Fraction
from typing import Literal

from harness.api import Conditions, Frozen

from .bursts import Bursts, WeightLayout
from .placement import SmallMemory

Inputs = Literal["closed_loop", "known_ahead"]
Copies = Literal["strips", "neighbours"]


class Budget(Frozen):
    """What a design may take beside multipliers; None: what the device has under its ceilings."""

    ram_blocks: int | None = None
    luts: int | None = None


class Numerics(Frozen):
    """Widths, constants and the layout that a design is costed with.

    Args:
        conditions: widths, clock, off-chip bandwidth.
        elementwise_units: LSTM units updated per cycle.
        elementwise_latency: cycles from a unit's last product to its output.
        write_back_cycles: cycles per LSTM layer until its output can be read.
        launch_us: once per item or time step.
        layer_us: once per product.
        chain_us: floor of a recurrent layer's step, whatever its size.
        inputs: whether the next input depends on the last output.
        overlap: whether weights are streamed while their product runs.
        vector_memory: what the vector RAMs are made of.
        lut_multipliers: whether multipliers beyond the DSP blocks are made of LUTs.
        pixel_copies: copies of the array that share the weights and work on different output positions.
        copy_layout: whether the copies sweep strips of their own, or neighbouring positions.
        load_words: words per cycle that the line buffer takes in for every copy.
        weight_layout: how streamed weights lie in off-chip memory; bursts: what that memory reads at least.
        prefetch_kib: a buffer that is filled with streamed weights ahead of their layer, in units of 1024 bytes.
    """

    conditions: Conditions
    elementwise_units: int = 16
    elementwise_latency: int = 8
    write_back_cycles: int = 0
    launch_us: float = 0.0
    layer_us: float = 0.0
    chain_us: float = 0.0
    inputs: Inputs = "closed_loop"
    overlap: bool = True
    vector_memory: SmallMemory = "auto"
    lut_multipliers: bool = False
    pixel_copies: int = 1
    copy_layout: Copies = "strips"
    load_words: int = 16
    weight_layout: WeightLayout = "in_order"
    bursts: Bursts | None = None
    prefetch_kib: int = 0

    def cycles(self, microseconds: float) -> Fraction:
        """Whole cycles of a time at this clock."""
        # By way of a simple fraction: 1.1 us at 100 MHz are 110 cycles, not the 111 of a float just above.
        return Fraction(Fraction(microseconds * self.conditions.clock_mhz).limit_denominator(10**6).__ceil__())
