"""The circuit of a constant matrix as alkaid finds it, a solver made for them, in the place of our own search.

Alkaid (calad0i/alkaid, LGPL-3.0-or-later) is no dependency: it is used where a user has installed it.
"""

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from harness.api import SpecError

from .circuit import Circuit
from .digits import Integers, signed_digits

_TRIED = 4
"""Vectors that a found circuit is tried with."""


def why_missing() -> str | None:
    """Why the solver cannot be asked; None if it can."""
    if find_spec("alkaid") is None:
        return "`solver: alkaid` needs alkaid, which is not installed here; run `pip install alkaid`, or leave it out"
    return None


def solver_label() -> str:
    """Name and version of what is installed."""
    try:
        return f"alkaid {version('alkaid')}"
    except PackageNotFoundError:  # a folder on the path
        return "alkaid"


def solved(weights: Integers, input_bits: int) -> Circuit:
    """The circuit that alkaid's default search finds, in our terms: adders of two values each, counted as ours are.

    Args:
        weights: integers.
        input_bits: of every element of the vector, signed.

    Shapes:
        weights (rows, cols).

    Raises:
        SpecError: the circuit computes something else.
    """
    from alkaid.cmvm import cmvm_solve

    rows, cols = weights.shape
    low, high = -float(1 << (input_bits - 1)), float((1 << (input_bits - 1)) - 1)
    # In the order of its memory: alkaid reads what a transposed view stands for row by row.
    kernel = np.ascontiguousarray(weights.T, dtype=np.float32)
    stages = cmvm_solve(kernel, qintervals=[(low, high, 1.0)] * cols)
    builder = _Builder(cols, int(low), int(high))
    values: list[_Value | None] = [_Value(place) for place in range(cols)]
    for stage in stages:
        values = builder.stage(stage, values)
    found = builder.result(values, len(signed_digits(weights.ravel())[0]))
    vectors = np.random.default_rng(0).integers(int(low), int(high) + 1, size=(cols, _TRIED))
    # What a library finds is believed as far as it computes the product.
    if not np.array_equal(found.evaluate(vectors), weights @ vectors):
        raise SpecError(f"{solver_label()} found a circuit for {rows} x {cols} weights that computes other sums")
    return found


@dataclass(frozen=True)
class _Value:
    """A number of the circuit times sign * 2^power."""

    number: int
    power: int = 0
    sign: int = 1

    def times(self, power: int, sign: int) -> "_Value":
        """The same, shifted and perhaps negated."""
        return _Value(self.number, self.power + power, self.sign * sign)


@dataclass
class _Builder:
    """Adders so far, of inputs that lie between two numbers."""

    inputs: int
    least: int
    most: int
    adders: list[tuple[int, int, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.low, self.high = [self.least] * self.inputs, [self.most] * self.inputs
        self.depth = [0] * self.inputs

    def stage(self, stage: Any, given: list["_Value | None"]) -> list["_Value | None"]:
        """The outputs of one stage of a solution, whose inputs these are; None stands for zero."""
        buffer: list[_Value | None] = []
        for step in stage.ops:
            match step.opcode:
                case -1:
                    taken = given[step.data[0]]
                    buffer.append(taken and taken.times(int(stage.inp_shifts[step.data[0]]), 1))
                case -2:
                    taken = buffer[step.addr[0]]
                    buffer.append(taken and taken.times(0, -1))
                case 0 | 1:
                    other = buffer[step.addr[1]]
                    shifted = other and other.times(int(step.data[0]), -1 if step.opcode else 1)
                    buffer.append(self._added(buffer[step.addr[0]], shifted))
                case _:
                    raise SpecError(f"{solver_label()} gave operation {step.opcode}, which is no shift and no sum")
        outputs = zip(stage.out_idxs, stage.out_shifts, stage.out_negs, strict=True)
        found = ((None if place < 0 else buffer[place], shift, negated) for place, shift, negated in outputs)
        return [value and value.times(int(shift), -1 if negated else 1) for value, shift, negated in found]

    def _added(self, one: "_Value | None", other: "_Value | None") -> "_Value | None":
        if one is None or other is None:
            return one or other
        # The negative one to the right; of two of them the sum is negative.
        left, right = (other, one) if one.sign < 0 < other.sign else (one, other)
        sign, power = left.sign * right.sign, min(left.power, right.power)
        self.adders.append((left.number, right.number, left.power - power, right.power - power, sign))
        ends = self.low[right.number] << right.power - power, self.high[right.number] << right.power - power
        lowest, highest = ends if sign > 0 else (-ends[1], -ends[0])
        self.low.append((self.low[left.number] << left.power - power) + lowest)
        self.high.append((self.high[left.number] << left.power - power) + highest)
        self.depth.append(max(self.depth[left.number], self.depth[right.number]) + 1)
        return _Value(len(self.depth) - 1, power, left.sign)

    def result(self, outputs: list["_Value | None"], digits: int) -> Circuit:
        """The circuit of these outputs."""

        def column(values: list[int]) -> Integers:
            return np.array(values, dtype=np.int64)

        table = np.array(self.adders, dtype=np.int64).reshape(-1, 5)
        left, right, left_shift, right_shift, sign = table.T
        kept = [_Value(-1) if value is None else value for value in outputs]
        return Circuit(
            self.inputs, left, right, left_shift, right_shift, sign, column(self.low), column(self.high),
            column(self.depth), column([value.number for value in kept]), column([value.power for value in kept]),
            column([value.sign for value in kept]), shared=0, digits=digits,
        )  # fmt: skip
