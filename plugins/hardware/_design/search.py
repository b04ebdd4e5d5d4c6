"""Which shape of an engine is built: the fastest that fits, and the fastest that streams what does not.

Shapes come in lines along which one size grows. Cycles fall along a line, about; memories grow, about. So the shapes of
a line that fit are its first ones, and a bisection finds the last of them. What a line can at best take is a lower
bound, so that most lines are ruled out without a look. Where counting a run takes long, outlines are searched in its
place, and the shapes that they promise most of are then counted.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from harness.api import Engine, EngineShape, Line, Product

from .._devices import Device
from .design import Design, Runner, design
from .numerics import Budget, Numerics
from .outlines import Outlines, has_outlines

_SLACK = Fraction(108, 100)
"""Outlines within so much of the best are kept to be counted."""

_SURPRISE = Fraction(8, 100)
"""A shape that was not counted yet may do so much better against its outline than the luckiest that was."""

_ENOUGH = 4
"""After so many counts their own spread tells how lucky a shape can be."""

_CHEAP = 1 << 24
"""Places of masks that may be counted whatever outlines promise: of small matrices a few shapes more cost nothing."""

_CHEAP_SHAPES = 16
"""And shapes, at most."""

_FAR = Fraction(1, 10)
"""A shape whose outline streams more than this share of its weights is not counted to see whether it fits after all."""

_DOUBT = Fraction(97, 100)
"""Share of an outline's cycles that bounds a count, once outlines have been corrected."""

_COARSE = 12
"""Lines looked at first for shapes that stream; then those beside the best."""

_KINDS = ("fits", "streams", "neither")

_ROUNDS = 3
"""Times that outlines are corrected by counting the shape that they promise most of."""

_STEPS = 2
"""Steps from the shape that streams best to a better one beside it."""

_CLIMBS = 4
"""Times that the shapes beside the best that streams are looked at, as long as one of them is better."""

_BESIDE = 6
"""Neighbours tried beyond the last shape that fits, since memories come in whole blocks and grow in jumps."""

_OUTLINED_BELOW = 5
"""Smaller shapes of a line whose outlines are looked at, all over the line."""

_OUTLINED_NEAR = 24
"""And so many just below the largest: rows are dealt to them in equally many groups, and the luckiest deal wins."""


MOST_PLACES = 64_000_000_000
"""Places of masks that a search counts at most where counting takes long: seconds, up to a minute or so."""


@dataclass(frozen=True)
class Setting:
    """What every design of one cost shares.

    Args:
        device: what it is built on.
        numerics: widths and constants.
        budget: what it may take beside multipliers.
        places: places of masks that a search may count, for engines that have outlines. In work and not in seconds, so
            that every machine finds the same.
    """

    device: Device
    numerics: Numerics
    budget: Budget
    places: int = MOST_PLACES


@dataclass(frozen=True)
class SearchResult:
    """The answers of one search.

    Args:
        best: the fastest that fits; else the fastest that streams; else the fastest, which cannot be built.
        fits, streams: the fastest of either kind, None where there is none; `streams` is only looked for as far as it
            could be faster.
        bounded: how far it came, where it ended before all promising shapes were counted.
    """

    best: Design
    fits: Design | None
    streams: Design | None
    bounded: "Bounded | None" = None


@dataclass(frozen=True)
class Bounded:
    """A search that stopped early: shapes that it counted, and cycles that no shape of the engine can be below."""

    counted: int
    least_cycles: int


def search(
    engine: Engine,
    work: Sequence[Product],
    lines: Sequence[Sequence[EngineShape]],
    runner: Runner,
    setting: Setting,
) -> SearchResult:
    """Look for the best shapes of an engine for products that run one after another."""
    counted = _Explorer(engine, work, runner, setting)
    if not has_outlines(engine, work, lines, setting.numerics.conditions):
        counted.explore(lines)
        return counted.found()
    counted.is_bounded = True
    outlines = Outlines(engine)
    turns: dict[tuple[tuple[str, int], ...], int] = {}
    outlined = _Explorer(engine, work, outlines.run, setting, is_outlined=True, turns=turns)
    for _ in range(_ROUNDS):
        # An outline costs far less than a count: all lines are looked at with it.
        outlined.explore(lines)
        shape = outlined.found().best.shape
        # The outline's best is counted and corrects all outlines; done when that moves nothing any more.
        if shape in counted.seen or not outlines.learn(outlined.at(shape), counted.at(shape)):
            break
        # Designs of the old factors are of no use; where lines turned still is.
        outlined = outlined.anew()
    # Once more, for all that come close: outlines err, and the best of what is counted then is taken.
    outlined.slack = _SLACK
    outlined.explore(lines)
    for kind in _KINDS:
        _confirm(outlined, counted, kind)
    # From here on an outline rules a shape out before it is counted.
    counted.promise = outlined.bound
    counted.refine(lines, outlined, is_limited=_is_limited(outlined, counted))
    found = counted.found()
    if not counted.was_stopped:
        return found
    # The largest shapes take least, and their own bounds need no counting.
    least = min(counted.least(line[-1]) for line in lines if line)
    return replace(found, bounded=Bounded(len(counted.seen), least))


def _confirm(outlined: "_Explorer", counted: "_Explorer", kind: str) -> None:
    """Count shapes in the order of their outlines, until what is left cannot be as lucky as it would need to be."""
    ranked = sorted(
        (found for found in outlined.seen.values() if kind_of(found) == kind), key=lambda found: found.rank[1:]
    )
    # What cannot run is only counted where nothing can.
    if kind == "neither" and counted.found().best.rank[0] is False:
        return
    ratios: list[Fraction] = []
    cheap = min(_CHEAP_SHAPES, _CHEAP // sum(product.size for product in counted.work))
    for place, outline in enumerate(ranked):
        best = counted.best.get(kind)
        surprise = min(_SURPRISE, (max(ratios) - min(ratios)) / 2) if len(ratios) >= _ENOUGH else _SURPRISE
        # Even if it were as lucky as the luckiest so far, and a little more, it would not be the best.
        is_hopeless = best is not None and ratios and outline.cycles * min(ratios) * (1 - surprise) >= best.cycles
        if is_hopeless and place >= cheap:
            return
        if counted.bound(outline.shape) >= (best.cycles if best is not None else Fraction(10**30)):
            continue
        if counted.stops():
            return
        found = counted.at(outline.shape)
        if outline.cycles:
            ratios.append(found.cycles / outline.cycles)


def kind_of(found: Design) -> str:
    """Whether a design fits, or runs with weights streamed that do not, or neither."""
    if found.fits:
        return "fits"
    return "streams" if found.is_under_ceilings and found.has_bandwidth else "neither"


@dataclass
class _Explorer:
    """Lines being searched: every design made so far, and the best of each kind."""

    engine: Engine
    work: Sequence[Product]
    runner: Runner
    setting: Setting
    is_outlined: bool = False
    slack: Fraction = Fraction(1)
    seen: dict[EngineShape, Design] = field(default_factory=dict)
    best: dict[str, Design] = field(default_factory=dict)
    bounds: dict[EngineShape, int] = field(default_factory=dict)
    promise: Callable[[EngineShape], int] | None = None
    is_bounded: bool = False
    """Whether counting ends when the setting's places are spent."""
    places: int = 0
    """Places of masks counted so far."""
    was_stopped: bool = False
    """Whether something was left out because too many had been counted."""
    turns: dict[tuple[tuple[str, int], ...], int] = field(default_factory=dict)
    """Multipliers at which lines turned, by their other sizes; under () the latest: neighbours turn alike."""

    def at(self, shape: EngineShape) -> Design:
        """The design of a shape; made once."""
        if shape in self.seen:
            return self.seen[shape]
        numerics = self.setting.numerics
        found = design(self.engine, shape, self.work, self.runner, self.setting.device, numerics, self.setting.budget)
        self.seen[shape] = found
        self.places += sum(product.size for product in self.work)
        kind = kind_of(found)
        if kind not in self.best or found.rank < self.best[kind].rank:
            self.best[kind] = found
        return found

    def stops(self) -> bool:
        """Whether nothing more is to be counted; the first shape always is."""
        is_spent = self.is_bounded and bool(self.seen) and self.places >= self.setting.places
        self.was_stopped |= is_spent
        return is_spent

    def least(self, shape: EngineShape) -> int:
        """The least cycles of a shape, whatever its memories, as the engine says without looking far."""
        return sum(self.engine.least_cycles(product, shape) * self._repeats(product) for product in self.work)

    def bound(self, shape: EngineShape) -> int:
        """The least cycles of a shape, as close as may be; an outline is its own bound."""
        if shape not in self.bounds:
            conditions = self.setting.numerics.conditions
            if self.is_outlined:
                runs = ((p, self.runner(p, shape, conditions)) for p in self.work)
                self.bounds[shape] = sum(int(run.issue_cycles) * self._repeats(p) for p, run in runs)
            else:
                # A little less than promised: an outline errs both ways.
                promised = 0 if self.promise is None else int(self.promise(shape) * _DOUBT)
                self.bounds[shape] = max(self.least(shape), promised)
        return self.bounds[shape]

    def _repeats(self, product: Product) -> int:
        positions = 1 if self.engine.whole_layer else -(-product.pixels // self.setting.numerics.pixel_copies)
        return positions * product.steps

    def found(self) -> SearchResult:
        """The answers."""
        fits, streams = self.best.get("fits"), self.best.get("streams")
        # The lines are never empty, so something was designed.
        best = fits or streams or self.best["neither"]
        return SearchResult(best, fits, streams)

    def anew(self) -> "_Explorer":
        """The same without any design, but for those that were the best: the sooner lines are ruled out, the better."""
        fresh = replace(self, seen={}, best={}, bounds={})
        for found in self.best.values():
            fresh.at(found.shape)
        return fresh

    def explore(self, lines: Sequence[Sequence[EngineShape]]) -> None:
        """Look at lines, the most promising first; then for what streams, if anything that fits could be beaten."""
        lines = [line for line in lines if line]
        # The line that promises most first: the sooner something is good, the more is ruled out.
        self.at(min(lines, key=lambda line: self.least(line[-1]))[-1])
        floor = self._streaming_floor()
        # Where weights cannot all be held, no shape fits and lines need not be searched for one.
        if floor == 0 or self.engine.streams_weights:
            for line in sorted(lines, key=lambda line: self.bound(line[-1])):
                self._fitting(line)
        if self.setting.numerics.conditions.bytes_per_cycle is not None and not self.engine.streams_weights:
            self._streaming(lines, floor)

    def refine(self, lines: Sequence[Sequence[EngineShape]], outlined: "_Explorer", *, is_limited: bool) -> None:
        """Count beside what outlines led to: at the edge of what fits, and around the best that streams."""
        # They were made before the outlines had promised anything.
        self.bounds.clear()
        # Where multipliers decide, the largest shapes were counted already and none beside them can be better.
        if is_limited and self._streaming_floor() == 0 and not self.engine.streams_weights:
            ordered = sorted((line for line in lines if line), key=lambda line: self.bound(line[-1]))
            for line in ordered:
                # The smallest hold most; where they are far from holding all, none of the line will.
                if self.stops():
                    return
                if any(not _is_far(outlined.at(shape)) for shape in line[:2]):
                    self._fitting(line)
        for _ in range(_STEPS):
            best = self.best.get("streams")
            # A design that holds its weights is preferred to any that streams: see `found`.
            if best is None or "fits" in self.best:
                return
            for shape in _around(lines, best.shape):
                if outlined.at(shape).cycles * _DOUBT < self.best["streams"].cycles:
                    if self.stops():
                        return
                    self.at(shape)
            if self.best["streams"] is best:
                return

    def _useful(self, line: Sequence[EngineShape], limit: Fraction | None) -> list[int]:
        """Places of a line whose bounds stay below a limit, in order."""
        if limit is None:
            return list(range(len(line)))
        if not _is_steady(line):
            return [place for place in range(len(line)) if self.bound(line[place]) < limit]
        if self.bound(line[-1]) >= limit:
            return []
        # Along a steady line bounds fall: those below the limit are its end.
        low, high = 0, len(line) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.bound(line[middle]) < limit else (middle + 1, high)
        return list(range(low, len(line)))

    def _limit(self, kind: str) -> Fraction | None:
        best = self.best.get(kind)
        return None if best is None else best.cycles * self.slack

    def _fitting(self, line: Sequence[EngineShape]) -> None:
        """The shapes of a line that fit and could be the fastest."""
        if (limit := self._limit("fits")) is not None and self.bound(line[-1]) >= limit and _is_steady(line):
            return
        if self.engine.streams_weights and _is_steady(line) and self._waits(line[-1]):
            # More multipliers than memory feeds gain nothing: what is wanted is the smallest that it feeds.
            self._balance(line, Fraction(0))
            return
        useful = self._useful(line, limit)
        if not useful:
            return
        last = self._last_that_fits(line, useful)
        if last is None:
            return
        # A larger shape may fit again: blocks are taken whole, and some widths waste less of them.
        for place in useful[last + 1 : last + 1 + _BESIDE]:
            self.at(line[place])
        below = useful[:last]
        if self.is_outlined:
            # Some of those far below and all of the near ones: an outline of every shape would take too long.
            far, near = below[:-_OUTLINED_NEAR], below[-_OUTLINED_NEAR:]
            below = [*far[:: -(-len(far) // _OUTLINED_BELOW) or 1], *near]
        for place in reversed(below):
            limit = self._limit("fits")
            if limit is not None and self.bound(line[place]) >= limit:
                if _is_steady(line):
                    return
                continue
            if self.stops():
                return
            self.at(line[place])

    def _last_that_fits(self, line: Sequence[EngineShape], useful: Sequence[int]) -> int | None:
        """Index into `useful` of the largest shape that fits; None if the smallest ones do not either."""
        if self.at(line[useful[-1]]).fits:
            return len(useful) - 1
        # The second as well: the smallest shape may need more blocks than the next, for its deeper memories.
        low = next((index for index in range(min(2, len(useful))) if self.at(line[useful[index]]).fits), None)
        if low is None:
            return None
        rest = [line[place] for place in useful[low:]]
        # Memories grow in jumps, so that a line may turn more than once: by bisection, which sees more of it.
        return low + turning(len(rest), lambda index: index > 0 and not self.at(rest[index]).fits) - 1

    def _streaming_floor(self) -> Fraction:
        """Cycles that the off-chip memory needs for the weights that no design can hold; 0 if all might fit."""
        numerics, device = self.setting.numerics, self.setting.device
        speed = numerics.conditions.bytes_per_cycle
        room = {kind: device.resources[kind].room for kind in device.rams}
        if self.setting.budget.ram_blocks is not None:
            # A budget of blocks holds for the preferred kind, as in `place`.
            room[device.entry.ram.kind] = min(room[device.entry.ram.kind], self.setting.budget.ram_blocks)
        held = sum(int(device.rams[kind].bits_each.value) * number for kind, number in room.items())
        stored = min((sum(layer.run.stored_bits for layer in found.layers) for found in self.seen.values()), default=0)
        # The less of the two: a floor must not lie above what some shape needs.
        needed = min(Fraction(sum(p.nnz for p in self.work) * numerics.conditions.weight_bits), Fraction(stored))
        # All weights might fit somewhere: only then is it worth looking for a design that holds them.
        if needed <= held:
            return Fraction(0)
        # Without a bandwidth any number above zero will do: it says that not all weights fit.
        return (needed - held) / 8 / Fraction(speed) if speed else Fraction(1)

    def _streaming(self, lines: Sequence[Sequence[EngineShape]], floor: Fraction) -> None:
        """Some lines all over, then those beside the best, and in the end its neighbours on its own line."""
        lines = sorted(lines, key=lambda line: line[0].sizes[1:])
        step = -(-len(lines) // _COARSE)
        for line in lines[::step]:
            self._balance(line, floor)
        best = self.best.get("streams")
        if best is None:
            return
        # Lines are told apart by all sizes but the first, along which a line runs.
        here = next(place for place, line in enumerate(lines) if line[0].sizes[1:] == best.shape.sizes[1:])
        for line in lines[max(0, here - step + 1) : here + step]:
            self._balance(line, floor)
        for _ in range(_CLIMBS):
            best = self.best["streams"]
            line = next(line for line in lines if line[0].sizes[1:] == best.shape.sizes[1:])
            near = bisect_left(line, best.shape.sizes[0][1], key=lambda shape: shape.sizes[0][1])
            # Both sides: blocks are taken whole, so that the best lies a few steps off where the line turns.
            for place in range(max(0, near - _BESIDE), min(len(line), near + _BESIDE + 1)):
                self.at(line[place])
            if self.best["streams"] is best:
                return

    def _balance(self, line: Sequence[EngineShape], floor: Fraction) -> None:
        """Where computing and reading take equally long on a line: more multipliers leave less room for weights."""
        limits = [limit for kind in ("fits", "streams") if (limit := self._limit(kind)) is not None]
        # What the engine says is cheaper than an outline and rules most lines out.
        if limits and any(max(Fraction(bound(line[-1])), floor) >= min(limits) for bound in (self.least, self.bound)):
            return
        turn = self._turn(line, lambda place: self._waits(line[place]))
        # The turn and its neighbours: on which side of it the best lies depends on rounding.
        for place in range(max(0, turn - 1), min(len(line), turn + 2)):
            self.at(line[place])

    def _turn(self, line: Sequence[EngineShape], holds: Callable[[int], bool]) -> int:
        """Where a line turns; looked for from where it, or the line before it, turned last."""
        kind = line[0].sizes[1:]
        # Neighbouring lines turn at like numbers of multipliers: a guess saves most of a bisection.
        near = self.turns.get(kind, self.turns.get((), line[-1].multipliers // 2))
        turn = turning(len(line), holds, bisect_left(line, near, key=lambda shape: shape.multipliers))
        self.turns[kind] = self.turns[()] = line[turn].multipliers
        return turn

    def _waits(self, shape: EngineShape) -> bool:
        found = self.at(shape)
        # What is beyond a ceiling counts as waiting: it is too large all the same.
        return found.waits_for_memory or not found.is_under_ceilings


def turning(size: int, holds: Callable[[int], bool], guess: int | None = None) -> int:
    """The first of `size` places where something holds that, once it does, holds for all that follow; else the last.

    Looked for in growing steps from a guess, and by bisection from where a step went too far.
    """
    low, high, step = 0, size - 1, int(guess is not None)
    place = high // 2 if guess is None else max(0, min(guess, size - 2))
    first: bool | None = None
    while low < high:
        found = holds(place)
        low, high = (low, place) if found else (place + 1, high)
        first = found if first is None else first
        # Once the first answer turns, the place lies between two known ones and halving is best; before, steps double.
        if found != first or not step:
            step, place = 0, (low + high) // 2
        else:
            place = max(low, high - step) if found else min(high - 1, low + step - 1)
            step *= 2
    return low


def _is_far(outline: Design) -> bool:
    """Whether a shape streams so much that it will not fit, however its outline errs."""
    stored = sum(layer.run.stored_bits for layer in outline.layers)
    return outline.streamed_bits > _FAR * stored


def _is_limited(outlined: _Explorer, counted: _Explorer) -> bool:
    """Whether memory and not multipliers decides: something faster was seen that does not fit."""
    best = counted.best.get("fits")
    return best is None or any(not found.fits and found.cycles < best.cycles for found in outlined.seen.values())


def _is_steady(line: Sequence[EngineShape]) -> bool:
    """Whether bounds fall steadily along a line: they do where its size grows one by one, not for chosen sizes."""
    return isinstance(line, Line) and isinstance(line.sizes, range)


def _around(lines: Sequence[Sequence[EngineShape]], shape: EngineShape) -> Iterator[EngineShape]:
    """The neighbours of a shape on its line and on the lines beside it."""
    ordered = sorted(lines, key=lambda line: line[0].sizes[1:])
    here = next(place for place, line in enumerate(ordered) if line[0].sizes[1:] == shape.sizes[1:])
    for line in ordered[max(0, here - 1) : here + 2]:
        near = bisect_left(line, shape.multipliers, key=lambda each: each.multipliers)
        # Four steps off as well: RAM blocks make plateaus of a few shapes.
        for place in {near - 4, near - 1, near, near + 1, near + 4}:
            if 0 <= place < len(line):
                yield line[place]
