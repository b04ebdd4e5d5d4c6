"""Checks of how models were trained: a study of badly trained ones says little about pruning."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from harness._text import plural
from harness.report import formats
from harness.report.checks.check import NamedCheck, Study, records_of
from harness.results.records import Record, Severity

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


class StillImproving(NamedCheck):
    """The dense training was stopped before its end: pruned models that train on gain from that, not from pruning."""

    code: ClassVar[str] = "SPN001"
    title: ClassVar[str] = "dense model still improving at its end"
    severity: ClassVar[Severity] = "warning"
    remedy: ClassVar[str] = "train the dense model for more epochs"

    def applies(self, study: Study) -> bool:
        """Where a dense model has a history."""
        return any(record.is_dense and record.valid_history for record in study.done)

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """The largest gain in the last quarter, over all dense models that gained there."""
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


class WorseThanKnown(NamedCheck):
    """The dense model is worse than what is published for it, or than a model that only counts words or classes."""

    code: ClassVar[str] = "SPN002"
    title: ClassVar[str] = "dense model worse than a known reference"
    severity: ClassVar[Severity] = "error"
    remedy: ClassVar[str] = "find out why before pruning anything: data, recipe, learning rate, length of the training"

    def applies(self, study: Study) -> bool:
        """Where the task knows a reference."""
        return any(record.is_dense and _references(record) for record in study.done)

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """One sentence per reference that is missed."""
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


class BetterThanDense(NamedCheck):
    """Pruning helps nearly everywhere: the dense model is the weak one, overfitted or trained too briefly."""

    code: ClassVar[str] = "SPN003"
    title: ClassVar[str] = "pruned better than dense nearly everywhere"
    severity: ClassVar[Severity] = "warning"
    remedy: ClassVar[str] = (
        "give the dense baseline the same epochs and a regularisation of its own; until then compare patterns with one "
        "another, not with dense"
    )

    def applies(self, study: Study) -> bool:
        """Where several settings can be compared with dense."""
        return sum(row.to_dense is not None for row in study.pruned) >= _ENOUGH

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """How many of how many, by table."""
        for table in study.tables:
            rows = [row for row in table.rows if row.to_dense is not None]
            sign = -1 if table.better == "lower" else 1
            # By the sign of the mean alone: a tendency everywhere is the finding, not any single difference.
            better = [row for row in rows if row.to_dense and sign * row.to_dense.difference.mean > 0]
            if len(rows) >= _ENOUGH and len(better) >= _NEARLY_ALL * len(rows):
                yield f"{len(better)} of {len(rows)} pruned settings better the dense model", records_of(better)


class TinyRate(NamedCheck):
    """A retraining whose learning rate hardly moves a weight says nothing of what retraining can repair."""

    code: ClassVar[str] = "SPN004"
    title: ClassVar[str] = "retraining rate below 1/100 of the start"
    severity: ClassVar[Severity] = "warning"
    remedy: ClassVar[str] = "give the strategy a learning rate of its own, e.g. {name: fine_tuning, lr: 0.03}"
    is_beforehand: ClassVar[bool] = True

    def applies(self, study: Study) -> bool:
        """Where something is retrained."""
        return any(record.retrain_rate is not None for record in study.records)

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """One sentence per strategy."""
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


class UnequalBudgets(NamedCheck):
    """Strategies of different length are compared: the longer one may win by its length."""

    code: ClassVar[str] = "SPN005"
    title: ClassVar[str] = "unequal budgets in one comparison"
    severity: ClassVar[Severity] = "note"
    remedy: ClassVar[str] = "give the strategies equal numbers of epochs, or compare patterns within a strategy only"
    is_beforehand: ClassVar[bool] = True

    def applies(self, study: Study) -> bool:
        """Where several strategies stand in one table."""
        return any(
            len({row.setting.strategy for row in table.rows if not row.setting.is_dense}) > 1 for table in study.tables
        )

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """Fewest and most epochs, by table."""
        for table in study.tables:
            rows = [row for row in table.rows if not row.setting.is_dense and row.total_epochs]
            by_strategy = {row.setting.strategy: row.total_epochs for row in rows}
            fewest, most = min(by_strategy.values(), default=0), max(by_strategy.values(), default=0)
            if fewest != most:
                short = next(name for name, epochs in by_strategy.items() if epochs == fewest)
                long = next(name for name, epochs in by_strategy.items() if epochs == most)
                yield f"{short} has {fewest} epochs in all, {long} {most}", records_of(rows)


class HardlyGradual(NamedCheck):
    """A gradual schedule of one or two mask updates is a one-shot prune by another name."""

    code: ClassVar[str] = "SPN006"
    title: ClassVar[str] = "fewer than five mask updates in a gradual strategy"
    severity: ClassVar[Severity] = "warning"
    remedy: ClassVar[str] = "prune more often (a smaller `every`, a longer span), or use a one-shot strategy"
    is_beforehand: ClassVar[bool] = True

    def applies(self, study: Study) -> bool:
        """Where masks are made during training."""
        return any(record.gradual_updates for record in study.records)

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """One sentence per strategy."""
        found: dict[str, list[Record]] = {}
        for record in study.records:
            if record.gradual_updates and record.gradual_updates < _FEW:
                found.setdefault(record.strategy, []).append(record)
        for strategy, records in found.items():
            fewest = min(record.gradual_updates or 0 for record in records)
            yield f"{strategy} makes {plural(fewest, 'mask update')} in its training: hardly gradual", records


class SmallPart(NamedCheck):
    """What is pruned is a small part of the model: the sparsity that was asked for is not that of the model."""

    code: ClassVar[str] = "SPN010"
    title: ClassVar[str] = "asked sparsity small against the whole model"
    severity: ClassVar[Severity] = "warning"
    remedy: ClassVar[str] = "widen `scope`, or say of every sparsity which part of the model it is of"

    _PART: ClassVar[float] = 0.25

    def applies(self, study: Study) -> bool:
        """Where both sparsities were counted."""
        return any(row.sparsity and row.model_sparsity is not None for row in study.pruned)

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """The highest sparsity, by table."""
        for table in study.tables:
            rows = [
                row for row in table.rows
                if row.sparsity and row.model_sparsity is not None and row.model_sparsity < self._PART * row.sparsity
            ]  # fmt: skip
            if rows:
                row = max(rows, key=lambda each: each.setting.target_sparsity)
                of = f" of {' + '.join(table.scope)}" if table.scope else " of the scope"
                whole = 100 * (row.model_sparsity or 0.0)
                yield (
                    f"{formats.level(row.setting.target_sparsity)}{of} is {whole:.1f} % of the model's weights",
                    records_of(rows),
                )


class SameSplit(NamedCheck):
    """Validation and test give equal values in every cell: one of the two is the other, and nothing was held out."""

    code: ClassVar[str] = "SPN021"
    title: ClassVar[str] = "validation and test data are the same"
    severity: ClassVar[Severity] = "error"
    remedy: ClassVar[str] = "hold out a test split that neither training nor any choice has seen"

    def applies(self, study: Study) -> bool:
        """Where two cells or more have both values."""
        return sum(r.value is not None and r.valid_value is not None for r in study.done) >= _ENOUGH

    def look(self, study: Study) -> Iterator[tuple[str, Iterable[Record]]]:
        """By task."""
        for task in dict.fromkeys(record.task for record in study.done):
            both = [r for r in study.done if r.task == task and r.value is not None and r.valid_value is not None]
            # Equality in every cell by chance is out of the question from four cells on.
            if len(both) >= _ENOUGH and all(record.value == record.valid_value for record in both):
                yield f"{task}: test and validation agree to the last digit in {plural(len(both), 'cell')}", both
