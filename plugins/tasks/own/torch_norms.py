"""Batch norms of a torch module that are parts of the layers before them: seen under a mode, and left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .folding import Affine, Fold, Look, Results

if TYPE_CHECKING:
    from torch import Tensor, nn

Forward = Callable[..., Any]
"""A forward pass in the place of a module's."""


def seen(model: nn.Module, run: Callable[[], None], is_layer: Callable[[nn.Module], bool]) -> dict[str, str]:
    """Layer -> the batch norm that alone reads its sums.

    Args:
        model: in evaluation.
        run: sends a batch through it.
        is_layer: whether a module is one whose sums a norm may follow.
    """
    if not any(is_norm(inner) for inner in model.modules()):
        return {}
    look = Look()

    def layer(name: str, inner: Any) -> Forward:
        def call(*inputs: Any, **named: Any) -> Any:
            with look.running(name):
                result = type(inner).forward(inner, *inputs, **named)
            look.gave(name, result)
            if not has_channels_second(inner, result):
                look.elsewhere(name, "no norm")
            return result

        return call

    def norm(name: str, inner: Any) -> Forward:
        def call(values: Tensor) -> Tensor:
            # One that takes the statistics of its batch, as in training, is no constant scale.
            if inner.training or affine(inner) is None:
                look.used(values, name)
            look.normed(name, values)
            with look.passing(values):
                return type(inner).forward(inner, values)  # type: ignore[no-any-return]  # a norm's is a tensor

        return call

    def watched(name: str, inner: nn.Module) -> Forward | None:
        if is_layer(inner):
            return layer(name, inner)
        return norm(name, inner) if is_norm(inner) else None

    with replaced(model, watched), uses(look, owners(model)):
        run()
    return look.folds()


@contextmanager
def replaced(model: nn.Module, by: Callable[[str, nn.Module], Forward | None]) -> Iterator[None]:
    """Modules with another forward pass, until the context is left."""
    changed = []
    for name, inner in model.named_modules():
        # One that has a pass of its own on the instance is somebody else's.
        forward = by(name or "model", inner) if "forward" not in vars(inner) else None
        if forward is not None:
            object.__setattr__(inner, "forward", forward)
            changed.append(inner)
    try:
        yield
    finally:
        for inner in changed:
            object.__delattr__(inner, "forward")


def is_norm(inner: nn.Module) -> bool:
    """Whether a module is a batch norm of PyTorch with its own forward pass."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(inner, _BatchNorm) and type(inner).forward is _BatchNorm.forward


def affine(inner: Any) -> Affine | None:
    """What a batch norm does in evaluation; None without statistics."""
    if inner.running_mean is None or inner.running_var is None:
        return None
    return Affine.of(
        _or_none(inner.weight), _or_none(inner.bias), _array(inner.running_mean), _array(inner.running_var), inner.eps
    )


def has_channels_second(inner: Any, result: Tensor) -> bool:
    """Whether the outputs of a layer lie along the axis that norms take for the channels."""
    return result.ndim == (len(inner.kernel_size) + 2 if hasattr(inner, "kernel_size") else 2)


def passed_on(name: str, inner: Any, forward: Forward, fold: Fold) -> Forward:
    """A norm whose values have it in them already, or which computes them as ever."""

    def call(values: Tensor) -> Any:
        if not inner.training and fold.takes(name, values):
            # Another object: who reads the layer's own result is still told.
            with fold.passing(values):
                return values.detach()
        return forward(inner, values)

    return call


_ASK = {
    "size", "dim", "ndimension", "numel", "stride", "is_floating_point", "is_complex", "is_contiguous", "get_device",
    "element_size", "type",
}  # fmt: skip
_ASKED = {"shape", "ndim", "dtype", "device", "layout", "requires_grad", "is_cuda", "is_sparse", "is_quantized"}
"""Methods and attributes that tell about a tensor, and not what is in it."""


def owners(model: nn.Module, layers: Iterable[str] | None = None) -> dict[int, str]:
    """Names of layers by the identity of their weights; of some layers, or of all."""
    wanted = None if layers is None else set(layers)
    parameters = ((name.rpartition(".")[0] or "model", parameter) for name, parameter in model.named_parameters())
    return {id(parameter): name for name, parameter in parameters if wanted is None or name in wanted}


@contextmanager
def uses(results: Results, owners: Mapping[int, str]) -> Iterator[None]:
    """Tell what reads the results of layers.

    Args:
        results: told.
        owners: of weights: a layer whose weights are multiplied with elsewhere too is not one with its norm.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Uses(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = getattr(function, "__name__", str(function))
            is_asked = name == "__get__" and getattr(function.__self__, "__name__", "") in _ASKED
            if not (is_asked or name in _ASK):
                for value in _parts((args, kwargs)):
                    results.used(value, name)
            if function is torch.nn.functional.linear:
                weight = args[1] if len(args) > 1 else (kwargs or {})["weight"]
                if id(weight) in owners:
                    results.multiplied(owners[id(weight)])
            return function(*args, **(kwargs or {}))

    with Uses():
        yield


def _parts(values: Any) -> Iterable[Any]:
    """What lists, tuples and dictionaries hold."""
    if isinstance(values, tuple | list):
        return (part for each in values for part in _parts(each))
    return _parts(list(values.values())) if isinstance(values, dict) else (values,)


def _array(values: Tensor) -> NDArray[np.floating]:
    found: NDArray[np.floating] = values.detach().float().cpu().numpy()
    return found


def _or_none(values: Tensor | None) -> NDArray[np.floating] | None:
    return None if values is None else _array(values)
