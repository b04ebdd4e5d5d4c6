"""A residual CNN with batch norm on Fashion-MNIST, given to the harness by the function `task`."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import nn

from harness.api import SGD, OwnModel

PARTS = {"train": ("train", slice(0, 55_000)), "valid": ("train", slice(55_000, None)), "test": ("t10k", slice(None))}


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add what the convolutions make of it."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class ResNet(nn.Module):
    """28 x 28 grey pixels to ten classes; a stride of 2 at the stem costs a quarter of the time."""

    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        stem = nn.Conv2d(1, width, 3, stride, padding=1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2))
        self.classes = nn.Linear(4 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.classes(self.blocks(self.stem(x)).mean(dim=(2, 3)))


def images(data_dir: Path | None, split: str, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Pixels between -1 and 1, (items, 1, 28, 28), and labels."""
    assert data_dir is not None, "pass --data-dir, or set HARNESS_DATA"
    prefix, part = PARTS[split]
    folder = data_dir / "fashion_mnist"
    pixels = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 1, 28, 28)[part][:most]
    return x.astype(np.float32) / 127.5 - 1, np.frombuffer(labels, np.uint8, offset=8)[part][:most].astype(np.int64)


def task(
    data_dir: Path | None, width: int = 16, stride: int = 2, epochs: int = 6, items: int | None = None
) -> OwnModel:
    """What the harness asks for; all but `data_dir` may be set in the experiment."""
    return OwnModel(
        model=lambda: ResNet(width, stride),
        train=images(data_dir, "train", items),
        valid=images(data_dir, "valid", items),
        test=images(data_dir, "test", items),
        epochs=epochs,
        batch=64 if items is None else 16,
        optimiser=SGD(momentum=0.9, weight_decay=5e-4),
        learning_rate=lambda epoch: 0.05 * (1 - epoch / epochs),
    )
