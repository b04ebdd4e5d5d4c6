"""How much of what flows into the layers is not zero."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from harness.api import Layer

if TYPE_CHECKING:
    from torch import Tensor


class Activity:
    """Counts, over the batches of an evaluation, the inputs of layers with matrices that are not exactly zero."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._live: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()
        self._last: tuple[Tensor, int] | None = None

    def see(self, layer: Layer, values: Tensor) -> None:
        """Take note of values that a layer's matrices are multiplied with; other layers are passed over."""
        if layer.type not in ("lstm", "dense", "conv2d"):  # quicker than isinstance, and this runs for every batch
            return
        if self._last is None or self._last[0] is not values:  # the next layer sees an LSTM's outputs again
            self._last = (values, _live(values))
        self._live[layer.name] += self._last[1]
        self._sizes[layer.name] += values.numel()

    def density(self) -> dict[str, float]:
        """The fraction that is not zero, by layer name."""
        return {name: self._live[name] / size for name, size in self._sizes.items()}


def _live(values: Tensor) -> int:
    """How many are not zero."""
    flags = values.bool()
    # On a CPU `torch.count_nonzero` takes forty times as long, more than the layer itself may take.
    return int(np.count_nonzero(flags.numpy()) if flags.device.type == "cpu" else flags.count_nonzero())
