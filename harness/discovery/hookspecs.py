"""One hook per kind of plugin. A hook answers with a class, or with several."""

from collections.abc import Sequence

import pluggy

from harness.api import (
    Backend,
    Engine,
    HardwareModel,
    Pattern,
    ReportColumn,
    Schedule,
    Score,
    Strategy,
    StudyCheck,
    Task,
    Tracker,
)

hookspec = pluggy.HookspecMarker("harness")


@hookspec
def register_task() -> type[Task] | Sequence[type[Task]]:
    """Offer a task: data, initial weights, recipe, loss, metric, and which model."""
    raise AssertionError("a specification is never called")


@hookspec
def register_pattern() -> type[Pattern] | Sequence[type[Pattern]]:
    """Offer a sparsity pattern: given scores and a sparsity, which weights stay."""
    raise AssertionError("a specification is never called")


@hookspec
def register_strategy() -> type[Strategy] | Sequence[type[Strategy]]:
    """Offer a pruning strategy: when to train, prune and rewind, and how weights are scored."""
    raise AssertionError("a specification is never called")


@hookspec
def register_score() -> type[Score] | Sequence[type[Score]]:
    """Offer a score: how important each weight is."""
    raise AssertionError("a specification is never called")


@hookspec
def register_schedule() -> type[Schedule] | Sequence[type[Schedule]]:
    """Offer a schedule: how the sparsity rises with progress."""
    raise AssertionError("a specification is never called")


@hookspec
def register_backend() -> type[Backend] | Sequence[type[Backend]]:
    """Offer a backend: how to build, train and evaluate a model in one framework."""
    raise AssertionError("a specification is never called")


@hookspec
def register_hardware() -> type[HardwareModel] | Sequence[type[HardwareModel]]:
    """Offer a hardware model: what a set of masked tensors costs."""
    raise AssertionError("a specification is never called")


@hookspec
def register_engine() -> type[Engine] | Sequence[type[Engine]]:
    """Offer an engine: how the datapath of an accelerator runs one matrix-vector product."""
    raise AssertionError("a specification is never called")


@hookspec
def register_tracker() -> type[Tracker] | Sequence[type[Tracker]]:
    """Offer a tracker: it is told what a run does while it does it."""
    raise AssertionError("a specification is never called")


@hookspec
def register_column() -> type[ReportColumn] | Sequence[type[ReportColumn]]:
    """Offer a column of reports: what every row of a table of results has there."""
    raise AssertionError("a specification is never called")


@hookspec
def register_check() -> type[StudyCheck] | Sequence[type[StudyCheck]]:
    """Offer a named check: what would make a study mean less than it seems to."""
    raise AssertionError("a specification is never called")
