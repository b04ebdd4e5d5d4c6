"""The command line in a folder of its own, with the NumPy plugins installed beside it as a package would be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app

SUPPORT = Path(__file__).parent

PLUGINS = """
from numpy_plugins import NumpyBackend, ToyTask

from harness.api import hookimpl


@hookimpl
def register_task():
    return ToyTask


@hookimpl
def register_backend():
    return NumpyBackend
"""

SPEC = """
name: {name}
task: toy
scope: [softmax]
tolerance: 0.05
matrix:
  backend: [numpy]
  pattern: [{pattern}]
  strategy: [{{name: fine_tuning, epochs: {epochs}}}]
  sparsity: [0.5]
  seed: [0, 1]
"""


def install_modules(site, distribution, modules, version="1.0"):
    """Put a distribution of single modules into a folder, as an installer leaves it.

    Args:
        site: the folder; distribution: its name.
        modules: text by module name; the first one is the entry point.
        version: of the distribution.
    """
    for old in site.glob(f"{distribution}-*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    info = site / f"{distribution}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[harness.plugins]\n{distribution} = {next(iter(modules))}\n")
    (info / "RECORD").write_text("".join(f"{name}.py,,\n" for name in modules))
    for name, text in modules.items():
        (site / f"{name}.py").write_text(text)


class Shell:
    """A folder with experiments, and the command line run in it.

    Args:
        folder: where commands are run; its `site` holds the plugins.
    """

    def __init__(self, folder):
        self.folder, self.site = folder, folder / "site"
        install_modules(self.site, "toyplugins", {"toy_site_plugins": PLUGINS})
        self._variables = {"OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(folder / "no-data"), "COLUMNS": "150"}

    def spec(self, file="experiment.yaml", name="toy", pattern="unstructured", epochs=2):
        (self.folder / file).write_text(SPEC.format(name=name, pattern=pattern, epochs=epochs))
        return file

    def __call__(self, *arguments, **variables):
        """Run a command in this process, which is faster."""
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(self.site))
            patch.chdir(self.folder)
            for name in ("HARNESS_DATA", "HARNESS_STORE"):
                patch.delenv(name, raising=False)
            return CliRunner().invoke(app, arguments, env=self._variables | variables)

    def start(self, *arguments, **variables):
        """Begin a command in a process of its own."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HARNESS_")}
        environment |= {"PYTHONPATH": os.pathsep.join([str(self.site), str(SUPPORT)]), **self._variables, **variables}
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *arguments],
            cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def process(self, *arguments, **variables):
        """Run a command in a process of its own; its output, or a failed assertion with its errors."""
        process = self.start(*arguments, **variables)
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        return output
