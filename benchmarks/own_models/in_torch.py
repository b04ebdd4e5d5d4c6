"""Models of a user's for `benchmarks.own_model`, in PyTorch."""

import numpy as np
import torch
from torch import nn

from harness.api import SGD, OwnModel


class Tagger(nn.Module):
    """An LSTM with a class for its whole input."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 128, batch_first=True)
        self.out = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.out(self.lstm(x)[0][:, -1])


def convolutions() -> nn.Module:
    """Three convolutions with batch norm."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10),
    )  # fmt: skip


def task(kind: str = "cnn", items: int = 2560) -> OwnModel:
    """Random items: what is timed does not depend on them."""
    rng = np.random.default_rng(0)
    shape = (1, 28, 28) if kind == "cnn" else (20, 64)
    data = rng.normal(size=(items, *shape)).astype(np.float32), rng.integers(0, 10, items)
    return OwnModel(
        model=convolutions if kind == "cnn" else Tagger, train=data, valid=data, test=data, batch=64,
        optimiser=SGD(momentum=0.9), data_version="1",
    )  # fmt: skip
