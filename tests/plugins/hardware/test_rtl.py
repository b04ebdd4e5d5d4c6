"""The cycle models against our own Verilog, and the Verilog against NumPy's integers."""

import shutil

import numpy as np
import pytest
from harness_plugins.hardware._rtl import cases as _rtl
from harness_plugins.hardware._rtl import simulate as _rtl_run
from harness_plugins.hardware._rtl.cases import (
    BANK_LATENCY,
    COLUMN_DRAIN_LATENCY,
    RECORDED,
    BankCase,
    ColumnCase,
    MaskRecipe,
    Recorded,
    recorded,
    rtl_bank_check,
    rtl_column_check,
)
from harness_plugins.hardware._rtl.simulate import find_simulator, run_bank, run_column, simulator_version
from harness_plugins.hardware._rtl.synthesis import find_yosys, synthesise
from harness_plugins.hardware.engines.bank import Bank
from harness_plugins.hardware.engines.column_fifo import ColumnFifo

from harness.api import Conditions, HarnessError, Part, Product, ShapeError

CASES = (*recorded().bank, *recorded().column)

NAMES = [f"{type(case).__name__}: {case.name}" for case in CASES]


ONE_ROW_PER_PE = MaskRecipe(rows=8, cols=30, density=0.5)  # products of one sum follow each other at once


def is_there(simulator):
    return all(map(shutil.which, _rtl_run._COMMANDS[simulator]))


needs_simulator = pytest.mark.skipif(find_simulator() is None, reason="neither Verilator 5 nor Icarus is installed")
needs_icarus = pytest.mark.skipif(not is_there("icarus"), reason="Icarus is not installed")


@pytest.fixture(scope="module")
def built(request):
    """Built benches, kept between runs of pytest: their names hold a digest of the sources."""
    return request.config.cache.mkdir("harness-rtl")


@pytest.fixture
def no_tools(monkeypatch):
    monkeypatch.setenv("PATH", "")


def column_case(**changes):
    case = {"name": "", "mask": MaskRecipe(rows=20, cols=30, density=0.3), "groups": 1, "pes": 8, "depth": 2}
    return ColumnCase(**case | changes)


def bank_case(**changes):
    case = {"name": "", "mask": MaskRecipe(rows=20, cols=40, density=0.3), "pes": 3, "lanes": 5, "banks": 10}
    return BankCase(**case | changes)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_model_takes_the_recorded_cycles_of_the_rtl(case):
    assert case.expected() == case.answer()


def test_the_recorded_cases_cover_what_can_go_wrong():
    bank, column = recorded().bank, recorded().column

    assert {(case.pes, case.lanes) for case in bank} == {(4, 16), (3, 5)}
    assert {case.lockstep for case in bank} == {False, True}
    assert max(-(-case.banks // case.lanes) for case in bank) >= 7
    assert any(case.mask.cols % case.banks for case in bank)
    assert any(case.mask.rows % case.pes for case in bank) and any(case.mask.rows == 1 for case in bank)
    assert any((case.mask.mask().sum(axis=1) == 0).any() for case in bank)
    assert {(case.groups, case.pes) for case in column} == {(1, 8), (4, 8)}
    assert {(case.depth, case.groups, case.full_flag) for case in column} >= {
        (depth, groups, flag)
        for depth in (1, 2, 16)
        for groups in (1, 4)
        for flag in ("registered", "same_cycle", "late")
        if depth > 1 or flag != "late"
    }


def test_the_bank_model_has_the_latency_of_the_rtl():
    model = bank_case(lanes=5).model()

    assert model.parts["fill_drain"] == 3 + BANK_LATENCY


def test_without_a_simulator_the_checks_use_what_was_recorded(no_tools):
    bank, column = rtl_bank_check(), rtl_column_check()

    assert bank.holds and column.holds
    assert not bank.is_live and not column.is_live
    assert bank.simulator == recorded().tools["simulator"]
    assert (bank.cases, column.cases) == (len(recorded().bank), len(recorded().column))


def test_a_model_that_is_one_cycle_off_does_not_hold(no_tools, monkeypatch):
    monkeypatch.setattr(_rtl, "BANK_LATENCY", BANK_LATENCY + 1)

    check = rtl_bank_check()

    assert check.worst_deviation == 1
    assert not check.holds


def test_simulators_that_are_too_old_or_broken_are_not_used(tmp_path, monkeypatch):
    for name in ("verilator", "g++", "make", "iverilog", "vvp"):
        said = "Verilator 4.038 2020-07-11" if name == "verilator" else "cannot find its files"
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{said}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_simulator() is None


def test_without_a_simulator_running_the_rtl_says_what_to_install(no_tools, tmp_path):
    with pytest.raises(HarnessError, match="takes `verilator` or `iverilog`, got neither"):
        bank_case().run(tmp_path)


@pytest.mark.parametrize(
    ("run", "shape", "what"),
    [
        (lambda mask: run_bank(mask, pes=1, lanes=1, banks=17), (2, 80), "16 waves, got 17"),
        (lambda mask: run_bank(mask, pes=1, lanes=4, banks=1), (2, 80), "64 columns per bank, got 80"),
        (lambda mask: run_bank(mask, pes=4, lanes=4, banks=4), (16400, 4), "16384 rows, got 16400"),
        (lambda mask: run_bank(mask, pes=1, lanes=1, banks=1), (100, 50), "4096 words per PE, got 5000"),
        (lambda mask: run_column(mask, groups=1, pes=8, depth=17), (2, 80), "16 FIFO slots, got 17"),
        (lambda mask: run_column(mask, groups=1, pes=1, depth=8), (600, 2), "512 rows per PE, got 600"),
        (lambda mask: run_column(mask, groups=1, pes=1, depth=8), (1, 2048), "2047 columns per group, got 2048"),
        (lambda mask: run_column(mask, groups=1, pes=1, depth=8), (500, 40), "16384 words per PE, got 20000"),
    ],
)
def test_a_matrix_too_large_for_a_bench_is_refused(run, shape, what):
    with pytest.raises(ShapeError, match=what):
        run(np.ones(shape, dtype=bool))


@pytest.mark.rtl
@needs_simulator
def test_the_rtl_agrees_with_the_models_on_every_case(built, request):
    if request.config.getoption("--update-golden"):
        RECORDED.write_text(recorded_anew(built).model_dump_json(indent=1) + "\n", encoding="utf-8")
        recorded.cache_clear()

    checks = rtl_bank_check(built), rtl_column_check(built)

    for check in checks:
        assert check.is_live
        assert (check.worst_deviation, check.wrong) == (0, 0)


def recorded_anew(built):
    old = recorded()
    return Recorded(
        tools={"simulator": simulator_version(find_simulator())},
        bank=tuple(case.record(case.run(built)) for case in old.bank),
        column=tuple(case.record(case.run(built)) for case in old.column),
        synthesis=tuple(synthesise(item.template, item.family) for item in old.synthesis)
        if find_yosys()
        else old.synthesis,
    )


@pytest.mark.rtl
@needs_icarus
@pytest.mark.parametrize(
    "case",
    [
        *(case for case in recorded().bank if case.lanes == 5),
        recorded().bank[2],
        *(case for case in recorded().column if case.groups == 1 and case.depth < 4),
        recorded().column[8],
    ],
    ids=lambda case: case.name,
)
def test_icarus_counts_the_same_cycles(case, built):
    assert case.run(built, "icarus") == case.answer()


@pytest.mark.rtl
@needs_icarus
def test_the_rtl_agrees_on_an_lstm_layer_with_its_matrices_side_by_side_and_its_gates_together(built):
    kernel, recurrent = (MaskRecipe(kind="magnitude", rows=40, cols=cols, density=0.2).mask() for cols in (25, 10))
    parts = [Part(name, *mask.shape, mask, int(mask.sum())) for name, mask in (("kernel", kernel), ("rec", recurrent))]
    layer = Product("lstm_0", tuple(parts), units=10)
    bank, column = Bank(pes=3, lanes=5, banks=7), ColumnFifo(pes=8, groups=4, fifo_depth=2)

    on_bank = run_bank(layer.mask, pes=3, lanes=5, banks=7, cache=built, simulator="icarus")
    on_column = run_column(layer.mask, pes=8, groups=4, depth=2, cache=built, simulator="icarus")

    assert (on_bank.wrong, on_column.wrong) == (0, 0)
    assert on_bank.cycles == bank.simulate(layer, bank.fixed_shape([layer], 15), Conditions()).cycles
    model = column.simulate(layer, column.fixed_shape([layer], 32), Conditions())
    assert on_column.cycles == model.issue_cycles + 1 + COLUMN_DRAIN_LATENCY  # the first broadcast fills the pipeline


@pytest.mark.rtl
@needs_simulator
def test_operands_do_not_change_the_cycles(built):
    mask = MaskRecipe(rows=20, cols=40, density=0.3).mask()

    first, second = (run_bank(mask, pes=3, lanes=5, banks=10, seed=seed, cache=built) for seed in (1, 2))

    assert first == second


@pytest.mark.rtl
@needs_icarus
@pytest.mark.parametrize(
    ("file", "line", "fault", "case"),
    [
        ("column_pe", "valid_3 && row_3 == row_2 ? sum_3 : stored", "stored", column_case(mask=ONE_ROW_PER_PE)),
        ("column_engine", "sum = upto[group-1].sum + partial[", "sum = partial[", column_case(groups=4)),
        ("bank_pe", "read_address({half, wave,", "read_address({half, {WAVE_BITS{1'b0}},", bank_case()),
        ("bank_pe", "ends[STAGES-1] ? 0 : total", "total", bank_case()),
        ("adder_tree", "left + right", "left", bank_case()),
    ],
    ids=["no forwarding", "groups not added", "wave ignored", "sums never cleared", "half of the lanes lost"],
)
def test_a_fault_in_the_verilog_gives_wrong_results(file, line, fault, case, tmp_path, monkeypatch):
    sources = shutil.copytree(_rtl_run.SOURCES, tmp_path / "rtl")
    path = sources / f"{file}.v"
    assert line in path.read_text()
    path.write_text(path.read_text().replace(line, fault))
    monkeypatch.setattr(_rtl_run, "SOURCES", sources)

    assert case.run(tmp_path, "icarus").wrong > 0


@pytest.mark.rtl
@needs_icarus
def test_a_bench_is_built_once_per_shape_and_source(tmp_path):
    for seed in (1, 2):
        bank_case(mask=MaskRecipe(rows=4, cols=10, density=0.3, seed=seed)).run(tmp_path, "icarus")
    column_case().run(tmp_path, "icarus")

    assert [path.name.rsplit("-", 1)[0] for path in sorted(tmp_path.iterdir())] == [
        "bank-3x5-icarus",
        "column-1x8-icarus",
    ]


@pytest.mark.rtl
@needs_icarus
def test_verilog_that_does_not_compile_is_an_error_with_the_tool_s_words(tmp_path, monkeypatch):
    sources = shutil.copytree(_rtl_run.SOURCES, tmp_path / "rtl")
    (sources / "stream.v").write_text("module stream; nonsense")
    monkeypatch.setattr(_rtl_run, "SOURCES", sources)

    with pytest.raises(HarnessError, match=r"(?s)iverilog should succeed, got exit code .*stream\.v"):
        bank_case().run(tmp_path, "icarus")


@pytest.mark.rtl
@pytest.mark.slow
@needs_simulator
@pytest.mark.parametrize("lockstep", [False, True])
def test_an_array_of_16_by_64_agrees_too(lockstep, built):
    mask = MaskRecipe(kind="magnitude", rows=300, cols=650, density=0.1, seed=5)
    case = bank_case(mask=mask, pes=16, lanes=64, banks=100, lockstep=lockstep)

    assert case.run(built) == case.expected()
