"""What scores need of a model as it stands: its inputs, the Hessian's product with the gradient, synaptic flow."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.api import Batch, Conv2D, Layer
from harness.api.inputs import InputSums

from .activity import Activity
from .model import Model, Pass

if TYPE_CHECKING:
    from torch import Tensor

Arrays = dict[str, NDArray[np.float32]]


class _Inputs(Activity):
    """Hands what flows into the layers on to the sums, batch first."""

    def __init__(self, sums: InputSums, *, is_recurrent: bool) -> None:
        super().__init__()
        self._sums, self._is_recurrent = sums, is_recurrent

    def see(self, layer: Layer, values: Tensor) -> None:
        if values.is_floating_point():  # ids flow into an embedding
            array = values.detach().float().cpu().numpy()
            # Time comes first inside; sums are over positions, whose order does not matter, but a carried state's does.
            if self._is_recurrent and array.ndim == 3:
                array = array.swapaxes(0, 1)
            if isinstance(layer, Conv2D):
                edge = (layer.padding, layer.padding)
                array = np.pad(array, ((0, 0), (0, 0), edge, edge))
            self._sums.see(layer, array)


def input_sums(model: Model, batches: Iterable[Batch], *, moments: bool) -> Mapping[str, NDArray[np.floating]]:
    """Norms or second moments of the inputs of every matrix over some batches."""
    import torch

    sums = InputSums(moments=moments)
    run = Pass(activity=_Inputs(sums, is_recurrent=model.network.is_recurrent))
    with torch.no_grad():
        for batch in batches:
            model.evaluate(batch, run, count_correct=False)
    return sums.found()


def hessian_gradients(model: Model, batches: list[Batch], matrices: list[str], temperature: float) -> Arrays:
    """H g by differentiating twice, g the mean gradient of the loss and H its mean Hessian over the batches."""
    import torch

    # Two passes: the mean gradient has to be known before its product with each batch's Hessian is summed.
    with _differentiable(model, matrices) as weights:
        mean = [torch.zeros_like(weight) for weight in weights]
        # The state is carried within each pass and begins anew with the second.
        run = Pass()
        for batch in batches:
            found = torch.autograd.grad(model.plain_loss(batch, run, temperature), weights)
            mean = [total + gradient / len(batches) for total, gradient in zip(mean, found, strict=True)]
        product, run = [torch.zeros_like(weight) for weight in weights], Pass()
        for batch in batches:
            found = torch.autograd.grad(model.plain_loss(batch, run, temperature), weights, create_graph=True)
            inner = sum((gradient * fixed).sum() for gradient, fixed in zip(found, mean, strict=True))
            assert isinstance(inner, torch.Tensor)
            # A network of linear layers alone has gradients that do not depend on some of its weights.
            second = torch.autograd.grad(inner, weights, allow_unused=True)
            product = [p if s is None else p + s / len(batches) for p, s in zip(product, second, strict=True)]
    return {name: _array(value) for name, value in zip(matrices, product, strict=True)}


def synaptic_flow(model: Model, matrices: list[str]) -> Arrays:
    """dR/d|w|, R the summed outputs of the network with weights |w| on one input of ones."""
    import torch

    # Copies, not signs: a weight of -0.0 would lose its own.
    before = {name: weight.detach().clone() for name, weight in model.weights.items()}
    with torch.no_grad():
        for weight in model.weights.values():
            weight.abs_()
    try:
        with _differentiable(model, matrices) as weights:
            found = torch.autograd.grad(
                model.plain_logits(torch.ones(1, *model.network.input_shape), Pass()).sum(), weights
            )
    finally:
        with torch.no_grad():
            for name, weight in model.weights.items():
                weight.copy_(before[name])
    return {name: _array(value) for name, value in zip(matrices, found, strict=True)}


@contextmanager
def _differentiable(model: Model, names: list[str]) -> Iterator[list[Tensor]]:
    """The weights as leaves of autograd that can be differentiated twice by them."""
    weights = [model.weights[name] for name in names]
    before = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_()
    try:
        with ExitStack() as stack:
            differentiable_twice(stack)
            yield weights
    finally:
        for weight, needed in zip(weights, before, strict=True):
            weight.requires_grad_(needed)


def differentiable_twice(stack: ExitStack) -> None:
    """Set kernels that can be differentiated once alone aside, such as oneDNN's LSTM, until the stack is left."""
    import torch

    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")  # the switch warns of a setting of its own that it does not change
    stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
    stack.enter_context(torch.backends.cudnn.flags(enabled=False))
    stack.enter_context(torch.enable_grad())


def _array(value: Tensor) -> NDArray[np.float32]:
    return np.array(value.detach().cpu().numpy(), dtype=np.float32, order="C")
