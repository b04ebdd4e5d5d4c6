"""A model of many kinds of layer, for tests: random classes, told apart by their mean."""

import numpy as np
import torch
from torch import nn
from turns import turned

from harness.api import AdamW, Metric, OwnModel


class Everything(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.words = nn.Embedding(5, 3)
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.grouped = nn.Conv1d(width, width, 1, groups=2)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.lstm = nn.LSTM(width, 4, batch_first=True)
        self.gru = nn.GRU(4, 6, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(0.3)
        self.scale = nn.Parameter(torch.ones(1, 12))
        self.out = nn.Linear(12, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x))).flatten(2)
        x = self.grouped(x).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.gru(self.lstm(x)[0])[0][:, -1] * self.scale
        return self.out(self.dropout(x)) + self.words.weight.sum() * 0.01


def split(seed, items):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, items)
    return turned(rng.normal(size=(items, 1, 4, 4)) + labels[:, None, None, None]), labels


def own(width=8, **changes):
    values = {
        "model": lambda: Everything(width),
        "train": split(0, 50),
        "valid": split(1, 20),
        "test": split(2, 20),
        "epochs": 4,
        "batch": 8,
        "learning_rate": 0.02,
        "optimiser": AdamW(),
    }
    return OwnModel(**(values | changes))


def task(width: int = 8) -> OwnModel:
    return own(width)


def given_optimiser() -> OwnModel:
    """A user's own optimiser and schedule, with two groups."""

    def make(parameters):
        return torch.optim.SGD(
            [{"params": parameters[:3]}, {"params": parameters[3:], "lr": 0.05}], lr=0.1, momentum=0.9, weight_decay=0.1
        )

    return own(optimiser=make, learning_rate=lambda epoch: 0.05 / (1 + epoch), clip_norm=1.0)


def own_metric() -> OwnModel:
    """F1 of class 1, from three sums; a data set of items."""

    def counts(outputs, targets):
        found, wanted = outputs.argmax(1) == 1, targets == 1
        return torch.stack([(found & wanted).sum(), found.sum(), wanted.sum()])

    items = torch.utils.data.TensorDataset(*map(torch.as_tensor, split(0, 50)))
    return own(
        train=items,
        measure=counts,
        finish=lambda sums, items: float(2 * sums[0] / max(sums[1] + sums[2], 1)),
        metric=Metric(name="f1", better="higher", digits=3),
    )


def loader() -> OwnModel:
    items = torch.utils.data.TensorDataset(*map(torch.as_tensor, split(0, 48)))
    return own(train=torch.utils.data.DataLoader(items, batch_size=8, shuffle=True), data_version="1")


def wrong_loss() -> OwnModel:
    return own(loss=lambda outputs, targets: nn.functional.mse_loss(outputs, targets.reshape(7, 7)))


def out_of_memory() -> OwnModel:
    return own(loss=lambda outputs, targets: outputs.sum() + torch.empty(1 << 60).sum())


def late_error() -> OwnModel:
    """A loss that fails in training only, not on the first batch that is looked at."""

    def loss(outputs, targets):
        if torch.is_grad_enabled() and outputs.requires_grad and loss.seen:
            raise RuntimeError("the loss gave up")
        loss.seen = True
        return nn.functional.cross_entropy(outputs, targets)

    loss.seen = False
    return own(loss=loss)


def not_finite() -> OwnModel:
    return own(loss=lambda outputs, targets: nn.functional.cross_entropy(outputs, targets) * float("nan"))


def ends_early() -> OwnModel:
    return own(train=Stream(2), steps_per_epoch=3, data_version="1")


class Stream:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        for _ in range(self.batches):
            yield torch.zeros(8, 1, 4, 4), torch.zeros(8).long()


def pretrained(start: str = "start.safetensors") -> OwnModel:
    return own(start=start, epochs=0)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(7, 4)
        self.logits = nn.Linear(4, 7, bias=False)
        self.logits.weight = self.words.weight

    def forward(self, tokens):
        return self.logits(self.words(tokens))


def tied() -> OwnModel:
    tokens = np.random.default_rng(0).integers(0, 7, (40, 5))
    return own(model=Tied, train=(tokens, tokens), valid=(tokens, tokens), test=(tokens, tokens), measure="perplexity")
