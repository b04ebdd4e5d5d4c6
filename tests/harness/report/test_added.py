"""Columns of third parties in every form of a report: guarded, and no more than a column less without their package."""

import csv
import json
import re
import sys
from io import StringIO
from pathlib import Path

import pytest
from toy_site import Shell
from uncut import check_uncut

import harness
from harness.api import ReportColumn
from harness.discovery.columns import GuardedColumn, report_columns
from harness.report import render
from harness.report.document import build
from harness.results.records import Record, write

FILE = '''
from harness.api import ReportColumn, hookimpl


class Worse(ReportColumn):
    """Loss of quality to dense, in percent."""

    name = "worse_by"
    header = "worse\\nby %"
    about = "worse by: in percent of dense."

    def value(self, row):
        if row.value is None or row.dense is None:
            return None
        return 100 * (row.value / row.dense.value - 1)


class Broken(ReportColumn):
    """Breaks where something is pruned."""

    name = "fragile"

    def value(self, row):
        return row.pattern if row.dense is None else {}["nothing"]


@hookimpl
def register_column():
    return [Worse, Broken]
'''
RAISED = "column fragile of {file} raised KeyError: 'nothing' in value ({file}:24); mend the plugin"


def record(pattern="dense", seed=0, value=10.0, **changes):
    fields = {
        "run": "r", "cell": f"{pattern} {seed}", "task": "t", "backend": "b", "pattern": pattern, "seed": seed,
        "strategy": "dense" if pattern == "dense" else "gradual", "status": "ok", "metric": "loss", "value": value,
        "target_sparsity": 0.0 if pattern == "dense" else 0.5, "sparsity": 0.0 if pattern == "dense" else 0.5,
        "hardware": {"m[bank]": {"cycles": 100 + seed, "speedup": 2.0, "fits": True, "engine": "bank"}},
    }  # fmt: skip
    return Record(**(fields | changes))


def study():
    """Two seeds of a baseline and of a pattern; a pattern that failed."""
    failed = {"status": "failed", "value": None, "sparsity": None, "hardware": {}, "reason": "no luck"}
    return [
        record(), record(seed=1, value=20.0), record("block", value=11.0), record("block", 1, 24.0),
        record("n_m", **failed), record("n_m", 1, **failed),
    ]  # fmt: skip


def guarded(column):
    return GuardedColumn(column, column.name)


def made(answer, **texts):
    """A column that answers so, guarded."""

    class Made(ReportColumn):
        """Made for a test."""

        name = "made"

        def value(self, row):
            return answer(row)

    for name, text in texts.items():
        setattr(Made, name, text)
    return guarded(Made())


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own_columns.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "store" / "runs" / "study-1"
    write(folder / "records.json", study())
    return folder


def lines(text):
    return [row["worse_by"] for row in csv.DictReader(StringIO(text))]


# --- in every form --------------------------------------------------------------------------------------------------


def test_tables_ask_for_the_seeds_of_a_setting_together(file):
    worse = [column for column in report_columns([file]) if column.name == "worse_by"]

    text = render(study(), format="md", columns=worse)

    (header,) = [line for line in text.splitlines() if line.startswith("| backend") and "worse by %" in line]
    place = [cell.strip() for cell in header.split("|")].index("worse by %")
    cells = {row.split("|")[2].strip(): row.split("|")[place].strip() for row in text.splitlines() if row[:3] == "| b"}
    assert {name: cells[name] for name in ("dense", "block", "n_m")} == {"dense": "", "block": "16.67", "n_m": ""}
    assert "- worse by: in percent of dense." in text


def test_csv_has_the_values_as_they_are(file):
    text = render(study(), format="csv", columns=report_columns([file]))

    assert lines(text) == ["", str(100 * (17.5 / 15 - 1)), ""]


def test_json_and_data_frames_ask_for_every_cell_alone(file, run_folder):
    text = render(study(), format="json", columns=report_columns([file])[-1:])

    assert [round(cell["columns"]["worse_by"] or 0, 6) for cell in json.loads(text)] == [0, 0, 10, 20, 0, 0]
    (run_folder / "plugins.json").write_text(json.dumps({"files": [str(file)]}))
    with pytest.warns(UserWarning, match=re.escape(RAISED.format(file="own_columns.py"))):
        frame = harness.results(run_folder).to_frame()
    assert frame["worse by %"].round(6).fillna(0).tolist() == [0, 0, 10, 20, 0, 0]
    assert frame["fragile"].fillna("").tolist() == ["dense", "dense", "", "", "", ""]


def test_without_columns_nothing_of_a_report_changes():
    assert all("columns" not in cell for cell in json.loads(render(study(), format="json")))
    for form in ("md", "csv", "rich"):
        assert render(study(), format=form) == render(study(), format=form, columns=())


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_a_narrow_terminal_cuts_no_value_of_it(file, width):
    document = build(study(), title="t", margin=None, medium="terminal", columns=report_columns([file]))

    check_uncut(document, width)


def test_rows_have_means_over_seeds_and_their_cells():
    seen = []

    render(study(), format="csv", columns=[made(seen.append)])

    dense, block, n_m = seen
    assert dense.dense is None and block.dense == dense
    assert (block.values, block.value, block.hardware) == (
        {0: 11.0, 1: 24.0}, 17.5, {"m[bank]": {"cycles": 100.5, "speedup": 2.0}}
    )  # fmt: skip
    assert (n_m.value, n_m.hardware, n_m.sparsity) == (None, {}, None)
    assert [cell["reason"] for cell in n_m.records] == ["no luck", "no luck"]
    assert [cell["seed"] for cell in block.records[1:]] == [1]


# --- what it says of itself -----------------------------------------------------------------------------------------


def test_texts_booleans_and_footnotes_are_shown_as_they_are_meant():
    text = render(study(), format="md", columns=[made(lambda row: row.pattern == "block", header="is block")])
    noted = render(study(), format="md", columns=[made(lambda row: None, footnote=lambda self, row: "never known")])

    assert "| yes |" in text and "| no |" in text
    assert re.search(r"([¹²³⁴]) never known", noted) and noted.count("–") > text.count("–")


def test_a_column_stands_only_where_it_applies_and_has_something():
    nowhere = made(lambda row: 1, applies=lambda self, rows: False)
    empty = made(lambda row: None)

    for column in (nowhere, empty):
        assert "made" not in render(study(), format="md", columns=[column])


# --- guarded --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda row: 1 / 0, "raised ZeroDivisionError"),
        (lambda row: sys.exit("enough"), "exited (SystemExit: enough)"),
        (lambda row: float("nan"), "expected a finite number, a text, true, false or None, got nan"),
        (lambda row: [1], "expected a finite number, a text, true, false or None, got [1]"),
        (lambda row: "x" * 5_000_000, ""),
    ],
    ids=["raises", "exits", "nan", "list", "long"],
)
@pytest.mark.parametrize("form", ["md", "rich", "csv", "json"])
def test_whatever_it_answers_the_report_is_whole(answer, sentence, form):
    column = made(answer)

    text = render(study(), format=form, columns=[column], width=1000)

    assert "no luck" in text and len(text) < 100_000
    assert sentence in column.fault and bool(column.fault) == bool(sentence)
    if sentence and form in ("md", "rich"):  # one line, whatever the number of rows
        assert text.replace("\\", "").count(sentence) == 1
        assert "test_added.py" in text


@pytest.mark.parametrize("method", ["shown", "footnote", "applies"])
def test_every_other_answer_is_guarded_too(method):
    def fails(self, *_):
        raise RuntimeError(method)

    column = made(lambda row: 1.0, **{method: fails})

    assert "no luck" in render(study(), format="md", columns=[column])
    assert f"raised RuntimeError: {method} in fails (" in column.fault


# --- from where -----------------------------------------------------------------------------------------------------


def test_a_file_is_asked_on_the_command_line_and_its_fault_told_once(file, run_folder):
    shell = Shell(file.parent)

    table = shell("report", str(run_folder), "--full", "--plugin", file.name)
    data = shell("report", str(run_folder), "--format", "csv", "--plugin", file.name)

    fault = RAISED.format(file="own_columns.py")
    assert table.stdout.replace("\n", " ").count(fault) == 1 and "worse" in table.stdout and not table.stderr
    assert data.stderr.splitlines() == [f"warning: column left empty: {fault}"] and len(lines(data.stdout)) == 3
    assert (table.exit_code, data.exit_code) == (0, 0)


def test_a_plugin_that_is_gone_is_a_column_less(file, run_folder):
    (run_folder / "plugins.json").write_text(json.dumps({"files": [str(file)]}))
    shell = Shell(file.parent)
    assert "worse" in shell("report", str(run_folder), "--format", "csv").stdout

    file.unlink()
    done = shell("report", str(run_folder), "--format", "csv")

    assert done.exit_code == 0 and "no luck" in done.stdout and "worse" not in done.stdout


def test_a_report_imports_nothing_that_is_built_in(file, run_folder, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("harness_plugins")]:
        monkeypatch.delitem(sys.modules, name)

    assert [column.name for column in report_columns([file])] == ["fragile", "worse_by"]
    assert not any(name.startswith("harness_plugins") for name in sys.modules)


def test_it_is_listed_and_held_to_its_contract(file):
    shell = Shell(file.parent)

    rows = json.loads(shell("plugins", "list", "columns", "--plugin", file.name, "--json").stdout)
    checked = shell("plugins", "check", file.name)

    assert [(row["name"], row["state"]) for row in rows] == [("fragile", "ok"), ("worse_by", "ok")]
    assert "ok  column worse_by, column" in checked.stdout
    assert "failed  column fragile, column: raised KeyError" in checked.stdout
    assert Path(rows[0]["module"]) == file
