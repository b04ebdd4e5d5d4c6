"""What planning asks of backends: where they compute, and the versions that enter keys; no framework is imported."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from shutil import which

from harness.api import Backend


def resolve_device(device: str, backend: Backend) -> str:
    """A real device for `auto`: the best that the backend finds; imports no framework into this process.

    Without an NVIDIA driver that is the CPU. With one the backend is asked, in a process of its own, since a framework
    built for the CPU alone finds no GPU.
    """
    if device != "auto":
        return device
    if not has_nvidia_driver() or backend.why_unavailable():
        return "cpu"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(backend.devices).result()[0]


def has_nvidia_driver() -> bool:
    """Whether the system shows an NVIDIA device."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or which("nvidia-smi") is not None


def backend_versions(backend: Backend) -> dict[str, str]:
    """The versions that enter keys; without the framework there are none, and nothing can be cached or run."""
    try:
        return backend.versions()
    except PackageNotFoundError as error:
        return {str(error.name): "not installed"}
