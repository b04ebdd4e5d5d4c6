"""A network computed as an engine computes it: fixed-point vectors, exact sums, tables in place of sigmoid and tanh.

All numbers are multiples of powers of two, held as float64, in which they and their sums are exact. What an engine does
with them, and its widths:

- *Product*: every weight and every element of the vector is an integer times a step. Sums are exact, the bias among
  them (rounded to the step of the sum), and wrap around at `accumulator_bits`.
- *Vector*: what a product reads is rounded (half up) to `activation_bits` with one step and saturates.
- *Table*: sigmoid and tanh are looked up with 4,096 entries, 256 per unit from -8 to 8; they have `activation_bits`.
- *LSTM cell*: f * c + i * g is rounded once, to `activation_bits` with a step of its own, and saturates; o * tanh(c) is
  rounded where it is written to a vector.

Assumes: the widths of tables and cell states are a choice of ours; engines differ in it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.api import (
    LSTM,
    Activation,
    Conv2D,
    Dense,
    Embedding,
    Flatten,
    Layer,
    Network,
    NumberFormat,
    Operations,
    Pool2D,
)
from harness.api.operations import Tensor

from .quantise import exponent, quantised, within

_SPARE_BITS = 1
"""Bits that the largest sum of the calibration leaves free in the accumulator: other data may have larger ones."""

PER_UNIT = 256
"""Table entries between two whole numbers."""

REACH = 8
"""Tables reach from minus this to this; beyond, the functions are flat at any of our widths but the last bits of 16."""

AT_ONCE = 1 << 20
"""Logits computed at once: 8 MB. An allocator gets arrays of tens of megabytes from the system and gives them back each
time; a vocabulary's logits pass through several, whose first touch took a third of an evaluation and more."""

Weights = Mapping[str, NDArray[np.float32]]
Carried = dict[str, tuple[Tensor, Tensor]]
Function = Literal["sigmoid", "tanh"]


class FloatArithmetic:
    """No rounding at all: what ranges are measured with.

    Attributes:
        seen: largest absolute value of every vector and state, by name: of all elements, or of a percentage of them.
    """

    def __init__(
        self, ops: Operations, network: Network, weights: Weights, number_format: NumberFormat | None = None
    ) -> None:
        self.ops = ops
        self._format = number_format or NumberFormat()
        self._percentile = self._format.percentile
        self._matrices = {
            layer: [ops.matrix(weights[name], is_small=False) for name in names]
            for layer, names in matrices(network).items()
        }
        self._biases = {layer: ops.array(weights[f"{layer}.bias"]) for layer in self._matrices}
        self._steps = {
            # How large sums become is only known in steps of the weights, which are those of the quantised matrices.
            layer: ops.array(np.ldexp(1.0, _stored([weights[name] for name in names], self._format)[1]))
            for layer, names in matrices(network).items()
        }
        self._sums: dict[str, float] = {}
        self._largest: dict[str, float] = {}
        self._values: dict[str, list[NDArray[np.float64]]] = {}

    @property
    def seen(self) -> dict[str, float]:
        """The range of everything that passed."""
        return self._largest | {
            name: within(np.concatenate(parts), self._percentile) for name, parts in self._values.items()
        }

    def vector(self, name: str, values: Tensor) -> Tensor:
        """The values themselves; their range is noted."""
        # A percentile needs all values; a maximum only one number, which is the usual case.
        if self._percentile < 100:
            self._values.setdefault(name, []).append(self.ops.numpy(values).ravel())
        else:
            self._largest[name] = max(self._largest.get(name, 0.0), self.ops.largest(values))
        return values

    state = vector

    def product(self, layer: str, part: int, values: Tensor) -> Tensor:
        """The product with one of a layer's matrices."""
        return self.ops.product(values, self._matrices[layer][part])

    def total(self, layer: str, sums: Tensor) -> Tensor:
        """The sum with the bias; how large it is in steps of its row's weights is noted."""
        found = sums + self._biases[layer]
        largest = self.ops.largest(found / self._steps[layer])
        self._sums[layer] = max(self._sums.get(layer, 0.0), largest)
        return found

    def exponents(self) -> dict[str, int]:
        """The steps of vectors and states, as exponents of two, from what has passed.

        Where the largest sum would leave less than a bit of its accumulator free, the layer's vector gets a coarser
        step than its range asks for.
        """
        found = step_exponents(self.seen, self._format.activation_bits)
        room = math.ldexp(1.0, self._format.accumulator_bits - 1 - _SPARE_BITS)
        for layer, largest in self._sums.items():
            in_units = largest / 2.0 ** found[layer]
            # A vector's step is made coarser until its layer's largest sum fits the accumulator: overflow costs more
            # than rounding.
            found[layer] += max(0, math.ceil(math.log2(in_units / room))) if in_units else 0
        return found

    def function(self, name: Function, values: Tensor) -> Tensor:
        """Sigmoid or tanh, on the host: only ranges depend on it."""
        host = self.ops.numpy(values)
        return self.ops.array(np.tanh(host) if name == "tanh" else 0.5 * (1 + np.tanh(host / 2)))

    def gates(self, values: Tensor, units: int) -> Tensor:
        """Sigmoid of i, f and o, tanh of g."""
        host = self.ops.numpy(values)
        found = 0.5 * (1 + np.tanh(host / 2))
        found[:, 2 * units : 3 * units] = np.tanh(host[:, 2 * units : 3 * units])
        return self.ops.array(found)


@dataclass(frozen=True)
class _Product:
    """A layer's matrices as they are stored, with their common units row by row."""

    parts: tuple[Tensor, ...]
    bias: Tensor
    wrap: Tensor | None
    unit: Tensor


class FixedArithmetic:
    """The arithmetic of an engine.

    Args:
        ops: arrays.
        network, weights: the model.
        number_format: widths and rules.
        exponents: of the steps of vectors and states, by name.

    Attributes:
        wrapped: sums that did not fit the accumulator.
    """

    def __init__(
        self,
        ops: Operations,
        network: Network,
        weights: Weights,
        number_format: NumberFormat,
        exponents: Mapping[str, int],
    ) -> None:
        self.ops, self.wrapped = ops, 0
        self._format, self._exponents = number_format, exponents
        self._products = {
            layer: self._product(layer, [weights[name] for name in names], weights[f"{layer}.bias"])
            for layer, names in matrices(network).items()
        }
        entries = {name: table(name, number_format.activation_bits) for name in ("sigmoid", "tanh")}
        self._tables = {name: ops.array(each) for name, each in entries.items()}
        self._both = ops.array(np.concatenate([entries["sigmoid"], entries["tanh"]]))
        self._firsts: dict[int, Tensor] = {}

    def _product(self, layer: str, parts: list[NDArray[np.float32]], bias: NDArray[np.float32]) -> _Product:
        """Matrices of a layer side by side share their steps, since their sums meet in one accumulator."""
        bits = self._format
        integers, exponents = _stored(parts, bits)
        units = np.ldexp(1.0, exponents + self._exponents[layer])  # (rows,) of a sum
        biases = np.floor(np.asarray(bias, dtype=np.float64) / units + 0.5)
        # No input is larger than the saturated one: a bound on every sum, whatever the data.
        most = np.abs(integers).sum(axis=1) * (1 << (bits.activation_bits - 1))
        cuts = np.cumsum([part.shape[1] for part in parts])[:-1]
        # Values, not integers, so that one product serves rows of different steps.
        stored = integers * np.ldexp(1.0, exponents)[:, None]
        # Rows of different steps have different units: float32 holds all of them, its exponent reaches far enough.
        is_small = bool(most.max(initial=0.0) < 1 << 24)
        limit = float(1 << (bits.accumulator_bits - 1))
        may_wrap = bool((most + np.abs(biases)).max(initial=0.0) >= limit)
        return _Product(
            parts=tuple(self.ops.matrix(part, is_small=is_small) for part in np.split(stored, cuts, axis=1)),
            bias=self.ops.array(biases * units),
            # A sum that cannot reach the limit needs no check at all, and most cannot.
            wrap=self.ops.array(units * 2 * limit) if may_wrap else None,
            unit=self.ops.array(units),
        )

    def vector(self, name: str, values: Tensor) -> Tensor:
        """Rounded to the step of a vector or state, saturated."""
        top = 1 << (self._format.activation_bits - 1)
        step = 2.0 ** self._exponents[name]
        # Multiplied by the inverse, which is exact for a power of two and faster than dividing.
        return self.ops.clip(self.ops.floor(values * (1 / step) + 0.5), -top, top - 1) * step

    state = vector

    def product(self, layer: str, part: int, values: Tensor) -> Tensor:
        """Exact products with one of a layer's matrices."""
        return self.ops.product(values, self._products[layer].parts[part])

    def total(self, layer: str, sums: Tensor) -> Tensor:
        """The sum with the bias, as the accumulator holds it."""
        product = self._products[layer]
        exact = sums + product.bias
        if product.wrap is None:
            return exact
        largest = self.ops.largest(exact / product.unit)
        if largest < 1 << (self._format.accumulator_bits - 1):  # one pass tells that the five below change nothing
            return exact
        # Two's complement: what is beyond the limit comes back at the other end.
        held = exact - product.wrap * self.ops.floor(exact / product.wrap + 0.5)
        self.wrapped += self.ops.differing(held, exact)
        return held

    def function(self, name: Function, values: Tensor) -> Tensor:
        """Sigmoid or tanh by its table."""
        half = PER_UNIT * REACH
        # The last of a power of two entries lies one step below REACH.
        places = self.ops.clip(self.ops.floor(values * float(PER_UNIT) + 0.5), -half, half - 1)
        return self.ops.rows(self._tables[name], places + float(half))

    def gates(self, values: Tensor, units: int) -> Tensor:
        """Sigmoid of i, f and o, tanh of g: both tables are one behind the other, so that one look-up serves all."""
        half = PER_UNIT * REACH
        if units not in self._firsts:
            first = np.full(4 * units, float(half))
            first[2 * units : 3 * units] += 2 * half
            self._firsts[units] = self.ops.array(first)
        places = self.ops.clip(self.ops.floor(values * float(PER_UNIT) + 0.5), -half, half - 1)
        return self.ops.rows(self._both, places + self._firsts[units])


def _stored(
    parts: list[NDArray[np.float32]], number_format: NumberFormat
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Integers of a layer's matrices side by side, and the exponent of every row's step."""
    whole = np.concatenate([np.asarray(part, dtype=np.float64) for part in parts], axis=1)
    return quantised(whole, number_format)


Arithmetic = FloatArithmetic | FixedArithmetic


def matrices(network: Network) -> dict[str, list[str]]:
    """The matrices that every layer multiplies with, by layer name; an embedding is looked up."""
    return {
        layer.name: [tensor.name for tensor in layer.tensors() if tensor.is_prunable]
        for layer in network.layers
        if isinstance(layer, LSTM | Dense | Conv2D)
    }


def table(name: Function, bits: int) -> NDArray[np.float64]:
    """The entries of an activation table: the function in the middle of what it stands for, saturated below 1."""
    places = np.arange(-PER_UNIT * REACH, PER_UNIT * REACH) / PER_UNIT
    exact = np.tanh(places) if name == "tanh" else 1 / (1 + np.exp(-places))
    # One is not a number of this format: sigmoid and tanh saturate one step below it.
    scale = float(1 << (bits - 1))
    return np.clip(np.floor(exact * scale + 0.5), -scale, scale - 1) / scale


@dataclass
class Pass:
    """A network on its way through batches: h and c of its recurrent layers, zero at first."""

    network: Network
    tables: Mapping[str, Tensor]
    carried: Carried = field(default_factory=dict)

    def logits(self, inputs: NDArray[np.generic], arithmetic: Arithmetic) -> Tensor:
        """The logits of a batch, item by item.

        Shapes:
            inputs (batch, ...) -> (items, classes).
        """
        x, shape = self._through(self.network.layers, inputs, arithmetic)
        return arithmetic.ops.reshape(x, (int(np.prod(shape[:-1])), shape[-1]))

    def pieces(self, inputs: NDArray[np.generic], arithmetic: Arithmetic, at_once: int = AT_ONCE) -> Iterator[Tensor]:
        """The logits of a batch, a few items after the others: equal to those of `logits`, row by row.

        Args:
            inputs: as for `logits`.
            arithmetic: by which.
            at_once: numbers in a piece, or one item where that is more.

        Shapes:
            inputs (batch, ...) -> (some items, classes) each.
        """
        *before, last = self.network.layers
        if not isinstance(last, Dense):
            yield self.logits(inputs, arithmetic)
            return
        x, shape = self._through(before, inputs, arithmetic)
        items, step = int(np.prod(shape[:-1])), max(1, at_once // last.units)
        flat = arithmetic.ops.reshape(x, (items, shape[-1]))
        for start in range(0, items, step):
            some = flat[start : start + step]
            yield self._layer(last, some, (min(step, items - start), shape[-1]), arithmetic)[0]

    def _through(
        self, layers: Iterable[Layer], inputs: NDArray[np.generic], by: Arithmetic
    ) -> tuple[Tensor, tuple[int, ...]]:
        x, shape = by.ops.array(inputs), tuple(inputs.shape)
        for layer in layers:
            x, shape = self._layer(layer, x, shape, by)
        return x, shape

    def _layer(self, layer: Layer, x: Tensor, shape: tuple[int, ...], by: Arithmetic) -> tuple[Tensor, tuple[int, ...]]:
        found = x, shape  # dropout does nothing while evaluating
        match layer:
            case Embedding():
                found = by.ops.rows(self.tables[layer.name], x), (*shape, layer.features)
            case LSTM():
                found = self._lstm(layer, x, shape, by), (*shape[:2], layer.units)
            case Dense():
                found = _dense(layer, x, shape, by)
            case Conv2D():
                found = _convolution(layer, x, shape, by)
            case Pool2D():
                found = _pool(layer, x, shape, by.ops)
            case Flatten():
                flattened = (shape[0], int(np.prod(shape[1:])))
                found = by.ops.reshape(x, flattened), flattened
            case Activation(function="relu"):
                found = by.ops.larger(x, x * 0.0), shape
            case Activation(function="sigmoid" | "tanh" as function):
                found = by.function(function, x), shape
        return found

    def _lstm(self, layer: LSTM, x: Tensor, shape: tuple[int, ...], by: Arithmetic) -> Tensor:
        ops, name, units = by.ops, layer.name, layer.units
        batch, steps = shape[:2]
        zero = ops.array(np.zeros((batch, units)))
        h, c = self.carried.get(name, (zero, zero))
        flat = ops.reshape(by.vector(name, x), (batch * steps, layer.inputs))
        of_inputs = ops.reshape(by.product(name, 0, flat), (batch, steps, 4 * units))
        outputs = []
        # By step, since the accumulator adds the products of both matrices before anything is rounded.
        for step in range(steps):
            sums = by.total(name, of_inputs[:, step] + by.product(name, 1, by.vector(name, h)))
            gates = by.gates(sums, units)
            i, f, g, o = (gates[:, gate * units : (gate + 1) * units] for gate in range(4))
            c = by.state(f"{name}.state", f * c + i * g)
            h = o * by.function("tanh", c)
            outputs.append(ops.reshape(h, (batch, 1, units)))
        self.carried[name] = (h, c)
        return ops.join(outputs, 1)


def _dense(layer: Dense, x: Tensor, shape: tuple[int, ...], by: Arithmetic) -> tuple[Tensor, tuple[int, ...]]:
    flat = by.ops.reshape(by.vector(layer.name, x), (int(np.prod(shape[:-1])), shape[-1]))
    out = by.total(layer.name, by.product(layer.name, 0, flat))
    found = (*shape[:-1], layer.units)
    return by.ops.reshape(out, found), found


def _convolution(layer: Conv2D, x: Tensor, shape: tuple[int, ...], by: Arithmetic) -> tuple[Tensor, tuple[int, ...]]:
    """One product per output position; columns are (input channel, tap row, tap column)."""
    ops, (items, channels, height, width) = by.ops, shape
    x = by.vector(layer.name, x)
    if layer.padding:
        edge = layer.padding
        rows = ops.array(np.zeros((items, channels, edge, width)))
        x = ops.join([rows, x, rows], 2)
        cols = ops.array(np.zeros((items, channels, height + 2 * edge, edge)))
        x = ops.join([cols, x, cols], 3)
    stride, (kernel_rows, kernel_cols) = layer.stride, layer.kernel
    high = (height + 2 * layer.padding - kernel_rows) // stride + 1
    wide = (width + 2 * layer.padding - kernel_cols) // stride + 1
    # A last position starts at stride * (high - 1): one past it ends the slice, whatever the image has beyond.
    down, right = stride * (high - 1) + 1, stride * (wide - 1) + 1
    taps = [
        ops.reshape(x[:, :, row : row + down : stride, col : col + right : stride], (items, channels, 1, high * wide))
        for row in range(kernel_rows)
        for col in range(kernel_cols)
    ]
    patches = ops.transpose(ops.join(taps, 2), (0, 3, 1, 2))  # (items, positions, channels, taps)
    flat = ops.reshape(patches, (items * high * wide, channels * len(taps)))
    out = by.total(layer.name, by.product(layer.name, 0, flat))
    out = ops.transpose(ops.reshape(out, (items, high * wide, layer.outputs)), (0, 2, 1))
    found = (items, layer.outputs, high, wide)
    return ops.reshape(out, found), found


def _pool(layer: Pool2D, x: Tensor, shape: tuple[int, ...], ops: Operations) -> tuple[Tensor, tuple[int, ...]]:
    size = layer.size
    high, wide = shape[2] // size, shape[3] // size
    windows = [
        x[:, :, row : high * size : size, col : wide * size : size] for row in range(size) for col in range(size)
    ]
    pooled = windows[0]
    for window in windows[1:]:
        pooled = ops.larger(pooled, window) if layer.kind == "max" else pooled + window
    return (pooled if layer.kind == "max" else pooled / float(size * size)), (*shape[:2], high, wide)


def step_exponents(seen: Mapping[str, float], bits: int) -> dict[str, int]:
    """The exponents of vectors and states from their ranges."""
    return {name: exponent(largest, bits) for name, largest in seen.items()}
