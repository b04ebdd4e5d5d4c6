"""A checkpoint as it is, pruned without any training: `epochs=0` makes it the dense baseline."""

from pathlib import Path

from resnet import ResNet, images

from harness.api import OwnModel


def task(data_dir: Path | None, checkpoint: str = "resnet8.safetensors", items: int | None = None) -> OwnModel:
    """What the harness asks for; a path of `start` begins in this file's folder."""
    return OwnModel(
        model=lambda: ResNet(8),
        start=checkpoint,
        train=images(data_dir, "train", items),
        valid=images(data_dir, "valid", items),
        test=images(data_dir, "test", items),
        epochs=0,
        batch=64 if items is None else 16,
        learning_rate=0.01,
    )
