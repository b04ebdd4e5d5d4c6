"""A user's own model in an engine's numbers: each layer with matrices by the arithmetic of `network`, on the host.

What lies between these layers (activations outside of recurrent layers, norms, additions, attention's own products) is
computed by the user's framework as in any evaluation, in float32: sums leave a layer rounded to it. A batch norm that
alone reads a layer's sums is in the weights and the bias that the layer comes with.

- *Linear layer, convolution*: as in a network. The channels of all groups of a convolution share a step.
- *LSTM*: as in a network; where its output is projected, that is a product of its own.
- *GRU*: r, z and n come from tables. r meets the sum with h before n's table: that product is rounded (half up) to the
  step of the sum. (1 - z) n + z h is rounded once, to `activation_bits` with a step of its own, and saturates.
- *Plain recurrent layer*: its sum through the table of tanh, or its positive part.

Where a layer's input is read, it is rounded to the vector's step; so is its own last output.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from harness.api import (
    LSTM,
    Cell,
    Dense,
    EvaluatedByLayers,
    Evaluation,
    LayerArithmetic,
    Network,
    NumberFormat,
    NumPyOperations,
    Recurrence,
    Window,
)
from harness.api.layers import Given, Values
from harness.errors import SpecError

from .network import Arithmetic, FixedArithmetic, FloatArithmetic

CALIBRATION_ITEMS = 2000
"""Items of the validation split that ranges of vectors are measured on: whole batches, at least so many items."""

_CHUNK = 1 << 24
"""Elements of the patches of a convolution that are held at once."""

_OPS = NumPyOperations()

Weights = dict[str, NDArray[np.float32]]


def evaluated_own(
    problem: EvaluatedByLayers, weights: Weights, extra: dict[str, NDArray[np.generic]], form: NumberFormat, seed: int
) -> Evaluation:
    """Evaluate a user's own model as an engine of this number format computes it, on the test split.

    Args:
        problem: whose layers compute by another's arithmetic.
        weights: of every tensor, pruned ones zero.
        extra: the rest of the session's state, buffers among it.
        form: widths and rules.
        seed: the cell's.

    Raises:
        SpecError: the model has no layer that is known, or one that validation data do not reach.
    """
    # Ranges come from validation data: the test split decides nothing, not even a step.
    measuring = Measuring(form)
    problem.evaluated_by(measuring, weights, extra, "valid", seed, CALIBRATION_ITEMS)
    if not measuring.layers:
        raise SpecError(
            "own: no layer of the model is one whose arithmetic is known in fixed point; see docs/own-model.md"
        )
    fixed = Fixed(form, measuring.exponents())
    found, in_float = problem.evaluated_by(fixed, weights, extra, "test", seed)
    return found.model_copy(update={"wrapped": fixed.wrapped, "in_float": in_float})


class _Layers(LayerArithmetic):
    """What both passes share: how layers are made of products, and which function lies between them."""

    def __init__(self, form: NumberFormat) -> None:
        self._form = form
        self._by: dict[str, Arithmetic] = {}

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that were computed."""
        return tuple(self._by)

    def linear(self, name: str, values: Given, weights: NDArray[np.floating], bias: Given | None) -> Values:
        """One product for every row of values."""
        by = self._of(name, [weights], bias)
        # Values of any leading axes: a layer is applied to the last.
        flat = by.vector(name, _float64(values).reshape(-1, values.shape[-1]))
        sums = by.total(name, by.product(name, 0, flat))
        return np.asarray(sums).reshape(*values.shape[:-1], len(weights))

    def convolution(
        self,
        name: str,
        values: Given,
        weights: NDArray[np.floating],
        bias: NDArray[np.floating] | None,
        window: Window,
    ) -> Values:
        """One product for every output position and group, in chunks of items."""
        by = self._of(name, [weights], bias)
        rounded = by.vector(name, _float64(values))
        # Padded after rounding: zeros, and repeated edges, are values that the engine already has.
        padded = np.pad(rounded, [(0, 0), (0, 0), *window.padding], mode=window.edge)
        seen = _windows(padded, window)
        sizes = seen.shape[2 : 2 + len(window.kernel)]
        positions, per_item = int(np.prod(sizes)), max(1, seen[:1].size)
        found = np.empty((len(values), len(weights), positions))
        # Patches of all positions at once would be many times the size of the vectors.
        step = max(1, _CHUNK // per_item)
        for first in range(0, len(values), step):
            part = seen[first : first + step]
            sums = by.total(name, self._grouped(by, name, weights, part, window.groups))
            found[first : first + step] = sums.reshape(len(part), positions, len(weights)).transpose(0, 2, 1)
        return found.reshape(len(values), len(weights), *sizes)

    def _grouped(
        self,
        by: Arithmetic,
        name: str,
        weights: NDArray[np.floating],
        seen: Values,
        groups: int,
    ) -> Values:
        """Sums of all positions.

        Shapes:
            seen (items, channels, *sizes, *taps) -> (items * positions, rows).
        """
        rows, cols = weights.shape
        spatial = (seen.ndim - 2) // 2
        axes = (0, *range(2, 2 + spatial), 1, *range(2 + spatial, seen.ndim))
        patches = seen.transpose(axes).reshape(-1, groups, cols)  # (items * positions, groups, cols)
        if groups == 1:
            return np.asarray(by.product(name, 0, patches[:, 0]))
        # Groups see inputs of their own, so that their products are apart from one another.
        matrix = _matrix(by, name).reshape(groups, rows // groups, cols)
        sums = np.matmul(patches.transpose(1, 0, 2).astype(matrix.dtype), matrix.transpose(0, 2, 1))
        return _float64(sums).transpose(1, 0, 2).reshape(-1, rows)

    def recurrent(
        self, name: str, values: Given, cell: Cell, start: Recurrence, live: NDArray[np.bool_] | None = None
    ) -> tuple[Values, Recurrence]:
        """Step by step; the products with the inputs of all steps are one."""
        kinds: dict[str, type[_Recurrent]] = {"lstm": _Lstm, "gru": _Gru, "rnn": _Plain}
        layer = kinds[cell.kind](self, name, cell)
        batch, steps = values.shape[:2]
        flat = _float64(values).reshape(batch * steps, values.shape[2])
        # With the inputs of all steps at once: the products with the outputs are all that waits.
        of_inputs = layer.of_inputs(flat).reshape(batch, steps, layer.rows)
        h, c = layer.begun(start)
        given, outputs = np.zeros_like(h), list[Values]()
        for step in range(steps):
            next_h, next_c = layer.stepped(of_inputs[:, step], h, c)
            if live is not None:
                # A step that does not count leaves the state as it was, as frameworks do with padding.
                counts = live[:, step, None]
                next_h, given = np.where(counts, next_h, h), np.where(counts, next_h, given)
                next_c = None if c is None or next_c is None else np.where(counts, next_c, c)
            else:
                given = next_h
            h, c = next_h, next_c
            outputs.append(given)
        return np.stack(outputs, axis=1) if outputs else np.zeros((batch, 0, h.shape[1])), Recurrence(h, c)

    def _of(self, name: str, parts: list[NDArray[np.floating]], bias: NDArray[np.floating] | None) -> Arithmetic:
        """The arithmetic of a layer, made at its first call."""
        if name not in self._by:
            rows = len(parts[0])
            # The arithmetic is that of built-in layers, so that the user's layer is shown as one of them.
            network = Network(layers=(_pretended(name, len(parts)),))
            names = [f"{name}.kernel", f"{name}.recurrent_kernel"][: len(parts)]
            given = dict(zip(names, parts, strict=True))
            given[f"{name}.bias"] = np.zeros(rows) if bias is None else bias
            self._by[name] = self._made(name, network, given)
        return self._by[name]

    @abstractmethod
    def _made(self, name: str, network: Network, weights: Mapping[str, NDArray[np.float32]]) -> Arithmetic:
        """What computes the products of one layer."""

    @abstractmethod
    def gated(self, name: str, gate: Values, sums: Values, rows: slice) -> Values:
        """The product of a gate, as its table gives it, and of the sums of some rows."""


class Measuring(_Layers):
    """No rounding at all: what ranges are measured with."""

    def exponents(self) -> dict[str, int]:
        """The steps of vectors and states, as exponents of two, from what has passed."""
        found: dict[str, int] = {}
        for by in self._by.values():
            assert isinstance(by, FloatArithmetic)
            found |= by.exponents()
        return found

    def _made(self, name: str, network: Network, weights: Mapping[str, NDArray[np.float32]]) -> Arithmetic:
        return FloatArithmetic(_OPS, network, weights, self._form)

    def gated(self, name: str, gate: Values, sums: Values, rows: slice) -> Values:
        """The product itself."""
        return gate * sums


class Fixed(_Layers):
    """The arithmetic of an engine.

    Args:
        form: widths and rules.
        exponents: of the steps of vectors and states, by name.
    """

    def __init__(self, form: NumberFormat, exponents: Mapping[str, int]) -> None:
        super().__init__(form)
        self._exponents = exponents

    @property
    def wrapped(self) -> int:
        """Sums that did not fit the accumulator."""
        return sum(by.wrapped for by in self._by.values() if isinstance(by, FixedArithmetic))

    def _made(self, name: str, network: Network, weights: Mapping[str, NDArray[np.float32]]) -> Arithmetic:
        if name not in self._exponents:
            raise SpecError(
                f"own: steps of fixed point come from validation data, and {name} runs on the test split alone; let "
                "`valid` reach every layer"
            )
        return FixedArithmetic(_OPS, network, weights, self._form, self._exponents)

    def gated(self, name: str, gate: Values, sums: Values, rows: slice) -> Values:
        """Rounded (half up) to the step of the sum; in int64, which holds what float64 might round."""
        by, bits = self._by[name], self._form.activation_bits - 1
        assert isinstance(by, FixedArithmetic)
        unit = by._products[name].unit[rows]
        # Both factors are whole numbers of their steps.
        whole = (gate * float(1 << bits)).astype(np.int64) * (sums / unit).astype(np.int64)
        return _float64(((whole + (1 << (bits - 1))) >> bits) * unit)


class _Recurrent(ABC):
    """A recurrent layer, whose two matrices lie side by side.

    Args:
        layers: whose arithmetic it is.
        name: of the layer.
        cell: its weights.
    """

    def __init__(self, layers: _Layers, name: str, cell: Cell) -> None:
        self._layers, self._name, self._cell = layers, name, cell
        kernel, recurrent, bias = self._matrices()
        self._by, self.rows = layers._of(name, [kernel, recurrent], bias), len(kernel)

    def _matrices(self) -> tuple[Given, Given, Given]:
        """Kernel, recurrent kernel and bias, one row for each sum."""
        return self._cell.kernel, self._cell.recurrent, self._cell.bias

    def of_inputs(self, values: Values) -> Values:
        """Products with the inputs of all steps."""
        return np.asarray(self._by.product(self._name, 0, self._by.vector(self._name, values)))

    @abstractmethod
    def begun(self, start: Recurrence) -> tuple[Values, Values | None]:
        """H and c as they are held at first."""

    @abstractmethod
    def stepped(self, of_inputs: Values, h: Values, c: Values | None) -> tuple[Values, Values | None]:
        """H and c after a step."""


class _Lstm(_Recurrent):
    """One step of an LSTM."""

    def begun(self, start: Recurrence) -> tuple[Values, Values | None]:
        """h, and c as it is held."""
        assert start.c is not None
        # The outputs need no rounding here: they are rounded when the next step reads them.
        return _float64(start.h), self._by.state(f"{self._name}.state", _float64(start.c))

    def stepped(self, of_inputs: Values, h: Values, c: Values | None) -> tuple[Values, Values | None]:
        """H and c after a step."""
        by, name, units = self._by, self._name, self.rows // 4
        gates = by.gates(by.total(name, of_inputs + by.product(name, 1, by.vector(name, h))), units)
        i, f, g, o = (gates[:, gate * units : (gate + 1) * units] for gate in range(4))
        c = by.state(f"{name}.state", f * c + i * g)
        h = o * by.function("tanh", c)
        if self._cell.projection is not None:
            h = self._layers.linear(f"{name}.projection", h, self._cell.projection, None)
        return h, c


class _Gru(_Recurrent):
    """One step of a GRU.

    Where r meets the product with h, that one has sums of its own: the rows are then r, z, n of x, n of h.
    """

    def _matrices(self) -> tuple[Given, Given, Given]:
        kernel, recurrent, bias = super()._matrices()
        units = len(kernel) // 3
        # Reset after the product: the gate stands between two sums, which need rows of their own.
        if self._cell.resets_after:
            of_h = np.zeros(3 * units) if self._cell.recurrent_bias is None else self._cell.recurrent_bias
            both, apart = slice(0, 2 * units), slice(2 * units, None)
            kernel = np.concatenate([kernel, np.zeros_like(kernel[apart])])
            recurrent = np.concatenate([recurrent[both], np.zeros_like(recurrent[apart]), recurrent[apart]])
            bias = np.concatenate([bias[both] + of_h[both], bias[apart], of_h[apart]])
        return kernel, recurrent, bias

    def begun(self, start: Recurrence) -> tuple[Values, Values | None]:
        """H as it is held."""
        return self._by.state(f"{self._name}.state", _float64(start.h)), None

    def stepped(self, of_inputs: Values, h: Values, c: Values | None) -> tuple[Values, Values | None]:
        """H after a step."""
        by, name, resets_after = self._by, self._name, self._cell.resets_after
        units = self.rows // (4 if resets_after else 3)
        n_rows = slice(2 * units, None)
        sums = of_inputs + by.product(name, 1, by.vector(name, h))
        if resets_after:
            sums = by.total(name, sums)
        else:
            # n waits for r: its rows are summed up a second time, with r * h in the place of h.
            first = sums.copy()
            first[:, n_rows] = 0  # what n sums up is known later
            sums = by.total(name, first)
        gates = by.function("sigmoid", sums[:, : 2 * units])
        r, z = gates[:, :units], gates[:, units:]
        if resets_after:
            held = slice(3 * units, None)
            before_n = sums[:, 2 * units : 3 * units] + self._layers.gated(name, r, sums[:, held], held)
        else:
            second = of_inputs + by.product(name, 1, by.vector(name, r * h))
            second[:, : 2 * units] = 0
            before_n = by.total(name, second)[:, n_rows]
        n = by.function("tanh", before_n)
        return by.state(f"{name}.state", (1 - z) * n + z * h), None


class _Plain(_Recurrent):
    """One step of a plain recurrent layer."""

    def begun(self, start: Recurrence) -> tuple[Values, Values | None]:
        """H."""
        return _float64(start.h), None

    def stepped(self, of_inputs: Values, h: Values, c: Values | None) -> tuple[Values, Values | None]:
        """H after a step."""
        by, name = self._by, self._name
        sums = by.total(name, of_inputs + by.product(name, 1, by.vector(name, h)))
        return (np.maximum(sums, 0.0) if self._cell.function == "relu" else by.function("tanh", sums)), None


def _float64(values: NDArray[np.floating]) -> Values:
    return np.asarray(values, dtype=np.float64)


def _matrix(by: Arithmetic, name: str) -> NDArray[np.floating]:
    """The matrix of a layer as it is multiplied with."""
    found = by._matrices[name][0] if isinstance(by, FloatArithmetic) else by._products[name].parts[0]
    return np.asarray(found)


def _pretended(name: str, parts: int) -> Dense | LSTM:
    """A layer of a network with so many matrices, for the names of its tensors."""
    if parts == 1:
        return Dense(name=name, inputs=1, units=1, input_label="")
    return LSTM(name=name, inputs=1, units=1, input_label="")


def _windows(padded: Values, window: Window) -> Values:
    """What every output position sees.

    Shapes:
        padded (items, channels, *sizes) -> (items, channels, *output sizes, *taps), a view.
    """
    axes = tuple(range(2, padded.ndim))
    reach = [(kernel - 1) * apart + 1 for kernel, apart in zip(window.kernel, window.dilation, strict=True)]
    seen = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
    every = [slice(None, None, stride) for stride in window.stride]
    taps = [slice(None, None, apart) for apart in window.dilation]
    return seen[(slice(None), slice(None), *every, *taps)]
