"""The strategies side by side, as the original study did: accuracy, development cost, ease of use."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.report.rows import Row, Table
from harness.results.statistics import interval

# What two strategies have to share for their differences to dense to be comparable: all but the strategy itself.
_Cell = tuple[str, str, str, int]


@dataclass(frozen=True)
class Accuracy:
    """The mean difference to dense over the cells that every compared strategy has finished.

    Args:
        uneven: whether some of them kept clearly more or fewer weights than others at this sparsity.
    """

    mean: float
    cells: int
    uneven: bool = False


@dataclass(frozen=True)
class StrategyRow:
    """One strategy over all patterns, backends and seeds.

    Args:
        planned, done: cells.
        accuracy: by target sparsity; None where nothing can be compared.
        epochs: fewest and most epochs to a pruned model from initial weights.
        epochs_with_dense: the same with a trained dense model at hand.
        rewinds_to: epochs of the dense training whose states are needed as well, or nothing is saved.
        hyper_parameters: names of the choices beyond the dense recipe.
    """

    strategy: str
    planned: int
    done: int
    accuracy: dict[float, Accuracy | None]
    epochs: tuple[int, int]
    epochs_with_dense: tuple[int, int]
    rewinds_to: tuple[int, ...]
    hyper_parameters: tuple[str, ...]


def strategies(table: Table) -> tuple[StrategyRow, ...]:
    """The strategies of a table, in the order of the plan; the dense baseline is not one of them."""
    rows: dict[str, list[Row]] = {}
    for row in table.rows:
        if not row.setting.is_dense:
            rows.setdefault(row.setting.strategy, []).append(row)
    levels = sorted({row.setting.target_sparsity for row in table.rows if row.setting.is_pruned})
    by_level = {level: _accuracies(table, level) for level in levels}
    return tuple(
        _strategy_row(strategy, group, {level: by_level[level].get(strategy) for level in levels})
        for strategy, group in rows.items()
    )


def _strategy_row(strategy: str, rows: list[Row], accuracy: dict[float, Accuracy | None]) -> StrategyRow:
    records = [record for row in rows for record in row.records]
    trained = [record for record in records if record.status != "skipped"]  # the others have no epochs at all
    return StrategyRow(
        strategy=strategy,
        planned=sum(row.planned for row in rows),
        done=sum(row.done for row in rows),
        accuracy=accuracy,
        epochs=_range(record.total_epochs for record in trained),
        # With a dense model at hand only what follows its training is left; other strategies gain nothing from it.
        epochs_with_dense=_range(r.retrain_epochs if r.needs_dense_model else r.total_epochs for r in trained),
        rewinds_to=tuple(sorted({epoch for record in trained for epoch in record.rewinds_to})),
        hyper_parameters=tuple(dict.fromkeys(name for record in records for name in record.hyper_parameters)),
    )


def _range(values: Iterable[int]) -> tuple[int, int]:
    listed = list(values) or [0]
    return min(listed), max(listed)


def _accuracies(table: Table, level: float) -> dict[str, Accuracy]:
    """Mean difference to dense by strategy, over the cells common to all strategies that finished any at this level."""
    dense = {row.setting.backend: row.values for row in table.rows if row.setting.is_dense}
    differences: dict[str, dict[_Cell, float]] = {}
    for row in table.rows:
        setting = row.setting
        if setting.is_dense or setting.target_sparsity != level:
            continue
        baseline = dense.get(setting.backend, {})
        # Paired by seed, as every other difference.
        for seed, value in row.values.items():
            if seed in baseline:
                cell = (setting.backend, setting.pattern, setting.allocation, seed)
                differences.setdefault(setting.strategy, {})[cell] = value - baseline[seed]
    apart = {row.setting.strategy for row in table.rows if row.uneven and row.setting.target_sparsity == level}
    # Common to all strategies: a strategy that failed on the hard patterns must not look better for it.
    common = set.intersection(*(set(cells) for cells in differences.values())) if differences else set()
    if not common:
        return {}
    return {
        strategy: Accuracy(interval([cells[cell] for cell in sorted(common)]).mean, len(common), strategy in apart)
        for strategy, cells in differences.items()
    }
