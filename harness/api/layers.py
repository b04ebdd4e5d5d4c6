"""The layers of a user's own model as an engine computes them: what a task hands their inputs to."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harness.api.task import Evaluation, Split

Values = NDArray[np.float64]
"""What a layer gives; whoever calls rounds it to the type of the framework."""

Given = NDArray[np.floating]
"""What a layer gets."""

Edge = Literal["constant", "reflect", "edge", "wrap"]
"""What lies around an image, by NumPy's names: zeros, or the image itself."""


@dataclass(frozen=True)
class Window:
    """How a convolution moves over its input.

    Args:
        kernel, stride, dilation: along each spatial axis.
        padding: elements before and after, along each spatial axis.
        groups: blocks of channels that see each other alone.
        edge: what the padding holds.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int = 1
    edge: Edge = "constant"


@dataclass(frozen=True)
class Cell:
    """The weights of a recurrent layer in one direction.

    Args:
        kind: `lstm` (gates i, f, g, o), `gru` (r, z, n) or `rnn`.
        kernel, recurrent: (gates * units, inputs) and (gates * units, outputs).
        bias: (gates * units,), where nothing stands between the two products.
        recurrent_bias: of the product with h alone, which matters to a GRU's n; part of `bias` otherwise.
        projection: (outputs, units) of an LSTM whose output is a product of its own.
        resets_after: whether a GRU's r meets the product with h (cuDNN, PyTorch), or h itself (the first paper).
        function: of an `rnn`.
    """

    kind: Literal["lstm", "gru", "rnn"]
    kernel: NDArray[np.floating]
    recurrent: NDArray[np.floating]
    bias: NDArray[np.floating]
    recurrent_bias: NDArray[np.floating] | None = None
    projection: NDArray[np.floating] | None = None
    resets_after: bool = True
    function: Literal["tanh", "relu"] = "tanh"


@dataclass
class Recurrence:
    """Where a recurrent layer stands.

    Shapes:
        h (batch, outputs), c (batch, units); c of an LSTM alone.
    """

    h: Given
    c: Given | None = None


class LayerArithmetic(ABC):
    """Computes layers with matrices.

    A layer goes by one name wherever it runs: its weights are read at its first call, and its steps are one.
    """

    @abstractmethod
    def linear(
        self, name: str, values: Given, weights: NDArray[np.floating], bias: NDArray[np.floating] | None
    ) -> Values:
        """A product with a matrix.

        Shapes:
            values (..., cols), weights (rows, cols), bias (rows,) -> (..., rows).
        """

    @abstractmethod
    def convolution(
        self,
        name: str,
        values: Given,
        weights: NDArray[np.floating],
        bias: NDArray[np.floating] | None,
        window: Window,
    ) -> Values:
        """A convolution over any number of spatial axes.

        Shapes:
            values (items, channels, *sizes), weights (rows, channels / groups * taps), bias (rows,)
            -> (items, rows, *sizes).
        """

    @abstractmethod
    def recurrent(
        self, name: str, values: Given, cell: Cell, start: Recurrence, live: NDArray[np.bool_] | None = None
    ) -> tuple[Values, Recurrence]:
        """A recurrent layer, first step first.

        Args:
            name: of the layer.
            values: its inputs.
            cell: its weights.
            start: where it stands before.
            live: the steps that count; at others it stays where it is and gives what it gave last.

        Shapes:
            values (batch, steps, inputs), live (batch, steps) -> (batch, steps, outputs).
        """


@runtime_checkable
class EvaluatedByLayers(Protocol):
    """A problem of a user's own model, which can compute it with the layers of another's arithmetic."""

    def evaluated_by(
        self,
        arithmetic: LayerArithmetic,
        weights: dict[str, NDArray[np.float32]],
        extra: dict[str, NDArray[np.generic]],
        split: Split,
        seed: int,
        items: int | None = None,
    ) -> tuple[Evaluation, tuple[str, ...]]:
        """Evaluate a model, on the host.

        Args:
            arithmetic: computes every layer that it knows; the framework computes all others.
            weights: of every tensor.
            extra: buffers among what the session keeps, as `buffer/name`.
            split: what it is scored on.
            seed: the cell's.
            items: enough of the split, for a look at it; None takes all.

        Returns:
            The totals, with the norms that were folded into their layers (`folded`); and the layers with trained
            parameters that the framework has computed.
        """
