"""The example of a third party's package: installed as it stands, found, and run in both frameworks."""

import json
import shutil
from pathlib import Path

import pytest
from packages import install, run

PACKAGE = Path(__file__).parents[1] / "examples" / "third_party"

SPEC = """
name: acme
task: {name: lstm_lm, hidden: 20, batch: 4, steps: 5, epochs: 2, full_epochs: 1, train_tokens: 400, eval_tokens: 100}
scope: [lstm]
matrix:
  backend: [torch, keras_tfmot]
  pattern: [column_quota]
  strategy: [{name: two_step, epochs: 1}]
  sparsity: [0.8]
  seed: [0]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("third_party") / "site"
    install(PACKAGE, folder)
    return folder


def test_an_installed_package_is_found(site, tmp_path):
    listed = run(tmp_path, site, "-m", "harness", "plugins", "list", "--json")
    rows = {row["name"]: row for row in json.loads(listed.stdout) if row["distribution"] == "acme-sparsity"}

    assert rows.keys() == {"column_quota", "two_step", "quality_kept"}
    assert {row["state"] for row in rows.values()} == {"ok"}
    assert rows["two_step"]["version"] == "1.0.0"


def test_its_example_experiment_is_valid(site, tmp_path):
    done = run(tmp_path, site, "-m", "harness", "validate", str(PACKAGE / "experiment.yaml"))

    assert done.returncode == 0, done.stderr


def test_its_own_tests_inherit_the_checks_and_pass(site, tmp_path):
    shutil.copytree(PACKAGE / "tests", tmp_path / "tests")

    done = run(tmp_path, site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")

    # Three classes of three checks, and a test of its own.
    assert done.returncode == 0 and "10 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.torch
@pytest.mark.tensorflow
def test_an_experiment_with_it_runs_in_both_frameworks(site, tmp_path):
    (tmp_path / "acme.yaml").write_text(SPEC)

    done = run(tmp_path, site, "-m", "harness", "run", "acme.yaml", "--workers", "1")

    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "store" / "runs").glob("*/records.json")
    records = json.loads(path.read_text())["records"]
    pruned = [record for record in records if record["pattern"] == "column_quota"]
    assert [record["backend"] for record in pruned] == ["torch", "keras_tfmot"]
    assert {record["status"] for record in records} == {"ok"}
    assert {record["sparsity"] for record in pruned} == {0.8}
    assert {record["total_epochs"] for record in pruned} == {4}
