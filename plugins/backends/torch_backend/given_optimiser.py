"""A user's own `torch.optim.Optimizer`, with its state as arrays that the store keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import Array, PluginContractError, SpecError, theirs

from .optimiser import Gradient, Stepper

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

_ARRAY, _NUMBER = "optimiser/", "optimiser-number/"


class GivenStepper(Stepper):
    """An optimiser that the user makes; its learning rate is set before every step, groups keeping their ratios.

    Args:
        make: parameters -> the optimiser.
        parameters: by name; those that are trained.
        folder: where the user's files lie.
    """

    def __init__(self, make: Callable[[Any], Any], parameters: Mapping[str, Parameter], folder: Path) -> None:
        import torch

        with theirs(folder, "making the optimiser"):
            self._optimiser = make(list(parameters.values()))
        if not isinstance(self._optimiser, torch.optim.Optimizer):
            raise SpecError(f"own: `optimiser` must make a torch.optim.Optimizer, got {type(self._optimiser).__name__}")
        self.slots = {}
        self._parameters, self._folder = parameters, folder
        # Groups may have rates of their own: a schedule moves all of them in proportion.
        first = self._optimiser.param_groups[0]["lr"]
        self._ratios = [float(group["lr"] / first) if first else 1.0 for group in self._optimiser.param_groups]

    def step(self, weights: dict[str, Tensor], gradients: dict[str, Gradient], rate: float, scale: float) -> None:
        """Let the optimiser take its step along the gradients, which are views of the parameters' own."""
        for parameter in self._parameters.values():
            # Into the gradient, since an optimiser that somebody else wrote takes no factor.
            if scale != 1.0 and parameter.grad is not None:
                parameter.grad.mul_(scale)
        for group, ratio in zip(self._optimiser.param_groups, self._ratios, strict=True):
            group["lr"] = rate * ratio
        with theirs(self._folder, "the optimiser's step"):
            self._optimiser.step()

    def like(self, parameter: str) -> Iterator[Tensor]:
        """The state of a parameter that has its shape: momentum and the like."""
        import torch

        owner = self._parameters.get(parameter)
        for value in self._optimiser.state.get(owner, {}).values() if owner is not None else ():
            # Step counts and the like have another shape, and nothing of a weight in them.
            if isinstance(value, torch.Tensor) and value.shape == owner.shape:  # type: ignore[union-attr]  # not None
                yield value

    def state(self) -> dict[str, Array]:
        """Everything it keeps, by parameter and name."""
        import torch

        found: dict[str, Array] = {}
        for name, parameter in self._parameters.items():
            for key, value in self._optimiser.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    found[f"{_ARRAY}{name}/{key}"] = np.array(value.detach().cpu().numpy())
                elif isinstance(value, int | float):
                    found[f"{_NUMBER}{name}/{key}"] = np.array(value)
                elif value is not None:
                    raise PluginContractError(
                        f"own: the optimiser keeps {key!r} as {type(value).__name__}; tensors and numbers can be stored"
                    )
        return found

    def load(self, values: Mapping[str, Array]) -> None:
        """Take the state over; what is not there starts anew."""
        import torch

        # An empty state is how an optimiser begins; what is left over of an earlier stage would be used.
        self._optimiser.state.clear()
        groups = (group for group in self._optimiser.param_groups if group.get("capturable") or group.get("fused"))
        on_device = {parameter for group in groups for parameter in group["params"]}
        for full, value in values.items():
            for prefix in (_ARRAY, _NUMBER):
                if full.startswith(prefix):
                    name, _, key = full.removeprefix(prefix).rpartition("/")
                    parameter = self._parameters[name]
                    # Torch keeps step counts on the CPU, but where a kernel of the device reads them.
                    device = parameter.device if value.ndim or parameter in on_device else "cpu"
                    kept = torch.tensor(value, device=device) if prefix == _ARRAY else value.item()
                    self._optimiser.state[parameter][key] = kept
