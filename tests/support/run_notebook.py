"""Runs a notebook with this Python as its kernel, and writes it with its outputs: `run_notebook.py NOTEBOOK OUTPUT`.

A process of its own: the sockets of a kernel's client are closed by the garbage collection, with a warning.
"""

import sys
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient


class _ThisPython(KernelSpecManager):
    """One kernel, whatever is installed for the user."""

    def get_kernel_spec(self, kernel_name):
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python", language="python")


if __name__ == "__main__":
    notebook, output = map(Path, sys.argv[1:])
    found = nbformat.read(notebook, as_version=4)
    manager = AsyncKernelManager(kernel_spec_manager=_ThisPython(), kernel_name="python3")
    folder = {"metadata": {"path": str(output.parent)}}
    NotebookClient(found, km=manager, timeout=600, startup_timeout=300, resources=folder).execute()
    nbformat.write(found, output)
