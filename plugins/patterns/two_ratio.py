"""Two sparsities: recurrent matrices and the others are row-balanced at ratios of their own (BRDS)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from harness.api import Frame, Mask, Matrix, Pattern, Tensor, hookimpl


class TwoRatio(Pattern):
    """Row-balanced masks, recurrent kernels `recurrent` times as dense as all other matrices of the scope.

    Density d of the others and min(1, recurrent d) of the recurrent kernels, such that the scope reaches its sparsity.
    With `recurrent` = 1 it is row-balanced sparsity. BRDS finds its pair of ratios by search; so may an axis of these.

    Storage: values and column indices, equally many per row. Engines: `bank` with a lane per row, `csr_stream`.

    Source:
        BRDS, "An FPGA-based LSTM Accelerator with Row-Balanced Dual-Ratio Sparsity", arXiv 2101.02667.
    """

    name: ClassVar[str] = "two_ratio"
    recurrent: float = Field(
        default=1.5, gt=0, le=100, description="density of recurrent kernels to that of the others"
    )

    def frame(self, rows: int, cols: int) -> Frame:
        """Single weights, compared within their row."""
        return Frame(group=(1, None))

    def why_not_scope(self, tensors: Sequence[Tensor], sparsity: float) -> str | None:
        """Two ratios need two sorts of tensors."""
        recurrent = [tensor.name.endswith("recurrent_kernel") for tensor in tensors]
        if any(recurrent) and not all(recurrent):
            return None
        return "has two ratios, one for recurrent kernels and one for the rest, but the scope holds one sort alone"

    def masks(
        self, scores: Mapping[str, Matrix], sparsities: Mapping[str, float], tensors: Sequence[Tensor]
    ) -> dict[str, Mask]:
        """Masks at the two sparsities."""
        total = sum((1 - sparsities[tensor.name]) * tensor.size for tensor in tensors)
        weight = {t.name: self.recurrent if t.name.endswith("recurrent_kernel") else 1.0 for t in tensors}
        # By bisection, since weights that are capped at 1 make the kept ones only piecewise linear in d; sixty halvings
        # reach the last bits.
        low, high = 0.0, 1 / min(weight.values())  # at `high` all is kept; the density grows with d in between
        for _ in range(60):
            middle = (low + high) / 2
            kept = sum(min(1.0, weight[tensor.name] * middle) * tensor.size for tensor in tensors)
            low, high = (middle, high) if kept < total else (low, middle)
        return {
            name: self.mask(scores[name], float(np.clip(round(1 - weight[name] * high, 9), 0, 1 - 1e-9)))
            for name in weight
        }


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return TwoRatio
