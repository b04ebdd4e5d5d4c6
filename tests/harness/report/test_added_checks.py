"""Named checks of third parties: guarded, kept in the records, silenced and told like the harness's own."""

import json

import pytest
from typer.testing import CliRunner

from harness.api import PluginContractError, ReportRow, StudyCheck
from harness.cli import app
from harness.discovery.checks import GuardedCheck, study_checks
from harness.discovery.finding import discover
from harness.report import render
from harness.report.checks import beforehand, look, noted
from harness.results.records import Record, read, write
from harness.testing import check_study_check

FILE = '''
from harness.api import StudyCheck, hookimpl


class Uneven(StudyCheck):
    """Seeds that end far apart."""

    name = "uneven"
    code = "ACME001"
    title = "seeds far apart"
    remedy = "add seeds"

    def look(self, rows):
        found = [row for row in rows if row.values and max(row.values.values()) >= 2 * min(row.values.values())]
        if found:
            yield f"{len(found)} of {len(rows)} settings.", found


class Broken(StudyCheck):
    """Breaks on every study."""

    name = "fragile"
    code = "ACME002"
    title = "fragile things"

    def look(self, rows):
        return {}["nothing"]


@hookimpl
def register_check():
    return [Uneven, Broken]
'''
RAISED = "check fragile of {file} raised KeyError: 'nothing' in look ({file}:27); mend the plugin"


def record(pattern="dense", seed=0, value=10.0, **changes):
    share = 0.0 if pattern == "dense" else 0.5
    fields = {
        "run": "r", "cell": f"{pattern} {seed}", "task": "t", "backend": "b", "pattern": pattern, "seed": seed,
        "strategy": "dense" if pattern == "dense" else "gradual", "status": "ok", "metric": "loss", "value": value,
        "target_sparsity": share, "sparsity": share,
    }  # fmt: skip
    return Record(**(fields | changes))


def study():
    """Two seeds of a baseline and of a pattern, far apart; a pattern that failed."""
    failed = {"status": "failed", "value": None, "sparsity": None, "reason": "no luck"}
    return [
        record(), record(seed=1, value=20.0), record("block", value=11.0), record("block", 1, 24.0),
        record("n_m", **failed), record("n_m", 1, **failed),
    ]  # fmt: skip


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own_checks.py"
    path.write_text(FILE)
    return path


def made(look, **attributes):
    fields = {"__doc__": "Made.", "__module__": __name__, "name": "made", "code": "OWN007", "title": "made up"}
    return type("Made", (StudyCheck,), {**fields, "look": lambda self, rows: look(rows), **attributes})()


def told(summary):
    return {found.finding.code: found for found in summary.found if not found.finding.code.startswith("SPN")}


def test_what_a_check_found_is_of_the_cells_of_its_rows(file):
    found = told(look(study(), added=study_checks([file])))

    assert found["ACME001"].finding.text == "2 of 3 settings"
    assert found["ACME001"].cells == {"dense 0", "dense 1", "block 0", "block 1"}
    assert found["ACME001"].finding.remedy == "add seeds"


def test_a_check_that_breaks_is_told_and_takes_nothing_with_it(file):
    found = told(look(study(), added=study_checks([file])))

    assert found["ACME002"].finding.title == "not checked: fragile things"
    assert found["ACME002"].finding.text == RAISED.format(file="own_checks.py")
    assert found["ACME002"].cells == {record.cell for record in study()}


@pytest.mark.parametrize(
    "answer",
    [lambda rows: ["text"], lambda rows: [("", rows)], lambda rows: [("text", [])], lambda rows: 7,
     lambda rows: [("text", [ReportRow()])]],
    ids=["no rows", "no text", "of nothing", "number", "a row of its own"],
)  # fmt: skip
def test_an_answer_that_the_contract_forbids_is_told_as_one(answer):
    check = GuardedCheck(made(answer))

    assert check.look([ReportRow(values={0: 1.0})]) == []
    assert check.fault
    with pytest.raises((PluginContractError, TypeError)):
        check_study_check(made(answer))


def test_passed_and_idle_ones_are_listed_where_they_look():
    silent, idle = (GuardedCheck(made(lambda rows: [], code=c, applies=a)) for c, a in
                    (("OWN001", lambda self, rows: True), ("OWN002", lambda self, rows: False)))  # fmt: skip

    summary = look(study(), added=[silent, idle])

    assert "OWN001" in summary.passed and "OWN002" in summary.idle


def test_only_those_that_a_plan_is_enough_for_look_at_one():
    early, late = (GuardedCheck(made(lambda rows: [("found", rows)], code=code, is_beforehand=is_beforehand))
                   for code, is_beforehand in (("OWN001", True), ("OWN002", False)))  # fmt: skip

    assert told(beforehand(study(), [early, late])).keys() == {"OWN001"}


def test_a_report_tells_what_lies_in_the_records_without_the_plugin(file):
    kept = noted(study(), study_checks([file]))

    for form in ("md", "html", "rich", "latex"):
        assert "ACME001" in render(kept, format=form)
    assert "ACME001" in {each["code"] for each in json.loads(render(kept, format="json"))[0]["checks"]}


def test_one_that_looks_again_replaces_what_it_once_found(file):
    kept = noted(study(), study_checks([file]))
    file.write_text(FILE.replace("2 * min", "9 * min"))

    again = noted(kept, study_checks([file]))

    assert {each.code for each in kept[0].checks} >= {"ACME001", "ACME002"}
    assert "ACME001" not in {each.code for record in again for each in record.checks}


def test_a_silenced_one_is_listed_as_such_without_the_plugin(file):
    records = [record.model_copy(update={"ignore": ("ACME001",)}) for record in study()]

    summary = look(noted(records, study_checks([file])))

    assert "ACME001" not in told(summary)
    assert "ACME001" in {found.finding.code for found in summary.silenced}


def test_the_command_looks_with_a_check_of_a_file(file, tmp_path):
    folder = tmp_path / "store" / "runs" / "study-1"
    write(folder / "records.json", study())

    def report(*options):
        done = CliRunner().invoke(app, ["report", str(folder), "--format", "md", *options])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert "ACME" not in report()
    assert "2 of 3 settings" in report("--plugin", str(file))
    assert "own_checks.py:27" in report("--plugin", str(file))
    assert all(not record.checks for record in read(folder / "records.json"))  # reports change no file


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('code = "ACME001"', 'code = "SPN001"'), "not beginning with SPN"),
        (('code = "ACME001"', 'code = "acme1"'), "such as ACME001"),
        (('code = "ACME001"\n', "\n"), "got None"),
        (('title = "seeds far apart"', 'title = " "'), "`title` to be a few words"),
        (('remedy = "add seeds"', 'severity = "grave"'), "error, warning or note"),
    ],
    ids=["ours", "form", "none", "title", "severity"],
)
def test_a_check_that_does_not_say_what_a_finding_needs_is_a_broken_plugin(file, change, said):
    file.write_text(FILE.replace(*change))

    (row,) = [row for row in discover([], [file]).rows if row.name == "uneven"]

    assert row.state == "broken"
    assert said in row.error
    assert study_checks([file], [])[0].code == "ACME002"
