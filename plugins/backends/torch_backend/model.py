"""The network as tensors: forward and backward of one batch.

The layers in the middle go through autograd. The two ends that make a language model slow are written by hand: the
softmax layer with its loss (`head.py`) works in place, and the embedding's gradient is held for the touched rows only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from harness.api import LSTM, Activation, Batch, Conv2D, Dense, Dropout, Embedding, Flatten, Layer, Network, Pool2D

from . import rounded
from .activity import Activity
from .head import Head, LowHead, softmax_gradient_
from .optimiser import Gradient, RowGradient
from .processor import ROUNDED

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Carried = dict[str, tuple["Tensor", "Tensor"]]
"""h and c of every recurrent layer, by layer name, (1, batch, units) each; a layer without an entry starts at zero."""


@dataclass
class Pass:
    """What one pass through the layers needs beside the weights.

    Args:
        carried: recurrent state, replaced by the state after the batch.
        dropout_seeds: seed of every dropout layer by its index in the network; None switches dropout off.
        activity: counts the zeros among the inputs of layers; None where nobody asks.
    """

    carried: Carried = field(default_factory=dict)
    dropout_seeds: dict[int, int] | None = None
    activity: Activity | None = None


class Model:
    """A network's layers with their weights.

    Args:
        network: the layers.
        device: where the weights live.
        precision: `bfloat16` computes matrix products in it; everything else stays float32.
        arithmetic: how it does so on a CPU, `KERNELS` or `ROUNDED`.

    Attributes:
        network: the layers.
        weights: by tensor name, zero at first; whoever trains changes them in place between two calls.
    """

    def __init__(
        self,
        network: Network,
        device: torch.device,
        precision: Literal["float32", "bfloat16"],
        arithmetic: str = "",
    ) -> None:
        import torch

        self.network = network
        self._device = device
        self._low = precision == "bfloat16"
        self._rounds = self._low and arithmetic == ROUNDED
        last = network.layers[-1]
        self._head: Head | None = None
        # The last dense layer is most of the work where there are 10,000 words: it has a backward pass by hand.
        if isinstance(last, Dense):
            self._head = LowHead(last, device, rounds=self._rounds) if self._low else Head(last, device)
        self._body = network.layers[:-1] if self._head else network.layers
        self.weights: dict[str, Tensor] = {}
        self._autograd_names: list[str] = []
        for layer in self._body:
            for tensor in layer.tensors():
                is_table = isinstance(layer, Embedding)
                # A table's gradient is made of the rows that a batch has touched: autograd would make one of the whole
                # table.
                self.weights[tensor.name] = torch.zeros(tensor.shape, device=device, requires_grad=not is_table)
                self._autograd_names += [] if is_table else [tensor.name]
        if self._head:
            self.weights.update(self._head.weights)

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
        if self.network.is_recurrent:
            inputs = inputs.transpose(0, 1)
            targets = targets.transpose(0, 1) if targets.dim() > 1 else targets
        return inputs, targets.reshape(-1)

    def loss_and_gradients(self, batch: Batch, run: Pass) -> tuple[float, dict[str, Gradient]]:
        """The summed cross-entropy of a batch, in nats, and the gradient of (nats / batch size) by tensor name."""
        import torch

        inputs, targets = self.data(batch)
        per_item = 1 / batch.targets.shape[0]
        leaves = [self.weights[name] for name in self._autograd_names]
        with torch.enable_grad(), self._autocast():
            embedded = self._embed(inputs)
            hidden = self._run_body(embedded, run, training=True)
        # Detached: from here on gradients are made by hand, and handed back to autograd below.
        flat = hidden.detach().reshape(-1, hidden.shape[-1]).float()
        gradients: dict[str, Gradient] = {}
        if self._head:
            nats, down, gradients = self._head.backward(flat, targets, per_item)
        else:
            down = flat.clone()
            nats = softmax_gradient_(down, targets)
            down.mul_(per_item)
        # Without a layer that is trained below the head there is nothing to go on to.
        if hidden.requires_grad:
            sources = [*leaves, embedded] if embedded.requires_grad else leaves
            found = torch.autograd.grad(hidden, sources, down.view(hidden.shape).to(hidden.dtype))
            gradients.update(zip(self._autograd_names, found[: len(leaves)], strict=True))
            if embedded.requires_grad:
                gradients.update(self._row_gradients(inputs, found[-1]))
        return nats, gradients

    def evaluate(self, batch: Batch, run: Pass, *, count_correct: bool) -> tuple[float, int]:
        """Summed nats and correct items (0 where they are not asked for) of a batch, without dropout."""
        import torch

        rows_at_once = 256  # logits of 256 x 10,000 words stay in a CPU's cache
        inputs, targets = self.data(batch)
        with self._autocast():
            hidden = self._run_body(self._embed(inputs), run, training=False)
        if run.activity and self._head:
            run.activity.see(self.network.layers[-1], hidden)
        # In float32 whatever the body computed in: a cross-entropy in bfloat16 has two digits.
        flat = hidden.reshape(-1, hidden.shape[-1]).float()
        nats, correct = torch.zeros((), dtype=torch.float64), 0
        for rows, wanted in zip(torch.split(flat, rows_at_once), torch.split(targets, rows_at_once), strict=True):
            logits = self._head.logits(rows) if self._head else rows
            each = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
            nats += each.double().sum().cpu()
            if count_correct:
                correct += int((logits.argmax(dim=1) == wanted).sum())
        return float(nats), correct

    def plain_logits(self, inputs: Tensor, run: Pass) -> Tensor:
        """Logits in float32 by autograd alone, which may differentiate them twice by every weight.

        Shapes:
            inputs as `data` gives them -> (items, classes).
        """
        import torch

        functional, first = torch.nn.functional, self.network.layers[0]
        if isinstance(first, Embedding):
            inputs = functional.embedding(inputs, self.weights[f"{first.name}.table"])
        # Rounded products have no second derivative.
        rounds, self._rounds = self._rounds, False
        try:
            hidden = self._run_body(inputs.to(self._device), run, training=True)
        finally:
            self._rounds = rounds
        flat = hidden.reshape(-1, hidden.shape[-1])
        last = self.network.layers[-1]
        if self._head and isinstance(last, Dense):
            return functional.linear(flat, self._weight(last.name, "kernel"), self._weight(last.name, "bias"))
        return flat

    def plain_loss(self, batch: Batch, run: Pass, temperature: float) -> Tensor:
        """The summed cross-entropy per item of the batch, logits divided by a temperature; by autograd alone."""
        import torch

        inputs, targets = self.data(batch)
        logits = self.plain_logits(inputs, run) / temperature
        loss: Tensor = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / batch.targets.shape[0]
        return loss

    def _autocast(self) -> torch.autocast:
        import torch

        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._low and not self._rounds)

    def _embed(self, inputs: Tensor) -> Tensor:
        import torch

        first = self.network.layers[0]
        if not isinstance(first, Embedding):
            return inputs
        # A leaf of its own: autograd stops here, and the table's gradient is made of the touched rows.
        with torch.no_grad():
            vectors = self.weights[f"{first.name}.table"][inputs]
        return vectors.requires_grad_(torch.is_grad_enabled())

    def _row_gradients(self, inputs: Tensor, grad: Tensor) -> dict[str, Gradient]:
        import torch

        first = self.network.layers[0]
        assert isinstance(first, Embedding)
        # Each touched row once, repeated words summed: norms and slots need the sum.
        rows, positions = torch.unique(inputs, return_inverse=True)
        values = grad.new_zeros(len(rows), first.features)
        values.index_add_(0, positions.reshape(-1), grad.reshape(-1, first.features))
        return {f"{first.name}.table": RowGradient(rows, values, first.words)}

    def _run_body(self, x: Tensor, run: Pass, *, training: bool) -> Tensor:
        for index, layer in enumerate(self._body):
            if run.activity:
                run.activity.see(layer, x)
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
                return self._product(functional.linear, layer, x, self._weight(layer.name, "kernel"))
            case Conv2D():
                kernel = self._weight(layer.name, "kernel").view(layer.outputs, layer.inputs, *layer.kernel)
                return self._product(functional.conv2d, layer, x, kernel, stride=layer.stride, padding=layer.padding)
            case Pool2D(kind="max"):
                return functional.max_pool2d(x, layer.size)
            case Pool2D():
                return functional.avg_pool2d(x, layer.size)
            case Flatten():
                # Time first in a recurrent network: turned back, so that items come first in what is flattened.
                return (x.transpose(0, 1) if self.network.is_recurrent else x).flatten(1)
            case Activation():
                return {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[layer.function](x)
        raise AssertionError(f"no rule for {layer!r}")

    def _product(
        self, function: rounded.Product, layer: Dense | Conv2D, x: Tensor, kernel: Tensor, **options: object
    ) -> Tensor:
        bias = self._weight(layer.name, "bias")
        if self._rounds:
            return rounded.product(function, x, kernel, bias, **options)
        return function(x, kernel, bias, **options)

    def _lstm(self, layer: LSTM, x: Tensor, run: Pass, *, training: bool) -> Tensor:
        import torch

        zero = x.new_zeros(1, x.shape[1], layer.units, dtype=torch.float32)
        h, c = run.carried.get(layer.name, (zero, zero))
        kernel, recurrent, bias = (self._weight(layer.name, part) for part in ("kernel", "recurrent_kernel", "bias"))
        if self._rounds:
            out, h, c = rounded.lstm(x, (h, c), kernel, recurrent, bias)
        else:
            # PyTorch's cell adds a second bias; zeros that are no parameter keep it out of the model.
            parts = [kernel, recurrent, bias, torch.zeros_like(bias, requires_grad=False)]
            out, h, c = torch.lstm(x, (h, c), parts, True, 1, 0.0, training, False, False)
        run.carried[layer.name] = (h.detach().float(), c.detach().float())
        if run.activity:
            run.activity.see(layer, out)
        return out

    def _weight(self, layer: str, part: str) -> Tensor:
        return self.weights[f"{layer}.{part}"]


def dropout(x: Tensor, rate: float, seed: int) -> Tensor:
    """Inverted dropout whose mask depends on the seed alone."""
    import torch

    # A generator of its own: the mask follows from the seed, whatever else has drawn before.
    generator = torch.Generator(device=x.device).manual_seed(seed)
    kept = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    return x * kept.bernoulli_(1 - rate, generator=generator).div_(1 - rate)
