"""The documents are true: commands exist, code runs, examples are valid, links lead somewhere."""

import json
import os
import re
import shlex
import stat
import tomllib
from pathlib import Path

import pytest
from packages import install, run
from typer.testing import CliRunner

from harness.api import SGD, Constant, Prune, Recipe, SpecError, Train
from harness.cli import app
from harness.discovery.finding import discover
from harness.spec import check, load

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("HARNESS_DATA") or ROOT.parent / "shared" / "data")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
NO_SPECS = ("devices", "engines", "workloads")  # folders of other files that a user may write
EXAMPLES = sorted(path for path in ROOT.glob("examples/**/*.yaml") if path.parent.name not in NO_SPECS)


def test_the_readme_has_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()

    assert "pip install uv && uv run harness run examples/quickstart.yaml" in lines
    assert "uv run --all-extras --group dev pytest" in lines


def harness_commands():
    """Every line in the documents that is a command of ours, without its comment."""
    found = set()
    for document in DOCUMENTS:
        for block in re.findall(r"```sh\n(.*?)```", document.read_text(), re.DOTALL):
            whole = block.replace("\\\n", "")  # a line that goes on is one command
            found |= {line.partition("#")[0].strip() for line in whole.splitlines() if line.startswith("harness ")}
    return sorted(found)


@pytest.mark.parametrize("line", harness_commands())
def test_a_command_in_the_documents_is_one_that_the_command_line_has(line):
    words = shlex.split(line)[1:]
    options = [word for word in words if word.startswith("-")]
    groups = {"plugins", "data", "hardware"}
    command = words[:2] if words[0] in groups else words[:1]

    described = CliRunner().invoke(app, [*command, "--help"])

    assert described.exit_code == 0, described.stderr
    assert [option for option in options if option not in described.stdout] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_the_documents_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    broken = [link for link in links if "://" not in link and not (document.parent / link).exists()]

    assert broken == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_begins_with_a_comment_and_is_valid(example):
    assert example.read_text().startswith("# ")
    if example.parent.name == "third_party":
        with pytest.raises(SpecError, match="column_quota"):  # its plugins are installed in test_third_party.py alone
            load(example, discover())
        return

    experiment = load(example, discover())

    if any(cell.task.name == "own" for cell in experiment.cells):
        return  # run in the tests of the task, its framework is not imported here
    tasks = [cell.task.parameters() for cell in experiment.cells]
    needs_files = any(task.get("corpus") == "ptb" or "mnist" in str(task.get("data")) for task in tasks)
    if not needs_files or DATA.is_dir():
        folder = experiment.data_dir or (DATA if needs_files else None)
        check(experiment, {task: task.load(folder) for task in {cell.task for cell in experiment.cells}})


def updates_of(strategy):
    """The mask updates of a strategy's program for some recipe; none where it needs a longer one."""
    recipe = Recipe(epochs=13, optimiser=SGD(), learning_rate=Constant(rate=1.0), steps_per_epoch=50)
    try:
        phases = strategy.program(recipe, 0.9)
    except SpecError:
        return []
    trained = [update for phase in phases if isinstance(phase, Train) for update in phase.mask_updates(50)]
    return [*trained, *(phase for phase in phases if isinstance(phase, Prune))]


def test_the_examples_use_every_built_in_plugin():
    registry = discover()
    used = set()
    for example in EXAMPLES:
        if example.parent.name != "third_party":
            experiment = load(example, registry)
            parts = [
                part for cell in experiment.cells for part in (cell.task, cell.backend, cell.pattern, cell.strategy)
            ]
            strategies = [cell.strategy for cell in experiment.cells if cell.strategy is not None]
            parts += [getattr(each, "schedule", None) for each in strategies]
            used |= {update.score.name for each in strategies for update in updates_of(each)}
            used |= {part.name for part in (*parts, *experiment.hardware) if part is not None}
            used |= {model.engine.name for model in experiment.hardware if getattr(model, "engine", None) is not None}

    # Some scores belong to one strategy alone and are no plugins.
    # No experiment names a tracker: it changes no result.
    own = [row for row in registry.rows if row.distribution == "sparsity-harness" and row.kind != "tracker"]
    assert {row.name for row in own} <= used


def test_the_readme_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert [extra for extra in extras if f"`[{extra}]`" not in (ROOT / "README.md").read_text()] == []


def test_the_readme_names_every_built_in_plugin():
    readme = (ROOT / "README.md").read_text()
    missing = [
        row.name for row in discover().rows if row.distribution == "sparsity-harness" and f"`{row.name}`" not in readme
    ]

    assert missing == []


def tutorial_files():
    """The files that docs/write-a-plugin.md has its reader write, by name."""
    text = (ROOT / "docs" / "write-a-plugin.md").read_text()
    return dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", text, re.DOTALL))


def test_the_tutorial_makes_a_package_that_works(tmp_path):
    project, site = tmp_path / "project", tmp_path / "site"
    for name, content in tutorial_files().items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(content)

    install(project, site)

    listed = run(project, site, "-m", "harness", "plugins", "list", "--json")
    states = {row["name"]: row["state"] for row in json.loads(listed.stdout) if row["distribution"] == "my-sparsity"}
    assert states == {
        "stretches": "ok", "prune_twice": "ok", "row_serial": "ok", "saved_per_percent": "ok",
        "by_movement": "ok", "late": "ok", "untouched": "ok", "uneven": "ok",
    }  # fmt: skip
    tests = ("test_stretches.py", "test_row_serial.py", "test_late.py", "test_untouched.py")
    tested = run(project, site, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert tested.returncode == 0 and "11 passed" in tested.stdout, tested.stdout
    checked = run(project, site, "-m", "harness", "validate", "experiment.yaml")
    assert checked.returncode == 0, checked.stderr


def test_no_document_names_a_path_of_a_machine_or_a_registry():
    unwanted = re.compile(r"(^|[\s\"'(])/(home|root|work|tmp|Users)/|pypi\.org|/simple\b|index-url")
    files = [*DOCUMENTS, *EXAMPLES, ROOT / ".ci" / "run", ROOT / ".pre-commit-config.yaml", ROOT / "pyproject.toml"]

    assert [str(path) for path in files if unwanted.search(path.read_text())] == []


def test_the_check_script_can_be_executed():
    assert (ROOT / ".ci" / "run").stat().st_mode & stat.S_IXUSR
