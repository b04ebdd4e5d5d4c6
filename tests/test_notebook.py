"""The notebook of the examples runs as it stands, and shows plan, progress and report as HTML."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.execution.eta import Tally
from harness.execution.notebook import NotebookProgress, is_notebook

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"
RUNNER = Path(__file__).parent / "support" / "run_notebook.py"


@pytest.mark.torch
def test_the_notebook_runs_and_shows_plan_progress_and_report(tmp_path):
    names = ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")
    own = {name: str(tmp_path / name) for name in names}
    done = subprocess.run(
        [sys.executable, RUNNER, NOTEBOOK, tmp_path / "ran.ipynb"],
        env=os.environ | own, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((tmp_path / "ran.ipynb").read_text())["cells"]

    code = [cell for cell in cells if cell["cell_type"] == "code"]
    shown = [["".join(o.get("data", {}).get("text/html", "")) for o in cell["outputs"]] for cell in code]
    assert any("bank_balanced(banks=4)" in html and "<table" in html for html in shown[2])  # the plan
    assert any("<progress" in html and "epochs" in html for html in shown[3])
    assert any("<svg" in html and "synthetic LSTM" in html for html in shown[3])  # the report
    assert any("test perplexity" in html for html in shown[4])
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_the_notebook_is_committed_without_outputs_and_paths():
    notebook = json.loads(NOTEBOOK.read_text())

    assert all(cell.get("outputs", []) == [] and cell.get("execution_count") is None for cell in notebook["cells"])
    assert os.sep + "home" not in NOTEBOOK.read_text()


def test_progress_says_what_runs_what_is_done_and_what_failed(monkeypatch):
    drawn = []
    monkeypatch.setattr(NotebookProgress, "_draw", lambda self, now=False: drawn.append(self._repr_html_()))
    bill = dict.fromkeys(
        ("cells", "cells_cached", "cells_skipped", "epochs_to_run", "epochs", "epochs_without_sharing"), 3
    )
    told = NotebookProgress()
    told.begin(bill, 2)
    told.started("a", "torch · <b>")
    told.step("a", 1, 9)
    told.finished("a", "torch", "valid 3.0", Tally(1, 3), is_epoch=True)
    told.failed("b", "torch", "oom", "1 PiB is too much")
    told.end()

    assert "3 cells" in drawn[0] and "torch · &lt;b&gt;" in drawn[1] and "step 1/9" in drawn[2]
    assert 'value="1" max="3"' in drawn[3] and "valid 3.0" in drawn[3]
    assert "oom: 1 PiB is too much" in drawn[-1] and "step 1/9" not in drawn[-1]


def test_a_test_is_no_notebook():
    assert not is_notebook()
