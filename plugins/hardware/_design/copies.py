"""How many copies of an array work on different output positions: as given, or searched within the same budget.

Copies share the weights: each is a whole array with vectors of its own, so that the multipliers of a budget are divided
among them, and a product runs ceil(positions / copies) times. Layers with fewer rows and columns than there are
multipliers are quicker with copies; those with many weights are quicker with one wide array.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.api import Engine, EngineShape, Product

from .design import Runner
from .search import SearchResult, Setting, kind_of, search

_SINGLE = 8
"""Up to so many copies every number is looked at; beyond, about six in every octave."""

_STEPS = 6

_MOST_SEARCHES = 24
"""Numbers of copies whose shapes are searched, those with the lowest bounds first."""

_KINDS = ("fits", "streams", "neither")


@dataclass(frozen=True)
class CopySearch:
    """The answers of a search over copies.

    Args:
        result: the best designs of all.
        setting: what the best was costed with, its number of copies among it.
        lines: the shapes of one of so many copies.
        budget: multipliers of one of them.
    """

    result: SearchResult
    setting: Setting
    lines: Sequence[Sequence[EngineShape]]
    budget: int


def copy_choices(engine: Engine, work: Sequence[Product], budget: int) -> tuple[int, ...]:
    """Numbers of copies worth a search; one where an engine spreads over positions by itself, or where there is one."""
    if engine.whole_layer or engine.unrolled:
        return (1,)
    positions = sorted({product.pixels for product in work})
    most = min(budget, positions[-1])
    ladder = {*range(1, min(most, _SINGLE) + 1), most}
    ladder |= {int(2 ** (step / _STEPS)) for step in range(3 * _STEPS, _STEPS * most.bit_length())}
    # Of those that take as many rounds at a layer's positions the fewest.
    found = {-(-each // -(-each // min(copies, each))) for copies in ladder if copies <= most for each in positions}
    return tuple(sorted(copies for copies in found if copies <= most))


def search_copies(
    engine: Engine, work: Sequence[Product], budget: int, runner: Runner, setting: Setting, choices: Sequence[int]
) -> CopySearch:
    """Look for the best shapes with each of some numbers of copies.

    Args:
        engine: what is searched.
        work: products that run one after another.
        budget: multipliers of all copies together.
        runner: how a product runs.
        setting: device, widths and limits; its number of copies is replaced.
        choices: numbers of copies; at least one.
    """
    every = [_Copies.of(engine, work, budget, setting, copies) for copies in choices]
    # A shape that was given is not smaller because there are many of it.
    tried = sorted([each for each in every if each.is_within_budget] or every[:1], key=lambda each: each.rank)
    best: CopySearch | None = None
    for each in tried[:_MOST_SEARCHES]:
        # By their bounds: nothing that follows can be faster.
        if best is not None and best.result.best.fits and each.bound >= best.result.best.cycles:
            break
        found = search(engine, work, each.lines, runner, each.setting)
        if best is None:
            best = CopySearch(found, each.setting, each.lines, each.budget)
            continue
        streams = min(filter(None, (best.result.streams, found.streams)), key=lambda one: one.rank, default=None)
        if _order(found) < _order(best.result):
            best = CopySearch(replace(found, streams=streams), each.setting, each.lines, each.budget)
        else:
            best = replace(best, result=replace(best.result, streams=streams))
    assert best is not None  # there is a choice
    return best


def _order(found: SearchResult) -> tuple[object, ...]:
    """What fits before what streams, then the faster, then the smaller."""
    return _KINDS.index(kind_of(found.best)), *found.best.rank, found.best.multipliers


@dataclass(frozen=True)
class _Copies:
    copies: int
    budget: int
    bound: int
    lines: Sequence[Sequence[EngineShape]]
    setting: Setting

    @property
    def rank(self) -> tuple[int, int]:
        """The most promising first; of equal ones the fewest copies."""
        return self.bound, self.copies

    @property
    def is_within_budget(self) -> bool:
        """Whether any shape leaves room for so many copies."""
        return any(line[0].multipliers <= self.budget for line in self.lines if line)

    @classmethod
    def of(cls, engine: Engine, work: Sequence[Product], budget: int, setting: Setting, copies: int) -> "_Copies":
        """The shapes of one of so many copies, and a bound on what all of them take."""
        mine = max(1, budget // copies)
        lines = engine.lines(work, mine)
        rounds = [product.steps * (1 if engine.whole_layer else -(-product.pixels // copies)) for product in work]
        bound = min(
            sum(engine.least_cycles(product, line[-1]) * often for product, often in zip(work, rounds, strict=True))
            for line in lines
            if line
        )
        numerics = setting.numerics.model_copy(update={"pixel_copies": copies})
        return cls(copies, mine, bound, lines, replace(setting, numerics=numerics))
