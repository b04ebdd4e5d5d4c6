"""The update rules of `harness.api.program`, on slot variables of our own.

tf-keras' SGD folds the learning rate into its velocity (v = m v - lr g), which is another rule once the rate changes,
and its Adam puts epsilon elsewhere; so the rules are written out here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.api import SGD, Adam, Optimiser

from .toolkit import frameworks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tensorflow import Tensor, Variable


class Rule:
    """One optimiser on the variables of one model.

    Args:
        optimiser: which rule and its constants.
        variables: what is trained, by tensor name.
    """

    def __init__(self, optimiser: Optimiser, variables: Mapping[str, Variable]) -> None:
        self.tf = frameworks().tf
        self.optimiser, self.variables = optimiser, variables
        self.slots: dict[str, Variable] = {
            f"{slot}/{name}": self.tf.Variable(self.tf.zeros_like(variable), trainable=False)
            for slot in slot_names(optimiser)
            for name, variable in variables.items()
        }
        if isinstance(optimiser, Adam):
            self.slots["t"] = self.tf.Variable(np.float32(0), trainable=False)

    def apply(self, gradients: Mapping[str, Tensor], rate: Tensor) -> None:
        """Take one step; called inside a traced function."""
        if isinstance(self.optimiser, Adam):
            self._adam(self.optimiser, gradients, rate)
        else:
            self._sgd(self.optimiser, gradients, rate)

    def _sgd(self, rule: SGD, gradients: Mapping[str, Tensor], rate: Tensor) -> None:
        for name, gradient in gradients.items():
            weight = self.variables[name]
            step = gradient + rule.weight_decay * weight if rule.weight_decay else gradient
            if rule.momentum:
                velocity = self.slots[f"momentum/{name}"]
                step = velocity.assign(rule.momentum * velocity + step)
            weight.assign_sub(rate * step)

    def _adam(self, rule: Adam, gradients: Mapping[str, Tensor], rate: Tensor) -> None:
        tf = self.tf
        count = tf.cast(self.slots["t"].assign_add(1), tf.float64)
        # In float64: 1 - 0.999^t loses most of its digits in float32 while t is small.
        first = tf.cast(1 - tf.pow(tf.constant(rule.beta1, tf.float64), count), tf.float32)
        second = tf.cast(1 - tf.pow(tf.constant(rule.beta2, tf.float64), count), tf.float32)
        for name, gradient in gradients.items():
            mean, square = self.slots[f"m/{name}"], self.slots[f"v/{name}"]
            mean_now = mean.assign(rule.beta1 * mean + (1 - rule.beta1) * gradient)
            square_now = square.assign(rule.beta2 * square + (1 - rule.beta2) * tf.square(gradient))
            step = (mean_now / first) / (tf.sqrt(square_now / second) + rule.epsilon)
            self.variables[name].assign_sub(rate * step)


def slot_names(optimiser: Optimiser) -> tuple[str, ...]:
    """The slots that an optimiser keeps for every tensor."""
    if isinstance(optimiser, Adam):
        return ("m", "v")
    return ("momentum",) if optimiser.momentum else ()


def clipped(gradients: Mapping[str, Tensor], norm: float | None) -> dict[str, Tensor]:
    """The gradients, scaled so that their global norm is at most `norm`."""
    if norm is None:
        return dict(gradients)
    tf = frameworks().tf
    found = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in gradients.values()]))
    scale = norm / tf.maximum(found, norm)
    return {name: scale * gradient for name, gradient in gradients.items()}
