"""What `harness hardware list`, `sweep` and `validate` print for people: rows as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from harness.api import Check, CheckKind, Cost, JsonValue
from harness.costing.checks import has_failed
from harness.costing.figures import legend, mark, microseconds, number, yes
from harness.costing.sweep import Point, logic_share
from harness.report import page
from harness.report.formats import DASH, Footnotes
from harness.report.page import Column, Document, Noted, Section, Shown

_PROVES: Mapping[CheckKind, str] = {
    "accept": "the model was not fitted to these figures",
    "arithmetic": "units and bookkeeping, nothing of the model",
    "calibrate": "a parameter was fitted, so the model can hold the point: no proof",
    "report": "shown with its error, nothing to hold",
}

_STYLES = {"failed": "bold red", "held": "green"}


# --- list -----------------------------------------------------------------------------------------------------------

_Entry = Mapping[str, JsonValue]


def list_document(engines: Sequence[_Entry], devices: Sequence[_Entry]) -> Document:
    """What there is: engines with their parameters, devices with the mark of every figure's origin."""
    return Document("", (_engines(engines), _devices(devices)))


def _engines(rows: Sequence[_Entry]) -> Section:
    columns: list[Column[_Entry]] = [
        Column("engine", lambda row: str(row["name"]), kind="label", matters="key"),
        Column("what it is", lambda row: str(row["summary"]), kind="text"),
        Column("parameters", _parameters, kind="text"),
    ]
    return Section("engines", (), page.table(columns, rows))


def _parameters(row: _Entry) -> str:
    names = row["parameters"]
    return ", ".join(names) if isinstance(names, dict) else ""


def _devices(rows: Sequence[_Entry]) -> Section:
    # The union of what devices tell: models of others may have figures that ours have not.
    names = dict.fromkeys(key for row in rows for key in row if key not in ("chip", "family", "device"))
    origins: list[str] = []
    columns: list[Column[_Entry]] = [
        Column("device", _device_name, kind="label", matters="key"),
        *(
            Column(
                name, partial(lambda name, row: _figure(row.get(name), origins), name), short=name.replace("_", "\n")
            )
            for name in names
        ),
    ]
    grid = page.table(columns, rows)
    return Section("devices", (), replace(grid, notes=tuple(filter(None, [legend(origins)]))))


def _device_name(row: _Entry) -> str:
    below = row.get("chip") or row.get("family")  # a board names its chip, a chip its family
    return str(row.get("device")) + (f"\n  {below}" if below else "")


def _figure(value: JsonValue, origins: list[str]) -> str:
    """A figure with its mark; several, by name, one to a line."""
    if value is None:
        return DASH
    if not isinstance(value, dict):
        return str(value)
    if "value" in value and "origin" in value:
        origin = str(value["origin"])
        origins.append(origin)
        return f"{number(value['value']):.10g}{mark(origin)}"
    return "\n".join(f"{_figure(inner, origins)} {name}" for name, inner in value.items())


# --- validate -------------------------------------------------------------------------------------------------------


def check_document(checks: Sequence[Check], caveats: Sequence[str], counts: Mapping[str, int]) -> Document:
    """Every figure of every rule, one table per kind of rule: what each kind proves is its heading."""
    notes = Footnotes()
    columns = _check_columns()
    sections = []
    for kind, proves in _PROVES.items():
        found = [check for check in checks if check.kind == kind]
        if found:
            sections.append(Section(f"{kind}: {proves}", (), page.table(columns, found, footnotes=notes)))
    origins = legend([check.origin or "" for check in checks if check.published is not None])
    sections.append(Section(sentences=tuple(filter(None, [origins, *notes.lines()]))))
    sections += [Section(sentences=(caveat,)) for caveat in caveats]
    sections.append(Section(sentences=(", ".join(f"{count} {word}" for word, count in counts.items()),)))
    return Document("", tuple(sections))


def _check_columns() -> list[Column[Check]]:
    return [
        Column("rule", lambda check: check.id, kind="label", matters="key"),
        Column("figure", _of_what, kind="text"),
        Column("modelled", lambda check: _figures(check.modelled)),
        Column("target", _target),
        Column("unit", lambda check: check.unit, kind="label"),
        Column("error", lambda check: DASH if check.error is None else f"{100 * check.error:+.1f} %"),
        Column("gate", lambda check: check.gate or DASH, kind="text"),
        Column("", outcome, short="outcome", kind="label", style=lambda check: _STYLES.get(outcome(check), "")),
    ]


def _of_what(check: Check) -> Shown:
    return Noted(check.what + (f" · {check.model}" if check.model else ""), _remarks(check))


def _target(check: Check) -> str:
    return _figures(check.published) + (mark(check.origin) if check.origin and check.published is not None else "")


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


_MOST_DESIGNS = 24
"""Designs of a sweep that a screen shows."""


def sweep_document(points: Sequence[Point], *, everything: bool) -> Document:
    """The designs that no other beats, or all of them, the fastest first; engines that cannot run it below."""
    costed = [(point, point.row.cost) for point in points if point.row.cost is not None]
    shown = [(point, cost) for point, cost in costed if everything or point.fronts]
    shown.sort(key=lambda each: (each[1].latency_us, each[1].multipliers))
    best = len(shown)
    shown = shown if everything else shown[:_MOST_DESIGNS]
    columns: list[Column[tuple[Point, Cost]]] = [
        Column("engine", lambda each: each[0].row.engine, kind="label", matters="key"),
        Column("shape", lambda each: each[1].shape, kind="label", matters="key"),
        Column("MHz", lambda each: f"{each[1].clock_mhz:g}{mark(each[1].clock_origin)}"),
        Column("cycles", lambda each: str(each[1].cycles)),
        Column("latency\nµs", lambda each: microseconds(each[1].latency_us)),
        Column("multipliers", lambda each: str(each[1].multipliers)),
        Column("DSP", lambda each: str(each[1].dsp)),
        Column("RAM\n%", lambda each: DASH if each[1].ram_share is None else f"{100 * each[1].ram_share:.1f}"),
        Column(
            "LUT\n%",
            lambda each: DASH if (share := logic_share(each[1])) is None else f"{share:.1f}",
            when=lambda rows: any(logic_share(cost) is not None for _, cost in rows),
        ),
        Column(
            "GB/s",
            lambda each: f"{each[1].bandwidth_gbytes_per_s or 0:.3g}",
            when=lambda rows: any(cost.bandwidth_gbytes_per_s for _, cost in rows),
        ),
        Column("fits", lambda each: yes(each[1].fits)),
        Column("front", lambda each: "".join(name[0] for name in each[0].fronts) or DASH),
    ]
    lines = [
        f"{best} of {len(costed)} designs"
        + ("" if everything else "; the others are beaten, or cannot be built")
        + (f"; the fastest {len(shown)} are shown: --all, or --output for all" if len(shown) < best else ""),
        "front: no other design is both as fast and as small in (m)ultipliers, (R)AM, (D)SP, (L)UT, (b)andwidth; RAM: "
        "the fullest kind, of what may be taken; LUT or ALM: indicative, a dash where an engine's logic is not known",
        *filter(None, [legend([cost.clock_origin for _, cost in shown])]),
        *(f"{point.row.engine} – {point.row.reason}" for point in points if point.row.cost is None),
    ]
    heading = "latency of one time step or item against resources"
    return Document("", (Section(heading, (), page.table(columns, shown, notes=lines)),))
