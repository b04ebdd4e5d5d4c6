"""The tables of engines: every pattern on every engine that can run it, each pair in its own best shape."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from harness.api import JsonValue
from harness.report import formats, page
from harness.report.formats import MISFIT
from harness.report.page import Column, Section
from harness.report.rows import Row, Table, mean_of
from harness.results.records import DENSE, NOT_COSTED, Record

_Cost = Mapping[str, JsonValue]

_FAR_BEHIND = 20.0
"""Times the cycles of the best beyond which a terminal's table leaves a pair out."""


@dataclass(frozen=True)
class Pair:
    """One pattern at one sparsity on one engine, over all strategies, backends and seeds.

    Args:
        pattern, sparsity: the masks; `dense` and 0 for the baseline.
        engine: the engine's label.
        costs: one per cell that could be costed.
        reasons: why the others could not.
        uneven: whether its masks keep clearly more or fewer weights than others at this sparsity.
    """

    pattern: str
    sparsity: float
    engine: str
    costs: tuple[_Cost, ...]
    reasons: tuple[str, ...]
    uneven: bool = False

    @property
    def cycles(self) -> float | None:
        """Mean cycles over the cells."""
        return _mean(self.costs, "cycles")

    @property
    def fits(self) -> bool:
        """Whether it fits its device in every cell."""
        return all(cost.get("fits") is not False for cost in self.costs)


@dataclass(frozen=True)
class _Layout:
    """Which columns a table has.

    Args:
        labels: of the model whose cycles decide.
        others: name and labels of the models that are shown beside it, by engine.
        compact: fewer columns, and engines far behind the best are named below the table.
        pipelined: whether layers on engines of their own stand beside one engine for all.
    """

    labels: tuple[str, ...]
    others: Mapping[str, tuple[str, ...]]
    compact: bool
    pipelined: bool = False


def engines(table: Table, compact: bool) -> list[Section]:
    """The sections of a table's hardware models; none where no model compares engines.

    A compact report shows one table, of the model that counts on masks if there is one, with the cycles of the others
    beside it.
    """
    several = {model: labels for model, labels in table.models.items() if len(labels) > 1}
    if not several:
        return []
    if not compact:
        # A page has room for every model; a terminal shows one, with the cycles of the others beside it.
        return [_section(table, model, _Layout(labels, {}, compact)) for model, labels in several.items()]
    # The model that counts on masks is the one to compare patterns by.
    main = next((model for model, labels in several.items() if table.is_exact(labels)), next(iter(several)))
    others = {model: labels for model, labels in several.items() if model != main}
    return [_section(table, main, _Layout(several[main], others, compact))]


def pairs(table: Table, labels: Sequence[str]) -> list[Pair]:
    """Every pattern and sparsity of a table on every engine of one model; dense first, the fastest engine first."""
    groups: dict[tuple[str, float], list[Record]] = {}
    for row in table.rows:
        # Allocations spread one sparsity differently: their masks are not each other's repetitions.
        place = (_named(row, table), row.setting.target_sparsity)
        groups.setdefault(place, []).extend(r for r in row.records if r.is_done)
    uneven = {(_named(row, table), row.setting.target_sparsity) for row in table.rows if row.uneven}
    found = []
    for (pattern, sparsity), records in groups.items():
        of_group = [
            replace(_pair(pattern, sparsity, label, records), uneven=(pattern, sparsity) in uneven) for label in labels
        ]
        # What does not fit comes after what fits, however fast it is.
        of_group.sort(key=lambda pair: (pair.cycles is None, not pair.fits, pair.cycles or 0.0))
        found += of_group
    return found


def _named(row: Row, table: Table) -> str:
    """The pattern of a row, with its allocation where there are several."""
    several = len(table.allocations) > 1 and not row.setting.is_dense
    return f"{row.setting.pattern}, {row.setting.allocation}" if several else row.setting.pattern


def _is_pending(cost: _Cost) -> bool:
    """Whether a cost is only not there yet: that is no refusal of the engine's."""
    return str(cost.get("reason", "")).startswith(NOT_COSTED)


def _pair(pattern: str, sparsity: float, label: str, records: Sequence[Record]) -> Pair:
    costs = [record.hardware[label] for record in records if label in record.hardware]
    good = tuple(cost for cost in costs if "cycles" in cost)
    reasons = tuple(dict.fromkeys(str(c["reason"]) for c in costs if "reason" in c and not _is_pending(c)))
    return Pair(pattern, sparsity, _engine(label), good, reasons)


def _engine(label: str) -> str:
    """The engine in the label of a model's variant."""
    return label.partition("[")[2].removesuffix("]") or label


@dataclass(frozen=True)
class _Line:
    """A pair in the table, with its cycles over those of the best and the pairs of other models beside it."""

    pair: Pair
    factor: float
    beside: tuple[Pair | None, ...]


def _section(table: Table, model: str, layout: _Layout) -> Section:
    found = pairs(table, layout.labels)
    best = {sparsity: _best([pair for pair in found if pair.sparsity == sparsity]) for sparsity in _sparsities(found)}
    beside = [{(p.pattern, p.sparsity, p.engine): p for p in pairs(table, labels)} for labels in layout.others.values()]
    lines: list[_Line] = []
    groups: dict[int, str] = {}
    behind: dict[str, list[str]] = {}
    last = None
    for pair in found:
        if pair.cycles is None:
            continue
        # Over the best that fits: a clock that draws level with a circuit that cannot be built helps nobody.
        factor = pair.cycles / (best[pair.sparsity] or pair.cycles)
        if layout.compact and factor > _FAR_BEHIND:
            behind.setdefault(pair.engine, []).append(f"{_masks(pair)} {pair.cycles:,.0f}")
            continue
        if (pair.pattern, pair.sparsity) != last:
            last = (pair.pattern, pair.sparsity)
            groups[len(lines)] = _masks(pair)
        others = tuple(each.get((pair.pattern, pair.sparsity, pair.engine)) for each in beside)
        lines.append(_Line(pair, factor, others))
    layout = replace(layout, pipelined=any(_piped(line.pair, "steps_per_s") is not None for line in lines))
    grid = page.table(
        list(_columns(layout)),
        lines,
        "terminal" if layout.compact else "page",
        groups=groups if layout.compact else {},
        caption=_caption(found),
        notes=_behind(behind) + _refused(found, layout.compact) + _pending(table, layout.labels),
    )
    return Section(f"Engines, {model}: {table.task}", (), grid)


def _masks(pair: Pair) -> str:
    name = pair.pattern if pair.pattern == DENSE else f"{pair.pattern} at {formats.level(pair.sparsity)}"
    return f"{name} {formats.UNEVEN}" if pair.uneven else name


def _cycles(pair: Pair | None) -> str:
    return formats.DASH if pair is None or pair.cycles is None else f"{pair.cycles:,.0f}"


def _columns(layout: _Layout) -> Iterator[Column[_Line]]:
    yield Column(
        "", lambda line: f"  {line.pair.engine}", short="pattern\n  engine", on="terminal", kind="label", matters="key"
    )
    yield Column("pattern", lambda line: line.pair.pattern, on="page", kind="label")
    yield Column(
        "asked\n%", lambda line: formats.asked(line.pair.sparsity) + formats.uneven(line.pair.uneven), on="page"
    )
    yield Column("engine", lambda line: line.pair.engine, on="page", kind="label")
    yield Column("cycles", lambda line: _cycles(line.pair) + formats.misfit(line.pair.fits), matters="key")
    for place, model in enumerate(layout.others):
        yield Column(
            f"{model}\ncycles",
            partial(lambda place, line: _cycles(line.beside[place]), place),
            short=page.broken_name(model) + "\ncycles",
        )
    yield Column("break-\neven", lambda line: f"{line.factor:.2f}")
    yield Column("to\ndense", lambda line: formats.speedup(_speedup(line.pair)))
    yield Column("to own\ndense", lambda line: _own(line.pair))
    yield Column("fixed-\nshape\ncycles", lambda line: f"{_mean(line.pair.costs, 'fixed_cycles') or 0:,.0f}")
    yield Column("used\n%", lambda line: f"{100 * (_mean(line.pair.costs, 'utilisation') or 0.0):.0f}")
    yield Column("best shape", lambda line: _shapes(line.pair), kind="label")
    yield Column("µs", lambda line: formats.latency(_mean(line.pair.costs, "latency_us") or 0.0))
    yield Column("MHz", lambda line: f"{_mean(line.pair.costs, 'clock_mhz') or 0:.0f}", matters="second")
    yield Column("steps/s", lambda line: f"{_mean(line.pair.costs, 'steps_per_s') or 0:,.0f}", matters="second")
    if layout.pipelined:
        yield Column("own engines\nsteps/s", lambda line: _rate(line.pair))
        yield Column("own engines\nµs", lambda line: _delay(line.pair), matters="second")
    for name, header, short in (
        ("multipliers", "multipliers", "multi-\npliers"), ("dsp", "DSP", ""), ("ram_blocks", "RAM\nblocks", ""),
    ):  # fmt: skip
        yield Column(header, partial(_spread_of, name), short=short, matters="second")
    yield Column("bound by", lambda line: _told(line.pair, "bound_by"), kind="label", matters="second")
    yield Column("fixed shape", lambda line: str(line.pair.costs[0].get("fixed_shape", "")), on="page", kind="label")
    yield Column("LUT (est.)", partial(_spread_of, "lut"), on="page")
    yield Column("µJ", lambda line: _energy(line.pair, "energy_uj"), on="page")
    yield Column(
        "µJ by events",
        lambda line: _energy(line.pair, "event_energy_uj"),
        on="page",
        about="µJ: latency times the board power published for that engine on that chip. µJ by events: dynamic energy "
        "of the counted multiplications and memory bits, each times a constant (and static power where a device file "
        "gives it); not board energy, of which it is a small part.",
    )
    yield Column("fits", lambda line: "yes" if line.pair.fits else "no", on="page")
    yield Column("clock", lambda line: str(line.pair.costs[0].get("clock_origin", "")), on="page")


def _piped(pair: Pair, name: str) -> float | None:
    """The mean of a figure of layers on engines of their own; None where there are none."""
    found = [details.get("pipelined") for cost in pair.costs if isinstance(details := cost.get("details"), dict)]
    values = [value for each in found if isinstance(each, dict) and isinstance(value := each.get(name), int | float)]
    return sum(values) / len(values) if values else None


def _rate(pair: Pair) -> str:
    rate, fits = _piped(pair, "steps_per_s"), _piped(pair, "fits")
    return formats.DASH if rate is None else f"{rate:,.0f}{formats.misfit(fits == 1)}"


def _delay(pair: Pair) -> str:
    delay = _piped(pair, "latency_us")
    return formats.DASH if delay is None else formats.latency(delay)


def _speedup(pair: Pair) -> float:
    """Mean dense cycles over mean cycles, so that the factor belongs to the cycles that stand beside it."""
    # Weighted by cycles, so that the factor times the mean cycles is the mean of the dense ones.
    both = [(_numbers([cost], "speedup"), _numbers([cost], "cycles")) for cost in pair.costs]
    costs = [(speedup[0], cycles[0]) for speedup, cycles in both if speedup and cycles]
    total = sum(cycles for _, cycles in costs)
    return sum(speedup * cycles for speedup, cycles in costs) / total if total else 0.0


def _own(pair: Pair) -> str:
    own = _ratio(pair, "engine_dense_cycles")
    return formats.DASH if own is None else formats.speedup(own)


def _shapes(pair: Pair) -> str:
    shapes = dict.fromkeys(str(cost.get("shape")) for cost in pair.costs)
    return next(iter(shapes)) + (" ..." if len(shapes) > 1 else "")


def _told(pair: Pair, name: str) -> str:
    return ", ".join(dict.fromkeys(str(cost.get(name, "")) for cost in pair.costs))


def _energy(pair: Pair, name: str) -> str:
    energy = _mean(pair.costs, name)
    return formats.DASH if energy is None else f"{energy:.3g}"


def _spread_of(name: str, line: _Line) -> str:
    values = [round(value) for value in _numbers(line.pair.costs, name)]
    return formats.spread(min(values), max(values)) if values else formats.DASH


def _caption(found: Sequence[Pair]) -> list[str]:
    lines = [
        "Every pattern on every engine that can run it, each pair in its own best shape within one budget of "
        f"multipliers; means over cells, batch 1; ... other cells took other shapes; {MISFIT} does not fit its device.",
        "break-even: cycles over those of the fastest at this sparsity; a clock higher by so much draws level. "
        "to dense: over a dot-product array with equally many multipliers; to own dense: over the same engine, dense. "
        "fixed shape: cycles in the shape that one would build without looking at a mask.",
    ]
    if any(_piped(pair, "steps_per_s") is not None for pair in found):
        lines.append(
            "own engines: every layer on an engine of its own, all at the same time, multipliers divided so that the "
            "slowest is as fast as may be; the latency is that of one item alone."
        )
    if any(pair.uneven for pair in found):
        lines.append(
            f"{formats.UNEVEN} keeps clearly more or fewer weights than others at this sparsity (see results)."
        )
    launched = dict.fromkeys(pair.engine for pair in found if any(_launch(cost) > 0 for cost in pair.costs))
    if launched:
        lines.append(f"With the start-up times of published systems: {', '.join(launched)}; all others without any.")
    return lines + _findings(found)


def _launch(cost: _Cost) -> float:
    details = cost.get("details")
    parts = details.get("parts") if isinstance(details, dict) else None
    launch = parts.get("launch") if isinstance(parts, dict) else None
    return float(launch) if isinstance(launch, int | float) else 0.0


def _behind(behind: Mapping[str, Sequence[str]]) -> list[str]:
    if not behind:
        return []
    told = "; ".join(f"{engine}: {', '.join(patterns)}" for engine, patterns in behind.items())
    return [f"More than {_FAR_BEHIND:g} times the cycles of the best, and left out above: {told}."]


def _findings(found: Sequence[Pair]) -> list[str]:
    """Which pattern is fastest, on which engine, at every sparsity."""
    lines = []
    for sparsity in _sparsities(found):
        fastest: dict[str, Pair] = {}
        for pair in found:
            if pair.sparsity != sparsity or pair.pattern == DENSE or pair.cycles is None or not pair.fits:
                continue
            if pair.pattern not in fastest or pair.cycles < (fastest[pair.pattern].cycles or 0):
                fastest[pair.pattern] = pair
        if len(fastest) > 1:
            order = sorted(fastest.values(), key=lambda pair: pair.cycles or 0)
            told = [
                f"{pair.pattern}{formats.uneven(pair.uneven)} {pair.cycles:,.0f} on {pair.engine} "
                f"({_mean(pair.costs, 'fixed_cycles') or 0:,.0f})"
                for pair in order
            ]
            lines.append(
                f"Cycles of each pattern on its own best engine at {formats.level(sparsity)} (in brackets those of the "
                f"fixed shape): {', '.join(told)}."
            )
    return lines


def _pending(table: Table, labels: Sequence[str]) -> list[str]:
    costs = [r.hardware[n] for row in table.rows for r in row.records if r.is_done for n in labels if n in r.hardware]
    missing = sum(_is_pending(cost) for cost in costs)
    return [f"Not costed yet: {missing} of {len(costs)}; the same run again costs them."] if missing else []


def _refused(found: Sequence[Pair], compact: bool) -> list[str]:
    """Engines that cannot run a pattern; a whole report has the reasons."""
    if compact:
        # Reasons differ by tensor and would fill a screen; a page has them all.
        engines: dict[str, dict[str, None]] = {}
        for pair in found:
            if pair.reasons:
                engines.setdefault(pair.engine, {})[pair.pattern] = None
        told = "; ".join(f"{engine}: {', '.join(patterns)}" for engine, patterns in engines.items())
        return [f"Cannot run (reasons in the Markdown report): {told}."] if told else []
    reasons: dict[str, dict[str, None]] = {}
    for pair in found:
        for reason in pair.reasons:
            reasons.setdefault(reason, {})[pair.pattern] = None
    return [f"{', '.join(patterns)}: {reason}" for reason, patterns in reasons.items()]


def _best(found: Sequence[Pair]) -> float | None:
    fitting = [pair.cycles for pair in found if pair.cycles is not None and pair.fits]
    every = [pair.cycles for pair in found if pair.cycles is not None]
    return min(fitting or every, default=None)


def _sparsities(found: Sequence[Pair]) -> list[float]:
    return sorted(dict.fromkeys(pair.sparsity for pair in found))


def _numbers(costs: Sequence[_Cost], name: str) -> list[float]:
    values = [cost.get(name) for cost in costs]
    return [float(value) for value in values if isinstance(value, int | float)]


def _mean(costs: Sequence[_Cost], name: str) -> float | None:
    return mean_of(_numbers(costs, name))


def _ratio(pair: Pair, name: str) -> float | None:
    own, cycles = _mean(pair.costs, name), pair.cycles
    return None if own is None or not cycles else own / cycles
