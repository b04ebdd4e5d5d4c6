"""What a cost looks like: the best engine in a line, then speeds, loads, resources, layers and storage as tables."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from harness.api import Cost, JsonValue
from harness.costing.costs import Load, Report, Row, Stored, clock_ratio, fastest
from harness.costing.entries import Entry
from harness.costing.figures import legend, mark, microseconds, number, yes
from harness.report import page
from harness.report.formats import DASH, MISFIT
from harness.report.page import Column, Document, Medium, Section, Shown, missing

_MOST_STORED = 40
"""Matrices whose formats are printed; JSON has all of them."""

_MOST_SHOWN = 220
"""Signs of a list of names in a note of the first page: three lines of a terminal."""


def first_page(report: Report, breakdown: Sequence[str] = ()) -> Document:
    """The answer in a line, and one table of 80 columns as far as names are not longer than that allows.

    Args:
        report: the costs.
        breakdown: engines whose layers are told, too.
    """
    sections: list[Section] = []
    for model, rows in report.by_model().items():
        reference = fastest(rows)
        if reference is not None and reference.cost is not None:
            sections.append(Section(sentences=(_answer(reference, rows),)))
        sections.append(_short_speeds(rows, model))
        costed = [(row.engine, row.cost) for row in rows if row.cost is not None]
        if report.load != Load() and costed:
            sections.append(_loads(costed, report, model))
        piped = [each for each in costed if isinstance(each[1].details.get("pipelined"), dict)]
        if piped:
            sections.append(_pipelined(piped))
        sections += _breakdowns(rows, breakdown)
        sections += _warnings(rows)
    told = [f"note: {_few(note)}" for note in report.notes]
    told.append("clocks, resources, layers, storage: --full; an engine's layers: --breakdown ENGINE; pictures: -o FILE")
    return Document("", (*sections, Section(sentences=tuple(told))))


def _few(note: str) -> str:
    """A note whose list of names is cut where it would fill the screen; `--full` has all of them."""
    head, sign, rest = note.partition("; ")
    # A shape such as (2, 768) has a comma as well: names follow letters.
    names = re.split(r", (?=[^\d ])", head)
    kept = names
    while len(", ".join(kept)) > _MOST_SHOWN and len(kept) > 1:
        kept = kept[:-1]
    more = len(names) - len(kept)
    return ", ".join(kept) + (f" and {more} more" if more else "") + sign + rest


def _short_speeds(rows: Sequence[Row], model: str) -> Section:
    """The engines with what decides between them, the best first; where none can run it, why."""
    if all(row.cost is None for row in rows):
        return _speeds(rows, model, None)

    def figure(header: str, shown: Callable[[Cost], str], **options: Any) -> Column[Row]:
        return Column(header, lambda row: DASH if row.cost is None else shown(row.cost), **options)

    best = fastest(rows)
    can = [(row, row.cost) for row in rows if row.cost is not None]
    can.sort(key=lambda each: (each[0] is not best, not each[1].fits, each[1].latency_us))
    columns: list[Column[Row]] = [
        Column("engine", lambda row: row.engine + _misfit(row.cost), kind="label", matters="key"),
        figure("cycles", lambda cost: ("" if cost.exact else "≈") + str(cost.cycles), matters="key"),
        figure("µs", lambda cost: microseconds(cost.latency_us), matters="key"),
        figure("over dense", lambda cost: _factor(cost.speedup)),
        figure("multipliers", lambda cost: str(cost.multipliers)),
        figure("RAM %", lambda cost: DASH if cost.ram_share is None else f"{100 * cost.ram_share:.3g}"),
        figure("bound by", lambda cost: cost.bound_by, kind="label"),
    ]
    costs, below = [cost for _, cost in can], []
    if any(not cost.exact for cost in costs):
        below.append("≈ expected from statistics, not counted on the masks")
    if any(not cost.fits for cost in costs):
        below.append("✗ does not fit the device with all weights on chip")
    refused = [row.engine for row in rows if row.cost is None]
    if refused and can:
        below.append(f"cannot run this: {', '.join(refused)} (why: --full)")
    device = f" on {_device(costs)}" if costs else ""
    grid = page.table(columns, [row for row, _ in can], notes=tuple(below))
    return Section(f"{model}{device}: one time step or item at batch 1", (), grid)


def _breakdowns(rows: Sequence[Row], engines: Sequence[str]) -> Iterator[Section]:
    """The layers of engines, by name."""
    for row in rows:
        layers = row.cost.details.get("layers") if row.cost is not None else None
        if any(row.is_called(name) for name in engines) and isinstance(layers, dict) and layers:
            yield _layers(row, layers)


def _warnings(rows: Sequence[Row]) -> Iterator[Section]:
    warnings: dict[str, list[str]] = {}
    for row in rows:
        for note in row.cost.notes if row.cost is not None else ():
            warnings.setdefault(note, []).append(row.engine)
    if warnings:
        yield Section(sentences=tuple(f"{', '.join(engines)}: {note}" for note, engines in warnings.items()))


def cost_document(report: Report, medium: Medium = "terminal", breakdown: Sequence[str] = ()) -> Document:
    """Everything about the cost of a workload, in the order in which it is read; as data, a line per engine.

    Args:
        report: the costs.
        medium: what it is for.
        breakdown: engines whose layers are told; by default those of the best one.
    """
    if medium == "data":
        # All that a line of `--json` says: a flat table has no room for the details of layers.
        figures: Column[Entry] = Column("", fields=lambda row: {k: v for k, v in row.items() if k != "details"})
        return Document("", (Section("", (), page.table([figures], report.rows_plain(), medium)),))
    sections: list[Section] = []
    for model, rows in report.by_model().items():
        sections += _model_sections(rows, model, report, breakdown)
    if report.matrices:
        sections.append(_storage(report.matrices))
    if report.notes:
        sections.append(Section(sentences=tuple(f"note: {note}" for note in report.notes)))
    return Document("" if medium == "terminal" else "Hardware cost", tuple(sections))


def _model_sections(rows: Sequence[Row], model: str, report: Report, breakdown: Sequence[str]) -> Iterator[Section]:
    reference = fastest(rows)
    if reference is not None and reference.cost is not None:
        yield Section(sentences=(_answer(reference, rows),))
    yield _speeds(rows, model, reference)
    if reference is None or reference.cost is None:
        return
    costed = [(row.engine, row.cost) for row in rows if row.cost is not None]
    if report.load != Load():
        yield _loads(costed, report, model)
    piped = [(engine, cost) for engine, cost in costed if isinstance(cost.details.get("pipelined"), dict)]
    if piped:
        yield _pipelined(piped)
    yield _resources(costed)
    yield from _breakdowns(rows, breakdown or (reference.engine,))
    yield from _warnings(rows)


def _answer(reference: Row, rows: Sequence[Row]) -> str:
    """The best engine in one line: shape, cycles, whether it fits, what binds, and what would be faster streamed."""
    cost = reference.cost
    assert cost is not None
    # A design that fits without all weights on chip is one that streams them on purpose.
    wired = cost.details.get("hardware_class") == "unrolled"
    resident = "every weight wired into the circuit" if wired else "all weights on chip"
    how = resident if cost.fits and cost.resident else "weights streamed by design" if cost.fits else ""
    if not how:
        how = "with weights streamed that do not fit" if cost.can_run else "which does not fit the device"
    cycles = f"{'' if cost.exact else 'about '}{cost.cycles} cycles, {microseconds(cost.latency_us)} µs"
    found = f"best: {f'{reference.engine} {cost.shape}'.strip()}, {cycles}, {how}; bound by {cost.bound_by}"
    streaming = [row for row in rows if row.cost and row.cost.can_run and not row.cost.fits]
    faster = min(streaming, key=lambda row: row.cost.latency_us if row.cost else 0.0, default=None)
    # Told only where streaming would win: whoever can live with it should know.
    if faster is None or faster.cost is None or not cost.fits or faster.cost.latency_us >= cost.latency_us:
        return found
    return f"{found}; with weights streamed, {faster.engine} would take {microseconds(faster.cost.latency_us)} µs"


def _factor(number: float) -> str:
    """A factor; one that two digits would show as nothing is told as small."""
    return "<0.01×" if 0 < number < 0.005 else f"{number:.2f}×"


def _over_dense(cost: Cost) -> str:
    """The factor; where the dense baseline waits for memory, also the factor of computing alone."""
    dense, alone = cost.details.get("dense"), cost.details.get("speedup_compute_only")
    # The dense baseline of a large model waits for memory: its speed-up mixes two effects, so both are shown.
    waits = isinstance(dense, dict) and bool(dense.get("memory_stall"))
    return (
        f"{_factor(cost.speedup)} ({_factor(alone)})" if waits and isinstance(alone, float) else _factor(cost.speedup)
    )


def _speeds(rows: Sequence[Row], model: str, reference: Row | None) -> Section:
    def figure(header: str, shown: Callable[[Cost], str], **options: Any) -> Column[Row]:
        return Column(header, lambda row: DASH if row.cost is None else shown(row.cost), **options)

    def ratio(row: Row) -> str:
        found = clock_ratio(row, reference)
        return DASH if found is None else f"{found:.2f}"

    columns: list[Column[Row]] = [
        Column("engine", lambda row: row.engine + _misfit(row.cost), kind="label", matters="key"),
        Column("shape", lambda row: missing(row.reason) if row.cost is None else row.cost.shape, kind="label"),
        figure("cycles", lambda cost: ("" if cost.exact else "≈") + str(cost.cycles), matters="key"),
        figure("MHz", lambda cost: f"{cost.clock_mhz:g}{mark(cost.clock_origin)}"),
        figure("latency\nµs", lambda cost: microseconds(cost.latency_us)),
        figure("steps/s", lambda cost: DASH if cost.steps_per_s is None else f"{cost.steps_per_s:.0f}"),
        figure("over\ndense", _over_dense),
        figure("over\nown", _over_own),
        figure("fixed\ncycles", lambda cost: DASH if cost.fixed_cycles is None else str(cost.fixed_cycles)),
        Column("clock\nratio", ratio),
        figure("used\n%", lambda cost: f"{100 * cost.utilisation:.1f}"),
        figure("bound\nby", lambda cost: cost.bound_by, kind="label"),
    ]
    grid = page.table(columns, rows, notes=tuple(_speed_lines(rows, reference)))
    return Section(f"{model}: one time step or item at batch 1", (), grid)


def _misfit(cost: Cost | None) -> str:
    return "" if cost is None or cost.fits else f" {MISFIT}"


def _over_own(cost: Cost) -> str:
    return DASH if cost.engine_dense_cycles is None else _factor(cost.engine_dense_cycles / cost.cycles)


def _speed_lines(rows: Sequence[Row], reference: Row | None) -> Iterator[str]:
    costs = [row.cost for row in rows if row.cost is not None]
    if not costs:
        return
    if any(not cost.exact for cost in costs):
        yield "≈ expected from statistics, not counted on the masks"
    arrays = ", ".join(dict.fromkeys(cost.baseline for cost in costs if cost.baseline)) or "a dense array"
    yield (
        f"over dense: cycles of the dense matrices on {arrays} with as many multipliers, over these; over own: the "
        "same, dense on this engine; fixed: cycles of the shape one would build without looking at a mask"
    )
    if reference is not None:
        yield f"clock ratio: clock that an engine needs, over that of {reference.engine}, to be as fast"
    yield from filter(None, [legend([cost.clock_origin for cost in costs])])
    if any("(" in _over_dense(cost) for cost in costs):
        yield "over dense, in brackets: computing alone, as if the dense baseline did not wait for its weights"
    if any(not cost.fits for cost in costs):
        yield "✗ does not fit the device with all weights on chip"
    fixed = [f"{row.engine} {row.cost.fixed_shape}" for row in rows if row.cost and row.cost.fixed_shape]
    if fixed:
        yield f"fixed shapes: {'; '.join(fixed)}"


_Costed = tuple[str, Cost]
"""An engine and what it costs."""


def _loads(rows: Sequence[_Costed], report: Report, model: str) -> Section:
    """Latency against throughput: every engine with one input after another, and those that serve a batch at once."""
    load = report.load
    together = [(row.engine, row.cost) for row in report.batched if row.cost is not None and row.model == model]
    columns: list[Column[_Costed]] = [
        Column("engine", lambda row: row[0], kind="label", matters="key"),
        Column("streams", lambda row: str(row[1].streams)),
        Column("step, µs", lambda row: microseconds(row[1].latency_us)),
        Column("sequence, µs", lambda row: microseconds(load.sequence_us(row[1]))),
        Column("all, µs", lambda row: microseconds(load.total_us(row[1]))),
        Column("steps/s", lambda row: f"{load.steps_per_s(row[1]):.0f}"),
        Column("RAM %", lambda row: DASH if row[1].ram_share is None else f"{100 * row[1].ram_share:.3g}"),
        Column("on chip", lambda row: yes(row[1].resident)),
    ]
    notes = (
        "batch: a step is one of all its inputs; every word of weights is read once for them, or (in_turn) whole "
        "products take turns, so that one input computes while another waits for its own last output",
    )
    inputs = "one input" if load.batch == 1 else f"{load.batch} inputs"
    each = "one step" if load.steps == 1 else f"{load.steps} steps"
    grid = page.table(columns, [*rows, *together], notes=notes if together else ())
    return Section(f"{inputs} of {each}, one after another or over an engine's streams", (), grid)


def _pipelined(rows: Sequence[_Costed]) -> Section:
    """One engine for all layers beside an engine for each: the rate, the latency, and what sets the pace."""

    def own(name: str, shown: Callable[[JsonValue], str]) -> Callable[[_Costed], str]:
        """A figure of the layers on engines of their own; a dash where there are none."""

        def figure(row: _Costed) -> str:
            found = row[1].details["pipelined"]
            return shown(found[name]) if isinstance(found, dict) and name in found else DASH

        return figure

    columns: list[Column[_Costed]] = [
        Column("engine", lambda row: row[0], kind="label", matters="key"),
        Column("one for all\nsteps/s", lambda row: f"{row[1].steps_per_s or 0:.0f}"),
        Column("µs", lambda row: microseconds(row[1].latency_us)),
        Column("own engines\nsteps/s", own("steps_per_s", lambda value: f"{number(value):.0f}"), matters="key"),
        Column("µs", own("latency_us", lambda value: microseconds(number(value)))),
        Column("multipliers", own("multipliers", str)),
        Column("slowest\nlayer", own("slowest", str), kind="label"),
        Column("RAM\n%", own("ram_share", lambda value: f"{100 * number(value):.0f}")),
        Column("fits", own("fits", lambda value: yes(bool(value)))),
    ]
    notes = [
        "own engines: every layer on an engine of its own, all at the same time, each on another item; multipliers are "
        "divided so that the slowest layer is as fast as may be. Its latency is that of one item alone",
        *(f"{engine}: {found['reason']}" for engine, cost in rows
          if isinstance(found := cost.details["pipelined"], dict) and "reason" in found),
    ]  # fmt: skip
    return Section("one engine for all layers, and one for each", (), page.table(columns, rows, notes=notes))


def _resources(rows: Sequence[_Costed]) -> Section:
    columns: list[Column[_Costed]] = [
        Column("engine", lambda row: row[0], kind="label", matters="key"),
        Column("multipliers", lambda row: str(row[1].multipliers)),
        Column("DSP", lambda row: str(row[1].dsp)),
        Column("RAM blocks", lambda row: _rams(row[1])),
        Column("LUT", lambda row: DASH if row[1].lut is None else str(row[1].lut)),
        Column("FF", lambda row: DASH if row[1].ff is None else str(row[1].ff)),
        Column("on chip", lambda row: yes(row[1].resident)),
        Column("fits", lambda row: yes(row[1].fits)),
        Column("executed\nGOPS", lambda row: f"{row[1].gops:.1f}"),
        Column("dense-equiv.\nGOPS", lambda row: f"{row[1].effective_gops:.1f}"),
        Column("board\nµJ", lambda row: DASH if row[1].energy_uj is None else f"{row[1].energy_uj:.2f}"),
        Column("events\nµJ", lambda row: _events_uj(row[1])),
    ]
    device = _device([cost for _, cost in rows])
    notes = tuple(_energy_lines([cost for _, cost in rows]))
    return Section(f"resources on {device}; LUT and FF are indicative", (), page.table(columns, rows, notes=notes))


def _events_uj(cost: Cost) -> str:
    """Energy by events, with the mark of its least certain constant."""
    if cost.event_energy_uj is None:
        return DASH
    return f"{cost.event_energy_uj:.3g}{mark(_event_origin(cost))}"


def _event_origin(cost: Cost) -> str:
    """The least certain origin among the constants of the events that there are."""
    told = cost.details.get("energy_events")
    events = (
        [each for each in told.values() if isinstance(each, dict) and each.get("uj")] if isinstance(told, dict) else []
    )
    origins = {str(each.get("origin", "")) for each in events}
    return next((origin for origin in ("assumed", "recalled", "derived", "measured", "read") if origin in origins), "")


def _energy_lines(costs: Sequence[Cost]) -> Iterator[str]:
    if any(cost.energy_uj is not None for cost in costs):
        yield "board: by the board power of a published design of this engine on this chip"
    if any(cost.event_energy_uj is not None for cost in costs):
        yield (
            "events: dynamic energy of the counted multiplications and memory bits, each times a constant; not board "
            "energy, of which it is a small part (no clocks, no routing; static power where a device file gives it)"
        )
        yield from filter(None, [legend([_event_origin(cost) for cost in costs])])


def _rams(cost: Cost) -> str:
    """Blocks of every kind that is used: a block of one kind is not a block of another, so they are not summed."""
    placed = cost.details.get("ram")
    kinds = placed if isinstance(placed, dict) else {}
    used = {
        kind: round(sum(number(count) for count in purposes.values()))
        for kind, purposes in kinds.items()
        if isinstance(purposes, dict) and kind != "distributed" and purposes
    }
    if len(used) < 2:
        return f"{cost.ram_blocks} {cost.ram_kind}"
    return " + ".join(f"{number} {kind}" for kind, number in used.items())


def _device(costs: Sequence[Cost]) -> str:
    found = [cost.details.get("device") for cost in costs]
    names = [str(device.get("id")) for device in found if isinstance(device, dict)]
    return ", ".join(dict.fromkeys(names)) or "the model's device"


_Layer = tuple[str, Mapping[str, JsonValue]]
"""A layer's name and what the model tells of it."""


def _layers(row: Row, layers: Mapping[str, JsonValue]) -> Section:
    found: list[_Layer] = [(name, layer) for name, layer in layers.items() if isinstance(layer, dict)]
    parts = dict.fromkeys(name for _, layer in found for name, value in _inside(layer).items() if value)
    columns: list[Column[_Layer]] = [
        Column("layer", lambda each: each[0], kind="label", matters="key"),
        Column("rows", lambda each: f"{number(each[1].get('rows')):.0f}"),
        Column("cols", lambda each: f"{number(each[1].get('cols')):.0f}"),
        Column("non-zeros", lambda each: f"{number(each[1].get('nonzeros')):.0f}"),
        Column("density", lambda each: _density(each[1])),
        Column("cycles", lambda each: _tenths(each[1].get("cycles"))),
        *(
            Column(
                part,
                partial(lambda part, each: _tenths(_inside(each[1]).get(part)), part),
                short=part.replace("_", "\n"),
            )
            for part in parts
        ),
    ]
    lines = [f"{name}: {note}" for name, layer in found for note in _texts(layer.get("notes"))]
    return Section(f"layers on {row.engine}: where the cycles go", (), page.table(columns, found, notes=lines))


def _inside(layer: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Cycles of a layer by what they are spent on."""
    parts = layer.get("parts")
    return parts if isinstance(parts, dict) else {}


def _density(layer: Mapping[str, JsonValue]) -> str:
    size = number(layer.get("rows")) * number(layer.get("cols"))
    return f"{number(layer.get('nonzeros')) / size:.4f}" if size else DASH


def _tenths(value: JsonValue) -> str:
    return f"{number(value):.1f}".removesuffix(".0")


def _texts(value: JsonValue) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else []


def _storage(matrices: Sequence[Stored]) -> Section:
    shown = matrices[:_MOST_STORED]

    def fraction(place: int, matrix: Stored) -> Shown:
        # By place, since every matrix has the same formats in the same order.
        size = matrix.formats[place]
        return missing(f"{size.name}: {size.reason}") if size.fraction is None else f"{size.fraction:.3f}"

    columns: list[Column[Stored]] = [
        Column("matrix", lambda matrix: matrix.tensor, kind="label", matters="key"),
        Column("density", lambda matrix: f"{matrix.nnz / (matrix.rows * matrix.cols):.4f}"),
        Column("best", lambda matrix: matrix.best.name, kind="label"),
        Column("best, bits", lambda matrix: str(matrix.best.bits)),
        *(
            Column(size.name, partial(fraction, place), short=size.name.replace("_", "\n"))
            for place, size in enumerate(shown[0].formats)
        ),
    ]
    more = len(matrices) - len(shown)
    notes = [f"and {more} more matrices; `--json` has all"] if more else []
    heading = "storage: bits in every format, as a fraction of the dense bits"
    return Section(heading, (), page.table(columns, shown, notes=notes))
