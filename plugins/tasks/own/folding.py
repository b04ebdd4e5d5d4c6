"""Batch norm as a part of the layer before it, where the layer's sums go into that norm and nowhere else.

In evaluation a batch norm scales and shifts every output channel by constants. An accelerator has both in the layer
before it: weights times the scale, and one bias. Pruned weights stay zero. Which norm follows which layer is seen in a
pass of the model, whatever its control flow: a layer's result is watched, as the object that it is, until something
reads it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from harness.api import SpecError


@dataclass(frozen=True, eq=False)
class Affine:
    """What a batch norm does in evaluation: scale * x + shift.

    Shapes:
        scale, shift (channels,).
    """

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        gamma: NDArray[np.floating] | None,
        beta: NDArray[np.floating] | None,
        mean: NDArray[np.floating],
        variance: NDArray[np.floating],
        epsilon: float,
    ) -> Affine | None:
        """From a norm's parameters and statistics; None where the numbers are not finite."""
        # In float64, so that both frameworks give the same bits.
        with np.errstate(all="ignore"):
            scale = 1 / np.sqrt(variance.astype(np.float64) + epsilon)
            scale = scale if gamma is None else scale * gamma
            shift = -mean * scale if beta is None else beta - mean * scale
        finite = np.isfinite(scale).all() and np.isfinite(shift).all()
        return cls(scale, np.asarray(shift)) if finite else None

    def folded(
        self, weights: NDArray[np.floating], bias: NDArray[np.floating] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights and bias of the layer with its norm.

        Shapes:
            weights (channels, cols), bias (channels,) -> the same.
        """
        moved = self.shift if bias is None else bias * self.scale + self.shift
        return weights * self.scale[:, None], moved


@dataclass
class Computed:
    """What another arithmetic has computed so far.

    Args:
        layers: their names; those of folded norms among them.
        folded: layer -> the norm that is a part of it.
    """

    layers: set[str] = field(default_factory=set)
    folded: dict[str, str] = field(default_factory=dict)


class Results(ABC):
    """Results of layers, each known as the object that it is for as long as it lives."""

    def __init__(self) -> None:
        # Weakly: a large model's results are not kept longer than the model keeps them, and no place is used again.
        self._alive: WeakValueDictionary[int, Any] = WeakValueDictionary()
        self._layers: dict[int, str] = {}
        self._passing: object = None
        self._running = ""

    def gave(self, layer: str, result: Any) -> None:
        """A layer has given this."""
        self._alive[id(result)] = result
        self._layers[id(result)] = layer

    def layer_of(self, value: Any) -> str | None:
        """The layer that gave a value."""
        # The number of an object that has gone may be that of another by now.
        return self._layers[id(value)] if self._alive.get(id(value)) is value and value is not None else None

    @contextmanager
    def passing(self, value: Any) -> Iterator[None]:
        """What reads the value in here is its norm."""
        self._passing = value
        try:
            yield
        finally:
            self._passing = None

    @contextmanager
    def running(self, layer: str) -> Iterator[None]:
        """What multiplies with a layer's weights in here is the layer itself."""
        self._running = layer
        try:
            yield
        finally:
            self._running = ""

    def multiplied(self, layer: str) -> None:
        """Something has multiplied with the weights of a layer."""
        if layer != self._running:
            self.elsewhere(layer, "a product of its own")

    def used(self, value: Any, by: str) -> None:
        """Something has read a value."""
        layer = self.layer_of(value)
        if layer is not None and value is not self._passing:
            self.elsewhere(layer, by)

    @abstractmethod
    def elsewhere(self, layer: str, by: str) -> None:
        """Something that is not its norm reads a layer's result."""


class Look(Results):
    """A pass in which a model runs as it is, to find out what becomes of its layers' results."""

    def __init__(self) -> None:
        super().__init__()
        self._norms: dict[str, set[str]] = {}
        self._apart: set[str] = set()

    def normed(self, norm: str, value: Any) -> None:
        """A norm has read a value."""
        layer = self.layer_of(value)
        if layer is not None:
            self._norms.setdefault(layer, set()).add(norm)

    def elsewhere(self, layer: str, by: str) -> None:
        """The layer stands by itself."""
        self._apart.add(layer)

    def folds(self) -> dict[str, str]:
        """Layer -> the one norm that all of its results went into."""
        return {
            layer: next(iter(norms))
            for layer, norms in self._norms.items()
            if len(norms) == 1 and layer not in self._apart
        }


class Fold(Results):
    """A pass in which layers have their norms in them.

    Args:
        folds: layer -> norm, as a look has found them.
        computed: told which norms were folded.
    """

    def __init__(self, folds: Mapping[str, str], computed: Computed) -> None:
        super().__init__()
        self._folds, self._computed = folds, computed

    def gave(self, layer: str, result: Any) -> None:
        """Watched only where there is a norm in it."""
        if layer in self._folds:
            super().gave(layer, result)

    def takes(self, norm: str, value: Any) -> bool:
        """Whether a value has this norm in it already."""
        layer = self.layer_of(value)
        if layer is None:
            return False
        if self._folds[layer] != norm:
            self.elsewhere(layer, norm)
        self._computed.layers.add(norm)
        self._computed.folded[layer] = norm
        return True

    def elsewhere(self, layer: str, by: str) -> None:
        """What the look has not shown.

        Raises:
            SpecError: always; a number of another model would come out.
        """
        norm = self._folds[layer]
        raise SpecError(
            f"own: the sums of {layer} go into {norm} alone on the first batch, so that both are one layer in fixed "
            f"point, and into {by} on another; give {norm} a forward pass of your own, which keeps it in float32"
        )
