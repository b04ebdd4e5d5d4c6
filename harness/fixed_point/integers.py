"""One layer of a network as the integers that an engine computes with, and what its sums become."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.api import LSTM, Activation, CellOperands, Conv2D, Dense, Dropout, Flatten, Network, NumberFormat, Pool2D
from harness.api.operations import Tensor

from .network import PER_UNIT, REACH, FixedArithmetic, Weights, matrices, table
from .quantise import quantised

Integers = NDArray[np.int64]

PLACE_BITS = (2 * PER_UNIT * REACH - 1).bit_length()
"""Bits of a place in the table of sigmoid or tanh."""


@dataclass(frozen=True, eq=False)
class LayerIntegers:
    """What an engine holds of a layer.

    Args:
        weights: of its matrices side by side, as multiples of their rows' steps.
        bias: as multiples of the units of the rows' sums.
        units: exponents of the units of the rows' sums.

    Shapes:
        weights (rows, cols), bias (rows,), units (rows,).
    """

    weights: Integers
    bias: Integers
    units: Integers


def layer_integers(
    network: Network, weights: Weights, layer: str, number_format: NumberFormat, exponents: Mapping[str, int]
) -> LayerIntegers:
    """The integers of a layer, as `FixedArithmetic` takes them.

    Args:
        network: the model.
        weights: of every tensor.
        layer: its name.
        number_format: widths and rules.
        exponents: of the steps of vectors, by name of the layer that reads them.
    """
    names = matrices(network)[layer]
    whole = np.concatenate([np.asarray(weights[name], dtype=np.float64) for name in names], axis=1)
    integers, rows = quantised(whole, number_format)
    units = rows + exponents[layer]
    # Rounded half up, as the engine's bias is, in units of the sums that it is added to.
    bias = np.floor(np.asarray(weights[f"{layer}.bias"], dtype=np.float64) / np.ldexp(1.0, units) + 0.5)
    return LayerIntegers(integers.astype(np.int64), bias.astype(np.int64), units)


def cell_operands(units: int, number_format: NumberFormat, vector_exponent: int, state_exponent: int) -> CellOperands:
    """The element-wise part of an LSTM layer with the tables of `FixedArithmetic`.

    Args:
        units: of the layer.
        number_format: whose activations have the width of tables and states.
        vector_exponent: of the step of x and h.
        state_exponent: of the step of c.
    """
    scale = float(1 << (number_format.activation_bits - 1))
    sigmoid, tanh = (
        (table(name, number_format.activation_bits) * scale).astype(np.int64) for name in ("sigmoid", "tanh")
    )
    return CellOperands(units, vector_exponent, state_exponent, sigmoid, tanh, PER_UNIT)


@dataclass(frozen=True)
class Requantised:
    """What the sums of a layer become: multiples of 2^exponent with so many bits, or the sums themselves.

    Args:
        exponent: None where nothing rounds the sums.
        bits: of a result; None: those of the sum.
        what: the same in words.
    """

    exponent: int | None
    bits: int | None
    what: str


def requantised_as(
    network: Network, layer: str, number_format: NumberFormat, exponents: Mapping[str, int]
) -> Requantised:
    """What reads the sums of a layer: the tables of an LSTM's gates or of an activation, or the next layer's vector.

    Layers in between that only choose among values (dropout, flattening, maxima, ReLU) do not matter to rounding.
    """
    place = next(i for i, each in enumerate(network.layers) if getattr(each, "name", None) == layer)
    table = Requantised(
        -(PER_UNIT.bit_length() - 1), PLACE_BITS, f"places in the tables of sigmoid and tanh, {PER_UNIT} per unit"
    )
    if isinstance(network.layers[place], LSTM):
        return table
    # Layers that only pass values on, or choose among them, leave the step as it is.
    for follower in network.layers[place + 1 :]:
        match follower:
            case Dropout() | Flatten() | Activation(function="relu") | Pool2D(kind="max"):
                continue
            case Activation():
                return table
            case LSTM() | Dense() | Conv2D():
                name = follower.name
                return Requantised(exponents[name], number_format.activation_bits, f"what {name} reads")
            case _:
                break
    return Requantised(None, None, "the sums themselves, in units of their rows")


class Tapped(FixedArithmetic):
    """The same arithmetic, which keeps what one layer was multiplied with and what its sums were.

    Attributes:
        parts: by matrix of the layer, what was multiplied with it, in the order in which it was.
        totals: the sums with their bias.
    """

    layer = ""
    parts: dict[int, list[NDArray[np.float64]]]
    totals: list[NDArray[np.float64]]

    def watch(self, layer: str) -> None:
        """Begin to keep what passes a layer."""
        self.layer, self.parts, self.totals = layer, {}, []

    def product(self, layer: str, part: int, values: Tensor) -> Tensor:
        """Exact products with one of a layer's matrices."""
        if layer == self.layer:
            self.parts.setdefault(part, []).append(self.ops.numpy(values))
        return super().product(layer, part, values)

    def total(self, layer: str, sums: Tensor) -> Tensor:
        """The sum with the bias, as the accumulator holds it."""
        found = super().total(layer, sums)
        if layer == self.layer:
            self.totals.append(self.ops.numpy(found))
        return found


def tapped(arithmetic: Tapped, most: int, exponent: int) -> tuple[Integers, NDArray[np.float64]]:
    """What the layer was multiplied with, as integers of its vector's step, and the sums.

    Args:
        arithmetic: after one batch has passed.
        most: rows at most: items, or steps of the first item of a recurrent layer.
        exponent: of the step of the layer's vector.

    Shapes:
        -> (rows, cols), (rows, sums).
    """
    totals = arithmetic.totals
    if len(arithmetic.parts) == 1:
        vectors, sums = arithmetic.parts[0][0][:most], totals[0][:most]
    else:
        # A recurrent layer: all inputs of a batch pass at once, (batch * steps, inputs), the outputs step by step.
        taken = min(most, len(totals))
        of_inputs, of_outputs = arithmetic.parts[0][0], arithmetic.parts[1]
        vectors = np.stack([np.concatenate([of_inputs[step], of_outputs[step][0]]) for step in range(taken)])
        sums = np.stack([totals[step][0] for step in range(taken)])
    return np.ldexp(vectors, -exponent).astype(np.int64), sums
