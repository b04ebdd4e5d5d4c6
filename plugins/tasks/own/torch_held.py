"""What a torch module holds beside its trained parameters, told in a way that a state can keep."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.api import Array

if TYPE_CHECKING:
    from torch import Tensor, nn


def settled(model: nn.Module) -> None:
    """Lay out everything in one order, and count frozen parameters among the buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    for tensor in tensors:
        # Transposed views would be written in another order than they are read, and expanded ones not at all.
        if not tensor.is_contiguous():
            tensor.data = tensor.data.contiguous()
    if any(not parameter.requires_grad for parameter in model.parameters()) or any(map(_is_unknown, tensors)):
        _tell_frozen(model)


def _tell_frozen(model: nn.Module) -> None:
    """A frozen copy that follows the trained weights moves without being trained: its state is kept like a buffer's."""
    # By a weak reference: a module that holds itself would be freed late, with all of its memory.
    held, buffers = weakref.ref(model), type(model).named_buffers

    def named_buffers(*given: Any, **named: Any) -> Iterator[tuple[str, Tensor]]:
        module = held()
        assert module is not None
        for name, buffer in buffers(module, *given, **named):
            yield name, _known(buffer)
        for name, parameter in module.named_parameters(*given, **named):
            if not parameter.requires_grad:
                yield name, _known(parameter.detach())

    object.__setattr__(model, "named_buffers", named_buffers)


def fill(model: nn.Module, buffers: Mapping[str, Array]) -> None:
    """Give a module its buffers by name; one whose size it changes as it goes is replaced."""
    import torch

    for name, buffer in dict(model.named_buffers()).items():
        if name not in buffers:
            continue
        value = torch.tensor(buffers[name], dtype=buffer.dtype)
        if value.shape == buffer.shape:
            buffer.copy_(value)
        else:
            owner, _, own = name.rpartition(".")
            setattr(model.get_submodule(owner), own, value)


def _is_unknown(tensor: Tensor) -> bool:
    """Whether NumPy has no such numbers."""
    import torch

    return tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64)


def _known(tensor: Tensor) -> Tensor:
    """A tensor, or its bits as integers where NumPy has no such numbers: what is written into them is written to it."""
    import torch

    return tensor.view(torch.int16 if tensor.itemsize == 2 else torch.uint8) if _is_unknown(tensor) else tensor
