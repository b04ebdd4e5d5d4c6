"""Everything about one cell, for people."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

KEY_DIGITS = 12
"""Of a stage's key, which are enough to find its folder; --json has all."""


def print_cell(found: Mapping[str, Any], console: "Console") -> None:
    """Print what `harness.inspection.pages.shown` found.

    Args:
        found: its answer.
        console: where to.
    """
    from rich.text import Text

    record = found["record"]
    console.print(Text.assemble((str(found["cell"]), "bold"), f"  {found['title']}"), soft_wrap=True)
    also = f" (also in {', '.join(found['also_in'])})" if found["also_in"] else ""
    rows = [("run", f"{found['run']}{also}"), *_facts(record)]
    rows += [(kind, _part(record, kind)) for kind in ("task", "backend", "pattern", "strategy")]
    rows += [("computed", _computed(record)), ("versions", _pairs(record["versions"], " "))]
    rows += [("code", text) for text in _code(found["code"])]
    rows += [("files", path) for path in found["files"].values()]
    for name, text in rows:
        if text:
            console.print(Text(f"{name:<10} {text}"), soft_wrap=True)
    if found["unknown"]:
        console.print(Text(f"stages are missing here: {found['unknown']}", style="yellow"), soft_wrap=True)
    tables = (_tensors(record), _stages(found["stages"], record), _hardware(record["hardware"]))
    for table in tables:
        if table.row_count:
            console.print()
            console.print(table)


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
    yield (
        "epochs",
        (
            f"{record['total_epochs']}, {record['retrain_epochs']} of them after the first prune; "
            f"{record['trained_epochs']} trained by this run; {record['train_seconds']:.1f} s in all"
        ),
    )


def _part(record: Mapping[str, Any], kind: str) -> str:
    label = str(record[kind])
    parameters = _pairs(record[f"{kind}_params"], "=")
    allocation = f"; allocation {record['allocation']}" if kind == "pattern" and record["pattern_name"] else ""
    return label + (f"  {parameters}" if parameters else "") + allocation


def _computed(record: Mapping[str, Any]) -> str:
    arithmetic = record["facts"].get("arithmetic")
    parts = [record["device"], record["precision"] + (f" ({arithmetic})" if arithmetic else "")]
    parts += [f"threads {record['threads']}"] if record["threads"] else []
    cpu = record["facts"].get("cpu")
    parts += [str(cpu)] if cpu else []
    return ", ".join([*parts, f"seed {record['seed']}"])


def _pairs(values: Mapping[str, Any], between: str) -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in values.items())


def _code(code: Mapping[str, Any]) -> Iterator[str]:
    for place, part in code.items():
        origin = f" ({part['distribution']} {part['version']})" if part.get("distribution") else ""
        yield f"{part['digest']}  {place}{origin}"


def _table(*columns: tuple[str, str]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in columns:
        table.add_column(name, justify="right" if side == "right" else "left")
    return table


def _tensors(record: Mapping[str, Any]) -> "Table":
    table = _table(("tensor", "left"), ("sparsity", "right"))
    for name, sparsity in sorted(record["tensor_sparsity"].items()):
        _add(table, name, f"{sparsity:.4f}")
    return table


def _stages(stages: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> "Table":
    unit = f" ({record['unit']})" if record["unit"] else ""
    table = _table(
        ("stage", "left"), ("key", "left"), ("state", "left"), ("seconds", "right"),
        (f"{record['metric']}{unit}", "right"), ("weights", "left"), ("log", "left"),
    )  # fmt: skip
    for stage in stages:
        value, seconds = stage["value"], stage["seconds"]
        state = f"{stage['state']}, not reproducible" if stage["reproduced"] is False else stage["state"]
        _add(
            table,
            stage["name"],
            stage["stage"][:KEY_DIGITS],
            state,
            "–" if seconds is None else f"{seconds:.1f}",
            "–" if value is None else f"{value:.{record['digits']}f}",
            "kept" if stage["state_kept"] else "–",
            "yes" if stage["log"] else "–",
        )
    return table


def _hardware(costs: Mapping[str, Mapping[str, Any]]) -> "Table":
    table = _table(
        ("hardware (modelled)", "left"), ("shape", "left"), ("cycles", "right"), ("µs", "right"), ("speed-up", "right"),
        ("multipliers", "right"), ("fits", "left"), ("bound by", "left"),
    )  # fmt: skip
    for label, cost in costs.items():
        if "cycles" in cost:
            fits = "yes" if cost["fits"] else "no"
            numbers = (f"{cost['cycles']:,}", f"{cost['latency_us']:.2f}", f"{cost['speedup']:.3g}×")
            _add(table, label, cost["shape"], *numbers, str(cost["multipliers"]), fits, cost["bound_by"])
        else:
            _add(table, label, str(cost.get("reason", "")))
    return table


def _add(table: "Table", *cells: str) -> None:
    from rich.text import Text

    table.add_row(*map(Text, cells))
