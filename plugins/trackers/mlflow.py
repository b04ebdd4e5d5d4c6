"""MLflow: one run of MLflow's per cell, in an experiment that is named like ours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PrivateAttr

from harness.api import JsonValue, RunInfo, RunState, StageInfo, Tracker, hookimpl

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_PARAMETERS = (
    "task", "backend", "pattern", "strategy", "allocation", "target_sparsity", "seed", "total_epochs", "retrain_epochs",
)  # fmt: skip

_LONGEST = 6000
"""Characters of a parameter that MLflow takes."""


class MLflow(Tracker):
    """Log every epoch's metrics, and every cell's parameters, result and costs, to an MLflow server.

    A cell that shares epochs with another one has those points under the first of them; its result stands under itself.
    """

    name: ClassVar[str] = "mlflow"
    tracking_uri: str | None = Field(
        default=None, description="of the server or store; by default what MLFLOW_TRACKING_URI says, then MLflow's own"
    )
    experiment: str | None = Field(default=None, description="name of the experiment there; by default our run's id")

    _client: MlflowClient | None = PrivateAttr(default=None)
    _experiment_id: str = PrivateAttr(default="")
    _run: str = PrivateAttr(default="")
    _runs: dict[str, str] = PrivateAttr(default_factory=dict)

    def why_unavailable(self) -> str | None:
        """It needs MLflow's client, and a server where the client alone is installed."""
        if find_spec("mlflow") is None:  # looks, does not import
            return "MLflow is not installed; run `pip install 'sparsity-harness[mlflow]'`"
        named = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        # MLflow's own default is a database beside the process, for which its light package has no driver.
        if not named and find_spec("sqlalchemy") is None:
            return (
                "the MLflow that is installed reaches servers only, and none is named; give it as "
                "`mlflow(tracking_uri=http://HOST:5000)` or in MLFLOW_TRACKING_URI, or run `pip install mlflow`"
            )
        return None

    def run_started(self, run: RunInfo) -> None:
        """Find or make the experiment."""
        from mlflow.tracking import MlflowClient

        self._client, self._run = MlflowClient(tracking_uri=self.tracking_uri), run.run
        name = self.experiment or run.run
        found = self._client.get_experiment_by_name(name)
        self._experiment_id = found.experiment_id if found else self._client.create_experiment(name)

    def stage_finished(self, stage: StageInfo) -> None:
        """One point per metric, at the epoch after the stage."""
        for name, value in stage.metrics.items():
            self._known().log_metric(self._run_of(stage.cell), name, value, step=stage.epoch)

    def cell_finished(self, record: Mapping[str, JsonValue]) -> None:
        """Parameters and results of a cell; its run ends with it."""
        client, run = self._known(), self._run_of(str(record["cell"]))
        for name in _PARAMETERS:
            # MLflow refuses longer values, and with them the whole call.
            client.log_param(run, name, str(record[name])[:_LONGEST])
        client.set_tag(run, "status", str(record["status"]))
        if record["reason"]:
            client.set_tag(run, "reason", str(record["reason"])[:_LONGEST])
        told: dict[str, JsonValue] = {f"test/{record['metric']}": record["value"], "sparsity": record["sparsity"]}
        costs = record["hardware"]
        for label, cost in costs.items() if isinstance(costs, dict) else ():
            # MLflow takes no brackets in names.
            told[f"cycles/{label.replace('[', '.').replace(']', '')}"] = (
                cost.get("cycles") if isinstance(cost, dict) else None
            )
        for name, value in told.items():
            if isinstance(value, int | float):
                client.log_metric(run, name, float(value))
        is_done = record["status"] in ("ok", "cached", "skipped")
        client.set_terminated(run, "FINISHED" if is_done else "FAILED")
        # Emptied and not removed: a cell that is told of again gets a run of its own.
        self._runs[str(record["cell"])] = ""

    def run_finished(self, run: RunInfo, state: RunState) -> None:
        """End the runs of cells that have no result yet."""
        for left in filter(None, self._runs.values()):
            self._known().set_terminated(left, "KILLED")

    def _known(self) -> MlflowClient:
        assert self._client is not None, "a run is told of before its stages"
        return self._client

    def _run_of(self, cell: str) -> str:
        if not self._runs.get(cell):
            made = self._known().create_run(self._experiment_id, run_name=cell, tags={"harness.run": self._run})
            self._runs[cell] = made.info.run_id
        return self._runs[cell]


@hookimpl
def register_tracker() -> type[Tracker]:
    """Offer this tracker to the harness."""
    return MLflow
