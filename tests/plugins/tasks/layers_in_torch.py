"""A module of every kind whose layers are computed in fixed point, and some that are not."""

import torch  # noqa: TID253  # imported by scripts in a process of their own
from torch import nn  # noqa: TID253  # imported by scripts in a process of their own
from torch.nn import functional  # noqa: TID253  # imported by scripts in a process of their own
from torch.nn.utils import rnn  # noqa: TID253  # imported by scripts in a process of their own


class Tied(nn.Module):
    """Gives words by the matrix that it looks words up in."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(9, 4)

    def forward(self, words):
        return functional.linear(self.emb(words), self.emb.weight)


class Packed(nn.Module):
    """Sequences of three lengths."""

    def __init__(self):
        super().__init__()
        self.r = nn.GRU(5, 6, bidirectional=True, batch_first=True)

    def forward(self, values):
        lengths = torch.tensor([2, 4, 3])
        packed = rnn.pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
        outputs, last = self.r(packed)
        return rnn.pad_packed_sequence(outputs, batch_first=True)[0], last


class Doubled(nn.Linear):
    """A linear layer that computes something else."""

    def forward(self, values):
        return 2 * values @ self.weight.T


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
        "transposed convolution": (nn.ConvTranspose1d(4, 6, 3), (r(2, 4, 9),)),
    }
