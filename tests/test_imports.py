"""Who may import whom, and that nothing heavy is imported before it is needed."""

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

HEAVY = (
    "torch", "tensorflow", "tf_keras", "keras", "tensorflow_model_optimization",
    "scipy", "pandas", "matplotlib",
)  # fmt: skip

REPORT = f"""
import sys
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, f"loaded: {{loaded}}"
"""


def run_fresh(code):
    """Run code, then fail if a heavy library was loaded, in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code + REPORT], capture_output=True, text=True, timeout=600, check=False
    )  # fmt: skip


def command(*arguments):
    return f"""
from harness.cli import app
try:
    app({list(arguments)!r})
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize(
    "code",
    [
        command("--help"),
        command("run", "--help"),
        command("plugins", "list"),
        command("plugins", "show", "bank_balanced"),
        command("data", "list"),
        command("validate", "examples/quickstart.yaml"),
        command("plan", "examples/quickstart.yaml", "--store", "no-such-store"),
        "from harness.discovery.finding import discover; assert len(discover().rows) > 10",
        "import harness.execution.run, harness.report, harness.results.statistics, harness.testing",
    ],
    ids=["help", "run help", "plugins list", "plugins show", "data list", "validate", "plan", "discovery", "core"],
)
def test_heavy_libraries_are_not_imported_by(code):
    done = run_fresh(f"import os; os.chdir({str(ROOT)!r})\n{code}")

    assert done.returncode == 0, done.stderr


def test_help_imports_no_library_but_that_of_the_command_line():
    done = run_fresh(command("--help") + "import sys; assert not {'numpy', 'pydantic', 'rich'} & sys.modules.keys()")

    assert done.returncode == 0, done.stderr


def test_the_import_rules_are_kept():
    linter = shutil.which("lint-imports", path=Path(sys.executable).parent) or shutil.which("lint-imports")

    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)

    assert done.returncode == 0, done.stdout


def test_no_test_imports_a_framework_in_the_test_process():
    frameworks = {"torch", "tensorflow", "tf_keras", "tensorflow_model_optimization"}
    files = (ROOT / "tests").rglob("*.py")
    # But for models as users write them, which scripts in processes of their own import.
    modules = [path for path in files if path.parent.name != "own_models" and not path.name.startswith("layers_in_")]

    def imported(path):
        """What a module imports by itself; the text of a script that it runs is another process's."""
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield (node.module or "").partition(".")[0]

    assert len(modules) > 10
    assert [path.name for path in modules if frameworks & set(imported(path))] == []


def test_every_package_is_part_of_a_wheel():
    """An editable install finds all folders; one from a wheel has those that are listed, and no others."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [
        ".".join((name, *path.parent.relative_to(ROOT / folder).parts))
        for folder, name in (("harness", "harness"), ("plugins", "harness_plugins"))
        for path in (ROOT / folder).rglob("__init__.py")
    ]

    assert sorted(listed) == sorted(found)
