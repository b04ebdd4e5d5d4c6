"""PyTorch: builds a task's network from plain tensors and trains it, on the CPU or on an NVIDIA GPU."""

import ctypes
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import ClassVar

from harness.api import Backend, Device, NativeModel, Need, Problem, Session, Settings, hookimpl, opened_here

from .processor import bfloat16_arithmetic


class TorchBackend(Backend):
    """Trains with PyTorch.

    Weights are held in the harness's own orientation, which is PyTorch's: (outputs, inputs), LSTM gates i, f, g, o. One
    bias per LSTM layer: the second one that PyTorch's cell has stays zero and is never trained.
    """

    name: ClassVar[str] = "torch"
    frameworks: ClassVar[tuple[str, ...]] = ("torch",)
    supplies: ClassVar[tuple[Need, ...]] = (
        "gradients", "hessian_gradients", "input_norms", "input_moments", "synaptic_flow",
    )  # fmt: skip
    supplies_of_own: ClassVar[tuple[Need, ...]] = ("gradients", "hessian_gradients", "input_norms", "input_moments")
    trains_through: ClassVar[bool] = True

    def why_unavailable(self) -> str | None:
        """Say how to install PyTorch where it is missing; looks, does not import."""
        if find_spec("torch") is None:
            return "PyTorch is not installed; run `pip install '.[torch]'`"
        return None

    def versions(self) -> dict[str, str]:
        """Versions of PyTorch and NumPy."""
        found = {}
        for package in ("torch", "numpy"):
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                continue
        return found

    def why_not(self, problem: Problem, settings: Settings) -> str | None:
        """Why this device or precision cannot be used here; the framework is not imported for it."""
        if isinstance(problem.network, NativeModel) and settings.precision != "float32":
            return "torch computes models of a user's own in float32, got precision=bfloat16; set `precision: float32`"
        if settings.device == "cpu":
            return None
        if not re.fullmatch(r"cuda(:\d+)?", settings.device):
            return f"torch: device must be `cpu` or `cuda:N`, got `{settings.device}`; set `device` to one of them"
        # The driver's library, looked for without the framework: planning must not wait for an import of PyTorch.
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return f"torch: device `{settings.device}` needs an NVIDIA driver, none was found; set `device: cpu`"
        return None

    def arithmetic(self, settings: Settings) -> str:
        """How bfloat16 is computed on a CPU: by kernels for it, or in float32 where the processor has none."""
        # Only there do machines differ by more than the order of sums: oneDNN computes with what the processor has.
        if settings.precision == "float32" or settings.device != "cpu":
            return ""
        # What a key was planned with wins: the worker checks that its own processor can do it.
        return settings.arithmetic or bfloat16_arithmetic()

    def devices(self) -> tuple[Device, ...]:
        """The GPUs, then the CPU; imports PyTorch."""
        import torch

        return (*(f"cuda:{index}" for index in range(torch.cuda.device_count())), "cpu")

    def open(self, problem: Problem, settings: Settings) -> Session:
        """Build the network on the device.

        Raises:
            PluginUnavailableError: the device is not there, or the processor lacks what the plan counts on.
        """
        if opened_here(problem):
            from .own import OwnSession

            return OwnSession(problem, settings, self.devices())
        from .session import TorchSession

        settings = settings.model_copy(update={"arithmetic": self.arithmetic(settings)})
        return TorchSession(problem, settings, self.devices())


@hookimpl
def register_backend() -> type[Backend]:
    """Offer this backend to the harness."""
    return TorchBackend
