"""bfloat16 on processors without its kernels: operands rounded to bfloat16, products in float32, results rounded again.

This is what a bfloat16 kernel computes, up to the order of its sums: the product of two bfloat16 numbers is exact in
float32, and kernels sum in float32 as well. PyTorch has bfloat16 products for every processor, but without AVX-512 they
take up to forty times as long as these, and oneDNN has no bfloat16 LSTM at all there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Product = Callable[..., "Tensor"]


def rounded(x: Tensor) -> Tensor:
    """The nearest bfloat16 values, held in float32; the gradient is rounded in the same way."""
    return x.bfloat16().float()


def product(function: Product, x: Tensor, kernel: Tensor, bias: Tensor, **options: object) -> Tensor:
    """A linear layer or a convolution; the sum is rounded once, after the bias.

    Args:
        function: `linear` or `conv2d` of `torch.nn.functional`.
        x: what flows into the layer.
        kernel: its matrix.
        bias: its bias.
        options: further arguments of the function.
    """
    return rounded(function(rounded(x), rounded(kernel), rounded(bias), **options))


def lstm(
    x: Tensor, state: tuple[Tensor, Tensor], kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer; what leaves a step is rounded, since the next step multiplies it; its cell state is not.

    Shapes:
        x (steps, batch, inputs), h and c of the state (1, batch, units) -> (steps, batch, units), and the last h and c.
    """
    import torch

    h, c = rounded(state[0][0]), rounded(state[1][0])
    recurrent = rounded(recurrent_kernel).t()
    # The inputs of all steps are known: one product, as large as a core likes it.
    of_inputs = torch.nn.functional.linear(rounded(x), rounded(kernel), rounded(bias))
    outputs = []
    for from_input in of_inputs.unbind():
        i, f, g, o = torch.addmm(from_input, h, recurrent).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = rounded(torch.sigmoid(o) * torch.tanh(c))
        outputs.append(h)
    return torch.stack(outputs), h.unsqueeze(0), rounded(c).unsqueeze(0)


@cache
def has_kernels() -> bool:
    """Whether this process trains a bfloat16 LSTM on the CPU; tried, since what libraries say of processors varies."""
    import torch

    cell = torch.nn.LSTM(2, 2)
    try:
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
            cell(torch.zeros(1, 1, 2))[0].float().sum().backward()
    except RuntimeError:  # no such primitive
        return False
    return True
