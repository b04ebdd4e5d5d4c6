"""The array operations of an evaluation in fixed point, in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.api import Operations

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TorchOperations(Operations):
    """Arrays of float64 on the session's device."""

    def __init__(self, device: torch.device) -> None:
        """Take the device of a session."""
        self._device = device

    def array(self, values: NDArray[Any]) -> Tensor:
        """A copy on the device."""
        import torch

        return torch.tensor(np.asarray(values), dtype=torch.float64, device=self._device)

    def numpy(self, values: Tensor) -> NDArray[np.float64]:
        """A copy on the host."""
        return np.array(values.cpu().numpy(), dtype=np.float64)

    def matrix(self, values: NDArray[Any], *, is_small: bool) -> Tensor:
        """In the narrower type where that is exact; transposed, as the product reads it."""
        import torch

        return self.array(values).to(torch.float32 if is_small else torch.float64).t().contiguous()

    def product(self, vectors: Tensor, matrix: Tensor) -> Tensor:
        """By BLAS; no sum is rounded, so that no order of adding matters."""
        return (vectors.to(matrix.dtype) @ matrix).double()

    def floor(self, values: Tensor) -> Tensor:
        """As `torch.floor`."""
        return values.floor()

    def clip(self, values: Tensor, low: float, high: float) -> Tensor:
        """As `torch.clamp`."""
        return values.clamp(low, high)

    def larger(self, one: Tensor, other: Tensor) -> Tensor:
        """As `torch.maximum`."""
        import torch

        return torch.maximum(one, other)

    def rows(self, table: Tensor, places: Tensor) -> Tensor:
        """By indexing."""
        return table[places.long()]

    def reshape(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """As `torch.reshape`."""
        return values.reshape(tuple(shape))

    def transpose(self, values: Tensor, axes: Sequence[int]) -> Tensor:
        """As `torch.permute`."""
        return values.permute(tuple(axes))

    def join(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        """As `torch.cat`."""
        import torch

        return torch.cat(list(parts), dim=axis)

    def largest(self, values: Tensor) -> float:
        """As `torch.max` of the absolute values."""
        return float(values.abs().max()) if values.numel() else 0.0

    def differing(self, one: Tensor, other: Tensor) -> int:
        """As `torch.count_nonzero`."""
        return int((one != other).sum())

    def score(self, logits: Tensor, targets: NDArray[np.integer]) -> tuple[float, int]:
        """By PyTorch's cross-entropy in float64."""
        import torch

        wanted = torch.tensor(np.asarray(targets), dtype=torch.int64, device=self._device)
        nats = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
        return float(nats), int((logits.argmax(dim=1) == wanted).sum())
