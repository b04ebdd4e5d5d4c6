"""A column of somebody's own in every report: one value that says its header, what a row has there, and when."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from harness.api.component import Component, JsonValue, Kind


@dataclass(frozen=True)
class ReportRow:
    """What a column is asked about: the seeds of one setting together, or a single cell.

    Tables have a row per setting; JSON and data frames have one per cell, whose `values` have one seed at most.

    Args:
        task, backend, pattern, allocation, strategy: labels; the dense baseline has `dense` for pattern and strategy.
        target_sparsity: what was asked for, 0 for dense; sparsity, model_sparsity: what was reached over the pruned
            tensors and over all parameters, means over seeds; None without a result.
        total_epochs, retrain_epochs: in all, and after the first prune.
        metric, unit, better: what `values` are: `perplexity`, its unit if it has one, `lower` or `higher`.
        values: the metric on the test split by seed, where there is a finite one.
        hardware: the figures of a cost by label (`cycle_simulator[bank]`), means over seeds: `cycles`, `latency_us`,
            `speedup` and whatever else the hardware model counts.
        records: all that is known of each cell, as `records.json` has it.
        dense: the same of the dense baseline; None for the baseline itself, and where it has no row.
    """

    task: str = ""
    backend: str = ""
    pattern: str = "dense"
    allocation: str = ""
    strategy: str = "dense"
    target_sparsity: float = 0.0
    sparsity: float | None = None
    model_sparsity: float | None = None
    total_epochs: int = 0
    retrain_epochs: int = 0
    metric: str = ""
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    values: Mapping[int, float] = field(default_factory=dict)
    hardware: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    records: Sequence[Mapping[str, JsonValue]] = ()
    dense: "ReportRow | None" = None

    @property
    def value(self) -> float | None:
        """Mean of the metric over the seeds; None without a result."""
        return math.fsum(self.values.values()) / len(self.values) if self.values else None


class ReportColumn(Component):
    """A column that stands in every table of results, of every format, wherever its package is installed.

    Subclasses set `name`, which CSV and JSON call the value by, and say what a row has. Reports are made from records
    alone, so a column works for runs that ended before it was written.

    Example:
        A column that says how much worse than dense a setting is, in percent.

        >>> class Worse(ReportColumn):
        ...     "Loss of quality to dense, in percent."
        ...     name = "worse"
        ...     header = "worse by %"
        ...     def value(self, row):
        ...         if row.value is None or row.dense is None or not row.dense.value:
        ...             return None
        ...         return 100 * (row.value / row.dense.value - 1)
        >>> Worse().value(ReportRow(values={0: 11.0}, dense=ReportRow(values={0: 10.0}))).__round__(6)
        10.0
    """

    kind: ClassVar[Kind] = "column"
    header: ClassVar[str] = ""
    """For people, with its unit; a newline breaks it. Without one the name is taken."""
    matters: ClassVar[Literal["main", "second", "extra"]] = "second"
    """What a narrow terminal does with it: `extra` columns are left out first, then `second` ones; both are named."""
    about: ClassVar[str] = ""
    """How to read it, a sentence below the table."""

    @abstractmethod
    def value(self, row: ReportRow) -> JsonValue:
        """What a row has: a finite number, a text, true or false; None where it has nothing."""

    def shown(self, value: JsonValue) -> str:
        """A value that is not None as a table prints it; data formats have it as it is."""
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    def footnote(self, row: ReportRow) -> str:
        """A sentence on a row's value, or on why there is none; empty for no footnote."""
        return ""

    def applies(self, rows: Sequence[ReportRow]) -> bool:
        """Whether a table of these rows needs the column; one in which no row has a value is left out anyway."""
        return True
