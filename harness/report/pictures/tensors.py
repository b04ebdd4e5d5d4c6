"""How sparse every tensor is, and the metric against that."""

from collections.abc import Mapping, Sequence

from harness.report import formats
from harness.report.charts import Chart, Panel, Point, Series, Style
from harness.report.pictures.subjects import (
    MOST_LINES,
    by_panel,
    in_words,
    metric_of,
    pattern_of,
    patterns_of,
    pruned,
    strategy_of,
)
from harness.report.rows import Row, Table

_MOST_TENSORS = 9
"""Panels of the metric against each tensor's sparsity."""

_MOST_POINTS = 3000
"""Of all these panels together, beyond which there are fewer: every setting is in each of them."""

_SENSITIVE = 0.05
"""Sparsities of a tensor, or of a row's tensors, that differ by no more say nothing of what depends on them."""

_LEVEL_SPREAD = 0.005
"""Sparsities of a row's tensors that differ by less are one sparsity, and no picture."""


def tensors(table: Table) -> Chart:
    """The sparsity of every tensor, where a row's tensors differ."""
    styles, panels = patterns_of(table), []
    levels = sorted({row.setting.target_sparsity for row in pruned(table)})
    dashes = {level: Style(place, formats.level(level)) for place, level in enumerate(levels)}
    for title, rows in by_panel(table).items():
        uneven = [row for row in rows if row.tensors and _spread(row.tensors) > _LEVEL_SPREAD]
        # In the order of the first row: tensors of a model have one.
        names = tuple(dict.fromkeys(name for row in uneven for name in row.tensors))
        series = [
            Series(
                f"{pattern_of(row, table)}, {formats.level(row.setting.target_sparsity)}",
                tuple(
                    Point(float(names.index(name)), 100 * sparsity, None, f"{name}: {100 * sparsity:.1f} %")
                    for name, sparsity in row.tensors.items()
                ),
                styles[pattern_of(row, table)],
                styles[pattern_of(row, table)],
                dashes[row.setting.target_sparsity] if len(levels) > 1 else None,
            )
            for row in uneven[:MOST_LINES]
        ]
        if series:
            panels.append(Panel(title, tuple(series), names=names))
    return Chart(
        "tensors",
        f"{table.task}: sparsity of every tensor",
        "",
        "sparsity, %",
        tuple(panels),
        ("Counted on masks, mean over seeds; rows whose tensors are all equally sparse are left out.",),
    )


def sensitivity(table: Table) -> Chart:
    """The metric against the sparsity of each tensor, where rows prune tensors differently."""
    styles = patterns_of(table)
    rows = [row for row in pruned(table) if row.value is not None]
    strategies = {name: Style(place, name) for place, name in enumerate(dict.fromkeys(map(strategy_of, rows)))}
    is_one_sparsity = all(_spread(row.tensors) <= _SENSITIVE for row in rows if row.tensors)
    found: dict[str, list[float]] = {}
    for name, sparsity in (item for row in rows for item in row.tensors.items()):
        found.setdefault(name, []).append(sparsity)
    # Where all tensors are equally sparse, this is the metric against sparsity, which has a picture.
    ranges = {} if is_one_sparsity else {name: max(each) - min(each) for name, each in found.items()}
    # By how much they differ, but shown by name: readers look for a tensor.
    widest = sorted((name for name, each in ranges.items() if each > _SENSITIVE), key=lambda name: -ranges[name])
    most = max(1, min(_MOST_TENSORS, _MOST_POINTS // max(1, len(rows))))
    panels = [Panel(name, _against_tensor(table, rows, name, (styles, strategies))) for name in sorted(widest[:most])]
    about = [
        "Every point is a setting, mean over seeds, at the sparsity that its mask has in this tensor. A setting prunes "
        "all tensors of the scope together unless its allocation names them: what moves the metric may be another."
    ]
    if len(widest) > most:
        about.append(f"Of {len(widest)} tensors, the {most} whose sparsity varies most between settings.")
    return Chart(
        "sensitivity",
        f"{table.task}: {table.metric} against the sparsity of each tensor",
        "sparsity of the tensor, %",
        f"{metric_of(table)} (test)",
        tuple(panels),
        tuple(about),
    )


def _against_tensor(
    table: Table, rows: Sequence[Row], name: str, styles: tuple[Mapping[str, Style], Mapping[str, Style]]
) -> tuple[Series, ...]:
    """Every pattern and strategy, from the lowest sparsity of the tensor to the highest."""
    groups: dict[tuple[str, str], list[Point]] = {}
    for row in rows:
        if row.value is None or name not in row.tensors:
            continue
        sparsity = 100 * row.tensors[name]
        text = f"{formats.value(row.value, table.digits)} with {sparsity:.1f} % of {name} pruned"
        point = Point(sparsity, row.value.mean, row.value.half, in_words(row, table, text))
        groups.setdefault((pattern_of(row, table), strategy_of(row)), []).append(point)
    patterns, strategies = styles
    return tuple(
        # From the sparsest to the densest, so that the line does not go back.
        Series(f"{pattern}, {strategy}", tuple(sorted(points)), patterns[pattern], strategies[strategy])
        for (pattern, strategy), points in groups.items()
    )


def _spread(tensors: Mapping[str, float]) -> float:
    return max(tensors.values()) - min(tensors.values())
