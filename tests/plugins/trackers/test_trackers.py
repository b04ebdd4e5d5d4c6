"""The shipped trackers, each in a process of its own: what stands in the files that they leave."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness_plugins.trackers.mlflow import MLflow
from harness_plugins.trackers.tensorboard import TensorBoard
from toy_site import Shell

from harness.results import records

DOCS = Path(__file__).parents[3] / "docs"

TELL = """
import sys
from pathlib import Path
from harness.api import RunInfo, StageInfo

def tell(tracker, folder):
    run = RunInfo("study-1", Path(folder), 2, 3)
    tracker.run_started(run)
    for epoch in (1, 2):
        stage = StageInfo(f"k{epoch}", "train", "cell-a", "l", epoch, 0)
        tracker.stage_started(stage)
        metrics = {"valid/perplexity": 90.0 / epoch}
        tracker.stage_finished(StageInfo(f"k{epoch}", "train", "cell-a", "l", epoch, 0, metrics, 1.5))
    cell = {name: "x" for name in ("task", "backend", "pattern", "strategy", "allocation")}
    cell |= {"target_sparsity": 0.9, "seed": 0, "total_epochs": 2, "retrain_epochs": 0, "metric": "perplexity",
             "reason": "", "value": 44.5, "sparsity": 0.9,
             "hardware": {"fpga[bank]": {"cycles": 120}, "gpu": {"reason": "no"}}}
    tracker.cell_finished(cell | {"cell": "cell-a", "status": "ok"})
    tracker.cell_finished(cell | {"cell": "cell-b", "status": "failed", "value": None, "reason": "out of luck"})
    tracker.run_finished(run, "ended")
"""


def told(script, folder, **variables):
    """What a script prints as JSON, run in a process of its own: these libraries warn and log as they like."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | variables
    done = subprocess.run(
        [sys.executable, "-c", TELL + script, str(folder)],
        capture_output=True, text=True, timeout=300, env=environment, cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def need(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is an extra")


def test_tensorboard_files_have_curves_and_results_by_cell(tmp_path):
    need("tensorboardX")
    script = """
from harness_plugins.trackers.tensorboard import TensorBoard
import json, struct
from tensorboardX.proto.event_pb2 import Event

tell(TensorBoard(), sys.argv[1])
found = {}
for path in Path(sys.argv[1], "tensorboard").glob("*/events*"):
    data, place = path.read_bytes(), 0
    while place < len(data):  # length, its checksum, the record, its checksum
        (length,) = struct.unpack("<Q", data[place : place + 8])
        event = Event.FromString(data[place + 12 : place + 12 + length])
        place += 16 + length
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found.setdefault(path.parent.name, []).append([value.tag, event.step, round(value.simple_value, 3)])
print(json.dumps(found))
"""

    found = told(script, tmp_path)

    assert {tuple(each) for each in found["cell-a"]} == {
        ("valid/perplexity", 1, 90.0), ("valid/perplexity", 2, 45.0), ("seconds", 1, 1.5), ("seconds", 2, 1.5),
        ("test/perplexity", 2, 44.5), ("sparsity", 2, 0.9), ("cycles/fpga_bank_", 2, 120.0),
    }  # fmt: skip
    assert ["test/perplexity", 2, 44.5] not in found.get("cell-b", [])


def test_mlflow_has_a_run_per_cell_with_its_parameters_and_metrics(tmp_path):
    need("mlflow")
    script = """
from harness_plugins.trackers.mlflow import MLflow
from mlflow.tracking import MlflowClient
import json

uri = "file://" + sys.argv[1] + "/mlruns"
tell(MLflow(tracking_uri=uri), sys.argv[1])
client = MlflowClient(tracking_uri=uri)
experiment = client.get_experiment_by_name("study-1")
runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
curve = [[m.step, m.value] for m in client.get_metric_history(runs["cell-a"].info.run_id, "valid/perplexity")]
print(json.dumps({"curve": curve, **{name: [r.info.status, r.data.metrics, r.data.params, r.data.tags.get("reason")]
                                     for name, r in runs.items()}}))
"""

    found = told(script, tmp_path, MLFLOW_ALLOW_FILE_STORE="true")

    assert found["curve"] == [[1, 90.0], [2, 45.0]]
    status, metrics, parameters, _ = found["cell-a"]
    assert status == "FINISHED" and parameters["target_sparsity"] == "0.9" and parameters["pattern"] == "x"
    assert metrics["test/perplexity"] == 44.5 and metrics["cycles/fpga.bank"] == 120
    assert found["cell-b"][0] == "FAILED" and found["cell-b"][3] == "out of luck"
    assert "test/perplexity" not in found["cell-b"][1]


@pytest.mark.parametrize(("tracker", "module"), [(TensorBoard(), "tensorboardX"), (MLflow(), "mlflow")])
def test_without_its_library_a_tracker_says_what_to_install(tracker, module, monkeypatch):
    monkeypatch.setattr(
        sys.modules[type(tracker).__module__], "find_spec", lambda name: None if name == module else name
    )

    assert "pip install 'sparsity-harness[" in tracker.why_unavailable()


def test_mlflow_without_a_server_says_so_where_its_client_alone_is_installed(monkeypatch):
    module = sys.modules[MLflow.__module__]
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "sqlalchemy" else name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    assert "mlflow(tracking_uri=http://HOST:5000)" in MLflow().why_unavailable()
    assert MLflow(tracking_uri="http://host:5000").why_unavailable() is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert MLflow().why_unavailable() is None
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    assert MLflow().why_unavailable() is None


def test_importing_the_trackers_loads_neither_library():
    code = "import sys, harness_plugins.trackers.mlflow, harness_plugins.trackers.tensorboard; " \
           "print([name for name in ('mlflow', 'tensorboardX') if name in sys.modules])"  # fmt: skip

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)

    assert done.stdout.strip() == "[]"
    assert Path(sys.executable).exists()


WANDB = """
import json, os


class Run:
    def __init__(self, project, name):
        self.name, self.project, self.config, self.summary, self.rows, self.code = name, project, {}, {}, [], None

    def log(self, values, step=None):
        assert self.code is None, "a finished run takes no more"
        steps = [row["_step"] for row in self.rows] + [-1]
        assert step is None or step >= steps[-2], "steps only grow"
        assert all(isinstance(value, int | float) for value in values.values())
        self.rows.append({**values, "_step": len(self.rows) if step is None else step})

    def finish(self, exit_code=None):
        assert self.code is None
        self.code = exit_code or 0
        with open(os.environ["STAND_IN"], "a") as file:
            file.write(json.dumps(vars(self)) + "\\n")


def init(project=None, name=None, reinit=None):
    assert reinit == "create_new", "other runs are open"
    return Run(project, name)
"""


def test_the_tracker_in_the_documents_tells_a_stand_in_of_every_cell(tmp_path):
    shell = Shell(tmp_path)
    [tracker] = re.findall(r"```python\n(.*?)```", (DOCS / "trackers.md").read_text(), re.DOTALL)
    (tmp_path / "wandb_tracker.py").write_text(tracker)
    (shell.site / "wandb.py").write_text(WANDB)
    track = ("--plugin", "wandb_tracker.py", "--track", "wandb(project=thesis)")
    shell.process("run", shell.spec(), *track, STAND_IN=str(tmp_path / "told"))

    runs = {run["name"]: run for run in map(json.loads, (tmp_path / "told").read_text().splitlines())}

    [folder] = (tmp_path / ".harness" / "runs").iterdir()
    found = records.read(folder / "records.json")
    assert runs.keys() == {record.cell for record in found}
    for record in found:
        run = runs[record.cell]
        assert (run["project"], run["code"], run["config"]["seed"]) == ("thesis", 0, record.seed)
        assert run["summary"] == {"status": "ok", f"test/{record.metric}": record.value}
        # Shared epochs are the first cell's.
        curve = [row[f"valid/{record.metric}"] for row in run["rows"] if f"valid/{record.metric}" in row]
        assert curve and curve[-1] == record.valid_value
