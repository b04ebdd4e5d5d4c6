"""PyTorch: how its models are built, started, sent through and asked."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.api import Array, LayerArithmetic, NativeModel, SpecError

from . import torch_layers, torch_model
from .folding import Computed
from .way import Way, Wishes


class TorchWay(Way):
    """Modules, tensors and data sets of PyTorch."""

    framework: ClassVar = "torch"
    modules: ClassVar[frozenset[str]] = frozenset({"torch"})
    model_class: ClassVar[str] = "torch.nn.Module"

    def seed(self, seed: int) -> None:
        """Seed Python, NumPy and PyTorch."""
        import torch

        random.seed(seed)
        np.random.seed(seed % 2**32)  # the old one is what user code draws from
        torch.manual_seed(seed)

    def is_model(self, found: object) -> bool:
        """Whether it is a module."""
        import torch

        return isinstance(found, torch.nn.Module)

    def completed(self, model: Any, inputs: Any) -> None:
        """Refuse other types than float32; lazy layers get their sizes."""
        import torch

        # Lazy layers take their sizes from the first batch that they see.
        if any(isinstance(each, torch.nn.parameter.UninitializedParameter) for each in model.parameters()):
            with torch.no_grad():
                self.forward(model, inputs, training=True)
        for parameter in model.parameters():
            if parameter.dtype != torch.float32 and parameter.requires_grad:
                raise SpecError(f"own: parameters must be float32, got {parameter.dtype}; convert the model")
            # Transposed views would be written in another order than they are read.
            parameter.data = parameter.data.contiguous()

    def start(self, model: Any, path: Path) -> None:
        """A safetensors file or a state_dict, loaded weights-only."""
        import torch

        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            # weights_only: a pickle that runs code is refused.
            state = torch.load(path, map_location="cpu", weights_only=True)
            # Trainers wrap the weights in a dictionary of their own.
            state = state.get("state_dict", state) if isinstance(state, dict) else state
        model.load_state_dict(state)

    def parameters(self, model: Any) -> dict[str, NDArray[np.float32]]:
        """By name, tied ones once."""
        return {name: values.detach().numpy() for name, values in model.named_parameters()}

    def traced(self, model: Any, inputs: Any) -> tuple[Any, Any]:
        """A forward pass in evaluation under hooks."""
        import torch

        # Without dropout, so that the shapes and the loss looked at are those of the model alone.
        model.eval()
        trace = torch_model.Trace(model)
        torch.backends.mha.set_fastpath_enabled(False)  # it would call no layer, and compute in another way
        # With gradients, as in training: some layers take a fused way without.
        outputs = self.forward(model, inputs, training=False)
        trace.close()
        return outputs, (trace, outputs)

    def found(self, model: Any, seen: Any, items: int, wishes: Wishes) -> NativeModel:
        """Roles and axes from the modules."""
        trace, outputs = seen
        return torch_model.read(
            model,
            trace.outputs(outputs),
            trace.per_item(items),
            trace.convolutions,
            trace.steps(items),
            wishes.prunable,
            wishes.same or {},
        )

    def forward(self, model: Any, inputs: Any, *, training: bool) -> Any:
        """A tuple or a mapping are the arguments; the module's own mode says whether it trains."""
        if isinstance(inputs, tuple):
            return model(*inputs)
        return model(**inputs) if isinstance(inputs, dict) else model(inputs)

    def filled(self, model: Any, parameters: Mapping[str, Array], buffers: Mapping[str, Array]) -> None:
        """By name; a buffer whose size the model changes as it goes is replaced."""
        import torch

        for name, parameter in model.named_parameters():
            if name in parameters:
                parameter.data.copy_(torch.from_numpy(parameters[name]))
        for name, buffer in dict(model.named_buffers()).items():
            if name in buffers:
                owner, _, own = name.rpartition(".")
                setattr(model.get_submodule(owner), own, torch.tensor(buffers[name], dtype=buffer.dtype))

    def norms_in_layers(self, model: Any, run: Callable[[], None]) -> dict[str, str]:
        """Under a mode that sees every function of PyTorch."""
        with self._evaluation(model):
            return torch_layers.norms_in_layers(model, run)

    @contextmanager
    def computed_by(self, model: Any, arithmetic: LayerArithmetic, folds: Mapping[str, str]) -> Iterator[Computed]:
        """In evaluation, without gradients; fused ways that call no layer are closed."""
        with self._evaluation(model), torch_layers.computed_by(model, arithmetic, folds) as done:
            yield done

    @staticmethod
    @contextmanager
    def _evaluation(model: Any) -> Iterator[None]:
        import torch

        model.eval()
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad():
            yield

    def cross_entropy(self, outputs: Any, targets: Any) -> Any:
        """Over the last axis, or over axis 1 where the targets have the other axes."""
        import torch

        logits = _classes_last(outputs, targets)
        return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))

    def is_scalar(self, loss: object) -> bool:
        """Whether it is a tensor of one number."""
        import torch

        return isinstance(loss, torch.Tensor) and loss.numel() == 1

    def items(self, targets: Any) -> int:
        """Every element of integer targets, or else the length of their first axis."""
        # A class index is an item for each element, a vector of a regression is one.
        return int(targets.numel() if not targets.is_floating_point() else targets.shape[0])

    def correct(self, outputs: Any, targets: Any) -> Any:
        """How many items have their highest logit at the target."""
        return np.float64(int((_classes_last(outputs, targets).argmax(dim=-1) == targets).sum()))

    def tensor(self, value: Any) -> Any:
        """Integers as int64, doubles as float32."""
        import torch

        tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))
        if tensor.dtype == torch.float64:
            return tensor.float()
        return tensor.long() if tensor.dtype in (torch.int8, torch.int16, torch.int32) else tensor

    def taken(self, values: Any, chosen: NDArray[np.intp]) -> Any:
        """Some items of a tensor."""
        import torch

        # Not by indexing, which takes three times as long for the same copy.
        return values.index_select(0, torch.from_numpy(chosen).to(values.device))

    def together(self, items: list[Any]) -> Any:
        """As PyTorch's own data loader puts items together."""
        from torch.utils.data import default_collate

        return default_collate(items)


def _classes_last(outputs: Any, targets: Any) -> Any:
    """Logits with the classes along the last axis; torch's own convention has them along axis 1."""
    if outputs.shape[:-1] == targets.shape or outputs.ndim < 3:
        return outputs
    return outputs.movedim(1, -1)
