"""`plugins new`: what it writes is found, keeps its contract and runs, untouched."""

import json
import re
import shutil
import tomllib

import pytest
from toy_site import Shell
from typer.testing import CliRunner

from harness.api import SpecError
from harness.cli import app
from harness.cli.scaffold import KINDS, write_file
from harness.discovery.finding import discover


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return tmp_path


def harness(*arguments):
    return CliRunner().invoke(app, arguments)


def refused(*arguments):
    """The sentence that a command refuses with."""
    done = harness(*arguments)
    assert done.exit_code == SpecError.exit_code == 2
    return " ".join(done.stderr.split())


def held(check):
    """The verdicts of `plugins check`, none of them a failure."""
    assert check.exit_code == 0, check.output
    verdicts = json.loads(check.stdout)
    assert "failed" not in {verdict["result"] for verdict in verdicts}
    return {(verdict["kind"], verdict["name"]) for verdict in verdicts if verdict["result"] == "ok"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_lists_keeps_its_contract_and_is_valid(kind, here):
    name = f"my_{kind}"

    assert harness("plugins", "new", kind, name).exit_code == 0

    rows = json.loads(harness("plugins", "list", "--plugin", f"{name}.py", "--json").stdout)
    assert [row["state"] for row in rows if (row["kind"], row["name"]) == (kind, name)] == ["ok"]
    assert held(harness("plugins", "check", f"{name}.py", "--json")) == {(kind, name)}
    valid = harness("validate", f"{name}.yaml")
    assert valid.exit_code == 0, valid.output


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_lists_keeps_its_contract_and_is_valid(kind, here, monkeypatch):
    name = f"own_{kind}"

    assert harness("plugins", "new", kind, name, "--package").exit_code == 0

    folder = here / f"own-{kind}"
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["dependencies"] == ["sparsity-harness"]
    _install(folder, project, here / "site")
    monkeypatch.syspath_prepend(str(here / "site"))
    rows = json.loads(harness("plugins", "list", kind, "--json").stdout)
    assert [row["distribution"] for row in rows if row["name"] == name] == [f"own-{kind}"]
    assert held(harness("plugins", "check", name, "--json")) == {(kind, name)}
    valid = harness("validate", str(folder / "experiment.yaml"))
    assert valid.exit_code == 0, valid.output


def _install(folder, project, site):
    """Lay a package where an installer would, by its own pyproject.toml."""
    (name,) = project["tool"]["setuptools"]["packages"]
    distribution, version = project["project"]["name"], project["project"]["version"]
    entries = project["project"]["entry-points"]["harness.plugins"]
    shutil.copytree(folder / name, site / name)
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines = "".join(f"{entry} = {value}\n" for entry, value in entries.items())
    (info / "entry_points.txt").write_text(f"[harness.plugins]\n{lines}")
    (info / "RECORD").write_text("")


@pytest.mark.torch
def test_their_experiments_run(tmp_path):
    """In one store, so that the dense training is paid once; the hardware kinds then train nothing at all."""
    shell = Shell(tmp_path)
    for kind in KINDS:
        written = shell("plugins", "new", kind, f"my_{kind}")
        assert written.exit_code == 0
        # As it says itself: a tracker is asked for on the command line.
        [command] = re.findall("^next: harness (run .*)$", written.stdout, re.MULTILINE)
        done = shell(*command.split(), "--store", "store", "--workers", "1", "--progress", "none")
        assert done.exit_code == 0, done.output
    found = {}
    for path in (tmp_path / "store" / "runs").glob("*/records.json"):
        records = json.loads(path.read_text())["records"]
        assert {record["status"] for record in records} <= {"ok", "cached"}
        found[re.sub("-.*", "", path.parent.name)] = records

    assert found.keys() == {f"try_my_{kind}" for kind in KINDS}
    assert {record["task"] for record in found["try_my_task"]} == {"my_task"}
    assert {record["backend"] for record in found["try_my_backend"]} == {"my_backend"}
    ours, theirs = (
        {record["strategy"]: record["value"] for record in found[name]}
        for name in ("try_my_backend", "try_my_hardware")
    )
    assert ours["dense"] == pytest.approx(theirs["dense"], abs=3)  # the same weights and batches as on torch
    assert "my_pattern" in {record["pattern"] for record in found["try_my_pattern"]}
    assert "my_strategy" in {record["strategy"] for record in found["try_my_strategy"]}
    assert "my_hardware" in json.dumps(found["try_my_hardware"])
    assert "my_engine" in json.dumps(found["try_my_engine"])
    (curves,) = (tmp_path / "store" / "runs").glob("try_my_tracker-*/my_tracker.csv")
    results = {line.split(",")[0]: line.split(",") for line in curves.read_text().splitlines() if ",test/" in line}
    assert {cell: float(results[cell][-1]) for cell in results} == {
        record["cell"]: record["value"] for record in found["try_my_tracker"]
    }
    (page,) = (tmp_path / "store" / "runs").glob("try_my_column-*/report.md")
    assert "| my_column % |" in page.read_text()


def test_a_file_that_is_there_is_left_as_it_is(here):
    (here / "mine.yaml").write_text("mine")

    said = refused("plugins", "new", "pattern", "mine")

    assert "mine.yaml exists already and was left as it is" in said
    assert (here / "mine.yaml").read_text() == "mine"
    assert not (here / "mine.py").exists()
    harness("plugins", "new", "task", "whole", "--package")
    assert "whole exists already" in refused("plugins", "new", "task", "whole", "--package")


def test_a_file_of_another_name_is_the_one_its_experiment_names(here):
    done = harness("plugins", "new", "strategy", "calm", "-o", "lib/mine.py")

    assert done.exit_code == 0, done.output
    assert harness("validate", "lib/mine.yaml").exit_code == 0


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("pattern", "MyPattern", "take 'my_pattern'"),
        ("pattern", "2fast", "take 'my_2fast'"),
        ("pattern", "class", "take 'my_class'"),
        ("engine", "all", "take 'my_all'"),
        ("pattern", "null", "take 'my_null'"),
        ("pattern", "../up", "take 'up'"),
        ("pattern", "", "take 'my_pattern'"),
        ("pattern", "block", "there is a pattern 'block' already, of sparsity-harness; take another name"),
        ("strategy", "random", "a module 'random' is installed already, which it would hide; take 'my_random'"),
        ("engine", "numpy", "a module 'numpy' is installed already"),
        ("backend", "torch", "there is a backend 'torch' already"),
        ("planet", "mine", f"expected a kind ({', '.join(KINDS)}), got 'planet'"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(kind, name, said, here):
    for form in ([], ["--package"]):
        assert said in refused("plugins", "new", kind, name, *form)

    assert list(here.iterdir()) == []


def test_two_forms_at_once_are_refused(here):
    assert "give one of them" in refused("plugins", "new", "task", "mine", "-o", "a.py", "--package")
    assert "expected a Python file" in refused("plugins", "new", "task", "mine", "-o", "a.txt")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(("kind", "name"), [("pattern", "frame"), ("engine", "none"), ("task", "batch")])
def test_a_class_hides_nothing_that_its_file_imports(kind, name, here):
    write_file(kind, name, None, discover())

    row = discover([], [here / f"{name}.py"]).row(kind, name)

    assert row.state == "ok"
    assert held(harness("plugins", "check", f"{name}.py", "--json")) == {(kind, name)}
