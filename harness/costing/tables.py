"""What `harness hardware` prints for people: the rows of costs, sweeps, devices and checks as tables."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.api import Check, CheckKind, Cost, JsonValue
from harness.costing.checks import has_failed
from harness.costing.costs import Load, Report, Row, Stored, clock_ratio, fastest
from harness.costing.sweep import Point
from harness.report.formats import DASH, Footnotes

ORIGINS: Mapping[str, str] = {
    "published": "ᵖ", "read": "ʳ", "measured": "ᵐ", "derived": "ᵈ", "simulated": "ˢ", "recalled": "ᶜ", "assumed": "ᵃ",
    "given": "ᵍ", "modelled": "",
}  # fmt: skip
"""The mark of every origin of a figure; what a model computes has none."""

_MEANINGS: Mapping[str, str] = {
    "read": "read in its source", "recalled": "recalled, not read again", "derived": "derived from figures read",
    "measured": "measured here", "simulated": "simulated here", "assumed": "assumed", "given": "given by you",
    "published": "published",
}  # fmt: skip

_PROVES: Mapping[CheckKind, str] = {
    "accept": "the model was not fitted to these figures",
    "arithmetic": "units and bookkeeping, nothing of the model",
    "calibrate": "a parameter was fitted, so the model can hold the point: no proof",
    "report": "shown with its error, nothing to hold",
}

_WIDEST = 10_000
"""Columns of a table that is being measured."""

_MOST_STORED = 40
"""Matrices whose formats are printed; JSON has all of them."""


@dataclass(frozen=True)
class Titled:
    """A table with its heading, and lines below it."""

    heading: str
    table: Table
    lines: tuple[str, ...] = ()


def mark(origin: str) -> str:
    """The mark of an origin, or of a text that begins with one; an asterisk for any other."""
    return ORIGINS.get(_first(origin), "*" if origin else "")


def legend(origins: Sequence[str]) -> str:
    """What the marks stand for; an origin that has none of its own is told in full."""
    marked = dict.fromkeys(origin for origin in origins if mark(origin))
    return "; ".join(dict.fromkeys(f"{mark(each)} {_MEANINGS.get(_first(each), each)}" for each in marked))


def _first(origin: str) -> str:
    return re.split(r"\W", origin, maxsplit=1)[0]


def show(console: Console, parts: Sequence[Titled | str]) -> None:
    """Print tables and sentences, a blank line between them; a table too wide for the console is never cut."""
    for number, part in enumerate(parts):
        if number:
            console.print()
        if isinstance(part, str):
            console.print(Text(part))
            continue
        console.print(Text(part.heading, style="bold"))
        console.print(part.table, width=max(console.width, _least_width(console, part.table)), crop=False)
        for line in part.lines:
            console.print(Text(line))


def _least_width(console: Console, table: Table) -> int:
    """Columns that a table needs if only the columns that may wrap are broken."""
    for column in table.columns:
        if column.no_wrap:
            cells = [column.header, *column.cells]
            column.min_width = max(Measurement.get(console, console.options, cell).maximum for cell in cells)
    return Measurement.get(console, console.options.update(max_width=_WIDEST), table).minimum


def _table(*columns: str, left: int = 1, wraps: int | None = None) -> Table:
    """A table whose first `left` columns are text; only the column `wraps` is ever broken."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    height = max(column.count("\n") for column in columns)
    for place, column in enumerate(columns):
        table.add_column(
            Text("\n" * (height - column.count("\n")) + column),
            justify="left" if place < left else "right",
            no_wrap=place != wraps,
            overflow="fold",
        )
    return table


def _us(microseconds: float) -> str:
    """A latency; below 10 µs with a digit more."""
    return f"{microseconds:.{2 if microseconds >= 10 else 3}f}"


def _factor(number: float) -> str:
    """A factor; one that two digits would show as nothing is told as small."""
    return "<0.01×" if 0 < number < 0.005 else f"{number:.2f}×"


# --- cost -----------------------------------------------------------------------------------------------------------


def cost_parts(report: Report) -> Iterator[Titled | str]:
    """Everything about the cost of a workload, in the order in which it is read."""
    for model, rows in report.by_model().items():
        yield from _model_parts(rows, model, report.load)
    if report.matrices:
        yield _storage(report.matrices)
    if report.notes:
        yield "\n".join(f"note: {note}" for note in report.notes)


def _model_parts(rows: Sequence[Row], model: str, load: Load) -> Iterator[Titled | str]:
    reference = fastest(rows)
    yield _speeds(rows, model, reference)
    if reference is None or reference.cost is None:
        return
    if load != Load():
        yield _loads(rows, load)
    yield _resources(rows)
    layers = reference.cost.details.get("layers")
    if isinstance(layers, dict) and layers:
        yield _layers(reference, layers)
    warnings: dict[str, list[str]] = {}
    for row in rows:
        for note in row.cost.notes if row.cost else ():
            warnings.setdefault(note, []).append(row.engine)
    if warnings:
        yield "\n".join(f"{', '.join(engines)}: {note}" for note, engines in warnings.items())


def _speeds(rows: Sequence[Row], model: str, reference: Row | None) -> Titled:
    table = _table(
        "engine", "shape", "cycles", "MHz", "latency\nµs", "steps/s", "over\ndense", "over\nown", "fixed\ncycles",
        "clock\nratio", "used\n%", "bound\nby", left=2,
    )  # fmt: skip
    notes = Footnotes()
    for row in rows:
        if row.cost is None:
            table.add_row(Text(row.engine), Text(notes.dash(row.reason)), *[DASH] * 10)
            continue
        cost = row.cost
        ratio = clock_ratio(row, reference)
        table.add_row(
            Text(row.engine + ("" if cost.fits else " ✗")),
            Text(cost.shape),
            ("" if cost.exact else "≈") + str(cost.cycles),
            f"{cost.clock_mhz:g}{mark(cost.clock_origin)}",
            _us(cost.latency_us),
            DASH if cost.steps_per_s is None else f"{cost.steps_per_s:.0f}",
            _factor(cost.speedup),
            DASH if cost.engine_dense_cycles is None else _factor(cost.engine_dense_cycles / cost.cycles),
            DASH if cost.fixed_cycles is None else str(cost.fixed_cycles),
            DASH if ratio is None else f"{ratio:.2f}",
            f"{100 * cost.utilisation:.1f}",
            Text(cost.bound_by),
        )
    return Titled(f"{model}: one time step or item at batch 1", table, (*notes.lines(), *_speed_lines(rows, reference)))


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
    if any(not cost.fits for cost in costs):
        yield "✗ does not fit the device with all weights on chip"
    fixed = [f"{row.engine} {row.cost.fixed_shape}" for row in rows if row.cost and row.cost.fixed_shape]
    if fixed:
        yield f"fixed shapes: {'; '.join(fixed)}"


def _loads(rows: Sequence[Row], load: Load) -> Titled:
    table = _table("engine", "streams", "step, µs", "sequence, µs", "all, µs", "steps/s")
    for row in rows:
        if row.cost is not None:
            table.add_row(
                Text(row.engine),
                str(row.cost.streams),
                _us(row.cost.latency_us),
                _us(load.sequence_us(row.cost)),
                _us(load.total_us(row.cost)),
                f"{load.steps_per_s(row.cost):.0f}",
            )
    inputs = "one input" if load.batch == 1 else f"{load.batch} inputs"
    each = "one step" if load.steps == 1 else f"{load.steps} steps"
    return Titled(f"{inputs} of {each}, one after another or over an engine's streams", table)


def _resources(rows: Sequence[Row]) -> Titled:
    table = _table(
        "engine", "multipliers", "DSP", "RAM blocks", "LUT", "FF", "on chip", "fits", "executed\nGOPS",
        "dense-equiv.\nGOPS", "energy\nµJ",
    )  # fmt: skip
    costs = []
    for row in rows:
        if row.cost is None:
            continue
        cost = row.cost
        costs.append(cost)
        table.add_row(
            Text(row.engine),
            str(cost.multipliers),
            str(cost.dsp),
            f"{cost.ram_blocks} {cost.ram_kind}",
            DASH if cost.lut is None else str(cost.lut),
            DASH if cost.ff is None else str(cost.ff),
            _yes(cost.resident),
            _yes(cost.fits),
            f"{cost.gops:.1f}",
            f"{cost.effective_gops:.1f}",
            DASH if cost.energy_uj is None else f"{cost.energy_uj:.2f}",
        )
    return Titled(f"resources on {_device(costs)}; LUT and FF are indicative", table)


def _device(costs: Sequence[Cost]) -> str:
    found = [cost.details.get("device") for cost in costs]
    names = [str(device.get("id")) for device in found if isinstance(device, dict)]
    return ", ".join(dict.fromkeys(names)) or "the model's device"


def _yes(value: bool | None) -> str:
    return DASH if value is None else "yes" if value else "no"


def _layers(row: Row, layers: Mapping[str, JsonValue]) -> Titled:
    found = {name: layer for name, layer in layers.items() if isinstance(layer, dict)}
    parts: dict[str, None] = {}
    for layer in found.values():
        inside = layer.get("parts")
        if isinstance(inside, dict):
            parts |= dict.fromkeys(name for name, value in inside.items() if value)
    table = _table(
        "layer", "rows", "cols", "non-zeros", "density", "cycles", *(part.replace("_", "\n") for part in parts)
    )
    for name, layer in found.items():
        size, kept = _number(layer.get("rows")) * _number(layer.get("cols")), _number(layer.get("nonzeros"))
        inside = layer.get("parts")
        values = inside if isinstance(inside, dict) else {}
        table.add_row(
            Text(name),
            f"{_number(layer.get('rows')):.0f}",
            f"{_number(layer.get('cols')):.0f}",
            f"{kept:.0f}",
            f"{kept / size:.4f}" if size else DASH,
            f"{_number(layer.get('cycles')):.1f}".removesuffix(".0"),
            *(f"{_number(values.get(part)):.1f}".removesuffix(".0") for part in parts),
        )
    lines = [f"{name}: {note}" for name, layer in found.items() for note in _texts(layer.get("notes"))]
    return Titled(f"layers on {row.engine}: where the cycles go", table, tuple(lines))


def _texts(value: JsonValue) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else []


def _number(value: JsonValue) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _storage(matrices: Sequence[Stored]) -> Titled:
    shown = matrices[:_MOST_STORED]
    names = [size.name for size in shown[0].formats]
    table = _table("matrix", "density", "best", "best, bits", *(name.replace("_", "\n") for name in names), left=1)
    notes = Footnotes()
    for matrix in shown:
        cells = [
            notes.dash(f"{size.name}: {size.reason}") if size.fraction is None else f"{size.fraction:.3f}"
            for size in matrix.formats
        ]
        density = matrix.nnz / (matrix.rows * matrix.cols)
        table.add_row(Text(matrix.tensor), f"{density:.4f}", matrix.best.name, str(matrix.best.bits), *cells)
    lines = notes.lines()
    if len(matrices) > len(shown):
        lines.append(f"and {len(matrices) - len(shown)} more matrices; `--json` has all")
    return Titled("storage: bits in every format, as a fraction of the dense bits", table, tuple(lines))


# --- list -----------------------------------------------------------------------------------------------------------


def engine_table(rows: Sequence[Mapping[str, JsonValue]]) -> Titled:
    """Engines by name with what they are and which parameters they take."""
    table = Table("engine", "what it is", "parameters", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        names = row["parameters"]
        parameters = ", ".join(names) if isinstance(names, dict) else ""
        table.add_row(Text(str(row["name"])), Text(str(row["summary"])), Text(parameters))
    return Titled("engines", table)


def device_table(rows: Sequence[Mapping[str, JsonValue]]) -> Titled:
    """Devices, every figure with the mark of its origin."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("chip", "family")))
    table = _table(*(column.replace("_", "\n") for column in columns), left=len(columns))
    origins: list[str] = []
    for row in rows:
        cells = [_figure(row.get(column), origins) for column in columns]
        below = row.get("chip") or row.get("family")  # a board names its chip, a chip its family
        table.add_row(Text(cells[0] + (f"\n  {below}" if below else "")), *map(Text, cells[1:]))
    return Titled("devices", table, tuple(filter(None, [legend(origins)])))


def _figure(value: JsonValue, origins: list[str]) -> str:
    """A figure with its mark; several, by name, one to a line."""
    if value is None:
        return DASH
    if not isinstance(value, dict):
        return str(value)
    if "value" in value and "origin" in value:
        origin = str(value["origin"])
        origins.append(origin)
        return f"{_number(value['value']):.10g}{mark(origin)}"
    return "\n".join(f"{_figure(inner, origins)} {name}" for name, inner in value.items())


# --- validate -------------------------------------------------------------------------------------------------------


def check_parts(checks: Sequence[Check]) -> Iterator[Titled | str]:
    """Every figure of every rule, one table per kind of rule: what each kind proves is its heading."""
    notes = Footnotes()
    for kind, proves in _PROVES.items():
        found = [check for check in checks if check.kind == kind]
        if found:
            yield Titled(f"{kind}: {proves}", _checks(found, notes))
    origins = legend([check.origin or "" for check in checks if check.published is not None])
    yield "\n".join(filter(None, [origins, *notes.lines()]))


def _checks(checks: Sequence[Check], notes: Footnotes) -> Table:
    table = _table("rule", "figure", "modelled", "target", "unit", "error", "gate", "", left=2, wraps=1)
    for check in checks:
        remarks = _remarks(check)
        table.add_row(
            Text(check.id),
            Text(f"{check.what}{f' · {check.model}' if check.model else ''}{notes.mark(remarks) if remarks else ''}"),
            _figures(check.modelled),
            _figures(check.published) + (mark(check.origin) if check.origin and check.published is not None else ""),
            Text(check.unit),
            DASH if check.error is None else f"{100 * check.error:+.1f} %",
            Text("\n".join(textwrap.wrap(check.gate, 22)) or DASH),
            Text(outcome(check), style={"failed": "bold red", "held": "green"}.get(outcome(check), "")),
        )
    return table


def outcome(check: Check) -> str:
    """`held`, `failed`, or `reported` where there is nothing to hold."""
    if has_failed(check):
        return "failed"
    return "reported" if check.passed is None else "held"


def _remarks(check: Check) -> str:
    fitted = ", ".join(f"{name} = {value:g}" for name, value in check.parameters.items())
    return "; ".join(filter(None, [f"fitted: {fitted}" if fitted else "", check.note]))


def _figures(value: float | None) -> str:
    return DASH if value is None else f"{value:.6g}"


# --- sweep ----------------------------------------------------------------------------------------------------------


def sweep_table(points: Sequence[Point], *, everything: bool) -> Titled:
    """The designs that no other beats, or all of them, the fastest first; engines that cannot run it below."""
    table = _table(
        "engine", "shape", "MHz", "cycles", "latency\nµs", "multipliers", "DSP", "RAM\nblocks", "fits", "front", left=2
    )
    costed = [(point, point.row.cost) for point in points if point.row.cost is not None]
    shown = [(point, cost) for point, cost in costed if everything or point.fronts]
    shown.sort(key=lambda each: (each[1].latency_us, each[1].multipliers))
    for point, cost in shown:
        table.add_row(
            Text(point.row.engine),
            Text(cost.shape),
            f"{cost.clock_mhz:g}{mark(cost.clock_origin)}",
            str(cost.cycles),
            _us(cost.latency_us),
            str(cost.multipliers),
            str(cost.dsp),
            str(cost.ram_blocks),
            _yes(cost.fits),
            "".join(name[0] for name in point.fronts) or DASH,
        )
    lines = [
        f"{len(shown)} of {len(costed)} designs"
        + ("" if everything else "; the others are beaten, or cannot be built"),
        "front: no other design is both as fast and as small in (m)ultipliers, (R)AM blocks, (D)SP",
        *filter(None, [legend([cost.clock_origin for _, cost in shown])]),
        *(f"{point.row.engine} – {point.row.reason}" for point in points if point.row.cost is None),
    ]
    return Titled("latency of one time step or item against resources", table, tuple(lines))
