"""TensorBoard: event files that `tensorboard --logdir` shows while the run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr

from harness.api import JsonValue, RunInfo, RunState, StageInfo, Tracker, hookimpl

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class TensorBoard(Tracker):
    """Write every epoch's metrics, and every cell's result and costs, as TensorBoard event files.

    A cell is a run of TensorBoard's, named by its id. Curves have the epoch on their axis; the end of a cell writes
    `test/METRIC`, `sparsity` and `cycles/LABEL` at its last epoch, and what it is as text. A shared epoch stands under
    the first cell that needs it.
    """

    name: ClassVar[str] = "tensorboard"
    folder: str | None = Field(default=None, description="where to write; by default `tensorboard` in the run's folder")

    _root: Path = PrivateAttr(default=Path())
    _writers: dict[str, SummaryWriter] = PrivateAttr(default_factory=dict)

    def why_unavailable(self) -> str | None:
        """It needs the package that writes event files without TensorFlow."""
        if find_spec("tensorboardX") is None:  # looks, does not import
            return "tensorboardX is not installed; run `pip install 'sparsity-harness[tensorboard]'`"
        return None

    def run_started(self, run: RunInfo) -> None:
        """Remember where to write."""
        self._root = Path(self.folder) / run.run if self.folder else run.folder / "tensorboard"

    def stage_finished(self, stage: StageInfo) -> None:
        """One point per metric, at the epoch after the stage; a shared epoch stands under its first cell."""
        for name, value in stage.metrics.items():
            self._writer(stage.cell).add_scalar(name, value, stage.epoch)
        if stage.seconds is not None and stage.kind == "train":
            self._writer(stage.cell).add_scalar("seconds", stage.seconds, stage.epoch)

    def cell_finished(self, record: Mapping[str, JsonValue]) -> None:
        """The result of a cell, with what describes it."""
        writer = self._writer(str(record["cell"]))
        labels = {
            name: record[name] for name in ("pattern", "strategy", "backend", "target_sparsity", "seed", "status")
        }
        writer.add_text("cell", ", ".join(f"{name} {value}" for name, value in labels.items()))
        epochs = record["total_epochs"]
        # At the end of the curve it belongs to.
        step = epochs if isinstance(epochs, int) else 0
        told: list[tuple[str, Any]] = [(f"test/{record['metric']}", record["value"]), ("sparsity", record["sparsity"])]
        costs = record["hardware"]
        for label, cost in costs.items() if isinstance(costs, dict) else ():
            told.append((f"cycles/{label}", cost.get("cycles") if isinstance(cost, dict) else None))
        for name, value in told:
            if isinstance(value, int | float):
                writer.add_scalar(name, float(value), step)
        # Flushed, since a cell's result is waited for and an event file is written in blocks.
        writer.flush()

    def run_finished(self, run: RunInfo, state: RunState) -> None:
        """Close every file."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, cell: str) -> SummaryWriter:
        if cell not in self._writers:
            from tensorboardX import SummaryWriter

            self._writers[cell] = SummaryWriter(str(self._root / cell), write_to_disk=True)
        return self._writers[cell]


@hookimpl
def register_tracker() -> type[Tracker]:
    """Offer this tracker to the harness."""
    return TensorBoard
