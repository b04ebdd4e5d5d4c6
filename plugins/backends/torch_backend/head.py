"""The softmax layer with its cross-entropy, forward and backward by hand: most of a language model's step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.api import Dense

from .optimiser import Gradient

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CACHED_ROWS = 50
"""Rows whose logits are worked on at once: with 10,000 words 2 MB, which a core's nearer caches nearly hold."""


class Head:
    """The last dense layer, in float32.

    Three matrix products make up most of a language model's step. The kernel is stored column by column, because oneDNN
    computes all three without a transposition then; its logical shape stays (units, inputs), and nothing else notices.
    """

    def __init__(self, layer: Dense, device: torch.device) -> None:
        import torch

        # In the layout in which its gradient comes out of the product below, so that a step adds along memory.
        self.kernel = torch.zeros(layer.inputs, layer.units, device=device).t()
        self.bias = torch.zeros(layer.units, device=device)
        self._names = tuple(tensor.name for tensor in layer.tensors())
        self._product: Callable[..., Tensor] = _onednn_product if _has_onednn(device) else _torch_product

    @property
    def weights(self) -> dict[str, Tensor]:
        """Kernel and bias by tensor name."""
        return dict(zip(self._names, (self.kernel, self.bias), strict=True))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits in float32, good until the next call.

        Shapes:
            hidden (rows, inputs) -> (rows, units).
        """
        return self._product(hidden, self.kernel, self.bias)

    def backward(self, hidden: Tensor, targets: Tensor, per_item: float) -> tuple[float, Tensor, dict[str, Gradient]]:
        """The summed loss in nats, and the gradients of (per_item * nats) by the hidden values and the layer's weights.

        The kernel's gradient is good until the next call.

        Shapes:
            hidden (rows, inputs), targets (rows,) -> gradient (rows, inputs).
        """
        import torch

        # In place of the logits, which nothing needs once their gradient is known: 10,000 words x 700 items are 28 MB.
        slopes = self.logits(hidden)
        nats = softmax_gradient_(slopes, targets)
        bias_gradient = torch.mv(slopes.t(), slopes.new_full(targets.shape, per_item))
        # The transpose of slopes @ kernel: the same sums, in less time this way round.
        down = self._product(self.kernel.t(), slopes, None).t().contiguous().mul_(per_item)
        kernel_gradient = self._product((hidden * per_item).t(), slopes.t(), None).t()
        return nats, down, dict(zip(self._names, (kernel_gradient, bias_gradient), strict=True))


class LowHead(Head):
    """The last dense layer with its three products in bfloat16; softmax, loss and bias stay in float32.

    Logits and their gradient share one bfloat16 array. The steps between, in float32, go over it in pieces that stay
    in cache: from memory each would take as long as its arithmetic. All large arrays are kept, since they go back
    to the system when freed, and fresh pages cost more than filling them.

    Args:
        layer: its sizes and names.
        device: where it computes.
        rounds: whether the products are taken in float32 of bfloat16 operands, for want of kernels.
    """

    def __init__(self, layer: Dense, device: torch.device, *, rounds: bool = False) -> None:
        import torch

        super().__init__(layer, device)
        self._low_kernel = torch.empty_like(self.kernel, dtype=torch.bfloat16)
        self._kernel_gradient = torch.empty_like(self.kernel)
        # Kept between steps: fresh memory of this size is fetched from the system every time.
        self._buffers: dict[torch.dtype, Tensor] = {}
        if rounds:
            self._product = _rounded(self._product)
        else:
            self._product = _onednn_product if _has_onednn(device, low_precision=True) else _torch_product
        self._rounds = rounds
        # A GPU has the bandwidth and wants few launches.
        self._rows_at_once = CACHED_ROWS if device.type == "cpu" else None

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits in float32, good until the next call.

        Shapes:
            hidden (rows, inputs) -> (rows, units).
        """
        return self._widened(self._low_logits(hidden))

    def backward(self, hidden: Tensor, targets: Tensor, per_item: float) -> tuple[float, Tensor, dict[str, Gradient]]:
        """As the layer in float32 does.

        Shapes:
            hidden (rows, inputs), targets (rows,) -> gradient (rows, inputs).
        """
        import torch

        slopes, nats = self._low_logits(hidden), 0.0
        bias_gradient, weights = torch.zeros_like(self.bias), self.bias.new_full(targets.shape, per_item)
        rows = self._rows_at_once or len(targets)
        for piece, wanted, weight in zip(
            *(torch.split(each, rows) for each in (slopes, targets, weights)), strict=True
        ):
            logits = self._widened(piece)
            nats += softmax_gradient_(logits, wanted)
            bias_gradient.addmv_(logits.t(), weight)
            # Back into bfloat16, in which both products below read them.
            piece.copy_(logits)
        down = self._product(slopes, self._low_kernel.t(), None).float().mul_(per_item)
        # Scaled before rounding: afterwards the gradient would be rounded twice.
        left = (hidden * per_item).bfloat16()
        kernel_gradient = self._kernel_gradient.copy_(self._product(left.t(), slopes.t(), None).t())
        return nats, down, dict(zip(self._names, (kernel_gradient, bias_gradient), strict=True))

    def _low_logits(self, hidden: Tensor) -> Tensor:
        """Logits without their bias, in bfloat16; the kernel's copy in bfloat16 is up to date afterwards."""
        import torch

        self._low_kernel.copy_(self.kernel)
        if self._rounds:
            return self._product(hidden.bfloat16(), self._low_kernel, None)
        return torch.mm(hidden.bfloat16(), self._low_kernel.t(), out=self._buffer(len(hidden), torch.bfloat16))

    def _widened(self, low: Tensor) -> Tensor:
        """The same with the bias, in float32."""
        import torch

        # Not one sum of both types: PyTorch 2.15 makes a float32 copy of its own for it, fresh every time.
        return self._buffer(len(low), torch.float32).copy_(low).add_(self.bias)

    def _buffer(self, rows: int, dtype: torch.dtype) -> Tensor:
        import torch

        held = self._buffers.get(dtype)
        if held is None or len(held) < rows:
            held = self._buffers[dtype] = torch.empty(rows, len(self.bias), dtype=dtype, device=self.bias.device)
        return held[:rows]


def _has_onednn(device: torch.device, *, low_precision: bool = False) -> bool:
    import torch

    if device.type != "cpu" or not torch.backends.mkldnn.enabled:
        return False
    operators = torch.ops.mkldnn
    # A private operator: asked for by name, since a later PyTorch may not have it.
    if low_precision and not (
        hasattr(operators, "_is_mkldnn_bf16_supported") and operators._is_mkldnn_bf16_supported()
    ):
        return False
    return hasattr(operators, "_linear_pointwise")


def _onednn_product(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """What `_torch_product` gives, a tenth faster on one core than through the library behind `torch.mm`."""
    import torch

    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, kernel, bias, "none", [], "")
    return product


def _torch_product(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """The product x @ kernel.T + bias."""
    import torch

    return torch.nn.functional.linear(x, kernel, bias)


def _rounded(product: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Callable[..., Tensor]:
    """A product of float32 values for bfloat16 ones: sums in float32, rounded at their end, as in a kernel for them."""

    def low(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        return product(x.float(), kernel.float(), bias).bfloat16()

    return low


def softmax_gradient_(logits: Tensor, targets: Tensor) -> float:
    """The cross-entropy summed over rows, in nats; `logits` become its gradient by them, in place.

    The loss is taken from the largest logit and its probability, which never underflow, so no second pass over
    logarithms is needed.

    Shapes:
        logits (rows, classes), targets (rows,).
    """
    import torch

    at_target = targets.unsqueeze(1)
    # cross-entropy = log-sum-exp - logit of the target; log-sum-exp = max logit - log(max probability)
    reach = logits.amax(dim=1).sub_(logits.gather(1, at_target).squeeze(1))
    torch.softmax(logits, dim=1, out=logits)
    # In double precision: the difference of two large numbers is what remains.
    nats = float((reach.double() - logits.amax(dim=1).double().log()).sum())
    logits.scatter_add_(1, at_target, logits.new_full((1, 1), -1.0).expand_as(at_target))
    return nats
