"""A user's data as batches of tensors, in an order that follows from (seed, epoch) alone."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from harness.api import DataError, Split

_EVALUATION_BATCH = 256


def seed_all(seed: int) -> None:
    """Seed every generator that a user's code may draw from."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # the old one is what user code draws from
    torch.manual_seed(seed)


class Data:
    """One split.

    Args:
        split: which.
        source: a pair of arrays, a map-style data set, or an iterable of batches.
        batch: items of a training step.
        steps: steps of an epoch, where the source does not tell its length.

    Raises:
        DataError: it is none of these, or holds too little.
    """

    def __init__(self, split: Split, source: Any, batch: int, steps: int | None) -> None:
        self._split, self._steps = split, steps
        self._batch = batch if split == "train" else max(batch, _EVALUATION_BATCH)
        self._arrays: Any = None
        self._source = source
        if isinstance(source, tuple | list) and len(source) == 2 and not isinstance(source, str):
            self._arrays = (_tensors(source[0]), _tensors(source[1]))
            sizes = {len(each) for part in self._arrays for each in _leaves(part)}
            if len(sizes) != 1:
                raise DataError(f"own: inputs and targets of `{split}` must be equally many, got {sorted(sizes)}")
            self._items = sizes.pop()
        elif hasattr(source, "__getitem__") and hasattr(source, "__len__"):
            self._items = len(source)
        elif hasattr(source, "__iter__"):
            self._items = 0
        else:
            raise DataError(
                f"own: `{split}` must be a pair of arrays, a data set with items or an iterable of batches, got "
                f"{type(source).__name__}; give one of them"
            )
        if self._items < (self._batch if split == "train" else 1) and not self._is_stream:
            raise DataError(f"own: `{split}` must hold one batch, got {self._items} items; lower `batch` or give more")

    @property
    def _is_stream(self) -> bool:
        return self._arrays is None and not (hasattr(self._source, "__getitem__") and hasattr(self._source, "__len__"))

    def steps(self) -> int:
        """Batches of one epoch; a stream of unknown length is read once."""
        if not self._is_stream:
            # The last, smaller batch of training is dropped; an evaluation takes every item.
            whole = self._items // self._batch
            return whole if self._split == "train" else -(-self._items // self._batch)
        if self._steps is not None and self._split == "train":
            return self._steps
        try:
            return len(self._source)
        except TypeError:
            return sum(1 for _ in self._source)

    def batches(self, rng: np.random.Generator) -> Iterator[tuple[Any, Any]]:
        """(inputs, targets) of an epoch; training is shuffled by the generator, a stream orders itself."""
        if self._is_stream:
            seed_all(int(rng.integers(2**31)))
            yield from (_pair(batch) for batch in self._source)
            return
        order = rng.permutation(self._items) if self._split == "train" else np.arange(self._items)
        for step in range(self.steps()):
            chosen = order[step * self._batch : (step + 1) * self._batch]
            yield self._chosen(chosen)

    def _chosen(self, chosen: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        import torch
        from torch.utils.data import default_collate

        if self._arrays is not None:
            index = torch.from_numpy(chosen)
            return tuple(_mapped(part, lambda each: each[index]) for part in self._arrays)
        return _pair(default_collate([self._source[int(place)] for place in chosen]))

    def digest(self) -> str:
        """SHA-256 over every item in its order; random augmentation is drawn from one seed, so that it repeats."""
        hasher = hashlib.sha256()
        seed_all(0)
        if self._arrays is not None:
            parts: Any = [self._arrays]
        elif self._is_stream:
            parts = self._source
        else:
            parts = (self._source[place] for place in range(self._items))
        for part in parts:
            _hash(part, hasher.update)
        return hasher.hexdigest()


def _pair(batch: Any) -> tuple[Any, Any]:
    """Inputs and targets: the last part of a batch is the targets, what stands before it the inputs."""
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise DataError(f"own: a batch must be (inputs, targets), got {type(batch).__name__}; yield both")
    inputs, targets = batch[:-1], batch[-1]
    return _mapped(inputs[0] if len(inputs) == 1 else tuple(inputs), _tensor), _tensor(targets)


def _tensor(value: Any) -> Any:
    """A tensor of what models take: integers as int64, doubles as float32."""
    import torch

    tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))
    if tensor.dtype == torch.float64:
        return tensor.float()
    return tensor.long() if tensor.dtype in (torch.int8, torch.int16, torch.int32) else tensor


def _tensors(value: Any) -> Any:
    return _mapped(value, _tensor)


def _mapped(value: Any, function: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _mapped(inner, function) for name, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_mapped(inner, function) for inner in value)
    return function(value)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def _hash(value: Any, update: Any) -> None:
    if isinstance(value, Mapping):
        value = tuple(value.items())
    if isinstance(value, tuple | list):
        update(f"({len(value)}".encode())
        for inner in value:
            _hash(inner, update)
    elif isinstance(value, str | bytes):
        update(value.encode() if isinstance(value, str) else value)
    else:
        array = np.ascontiguousarray(np.asarray(value))
        if array.dtype == object:
            raise DataError(f"own: an item of type {type(value).__name__} cannot be hashed; set `data_version`")
        update(f"{array.dtype.str}{array.shape}".encode())
        update(array.tobytes())
