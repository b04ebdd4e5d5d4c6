"""A cost as pictures: where the cycles go, how PEs are loaded, what memory allows, where the masks keep weights."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from harness._outputs import write_output
from harness._text import listed
from harness.api import Cost, JsonValue, Mask, SpecError
from harness.costing.costs import Report, Row
from harness.costing.figures import number
from harness.costing.roofline import Roof, roofline
from harness.report import charts, svg
from harness.report.charts import Bar, Bars, Chart, Panel, Picture, Series, Style
from harness.report.formats import MISFIT
from harness.report.page import Document, Section
from harness.report.pictures.cost import _loads, _mean, _spread
from harness.report.pictures.masks import spy

FORMS = (".html", ".svg", ".png", ".pdf")

_MOST_LAYERS = 6
"""Layers with a panel of their own; the largest ones."""

_MOST_PARTS, _FAR = 7, 10
"""Parts with a colour of their own, and how many times the least cycles an engine may take to be drawn."""

_MOST_MASKS = 12
"""Masks that are drawn; the largest ones."""


def check_output(path: Path) -> None:
    """Refuse a name that no picture can have, before anything is computed.

    Raises:
        SpecError: the suffix is none of a picture's.
    """
    if path.suffix not in FORMS:
        raise SpecError(f"-o: expected a file ending in {', '.join(FORMS)}, got {path.name!r}; rename it")


def write(report: Report, masks: Mapping[str, Mask], path: Path, document: Document) -> None:
    """Draw a report into a file; equal reports give equal bytes.

    Args:
        report: the costs.
        masks: of the workload, as far as they are known.
        path: its suffix says the form; HTML has the tables, too.
        document: the tables.

    Raises:
        SpecError: nothing can be drawn, or the file cannot be written.
        PluginUnavailableError: PNG or PDF is asked for and matplotlib is not installed.
    """
    check_output(path)
    drawn = pictures(report, masks)
    if not drawn:
        raise SpecError("-o: expected a cost to draw, got none; no engine can run this workload")
    if path.suffix == ".html":
        from harness.report import html

        content: str | bytes = html.text(
            Document(document.title or "Hardware cost", (*document.sections, Section("Pictures", charts=tuple(drawn))))
        )
    elif path.suffix == ".svg":
        content = svg.file(drawn)
    else:
        from harness.report.figures import stacked

        content = stacked(drawn, "png" if path.suffix == ".png" else "pdf")
    write_output(path, content)


def pictures(report: Report, masks: Mapping[str, Mask]) -> list[Picture]:
    """What there is to draw."""
    rows = [row for row in report.rows if row.cost is not None]
    found: list[Picture] = []
    if rows:
        found += [each for each in (_cycles(rows), _load(rows), _roofline(rows)) if each.panels]
        largest = sorted(masks, key=lambda name: -masks[name].size)[:_MOST_MASKS]
        # In the order of the network, the largest of them.
        kept = {name: mask for name, mask in masks.items() if name in largest and mask.size}
        if kept:
            found.append(spy(kept, "Where the masks keep weights"))
    return found


# --- cycles ---------------------------------------------------------------------------------------------------------


def _cycles(rows: Sequence[Row]) -> Bars:
    """Cycles by what they are spent on: all layers of every engine, then layer by layer."""
    costed = [(row, row.cost) for row in rows if row.cost is not None]
    # What fits first, as in the table; and the least of those, since nobody builds what is faster and does not fit.
    costed = sorted(costed, key=lambda each: (not each[1].fits, each[1].cycles))
    best = costed[0][1].cycles
    # One engine of another order of magnitude would leave nothing to see of the others.
    near = [each for each in costed if each[1].cycles <= _FAR * best]
    far = [f"{row.engine} ({cost.cycles:,} cycles)" for row, cost in costed if cost.cycles > _FAR * best]
    layers = {row.engine: _layers(cost) for row, cost in near}
    names = list(dict.fromkeys(name for found in layers.values() for name in found))
    sizes = {name: max(number(each[name].get("cycles")) for each in layers.values() if name in each) for name in names}
    largest = sorted(names, key=lambda name: -sizes[name])[:_MOST_LAYERS]
    kept = _largest_parts(layers.values())
    panels = [("all layers", tuple(_bar(row, _summed(layers[row.engine].values(), cost), kept) for row, cost in near))]
    if len(names) > 1:
        panels += [
            (
                name,
                tuple(_bar(row, _parts(found[name]), kept) for row, _ in near if name in (found := layers[row.engine])),
            )
            for name in names
            if name in largest
        ]
    about = [f"Modelled, one time step or item; each engine in its own best shape. {MISFIT}: does not fit the device."]
    about += [f"Left out, more than {_FAR} times {costed[0][0].engine}: {listed(far)}."] if far else []
    if len(names) > _MOST_LAYERS:
        about.append(f"The {_MOST_LAYERS} layers of {len(names)} that take longest; `--json` has all.")
    return Bars("cycles", "Where the cycles go", "cycles", tuple(panels), tuple(about))


def _largest_parts(every: Iterable[Mapping[str, Mapping[str, JsonValue]]]) -> frozenset[str]:
    """The parts that get a colour of their own: those that take most anywhere."""
    most: dict[str, float] = {}
    for layers in every:
        for layer in layers.values():
            for name, value in _parts(layer).items():
                most[name] = max(most.get(name, 0.0), value / max(1.0, number(layer.get("cycles"))))
    return frozenset(sorted(most, key=lambda name: -most[name])[:_MOST_PARTS])


def _layers(cost: Cost | None) -> dict[str, Mapping[str, JsonValue]]:
    found = cost.details.get("layers") if cost is not None else None
    return {name: each for name, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}


def _parts(layer: Mapping[str, JsonValue]) -> dict[str, float]:
    parts = layer.get("parts")
    found = {name: number(value) for name, value in parts.items()} if isinstance(parts, dict) else {}
    return found or {"cycles": number(layer.get("cycles"))}


def _summed(layers: Iterable[Mapping[str, JsonValue]], cost: Cost) -> dict[str, float]:
    """The parts of all layers; what the whole takes beyond them (a launch) is among the others."""
    total: dict[str, float] = {}
    for layer in layers:
        for name, value in _parts(layer).items():
            total[name] = total.get(name, 0.0) + value
    rest = cost.cycles - math.fsum(total.values())
    return total | ({"outside of layers": rest} if rest > 0.5 else {})


def _bar(row: Row, parts: Mapping[str, float], kept: frozenset[str]) -> Bar:
    shown = [(name.replace("_", " "), value) for name, value in parts.items() if value > 0 and name in kept]
    others = math.fsum(value for name, value in parts.items() if value > 0 and name not in kept)
    shown += [(charts.OTHERS, others)] if others else []
    return Bar(row.engine, tuple(shown), f" {MISFIT}" if row.cost is not None and not row.cost.fits else "")


# --- load and memory ------------------------------------------------------------------------------------------------


def _load(rows: Sequence[Row]) -> Chart:
    """How evenly the work of a layer is spread over the PEs."""
    series = []
    for place, row in enumerate(rows):
        assert row.cost is not None
        found = _loads([{"details": row.cost.details}])
        if found:
            name = f"{row.engine}, mean load {_mean(found):.0f} %"
            series.append(Series(name, _spread(found, name), Style(place, name), Style(place, name)))
    return Chart(
        "load", "Load of the processing elements", "work of a PE, % of the busiest one's", "PEs, %",
        (Panel("all layers", tuple(series)),) if series else (),
        ("A point is the part of the PEs with up to so much work and more than the point before: all of them at "
         "100 % are in perfect balance.",),
    )  # fmt: skip


def _roofline(rows: Sequence[Row]) -> Chart:
    """Operations per second against operations per byte, under the roofs of memory and multipliers."""
    found = roofline([row.cost for row in rows if row.cost is not None])
    series: list[Series] = []
    for place, roof in enumerate(found.roofs):
        points = [each for each in found.of(roof.engine) if each.intensity > 0 and each.gops > 0]
        if not points:
            continue
        style = Style(place, roof.engine)
        marks = tuple(
            charts.Point(
                each.intensity, each.gops, None,
                f"{each.engine}{f', {each.layer}' if each.layer else ''}: {each.gops:,.3g} GOPS at "
                f"{each.intensity:,.3g} operations a byte; {100 * each.resident_share:.0f} % of the weights on chip",
                bool(each.layer),
            )
            for each in points
        )  # fmt: skip
        series.append(Series(roof.engine, marks, style, style, joined=False))
        line = tuple(_roof(roof, [each.intensity for each in points]))
        if line:
            series.append(Series(f"roof of {roof.engine}", line, style, style, marked=False))
    panels = (Panel("", tuple(series), is_log_x=True),) if series else ()
    return Chart(
        "roofline", "Roofline", "operations per byte from off-chip memory", "GOPS", panels,
        ("Filled: all layers of an engine; hollow: one layer. Lines: what its multipliers and the off-chip memory "
         "allow; without a known bandwidth there is no slant.",),
    )  # fmt: skip


def _roof(roof: Roof, intensities: Sequence[float]) -> Iterator[charts.Point]:
    """The line of a roof over what its points span, its corner among it."""
    if roof.peak_gops <= 0:
        return
    low, high = min(intensities) / 2, max(intensities) * 2
    ridge = roof.ridge
    high = max(high, 2 * ridge) if ridge else high
    low = min(low, ridge / 4) if ridge else low
    places = sorted({low, high, *([ridge] if ridge and low < ridge < high else [])})
    yield from (charts.Point(place, roof.attainable(place)) for place in places)
