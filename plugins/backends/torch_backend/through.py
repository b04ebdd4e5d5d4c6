"""Straight-through training: dense weights that live on under their masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness.api import Array

from .optimiser import Gradient, RowGradient

if TYPE_CHECKING:
    from torch import Tensor

_DENSE, _MOVEMENT = "dense/", "movement/"


class Through:
    """The dense weights and their movement; the model itself holds the masked ones.

    Args:
        masked: the model's weights by tensor name, which the loss sees.

    Attributes:
        dense: the weights that training moves, by tensor name; empty while it is off.
    """

    def __init__(self, masked: dict[str, Tensor]) -> None:
        self._masked = masked
        self._decay = 0.0
        self._movement: dict[str, Tensor] = {}
        self.dense: dict[str, Tensor] = {}

    @property
    def is_on(self) -> bool:
        """Whether weights live on under their masks."""
        return bool(self.dense)

    def begin(self, decay: float, names: Iterable[str]) -> None:
        """Go on where an epoch before this one left off, or begin with the model's weights and no movement."""
        self._decay = decay
        for name in names:
            # An epoch of the same training goes on with what the state brought along.
            if name not in self.dense:
                self.dense[name] = self._masked[name].detach().clone()
                self._movement[name] = self.dense[name].new_zeros(self.dense[name].shape)

    def end(self) -> None:
        """Forget what is under the masks."""
        self.dense.clear()
        self._movement.clear()

    def straighten(self, gradients: dict[str, Gradient], keep: Mapping[str, Tensor]) -> None:
        """Take note of the movement, and add the decay of masked weights, in place."""
        for name, weight in self.dense.items():
            gradient = gradients[name]
            if isinstance(gradient, RowGradient):  # a decay touches every row
                gradient = gradients[name] = gradient.dense()
            # Summed before the decay is added: movement is of the loss alone.
            self._movement[name].sub_(gradient * weight)
            if name in keep and self._decay:
                # A new tensor: the gradient may be a view that something else still reads.
                gradients[name] = gradient + self._decay * (1 - keep[name]) * weight

    def hide(self, keep: Mapping[str, Tensor]) -> None:
        """Show the model the dense weights under their masks."""
        for name, weight in self.dense.items():
            # Detached, since the model's weights are leaves of autograd.
            shown = self._masked[name].detach()
            shown.copy_(weight)
            if name in keep:
                shown.masked_fill_(keep[name] == 0, 0.0)

    def load(self, extra: Mapping[str, Array]) -> None:
        """Take over what `state` gave."""
        import torch

        self.end()
        for key, value in extra.items():
            for prefix, held in ((_DENSE, self.dense), (_MOVEMENT, self._movement)):
                if key.startswith(prefix):
                    name = key.removeprefix(prefix)
                    held[name] = torch.tensor(value, dtype=torch.float32, device=self._masked[name].device)

    def state(self) -> dict[str, Array]:
        """What lies under the masks, and the movement; nothing while it is off."""
        held = {
            **{_DENSE + n: w for n, w in self.dense.items()},
            **{_MOVEMENT + n: w for n, w in self._movement.items()},
        }
        return {key: np.array(value.detach().cpu().numpy()) for key, value in held.items()}
