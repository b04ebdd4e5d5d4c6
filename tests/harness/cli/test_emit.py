"""`harness hardware emit` as its users meet it."""

import json

import numpy as np
import pytest
from harness_plugins.hardware._rtl.running import find_for_benches
from typer.testing import CliRunner

from harness.api import BenchRun
from harness.cli import app
from harness.costing import emission

needs_simulator = pytest.mark.skipif(find_for_benches() is None, reason="neither Icarus nor Verilator 5 is installed")


@pytest.fixture
def shell(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(9, 12)) * (rng.random((9, 12)) < 0.4)
    np.savez(tmp_path / "one.npz", fc=weights)
    np.savez(tmp_path / "two.npz", a=weights, b=weights.T)
    lstm = {name: rng.normal(size=(24, 6)) * (rng.random((24, 6)) < 0.5) for name in ("weight_ih_l0", "weight_hh_l0")}
    np.savez(tmp_path / "lstm.npz", **lstm)
    (tmp_path / "sizes.yaml").write_text("layers: [{type: dense, name: fc, inputs: 8, outputs: 8}]\n")
    monkeypatch.chdir(tmp_path)

    def run(*words, **variables):
        return CliRunner().invoke(app, ["hardware", "emit", *map(str, words)], env={"COLUMNS": "80", **variables})

    return run


@pytest.mark.rtl
@needs_simulator
def test_a_design_says_what_its_bench_found(shell, tmp_path):
    done = shell("one.npz", "--engine", "bank:pes=2,lanes=3", "-o", "design", "--vectors", 3)

    assert done.exit_code == 0, done.stderr
    assert "bank_fc_top in design: 2 processing elements of 3 lanes" in done.stdout
    assert "ran 6 products: all 30 beats of results as expected, every product in" in done.stdout
    assert {path.name for path in (tmp_path / "design").iterdir()} == {
        "Makefile", "README.md", "bench", "mem", "rtl", "synth",
    }  # fmt: skip


@pytest.mark.rtl
@needs_simulator
def test_a_whole_lstm_layer_runs_step_by_step(shell, tmp_path):
    done = shell("lstm.npz", "--engine", "bank:pes=8,lanes=4", "--whole-layer", "-o", "design")

    assert done.exit_code == 0, done.stderr
    assert "bank_lstm_l0_top in design: the whole LSTM layer, 8 processing elements of 4 lanes, 2 units" in done.stdout
    assert "ran 8 products: all 24 beats of results as expected" in done.stdout
    assert "A reset sets h and c to zero." in (tmp_path / "design" / "README.md").read_text()


def test_without_a_simulator_it_says_that_the_bench_was_not_run(shell, tmp_path):
    done = shell("one.npz", "--engine", "column_fifo:pes=2,groups=2", "-o", "design", PATH="")

    assert done.exit_code == 0, done.stderr
    assert "bench: NOT RUN, no simulator is installed" in done.stdout
    assert (tmp_path / "design" / "rtl" / "column_accelerator.v").exists()


@pytest.mark.parametrize(
    "found",
    [dict(wrong=1), dict(off=1), dict(products=3), dict(values=0)],
    ids=["a result differs", "a cycle differs", "a product is missing", "nothing was compared"],
)
def test_a_bench_that_finds_a_fault_is_a_failed_gate(shell, tmp_path, monkeypatch, found):
    run = dict(simulator="it", products=4, values=20, wrong=0, cycles=7, expected=7, off=0, wanted=4) | found
    monkeypatch.setattr(emission, "simulated_by", lambda model, folder: BenchRun(**run))

    done = shell("one.npz", "--engine", "bank:pes=2,lanes=3", "-o", "design", "--json")

    assert done.exit_code == 6
    assert json.loads(done.stdout)["bench"]["holds"] is False
    assert (tmp_path / "design" / "README.md").exists()  # to be looked at


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("two.npz", "--engine", "bank"), "--layer: a design has one layer, expected one of a"),
        (("two.npz", "--engine", "bank", "--layer", "c"), "got 'c'; name it"),
        (("one.npz", "--engine", "n_m"), "engine n_m cannot run 'fc'"),
        (("one.npz", "--engine", "dense_mvm"), "engine dense_mvm has no Verilog"),
        (("one.npz", "--engine", "bank", "--set", "codebook=16"), "holds weights and no codebook"),
        (("one.npz", "--engine", "bank", "--whole-layer"), "--whole-layer is for LSTM layers, got 'fc', which is none"),
        (("lstm.npz", "--engine", "column_fifo", "--whole-layer"), "is an LSTM layer on bank, got column_fifo"),
        (
            ("lstm.npz", "--engine", "bank:pes=6", "--whole-layer"),
            "takes a multiple of 4 processing elements, got pes=6",
        ),
        (("one.npz", "--engine", "banks"), "unknown engine 'banks'"),
        (("sizes.yaml", "--engine", "bank"), "describes layers by size: a design needs masks"),
        (("missing.npz", "--engine", "bank"), "missing.npz"),
        (("some cell", "--engine", "bank", "--store", "nowhere"), "no run in nowhere"),
    ],
)
def test_mistakes_are_told_and_leave_nothing_behind(shell, tmp_path, words, message):
    done = shell(*words, "-o", "design")

    assert done.exit_code in (2, 5)
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "design").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
