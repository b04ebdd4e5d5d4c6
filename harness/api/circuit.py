"""The integers of one layer for a circuit, and what the circuit's bench found."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.api.number_format import NumberFormat

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Operands:
    """The integers of one matrix-vector product, and how its sums become what the next layer reads.

    Rows are those of the layer's tensors, LSTM gates in the order i, f, g, o; matrices lie side by side. What an engine
    computes of a vector x is `saturate((wrap(W x + bias)) * 2^-shift)`, rounded half up.

    Args:
        layer: the layer's name.
        weights: multiples of the rows' steps; pruned ones are zero, kept ones may be.
        bias: multiples of the units of the rows' sums.
        shifts: bits that a row's sums lose; a negative one adds bits.
        output_bits: of what leaves.
        vectors: what the product is multiplied with, one behind the other.
        number_format: widths of weights, vectors and sums.
        origin: where weights and vectors come from, as sentences.
        cell: the element-wise part of an LSTM layer, where the whole layer is meant: then only the inputs among the
            elements of `vectors` count, one step behind the other, and h and c begin at zero.

    Shapes:
        weights (rows, cols), bias (rows,), shifts (rows,), vectors (items, cols).
    """

    layer: str
    weights: Integers
    bias: Integers
    shifts: Integers
    output_bits: int
    vectors: Integers
    number_format: NumberFormat
    origin: tuple[str, ...] = ()
    cell: "CellOperands | None" = None

    @property
    def sums(self) -> Integers:
        """What the accumulators hold at last: exact sums with their bias, wrapped around.

        Shapes:
            (items, rows).
        """
        exact = self.vectors @ self.weights.T + self.bias
        bits = self.number_format.accumulator_bits
        if bits >= 64:
            return exact  # int64 wraps around by itself
        half = 1 << (bits - 1)
        return ((exact + half) & ((1 << bits) - 1)) - half

    @property
    def outputs(self) -> Integers:
        """What leaves the circuit.

        Shapes:
            (items, rows).
        """
        return requantised(self.sums, self.shifts, self.output_bits)


@dataclass(frozen=True, eq=False)
class CellOperands:
    """The element-wise part of an LSTM layer.

    Args:
        units: of the layer; the other columns of its matrices are those of its inputs.
        vector_exponent: of the step of x and h.
        state_exponent: of the step of c.
        sigmoid, tanh: entries of the tables, as multiples of 2^-(activation bits - 1), that of place -2^11 first.
        per_unit: entries between two whole numbers.
    """

    units: int
    vector_exponent: int
    state_exponent: int
    sigmoid: Integers
    tanh: Integers
    per_unit: int


def lstm_outputs(operands: Operands) -> Integers:
    """What an LSTM layer gives step by step: o * tanh(c), exactly, as multiples of 2^-(2 * activation bits - 2).

    Shapes:
        (steps, units).
    """
    cell, bits = operands.cell, operands.number_format.activation_bits
    assert cell is not None
    units, fraction = cell.units, bits - 1
    h, c = np.zeros((2, units), dtype=np.int64)
    # f * c and i * g meet at the finer of their two units.
    fine = min(cell.state_exponent - fraction, -2 * fraction)
    up_c, up_g = cell.state_exponent - fraction - fine, -2 * fraction - fine
    per_unit = cell.per_unit.bit_length() - 1
    half = len(cell.tanh) // 2
    found = []
    for vector in operands.vectors:
        seen = np.concatenate([vector[: vector.size - units], h])
        places = replace(operands, vectors=seen[None], cell=None).outputs[0].reshape(4, units) + half
        i, f, o = (cell.sigmoid[places[gate]] for gate in (0, 1, 3))
        total = ((f * c) << up_c) + ((i * cell.tanh[places[2]]) << up_g)
        c = _scaled(total, cell.state_exponent - fine, bits)
        exact = o * cell.tanh[_scaled(c, -(per_unit + cell.state_exponent), operands.output_bits) + half]
        h = _scaled(exact, cell.vector_exponent + 2 * fraction, bits)
        found.append(exact)
    return np.array(found)


def _scaled(values: Integers, shift: int, bits: int) -> Integers:
    return requantised(values, np.full(values.shape, shift), bits)


def requantised(sums: Integers, shifts: Integers, bits: int) -> Integers:
    """Integers divided by powers of two, rounded half up and saturated.

    Args:
        sums: what is divided.
        shifts: the exponents; negative ones multiply.
        bits: width of the result.

    Shapes:
        sums (items, rows), shifts (rows,) -> (items, rows).

    Example:
        >>> requantised(np.array([[5, -5, 3]]), np.array([1, 1, -6]), 8)
        array([[  3,  -2, 127]])
    """
    top = (1 << (bits - 1)) - 1
    # Beyond 2^bits every left shift saturates: nothing need move further, and int64 holds it.
    reach = min(bits, 31)
    right, left = np.clip(shifts, 0, 63), np.clip(-shifts, 0, reach)
    # The bit below the last one that stays rounds half up, and no sum with a half can overflow.
    rounded = (sums >> right) + np.where(right > 0, (sums >> np.maximum(right - 1, 0)) & 1, 0)
    moved = np.where(left > 0, np.clip(rounded, -(1 << reach), 1 << reach) << left, rounded)
    return np.clip(moved, -top - 1, top)


@dataclass(frozen=True)
class BenchRun:
    """What the bench of a circuit found.

    Args:
        simulator: what ran it, with its version.
        products: matrix-vector products that were run.
        values: results that were compared.
        wrong: results that differ, are missing or too many.
        cycles: of the last product.
        expected: cycles that every product should take.
        off: products that took another number of cycles.
        wanted: products that should have been run.
    """

    simulator: str
    products: int
    values: int
    wrong: int
    cycles: int
    expected: int
    off: int
    wanted: int

    @property
    def holds(self) -> bool:
        """Whether every product ran, every result is right and every product took the cycles it should."""
        return self.wrong == 0 and self.off == 0 and self.products == self.wanted and self.values > 0
