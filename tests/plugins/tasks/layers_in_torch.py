"""A module of every kind whose layers are computed in fixed point, and some that are not."""

import sys
from pathlib import Path

import torch  # noqa: TID253  # imported by scripts in a process of their own
from layer_cases import normed_numbers
from torch import nn  # noqa: TID253  # imported by scripts in a process of their own
from torch.nn import functional  # noqa: TID253  # imported by scripts in a process of their own
from torch.nn.utils import rnn  # noqa: TID253  # imported by scripts in a process of their own

EXAMPLES = Path(__file__).parents[3] / "examples" / "bring_your_own"


class Tied(nn.Module):
    """Gives words by the matrix that it looks words up in."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(9, 4)

    def forward(self, words):
        return functional.linear(self.emb(words), self.emb.weight)


class Packed(nn.Module):
    """Sequences of three lengths."""

    def __init__(self, lengths=(2, 4, 3)):
        super().__init__()
        self.r, self.lengths = nn.GRU(5, 6, bidirectional=True, batch_first=True), lengths

    def forward(self, values):
        lengths = torch.tensor(self.lengths)
        packed = rnn.pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
        outputs, last = self.r(packed)
        return rnn.pad_packed_sequence(outputs, batch_first=True)[0], last


class Doubled(nn.Linear):
    """A linear layer that computes something else."""

    def forward(self, values):
        return 2 * values @ self.weight.T


class Turned(nn.Module):
    """Matrices as (inputs, outputs), which vectors and a matrix are multiplied with."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.randn(6, 4))
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, values):
        return torch.addmm(self.bias, torch.tanh(values @ self.first), self.second)


class Summed(nn.Module):
    """Products written as sums over an index, and one that is none of values with a matrix."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.randn(4, 6))
        self.third = nn.Parameter(torch.randn(4, 4))

    def forward(self, values):
        hidden = torch.tanh(torch.einsum("bti, io -> bto", values, self.first))
        return torch.einsum("to,op->pt", torch.einsum("...i,oi->...o", hidden, self.second)[0], self.third)


class Added(nn.Module):
    """A product to which a matrix is added, which is no bias."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 4))

    def forward(self, values):
        return torch.addmm(values[:, :4], values, self.weight)


class Twice(nn.Module):
    """A convolution, its norm, and something else that reads the sums too."""

    def __init__(self, read):
        super().__init__()
        self.conv, self.norm, self.read = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), read

    def forward(self, values):
        sums = self.conv(values)
        return self.read(self, sums, self.norm(sums))


class Both(nn.Module):
    """A layer with its norm whose weights are those of another product too."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(5, 4), nn.BatchNorm1d(4)

    def forward(self, values):
        return self.norm(self.linear(values)) + functional.linear(values, weight=self.linear.weight)


def contradicted():
    """A module that reads its sums beside their norm of one item alone, and two batches."""
    module = Twice(lambda module, sums, after: after + sums if after.shape[0] == 1 else after)
    return trained(module), (torch.ones(2, 2, 5, 5),), (torch.ones(1, 2, 5, 5),)


def trained(module):
    """Statistics and parameters that differ from channel to channel, as after some training."""
    for each in module.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.running_mean is not None:
            nn.init.normal_(each.running_mean)
            nn.init.uniform_(each.running_var, 0.2, 2)
            if each.affine:
                nn.init.normal_(each.weight)
                nn.init.normal_(each.bias)
    return module.eval()


def normed():
    """Modules with norms, their arguments, what is computed in fixed point, and which norms are parts of layers."""
    r = torch.randn
    sys.path.insert(0, str(EXAMPLES))
    from resnet import ResNet

    def in_training(module, sums, after):
        module.norm.train()
        return module.norm(sums)

    reads = {
        "sums read beside the norm": (lambda module, sums, after: after + sums, {}),
        "sums asked for their shape": (lambda module, sums, after: after.reshape(sums.shape[0], -1), {"conv": "norm"}),
        "normed twice": (lambda module, sums, after: after + module.norm(sums), {"conv": "norm"}),
        "changed in place": (lambda module, sums, after: sums.relu_(), {}),
        "weights read beside the layer": (
            lambda module, sums, after: functional.linear(after.mean((2, 3)), module.conv.weight[:, :, 0, 0].T),
            {"conv": "norm"},
        ),
        "norm in training": (in_training, {}),
    }
    found = {
        name: (Twice(read), (r(2, 2, 5, 5),), ["conv", *sorted(folded.values())], folded)
        for name, (read, folded) in reads.items()
    }
    names = ["blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2"]
    norms = {name: name.replace("conv", "norm") for name in names} | {"stem.0": "stem.1"}
    shortcuts = ["blocks.0.shortcut", "blocks.1.shortcut"]
    linear, shared = nn.Linear(5, 4), nn.BatchNorm1d(4)
    found |= {
        "residual network": (
            ResNet(4), (r(2, 1, 28, 28),), sorted([*norms, *norms.values(), *shortcuts, "classes"]), norms,
        ),
        "linear": (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, affine=False)), (r(3, 5),), ["0", "1"], {"0": "1"}),
        "linear over steps": (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(3)), (r(2, 3, 5),), ["0"], {}),
        "grouped": (
            nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.Identity(), nn.BatchNorm1d(6)), (r(2, 4, 9),), ["0", "2"],
            {"0": "2"},
        ),
        "of its batch": (
            nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)), (r(2, 2, 4, 4),), ["0"],
            {},
        ),
        "after an activation": (
            nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)), (r(2, 2, 4, 4),), ["0"], {},
        ),
        "two norms for one layer": (
            nn.Sequential(linear, nn.BatchNorm1d(4), nn.Linear(4, 5), linear, nn.BatchNorm1d(4)), (r(3, 5),),
            ["0", "2"], {},
        ),
        "weights multiplied with beside the layer": (Both(), (r(3, 5),), ["linear", "linear.product"], {}),
        "one norm for two layers": (
            nn.Sequential(nn.Linear(5, 4), shared, nn.Linear(4, 4), shared), (r(3, 5),), ["0", "1", "2"],
            {"0": "1", "2": "1"},
        ),
    }  # fmt: skip
    return {name: (trained(module), *rest) for name, (module, *rest) in found.items()}


def alone():
    """The layers of `normed_numbers` with their values."""
    numbers = {name: torch.from_numpy(array) for name, array in normed_numbers().items()}
    linear = nn.Sequential(nn.Linear(18, 4), nn.BatchNorm1d(4, eps=1e-3))
    conv = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, eps=1e-3))
    for layer, norm in (linear, conv):
        given = {
            layer.weight: "weights", layer.bias: "bias", norm.weight: "gamma", norm.bias: "beta",
            norm.running_mean: "mean", norm.running_var: "variance",
        }  # fmt: skip
        for parameter, name in given.items():
            parameter.data.copy_(numbers[name].reshape(parameter.shape))
    values = numbers["values"]
    return {"linear": (linear.eval(), (values,)), "conv": (conv.eval(), (values.reshape(6, 2, 3, 3),))}


class Loop(nn.Module):
    """A recurrent module called for one step after another; of fewer items each time, if so."""

    def __init__(self, inner, ending=False):
        super().__init__()
        self.inner, self.ending = inner, ending

    def forward(self, values):
        state = None
        for step in range(values.shape[1]):
            left = len(values) - (step if self.ending else 0)
            if isinstance(self.inner, nn.RNNCellBase):
                state = self.inner(values[:left, step], None if state is None else state[:left])
            else:
                _, state = self.inner(input=values[:, step : step + 1], hx=state)
        return state


def recurrent():
    """Modules with recurrent layers, and batches of three items."""
    r = torch.randn
    return {
        "time first": (nn.LSTM(4, 6), (r(5, 3, 4),)),
        "stacked, both ways": (nn.GRU(4, 6, num_layers=2, bidirectional=True, batch_first=True), (r(3, 5, 4),)),
        "projected": (nn.LSTM(4, 6, proj_size=2, batch_first=True), (r(3, 5, 4),)),
        "called in a loop": (Loop(nn.LSTM(4, 6, batch_first=True)), (r(3, 4, 4),)),
        "cells in a loop": (Loop(nn.GRUCell(4, 6)), (r(3, 4, 4),)),
        "packed, of one length": (Packed([4, 4, 4]), (r(3, 4, 5),)),
        "packed, of several": (Packed(), (r(3, 4, 5),)),
        "ending one after another": (Loop(nn.RNNCell(4, 6), ending=True), (r(3, 3, 4),)),
        "words for items": (nn.LSTM(4, 6, batch_first=True), (r(2, 5, 4),)),
    }


def cases():
    """Modules with their arguments."""
    r = torch.randn
    bias_kv = {"add_bias_kv": True, "add_zero_attn": True}
    return {
        "linear": (nn.Linear(5, 7), (r(2, 3, 5),)),
        "Conv1d": (nn.Conv1d(4, 6, 3, padding="same", dilation=2, groups=2), (r(2, 4, 9),)),
        "Conv2d": (
            nn.Conv2d(4, 8, (3, 2), stride=(2, 1), padding=(1, 2), groups=4, padding_mode="reflect"),
            (r(3, 4, 8, 7),),
        ),
        "Conv2d of one image": (nn.Conv2d(4, 8, 3, padding=1, bias=False), (r(4, 8, 7),)),
        "Conv2d same": (nn.Conv2d(2, 3, (3, 5), padding="same"), (r(2, 2, 5, 6),)),
        "Conv3d": (nn.Conv3d(2, 3, 2, padding_mode="circular", padding=1), (r(2, 2, 4, 5, 6),)),
        "LSTM": (nn.LSTM(5, 6, num_layers=2, bidirectional=True), (r(4, 3, 5),)),
        "projected LSTM": (nn.LSTM(5, 6, proj_size=3, batch_first=True, num_layers=2), (r(4, 3, 5),)),
        "GRU": (nn.GRU(5, 6, num_layers=2, bidirectional=True, batch_first=True), (r(4, 3, 5), r(4, 4, 6))),
        "RNN of one item": (nn.RNN(5, 6, nonlinearity="relu", bias=False), (r(4, 5),)),
        "packed GRU": (Packed(), (r(3, 4, 5),)),
        "LSTMCell": (nn.LSTMCell(5, 6), (r(3, 5), (r(3, 6), r(3, 6)))),
        "GRUCell": (nn.GRUCell(5, 6), (r(3, 5),)),
        "RNNCell": (nn.RNNCell(5, 6), (r(5), r(6))),
        "attention": (
            nn.MultiheadAttention(8, 2, kdim=5, vdim=6, batch_first=True, **bias_kv),
            (r(2, 3, 8), r(2, 4, 5), r(2, 4, 6)),
        ),
        "encoder layer": (nn.TransformerEncoderLayer(8, 2, 12), (r(3, 2, 8),)),
        "tied": (Tied(), (torch.arange(5),)),
        "forward of ones own": (Doubled(5, 7), (r(2, 5),)),
        "matrices by inputs": (Turned(), (r(3, 5),)),
        "sums over an index": (Summed(), (r(1, 3, 5),)),
        "something else added": (Added(), (r(3, 5),)),
        "transposed convolution": (nn.ConvTranspose1d(4, 6, 3), (r(2, 4, 9),)),
    }
