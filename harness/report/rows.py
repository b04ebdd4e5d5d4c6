"""What a row of results is: one per setting, over its seeds; every rendering reads these rows and nothing else."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

from harness.results.records import DENSE, NOT_COSTED, PENDING, Record
from harness.results.statistics import Comparison, Interval, Verdict

UNEVEN = 0.02
"""Part of the kept weights by which two settings may differ and still count as compared at one sparsity."""

REFERENCE = "unstructured"
"""The pattern that the others are compared with under the same strategy, whatever its label."""


class Setting(NamedTuple):
    """What the seeds of one row have in common."""

    task: str
    scope: tuple[str, ...]
    backend: str
    pattern: str
    allocation: str
    strategy: str
    target_sparsity: float

    @property
    def is_dense(self) -> bool:
        """Whether this is a baseline."""
        return self.pattern == DENSE

    @property
    def is_pruned(self) -> bool:
        """Whether this has a sparsity: neither a baseline nor a target that no sparsity reaches."""
        return not self.is_dense and self.target_sparsity > 0

    @property
    def has_sparsity(self) -> bool:
        """Whether it was asked for a sparsity; a target that none reaches has none."""
        return self.is_dense or self.is_pruned


@dataclass(frozen=True)
class HardwareCell:
    """A row's cost on one engine of a hardware model: means over seeds, or why there is none.

    `partly` says which seeds a mean is without, and why.

    Units: microseconds and cycles per time step (or item); speed-up over a dense array with equal multipliers.
    """

    latency_us: float | None = None
    cycles: float | None = None
    speedup: float | None = None
    fits: bool | None = None
    reason: str = ""
    engine: str = ""
    is_baseline: bool = False
    partly: str = ""


@dataclass(frozen=True)
class FixedPoint:
    """A row's metric in the numbers of a hardware model: the mean over seeds, or why there is none.

    Args:
        value: the metric; difference: to the same seeds as they were trained.
        wrapped: sums that did not fit the accumulator, over all seeds.
        in_float: layers of a user's own model that its framework computed in float32.
        folded: its norms that were a part of the layer before them.
    """

    value: float | None = None
    difference: float | None = None
    wrapped: int = 0
    in_float: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Storage:
    """What a row's masks take in their smallest storage formats, at one width of a weight: means over seeds.

    Args:
        bits: of all pruned matrices; dense_bits: of the same with all their weights.
        formats: names of the formats that are used, in any seed.
    """

    bits: float
    dense_bits: float
    formats: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One setting over its seeds; a number that is missing is None and `notes` say why.

    Args:
        planned: cells of the setting; done: those with a finite value.
        sparsity: reached over the scope, mean over seeds; model_sparsity: over all parameters.
        total_epochs, retrain_epochs: the largest over seeds (they agree unless a cell did not run).
        value: the metric on the test split over seeds.
        fixed_point: the metric in the numbers of hardware models, by what these numbers are called.
        storage: bits of the masks with their weights, by the width of a weight.
        before_retraining: mean validation value right after the last one-shot prune.
        to_dense: paired difference to the dense baseline.
        to_reference: paired difference to the reference pattern under the same strategy, sparsity and allocation.
        dense_verdict, reference_verdict: verdicts on the two, where a margin was named.
        uneven: a sentence where another row at this sparsity kept clearly more or fewer weights; its numbers and those
            of such a row are not of one sparsity. uneven_reference: whether that is so of the reference pattern.
        why_no_value, why_no_dense, why_no_reference: reasons for a missing number, as sentences.
        records: the row's records.
    """

    setting: Setting
    planned: int
    done: int
    sparsity: float | None
    model_sparsity: float | None
    total_epochs: int
    retrain_epochs: int
    value: Interval | None
    before_retraining: float | None
    hardware: Mapping[str, HardwareCell]
    records: tuple[Record, ...] = field(repr=False)
    fixed_point: Mapping[str, FixedPoint] = field(default_factory=dict)
    storage: Mapping[str, Storage] = field(default_factory=dict)
    to_dense: Comparison | None = None
    to_reference: Comparison | None = None
    dense_verdict: Verdict | None = None
    reference_verdict: Verdict | None = None
    uneven: str = ""
    uneven_reference: bool = False
    why_no_value: str = ""
    why_no_dense: str = ""
    why_no_reference: str = ""

    def fastest(self, labels: Sequence[str]) -> HardwareCell:
        """The cost on the fastest of these engines: of those that fit if any does; a dense row's on the baseline.

        Where none could run it, the reasons together; while one is not costed yet nobody knows which is the fastest.
        """
        cells = [self.hardware[label] for label in labels if label in self.hardware]
        # Without all engines costed, the fastest of those that are would change with the next look.
        waiting = next((cell for cell in cells if cell.reason.startswith(NOT_COSTED)), None)
        if waiting is not None:
            return HardwareCell(reason=waiting.reason)
        costed = [cell for cell in cells if cell.latency_us is not None]
        if not costed:
            return HardwareCell(reason="; ".join(dict.fromkeys(cell.reason for cell in cells if cell.reason)))
        is_dense = self.setting.is_dense
        # A dense row's speed-up is 1 by definition on the baseline engine; on another one it would be a comparison of
        # engines.
        return min(costed, key=lambda cell: (is_dense and not cell.is_baseline, cell.fits is False, cell.latency_us))

    @property
    def is_complete(self) -> bool:
        """Whether every planned seed has a result."""
        return self.done == self.planned

    @property
    def tensors(self) -> dict[str, float]:
        """Mean sparsity over the seeds with a result, by tensor; in the order of names, as masks are kept in none."""
        found = [record.tensor_sparsity for record in self.records if record.is_done]
        names = sorted({name for each in found for name in each})
        return {name: mean for name in names if (mean := mean_of(each.get(name) for each in found)) is not None}

    @property
    def values(self) -> dict[int, float]:
        """The metric by seed."""
        return values_by_seed(self.records)


@dataclass(frozen=True)
class Table:
    """The rows of one task and scope, dense first, then in the order of the plan.

    Args:
        hardware: labels of the hardware models, one per engine, in the order met.
        models: the same under the label that the engines of one model share.
        comparisons: how many comparisons the verdicts are corrected for; 0 without verdicts.
        reference: label of the pattern that the others are compared with.
    """

    task: str
    scope: tuple[str, ...]
    metric: str
    unit: str
    better: Literal["lower", "higher"]
    digits: int
    best_possible: float | None
    hardware: tuple[str, ...]
    models: Mapping[str, tuple[str, ...]]
    rows: tuple[Row, ...]
    comparisons: int = 0
    reference: str = REFERENCE

    def is_exact(self, labels: Sequence[str]) -> bool:
        """Whether one of these hardware models counts cycles on masks."""
        records = [record for row in self.rows for record in row.records]
        return any(record.hardware.get(label, {}).get("exact") is True for record in records for label in labels)

    @cached_property  # looks at every record, and is asked for once per row
    def main_model(self) -> str | None:
        """The hardware model whose cycles decide: one that counts on masks if there is one; None without any."""
        exact = (model for model, labels in self.models.items() if self.is_exact(labels))
        return next(exact, next(iter(self.models), None))

    @cached_property  # asked for once per row
    def backends(self) -> tuple[str, ...]:
        """Labels of the backends, in order."""
        return tuple(dict.fromkeys(row.setting.backend for row in self.rows))

    @cached_property
    def allocations(self) -> tuple[str, ...]:
        """Labels of the allocations of pruned rows, in order."""
        return tuple(dict.fromkeys(row.setting.allocation for row in self.rows if not row.setting.is_dense))


def is_partial(records: Iterable[Record]) -> bool:
    """Whether a cell may still get a result."""
    return any(record.status in PENDING for record in records)


def number_formats(records: Iterable[Record]) -> tuple[str, ...]:
    """What the numbers of the hardware models are called, in the order met."""
    return tuple(
        dict.fromkeys(str(each["format"]) for r in records for each in r.fixed_point.values() if "format" in each)
    )


def weight_widths(records: Iterable[Record]) -> tuple[str, ...]:
    """Bits of a weight at which the masks' storage is counted, in the order met."""
    return tuple(dict.fromkeys(width for record in records for width in record.storage))


def values_by_seed(records: Iterable[Record]) -> dict[int, float]:
    """The metric of the cells that have one, a finite one, by seed."""
    return {
        record.seed: record.value
        for record in records
        if record.is_done and record.value is not None and math.isfinite(record.value)
    }


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there and finite; None if none is."""
    present = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(present) / len(present) if present else None
