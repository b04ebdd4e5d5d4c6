"""PyTorch: how its models are built, started, sent through and asked."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.api import Array, LayerArithmetic, NativeModel, OwnModel, SpecError

from . import torch_checkpoints, torch_held, torch_layers, torch_model
from .arrays import as_array, items_of
from .first_batch import class_axis
from .folding import Computed
from .way import Way, Wishes


class TorchWay(Way):
    """Modules, tensors and data sets of PyTorch."""

    framework: ClassVar = "torch"
    modules: ClassVar[frozenset[str]] = frozenset({"torch"})
    model_class: ClassVar[str] = "torch.nn.Module"
    ignored: ClassVar[int | None] = -100  # PyTorch's own, which data sets of texts mark their padding with

    def seed(self, seed: int) -> None:
        """Seed Python, NumPy and PyTorch."""
        import torch

        random.seed(seed)
        np.random.seed(seed % 2**32)  # the old one is what user code draws from
        torch.manual_seed(seed)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Threads, which the experiment says, and whether gradients are taken, which scripts switch off."""
        import torch

        threads, with_gradients = torch.get_num_threads(), torch.is_grad_enabled()
        try:
            yield
        finally:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            torch.set_grad_enabled(with_gradients)

    def is_model(self, found: object) -> bool:
        """Whether it is a module."""
        import torch

        return isinstance(found, torch.nn.Module)

    def check(self, own: OwnModel) -> None:
        """A loss has no parameters of its own: nobody would train them."""
        import torch

        if isinstance(own.loss, torch.nn.Module) and any(each.requires_grad for each in own.loss.parameters()):
            names = ", ".join(name for name, _ in own.loss.named_parameters())
            raise SpecError(
                f"own: `loss` must have no parameters, {type(own.loss).__name__} has {names}, which would never be "
                "trained; make them parts of the model, which then returns what the loss needs"
            )

    def plain(self, model: Any) -> Any:
        """What was compiled: layers are looked at, masked and trained one by one.

        Raises:
            SpecError: it is a TorchScript module.
        """
        import torch

        if isinstance(model, torch.jit.ScriptModule):
            raise SpecError(
                "own: `model` must make a module in Python, got one of TorchScript, whose layers cannot be seen; leave "
                "out `torch.jit`"
            )
        return getattr(model, "_orig_mod", model)

    def trained(self, model: Any) -> Mapping[str, Any]:
        """Parameters that are not frozen."""
        return {name: each for name, each in model.named_parameters() if each.requires_grad}

    def completed(self, model: Any, inputs: Any) -> None:
        """Refuse other types than float32; lazy layers get their sizes."""
        import torch

        # Lazy layers take their sizes from the first batch that they see, in evaluation: statistics stay as they are.
        if any(torch.nn.parameter.is_lazy(each) for each in (*model.parameters(), *model.buffers())):
            was_training = model.training
            with torch.no_grad():
                self.forward(model.eval(), inputs, training=False)
            model.train(was_training)
        for parameter in model.parameters():
            if parameter.dtype != torch.float32 and parameter.requires_grad:
                raise SpecError(f"own: parameters must be float32, got {parameter.dtype}; convert the model")
        torch_held.settled(model)

    def start(self, model: Any, path: Path) -> None:
        """A safetensors file or the list of its parts, or a state_dict, loaded weights-only."""
        torch_checkpoints.load(model, path)

    def start_files(self, path: Path) -> list[Path]:
        """Its parts too."""
        return torch_checkpoints.files(path)

    def parameters(self, model: Any) -> dict[str, NDArray[np.float32]]:
        """By name, tied ones once."""
        return {name: values.detach().numpy() for name, values in self.trained(model).items()}

    def traced(self, model: Any, inputs: Any) -> tuple[Any, Any]:
        """A forward pass in evaluation under hooks."""
        import torch

        # Without dropout, so that the shapes and the loss looked at are those of the model alone.
        model.eval()
        trace = torch_model.Trace(model)
        torch.backends.mha.set_fastpath_enabled(False)  # it would call no layer, and compute in another way
        # With gradients, as in training: some layers take a fused way without.
        try:
            outputs = self.forward(model, inputs, training=False)
        finally:
            trace.close()  # a mode left on would see every product of the process
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
            trace.inputs_first,
        )

    def forward(self, model: Any, inputs: Any, *, training: bool) -> Any:
        """A tuple or a mapping are the arguments; the module's own mode says whether it trains."""
        import torch

        # Scores differentiate in evaluation, some of them twice, which the fused attention cannot.
        is_measured = torch.is_grad_enabled() and not model.training
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH) if is_measured else nullcontext():
            if type(inputs) is tuple:  # a packed sequence is a tuple as well, and one argument
                return model(*inputs)
            return model(**inputs) if isinstance(inputs, dict) else model(inputs)

    def filled(self, model: Any, parameters: Mapping[str, Array], buffers: Mapping[str, Array]) -> None:
        """By name; a buffer whose size the model changes as it goes is replaced."""
        import torch

        for name, parameter in model.named_parameters():
            if name in parameters:
                parameter.data.copy_(torch.from_numpy(parameters[name]))
        torch_held.fill(model, buffers)

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
        """Over the last axis, or over axis 1 where the targets have the other axes; of shares of classes too."""
        import torch

        logits = _classes_last(outputs, targets)
        if targets.shape == outputs.shape and targets.is_floating_point():
            return torch.nn.functional.cross_entropy(logits, targets)
        wanted = targets.reshape(-1)
        # Bytes are taken as they are; other small integers, and whole numbers in floating point, are not.
        wanted = wanted if wanted.dtype in (torch.int64, torch.uint8) else wanted.long()
        return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), wanted)

    def array(self, values: Any) -> NDArray[Any]:
        """In float32 where NumPy has no such type."""
        found = values.detach().cpu()
        return np.asarray(found.float() if found.is_floating_point() else found)

    def twice(self, values: Any) -> Any:
        """One after the other, along the first axis."""
        import torch

        if isinstance(values, dict):
            return {name: self.twice(each) for name, each in values.items()}
        if type(values) in (tuple, list):
            return type(values)(self.twice(each) for each in values)
        return torch.cat([values, values])

    def is_scalar(self, loss: object) -> bool:
        """Whether it is a tensor of one number."""
        import torch

        return isinstance(loss, torch.Tensor) and loss.numel() == 1

    def items(self, targets: Any, ignored: int | None) -> int:
        """Every element of integer targets but the ignored, or else the length of their first axis."""
        # A class index is an item for each element, a vector of a regression is one; several targets are of one item.
        if isinstance(targets, tuple | dict):
            return items_of(targets) or 1
        if targets.is_floating_point():
            return int(targets.shape[0])
        return int(targets.numel() if ignored is None else (targets != ignored).sum())

    def correct(self, outputs: Any, targets: Any) -> Any:
        """How many items have their highest logit at the target."""
        found = _classes_last(outputs, targets).argmax(dim=-1)
        if targets.shape == outputs.shape and targets.is_floating_point():
            targets = targets.argmax(dim=-1)
        # A column of targets would be compared with every output.
        return np.float64(int((found == targets.reshape(found.shape)).sum()))

    def tensor(self, value: Any) -> Any:
        """Integers as int64 but bytes, which images are stored in; floating-point numbers as float32.

        What is no array (a packed sequence, a batch with a class of its own, None) goes to the model as it is.
        """
        import torch

        if not isinstance(value, torch.Tensor):
            if value is None or hasattr(value, "to"):
                return value
            value = torch.as_tensor(as_array(value))
        if value.is_floating_point():
            return value.float()
        return value if value.dtype in (torch.uint8, torch.bool) or value.is_complex() else value.long()

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
    axis = class_axis(tuple(outputs.shape), tuple(targets.shape))
    return outputs if axis == -1 else outputs.movedim(axis, -1)
