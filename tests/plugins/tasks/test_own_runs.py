"""A model of a user's own from the command line: described in a process of its own, run, planned again after edits."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from harness.api import PluginUnavailableError
from harness.cli import app
from harness.discovery.finding import discover
from harness.results.records import read
from harness.spec import load

MODEL = """
from pathlib import Path

import numpy as np
import torch
from helper import doubled

from harness.api import OwnModel


def task(batch: int = 4) -> OwnModel:
    x = np.load(Path(__file__).with_name("x.npy"))
    y = (x.sum(axis=1) > 0).astype(np.int64)
    return OwnModel(
        model=lambda: torch.nn.Linear(4, 2),
        train=(doubled(x), y), valid=(x, y), test=(x, y),
        start="start.safetensors", epochs=0, batch=batch,
    )
"""
EXPERIMENT = """
name: mine
task: {name: own, entry: "model.py:task", label: mine}
scope: [all]
matrix: {backend: torch, pattern: unstructured, strategy: one_shot, sparsity: [0.5]}
hardware:
  - {name: cycle_simulator, engine: bank, weight_bits: 3, activation_bits: 3}
"""


def harness(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.normal(size=(24, 4)).astype(np.float32))
    weight = np.array([[-1, -1, -0.1, -0.1], [1, 1, 0.1, 0.1]], np.float32)
    save_file({"weight": weight, "bias": np.zeros(2, np.float32)}, folder / "start.safetensors")
    (folder / "model.py").write_text(MODEL)
    (folder / "helper.py").write_text("def doubled(x):\n    return 2 * x\n")
    (folder / "notes.py").write_text("IDEAS = 1\n")
    (folder / "mine.yaml").write_text(EXPERIMENT)
    return folder


@pytest.fixture(scope="module")
def ran(folder):
    return harness("run", folder / "mine.yaml", "--store", folder / "store", "--workers", 1, "--progress", "none")


def accuracy(folder, weight):
    x = np.load(folder / "x.npy")
    return 100 * float((np.argmax(x @ weight.T, axis=1) == (x.sum(axis=1) > 0)).mean())


def to_run(folder):
    done = harness("plan", folder / "mine.yaml", "--store", folder / "store", "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["stages_to_run"]


def test_a_pretrained_model_is_the_dense_baseline_as_it_is_and_is_pruned_without_training(folder, ran):
    assert ran.exit_code == 0, ran.output
    (records,) = (folder / "store" / "runs").glob("*/records.json")
    found = json.loads(records.read_text())
    dense, pruned = found["records"] if isinstance(found, dict) else found
    whole = np.array([[-1, -1, -0.1, -0.1], [1, 1, 0.1, 0.1]], np.float32)

    assert dense["value"] == pytest.approx(accuracy(folder, whole))
    assert pruned["value"] == pytest.approx(accuracy(folder, np.where(np.abs(whole) < 0.5, 0, whole)))
    assert [dense["total_epochs"], pruned["total_epochs"]] == [0, 0]


def test_the_finished_model_is_scored_in_the_numbers_of_its_hardware(folder, ran):
    """Weights are 1 or 0 thirds of a 3-bit range; pixels are rounded to 3 bits by the largest of them."""
    assert ran.exit_code == 0, ran.output
    (records,) = (folder / "store" / "runs").glob("*/records.json")
    found = json.loads(records.read_text())
    _, pruned = found["records"] if isinstance(found, dict) else found
    x = np.load(folder / "x.npy")
    step = 2.0 ** next(e for e in range(-20, 20) if np.abs(x).max() <= 3 * 2.0**e)
    rounded = np.clip(np.floor(x / step + 0.5), -4, 3)
    sums = rounded[:, :2].sum(axis=1)
    expected = 100 * float(((sums > 0) == (x.sum(axis=1) > 0)).mean())

    (fixed,) = pruned["fixed_point"].values()
    assert fixed["format"] == "w3 a3"
    assert fixed["value"] == pytest.approx(expected)
    assert fixed["value"] != pruned["value"]
    assert "in_float" not in fixed


def test_what_may_be_pruned_is_listed(folder):
    done = harness("validate", folder / "mine.yaml")

    assert done.exit_code == 0, done.output
    assert "mine (torch): prunable tensors: 1; pruned here: 1" in done.stdout
    assert "never pruned, a bias or a vector: bias" in done.stdout


def test_what_may_be_pruned_is_listed_beside_a_pattern_that_does_not_fit(folder):
    text = (folder / "mine.yaml").read_text()
    assert "pattern: unstructured" in text
    (folder / "unfit.yaml").write_text(text.replace("pattern: unstructured", "pattern: {name: n_m, n: 1, m: 3}"))

    done = harness("validate", folder / "unfit.yaml")

    assert done.exit_code == 2, done.output
    assert "mine (torch): prunable tensors: 1; pruned here: 1" in done.stdout
    assert "n_m: cols must be a multiple of m=3, got a matrix of 2 x 4" in done.stderr
    assert "leave it out" not in done.stderr  # there is nothing else to prune


def test_only_what_decides_the_numbers_runs_again(folder, ran):
    """Edits one after another, each undone: of the model, of what it imports, of its data, of its checkpoint."""
    again = {}
    edits = {
        "nothing": ("notes.py", "IDEAS = 1\n"),
        "an unrelated file": ("notes.py", "IDEAS = 2\n"),
        "a comment": ("model.py", MODEL.replace("    x = np.load", "    # read\n    x = np.load")),
        "the model": ("model.py", MODEL.replace("torch.nn.Linear(4, 2)", "torch.nn.Linear(4, 2, bias=True)")),
        "what it imports": ("helper.py", "def doubled(x):\n    return 3 * x\n"),
    }
    for what, (name, text) in edits.items():
        before = (folder / name).read_text()
        (folder / name).write_text(text)
        again[what] = to_run(folder) > 0
        (folder / name).write_text(before)
    x = np.load(folder / "x.npy")
    np.save(folder / "x.npy", x + np.float32(1))
    again["its data"] = to_run(folder) > 0
    np.save(folder / "x.npy", x)
    again["nothing, once more"] = to_run(folder) > 0

    assert again == {
        "nothing": False,
        "an unrelated file": False,
        "a comment": False,
        "the model": True,
        "what it imports": True,
        "its data": True,
        "nothing, once more": False,
    }


PAGE = Path(__file__).parents[3] / "docs" / "own-model.md"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The files that docs/own-model.md has its reader write."""
    folder = tmp_path_factory.mktemp("page")
    for name, content in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL):
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(("name", "cells", "least"), [("mine", 7, 85), ("keras", 2, 85)])
def test_the_page_leads_from_nothing_to_a_table(written, name, cells, least):
    store = written / f"store-{name}"
    done = harness("run", written / f"{name}.yaml", "--store", store, "--workers", 1, "--progress", "none")

    assert done.exit_code == 0, done.output
    (path,) = (store / "runs").glob("*/records.json")
    found = json.loads(path.read_text())
    records = found["records"] if isinstance(found, dict) else found
    assert [record["status"] for record in records] == ["ok"] * cells
    assert records[0]["value"] > least
    held = "held by TF-MOT in embedding, gru, out, elsewhere by the harness"
    assert records[1]["facts"].get("masks") == (held if name == "keras" else None)


@pytest.mark.parametrize(
    ("module", "words"), [("torch", "PyTorch"), ("tf_keras", "Keras 2"), ("tensorflow", "TensorF")]
)
def test_a_framework_that_is_not_installed_is_told_with_the_way_out(tmp_path, monkeypatch, module, words):
    from harness_plugins.tasks.own.opened import Opened

    (tmp_path / "model.py").write_text(f"import {module}\n\n\ndef task(): ...\n")
    monkeypatch.setitem(sys.modules, module, None)  # what Python does for a module that is not there

    with pytest.raises(PluginUnavailableError, match=f"model.py needs {words}.*not installed here; run `pip install"):
        Opened("model.py:task", tmp_path, {}, None, smoke=False)


ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "name", [*(f"bring_your_own/{name}" for name in ("resnet", "pretrained", "transformer", "gru")), "cnn_on_fpga"]
)
def test_a_published_table_is_that_of_its_experiment(name):
    """The same model, parameters, patterns and strategies, every cell with a number."""
    experiment = load(ROOT / "examples" / f"{name}.yaml", discover())
    folder = ROOT / "docs" / "results" / name
    records = [record.model_dump(mode="json") for record in read(folder / "records.json")]

    wanted = [
        (cell.labels()["pattern"], cell.labels()["strategy"], cell.sparsity, cell.seed) for cell in experiment.cells
    ]
    assert [(r["pattern"], r["strategy"], r["target_sparsity"], r["seed"]) for r in records] == wanted
    assert {json.dumps(r["task_params"], sort_keys=True) for r in records} == {
        json.dumps(cell.task.parameters(), sort_keys=True) for cell in experiment.cells
    }
    assert {r["status"] for r in records} <= {"ok", "cached"}  # told of the run that wrote them
    page = (folder / "report.md").read_text()
    assert page.startswith(f"# {experiment.name}\n")
    assert all(f"{r['value']:.2f}" in page for r in records)


def test_the_published_rates_of_a_cnn_are_those_of_its_records():
    """Every row of the page: the fastest engine that fits, its rate, and the accuracy in the engine's numbers."""
    folder = ROOT / "docs" / "results" / "cnn_on_fpga"
    records = [record.model_dump(mode="json") for record in read(folder / "records.json")]
    page = (folder / "README.md").read_text()

    for record in records:
        if record["strategy"] not in ("dense", "fine-tuning"):
            continue
        for model, score in record["fixed_point"].items():
            costs = [
                cost for label, cost in record["hardware"].items()
                if cost.get("model") == model and cost.get("fits")
                and not label.endswith(("[csr_stream]", "[mcbbs_systolic]"))
            ]  # fmt: skip
            piped = [cost["details"]["pipelined"] for cost in costs if "stages" in cost["details"]["pipelined"]]
            rates = (
                max(cost["steps_per_s"] for cost in costs),
                max(each["steps_per_s"] for each in piped if each["fits"]),
            )
            row = next(
                line for line in page.partition(f"| {model}, fine-tuning")[2].splitlines()
                if line.startswith(f"| {record['pattern']} |")
            )  # fmt: skip
            assert f"| {score['value']:.2f} |" in row
            assert all(f"| {rate:,.0f} |" in row for rate in rates)
            energy = max(costs, key=lambda cost: cost["steps_per_s"])["event_energy_uj"]
            assert f"| {energy:.2f} |" in row
