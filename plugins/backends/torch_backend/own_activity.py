"""How much of what flows into the layers of a user's own module is not zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from harness.api import Tensor

if TYPE_CHECKING:
    from torch import nn


class OwnActivity:
    """Counts by hooks, over the batches of an evaluation; what no hook sees (deeper recurrent layers) is left out.

    Args:
        module: the model.
        tensors: what is known of it.
    """

    def __init__(self, module: nn.Module, tensors: Iterable[Tensor]) -> None:
        from torch import nn

        self._live: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()
        self._handles = []
        layers = {tensor.layer for tensor in tensors if tensor.is_prunable and tensor.role != "embedding"}
        for name, inner in module.named_modules():
            if isinstance(inner, nn.MultiheadAttention):
                # Attention is called with queries, keys and values, which are the inputs of its three projections.
                found = {part: f"{name}.{part[0]}" for part in ("query", "key", "value")}
            elif isinstance(inner, nn.RNNBase):
                # Of several layers inside one module only the first one's inputs pass a hook.
                found = {"input": f"{name}.l0" if name else "model.l0"}
            else:
                found = {"input": name or "model"}
            found = {argument: layer for argument, layer in found.items() if layer in layers}
            if found:
                self._handles.append(inner.register_forward_pre_hook(self._hook(found), with_kwargs=True))

    def density(self) -> dict[str, float]:
        """The fraction that is not zero, by layer name."""
        return {layer: self._live[layer] / size for layer, size in self._sizes.items() if size}

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, layers: dict[str, str]) -> Any:
        def hook(module: Any, inputs: Any, named: Any) -> None:
            given = dict(zip(layers, inputs, strict=False)) | named
            for argument, layer in layers.items():
                values = given.get(argument)
                # A packed sequence has its values without padding, which is no input.
                values = getattr(values, "data", values)  # of a packed sequence too
                if hasattr(values, "count_nonzero"):
                    self._live[layer] += int(values.count_nonzero())
                    self._sizes[layer] += values.numel()

        return hook
