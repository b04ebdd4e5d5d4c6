"""`harness hardware` as its users meet it: files in, tables or JSON out, exit codes."""

import csv
import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import perfetto_reader
import pytest
from harness_plugins.hardware._validation import CAVEAT, DEFAULT_TARGETS
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner
from uncut import WIDTHS, check_uncut

from harness.api import Cost, SpecError
from harness.cli import _searching, app
from harness.costing import checks as checking
from harness.costing import cost_tables, costs, tables
from harness.costing import sweep as designs
from harness.costing.trace import trace
from harness.costing.workload import read_given
from harness.discovery.finding import discover

EXAMPLES = Path(__file__).parents[3] / "examples"

BANK, COLUMN = "bank:pes=4,lanes=4", "column_fifo:pes=4,groups=2"
SLOW_START = "csr_stream:channels=1,pairs_per_cycle=1"

WORKLOAD = """
layers:
  - {type: lstm, name: rnn, inputs: 16, units: 8, density: 0.25, banks: 4}
  - {type: dense, name: out, inputs: 8, outputs: 10}
"""


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str

    @property
    def json(self):
        return json.loads(self.stdout)


def balanced(rows, cols, banks, kept, seed=0):
    """A mask with equally filled banks."""
    scores = np.random.default_rng(seed).random((rows, banks, cols // banks))
    ranks = scores.argsort(axis=2).argsort(axis=2)
    return (ranks < kept).reshape(rows, cols)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Masks of a small LSTM and of a layer that no bank divides evenly, and the descriptions of the tests."""
    folder = tmp_path_factory.mktemp("hardware")
    lstm = {"rnn.weight_ih_l0": balanced(32, 16, 4, 1), "rnn.weight_hh_l0": balanced(32, 8, 4, 1, seed=1)}
    np.savez(folder / "lstm.npz", **lstm)
    np.savez(folder / "uneven.npz", layer=np.random.default_rng(2).random((24, 16)) < 0.3)
    np.savez(folder / "wide.npz", layer=np.random.default_rng(3).random((6, 20)) < 0.5)
    np.savez(folder / "conv.npz", conv=np.ones((2, 1, 3, 3)))
    (folder / "workload.yaml").write_text(WORKLOAD)
    (folder / "engine.yaml").write_text("name: bank\npes: 2\nlanes: 4\nlabel: mine\n")
    return folder


@pytest.fixture
def harness(folder, monkeypatch):
    def run(*arguments, **variables):
        monkeypatch.chdir(folder)
        done = CliRunner().invoke(app, ["hardware", *map(str, arguments)], env={"COLUMNS": "120", **variables})
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


def rows(done):
    assert done.returncode == 0, done.stderr
    return {row["engine"]: row for row in done.json["rows"]}


def only_row(done):
    (row,) = rows(done).values()
    return row


# --- list -----------------------------------------------------------------------------------------------------------


def test_engines_and_devices_are_listed_with_the_origin_of_every_figure(harness):
    done = harness("list")

    assert done.returncode == 0
    for word in ("column_fifo", "fifo_depth", "arria10_gx1150", "xcu250", "uram", "ʳ read in its source", "ᵃ assumed"):
        assert word in done.stdout


def test_the_list_as_json_has_sources_and_parameters(harness):
    listed = harness("list", "--json").json

    assert {engine["name"] for engine in listed["engines"]} == set(discover().names("engine"))
    bank = next(engine for engine in listed["engines"] if engine["name"] == "bank")
    assert {"pes", "lanes", "lockstep"} <= bank["parameters"].keys() and "label" not in bank["parameters"]
    device = next(device for device in listed["devices"] if device["device"] == "arria10_gx1150")
    assert {"value", "origin", "source"} <= device["DSP"].keys() and device["DSP"]["source"]


# --- cost -----------------------------------------------------------------------------------------------------------


def test_every_engine_is_a_row_and_those_that_cannot_run_it_say_why(harness):
    found = rows(harness("cost", "uneven.npz", "--json"))

    assert set(found) == set(discover().names("engine"))
    assert "cannot run 'layer'" in found["mcbbs_systolic"]["reason"]
    assert found["bank"]["cycles"] >= -(-int(np.load("uneven.npz")["layer"].sum()) // found["bank"]["multipliers"])


def test_the_table_of_a_small_lstm_is_as_it_was(harness, golden):
    done = harness("cost", "lstm.npz", "--engine", BANK, "--engine", COLUMN, "--engine", "block",
                   "--steps", 10, "--batch", 3, "--clock", 200, "--full")  # fmt: skip

    assert done.returncode == 0, done.stderr
    golden("hardware_cost_120", "\n".join(line.rstrip() for line in done.stdout.splitlines()))


def test_the_answer_comes_first_and_one_table_of_eighty_columns_after_it(harness, golden):
    done = harness("cost", "lstm.npz", "--engine", BANK, "--engine", COLUMN, "--engine", "block",
                   "--breakdown", "column_fifo", COLUMNS="80")  # fmt: skip

    assert done.returncode == 0, done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[0].startswith("best: bank(pes=4, lanes=4)")
    assert max(map(len, lines)) <= 80
    golden("hardware_cost_80", "\n".join(lines))


def test_a_long_search_tells_on_stderr_how_long_each_engine_took(harness, monkeypatch):
    arguments = ("cost", "lstm.npz", "--engine", BANK, "--engine", COLUMN, "-f", "csv")
    monkeypatch.setattr(_searching, "_LONG_S", 1e9)  # no machine is that slow
    short = harness(*arguments)
    monkeypatch.setattr(_searching, "_LONG_S", 0.0)
    long = harness(*arguments)

    assert "searched shapes" not in short.stderr
    assert re.search(r"^searched shapes: ", long.stderr, re.MULTILINE)
    assert long.stdout == short.stdout


def test_costs_tell_each_engine_before_and_after_it(folder):
    registry, told = discover(), []
    workload = read_given(folder / "lstm.npz").workload
    request = costs.Request(engines=({"name": "bank", "pes": 4, "lanes": 4}, {"name": "block"}))

    def tell(engine, seconds, number, of):
        told.append((engine, seconds is None, number, of))

    costs.costs(registry, workload, request, tell)

    assert told == [
        ("bank(pes=4, lanes=4)", True, 1, 2), ("bank(pes=4, lanes=4)", False, 1, 2),
        ("block", True, 2, 2), ("block", False, 2, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(("command", "doing"), [("cost", "searching shapes"), ("sweep", "costing designs")])
def test_a_pipe_is_told_each_engine_of_how_many_where_that_is_asked_for(harness, command, doing):
    arguments = (command, "lstm.npz", "--engine", "dense_mvm", "--engine", "n_m", "--model", "cycle_simulator")
    arguments += ("--sizes", "16") if command == "sweep" else ("--multipliers", "16")
    silent, plain = harness(*arguments), harness(*arguments, "--progress", "plain")

    assert doing not in silent.stderr
    lines = [line for line in plain.stderr.splitlines() if doing in line]
    assert [re.sub(r", \d+ s\)", ")", line.partition(doing)[2]) for line in lines] == [
        ": dense_mvm (1 of 2)", ": n_m (2 of 2)",
    ]  # fmt: skip
    assert plain.stdout == silent.stdout


def test_a_breakdown_of_an_engine_that_is_not_there_or_cannot_is_refused(harness):
    unknown = harness("cost", "lstm.npz", "--engine", BANK, "--breakdown", "bnak")
    unable = harness("cost", "lstm.npz", "--engine", BANK, "--engine", "block", "--breakdown", "block")

    assert (unknown.returncode, unable.returncode) == (2, 2)
    assert "--breakdown: no engine is called 'bnak'; there is bank(pes=4, lanes=4)" in unknown.stderr
    assert "--breakdown: block cannot run this workload: engine block cannot run" in unable.stderr


@pytest.mark.parametrize("form", ["svg", "html", "png"])
def test_a_cost_is_drawn_with_its_cycles_loads_roofline_and_masks(harness, form):
    done = harness("cost", "lstm.npz", "--engine", BANK, "--engine", COLUMN, "-o", f"out/cost.{form}", "-f", "csv")
    content = Path("out", f"cost.{form}").read_bytes()

    assert done.returncode == 0, done.stderr
    assert f"wrote out/cost.{form}" in done.stderr
    if form == "png":
        assert content.startswith(b"\x89PNG")
        return
    text = content.decode()
    for words in ("Where the cycles go", "Load of the processing elements", "Where the masks keep weights", "rnn."):
        assert words in text
    if form == "svg":
        root = ElementTree.fromstring(text)
        titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
        row = only_row(harness("cost", "lstm.npz", "--engine", BANK, "--json"))
        compute = row["details"]["layers"]["rnn.l0"]["parts"]["compute"]
        assert f"{row['engine']}: compute {compute:g} of {row['cycles']:g}" in titles


def test_a_picture_of_another_kind_is_refused_before_anything_is_costed(harness):
    done = harness("cost", "missing.npz", "-o", "cost.bmp")

    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "-o: expected a file ending in .html, .svg, .png, .pdf, got 'cost.bmp'; rename it"
    )


def test_every_number_stands_in_the_tables_at_every_width(folder):
    registry = discover()
    given = read_given(folder / "lstm.npz")
    costed = costs.report(registry, given.workload, costs.Request(), costs.Load(3, 10), ("a note of one sentence",))
    points = designs.sweep(registry, given.workload, costs.Request(), designs.Grid((64,), (2,)))
    checks = checking.all_checks(registry, targets(folder, "some.yaml", "hisparse", "nm_exact", "bbs_latency"))
    documents = {
        "cost": cost_tables.cost_document(costed),
        "list": tables.list_document(costs.engine_rows(registry), costs.device_rows(registry)),
        "sweep": tables.sweep_document(points, everything=True),
        "validate": tables.check_document(checks, checking.caveats(registry), checking.summary(checks)),
    }

    for document in documents.values():
        for width in WIDTHS:
            check_uncut(document, width)


def test_costs_as_csv_have_every_figure_of_the_json_unrounded(harness):
    engines = ("--engine", BANK, "--engine", "mcbbs_systolic")
    done, found = (
        harness("cost", "uneven.npz", *engines, "-f", "csv"),
        harness("cost", "uneven.npz", *engines, "--json"),
    )

    lines = list(csv.DictReader(StringIO(done.stdout)))
    assert [line["engine"] for line in lines] == [row["engine"] for row in found.json["rows"]]
    costed, refused = lines
    row, other = found.json["rows"]
    assert refused["reason"] == other["reason"] and refused["cycles"] == ""
    for name in ("cycles", "latency_us", "speedup", "ram_blocks", "break_even_clock_ratio"):
        assert float(costed[name]) == row[name]
    assert (costed["shape"], costed["fits"]) == (row["shape"], "yes" if row["fits"] else "no")


def test_costs_as_markdown_have_the_tables_of_the_terminal(harness):
    done = harness("cost", "lstm.npz", "--engine", BANK, "--format", "md", COLUMNS="40")

    assert done.returncode == 0 and done.stdout.startswith("# Hardware cost\n")
    lines = done.stdout.splitlines()
    assert "## cycle_simulator: one time step or item at batch 1" in lines
    row = next(line for line in lines if line.startswith("| bank"))
    cycles = str(only_row(harness("cost", "lstm.npz", "--engine", BANK, "--json"))["cycles"])
    assert [cell.strip() for cell in row.split("|")][3] == cycles
    assert harness("cost", "lstm.npz", "--engine", BANK, "-f", "json").json["rows"]


def test_masks_are_counted_and_descriptions_are_expected(harness):
    masks = only_row(harness("cost", "lstm.npz", "--engine", BANK, "--json"))
    sizes = only_row(harness("cost", "workload.yaml", "--engine", BANK, "--json"))
    option = only_row(harness("cost", "--workload", "workload.yaml", "--engine", BANK, "--json"))

    assert (masks["model"], sizes["model"]) == ("cycle_simulator", "fpga_analytic")
    assert (masks["exact"], sizes["exact"]) == (True, False)
    assert option == sizes


@pytest.mark.parametrize("example", sorted((EXAMPLES / "workloads").iterdir()), ids=lambda path: path.name)
def test_the_examples_run_as_they_stand(harness, example):
    done = harness("cost", example, "--engine", "column_fifo", "--engine", "dense_systolic", "--json")

    assert all(row["cycles"] > 0 and row["dense_cycles"] > 0 for row in rows(done).values())


def test_both_models_agree_on_banks_that_are_equally_filled(harness):
    done = harness("cost", "lstm.npz", "--engine", BANK, "--model", "all", "--json")

    assert done.returncode == 0
    simulated, expected = done.json["rows"]
    assert (simulated["model"], expected["model"]) == ("cycle_simulator", "fpga_analytic")
    assert simulated["cycles"] == expected["cycles"]


def test_a_model_that_needs_masks_says_so_and_ends_with_1(harness):
    done = harness("cost", "workload.yaml", "--engine", BANK, "--model", "cycle_simulator")

    assert done.returncode == 1
    assert "give masks, or take fpga_analytic" in " ".join(done.stdout.split())


def test_steps_and_batch_make_a_sequence_and_a_total(harness):
    streams = "column_fifo:pes=4,groups=1,channels=2"
    done = harness("cost", "lstm.npz", "--engine", BANK, "--engine", streams, "--steps", 7, "--batch", 5, "--json")
    plain, shared = rows(done).values()

    assert plain["sequence_us"] == pytest.approx(7 * plain["latency_us"])
    assert plain["total_us"] == pytest.approx(5 * plain["sequence_us"])
    assert shared["streams"] == 2 and shared["total_us"] == pytest.approx(3 * shared["sequence_us"])
    assert shared["load_steps_per_s"] == pytest.approx(35e6 / shared["total_us"])


def test_engines_that_serve_a_batch_at_once_are_costed_with_it_beside_one_input_after_another(harness):
    done = harness("cost", "lstm.npz", "--engine", BANK, "--engine", COLUMN, "--engine", "bank:batch=2", "--steps", 7,
                   "--batch", 5, "--json")  # fmt: skip
    single, together = rows(done)["bank(pes=4, lanes=4)"], done.json["batched"]

    assert [row["streams"] for row in together] == [5, 5]  # in both orders; who sets a batch gets that one
    for row in together:
        assert row["latency_us"] > single["latency_us"] and row["total_us"] == row["sequence_us"] < single["total_us"]
        assert row["load_steps_per_s"] > single["load_steps_per_s"]
    assert harness("cost", "lstm.npz", "--engine", BANK, "--json").json["batched"] == []


def test_the_break_even_clock_ratio_is_cycles_over_those_of_the_fastest(harness):
    found = rows(harness("cost", "lstm.npz", "--engine", BANK, "--engine", COLUMN, "--json"))
    best = min(found.values(), key=lambda row: row["latency_us"])

    for row in found.values():
        assert row["break_even_clock_ratio"] == pytest.approx(row["cycles"] / best["cycles"])


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        (["--clock", "123.5"], "clock_mhz", 123.5),
        (["--device", "xcu250"], "ram_kind", "bram_18k"),
        (["--device", str(EXAMPLES / "devices" / "small_card.yaml")], "ram_kind", "bram_18k"),
        (["--set", "launch_us=10,elementwise_latency=0"], "bound_by", "launch"),
        (["--engine", "engine.yaml"], "shape", "pes=2 lanes=4"),
        (["--engine", "bank:pes=8,lanes=2"], "shape", "pes=8 lanes=2"),
        (["--engine", "bank:lockstep=true,pes=8,lanes=2,label=locked"], "engine", "locked"),
    ],
)
def test_an_option_is_seen_in_the_cost(harness, options, key, value):
    engine = [] if "--engine" in options else ["--engine", BANK]

    row = only_row(harness("cost", "lstm.npz", *engine, *options, "--json"))

    assert row[key] == value


@pytest.mark.parametrize(
    ("file", "engine", "options", "changed"),
    [
        ("lstm.npz", "bank", ["--multipliers", "8"], "multipliers"),
        ("lstm.npz", "bank:pes=4,lanes=2", ["--weight-bits", "4"], "details"),
        ("lstm.npz", BANK, ["--act-bits", "4"], "details"),
        ("uneven.npz", COLUMN, ["--acc-bits", "64"], "details"),
        ("lstm.npz", BANK, ["--inputs", "known_ahead"], "details"),
        ("uneven.npz", SLOW_START, ["--bandwidth", "0.01"], "cycles"),
        ("uneven.npz", COLUMN, ["--activation-density", "0.2"], "cycles"),
        ("uneven.npz", COLUMN, ["--activation-density", "layer=0.2"], "cycles"),
        ("wide.npz", "dense_mvm:pes=2,lanes=8", ["--layout", "rows_in"], "cycles"),
    ],
)
def test_an_option_changes_the_cost(harness, file, engine, options, changed):
    before = only_row(harness("cost", file, "--engine", engine, "--json"))
    after = only_row(harness("cost", file, "--engine", engine, *options, "--json"))

    assert before[changed] != after[changed]


def test_banks_that_a_mask_has_are_taken_and_others_told(harness):
    taken = harness("cost", "lstm.npz", "--banks", 4, "--engine", BANK, "--json").json
    refused = harness("cost", "uneven.npz", "--banks", 4, "--engine", BANK, "--json").json

    assert taken["notes"] == []
    assert any("bank" in note for note in refused["notes"])


@pytest.mark.parametrize("mask", [np.zeros((6, 5), bool), np.ones((1, 1)), np.ones((7, 1)), np.eye(1, 9)])
def test_the_smallest_masks_are_costed_or_refused(harness, folder, mask):
    np.savez(folder / "tiny.npz", layer=mask)

    found = rows(harness("cost", "tiny.npz", "--model", "all", "--json"))

    assert found["bank"]["details"]["layers"]["layer"]["nonzeros"] == np.count_nonzero(mask)
    assert all(row["cycles"] > 0 if "cycles" in row else row["reason"] for row in found.values())


def test_a_convolution_runs_once_per_position_of_its_output(harness):
    once = only_row(
        harness("cost", "conv.npz", "--engine", "dense_mvm:pes=2,lanes=9", "--output-size", "conv=1x1", "--json")
    )
    many = only_row(
        harness("cost", "conv.npz", "--engine", "dense_mvm:pes=2,lanes=9", "--output-size", "conv=4x5", "--json")
    )

    assert many["details"]["layers"]["conv"]["runs"] == 20
    assert many["cycles"] > once["cycles"]


def test_layers_on_engines_of_their_own_stand_beside_one_engine_for_all(harness):
    cnn = EXAMPLES / "workloads" / "small_cnn.yaml"
    asked = ("--device", "xc7z020", "--engine", "bank", "--engine", "csr_stream", "--pipelined")
    done = harness("cost", cnn, *asked)
    rows = {row["engine"]: row["details"]["pipelined"] for row in harness("cost", cnn, *asked, "--json").json["rows"]}

    assert "one engine for all layers, and one for each" in done.stdout
    assert f"{rows['bank']['steps_per_s']:.0f}" in done.stdout and rows["bank"]["slowest"] in done.stdout
    assert "csr_stream: it reads off-chip memory by design" in done.stdout
    assert "one for each" not in harness("cost", cnn, *asked[:-1]).stdout


def test_a_convolution_of_unknown_size_is_refused_where_cycles_are_added_up(harness, folder):
    rng = np.random.default_rng(0)
    np.savez(
        folder / "cnn.npz", **{"conv.weight": rng.random((4, 2, 3, 3)) < 0.5, "fc.weight": rng.random((5, 8)) < 0.5}
    )

    refused = harness("cost", "cnn.npz", "--engine", "dense_mvm:pes=2,lanes=9")
    one = only_row(
        harness("cost", "cnn.npz", "--engine", "dense_mvm:pes=2,lanes=9", "--output-size", "*=1x1", "--json")
    )
    all_ = only_row(
        harness("cost", "cnn.npz", "--engine", "dense_mvm:pes=2,lanes=9", "--output-size", "*=6x7", "--json")
    )

    assert refused.returncode == 2
    assert "the output size of conv is not known" in refused.stderr and "--output-size conv=32x32" in refused.stderr
    assert one["details"]["layers"]["conv"]["runs"] == 1
    assert all_["details"]["layers"]["conv"]["runs"] == 42
    assert all_["details"]["layers"]["fc"]["runs"] == 1


def test_the_bits_of_every_format_are_told_with_the_best(harness):
    storage = harness("cost", "lstm.npz", "--engine", BANK, "--weight-bits", "8", "--json").json["storage"]

    kernel = storage[0]
    bits = {each["format"]: each["bits"] for each in kernel["formats"]}
    assert (kernel["nonzeros"], bits["dense"]) == (32 * 4, 32 * 16 * 8)
    assert bits["csb"] == 32 * 4 * (8 + 2)
    assert kernel["best"] == min((size, name) for name, size in bits.items() if size is not None)[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "got none"),
        (["lstm.npz", "--workload", "workload.yaml"], "lstm.npz and workload.yaml"),
        (["absent.npz"], "absent.npz"),
        (["absent.yaml"], "absent.yaml"),
        (["engine.yaml"], "engine.yaml:1"),
        (["lstm.txt"], "lstm.txt"),
        (["lstm.npz", "--engine", "banc"], "did you mean 'bank'?"),
        (["lstm.npz", "--engine", "bank:pez=4"], "did you mean 'pes'?"),
        (["lstm.npz", "--engine", "bank:pes=none"], "--engine bank: pes: expected a whole number, got 'none'"),
        (["lstm.npz", "--engine", "bank:pes=0"], "got 0"),
        (["lstm.npz", "--engine", "bank:4"], "name=value"),
        (["lstm.npz", "--engine", "bank:"], "NAME:parameter=value"),
        (["lstm.npz", "--engine", "bank:pes=1,pes=2"], "'pes' twice"),
        (["lstm.npz", "--engine", "bank:pes=,lanes=2"], "expected a value"),
        (["lstm.npz", "--engine", "absent.yaml"], "absent.yaml"),
        (["lstm.npz", "--engine", "workload.yaml"], "workload.yaml: expected an engine's `name`"),
        (["lstm.npz", "--model", "cycle_simulater"], "did you mean 'cycle_simulator'?"),
        (["lstm.npz", "--device", "arria10"], "--device"),
        (["lstm.npz", "--device", "absent.yaml"], "absent.yaml"),
        (["lstm.npz", "--multipliers", "0"], "--multipliers: expected a number above 0, got 0"),
        (["lstm.npz", "--weight-bits", "99"], "--weight-bits"),
        (["lstm.npz", "--clock", "nan"], "finite"),
        (["lstm.npz", "--clock", "-3"], "--clock"),
        (["lstm.npz", "--inputs", "sometimes"], "closed_loop"),
        (["lstm.npz", "--layout", "sideways"], "rows_out"),
        (["lstm.npz", "--banks", "0"], "banks"),
        (["lstm.npz", "--batch", "0"], "batch"),
        (["lstm.npz", "--steps", "many"], "steps"),
        (["lstm.npz", "--set", "colour=red"], "no parameter 'colour'"),
        (["lstm.npz", "--set", "multipliers=3", "--multipliers", "4"], "'multipliers' twice"),
        (["lstm.npz", "--activation-density", "high"], "got 'high'"),
        (["lstm.npz", "--activation-density", "2"], "between 0 and 1"),
        (["lstm.npz", "--activation-density", "cnn=0.2"], "got 'cnn'"),
        (["lstm.npz", "--activation-density", "0.1", "--activation-density", "0.2"], "once"),
        (["conv.npz", "--output-size", "4x4"], "LAYER=HEIGHTxWIDTH"),
        (["conv.npz", "--output-size", "conv=0x4"], "'conv=0x4'"),
        (["conv.npz", "--output-size", "dense=4x4"], "dense"),
        (["workload.yaml", "--banks", "4"], "inside it"),
    ],
)
def test_a_mistake_ends_with_2_and_a_sentence(harness, arguments, told):
    done = harness("cost", *arguments)

    assert done.returncode == 2
    assert "error" in done.stderr.lower() and "Traceback" not in done.stderr
    assert told in " ".join(done.stderr.split())


def test_costing_imports_no_framework(folder):
    command = (
        "import sys; from typer.testing import CliRunner; from harness.cli import app; "
        "done = CliRunner().invoke(app, ['hardware', 'cost', 'lstm.npz']); "
        "heavy = {'torch', 'tensorflow', 'tf_keras', 'matplotlib', 'pandas'} & sys.modules.keys(); "
        "print(done.exit_code, sorted(heavy))"
    )

    done = subprocess.run([sys.executable, "-c", command], cwd=folder, capture_output=True, text=True, check=True)

    assert done.stdout == "0 []\n"


# --- sweep ----------------------------------------------------------------------------------------------------------


def test_a_sweep_varies_budget_depth_and_clock(harness):
    done = harness("sweep", "uneven.npz", "--engine", "bank", "--engine", "column_fifo", "--multipliers", "4,16",
                   "--fifo-depth", "1,4", "--clock", "100,200", "--json")  # fmt: skip

    assert done.returncode == 0, done.stderr
    points = done.json
    assert {point["clock_mhz"] for point in points} == {100.0, 200.0}
    assert {point["fifo_depth"] for point in points if point["engine"].startswith("column")} == {1, 4}
    assert {point["fifo_depth"] for point in points if point["engine"] == "bank"} == {None}
    assert all(point["multipliers"] <= point["budget"] for point in points)
    assert {point["budget"] for point in points} == {4, 16}


def test_a_sweep_marks_exactly_the_designs_that_no_other_beats(harness):
    points = harness("sweep", "uneven.npz", "--engine", "bank", "--engine", "column_fifo", "--multipliers", "4,8,16",
                     "--fifo-depth", "2", "--json").json  # fmt: skip

    assert all(point["fits"] for point in points)
    for resource, name in (("multipliers", "multipliers"), ("ram_share", "RAM"), ("dsp", "DSP")):
        pairs = {(point["latency_us"], point[resource]) for point in points}
        for point in points:
            mine = (point["latency_us"], point[resource])
            beaten = any(other != mine and other[0] <= mine[0] and other[1] <= mine[1] for other in pairs)
            assert (name in point["fronts"]) is not beaten


def test_a_sweep_is_written_in_every_form(harness, folder):
    files = [folder / "out" / f"sweep.{suffix}" for suffix in ("csv", "json", "svg", "png")]
    done = harness("sweep", "uneven.npz", "--engine", "bank", "--engine", "block:block=[1, 2]", "--sizes", "4,16",
                   *(part for file in files for part in ("--output", file)))  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert all(str(file) in done.stderr.replace("\n", "") for file in files)
    lines = list(csv.DictReader(StringIO(files[0].read_text())))
    points = json.loads(files[1].read_text())
    assert [line["shape"] for line in lines] == [point.get("shape", "") for point in points]
    assert "<svg" in files[2].read_text() and "latency, µs" in files[2].read_text()
    assert files[3].read_bytes().startswith(b"\x89PNG")


def test_equal_sweeps_draw_equal_bytes(harness, folder):
    for name in ("one.svg", "two.svg"):
        assert harness("sweep", "uneven.npz", "--engine", "bank", "--sizes", "4,8", "-o", name).returncode == 0

    assert (folder / "one.svg").read_bytes() == (folder / "two.svg").read_bytes()


def test_a_sweep_prints_the_best_designs_or_all_and_who_cannot_run_it(harness):
    arguments = ("sweep", "uneven.npz", "--engine", "dense_mvm", "--engine", "mcbbs_systolic", "--sizes", "16,24",
                 "--clock", "100,200")  # fmt: skip

    best, everything = harness(*arguments).stdout, harness(*arguments, "--all").stdout

    (some, all_), (listed, again) = (re.search(r"(\d+) of (\d+) designs", text).groups() for text in (best, everything))
    assert 0 < int(some) < int(all_) and listed == again == all_
    assert "mcbbs_systolic – engine mcbbs_systolic cannot run" in best


def test_a_depth_that_the_engine_names_is_not_varied(harness):
    points = harness("sweep", "uneven.npz", "--engine", "column_fifo:fifo_depth=3", "--sizes", "8", "--json").json

    assert {point["fifo_depth"] for point in points} == {None}
    assert {point["engine"] for point in points} == {"column_fifo(fifo_depth=3)"}


def test_a_sweep_has_the_fastest_design_and_smaller_ones_with_less_ram(harness):
    points = harness("sweep", "uneven.npz", "--engine", "bank", "--sizes", "16", "--json").json
    best = only_row(harness("cost", "uneven.npz", "--engine", "bank", "--multipliers", "16", "--json"))

    assert min(point["cycles"] for point in points) == best["cycles"]
    assert len({point["shape"] for point in points}) == len(points) > 1
    fastest = min(points, key=lambda point: (point["cycles"], point["ram_share"]))
    assert any(point["ram_share"] < fastest["ram_share"] for point in points)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["uneven.npz", "--sizes", "4,zero"], "--multipliers: expected whole numbers"),
        (["uneven.npz", "--fifo-depth", "0"], "--fifo-depth"),
        (["uneven.npz", "--clock", "fast"], "--clock: expected numbers"),
        (["uneven.npz", "--clock", "inf"], "--clock"),
        (["uneven.npz", "--output", "sweep.txt"], ".csv, .json, .svg"),
        (["uneven.npz", "--engine", "banc"], "did you mean 'bank'?"),
        (["absent.npz"], "absent.npz"),
    ],
)
def test_a_mistake_in_a_sweep_ends_with_2(harness, arguments, told):
    done = harness("sweep", *arguments)

    assert done.returncode == 2
    assert told in " ".join(done.stderr.split())


def test_a_sweep_that_no_engine_can_run_ends_with_1(harness):
    done = harness("sweep", "uneven.npz", "--engine", "mcbbs_systolic")

    assert done.returncode == 1
    assert "cannot run" in done.stdout


# --- validate -------------------------------------------------------------------------------------------------------


def targets(folder, name, *rules, change=lambda data: None):
    """The built-in targets with only some of their rules."""
    data = YAML(typ="safe", pure=True).load(DEFAULT_TARGETS.read_text(encoding="utf-8"))
    data["gates"]["rules"] = [rule for rule in data["gates"]["rules"] if rule["id"] in rules]
    change(data)
    path = folder / name
    with path.open("w", encoding="utf-8") as stream:
        YAML(typ="safe", pure=True).dump(data, stream)
    return path


def test_rules_that_hold_end_with_0_and_are_counted_by_kind(harness, folder):
    path = targets(folder, "few.yaml", "hisparse", "nm_exact", "tap_banking", "bbs_latency")

    table, found = harness("validate", "--targets", path), harness("validate", "--targets", path, "--json").json

    assert table.returncode == 0, table.stdout
    counts = found["counts"]
    assert counts["failed"] == 0 and all(counts[kind] for kind in ("accepted", "arithmetic", "calibrated", "reported"))
    assert table.stdout.splitlines()[-1] == ", ".join(f"{number} {kind}" for kind, number in counts.items())
    assert {check["id"] for check in found["checks"]} == {"hisparse", "nm_exact", "tap_banking", "bbs_latency"}
    assert " ".join(CAVEAT.split()) in " ".join(table.stdout.split()) and found["caveats"] == [CAVEAT]


def test_a_gate_that_fails_ends_with_6(harness, folder):
    def change(data):
        hisparse = next(entry for entry in data["accelerators"] if entry["id"] == "hisparse")
        table = next(group for group in hisparse.values() if isinstance(group, dict) and "rows" in group)
        for row in table["rows"][1:-1]:
            row[-1] *= 1.5

    done = harness("validate", "--targets", targets(folder, "wrong.yaml", "hisparse", change=change))

    assert done.returncode == 6
    assert "failed" in done.stdout and not done.stdout.splitlines()[-1].endswith(" 0 failed")


def test_a_rule_that_nothing_evaluates_ends_with_6(harness, folder):
    def change(data):
        data["gates"]["rules"].append({"id": "perpetual_motion", "kind": "report", "target": "free energy"})

    done = harness("validate", "--targets", targets(folder, "unknown.yaml", "nm_exact", change=change))

    assert done.returncode == 6
    assert "not evaluated" in done.stdout and done.stdout.splitlines()[-1].endswith("1 failed")


def test_a_file_of_targets_that_cannot_be_read_ends_with_2(harness):
    done = harness("validate", "--targets", "absent.yaml")

    assert done.returncode == 2
    assert "absent.yaml" in done.stderr


# --- traces ---------------------------------------------------------------------------------------------------------


def test_a_cost_is_a_trace_of_products_their_cycles_and_the_work_of_the_pes(harness, folder):
    done = harness("cost", "lstm.npz", "--engine", BANK, "--engine", COLUMN, "--perfetto", "trace.json", "--json")

    made = json.loads((folder / "trace.json").read_text())
    events = made["traceEvents"]
    read, dropped = perfetto_reader.read(made)
    assert dropped == [] and {depth for *_, depth in read} == {1}
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert len(names) == len(done.json["rows"]) == 2
    for process, row in enumerate(done.json["rows"], start=1):
        slices = [event for event in events if event["ph"] == "X" and event["pid"] == process]
        first = min(e["tid"] for e in slices)
        products, parts = ([e for e in slices if e["tid"] == first + more] for more in (0, 1))
        assert f"{row['cycles']:,} cycles" in names[process - 1] and [e["name"] for e in products] == ["rnn.l0"]
        assert sum(e["dur"] for e in products) == pytest.approx(row["cycles"], abs=1)
        # The parts fill the product, one after another.
        assert sum(e["dur"] for e in parts) == pytest.approx(products[0]["dur"], rel=1e-6)
        ends = [e["ts"] + e["dur"] for e in parts]
        assert [e["ts"] for e in parts] == pytest.approx([0.0, *ends[:-1]])
        work = [e for e in slices if e["tid"] > first + 1]
        assert sum(e["args"]["pes"] for e in work) == (4 if "bank" in names[process - 1] else 8)
        assert all(0 < e["dur"] <= products[0]["dur"] for e in work)


@given(
    products=st.lists(
        st.tuples(st.lists(st.floats(0.001, 500), min_size=1, max_size=5), st.floats(0.9995, 1.0005)), max_size=9
    )
)
def test_perfetto_gets_every_product_and_part_whatever_their_cycles(products):
    """Parts are rounded, and may be a little more or less than their product."""
    layers = {
        f"layer {place}": {
            "cycles": round(sum(parts) * factor, 6),
            "parts": {f"part {number}": round(part, 6) for number, part in enumerate(parts)},
            "busy": {"pes": [1, 2], "from": 0.0, "to": sum(parts)}, "runs": 1,
        }
        for place, (parts, factor) in enumerate(products)
    }  # fmt: skip
    found = costs.Report((costs.Row("mine", "a", priced(layers)), costs.Row("mine", "b", priced(layers))), ())
    if not layers:
        return

    made = json.loads(json.dumps(trace(found)))
    read, dropped = perfetto_reader.read(made)

    assert dropped == [] and {depth for *_, depth in read} == {1}
    # To the nanosecond, and nothing lies between two products.
    ends = [(begin, end) for process, thread, begin, end, *_ in read if process == thread == 1]
    assert len(ends) == len(products) and [end for _, end in ends[:-1]] == [begin for begin, _ in ends[1:]]
    assert ends[-1][1] == round(1000 * sum(layer["cycles"] for layer in layers.values()))


def priced(layers):
    told = {name: 1 for name in ("latency_us", "clock_mhz", "dense_latency_us", "speedup", "gops", "effective_gops")}
    return Cost(
        cycles=4, dense_cycles=4, utilisation=0.5, multipliers=1, dsp=1, ram_blocks=1, ram_kind="m20k", fits=True,
        bound_by="compute", details={"layers": layers}, **told,
    )  # fmt: skip


@pytest.mark.parametrize(
    "layers",
    [None, [1], {"a": 3}, {"a": {"cycles": "x"}}, {"a": {"cycles": 4, "parts": {"b": "c"}, "busy": {"pes": ["x"]}}}],
)
def test_costs_of_others_that_tell_less_are_traced_as_far_as_they_tell(layers):
    found = costs.Report((costs.Row("mine", "", priced(layers)), costs.Row("mine", "other", None, "it cannot")), ())

    if isinstance(layers, dict) and isinstance(layers["a"], dict) and layers["a"]["cycles"] == 4:
        assert [e["dur"] for e in trace(found)["traceEvents"] if e["ph"] == "X"] == [4.0]
    else:
        with pytest.raises(SpecError, match="nothing to trace"):
            trace(found)
