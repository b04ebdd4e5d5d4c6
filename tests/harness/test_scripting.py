"""The surface of `import harness`: light, lazy, and true to its page."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness.api import EmptySelectionError, SpecError
from harness.results.records import Record
from harness.scripting import Results

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
SPEC = {
    "name": "small",
    "task": {"name": "lstm_lm", "corpus": "synthetic", "hidden": 8, "epochs": 1, "full_epochs": 1},
    "matrix": {"backend": ["torch"], "pattern": ["unstructured"], "strategy": ["one_shot"], "sparsity": [0.5]},
}


def test_importing_the_harness_imports_nothing_else():
    script = "import sys, harness; print([m for m in sys.modules if m.startswith(('harness.', 'numpy', 'pydantic'))])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"


def test_the_surface_imports_no_framework():
    heavy = "('torch', 'tensorflow', 'pandas', 'matplotlib', 'scipy')"
    script = f"import sys, harness; harness.load, harness.run, harness.results; print({heavy} & sys.modules.keys())"
    script = script.replace(f"{heavy} &", f"set({heavy}) &")
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "set()"


def test_every_name_of_the_surface_is_there():
    assert {"load", "plan", "run", "results"} <= set(harness.__all__) <= set(dir(harness))
    assert all(callable(getattr(harness, name)) for name in ("load", "plan", "run", "results"))
    with pytest.raises(AttributeError, match="has no attribute 'rnu'"):
        harness.rnu  # noqa: B018


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), space)

    frame, found, plan = space["frame"], space["found"], space["plan"]
    assert sorted(frame["pattern"]) == ["dense", "row_balanced", "unstructured"]
    assert frame["test perplexity"].notna().all() and frame["sparsity [fraction]"].max() == pytest.approx(0.5, abs=0.01)
    assert "row_balanced" in found._repr_html_() and "<svg" in found._repr_html_()
    assert "row_balanced</td>" in plan._repr_html_() and "3 cells" in repr(plan)
    assert "3 of 3 cells done" in repr(found)
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    # An experiment made in Python has its copy in the run's folder, which the commands understand.
    why = subprocess.run(
        [sys.executable, "-m", "harness", "why", "row_balanced 0.5", "--store", "store"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "cached: nothing would run" in why.stdout, why.stderr


def test_a_mapping_and_a_file_are_the_same_experiment(tmp_path):
    (tmp_path / "spec.yaml").write_text(json.dumps(SPEC))

    assert harness.load(SPEC).run_id == harness.load(tmp_path / "spec.yaml").run_id
    assert harness.load(str(tmp_path / "spec.yaml")).name == "small"


def test_an_experiment_says_its_grid_in_a_line_whatever_its_hardware_is():
    matrix = {"backend": "torch", "pattern": ["unstructured", "block"], "strategy": "one_shot", "sparsity": [0.5, 0.9]}
    experiment = harness.load(
        {"name": "grid", "task": "lstm_lm", "matrix": matrix | {"seed": [0, 1]}, "hardware": ["cycle_simulator"]}
    )

    assert repr(experiment) == f"<experiment {experiment.run_id}: 10 cells; pattern 2 x sparsity 2 x seed 2>"


def test_mistakes_are_told_by_place():
    with pytest.raises(SpecError, match=r"matrix\.pattern\[0\].*unstructured"):
        harness.load(SPEC | {"matrix": SPEC["matrix"] | {"pattern": ["unstructurd"]}})
    with pytest.raises(EmptySelectionError):
        harness.plan(SPEC, only="seed=7")


def test_a_store_without_runs_says_so(tmp_path):
    with pytest.raises(EmptySelectionError, match="no run"):
        harness.results(store=tmp_path)


def test_a_cell_without_a_result_is_a_row_with_its_reason():
    records = [
        Record(cell="a", task="t", backend="b", metric="accuracy", unit="%", better="higher", value=90.0, status="ok"),
        Record(cell="b", task="t", backend="b", pattern="p", status="failed", reason="it broke"),
    ]
    frame = Results("run", Path("run"), records).to_frame()

    assert frame["test accuracy [%]"].isna().tolist() == [False, True]
    assert frame["reason"].tolist() == ["", "it broke"]


def test_a_script_without_a_guard_runs(tmp_path):
    dense = SPEC | {"matrix": {"backend": "torch"}}
    (tmp_path / "script.py").write_text(
        f"import harness\nprint(harness.run({dense!r}, store='store', smoke=True, progress='none'))\n"
    )
    ran = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )

    assert ran.stdout.count("1 of 1 cells done") == 1, ran.stderr
