"""Outlines in place of counted runs: what an engine guesses at once, corrected by what counting some shapes gave."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from harness.api import Conditions, Engine, EngineShape, Product, Run

from .design import Design, Runner

_SAME = Fraction(1, 200)
"""A count that differs from its outline by less corrects nothing."""


def outlined(engine: Engine) -> Runner:
    """The outlines of an engine in the place of its runs."""
    return Outlines(engine).run


def has_outlines(
    engine: Engine, work: Sequence[Product], lines: Sequence[Sequence[EngineShape]], conditions: Conditions
) -> bool:
    """Whether there are several shapes, and outlines of them."""
    several = len(lines) > 1 or len(lines[0]) > 1
    # Whether one shape has an outline tells of all: it depends on the engine and the product.
    return several and engine.outline(work[0], lines[0][0], conditions) is not None


class Outlines:
    """Outlines of an engine, corrected by what counting some shapes gave."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[tuple[int, EngineShape], Run] = {}
        self._cycles = self._depth = self._stored = Fraction(1)

    def run(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The outline of one product on one shape, corrected."""
        # By identity, as products are kept by their workload: comparing masks would cost more than the outline.
        place = id(product), shape
        if place not in self._known:
            outline = self._engine.outline(product, shape, conditions)
            assert outline is not None  # an engine has outlines of all its shapes or of none
            self._known[place] = self._corrected(outline)
        return self._known[place]

    def learn(self, outlined: Design, counted: Design) -> bool:
        """Take over by which factors a counted design differs from its outline; whether they differ at all."""
        # Each by a factor of its own: outlines do not err alike in them.
        cycles, stored, depth = (
            _ratio(outlined, counted, measure)
            for measure in (lambda run: run.issue_cycles, lambda run: run.stored_bits, _deep)
        )
        if max(abs(1 - cycles), abs(1 - stored), abs(1 - depth)) < _SAME:
            return False
        # All of them were corrected by the old factors.
        self._known.clear()
        self._cycles, self._stored, self._depth = self._cycles * cycles, self._stored * stored, self._depth * depth
        return True

    def _corrected(self, run: Run) -> Run:
        if self._cycles == self._stored == self._depth == 1:
            return run
        # The pipeline does not depend on the mask, so no factor applies to it.
        parts = {name: cycles if name == "fill_drain" else cycles * self._cycles for name, cycles in run.parts.items()}
        rams = tuple(
            replace(ram, depth=max(1, round(ram.depth * self._depth))) if ram.purpose == "weights" else ram
            for ram in run.rams
        )
        return replace(
            run, parts=parts, rams=rams, last=run.last * self._cycles, stored_bits=run.stored_bits * self._stored
        )


def _ratio(outlined: Design, counted: Design, measure: Callable[[Run], Fraction]) -> Fraction:
    """What counting gave over what the outline said, summed over the layers; as a simple fraction."""
    before, after = (sum((measure(layer.run) for layer in found.layers), Fraction(0)) for found in (outlined, counted))
    # Simple, since products of long fractions grow with every round.
    return (after / before).limit_denominator(10_000) if before else Fraction(1)


def _deep(run: Run) -> Fraction:
    return Fraction(sum(ram.depth for ram in run.rams if ram.purpose == "weights"))
