"""The network as tensors: forward and backward of one batch.

The layers up to the last but one go through autograd. The two ends that make a language model slow are written by hand:
the softmax layer with its loss works in buffers that are kept from step to step, and the embedding's gradient is held for
the touched rows only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from harness.api import LSTM, Activation, Batch, Conv2D, Dense, Dropout, Embedding, Flatten, Layer, Network, Pool2D

from .optimiser import Gradient, RowGradient

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Carried = dict[str, tuple["Tensor", "Tensor"]]
"""h and c of every recurrent layer, by layer name; a layer without an entry starts at zero. Shapes: (1, batch, units)."""


@dataclass
class Pass:
    """What one pass through the layers needs beside the weights.

    Args:
        carried: recurrent state, replaced by the state after the batch.
        dropout_seeds: seed of every dropout layer by its index in the network; None switches dropout off.
    """

    carried: Carried = field(default_factory=dict)
    dropout_seeds: dict[int, int] | None = None


class Model:
    """A network's layers over a dictionary of weights.

    Args:
        network: the layers.
        weights: by tensor name, on `device`; changed in place by others between two calls.
        precision: `bfloat16` computes matrix products in it; everything else stays float32.
    """

    def __init__(
        self,
        network: Network,
        weights: dict[str, Tensor],
        device: torch.device,
        precision: Literal["float32", "bfloat16"],
    ) -> None:
        self.weights = weights
        self._network = network
        self._device = device
        self._low = precision == "bfloat16"
        last = network.layers[-1]
        self._head = Head(last.name, weights, low_precision=self._low) if isinstance(last, Dense) else None
        self._body = network.layers[:-1] if self._head else network.layers
        body_names = [tensor.name for layer in self._body for tensor in layer.tensors()]
        tables = {tensor.name for layer in network.layers if isinstance(layer, Embedding) for tensor in layer.tensors()}
        self._autograd_names = [name for name in body_names if name not in tables]
        for name in self._autograd_names:
            weights[name].requires_grad_()

    def data(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The batch on the device; time comes first in a recurrent network.

        Shapes:
            inputs (steps, batch) or (steps, batch, features), else (batch, ...); targets flat, in the logits' order.
        """
        import torch

        is_ids = batch.inputs.dtype.kind in "iu"
        kind = torch.int64 if is_ids else torch.float32
        inputs = torch.tensor(batch.inputs, dtype=kind, device=self._device)
        targets = torch.tensor(batch.targets, dtype=torch.int64, device=self._device)
        if self._network.is_recurrent:
            inputs = inputs.transpose(0, 1)
            targets = targets.transpose(0, 1) if targets.dim() > 1 else targets
        return inputs, targets.reshape(-1)

    def loss_and_gradients(self, batch: Batch, run: Pass) -> tuple[float, dict[str, Gradient]]:
        """The summed cross-entropy of a batch, in nats, and the gradient of (nats / batch size) by tensor name.

        A gradient may live in a buffer that the next call overwrites.
        """
        import torch

        inputs, targets = self.data(batch)
        per_item = 1 / batch.targets.shape[0]
        leaves = [self.weights[name] for name in self._autograd_names]
        with torch.enable_grad(), self._autocast():
            embedded = self._embed(inputs)
            hidden = self._run_body(embedded, run, training=True)
        flat = hidden.detach().reshape(-1, hidden.shape[-1]).float()
        gradients: dict[str, Gradient] = {}
        if self._head:
            nats, down = self._head.backward(flat, targets, per_item, gradients)
        else:
            nats, down = softmax_gradient(flat, targets, torch.empty_like(flat))
            down.mul_(per_item)
        if hidden.requires_grad:
            is_leaf = embedded.is_leaf and embedded.requires_grad
            grads = torch.autograd.grad(
                hidden, [*leaves, embedded] if is_leaf else leaves, down.view(hidden.shape).to(hidden.dtype)
            )
            gradients.update(zip(self._autograd_names, grads, strict=False))
            if is_leaf:
                gradients.update(self._row_gradients(inputs, grads[-1]))
        return nats, gradients

    def evaluate(self, batch: Batch, run: Pass, *, count_correct: bool) -> tuple[float, int]:
        """Summed nats and correct items of a batch, without dropout; (nats, 0) where correct items are not asked for."""
        import torch

        rows_at_once = 256  # logits of 256 x 10,000 words stay in a CPU's cache
        inputs, targets = self.data(batch)
        with self._autocast():
            hidden = self._run_body(self._embed(inputs), run, training=False)
        flat = hidden.reshape(-1, hidden.shape[-1]).float()
        nats, correct = torch.zeros((), dtype=torch.float64), 0
        for rows, wanted in zip(torch.split(flat, rows_at_once), torch.split(targets, rows_at_once), strict=True):
            logits = self._head.logits(rows) if self._head else rows
            each = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
            nats += each.double().sum().cpu()
            if count_correct:
                correct += int((logits.argmax(dim=1) == wanted).sum())
        return float(nats), correct

    def _autocast(self) -> torch.autocast:
        import torch

        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._low)

    def _embed(self, inputs: Tensor) -> Tensor:
        first = self._network.layers[0]
        if not isinstance(first, Embedding):
            return inputs
        # A leaf of its own: autograd stops here, and the table's gradient is made of the touched rows.
        import torch

        with torch.no_grad():
            vectors = self.weights[f"{first.name}.table"][inputs]
        return vectors.requires_grad_(torch.is_grad_enabled())

    def _row_gradients(self, inputs: Tensor, grad: Tensor) -> dict[str, Gradient]:
        import torch

        first = self._network.layers[0]
        assert isinstance(first, Embedding)
        rows, positions = torch.unique(inputs, return_inverse=True)
        values = grad.new_zeros(len(rows), first.features)
        values.index_add_(0, positions.reshape(-1), grad.reshape(-1, first.features))
        return {f"{first.name}.table": RowGradient(rows, values, first.words)}

    def _run_body(self, x: Tensor, run: Pass, *, training: bool) -> Tensor:
        for index, layer in enumerate(self._body):
            if isinstance(layer, LSTM):
                x = self._lstm(layer, x, run, training=training)
            elif isinstance(layer, Dropout):
                if run.dropout_seeds is not None and layer.rate:
                    x = dropout(x, layer.rate, run.dropout_seeds[index])
            elif not isinstance(layer, Embedding):
                x = self._stateless(layer, x)
        return x

    def _stateless(self, layer: Layer, x: Tensor) -> Tensor:
        import torch

        functional = torch.nn.functional
        match layer:
            case Dense():
                return functional.linear(x, self._weight(layer.name, "kernel"), self._weight(layer.name, "bias"))
            case Conv2D():
                kernel = self._weight(layer.name, "kernel").view(layer.outputs, layer.inputs, *layer.kernel)
                bias = self._weight(layer.name, "bias")
                return functional.conv2d(x, kernel, bias, stride=layer.stride, padding=layer.padding)
            case Pool2D(kind="max"):
                return functional.max_pool2d(x, layer.size)
            case Pool2D():
                return functional.avg_pool2d(x, layer.size)
            case Flatten():
                return (x.transpose(0, 1) if self._network.is_recurrent else x).flatten(1)
            case Activation():
                return {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[layer.function](x)
        raise AssertionError(f"no rule for {layer!r}")

    def _lstm(self, layer: LSTM, x: Tensor, run: Pass, *, training: bool) -> Tensor:
        import torch

        zero = x.new_zeros(1, x.shape[1], layer.units, dtype=torch.float32)
        h, c = run.carried.get(layer.name, (zero, zero))
        bias = self._weight(layer.name, "bias")
        # PyTorch's cell adds a second bias; zeros that are no parameter keep it out of the model.
        parts = [self._weight(layer.name, "kernel"), self._weight(layer.name, "recurrent_kernel"), bias]
        parts.append(torch.zeros_like(bias, requires_grad=False))
        out, h, c = torch.lstm(x, (h, c), parts, True, 1, 0.0, training, False, False)
        run.carried[layer.name] = (h.detach().float(), c.detach().float())
        return out

    def _weight(self, layer: str, part: str) -> Tensor:
        return self.weights[f"{layer}.{part}"]


class Head:
    """The last dense layer with softmax and cross-entropy, in buffers that live as long as the batches keep their shape."""

    def __init__(self, layer: str, weights: dict[str, Tensor], *, low_precision: bool) -> None:
        self._names = (f"{layer}.kernel", f"{layer}.bias")
        self._weights = weights
        self._low = low_precision
        self._buffers: dict[str, Tensor] = {}

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits in float32, in a new array.

        Shapes:
            hidden (rows, inputs) -> (rows, units).
        """
        import torch

        kernel, bias = (self._weights[name] for name in self._names)
        if self._low:
            return torch.add(hidden.bfloat16() @ kernel.bfloat16().t(), bias)
        return torch.addmm(bias, hidden, kernel.t())

    def backward(
        self, hidden: Tensor, targets: Tensor, per_item: float, gradients: dict[str, Gradient]
    ) -> tuple[float, Tensor]:
        """The summed loss in nats and the gradient of (per_item * nats) by the hidden values.

        The layer's own gradients are put into `gradients`.

        Shapes:
            hidden (rows, inputs), targets (rows,) -> gradient (rows, inputs).
        """
        import torch

        kernel, bias = (self._weights[name] for name in self._names)
        rows, units = hidden.shape[0], kernel.shape[0]
        logits = self._buffer("logits", (rows, units))
        kernel_gradient = self._buffer("kernel", tuple(kernel.shape))
        if self._low:
            left, right = hidden.bfloat16(), kernel.bfloat16()
            low = self._buffer("low", (rows, units), torch.bfloat16)
            torch.add(torch.mm(left, right.t(), out=low), bias, out=logits)
        else:
            left, right = hidden, kernel
            torch.addmm(bias, hidden, kernel.t(), out=logits)
        nats, slopes = softmax_gradient(logits, targets, self._buffer("slopes", (rows, units)))
        bias_gradient = slopes.sum(dim=0).mul_(per_item)
        if self._low:
            slopes = low.copy_(slopes)
            down = torch.mm(slopes, right).float().mul_(per_item)
            kernel_gradient.copy_(torch.mm(slopes.t(), left)).mul_(per_item)
        else:
            down = torch.mm(slopes, right).mul_(per_item)
            torch.mm(slopes.t(), left * per_item, out=kernel_gradient)
        gradients.update(zip(self._names, (kernel_gradient, bias_gradient), strict=True))
        return nats, down

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        import torch

        held = self._buffers.get(name)
        if held is None or held.shape != shape:
            device = self._weights[self._names[0]].device
            held = self._buffers[name] = torch.empty(shape, dtype=dtype or torch.float32, device=device)
        return held


def softmax_gradient(logits: Tensor, targets: Tensor, out: Tensor) -> tuple[float, Tensor]:
    """The cross-entropy summed over rows, in nats, and its gradient by the logits, written to `out`.

    The loss is taken from the largest logit and its probability, which never underflow, so no second pass over
    logarithms is needed.

    Shapes:
        logits (rows, classes), targets (rows,) -> out (rows, classes).
    """
    import torch

    torch.softmax(logits, dim=1, out=out)
    # log-sum-exp = max logit - log(max probability)
    normaliser = logits.amax(dim=1).double() - out.amax(dim=1).double().log()
    at_target = targets.unsqueeze(1)
    nats = float((normaliser - logits.gather(1, at_target).squeeze(1).double()).sum())
    out.scatter_add_(1, at_target, out.new_full((1, 1), -1.0).expand_as(at_target))
    return nats, out


def dropout(x: Tensor, rate: float, seed: int) -> Tensor:
    """Inverted dropout whose mask depends on the seed alone."""
    import torch

    generator = torch.Generator(device=x.device).manual_seed(seed)
    kept = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    return x * kept.bernoulli_(1 - rate, generator=generator).div_(1 - rate)
