"""Plugins that are files beside the experiment: named in it or on the command line, guarded like installed ones."""

import json
import os

import pytest
from typer.testing import CliRunner

from harness import scripting
from harness.api import SpecError, UnknownPluginError
from harness.cli import app
from harness.discovery.finding import discover
from harness.inspection.columns import columns_of
from harness.inspection.experiments import experiment_of
from harness.spec import load

PATTERN = '''"""Mine."""

from typing import ClassVar

from harness.api import Frame, Pattern, hookimpl
from helpers import GROUP


class Mine(Pattern):
    """Rows of my own."""

    name: ClassVar[str] = "NAME"

    def frame(self, rows: int, cols: int) -> Frame:
        """Every row."""
        return Frame(group=GROUP)


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer it."""
    return Mine
'''
SPEC = """
name: mine
plugins: [lib/mine.py]
task: {name: lstm_lm, corpus: synthetic, hidden: 8, epochs: 1, full_epochs: 1}
matrix: {backend: [torch], pattern: [mine], strategy: [one_shot], sparsity: [0.5]}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "mine.py").write_text(PATTERN.replace("NAME", "mine"))
    (tmp_path / "lib" / "helpers.py").write_text("GROUP = (1, None)\n")
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path


def test_a_file_is_a_row_whose_origin_is_the_file(folder):
    row = discover([], [folder / "lib" / "mine.py"]).row("pattern", "mine")

    assert (row.state, row.summary, row.version) == ("ok", "Rows of my own.", "")
    assert row.module == row.distribution == str(folder / "lib" / "mine.py")


def test_an_experiment_names_files_seen_from_its_folder(folder, monkeypatch):
    monkeypatch.chdir("/")

    experiment = load(folder / "spec.yaml", discover())

    assert {cell.pattern.name for cell in experiment.cells if cell.pattern} == {"mine"}
    assert experiment.plugins == (folder / "lib" / "mine.py",)
    with pytest.raises(UnknownPluginError):
        discover().row("pattern", "mine")  # of one experiment alone


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0", "raised at import: ZeroDivisionError"),
        ("import not_a_module_of_anybody", "install 'not_a_module_of_anybody' or mend the file"),
        ("X = 1", "offers no plugin"),
        (PATTERN.replace("NAME", "unstructured"), "built-in names are reserved"),
        (PATTERN.replace("@hookimpl\n", ""), "no function marked @hookimpl"),
        ("raise SystemExit", "exited at import"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_mistake_at_its_line(folder, text, said):
    (folder / "lib" / "mine.py").write_text(text)

    with pytest.raises(SpecError) as caught:
        load(folder / "spec.yaml", discover())

    assert said in str(caught.value) and "spec.yaml:3:" in str(caught.value)


def test_a_file_that_is_not_there_is_a_mistake_at_its_line(folder):
    (folder / "spec.yaml").write_text(SPEC.replace("lib/mine", "lib/gone"))

    with pytest.raises(SpecError, match=r"spec\.yaml:3:\d+ plugins\[0\].*gone\.py, which is not there"):
        load(folder / "spec.yaml", discover())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def half():\n    return 1 / 0\n\nhalf()\n", "ZeroDivisionError: division by zero, in half (lib/mine.py:2)"),
        ("import numpy\n\nnumpy.nothing\n", "has no attribute 'nothing' (lib/mine.py:3)"),
        ("def f(:\n", "mine.py, line 1"),
        ("X = 1", "offers no plugin"),
    ],
)
def test_a_named_file_that_cannot_be_used_is_refused_though_nothing_of_it_is_used(folder, monkeypatch, text, said):
    (folder / "spec.yaml").write_text(SPEC.replace("plugins: [lib/mine.py]\n", "").replace("mine", "unstructured"))
    (folder / "lib" / "mine.py").write_text(text)
    (folder / "layers.yaml").write_text("version: 1\nlayers:\n  - {type: dense, name: a, inputs: 8, outputs: 8}\n")
    monkeypatch.chdir(folder)

    for command in (["validate", "spec.yaml"], ["hardware", "cost", "layers.yaml"], ["schema"]):
        done = CliRunner().invoke(app, [*command, "--plugin", "lib/mine.py"])

        assert done.exit_code == 2
        assert "--plugin: " in done.stderr and "lib/mine.py: " in done.stderr and said in done.stderr
    with pytest.raises(SpecError, match=r"plugins: .*mine\.py: "):
        scripting.load("spec.yaml", plugins=["lib/mine.py"])
    with pytest.raises(SpecError, match=r"mine\.py: "):
        columns_of(folder, [folder / "lib" / "mine.py"])  # of a report


def test_a_file_that_nobody_wrote_is_refused_by_its_size(folder):
    os.truncate(folder / "lib" / "mine.py", 3 << 30)  # sparse: no room is taken

    with pytest.raises(SpecError, match=r"at most 16777216 bytes, got .*mine\.py of 3221225472"):
        discover([], [folder / "lib" / "mine.py"])


def test_the_commands_take_files(folder):
    (folder / "spec.yaml").write_text(SPEC.replace("plugins: [lib/mine.py]\n", ""))
    file, runner = str(folder / "lib" / "mine.py"), CliRunner()

    listed = runner.invoke(app, ["plugins", "list", "pattern", "--plugin", file, "--json"])
    assert {"mine"} <= {row["name"] for row in json.loads(listed.stdout)}
    assert runner.invoke(app, ["plugins", "show", "mine", "--plugin", file]).exit_code == 0
    assert runner.invoke(app, ["validate", str(folder / "spec.yaml"), "--plugin", file]).exit_code == 0
    assert runner.invoke(app, ["validate", str(folder / "spec.yaml")]).exit_code == 2
    assert runner.invoke(app, ["plugins", "list", "--plugin", str(folder / "gone.py")]).exit_code == 2


def test_a_run_goes_through_workers_and_is_understood_afterwards(folder):
    runner, store = CliRunner(), str(folder / "store")

    ran = runner.invoke(app, ["run", str(folder / "spec.yaml"), "--store", store, "--smoke", "--progress", "none"])
    assert ran.exit_code == 0, ran.output
    run = next((folder / "store" / "runs").iterdir())
    assert experiment_of(run).plugins == (folder / "lib" / "mine.py",)
    why = ["why", "mine 0.5", "--store", store]
    assert "cached: nothing would run" in runner.invoke(app, why).stdout
    assert runner.invoke(app, ["show", "mine 0.5", "--store", store]).exit_code == 0

    (folder / "lib" / "helpers.py").write_text("GROUP = (1, 2)\n")
    from harness.planning import code_digest

    code_digest.forget()
    assert "mine.py, edited" in runner.invoke(app, why).stdout


def test_a_sound_file_passes_its_checks(folder):
    checked = CliRunner().invoke(app, ["plugins", "check", str(folder / "lib" / "mine.py"), "--json"])

    assert checked.exit_code == 0, checked.output
    assert [(row["check"], row["result"]) for row in json.loads(checked.stdout)] == [
        ("component", "ok"),
        ("import", "ok"),
        ("pattern", "ok"),
    ]


def test_an_installed_plugin_is_checked_by_name():
    assert CliRunner().invoke(app, ["plugins", "check", "one_shot"]).exit_code == 0
    assert CliRunner().invoke(app, ["plugins", "check", "nobody_has_this"]).exit_code == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("return Frame(group=GROUP)", "raise ShapeError('mine: no')", "at least one of these shapes to be taken"),
        ("return Frame(group=GROUP)", "return 1 / 0", "raised ZeroDivisionError"),
        ("return Mine", "return 3", "must return a subclass of Pattern"),
        ("GROUP\n", "GONE\n", "raised at import"),
    ],
    ids=["all_refused", "raises", "no_class", "no_import"],
)
def test_a_file_that_breaks_its_contract_fails(folder, old, new, said):
    text = PATTERN.replace("NAME", "mine").replace("hookimpl\nfrom", "ShapeError, hookimpl\nfrom")
    (folder / "lib" / "mine.py").write_text(text.replace(old, new, 1))

    checked = CliRunner().invoke(app, ["plugins", "check", str(folder / "lib" / "mine.py")])

    assert checked.exit_code == 6 and said in checked.stdout, checked.output
