"""A tracker: somebody who is told what a run does while it does it, such as TensorBoard or MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from harness.api.component import Component, JsonValue

RunState = Literal["ended", "interrupted", "stopped"]
"""How a run ended: everything that could run did, somebody stopped it, or it stopped by itself."""


@dataclass(frozen=True)
class RunInfo:
    """A run as a tracker sees it.

    Args:
        run: its id; folder: where its records, logs and report lie.
        cells: number of planned cells; epochs: of epochs that are to run.
        experiment: the whole experiment, every default written out; empty where it was made in Python.
    """

    run: str
    folder: Path
    cells: int
    epochs: int
    experiment: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class StageInfo:
    """A stage: one epoch, one prune, one rewind or one test score.

    Args:
        key: its key in the store; kind: `train`, `prune`, `rewind`, `init` or `test`.
        cell: id of the first cell that needs it; a shared stage is told once, under that cell.
        label: the same in words.
        epoch: epochs trained in the chain after it.
        seed: of the cell.
        metrics: what it measured, by `split/name`, e.g. `valid/perplexity`; empty before it has ended.
        seconds: that it took; None before it has ended, or where another run computed it.
        failure: why it ended without a result; empty otherwise.
    """

    key: str
    kind: str
    cell: str
    label: str
    epoch: int
    seed: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    failure: str = ""


class Tracker(Component):
    """Is told what a run does. Every method does nothing unless a subclass says otherwise.

    A tracker is asked for with `harness run --track NAME`; its fields are its parameters. It runs in a thread of its
    own beside the run, one call after the other in the order in which things happened, so that a slow one delays
    nobody. One that raises is told of once and hears no more: it never fails a run, and never changes a result.

    Example:
        ```python
        class Bell(Tracker):
            name: ClassVar[str] = "bell"

            def cell_finished(self, record):
                print(record["cell"], record["value"])


        @hookimpl
        def register_tracker():
            return Bell
        ```
    """

    kind: ClassVar[Literal["tracker"]] = "tracker"

    def why_unavailable(self) -> str | None:
        """Why it cannot be used here, with what to install; None if it can. It imports nothing large."""
        return None

    def run_started(self, run: RunInfo) -> None:
        """The plan is made and the first stage is about to begin."""

    def stage_started(self, stage: StageInfo) -> None:
        """A worker begins with a stage."""

    def stage_finished(self, stage: StageInfo) -> None:
        """A stage is stored, or ended without a result."""

    def cell_finished(self, record: Mapping[str, JsonValue]) -> None:
        """A cell has its result, or will have none; the record is as in `records.json`. Cached cells are told too."""

    def run_finished(self, run: RunInfo, state: RunState) -> None:
        """Nothing more is told. What is still to be written has to be written now."""
