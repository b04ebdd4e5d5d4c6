"""What scores need of a user's own module: inputs of its layers by hooks, and H g by differentiating its loss twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.api import SpecError
from harness.api.inputs import InputSums, patches

from .measuring import differentiable_twice

if TYPE_CHECKING:
    from torch import Tensor, nn

Batches = Sequence[tuple[Any, Any]]


def input_sums(
    module: nn.Module, forward: Callable[[Any], Any], batches: Batches, tensors: Mapping[str, str], *, moments: bool
) -> Mapping[str, NDArray[np.floating]]:
    """Norms or second moments of the inputs of linear layers and of plain convolutions; other layers have none.

    Args:
        module: the model, in evaluation.
        forward: runs it on a batch's inputs.
        batches: inputs and targets.
        tensors: names of the tensors that are whole parameters, by parameter name.
        moments: whether second moments are summed, or norms.
    """
    import torch
    from torch import nn

    sums = InputSums(moments=moments)
    handles = []
    for name, inner in module.named_modules():
        tensor = tensors.get(f"{name}.weight" if name else "weight")
        if tensor is not None and (isinstance(inner, nn.Linear) or _is_transposed_linear(inner)):
            handles.append(inner.register_forward_pre_hook(_linear(sums, tensor)))
        elif tensor is not None and isinstance(inner, nn.Conv2d) and _is_plain(inner):
            handles.append(inner.register_forward_pre_hook(_convolution(sums, tensor)))
    try:
        with torch.no_grad():
            for inputs, _ in batches:
                forward(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return sums.found()


def _is_transposed_linear(inner: Any) -> bool:
    """Whether it is a linear layer with its weights as (inputs, outputs): `Conv1D` of GPT-2 and its kin."""
    return type(inner).__name__ == "Conv1D" and inner.weight.ndim == 2


def _is_plain(inner: Any) -> bool:
    """Whether its inputs are patches with one stride, zeros around them, seen by all outputs."""
    # Grouped, dilated or reflecting ones have other patches than those that are cut here.
    return (
        inner.groups == 1
        and set(inner.dilation) == {1}
        and len(set(inner.stride)) == 1
        and inner.padding_mode == "zeros"
        and not isinstance(inner.padding, str)
    )


def _linear(sums: InputSums, tensor: str) -> Callable[[Any, Any], None]:
    def hook(inner: Any, inputs: Any) -> None:
        values = inputs[0].detach().float()
        sums.add(tensor, values.reshape(-1, values.shape[-1]).cpu().numpy())

    return hook


def _convolution(sums: InputSums, tensor: str) -> Callable[[Any, Any], None]:
    def hook(inner: Any, inputs: Any) -> None:
        images = inputs[0].detach().float().cpu().numpy()
        (high, wide), edges = inner.padding, [(0, 0), (0, 0)]
        padded = np.pad(images, [*edges, (high, high), (wide, wide)])
        sums.add(tensor, patches(padded, inner.kernel_size, inner.stride[0]))

    return hook


def hessian_gradients(
    parameters: Mapping[str, Tensor], loss: Callable[[Any, Any], Tensor], batches: Batches
) -> dict[str, Tensor]:
    """H g by parameter name, g the mean gradient of the loss by these parameters, H its mean Hessian, over batches."""
    import torch

    trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    held = list(trained.values())

    def gradients(batch: tuple[Any, Any], *, again: bool) -> list[Tensor]:
        # A user's loss need not depend on every weight.
        found = torch.autograd.grad(loss(*batch), held, create_graph=again, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(held, found, strict=True)]

    with ExitStack() as stack:
        differentiable_twice(stack)
        mean = [torch.zeros_like(parameter) for parameter in held]
        for batch in batches:
            found = gradients(batch, again=False)
            mean = [total + gradient / len(batches) for total, gradient in zip(mean, found, strict=True)]
        product = [torch.zeros_like(parameter) for parameter in held]
        for batch in batches:
            found = gradients(batch, again=True)
            inner = torch.stack([(g * fixed).sum() for g, fixed in zip(found, mean, strict=True)]).sum()
            second = torch.autograd.grad(inner, held, allow_unused=True)
            product = [p if s is None else p + s / len(batches) for p, s in zip(product, second, strict=True)]
    return {name: value.detach() for name, value in zip(trained, product, strict=True)}


def divided(outputs: Any, temperature: float) -> Any:
    """Outputs at a temperature.

    Raises:
        SpecError: they are no single tensor, whose logits could be divided.
    """
    import torch

    if not isinstance(outputs, torch.Tensor):
        raise SpecError(
            f"a temperature of {temperature:g} divides the logits, and the model's output is {type(outputs).__name__} "
            "rather than a tensor; set `temperature: 1`"
        )
    return outputs / temperature
