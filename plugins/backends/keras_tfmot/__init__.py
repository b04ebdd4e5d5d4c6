"""Keras 2 with the TensorFlow Model Optimization Toolkit, whose pruning wrappers hold and apply the masks."""

import ctypes
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import ClassVar

from harness.api import Backend, Device, Need, PluginUnavailableError, Problem, Session, Settings, hookimpl, opened_here

_DISTRIBUTIONS = {
    "tensorflow": "tensorflow",
    "tf_keras": "tf-keras",
    "tensorflow_model_optimization": "tensorflow-model-optimization",
}


class KerasTfmot(Backend):
    """The network in tf-keras, pruned through TF-MOT's wrappers and its `UpdatePruningStep` callback."""

    name: ClassVar[str] = "keras_tfmot"
    frameworks: ClassVar[tuple[str, ...]] = ("keras",)
    supplies: ClassVar[tuple[Need, ...]] = (
        "gradients", "hessian_gradients", "input_norms", "input_moments", "synaptic_flow",
    )  # fmt: skip

    def why_unavailable(self) -> str | None:
        """The packages that are not installed, with the remedy."""
        missing = [package for module, package in _DISTRIBUTIONS.items() if find_spec(module) is None]
        if not missing:
            return None
        return f"keras_tfmot needs {', '.join(missing)}, not installed here; run `pip install '.[keras]'`"

    def versions(self) -> dict[str, str]:
        """Versions of TensorFlow, tf-keras, TF-MOT and NumPy."""
        return {package: _version(package) for package in (*_DISTRIBUTIONS.values(), "numpy")}

    def why_not(self, problem: Problem, settings: Settings) -> str | None:
        """Why bfloat16 is left out, or this device cannot be used; TensorFlow is not imported for it."""
        if settings.precision == "bfloat16":
            # Keras' mixed policy casts whole layers, and a wrapper of TF-MOT calls its layer inside its own cast.
            return (
                "keras_tfmot computes in float32: under Keras' mixed policy the LSTM would carry its cell state in "
                "bfloat16 and TF-MOT's wrapper would round the stored weights, got precision=bfloat16; set "
                "`precision: float32` or take another backend"
            )
        if settings.device == "cpu":
            return None
        if not re.fullmatch(r"cuda(:\d+)?", settings.device):
            return (
                f"keras_tfmot: device must be `cpu` or `cuda:N`, got `{settings.device}`; set `device` to one of them"
            )
        # The driver's library, looked for without the framework: planning must not wait for an import of TensorFlow.
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return f"keras_tfmot: device `{settings.device}` needs an NVIDIA driver, none was found; set `device: cpu`"
        return None

    def devices(self) -> tuple[Device, ...]:
        """The GPUs that TensorFlow sees, then the CPU."""
        from .toolkit import frameworks

        tf = frameworks().tf
        return (*(f"cuda:{index}" for index in range(len(tf.config.list_physical_devices("GPU")))), "cpu")

    def open(self, problem: Problem, settings: Settings) -> Session:
        """Set TensorFlow up for this process and build the network.

        Raises:
            PluginUnavailableError: a package or the device is missing.
        """
        reason = self.why_unavailable()
        if reason is not None:
            raise PluginUnavailableError(reason)
        from .toolkit import configure

        configure(settings)
        if opened_here(problem):
            from .own import OwnSession

            return OwnSession(problem, settings)
        from .session import KerasSession

        return KerasSession(problem, settings)


@hookimpl
def register_backend() -> type[Backend]:
    """Offer this backend to the harness."""
    return KerasTfmot


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
