"""The command line as its users meet it, with plugins in NumPy that are installed beside it."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
from records_at_random import every_fate
from safetensors.numpy import load_file
from typer.testing import CliRunner
from uncut import WIDTHS, check_uncut

from harness import data
from harness.api import Kind
from harness.cli import app, plugins
from harness.cli.data import files_document
from harness.discovery.finding import discover
from harness.planning import code_digest
from harness.report import rich
from harness.report.plan_table import plan_document
from harness.results.records import write

SUPPORT = Path(__file__).parents[2] / "support"

PLUGINS = '''
"""The NumPy plugins of the tests, offered as an installed package would, and one that breaks the harness itself."""

from numpy_plugins import NumpyBackend, ToyTask

from harness.api import hookimpl


class Faulty(ToyTask):
    """A task with a mistake in its own code."""

    name = "faulty"

    def load(self, data_dir):
        raise RuntimeError("nobody expected this")


@hookimpl
def register_task():
    return [ToyTask, Faulty]


@hookimpl
def register_backend():
    return NumpyBackend
'''

SPEC = """
name: toy
task: {task}
scope: [softmax]
tolerance: 0.05
matrix:
  backend: [numpy]
  pattern: [{pattern}]
  strategy: [{{name: fine_tuning, epochs: 2}}]
  sparsity: [0.5]
  seed: [0, 1]
"""


# A shell that starts jobs in the background makes them ignore SIGINT; a user's does not.
AS_IN_A_SHELL = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("harness", run_name="__main__")
"""


class Done(NamedTuple):
    """How a command ended and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that holds two installed distributions: sound plugins, and one that fails to import."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "toy_plugins.py").write_text(PLUGINS)
    (folder / "shattered.py").write_text("raise OSError('libshatter.so is missing')\n")
    for name, module in (("toy-plugins", "toy_plugins"), ("shattered", "shattered")):
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[harness.plugins]\n{name} = {module}\n")
    return folder


class Shell:
    """A folder with experiments, and the command line run in it: in this process where that is the same, for speed."""

    def __init__(self, site, folder):
        self.folder = folder
        self._site = site
        self._variables = {"OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(folder / "no-data")}

    def spec(self, name="experiment.yaml", task="toy", pattern="unstructured"):
        (self.folder / name).write_text(SPEC.format(task=task, pattern=pattern))
        return name

    def __call__(self, *arguments, **variables):
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(self._site))
            patch.chdir(self.folder)
            patch.delenv("HARNESS_DATA", raising=False)
            done = CliRunner().invoke(app, arguments, env=self._variables | variables)
        return Done(done.exit_code, done.stdout, done.stderr)

    def process(self, *arguments, **variables):
        """The same in a process of its own."""
        process = self.start(*arguments, **variables)
        output, errors = process.communicate(timeout=600)
        return Done(process.returncode, output, errors)

    def start(self, *arguments, **variables):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HARNESS_")}
        environment |= {"PYTHONPATH": os.pathsep.join([str(self._site), str(SUPPORT)]), **self._variables, **variables}
        return subprocess.Popen(
            [sys.executable, "-c", AS_IN_A_SHELL, *arguments],
            cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


@pytest.fixture
def shell(site, tmp_path):
    return Shell(site, tmp_path)


@pytest.fixture(scope="module")
def finished(site, tmp_path_factory):
    """A folder in which an experiment was run, and what the command printed."""
    shell = Shell(site, tmp_path_factory.mktemp("finished"))
    return shell, shell.process("run", shell.spec(), "--workers", "1")


# --- running --------------------------------------------------------------------------------------------------------


def test_a_run_prints_the_table_on_stdout_and_progress_on_stderr(finished):
    _, done = finished

    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout and "unstructured" in done.stdout
    assert "epochs to run" not in done.stdout
    assert "epochs to run" in done.stderr and "unstructured · fine_tuning" in done.stderr


def test_a_run_says_where_its_report_is(finished):
    shell, done = finished
    page = shell.folder / re.search(r"^page: (.*)$", done.stdout, re.MULTILINE)[1]

    assert page.parent.parent == shell.folder / ".harness" / "runs"
    assert "unstructured</td>" in page.read_text()
    assert "| unstructured" in page.with_suffix(".md").read_text()
    assert {"records.json", "spec.yaml"} <= {path.name for path in page.parent.iterdir()}


def test_output_into_a_pipe_has_no_control_characters(finished):
    _, done = finished

    assert "\x1b" not in done.stdout + done.stderr


def test_a_second_run_trains_nothing(finished):
    shell, _ = finished

    again = shell("run", "experiment.yaml")

    assert again.returncode == 0
    assert "(4 cached, 0 skipped), 0 epochs to run" in again.stderr


def test_progress_can_be_silenced_and_written_as_json(shell):
    shell.spec()

    silent = shell("run", "experiment.yaml", "--progress", "none", "--store", "a")
    events = shell("run", "experiment.yaml", "--progress", "json", "--store", "b")

    assert silent.stderr == ""
    parsed = [json.loads(line)["event"] for line in events.stderr.splitlines()]
    assert parsed[0] == "begin" and parsed[-1] == "end" and "finished" in parsed


def test_a_smoke_run_says_that_its_numbers_mean_nothing(shell):
    smoke = shell.process("run", shell.spec(), "--smoke", "--progress", "none", "--store", "smoke")

    assert smoke.returncode == 0
    assert "its numbers mean nothing" in smoke.stdout.splitlines()[0]


def test_only_and_smoke_cut_the_grid(shell):
    shell.spec()

    one = json.loads(shell("plan", "experiment.yaml", "--only", "seed<1", "--json").stdout)
    smoke = json.loads(shell("plan", "experiment.yaml", "--smoke", "--json").stdout)

    assert one["cells"] == smoke["cells"] == 2


def test_the_store_can_come_from_the_environment(shell):
    shell.spec()

    done = shell("run", "experiment.yaml", "--only", "seed=0", HARNESS_STORE="elsewhere")

    assert done.returncode == 0
    assert (shell.folder / "elsewhere" / "runs").is_dir() and not (shell.folder / ".harness").exists()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_keeps_what_is_finished_and_the_same_command_continues(shell, sent, code):
    shell.spec()
    command = ("run", "experiment.yaml", "--workers", "1")
    running = shell.start(*command, TOY_SECONDS_PER_EPOCH="0.3")
    until = time.monotonic() + 300
    while time.monotonic() < until and "epoch 2" not in running.stderr.readline():
        pass

    running.send_signal(sent)
    output, errors = running.communicate(timeout=600)

    assert running.returncode == code
    assert "the same command continues" in errors and "PARTIAL" in output
    plan = json.loads(shell("plan", "experiment.yaml", "--json").stdout)
    assert plan["cached"] >= 3
    assert shell(*command).returncode == 0


def test_what_a_plan_lists_is_what_runs(shell):
    spec = shell.spec()
    listed = json.loads(shell("plan", spec, "--only", "seed=0", "--devices", "cpu", "--json").stdout)["run"]

    ran = shell("run", spec, "--only", "seed=0", "--devices", "cpu", "--progress", "json")

    events = [json.loads(line) for line in ran.stderr.splitlines()]
    started = {event["stage"] for event in events if event["event"] == "started"}
    assert started == {stage["stage"] for stage in listed}
    assert json.loads(shell("plan", spec, "--only", "seed=0", "--json").stdout)["run"] == []


def test_results_of_older_code_are_trusted_only_if_asked(shell, monkeypatch):
    spec = shell.spec()
    shell("run", spec, "--only", "seed=0", "--progress", "none")
    present = code_digest.component
    monkeypatch.setattr(code_digest, "component", lambda cls: replace(present(cls), digest="edited since"))

    plain, trusting = (
        json.loads(shell("plan", spec, "--only", "seed=0", "--json", *more).stdout)["stages_to_run"]
        for more in ((), ("--trust-code",))
    )
    shell("run", spec, "--only", "seed=0", "--progress", "none", "--trust-code")

    records = json.loads(next((shell.folder / ".harness" / "runs").glob("*/records.json")).read_text())["records"]
    assert plain > 0 and trusting == 0
    assert all(record["facts"]["trusted_code"] for record in records)


def test_devices_say_how_many_workers_there_are(shell):
    done = shell("run", shell.spec(), "--only", "seed=0", "--devices", "cpux3")

    assert done.returncode == 0, done.stderr
    assert "3 workers" in done.stderr


def test_a_stage_that_was_killed_is_tried_again_if_asked(shell):
    breaks = {"TOY_BREAKS": "killed@5", "TOY_BREAKS_ONCE": str(shell.folder / "broken")}
    done = shell("run", shell.spec(), "--only", "seed=0", "--retry", "oom,killed", **breaks)

    assert done.returncode == 0, done.stdout
    assert "signal 9" in done.stderr and "it is tried again" in done.stderr


def test_a_stage_that_takes_too_long_is_a_timeout(shell):
    done = shell("run", shell.spec(), "--only", "seed=0", "--stage-timeout", "3", TOY_BREAKS="hang@5")

    assert done.returncode == 1
    assert "timeout" in done.stdout and "--stage-timeout" in done.stderr


def test_a_run_ends_after_as_many_failures_as_are_allowed(shell):
    done = shell("run", shell.spec(), "--max-failures", "1", "--workers", "1", TOY_BREAKS="diverged@0")

    assert done.returncode == 1
    assert "stopped: 1 failed stages" in done.stderr and "0 of 4 cells" in done.stdout


# --- exit codes -----------------------------------------------------------------------------------------------------


def test_a_failed_cell_is_reported_and_ends_with_1(shell):
    done = shell("run", shell.spec(), "--only", "seed=0", TOY_BREAKS="diverged@5")

    assert done.returncode == 1
    assert "diverged" in done.stdout and "dense" in done.stdout
    assert "page: " in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "absent.yaml"),
        ("run", "unknown.yaml"),
        ("run", "experiment.yaml", "--only", "colour=red"),
        ("run", "experiment.yaml", "--workers", "0"),
        ("run", "experiment.yaml", "--devices", "gpu"),
        ("run", "experiment.yaml", "--devices", "cpux2", "--workers", "2"),
        ("run", "experiment.yaml", "--retry", "sometimes"),
        ("run", "experiment.yaml", "--address", "here:6379"),
        ("run", "experiment.yaml", "--no-such-option"),
        ("plugins", "show", "no_such_plugin"),
        ("plugins", "list", "no_such_kind"),
        ("data", "fetch", "no-such-set"),
        ("no-such-command",),
    ],
)
def test_a_mistake_of_the_user_ends_with_2_and_one_sentence(shell, arguments):
    shell.spec()
    shell.spec("unknown.yaml", pattern="unstructure")

    done = shell(*arguments)

    assert done.returncode == 2
    assert "error: " in done.stderr.lower() and "Traceback" not in done.stderr
    assert not (shell.folder / ".harness").exists()


def test_an_unknown_name_is_told_with_its_line_and_a_suggestion(shell):
    done = shell("validate", shell.spec(pattern="unstructure"))

    assert re.match(r"error: experiment\.yaml:8:\d+ .*did you mean 'unstructured'", done.stderr)


def test_an_exception_of_a_plugin_is_no_bug_of_the_harness(shell):
    done = shell.process("run", shell.spec(task="faulty"), "--full")

    assert done.returncode == 1
    told = " ".join((done.stdout + done.stderr).split())
    assert "task faulty of toy-plugins 1.0 raised RuntimeError: nobody expected this in load" in told
    assert "this is a bug" not in told


def test_a_broken_plugin_ends_with_4_only_where_it_is_used(shell):
    broken = shell("run", shell.spec(pattern="shattered"))
    sound = shell("validate", shell.spec())

    assert (broken.returncode, sound.returncode) == (4, 0)
    assert "libshatter.so is missing" in broken.stderr and "shattered 1.0" in broken.stderr


def test_an_empty_selection_ends_with_5(shell):
    done = shell("run", shell.spec(), "--only", "seed=7")

    assert done.returncode == 5
    assert "seed=7" in done.stderr


def test_data_that_fails_its_check_ends_with_6(shell):
    (shell.folder / "ptb.train.txt").write_text("not the Penn Treebank\n")

    done = shell("data", "verify", "ptb", "--data-dir", ".")

    assert done.returncode == 6
    assert "wrong" in done.stdout and "missing" in done.stdout


def test_a_store_that_cannot_be_written_ends_with_7(shell):
    (shell.folder / "file").write_text("in the way\n")

    done = shell("run", shell.spec(), "--store", "file/store")

    assert done.returncode == 7
    assert "file/store" in done.stderr and "--store" in done.stderr


# --- looking at results ---------------------------------------------------------------------------------------------


def test_the_latest_report_comes_in_every_form(finished):
    shell, _ = finished

    rich, md, csv = (shell("report", "--format", form).stdout for form in ("rich", "md", "csv"))
    rows = json.loads(shell("report", "--format", "json").stdout)

    full = shell("report", "--full").stdout
    assert "What ran" in full and "What ran" not in rich and len(rich.splitlines()) <= 24
    assert "harness report" in rich.splitlines()[-1]
    assert md.startswith("# ") and csv.count("\n") >= 2
    assert len(rows) == 4 and {"task", "pattern", "value", "sparsity", "hardware", "reason"} <= rows[0].keys()


def test_a_report_is_found_by_the_beginning_of_its_run_and_written_to_a_file(finished):
    shell, _ = finished

    done = shell("report", "toy-", "--format", "md", "-o", "report.md")

    assert (done.returncode, done.stdout) == (0, "")
    assert (shell.folder / "report.md").read_text().startswith("# ")


@pytest.mark.parametrize(
    ("options", "begins"),
    [
        (["-o", "out.html"], "<!"),
        (["-o", "OUT.HTML"], "<!"),
        (["-o", "out.md"], "# "),
        (["-o", "out.json"], "["),
        (["-o", "out.txt"], "run"),
        (["-o", "out.html", "-f", "md"], "# "),
    ],
)
def test_a_report_takes_the_form_that_its_file_ends_in_unless_another_is_asked_for(
    tmp_path, monkeypatch, options, begins
):
    write(tmp_path / "run" / "records.json", every_fate())
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(app, ["report", "run", *options])

    assert done.exit_code == 0, done.stderr
    assert Path(options[1]).read_text().startswith(begins)


@pytest.mark.parametrize("command", [["report", "run"], ["compare", "run", "run"]])
def test_a_file_that_ends_as_no_form_does_is_refused_and_not_filled_with_another_one(tmp_path, monkeypatch, command):
    write(tmp_path / "run" / "records.json", every_fate())
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(app, [*command, "-o", "out.pdf"])

    assert done.exit_code == 2 and not Path("out.pdf").exists()
    assert re.search(r"expected a file ending in .*\.md.* or \.txt, got 'out\.pdf'; rename it", done.stderr)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [(["-o", "a.pt"], ".safetensors"), (["-o", "weights", "-f", "csr"], ".npz"), (["-o", "a.npz"], ".safetensors")],
)
def test_an_export_under_a_name_of_another_kind_is_refused_before_anything_is_read(tmp_path, options, wanted):
    done = CliRunner().invoke(app, ["export", "cell", "--store", str(tmp_path), *options])

    assert done.exit_code == 2
    assert f"expected a file ending in {wanted} for" in " ".join(done.stderr.split()) and options[1] in done.stderr


def test_a_cell_is_exported_as_safetensors(finished):
    shell, _ = finished
    rows = json.loads(shell("report", "--format", "json").stdout)
    cell = next(row["cell"] for row in rows if row["pattern"] == "unstructured")

    done = shell("export", cell, "-o", "model.safetensors")

    assert done.returncode == 0, done.stderr
    arrays = load_file(shell.folder / "model.safetensors")
    assert arrays["output.kernel.mask"].mean() == 0.5
    assert not arrays["output.kernel"][~arrays["output.kernel.mask"].astype(bool)].any()


def test_a_plan_says_why_cells_are_skipped_in_notes_below_the_table():
    reason = "n_m: the nearest reachable sparsity is 0.5"
    cell = {"pattern": "n_m", "status": "skipped", "reason": reason, "total_epochs": 0, "stages": 0, "stages_to_run": 0}
    cells = [cell | {"sparsity": sparsity} for sparsity in (0.6, 0.9)]
    bill = {"cells": 2, "stages": 0, "cached": 0, "stages_to_run": 0, "why": {}, "epochs": 0, "epochs_to_run": 0}
    summary = bill | {"epochs_without_sharing": 0, "sharing_ratio": 1.0, "cells_detail": cells}
    printed = rich.text(plan_document(summary, title="grid"), 120)

    assert printed.count("note ¹") == 2
    assert printed.count(f"¹ {reason}") == 1


def test_every_number_of_plans_plugins_and_files_stands_in_their_tables_at_every_width(tmp_path):
    labels = {"pattern": "bank_balanced(banks=16)", "strategy": "fine_tuning(epochs=12)", "backend": "torch"}
    counts = {"status": "run", "reason": "not run yet", "total_epochs": 1234, "stages": 56, "stages_to_run": 55}
    cells = [labels | counts | {"sparsity": f"0.{place}", "seed": place} for place in range(5, 9)]
    cells.append(
        cells[0] | {"status": "skipped", "reason": "n_m: 0.5 only", "pattern": "n_m", "backend": "keras_tfmot"}
    )
    bill = {"cells": 5, "stages": 222, "cached": 2, "stages_to_run": 220, "why": {"not run yet": 220}}
    bill |= {"epochs": 12345, "epochs_to_run": 12000, "epochs_without_sharing": 23456, "sharing_ratio": 1.9}
    registry = discover()
    documents = [
        plan_document(bill | {"cells_detail": cells}, title="grid"),
        plugins.list_document(registry.rows),
        *(plugins.plugin_document(row) for row in registry.rows if row.name in ("bank_balanced", "n_m")),
        files_document(data.survey(tmp_path), tmp_path, ["ptb: text"]),
    ]

    for document in documents:
        for width in WIDTHS:
            check_uncut(document, width)


def test_a_plan_lists_cells_stages_and_epochs(finished):
    shell, _ = finished

    plan = json.loads(shell("plan", "experiment.yaml", "--json", "--store", "empty").stdout)
    table = shell("plan", "experiment.yaml", "--store", "empty").stdout

    assert (plan["cells"], plan["cached"]) == (4, 0)
    assert (plan["epochs_to_run"], plan["epochs_without_sharing"]) == (12, 20)
    assert "not run yet" in table and "12 to run" in table
    assert not (shell.folder / "empty").exists()


# --- data -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A data set of one small file, and the address of a local server that has it."""
    content = b"the small corpus\n"
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "small.txt").write_bytes(content)
    file = data.DataFile(name="small.txt", size=len(content), sha256=hashlib.sha256(content).hexdigest())
    known = data.DataSet(name="small", description="a test", base_url="http://localhost:9/", files=(file,))
    monkeypatch.setitem(data.DATA_SETS, "small", known)
    handler = partial(Quiet, directory=str(tmp_path / "public"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """A server that keeps its log to itself."""

    def log_message(self, *_):
        pass


def test_files_of_data_sets_fit_a_terminal_however_deep_their_folder_lies(tmp_path):
    folder = tmp_path / ("deep" * 20) / "data"
    shown = CliRunner().invoke(app, ["data", "list", "--data-dir", str(folder)], env={"COLUMNS": "80"}).stdout
    lines = shown.splitlines()

    assert str(folder) in lines
    assert all(len(line) <= 80 for line in lines if line != str(folder)) and not re.search(r"\b0\.0 ", shown)


def test_a_data_set_is_fetched_once_and_then_verified(shell, served):
    fetched = shell("data", "fetch", "small", "--data-dir", "data", "--base-url", served)
    assert fetched.stderr == ""  # no trace of a bar, which a pipe has no use for
    again = shell("data", "fetch", "small", "--data-dir", "data", "--base-url", "http://127.0.0.1:9/")
    verified = shell("data", "verify", "small", "--data-dir", "data")

    assert (fetched.returncode, again.returncode, verified.returncode) == (0, 0, 0)
    assert "fetched" in fetched.stdout and "was there already" in again.stdout
    assert (shell.folder / "data" / "small" / "small.txt").read_text() == "the small corpus\n"


def test_data_sets_are_listed_with_the_state_of_their_files(shell, served):
    rows = json.loads(shell("data", "list", "--data-dir", ".", "--json").stdout)
    table = shell("data", "list", "--data-dir", ".").stdout

    assert {row["data_set"] for row in rows} == {"ptb", "mnist", "fashion_mnist", "small"}
    assert {row["state"] for row in rows} == {"missing"}
    assert "ptb.train.txt" in table and "small: a test" in table


# --- specs and plugins ----------------------------------------------------------------------------------------------


def test_init_writes_a_file_that_is_valid_and_never_overwrites(shell):
    written = shell("init", "mine.yaml")
    checked = shell("validate", "mine.yaml")
    before = (shell.folder / "mine.yaml").read_text()
    again = shell("init", "mine.yaml")

    assert (written.returncode, checked.returncode, again.returncode) == (0, 0, 2)
    assert (shell.folder / "mine.yaml").read_text() == before


def test_the_schema_knows_third_party_plugins(shell):
    schema = shell("schema").stdout

    assert json.loads(schema)["type"] == "object"
    assert "toy" in schema and "bank_balanced" in schema


def test_plugins_are_listed_with_those_that_are_broken(shell):
    table = shell("plugins", "list")
    rows = json.loads(shell("plugins", "list", "--json").stdout)
    patterns = json.loads(shell("plugins", "list", "patterns", "--json").stdout)

    assert table.returncode == 0 and "bank_balanced" in table.stdout
    broken = next(row for row in rows if row["state"] == "broken")
    assert (broken["name"], broken["distribution"]) == ("shattered", "shattered")
    assert "libshatter.so" in broken["error"] and broken["remedy"]
    assert {row["kind"] for row in patterns} == {"pattern", None}


def test_colour_is_for_terminals_that_want_it(shell):
    green = "\x1b[32m"

    assert green in shell("plugins", "list", FORCE_COLOR="1", TERM="xterm-256color").stdout
    assert green not in shell("plugins", "list", FORCE_COLOR="1", TERM="xterm-256color", NO_COLOR="1").stdout
    assert "\x1b" not in shell("plugins", "list").stdout


@pytest.mark.parametrize(
    "caller",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
     {"PYTHONIOENCODING": "latin-1"}],
    ids=["ascii", "C locale", "latin-1"],
)  # fmt: skip
def test_what_is_printed_does_not_depend_on_the_callers_language_settings(shell, caller):
    shell("run", shell.spec(), "--only", "seed=0")
    given, usual = shell.process("report", "toy", **caller), shell.process("report", "toy")

    assert given.returncode == 0, given.stderr
    assert given.stdout == usual.stdout
    assert not given.stdout.isascii()


def test_a_plugin_is_shown_with_its_parameters(shell):
    shown = shell("plugins", "show", "bank_balanced")
    described = json.loads(shell("plugins", "show", "bank_balanced", "--json").stdout)

    assert "bank_size" in shown.stdout and "Cao" in shown.stdout
    assert "banks" in described[0]["parameters"] and "label" not in described[0]["parameters"]
    assert shell("plugins", "show", "shattered").returncode == 4


def test_the_version_is_the_installed_one(shell):
    from importlib.metadata import version

    assert shell("--version").stdout == f"harness {version('sparsity-harness')}\n"


def test_validate_says_how_many_cells_cannot_run_why_and_what_fits(shell):
    done = shell("validate", shell.spec(pattern="{name: bank_balanced, banks: 20}"))

    assert done.returncode == 0
    first, reason = done.stdout.splitlines()
    assert "4 planned cells" in first and "2 of them cannot run" in first
    assert reason.startswith("  2 skipped: ") and "what fits: banks=" in reason


FAULT_OF_OURS = """
import sys
from harness.planning import plan

def faulty(*_):
    raise KeyError("ours")

plan.check = faulty
from harness.cli import main

sys.argv = ["harness", "plan", "spec.yaml", "--store", "store"]
main()
"""


def test_a_fault_of_the_harness_itself_is_told_as_one_with_its_traceback(tmp_path):
    (tmp_path / "spec.yaml").write_text(files("harness.cli").joinpath("starter.yaml").read_text())

    done = subprocess.run(
        [sys.executable, "-c", FAULT_OF_OURS], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )

    assert done.returncode == 3, done.stderr
    assert "this is a bug in harness" in done.stderr and "report it" in done.stderr
    assert "Traceback" in done.stderr and "in faulty" in done.stderr and "KeyError: 'ours'" in done.stderr


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [(), ("data",), ("hardware",), ("plugins",)])
@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_the_list_of_commands_says_of_each_in_a_whole_sentence_what_it_does(group, columns):
    shown = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": columns}).stdout
    listed = " ".join(shown.partition("Commands:")[2].split())

    assert listed and "..." not in listed


def test_help_names_every_kind_of_plugin():
    for command in ("list", "new"):
        shown = CliRunner().invoke(app, ["plugins", command, "--help"]).stdout

        assert not set(get_args(Kind)) - set(re.findall(r"\w+", shown))
