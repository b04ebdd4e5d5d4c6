"""In which numbers a piece of hardware computes a model."""

from typing import Literal

from pydantic import Field, model_validator

from harness.api.component import Frozen


class NumberFormat(Frozen):
    """Fixed point: integers that stand for multiples of a power of two.

    Everything is a two's complement integer times a step; steps are powers of two, so that rescaling is a shift.
    Weights of one product (the matrices of a layer side by side, `[W_x | W_h]` of an LSTM layer) share a step, or those
    of a row do; its vector has one step. Sums are exact until the accumulator wraps around.

    Args:
        weight_bits: of a weight; of the values of a codebook.
        activation_bits: of a vector element, of a gate and of a cell state.
        accumulator_bits: of a sum of products; it wraps around, as adders do, so that the order of adding does not
            matter.
        scaling: whether a step is that of a product or of each of its rows.
        percentile: share of the absolute values, in percent, that must lie inside the range; what lies outside is
            clipped. 100 takes the largest.
        codebook: number of shared values that weights are rounded to (EIE has 16); None: every weight is its own value.

    Example:
        >>> NumberFormat(weight_bits=4, activation_bits=8).label()
        'w4 a8'
        >>> NumberFormat(codebook=16).stored_bits
        4
    """

    weight_bits: int = Field(default=16, ge=2, le=16)
    activation_bits: int = Field(default=16, ge=2, le=16)
    accumulator_bits: int = Field(default=32, ge=8, le=64)
    scaling: Literal["tensor", "row"] = "tensor"
    percentile: float = Field(default=100.0, gt=50, le=100)
    codebook: int | None = Field(default=None, ge=2, le=256)

    @model_validator(mode="after")
    def _codebook_has_room(self) -> "NumberFormat":
        # Integers are symmetric around zero: so many bits tell one value fewer apart.
        if self.codebook is not None and self.codebook >= 1 << self.weight_bits:
            raise ValueError(
                f"a codebook must have fewer values than `weight_bits` can tell apart, got {self.codebook} values of "
                f"{self.weight_bits} bits; make one of them smaller"
            )
        return self

    @property
    def stored_bits(self) -> int:
        """Bits that are stored for a weight."""
        return self.weight_bits if self.codebook is None else (self.codebook - 1).bit_length()

    def label(self) -> str:
        """A short name: what differs from 32-bit accumulators, one step per product and the largest value inside."""
        weights = f"w{self.weight_bits}" if self.codebook is None else f"w{self.weight_bits}/{self.codebook} values"
        parts = [weights, f"a{self.activation_bits}"]
        parts += [f"acc{self.accumulator_bits}"] if self.accumulator_bits != 32 else []
        parts += ["per row"] if self.scaling == "row" else []
        parts += [f"{self.percentile:g} %"] if self.percentile < 100 else []
        return " ".join(parts)
