"""A user's data as batches of tensors, in an order that follows from (seed, epoch) alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from harness.api import DataError, Split

from .arrays import items_of, several
from .way import Way

_EVALUATION_BATCH = 256

_COMPARED = 3
"""Batches by which two passes over a stream are compared: one that shuffles differs in its first."""


class Data:
    """One split.

    Args:
        way: of the framework.
        split: which.
        source: a pair of arrays, a map-style data set, an iterable of batches, or a function of a seed that makes one.
        batch: items of a training step.
        steps: steps of an epoch, where the source does not tell its length.

    Raises:
        DataError: it is none of these, or holds too little.
    """

    def __init__(self, way: Way, split: Split, source: Any, batch: int, steps: int | None) -> None:
        self._way, self._split, self._steps = way, split, steps
        # Larger batches where nothing is trained: the result is the same and comes sooner.
        self._batch = batch if split == "train" else max(batch, _EVALUATION_BATCH)
        self._make = source if callable(source) and not _has_data(source) else None
        if hasattr(source, "__next__"):
            raise DataError(
                f"own: `{split}` can be read once only, got {type(source).__name__}, and every epoch reads it; give a "
                f"function of a seed that makes it, such as `{split}=lambda seed: batches(seed)`"
            )
        source = source(0) if self._make is not None else source
        self._arrays: Any = None
        self._source, self._items = source, 0
        # A pair of arrays, not of items: data sets with items come as objects of their own.
        if isinstance(source, tuple | list) and len(source) == 2 and not isinstance(source, str):
            items = items_of(*source)
            self._arrays = tuple(mapped(several(part, items, batched=False), way.tensor) for part in source)
            sizes = {len(each) for part in self._arrays for each in _leaves(part)}
            if len(sizes) != 1:
                raise DataError(f"own: inputs and targets of `{split}` must be equally many, got {sorted(sizes)}")
            self._items = sizes.pop()
        elif not _has_data(source) or isinstance(source, Mapping):
            raise DataError(
                f"own: `{split}` must be a pair of arrays, a data set with items or an iterable of batches, got "
                f"{type(source).__name__}; give one of them"
            )
        elif not way.is_stream(source):
            self._items = len(source)
        elif way.is_endless(source) and (steps is None or split != "train"):
            raise DataError(
                f"own: `{split}` never ends; set `steps_per_epoch` and let `valid` and `test` end (no `repeat()`)"
            )
        self._is_stream = self._arrays is None and way.is_stream(source)
        if self._items < (self._batch if split == "train" else 1) and not self._is_stream:
            raise DataError(f"own: `{split}` must hold one batch, got {self._items} items; lower `batch` or give more")

    @property
    def may_draw(self) -> bool:
        """Whether reading it runs code that may draw: anything but arrays does."""
        return self._arrays is None

    @property
    def targets(self) -> Any:
        """All of them, where they are one array; None of other data."""
        return self._arrays[1] if self._arrays is not None else None

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
            return sum(1 for _ in self._way.stream(self._source))

    def batches(self, rng: np.random.Generator) -> Iterator[tuple[Any, Any]]:
        """(inputs, targets) of an epoch; training is shuffled by the generator, a stream orders itself."""
        if self._is_stream:
            yield from (self._pair(batch) for batch in self._begun(int(rng.integers(2**31))))
            return
        order = rng.permutation(self._items) if self._split == "train" else np.arange(self._items)
        for step in range(self.steps()):
            chosen = order[step * self._batch : (step + 1) * self._batch]
            yield self._chosen(chosen)

    def _begun(self, seed: int) -> Iterator[Any]:
        """A pass over a stream that follows from the seed alone."""
        self._way.seed(seed)
        source = self._source if self._make is None else self._make(seed)
        return iter(self._way.stream(source))

    def _chosen(self, chosen: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        if self._arrays is not None:
            inputs, targets = (mapped(part, lambda each: self._way.taken(each, chosen)) for part in self._arrays)
            return inputs, targets
        return self._pair(self._way.together([self._source[int(place)] for place in chosen]))

    def _pair(self, batch: Any) -> tuple[Any, Any]:
        """Inputs and targets: the last part of a batch is the targets, what stands before it the inputs."""
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            parts = f" of {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
            raise DataError(
                f"own: a batch of `{self._split}` must be (inputs, targets), got {type(batch).__name__}{parts}; yield "
                "both, such as ({'tokens': tokens, 'mask': mask}, labels) for inputs with names"
            )
        inputs, targets = batch[:-1], batch[-1]
        whole = inputs[0] if len(inputs) == 1 else tuple(inputs)
        # What puts items together makes lists of what were tuples in them.
        items = items_of(targets, whole)
        inputs, targets = (several(part, items, batched=True) for part in (whole, targets))
        return mapped(inputs, self._way.tensor), mapped(targets, self._way.tensor)

    def digest(self) -> str:
        """SHA-256 over every item in its order; random augmentation is drawn from one seed, so that it repeats.

        Raises:
            DataError: two passes from one seed differ: a run that is resumed could not go on where it was.
        """
        if self._arrays is not None:
            return _hashed([self._arrays])
        if not self._is_stream:
            # Augmentation draws while items are read: seeded, two readings are equal.
            self._way.seed(0)
            return _hashed(self._source[place] for place in range(self._items))
        found = _hashed(self._limited(self._begun(0)))
        # Its first batches twice: a stream that shuffles anew shows it there.
        first, second = (_hashed(islice(self._begun(0), _COMPARED)) for _ in range(2))
        if first != second:
            raise DataError(
                f"own: `{self._split}` gives another order in every pass, so that a resumed run could not repeat it; "
                f"give a function of a seed, such as `{self._split}=lambda seed: data.shuffle(1000, seed=seed)."
                "batch(32)`"
            )
        return found

    def _limited(self, batches: Iterator[Any]) -> Iterator[Any]:
        """What one epoch takes of a stream that may never end."""
        return islice(batches, self._steps) if self._way.is_endless(self._source) else batches


def _has_data(source: object) -> bool:
    return hasattr(source, "__iter__") or hasattr(source, "__getitem__")


def mapped(value: Any, function: Any) -> Any:
    """A function of every part of inputs or targets, at any depth."""
    if isinstance(value, Mapping):
        return {name: mapped(inner, function) for name, inner in value.items()}
    # A sequence that is packed is a named tuple too, and one part to whoever takes it.
    if isinstance(value, tuple) and not hasattr(value, "to"):
        return tuple(mapped(inner, function) for inner in value)
    return function(value)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def _hashed(parts: Any) -> str:
    hasher = hashlib.sha256()
    for part in parts:
        _hash(part, hasher.update)
    return hasher.hexdigest()


def _hash(value: Any, update: Any) -> None:
    if isinstance(value, Mapping):
        value = tuple(value.items())
    # With brackets and lengths, so that nesting counts.
    if isinstance(value, tuple | list):
        update(f"({len(value)}".encode())
        for inner in value:
            _hash(inner, update)
    elif isinstance(value, str | bytes):
        update(value.encode() if isinstance(value, str) else value)
    elif value is None:  # an input that is left out
        update(b"none")
    else:
        # A copy in one order: strides of an array are no part of what it holds.
        array = np.ascontiguousarray(np.asarray(value))
        if array.dtype == object:
            raise DataError(f"own: an item of type {type(value).__name__} cannot be hashed; set `data_version`")
        update(f"{array.dtype.str}{array.shape}".encode())
        update(array.tobytes())
