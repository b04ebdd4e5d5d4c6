"""Everything about one cell, for people."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness._text import plural
from harness.spec.goal import quantity

if TYPE_CHECKING:
    from harness.api import Mask
    from harness.report.charts import Chart
    from harness.report.page import Column, Document, Grid

KEY_DIGITS = 12
"""Of a stage's key, which are enough to find its folder; --json has all."""


def cell_document(
    found: Mapping[str, Any], *, titled: bool = False, masks: "Mapping[str, Mask] | None" = None
) -> "Document":
    """What `harness.inspection.pages.shown` found, in order: facts, tensors, stages, costs.

    Args:
        found: of one cell.
        titled: for a page: with the training curve, and a heading for every part.
        masks: of the finished model, which a page draws.
    """
    from harness.report.page import Document, Section
    from harness.report.pictures.masks import spy

    record = found["record"]
    also = f" (also in {', '.join(found['also_in'])})" if found["also_in"] else ""
    rows = [("run", f"{found['run']}{also}"), *_facts(record)]
    rows += [(kind, _part(record, kind)) for kind in ("task", "backend", "pattern", "strategy")]
    rows += [("model", found["model"]), ("optimiser", found["optimiser"])]
    rows += [("recipe", f"{number}. {line}") for number, line in enumerate(found["recipe"], start=1)]
    rows += [("data", _data(record["facts"]))]
    rows += [("computed", _computed(record)), ("versions", _pairs(record["versions"], " "))]
    rows += [("code", text) for text in _code(found["code"])]
    rows += [(f"{what} in", path) for what, path in found["files"].items()]
    warnings = (f"stages are missing here: {found['unknown']}",) if found["unknown"] else ()
    facts = tuple((name, text) for name, text in rows if text)
    head = Section(f"{found['cell']}  {found['title']}", facts=facts, warnings=warnings)
    grids = (_tensors(record), _stages(found["stages"], record), _hardware(record["hardware"]))
    headings = ("Tensors", "Stages", "Hardware")
    parts = [(name if titled else "", grid) for name, grid in zip(headings, grids, strict=True) if grid.rows]
    drawn = [Section("Training", charts=(_training(record),))] if titled and record["valid_history"] else []
    drawn += [Section("Masks", charts=(spy(masks, "Masks of the finished model"),))] if masks else []
    loads = _loads(record) if titled and record["value"] is not None else None
    drawn += [Section("Load", charts=(loads,))] if loads is not None and loads.panels else []
    return Document("", (head, *drawn, *(Section(name, grid=grid) for name, grid in parts)))


def _loads(record: Mapping[str, Any]) -> "Chart":
    """How evenly the cell's fastest engine is loaded."""
    from harness.report.pictures.cost import load
    from harness.report.tables import tables
    from harness.results.records import Record

    [table] = tables([Record.model_validate(record)])
    return load(table)


def _training(record: Mapping[str, Any]) -> "Chart":
    """The validation metric after every epoch, as it stands in the record."""
    from harness.report.charts import Chart, Panel, Point, Series, Style
    from harness.report.pictures.training import in_sentences, prunings_of
    from harness.results.records import Record

    unit = f", {record['unit']}" if record["unit"] else ""
    values = [(epoch, value) for epoch, value in enumerate(record["valid_history"], start=1) if value is not None]
    digits = record["digits"]
    points = tuple(Point(float(epoch), value, name=f"epoch {epoch}: {value:.{digits}f}") for epoch, value in values)
    events, strokes = prunings_of([Record.model_validate(record)])
    style = Style(0, f"{record['pattern']}, {record['strategy']}, seed {record['seed']}")
    panel = Panel("", (Series(style.name, points, style, style),), events=events, strokes=strokes)
    y = f"{record['metric'] or 'value'}{unit} (valid)"
    about = ("On the validation split after every trained epoch.", *in_sentences([panel]))
    return Chart("training", "Training curve", "trained epochs", y, (panel,), about)


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "status", f"{record['status']}: {record['reason']}" if record["reason"] else str(record["status"])
    digits, unit = record["digits"], f" {record['unit']}" if record["unit"] else ""
    told = [
        (record["value"], f"on {record['split']}"),
        (record["valid_value"], "on valid after the last epoch"),
        (record["value_before_retraining"], "on valid right after the last prune"),
    ]
    values = [f"{value:.{digits}f}{unit} {words}" for value, words in told if value is not None]
    yield (
        record["metric"] or "value",
        f"{', '.join(values)} ({record['better']} is better, measured)" if values else "",
    )
    if record["sparsity"] is not None:
        yield (
            "sparsity",
            (
                f"{record['target_sparsity']:g} asked, {record['sparsity']:.4f} reached over "
                f"{', '.join(record['scope'])}, {record['model_sparsity']:.4f} of the whole model"
            ),
        )
    yield from (("target", _target(each)) for each in record["facts"].get("targets", ()))
    yield (
        "epochs",
        (
            f"{record['total_epochs']}{_after_prune(record)}; {_updates(record)}"
            f"{record['trained_epochs']} trained by this run; {record['train_seconds']:.1f} s in all"
            f"{_of_processor(record)}"
        ),
    )


def _of_processor(record: Mapping[str, Any]) -> str:
    seconds = record["train_processor_seconds"]
    return "" if seconds is None else f", {seconds:.1f} s of processor time"


def _target(told: Mapping[str, Any]) -> str:
    """What a sparsity was solved for."""
    if told.get("reason"):
        return f"not reached: {told['reason']}"
    by = f" by {told['engine']}" if told.get("engine") else ""
    by += "" if told.get("fits", True) else ", which does not fit its device,"
    return (
        f"{told['target']}: {quantity(told['target'], told['value'])}{by} on masks of random weights, before training"
    )


def _after_prune(record: Mapping[str, Any]) -> str:
    return f", {record['retrain_epochs']} of them after the first prune" if record["retrain_epochs"] else ""


def _updates(record: Mapping[str, Any]) -> str:
    count = record.get("mask_updates")
    if not count:  # a dense cell, or a record of before they were counted
        return ""
    note = f" ({record['facts']['warning']})" if "warning" in record["facts"] else ""
    return f"{plural(count, 'mask update')}{note}; "


def _part(record: Mapping[str, Any], kind: str) -> str:
    label = str(record[kind])
    # What is left open has nothing to tell: what was really done stands in the recipe.
    parameters = _pairs({k: v for k, v in record[f"{kind}_params"].items() if v is not None}, "=")
    allocation = f"; allocation {record['allocation']}" if kind == "pattern" and record["pattern_name"] else ""
    return label + (f"  {parameters}" if parameters else "") + allocation


def _computed(record: Mapping[str, Any]) -> str:
    arithmetic = record["facts"].get("arithmetic")
    parts = [record["device"], record["precision"] + (f" ({arithmetic})" if arithmetic else "")]
    parts += [f"threads {record['threads']}"] if record["threads"] else []
    cpu = record["facts"].get("cpu")
    parts += [str(cpu)] if cpu else []
    return ", ".join([*parts, f"seed {record['seed']}"])


def _data(facts: Mapping[str, Any]) -> str:
    """What the task says of its data."""
    from harness.results.records import OF_A_CELL

    return _pairs({name: value for name, value in facts.items() if name not in OF_A_CELL}, " ")


def _pairs(values: Mapping[str, Any], between: str) -> str:
    return ", ".join(f"{name}{between}{_plain(value)}" for name, value in values.items())


def _plain(value: Any) -> str:  # any JSON value
    if isinstance(value, dict):
        return f"({_pairs(value, ' ')})"
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return {True: "yes", False: "no", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)


def _code(code: Mapping[str, Any]) -> Iterator[str]:
    for place, part in code.items():
        origin = f" ({part['distribution']} {part['version']})" if part.get("distribution") else ""
        yield f"{part['digest']}  {place}{origin}"


def _tensors(record: Mapping[str, Any]) -> "Grid":
    from harness.report.page import Column, table

    columns: list[Column[tuple[str, float]]] = [
        Column("tensor", lambda each: each[0], kind="label", matters="key"),
        Column("sparsity", lambda each: f"{each[1]:.4f}"),
    ]
    for width, stored in record.get("storage", {}).items():
        columns += _stored(width, stored["tensors"])
    return table(columns, sorted(record["tensor_sparsity"].items()))


def _stored(width: str, tensors: Mapping[str, Any]) -> "Iterator[Column[tuple[str, float]]]":
    """Bits of each tensor in the storage format that is smallest for its mask, and which that is."""
    from harness.report.page import Column

    def told(each: tuple[str, float], what: str) -> str:
        found = tensors.get(each[0], {}).get(what, "–")
        return f"{found:,}" if isinstance(found, int) else str(found)

    yield Column(f"bits (w{width})", lambda each: told(each, "bits"))
    yield Column("stored as", lambda each: told(each, "format"), kind="label")


def _stages(stages: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> "Grid":
    from harness.report.page import Column, table

    def state(stage: Mapping[str, Any]) -> str:
        return f"{stage['state']}, not reproducible" if stage["reproduced"] is False else str(stage["state"])

    def number(name: str, digits: int) -> "Callable[[Mapping[str, Any]], str]":
        return lambda stage: "–" if stage[name] is None else f"{stage[name]:.{digits}f}"

    def value(stage: Mapping[str, Any]) -> str:
        return "not finite" if stage["not_finite"] else number("value", record["digits"])(stage)

    unit = f" ({record['unit']})" if record["unit"] else ""
    columns: list[Column[Mapping[str, Any]]] = [
        Column("stage", lambda stage: str(stage["name"]), kind="label", matters="key"),
        Column("key", lambda stage: str(stage["stage"])[:KEY_DIGITS], kind="label"),
        Column("state", state, kind="label"),
        Column("seconds", number("seconds", 1)),
        Column(f"{record['metric'] or 'value'}{unit}", value),
        Column("weights", lambda stage: "kept" if stage["state_kept"] else "–", kind="label"),
        Column("log", lambda stage: "yes" if stage["log"] else "–", kind="label"),
    ]
    return table(columns, stages)


def _hardware(costs: Mapping[str, Mapping[str, Any]]) -> "Grid":
    from harness.report import formats
    from harness.report.page import Column, Shown, missing, table

    def figure(header: str, shown: "Callable[[Mapping[str, Any]], str]", **options: Any) -> "Column[Any]":
        return Column(header, lambda each: shown(each[1]) if "cycles" in each[1] else "–", **options)

    def shape(each: tuple[str, Mapping[str, Any]]) -> Shown:
        return str(each[1]["shape"]) if "cycles" in each[1] else missing(str(each[1].get("reason", "")))

    columns = [
        Column("hardware (modelled)", lambda each: each[0], kind="label", matters="key"),
        Column("shape", shape, kind="label"),
        figure("cycles", lambda cost: f"{cost['cycles']:,}"),
        figure("µs", lambda cost: f"{cost['latency_us']:.2f}"),
        figure("speed-up", lambda cost: formats.speedup(cost["speedup"])),
        figure("multipliers", lambda cost: str(cost["multipliers"])),
        figure("fits", lambda cost: "yes" if cost["fits"] else "no", kind="label"),
        figure("bound by", lambda cost: str(cost["bound_by"]), kind="label"),
    ]
    return table(columns, list(costs.items()))
