"""Designs between fast and small: shapes all over an engine's lines of which no other is better in every respect."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.api import Engine, EngineShape, Product

from .._devices import Device
from .design import Design, Runner, design
from .outlines import has_outlines, outlined
from .search import Setting

_LINES = 24
"""Lines looked at, evenly chosen: shapes of neighbouring lines differ little."""

_SIZES = 8
"""Shapes of a line, each about half as large again as the one before."""

_COUNTED = 16
"""Shapes that are counted where outlines came first."""


def front(
    engine: Engine,
    work: Sequence[Product],
    lines: Sequence[Sequence[EngineShape]],
    runner: Runner,
    setting: Setting,
    known: Iterable[Design] = (),
) -> tuple[Design, ...]:
    """The designs that can run and that no other beats in cycles, DSP blocks, RAM, logic and bandwidth.

    The fastest comes first. Logic counts where an engine's is known.

    Args:
        engine: whose shapes they are.
        work: products that run one after another.
        lines: the engine's shapes.
        runner: how a product runs.
        setting: device, widths and limits.
        known: designs that were made anyway, the fastest among them.
    """

    def made(shape: EngineShape, run: Runner) -> Design:
        return design(engine, shape, work, run, setting.device, setting.numerics, setting.budget)

    shapes = list(dict.fromkeys(_chosen(lines)))
    # Counting masks on hundreds of shapes takes minutes: outlines choose those that are worth it.
    if has_outlines(engine, work, lines, setting.numerics.conditions):
        rough = _undominated([made(shape, outlined(engine)) for shape in shapes], setting.device)
        # Evenly along the front, which is in the order of speed: all of it is seen, not its fast end only.
        shapes = [found.shape for found in rough[:: -(-len(rough) // _COUNTED) or 1]]
    # What the search has counted already is part of the front and costs nothing more.
    found = {each.shape: each for each in known}
    found |= {shape: made(shape, runner) for shape in shapes if shape not in found}
    return tuple(_undominated([*found.values()], setting.device))


def _chosen(lines: Sequence[Sequence[EngineShape]]) -> Iterator[EngineShape]:
    """The largest shape of some lines, and ever smaller ones."""
    filled = sorted((line for line in lines if line), key=lambda line: line[0].sizes[1:])
    for line in filled[:: -(-len(filled) // _LINES) or 1]:
        # In equal ratios: between 1,000 and 1,001 multipliers there is nothing to choose.
        for place in sorted({round(each) - 1 for each in np.geomspace(1, len(line), _SIZES)}, reverse=True):
            yield line[place]


def _undominated(designs: Sequence[Design], device: Device) -> list[Design]:
    able = sorted((each for each in designs if not each.rank[0]), key=lambda each: each.cycles)
    if not able:
        return []
    measures: NDArray[np.float64] = np.array(
        [
            # Of one engine the logic is known of all shapes or of none.
            [float(each.cycles), each.dsp, each.ram_share, each.logic_share(device) or 0.0, each.streamed_bits]
            for each in able
        ]
    )
    left = []
    for place, mine in enumerate(measures):
        better = (measures <= mine).all(axis=1) & (measures < mine).any(axis=1)
        # Of equal ones the first.
        equal = (measures[:place] == mine).all(axis=1)
        if not better.any() and not equal.any():
            left.append(able[place])
    return left
