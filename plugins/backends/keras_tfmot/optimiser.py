"""The update rules of `harness.api.program`, on slot variables of our own.

tf-keras' SGD folds the learning rate into its velocity (v = m v - lr g), which is another rule once the rate changes,
and its Adam puts epsilon elsewhere; so the rules are written out here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from harness.api import SGD, Adam, AdamW, Optimiser

from .toolkit import frameworks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tensorflow import IndexedSlices, Tensor, Variable

    Gradient: TypeAlias = Tensor | IndexedSlices


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
        if isinstance(optimiser, Adam | AdamW):
            # A float, since slots are stored as float32; it counts exactly up to 2^24 steps.
            self.slots["t"] = self.tf.Variable(np.float32(0), trainable=False)

    @property
    def takes_rows(self) -> bool:
        """Whether a step may leave the untouched rows of an embedding alone: no slot and no decay moves them."""
        return isinstance(self.optimiser, SGD) and not self.optimiser.momentum and not self.optimiser.weight_decay

    def apply(self, gradients: Mapping[str, Gradient], scale: Tensor | None, rate: Tensor) -> None:
        """Take one step along the gradients times `scale`, where there is one; called inside a traced function."""
        if self.takes_rows:
            # Scaled within the rate, so that no gradient is copied; the same product, rounded elsewhere.
            scaled_rate = rate if scale is None else rate * scale
            for name, gradient in gradients.items():
                self._descend(self.variables[name], gradient, scaled_rate)
            return
        scaled = scaled_by(scale, gradients)
        if isinstance(self.optimiser, Adam | AdamW):
            self._adam(self.optimiser, scaled, rate)
        else:
            self._momentum(self.optimiser, scaled, rate)

    def _descend(self, weight: Variable, gradient: Gradient, rate: Tensor) -> None:
        tf = self.tf
        if isinstance(gradient, tf.IndexedSlices):
            weight.scatter_sub(tf.IndexedSlices(rate * gradient.values, gradient.indices))
        else:  # in place; `assign_sub(rate * gradient)` would fill an array of the weight's size first
            tf.raw_ops.ResourceApplyGradientDescent(var=weight.handle, alpha=rate, delta=gradient)

    def _momentum(self, rule: SGD, gradients: Mapping[str, Tensor], rate: Tensor) -> None:
        # Heavy ball without dampening, as the api defines it: Keras' own SGD folds the rate into the velocity.
        tf = self.tf
        momentum = tf.constant(rule.momentum, tf.float32)
        for name, gradient in gradients.items():
            weight = self.variables[name]
            if rule.weight_decay:
                step = gradient + rule.weight_decay * weight
                if rule.momentum:
                    velocity = self.slots[f"momentum/{name}"]
                    step = velocity.assign(rule.momentum * velocity + step)
                # Not by the operation below: TensorFlow adds these three in another order than they are written.
                weight.assign_sub(rate * step)
            else:
                # v = momentum * v + g; w = w - rate * v: the bits of five operations in one that works in place.
                velocity = self.slots[f"momentum/{name}"]
                tf.raw_ops.ResourceApplyMomentum(
                    var=weight.handle, accum=velocity.handle, lr=rate, grad=gradient, momentum=momentum
                )

    def _adam(self, rule: Adam | AdamW, gradients: Mapping[str, Tensor], rate: Tensor) -> None:
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
            if isinstance(rule, AdamW) and rule.weight_decay:
                step += rule.weight_decay * self.variables[name]
            self.variables[name].assign_sub(rate * step)


def slot_names(optimiser: Optimiser) -> tuple[str, ...]:
    """The slots that an optimiser keeps for every tensor."""
    if isinstance(optimiser, Adam | AdamW):
        return ("m", "v")
    return ("momentum",) if optimiser.momentum else ()


def dense(gradient: Gradient) -> Tensor:
    """The gradient as an array of the weight's shape, repeated rows summed."""
    return frameworks().tf.convert_to_tensor(gradient)


def rows_summed(gradient: Gradient) -> Gradient:
    """The gradient with every touched row of an embedding once.

    TensorFlow lists a repeated word once for every time it occurs, and its norm would count the parts of a sum apart.
    """
    tf = frameworks().tf
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    # A word that occurs twice in a batch has two rows: norms and slots need their sum.
    rows, places = tf.unique(gradient.indices)
    return tf.IndexedSlices(tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows)), rows)


def masked(gradient: Gradient, mask: Variable) -> Gradient:
    """The gradient, zero where the mask is."""
    tf = frameworks().tf
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(tf.gather(mask, gradient.indices) * gradient.values, gradient.indices)
    return mask * gradient


def scaled_by(scale: Tensor | None, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradients times a factor, or as they are."""
    return {name: gradient if scale is None else scale * gradient for name, gradient in gradients.items()}


def clip_scale(gradients: Iterable[Gradient], norm: float | None) -> Tensor | None:
    """What to multiply gradients by, so that their global norm is at most `norm`; rows must have been summed.

    None where nothing is clipped: a product with 1 would be a pass over every gradient for the same bits.
    """
    tf = frameworks().tf
    if norm is None:
        return None
    parts = [gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient for gradient in gradients]
    # l2_loss is half of the sum of squares, and does not make a copy of its argument.
    found = tf.sqrt(2 * tf.add_n([tf.nn.l2_loss(part) for part in parts]))
    # One where the norm is small enough: norm / norm, exactly.
    return norm / tf.maximum(found, norm)
