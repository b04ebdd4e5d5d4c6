"""A finished cell, packed: through the store, the command line and back."""

import json

import numpy as np
import pytest
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.unstructured import Unstructured
from safetensors.numpy import load_file
from toy import FineTuning, experiment
from typer.testing import CliRunner

from harness.cli import app
from harness.execution.export import export
from harness.execution.run import run
from harness.formats.packing import FORMATS, read_packed
from harness.formats.weights_files import read_weights


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The store, and the cells of two patterns and of the dense model by pattern."""
    store = tmp_path_factory.mktemp("store")
    done = run(experiment((FineTuning(),), patterns=(Unstructured(), BankBalanced(banks=5))), store=store, workers=1)
    return store, {record.pattern_name: record.cell for record in done.records}


def shell(*words):
    return CliRunner().invoke(app, ["export", *map(str, words)])


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "block"])
def test_a_packed_cell_gives_its_exact_weights_back(finished, tmp_path, form):
    store, cells = finished
    export(store, cells["bank_balanced"], tmp_path / "plain.safetensors")
    done = shell(cells["bank_balanced"], "--store", store, "--format", form, "-o", tmp_path / "cell.npz")
    plain, packed = load_file(tmp_path / "plain.safetensors"), read_packed(tmp_path / "cell.npz")

    assert (done.exit_code, done.stdout) == (0, f"wrote {tmp_path / 'cell.npz'}\n")
    assert packed.keys() == {name for name in plain if not name.endswith(".mask")}
    assert all(packed[name].dtype == plain[name].dtype for name in packed)
    assert all((packed[name] == plain[name]).all() for name in packed)


def test_memory_files_lie_in_their_folder(finished, tmp_path):
    store, cells = finished
    options = ("--format", "csb", "--banks", 5, "--hex", tmp_path / "hex", "--weight-bits", 8, "--pes", 2, "--lanes", 5)
    done = shell(cells["bank_balanced"], "--store", store, "-o", tmp_path / "cell.npz", *options)
    manifest = json.loads((tmp_path / "hex" / "output.kernel.json").read_text())
    values = np.array([int(line, 16) for line in (tmp_path / "hex" / "output.kernel.values.hex").read_text().split()])
    kernel = read_packed(tmp_path / "cell.npz")["output.kernel"]

    assert done.exit_code == 0, done.stderr
    assert {path.name for path in (tmp_path / "hex").iterdir()} == {
        "output.kernel.json",
        *(f"output.kernel.{part}.hex" for part in ("values", "indices", "pe0", "pe1")),
    }
    assert manifest["sizes"] == {"banks": 5, "kept": 2}
    restored = np.where(values < 128, values, values - 256) * manifest["scale"]
    banked = np.sort(restored[restored != 0])
    np.testing.assert_allclose(banked, np.sort(kernel[kernel != 0]), atol=manifest["scale"] / 2 * 1.0001)


def test_both_exports_are_workloads(finished, tmp_path):
    store, cells = finished
    shell(cells["bank_balanced"], "--store", store, "-o", tmp_path / "cell.safetensors")
    shell(cells["bank_balanced"], "--store", store, "-o", tmp_path / "cell.npz", "--format", "csb", "--banks", 5)
    plain, packed = (read_weights(tmp_path / f"cell.{kind}").workload for kind in ("safetensors", "npz"))

    assert packed.banks == {"output.kernel": 5}
    assert {tensor.name for tensor in plain.tensors} == {tensor.name for tensor in packed.tensors}
    np.testing.assert_array_equal(plain.masks["output.kernel"], packed.masks["output.kernel"])


@pytest.mark.parametrize(
    ("pattern", "options", "reason"),
    [
        ("unstructured", ("--format", "csb"), "output.kernel: csb: every bank of every row"),
        ("bank_balanced", ("--format", "block"), "output.kernel: block: weights must be kept or dropped in blocks"),
        ("", ("--format", "csr"), "dense, so there is nothing to pack"),
        ("bank_balanced", ("--banks", "5"), "--banks are for packed formats"),
        ("bank_balanced", ("--format", "csb", "--pes", "2", "--lanes", "2"), "add --hex DIR"),
        ("bank_balanced", ("--format", "csb", "--hex", "hex", "--pes", "2"), "`pes` and `lanes`"),
        ("bank_balanced", ("--format", "csr", "--hex", "hex", "--pes", "2", "--lanes", "2"), "need format csb"),
    ],
)
def test_what_cannot_be_packed_leaves_nothing_behind(finished, tmp_path, monkeypatch, pattern, options, reason):
    store, cells = finished
    monkeypatch.chdir(tmp_path)
    done = shell(cells[pattern], "--store", store, *options)

    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert reason in " ".join(done.stderr.split())
