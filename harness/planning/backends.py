"""What planning asks of backends: where they compute; no framework is imported."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from shutil import which

from harness.api import Backend
from harness.discovery.asking import why_unavailable
from harness.discovery.guard import calling, refused


def resolve_device(device: str, backend: Backend) -> str:
    """A real device for `auto`: the best that the backend finds; imports no framework into this process.

    Without an NVIDIA driver that is the CPU. With one the backend is asked, in a process of its own, since a framework
    built for the CPU alone finds no GPU.

    Raises:
        PluginContractError: the backend's code is at fault.
    """
    if device != "auto":
        return device
    # Without a driver there is nothing to ask for, and importing a framework to hear "cpu" takes seconds.
    if not has_nvidia_driver() or why_unavailable(backend):
        return "cpu"
    # In a process of its own, started anew: a framework must not be imported here, nor its state be copied by a fork.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool, calling(backend):
        found: object = pool.submit(backend.devices).result()
    if not isinstance(found, Sequence) or not found or not all(isinstance(device, str) for device in found):
        raise refused(backend, "a tuple of devices, at least one", repr(found)[:80], "devices")
    return str(found[0])


def has_nvidia_driver() -> bool:
    """Whether the system shows an NVIDIA device."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or which("nvidia-smi") is not None
