"""The integers of one layer for a circuit, and what the circuit's bench found."""

from dataclasses import dataclass

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
