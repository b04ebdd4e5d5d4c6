"""Installs a package of plugins into a folder of its own, as its users would, without a network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def install(source: Path, target: Path) -> None:
    """Build a package and install it into a folder.

    Args:
        source: the folder with its pyproject.toml; copied first, since building writes into it.
        target: the folder that goes on PYTHONPATH.
    """
    copy = shutil.copytree(source, target.parent / f"{target.name}-source")
    # `uv run` says where it is; an environment made by uv has no pip.
    uv = os.environ.get("UV") or shutil.which("uv")
    installer = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    command = [*installer, "--quiet", "--no-deps", "--no-build-isolation", "--target", str(target), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def run(folder: Path, site: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python with an installed package in a folder."""
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "HARNESS_STORE": str(folder / "store")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
