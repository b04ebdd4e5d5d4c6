"""Checks of how models were trained: a study of badly trained ones says little about pruning."""

from collections.abc import Iterator

from harness._text import plural
from harness.report import formats
from harness.report.checks.check import Study, Warned, named, records_of
from harness.results.records import Record

_IMPROVES = 0.01
"""Part of the metric by which the end of a dense training may still improve on what came before."""

_LAST = 4
"""The end of a training is its last quarter."""

_WORSE = 0.02
"""Published runs of one recipe differ by about 1.5 %; what is worse by more has a mistake until shown otherwise."""

_NEARLY_ALL, _ENOUGH = 0.8, 4
"""Part, and number, of pruned settings that better a dense model which was trained to its end only by chance."""

_SMALL_RATE = 100
"""How far below its start a learning rate may lie for weights still to move."""

_FEW = 5
"""Mask updates below which a schedule is closer to a one-shot prune than to what it is called."""


@named(
    "SPN001",
    "warning",
    "dense model still improving at its end",
    remedy="train the dense model for more epochs",
    applies=lambda study: any(record.is_dense and record.valid_history for record in study.done),
)
def still_improving(study: Study) -> Warned:
    """The dense training was stopped before its end: pruned models that train on gain from that, not from pruning."""
    found = []
    for record in study.done:
        values = [value for value in record.valid_history if value is not None]
        if not record.is_dense or not values:
            continue
        best = min if record.better == "lower" else max
        last = max(1, len(values) // _LAST)
        before = best(values[:-last], default=None)
        # After one epoch there is nothing before the end: infinitely much may be left.
        gain = float("inf") if before is None else abs(best(values) - before) / max(abs(before), 1e-12)
        if gain > _IMPROVES:
            found.append((gain, record, before, best(values), last))
    if found:
        gain, record, before, after, last = max(found, key=lambda each: each[0])
        digits = record.digits
        yield (
            f"dense {record.metric} was trained for 1 epoch only" if before is None
            else f"dense {record.metric} still went from {before:.{digits}f} to {after:.{digits}f} in the last "
            f"{plural(last, 'epoch')} of {record.total_epochs}"
        ), [record for _, record, *_ in found]  # fmt: skip


@named(
    "SPN002",
    "error",
    "dense model worse than a known reference",
    remedy="find out why before pruning anything: data, recipe, learning rate, length of the training",
    applies=lambda study: any(record.is_dense and _references(record) for record in study.done),
)
def worse_than_known(study: Study) -> Warned:
    """The dense model is worse than what is published for it, or than a model that only counts words or classes."""
    for table in study.tables:
        for row in (row for row in table.rows if row.setting.is_dense and row.value is not None):
            done = [record for record in row.records if record.is_done]
            value = row.value.mean if row.value else 0.0
            for reference, what, slack in _references(done[0]):
                # A published value may be missed a little; counting words has to be beaten.
                allowed = reference * (1 + slack if table.better == "lower" else 1 - slack)
                if value > allowed if table.better == "lower" else value < allowed:
                    digits = table.digits
                    yield f"dense {table.metric} {value:.{digits}f} against {reference:.{digits}f} {what}", done


def _references(record: Record) -> Iterator[tuple[float, str, float]]:
    """(value, where it comes from, the part by which one may be worse) of every reference that a record knows."""
    published = record.facts.get(f"published_dense_test_{record.metric}")
    if isinstance(published, int | float):
        yield float(published), "as published", _WORSE
    counted = record.facts.get(f"without_a_model_{record.metric}")
    if isinstance(counted, int | float):
        yield float(counted), "of a model that only counts", -_WORSE


@named(
    "SPN003",
    "warning",
    "pruned better than dense nearly everywhere",
    remedy="give the dense baseline the same epochs and a regularisation of its own; until then compare patterns with "
    "one another, not with dense",
    applies=lambda study: sum(row.to_dense is not None for row in study.pruned) >= _ENOUGH,
)
def better_than_dense(study: Study) -> Warned:
    """Pruning helps nearly everywhere: the dense model is the weak one, overfitted or trained too briefly."""
    for table in study.tables:
        rows = [row for row in table.rows if row.to_dense is not None]
        sign = -1 if table.better == "lower" else 1
        # By the sign of the mean alone: a tendency everywhere is the finding, not any single difference.
        better = [row for row in rows if row.to_dense and sign * row.to_dense.difference.mean > 0]
        if len(rows) >= _ENOUGH and len(better) >= _NEARLY_ALL * len(rows):
            yield f"{len(better)} of {len(rows)} pruned settings better the dense model", records_of(better)


@named(
    "SPN004",
    "warning",
    "retraining rate below 1/100 of the start",
    remedy="give the strategy a learning rate of its own, e.g. {name: fine_tuning, lr: 0.03}",
    applies=lambda study: any(record.retrain_rate is not None for record in study.records),
    is_beforehand=True,
)
def tiny_rate(study: Study) -> Warned:
    """A retraining whose learning rate hardly moves a weight says nothing of what retraining can repair."""
    found: dict[str, list[Record]] = {}
    for record in study.records:
        start, rate = record.start_rate, record.retrain_rate
        # Compared without dividing: a rate of zero is as far below as any.
        if start is not None and rate is not None and rate * _SMALL_RATE < start:
            found.setdefault(record.strategy, []).append(record)
    for strategy, records in found.items():
        start, rate = records[0].start_rate or 0.0, records[0].retrain_rate or 0.0
        part = f"1/{start / rate:.0f} of the" if rate else "and not at the"
        yield f"{strategy} retrains at a rate of {rate:.3g}, {part} {start:.3g} it began with", records


@named(
    "SPN005",
    "note",
    "unequal budgets in one comparison",
    remedy="give the strategies equal numbers of epochs, or compare patterns within a strategy only",
    applies=lambda study: any(
        len({row.setting.strategy for row in table.rows if not row.setting.is_dense}) > 1 for table in study.tables
    ),
    is_beforehand=True,
)
def unequal_budgets(study: Study) -> Warned:
    """Strategies of different length are compared: the longer one may win by its length."""
    for table in study.tables:
        rows = [row for row in table.rows if not row.setting.is_dense and row.total_epochs]
        by_strategy = {row.setting.strategy: row.total_epochs for row in rows}
        fewest, most = min(by_strategy.values(), default=0), max(by_strategy.values(), default=0)
        if fewest != most:
            short = next(name for name, epochs in by_strategy.items() if epochs == fewest)
            long = next(name for name, epochs in by_strategy.items() if epochs == most)
            yield f"{short} has {fewest} epochs in all, {long} {most}", records_of(rows)


@named(
    "SPN006",
    "warning",
    "fewer than five mask updates in a gradual strategy",
    remedy="prune more often (a smaller `every`, a longer span), or use a one-shot strategy",
    applies=lambda study: any(record.gradual_updates for record in study.records),
    is_beforehand=True,
)
def hardly_gradual(study: Study) -> Warned:
    """A gradual schedule of one or two mask updates is a one-shot prune by another name."""
    found: dict[str, list[Record]] = {}
    for record in study.records:
        if record.gradual_updates and record.gradual_updates < _FEW:
            found.setdefault(record.strategy, []).append(record)
    for strategy, records in found.items():
        fewest = min(record.gradual_updates or 0 for record in records)
        yield f"{strategy} makes {plural(fewest, 'mask update')} in its training: hardly gradual", records


_PART = 0.25


@named(
    "SPN010",
    "warning",
    "asked sparsity small against the whole model",
    remedy="widen `scope`, or say of every sparsity which part of the model it is of",
    applies=lambda study: any(row.sparsity and row.model_sparsity is not None for row in study.pruned),
)
def small_part(study: Study) -> Warned:
    """What is pruned is a small part of the model: the sparsity that was asked for is not that of the model."""
    for table in study.tables:
        rows = [
            row for row in table.rows
            if row.sparsity and row.model_sparsity is not None and row.model_sparsity < _PART * row.sparsity
        ]  # fmt: skip
        if rows:
            row = max(rows, key=lambda each: each.setting.target_sparsity)
            of = f" of {' + '.join(table.scope)}" if table.scope else " of the scope"
            whole = 100 * (row.model_sparsity or 0.0)
            yield (
                f"{formats.level(row.setting.target_sparsity)}{of} is {whole:.1f} % of the model's weights",
                records_of(rows),
            )


@named(
    "SPN021",
    "error",
    "validation and test data are the same",
    remedy="hold out a test split that neither training nor any choice has seen",
    applies=lambda study: sum(r.value is not None and r.valid_value is not None for r in study.done) >= _ENOUGH,
)
def same_split(study: Study) -> Warned:
    """Validation and test give equal values in every cell: one of the two is the other, and nothing was held out."""
    for task in dict.fromkeys(record.task for record in study.done):
        both = [r for r in study.done if r.task == task and r.value is not None and r.valid_value is not None]
        # Equality in every cell by chance is out of the question from four cells on.
        if len(both) >= _ENOUGH and all(record.value == record.valid_value for record in both):
            yield f"{task}: test and validation agree to the last digit in {plural(len(both), 'cell')}", both
