"""A workload on many designs: budgets, FIFO depths and clocks; which of them no other beats, as table and picture."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from io import BytesIO, StringIO
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from harness._outputs import write_output
from harness.api import Cost, JsonValue, PluginUnavailableError, SpecError, Workload
from harness.costing.costs import Request, Row, Told, designs, engine_classes, model_classes
from harness.costing.costs import costs as costs_of
from harness.costing.entries import Entry
from harness.discovery.registry import Registry
from harness.report.svg import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MULTIPLIERS = (256, 512, 1024, 2048, 4096)
FIFO_DEPTHS = (1, 2, 4, 8, 16)

Resource = Callable[[Cost], float | None]
"""How much of something a design takes; None where nothing is known of it."""


def logic_share(cost: Cost) -> float | None:
    """Percent of the LUTs or ALMs that may be taken; None of an engine whose logic is not known."""
    logic = cost.details.get("logic")
    share = logic.get("share_of_ceiling") if isinstance(logic, dict) else None
    return 100 * share if isinstance(share, int | float) else None


RESOURCES: Mapping[str, Resource] = {
    "multipliers": lambda cost: cost.multipliers,
    "RAM": lambda cost: cost.ram_blocks if cost.ram_share is None else 100 * cost.ram_share,
    "DSP": lambda cost: cost.dsp,
    "LUT": logic_share,
    "bandwidth": lambda cost: cost.bandwidth_gbytes_per_s or 0.0,
}
"""What latency is weighed against, each on its own."""

UNITS = {"RAM": "% of the fullest kind", "LUT": "% of what may be taken, indicative", "bandwidth": "GB/s of weights"}

MOST = 10**9
"""Of a budget, a depth or a clock."""

_MOST_VALUES, _DIGITS = 1000, 20

TEXTS = (".csv", ".json")
# By suffix, the metadata that would change with the date of drawing.
PICTURES: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".png": {}, ".pdf": {"CreationDate": None}}
_PANEL_INCHES = (5.0, 4.2)

_LABELS = 8
"""Designs of a front that are labelled with their shape; more would lie over each other."""

_FEW_DECADES = 500
"""Largest over smallest value of an axis, up to which 2 and 5 have ticks as well."""


@dataclass(frozen=True)
class Grid:
    """What is varied.

    Args:
        multipliers: budgets; the best shape within each is taken.
        fifo_depths: for engines with a FIFO whose depth is not given.
        clocks_mhz: for every engine; empty leaves each at its own.
    """

    multipliers: tuple[int, ...] = MULTIPLIERS
    fifo_depths: tuple[int, ...] = FIFO_DEPTHS
    clocks_mhz: tuple[float, ...] = ()


@dataclass(frozen=True)
class Point:
    """One design: an engine within one budget, at one FIFO depth and one clock.

    Args:
        row: what it costs, or why it cannot run the workload.
        budget: multipliers it may have; the shape takes at most as many.
        fifo_depth: None for engines without FIFO.
        fronts: resources for which no design that can be built is both faster and smaller.
    """

    row: Row
    budget: int
    fifo_depth: int | None
    fronts: tuple[str, ...] = ()


def sweep(
    registry: Registry, workload: Workload, request: Request, axes: Grid, told: Told | None = None
) -> tuple[Point, ...]:
    """Cost every design: of every budget the fastest, and smaller ones that it does not beat; equal ones come once.

    Args:
        registry: the plugins.
        workload: what is costed.
        request: on what.
        axes: what is varied.
        told: how it goes.

    Raises:
        UnknownPluginError, SpecError: a name or a value is wrong.
    """
    models = request.models or (_first_able(registry, workload, request),)
    engines = request.engines or tuple({"name": engine.name} for engine in engine_classes(registry))
    found: dict[tuple[object, ...], Point] = {}
    every = list(product(models, engines))
    for number, (model, entry) in enumerate(every, start=1):
        start, name = time.perf_counter(), str(entry["name"])
        if told is not None:
            told(name, None, number, len(every))
        # A larger budget that changes nothing gives the same design again: the smallest one stays.
        for point in _of_engine(registry, workload, replace(request, models=(model,)), entry, axes):
            found.setdefault(_same(point), point)
        if told is not None:
            told(name, time.perf_counter() - start, number, len(every))
    return with_fronts(tuple(found.values()))


def _first_able(registry: Registry, workload: Workload, request: Request) -> str:
    """The first model that can cost the workload at all."""
    rows = costs_of(registry, workload, request)
    able = [row.model for row in rows if row.cost] or [model.name for model in model_classes(registry)]
    return able[0]


def _of_engine(registry: Registry, workload: Workload, request: Request, entry: Entry, axes: Grid) -> Iterator[Point]:
    has_fifo = "fifo_depth" in registry.get("engine", str(entry["name"])).model_fields and "fifo_depth" not in entry
    depths: tuple[int | None, ...] = axes.fifo_depths if has_fifo else (None,)
    clocks: tuple[float | None, ...] = axes.clocks_mhz or (None,)
    for depth, budget, clock in product(depths, axes.multipliers, clocks):
        engine = entry if depth is None else {**entry, "fifo_depth": depth}
        parameters: Entry = {**request.parameters, "multipliers": budget}
        if clock is not None:
            parameters["clock_mhz"] = clock
        rows = designs(registry, workload, replace(request, engines=(engine,), parameters=parameters))
        # Designs in place of one cost: an engine may tell smaller shapes that its fastest does not beat.
        yield from (Point(row, budget, depth) for row in rows)
        if rows[0].cost is None:
            return  # a refusal is about the masks: no other size changes it


def _same(point: Point) -> tuple[object, ...]:
    cost = point.row.cost
    if cost is None:
        return point.row.model, point.row.engine, point.row.reason
    return point.row.model, point.row.engine, cost.shape, cost.clock_mhz, cost.cycles, cost.ram_blocks


def with_fronts(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points with the fronts they lie on: only designs that can be built, and models are not compared."""
    marked = []
    # Within one model, since two models' figures rest on different assumptions.
    for point in points:
        rivals = [
            each.row.cost
            for each in points
            if each.row.cost and each.row.model == point.row.model and each.row.cost.can_run
        ]
        marked.append(replace(point, fronts=tuple(_fronts(point.row.cost, rivals))))
    return tuple(marked)


def _fronts(cost: Cost | None, rivals: Sequence[Cost]) -> Iterator[str]:
    if cost is None or not cost.can_run:
        return
    for name, resource in RESOURCES.items():
        if resource(cost) is not None and not any(_beats(rival, cost, resource) for rival in rivals):
            yield name


def _beats(rival: Cost, cost: Cost, resource: Resource) -> bool:
    """Whether a rival is at least as fast and as small, and better in one of the two."""
    theirs, ours = resource(rival), resource(cost)
    # What nobody knows is neither smaller nor larger.
    if theirs is None or ours is None:
        return False
    # Equal in both is no win, or two equal designs would take each other off the front.
    is_other = (rival.latency_us, theirs) != (cost.latency_us, ours)
    return is_other and rival.latency_us <= cost.latency_us and theirs <= ours


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Values of an axis from `1,2,4`, each once.

    Raises:
        SpecError: one is no whole number above 0.
    """
    parts = _parts(text, option)
    # Longer is a typing error, and int() would refuse thousands of digits in words of its own.
    found = [int(part) if part.strip().isdecimal() and len(part) < _DIGITS else 0 for part in parts]
    if min(found) < 1 or max(found) > MOST:
        raise SpecError(
            f"{option}: expected whole numbers above 0 and up to {MOST}, such as 1,2,4, got {text!r:.80}; mend the list"
        )
    return tuple(dict.fromkeys(found))


def _parts(text: str, option: str) -> list[str]:
    parts = text.split(",")
    if len(parts) > _MOST_VALUES:
        raise SpecError(f"{option}: expected at most {_MOST_VALUES} values, got {len(parts)}; each is costed anew")
    return parts


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Values of an axis from `100,150.5`, each once.

    Raises:
        SpecError: one is no finite number above 0.
    """
    try:
        found = [float(part) for part in _parts(text, option)]
    except ValueError:
        found = [0.0]
    if not all(0 < value <= MOST for value in found):
        raise SpecError(
            f"{option}: expected numbers above 0 and up to {MOST}, such as 100,150.5, got {text!r:.80}; mend the list"
        )
    return tuple(dict.fromkeys(found))


# --- what is written ------------------------------------------------------------------------------------------------


def point_json(point: Point) -> Entry:
    """A point with every figure of its design; `details` stay out."""
    row = point.row
    head: Entry = {"model": row.model, "engine": row.engine, "budget": point.budget, "fifo_depth": point.fifo_depth}
    if row.cost is None:
        return {**head, "reason": row.reason}
    figures: Entry = row.cost.model_dump(mode="json", exclude={"engine", "details", "notes"})
    fronts: list[JsonValue] = list(point.fronts)
    return {**head, **figures, "logic_percent": logic_share(row.cost), "fronts": fronts, "notes": list(row.cost.notes)}


def json_text(points: Sequence[Point]) -> str:
    """All points, unrounded."""
    return json.dumps([point_json(point) for point in points], indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def csv_text(points: Sequence[Point]) -> str:
    """One line per point; a missing number is an empty field."""
    lines = [point_json(point) for point in points]
    columns = list(dict.fromkeys(key for line in lines for key in line))
    file = StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({key: _flat(value) for key, value in line.items()})
    return file.getvalue()


def _flat(value: JsonValue) -> JsonValue:
    return "; ".join(map(str, value)) if isinstance(value, list) else value


def check_output(path: Path) -> None:
    """Pass if a file of this name can be written in the end, before anything is computed.

    Raises:
        SpecError: the suffix names no format.
        PluginUnavailableError: it is a picture and matplotlib is not installed.
    """
    known = (*TEXTS, *PICTURES)
    if path.suffix not in known:
        raise SpecError(f"sweep: expected an output ending in {', '.join(known)}, got {path.name!r}; rename it")
    if path.suffix in PICTURES and find_spec("matplotlib") is None:
        raise PluginUnavailableError("sweep: matplotlib is needed and not installed; run `pip install '.[plots]'`")


def write(points: Sequence[Point], path: Path) -> None:
    """Write the points to a file in the format that its suffix names; equal points, equal bytes.

    Raises:
        SpecError, PluginUnavailableError: as `check_output`; or the file cannot be written.
    """
    check_output(path)
    if path.suffix in PICTURES:
        content: bytes | str = _drawn(points, path.suffix)
    else:
        content = json_text(points) if path.suffix == ".json" else csv_text(points)
    write_output(path, content)


def _drawn(points: Sequence[Point], suffix: str) -> bytes:
    """One panel per resource: latency against it, a colour per engine, lines along the designs no other beats."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A resource that nobody takes tells nothing: weights that all stay on chip need no bandwidth.
    taken = [name for name, size in RESOURCES.items() if any(p.row.cost and size(p.row.cost) for p in points)]
    panels = taken or [*RESOURCES][:1]
    width, height = _PANEL_INCHES
    # The salt fixes the ids that matplotlib would draw at random: equal points then give equal bytes.
    with mpl.rc_context({"svg.hashsalt": "harness", "svg.fonttype": "none"}):
        figure = Figure(figsize=(width * len(panels), height), layout="constrained")
        FigureCanvasAgg(figure)  # draws without a display
        for number, name in enumerate(panels, start=1):
            _panel(figure.add_subplot(1, len(panels), number), points, name)
        # Once for all panels, and beside them: nothing lies over the designs.
        handles = {
            label: each for axes in figure.axes for each, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if handles:
            figure.legend(
                [*handles.values()], [*handles], fontsize="x-small", loc="outside right upper", frameon=False,
                title="hollow:\ndoes not fit", title_fontsize="x-small",
            )  # fmt: skip
        drawn = BytesIO()
        figure.savefig(drawn, format=suffix[1:], metadata=PICTURES[suffix])
    return drawn.getvalue()


def _panel(axes: Axes, points: Sequence[Point], resource: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    known = [
        (point, point.row.cost, taken)
        for point in points
        if point.row.cost is not None and (taken := RESOURCES[resource](point.row.cost)) is not None
    ]
    costed = [(point, cost) for point, cost, _ in known]
    sizes = {id(cost): taken for _, cost, taken in known}

    def size(cost: Cost) -> float:
        return sizes[id(cost)]

    engines = list(dict.fromkeys(_base(point) for point, _ in costed))
    for place, engine in enumerate(engines):
        for fits in (True, False):
            mine = [cost for point, cost in costed if _base(point) == engine and cost.fits is fits]
            axes.scatter(
                [size(cost) for cost in mine],
                [cost.latency_us for cost in mine],
                label=engine if fits else None,
                marker="os^Dv"[place % 5],
                edgecolors=COLOURS[place % len(COLOURS)],
                facecolors=COLOURS[place % len(COLOURS)] if fits else "none",
                s=16,
            )
    for model in dict.fromkeys(point.row.model for point, _ in costed):
        front = [cost for point, cost in costed if resource in point.fronts and point.row.model == model]
        front.sort(key=lambda cost: (size(cost), cost.latency_us))
        # A design of one size is there for all larger ones: between two designs the front is a step.
        places = [size(cost) for cost in front], [cost.latency_us for cost in front]
        axes.plot(*places, color="0.4", linewidth=0.8, zorder=0, drawstyle="steps-post")
        # Every n-th, and always the smallest: labels lie over each other otherwise. Below the front no design lies.
        for cost in front[:: -(-len(front) // _LABELS) or 1]:
            axes.annotate(
                cost.shape, (size(cost), cost.latency_us), xytext=(-3, -3), textcoords="offset points", fontsize=6,
                ha="right", va="top",
            )  # fmt: skip
    unit = f", {UNITS[resource]}" if resource in UNITS else ""
    axes.set(xlabel=f"{resource}{unit}", ylabel="latency, µs")
    if costed:
        # Nothing is read where all weights stay on chip: no logarithm of that.
        axes.set(xscale="log" if all(size(cost) > 0 for _, cost in costed) else "linear", yscale="log")
        low, high = axes.get_xlim()
        # Room for the first labels, which stand before their designs.
        axes.set_xlim(left=low * (low / high) ** 0.25 if axes.get_xscale() == "log" else low - 0.25 * (high - low))
        for axis in (axes.xaxis, axes.yaxis) if axes.get_xscale() == "log" else (axes.yaxis,):
            low, high = axis.get_view_interval()
            # Over many decades their numbers would touch.
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < _FEW_DECADES else (1,)))
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter(NullFormatter())


def _base(point: Point) -> str:
    """The engine without its parameters, so that depths share a colour."""
    return point.row.engine.partition("(")[0]
