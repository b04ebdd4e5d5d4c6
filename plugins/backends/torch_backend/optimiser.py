"""Gradients, their global norm, and the rules of one step: SGD and Adam as `harness.api` defines them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from harness.api import SGD, Adam, AdamW, Optimiser

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RowGradient:
    """The gradient of an embedding: the rows a batch has touched, each once, repeated words summed.

    Shapes:
        rows (touched,); values (touched, features).
    """

    rows: Tensor
    values: Tensor
    words: int

    def dense(self) -> Tensor:
        """The same gradient with a row for every word."""
        return self.values.new_zeros(self.words, self.values.shape[1]).index_copy_(0, self.rows, self.values)


Gradient: TypeAlias = "Tensor | RowGradient"


def mask_gradients(gradients: dict[str, Gradient], keep: dict[str, Tensor]) -> None:
    """Zero the gradients of masked weights, in place.

    Args:
        gradients: by tensor name.
        keep: 1 where a weight is kept, 0 where it is masked, for the tensors that have a mask.
    """
    for name, kept in keep.items():
        gradient = gradients[name]
        if isinstance(gradient, RowGradient):
            gradient.values.mul_(kept[gradient.rows])
        else:
            gradient.mul_(kept)


def clip_scale(gradients: dict[str, Gradient], clip_norm: float | None) -> float:
    """What gradients have to be multiplied by so that their global norm is at most `clip_norm`.

    Source: TensorFlow's clip_by_global_norm, clip / max(norm, clip).
    """
    import torch

    if clip_norm is None:
        return 1.0
    # Untouched rows are zero and add nothing to a norm.
    values = [g.values if isinstance(g, RowGradient) else g for g in gradients.values()]
    norms = torch.stack([torch.linalg.vector_norm(value, dtype=torch.float32) for value in values])
    norm = float(torch.linalg.vector_norm(norms))
    # A NaN norm must reach the weights: the next loss then says that the training diverged.
    return clip_norm / norm if norm > clip_norm or math.isnan(norm) else 1.0


class Stepper(ABC):
    """The rule of one step with its slots, which live on the weights' device."""

    slots: dict[str, Tensor]

    @abstractmethod
    def step(self, weights: dict[str, Tensor], gradients: dict[str, Gradient], rate: float, scale: float) -> None:
        """Change the weights in place.

        Args:
            weights: by tensor name.
            gradients: by tensor name, masked, not yet clipped.
            rate: the learning rate.
            scale: the factor that clips the gradients.
        """


class PlainSGD(Stepper):
    """SGD without slots: an embedding's untouched rows cost nothing."""

    def __init__(self) -> None:
        self.slots = {}

    def step(self, weights: dict[str, Tensor], gradients: dict[str, Gradient], rate: float, scale: float) -> None:
        """Set w to w - rate * scale * g."""
        for name, gradient in gradients.items():
            if isinstance(gradient, RowGradient):
                # Scale and rate in one factor: no gradient is copied.
                weights[name].index_add_(0, gradient.rows, gradient.values, alpha=-rate * scale)
            else:
                weights[name].add_(gradient, alpha=-rate * scale)


class MomentumSGD(Stepper):
    """SGD with momentum, weight decay or both."""

    def __init__(self, rule: SGD, weights: dict[str, Tensor]) -> None:
        import torch

        self._rule = rule
        names = weights if rule.momentum else ()
        self.slots = {f"momentum/{name}": torch.zeros_like(weights[name]) for name in names}

    def step(self, weights: dict[str, Tensor], gradients: dict[str, Gradient], rate: float, scale: float) -> None:
        """Set v to momentum * v + scale * g + weight_decay * w, and w to w - rate * v."""
        for name, sparse in gradients.items():
            weight = weights[name]
            change = _scaled(sparse, scale)
            if self._rule.weight_decay:
                change.add_(weight, alpha=self._rule.weight_decay)
            if self._rule.momentum:
                change = self.slots[f"momentum/{name}"].mul_(self._rule.momentum).add_(change)
            weight.add_(change, alpha=-rate)


class AdamStepper(Stepper):
    """Adam and AdamW; a masked weight keeps zero slots and never moves."""

    def __init__(self, rule: Adam | AdamW, weights: dict[str, Tensor]) -> None:
        import torch

        self._rule = rule
        self.slots = {f"{slot}/{name}": torch.zeros_like(weights[name]) for slot in "mv" for name in weights}
        # A tensor like all slots, so that it is stored with them.
        self.slots["t"] = torch.zeros(())

    def step(self, weights: dict[str, Tensor], gradients: dict[str, Gradient], rate: float, scale: float) -> None:
        """Set w to w - rate * m_hat / (sqrt(v_hat) + epsilon), after the decay where there is one."""
        rule = self._rule
        decay = rule.weight_decay if isinstance(rule, AdamW) else 0.0
        self.slots["t"] += 1
        steps = int(self.slots["t"])
        # In Python's doubles: 1 - 0.999^t loses most of its digits in float32 while t is small.
        first_bias, second_bias = 1 - rule.beta1**steps, 1 - rule.beta2**steps
        for name, sparse in gradients.items():
            gradient = _scaled(sparse, scale)
            first = self.slots[f"m/{name}"].mul_(rule.beta1).add_(gradient, alpha=1 - rule.beta1)
            second = self.slots[f"v/{name}"].mul_(rule.beta2).addcmul_(gradient, gradient, value=1 - rule.beta2)
            denominator = second.div(second_bias).sqrt_().add_(rule.epsilon)
            if decay:
                # Before Adam's step and by the rate alone: decoupled, as AdamW's paper has it.
                weights[name].mul_(1 - rate * decay)
            weights[name].addcdiv_(first, denominator, value=-rate / first_bias)


def _scaled(gradient: Gradient, scale: float) -> Tensor:
    """The whole gradient times a factor, in place: it is this step's own."""
    whole = gradient.dense() if isinstance(gradient, RowGradient) else gradient
    # Mostly nothing is clipped, and times 1 would be a pass over the memory for the same bits.
    return whole if scale == 1.0 else whole.mul_(scale)


def stepper(optimiser: Optimiser, weights: dict[str, Tensor]) -> Stepper:
    """The rule of one step, its slots zero."""
    if isinstance(optimiser, Adam | AdamW):
        return AdamStepper(optimiser, weights)
    if optimiser.momentum or optimiser.weight_decay:
        return MomentumSGD(optimiser, weights)
    return PlainSGD()
