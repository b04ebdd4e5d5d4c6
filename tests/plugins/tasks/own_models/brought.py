"""What people bring, each as small as it can be: data, outputs, models and losses of many shapes, in PyTorch."""

import copy
import random
from collections import namedtuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from harness.api import Metric, OwnModel

IMPORTED = (np.random.normal(), torch.randn(1).item(), random.random())


def split(seed, items):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, items)
    return (rng.normal(size=(items, 6)) + labels[:, None]).astype(np.float32), labels


def net(outputs=3):
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, outputs))


def own(**changes):
    values = {"model": net, **every(lambda x, y: (x, y)), "epochs": 3, "batch": 8, "learning_rate": 0.02}
    return OwnModel(**(values | changes))


def every(make):
    return {name: make(*split(*of)) for name, of in {"train": (0, 48), "valid": (1, 16), "test": (2, 16)}.items()}


class Conv1D(nn.Module):
    """A linear layer with its weights as (inputs, outputs), as GPT-2 has them."""

    def __init__(self, linear):
        super().__init__()
        self.nf = linear.out_features
        self.weight = nn.Parameter(linear.weight.detach().T.clone())
        self.bias = linear.bias

    def forward(self, values):
        return torch.addmm(self.bias, values.view(-1, values.shape[-1]), self.weight).view(*values.shape[:-1], self.nf)


class Matrices(nn.Module):
    """`net` without a layer: one matrix as (inputs, outputs), the other as (outputs, inputs)."""

    def __init__(self):
        super().__init__()
        first, _, last = net()
        self.first, self.last = nn.Parameter(first.weight.detach().T.clone()), last.weight
        self.of_first, self.of_last = first.bias, last.bias

    def forward(self, x):
        return functional.linear(torch.relu(x @ self.first + self.of_first), self.last, self.of_last)


def gpt():
    """`net` of layers as GPT-2 has them."""
    first, relu, last = net()
    return nn.Sequential(Conv1D(first), relu, Conv1D(last))


ACCURACY = Metric(name="accuracy", better="higher")


class Two(nn.Module):
    """Two inputs, and two outputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(4, 8)
        self.p, self.q = nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x, z):
        hidden = torch.relu(self.a(x) + self.b(z))
        return self.p(hidden), torch.log_softmax(self.q(hidden), 1)


class Items(torch.utils.data.Dataset):
    def __init__(self, x, y, make):
        self.x, self.y, self.make = x, y, make

    def __len__(self):
        return len(self.x)

    def __getitem__(self, place):
        return self.make(self.x[place], self.x[place][:4], int(self.y[place]))


def two(make, **changes):
    def loss(outputs, targets):
        p, q = targets.values() if isinstance(targets, dict) else targets
        return functional.cross_entropy(outputs[0], p) + functional.nll_loss(outputs[1], q)

    def correct(outputs, targets):
        p = targets["p"] if isinstance(targets, dict) else targets[0]
        return (outputs[0].argmax(1) == p).sum()

    given = every(lambda x, y: Items(x, y, make))
    return own(model=Two, loss=loss, measure=correct, metric=ACCURACY, **(given | changes))


class Picking(nn.Module):
    """A model whose outputs are whatever a function makes of logits and hidden values."""

    def __init__(self, pick):
        super().__init__()
        self.a, self.out, self.pick = nn.Linear(6, 8), nn.Linear(8, 3), pick

    def forward(self, x):
        hidden = torch.relu(self.a(x))
        return self.pick(self.out(hidden), hidden)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, steps):
        return self.out(self.lstm(steps)[1][0][-1])


def packed(x, y):
    def together(items):
        steps = [torch.as_tensor(x[place]).expand(1 + place % 3, 6) for place in items]
        return nn.utils.rnn.pack_sequence(steps, enforce_sorted=False), torch.as_tensor(y[list(items)])

    return DataLoader(range(len(x)), batch_size=8, collate_fn=together)


class Batch:
    """A batch with a class of its own, as libraries for graphs have."""

    def __init__(self, x):
        self.x = x

    def to(self, device):
        return Batch(self.x.to(device))


class OfBatches(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, batch):
        return self.inner(batch.x)


def of_a_class(x, y):
    return lambda seed: ((Batch(torch.as_tensor(x[i : i + 8])), torch.as_tensor(y[i : i + 8])) for i in range(0, 16, 8))


def tokens(x, y):
    words = np.random.default_rng(len(x)).integers(0, 9, (len(x), 5))
    targets = words.copy()
    targets[:, 3:] = -100
    return words, targets


class Follower(nn.Module):
    """A frozen copy that follows the trained one, and buffers of all sorts."""

    def __init__(self):
        super().__init__()
        self.inner = net()
        self.copy = copy.deepcopy(self.inner).requires_grad_(False)
        self.empty = nn.Parameter(torch.empty(0))
        self.register_buffer("spread", torch.arange(6.0).expand(4, 6))
        self.register_buffer("short", torch.ones(3, dtype=torch.bfloat16))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.short.add_(0.25)
                for own, theirs in zip(self.copy.parameters(), self.inner.parameters(), strict=True):
                    own.mul_(0.9).add_(theirs, alpha=0.1)
        return self.inner(x) + self.copy(x + self.spread[:1] * 0.01) * self.short.float().mean()


class Drawing(nn.Module):
    """Draws from Python and NumPy, as data that are augmented do."""

    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, x):
        return self.inner(x) * (1 + 0.1 * (random.random() + np.random.rand()) if self.training else 1)


def drawn(x, z, y):
    return x + 0.1 * np.random.normal(size=6).astype(np.float32) + random.random(), y


class Loss(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, outputs, targets):
        return functional.cross_entropy(outputs * self.scale, targets)


def column(x, y):
    return x, y[:, None].astype(np.float32)


NET = net()
Named = namedtuple("Named", "logits hidden")
Cross = nn.CrossEntropyLoss
bce = functional.binary_cross_entropy_with_logits
FINE = {
    "a column of targets": lambda: own(**every(lambda x, y: (x, y[:, None]))),
    "one-hot targets": lambda: own(**every(lambda x, y: (x, np.eye(3)[y]))),
    "whole numbers as floats": lambda: own(**every(lambda x, y: (x, y.astype(np.float32)))),
    "unsigned targets": lambda: own(**every(lambda x, y: (x, y.astype(np.uint16)))),
    "arrays of another machine": lambda: own(**every(lambda x, y: (x.astype(">f4"), y.astype(">i4")))),
    "flipped arrays": lambda: own(**every(lambda x, y: (x[:, ::-1], y))),
    "half inputs": lambda: own(**every(lambda x, y: (x.astype(np.float16), y))),
    "long doubles": lambda: own(**every(lambda x, y: (x.astype(np.longdouble), y))),
    "packed sequences": lambda: own(model=Packed, **every(packed), data_version="1"),
    "batches of a class": lambda: own(model=OfBatches, **every(of_a_class), data_version="1"),
    "items with nested inputs": lambda: two(lambda x, z, y: ((x, z), (y, int(y > 0)))),
    "items with named inputs and targets": lambda: two(lambda x, z, y: ({"x": x, "z": z}, {"p": y, "q": int(y > 0)})),
    "lists of arrays": lambda: two(None, **every(lambda x, y: ([x, x[:, :4]], [y, (y > 0) * 1]))),
    "padding as PyTorch marks it": lambda: own(
        model=lambda: nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 9)), **every(tokens)
    ),
    "log-softmax": lambda: own(model=lambda: nn.Sequential(net(), nn.LogSoftmax(1)), loss=functional.nll_loss),
    "a named tuple": lambda: own(
        model=lambda: Picking(Named),
        loss=lambda outputs, targets: functional.cross_entropy(outputs.logits, targets),
        measure=lambda outputs, targets: (outputs.logits.argmax(1) == targets).sum(),
        metric=ACCURACY,
    ),
    "compiled": lambda: own(model=lambda: torch.compile(net())),
    "a metric in bfloat16": lambda: own(measure=lambda o, t: (o * o).sum().bfloat16(), metric=ACCURACY),
    "layers of GPT-2": lambda: own(model=gpt),
    "matrices of a module": lambda: own(model=Matrices, prunable=["first", "last"]),
    "a rate of NumPy": lambda: own(learning_rate=lambda epoch: np.float32(0.02)),
}
REFUSED = {
    "regression": lambda: own(model=lambda: net(1), loss=functional.mse_loss, **every(column)),
    "one logit": lambda: own(model=lambda: net(1), **every(lambda x, y: (x, y))),
    "two classes in one output": lambda: own(model=lambda: net(1), loss=bce, **every(column)),
    "several classes": lambda: own(loss=bce, **every(lambda x, y: (x, (y[:, None] >= np.arange(3)) * 1.0))),
    "classes from 1": lambda: own(**every(lambda x, y: (x, y + 1))),
    "probabilities": lambda: own(model=lambda: nn.Sequential(net(), nn.Softmax(1))),
    "a dictionary of outputs": lambda: own(model=lambda: Picking(lambda o, h: {"logits": o, "hidden": h})),
    "a sum for a loss": lambda: own(loss=Cross(reduction="sum")),
    "a mean for a metric": lambda: own(measure=lambda o, t: (o.argmax(1) == t).double().mean(), metric=ACCURACY),
    "a loss that learns": lambda: own(loss=Loss()),
    "a loss by name": lambda: own(loss="mse"),
    "an optimiser": lambda: own(optimiser=torch.optim.SGD(net().parameters(), lr=0.1)),
    "a scheduler": lambda: own(learning_rate=torch.optim.lr_scheduler.StepLR(torch.optim.SGD(NET.parameters()), 1)),
    "a metric by name": lambda: own(measure="f1"),
    "a model": lambda: own(model=net()),
    "the same model again": lambda: own(model=lambda: NET),
    "a layer of every model": lambda: own(model=lambda: nn.Sequential(NET[0], nn.ReLU(), nn.Linear(8, 3))),
    "TorchScript": lambda: own(model=lambda: torch.jit.script(net())),
    "frozen": lambda: own(model=lambda: net().requires_grad_(False)),
    "a generator": lambda: own(train=(each for each in [])),
    "batches of names": lambda: two(lambda x, z, y: {"x": x, "z": z, "labels": y}),
    "words": lambda: own(**every(lambda x, y: (x, np.array(["a", "b", "c"])[y]))),
    "rows of several lengths": lambda: own(**every(lambda x, y: ([[1.0], [1.0, 2.0]], [0, 1]))),
}


def task(name: str) -> OwnModel:
    return (FINE | REFUSED)[name]()


def follower() -> OwnModel:
    return own(model=Follower)


def drawing() -> OwnModel:
    return own(model=Drawing, train=Items(*split(0, 48), drawn), data_version="1")


def imported() -> OwnModel:
    return own(facts={"drawn": list(IMPORTED)})


def setting() -> OwnModel:
    torch.set_num_threads(3)
    torch.set_grad_enabled(False)
    np.seterr(all="raise")
    return own()


def normed() -> OwnModel:
    under = nn.utils.parametrizations.weight_norm
    return own(model=lambda: nn.Sequential(under(nn.Linear(6, 8)), nn.ReLU(), pruned()))


def pruned():
    from torch.nn.utils import prune

    return prune.l1_unstructured(nn.Linear(8, 3), "weight", 0.5)


class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = net()

    def forward(self, x):
        return self.model(x)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(9, 8), nn.Linear(8, 9, bias=False)
        self.out.weight = self.words.weight

    def forward(self, words):
        return self.out(self.words(words))


def start(file: str, kind: str = "net") -> OwnModel:
    if kind == "tied":
        return own(model=Tied, start=file, epochs=0, **every(lambda x, y: (tokens(x, y)[0],) * 2))
    return own(model={"net": net, "wrapper": Wrapper}[kind], start=file, epochs=0)
