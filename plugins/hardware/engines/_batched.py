"""Batches on arrays with weights on chip: several inputs share the multipliers, word by word or product by product.

With n inputs and T issue cycles of one of them,

    shared    every stored word is read once and taken n times, once for each input: n T cycles, and what fills, drains
              and follows (L cycles) once a round; all inputs are there, and all outputs leave, at the end of a round
    in_turn   the whole product runs for one input after another: n T cycles, and of L only what the other inputs do not
              hide; weights are read n times, from off-chip memory too where they find no room

so that a round of n inputs takes n T + L or max(n T, T + L) cycles. A step of a recurrent layer needs its own last
output: the inputs of a batch belong to n independent sequences.
"""

from dataclasses import replace
from fractions import Fraction
from typing import Self

from pydantic import Field, model_validator

from harness.api import Conditions, Engine, Product, Ram, Run, Sharing

_SHARED, _IN_TURN = "shared", "in_turn"


class Batched(Engine):
    """An engine whose array serves a batch of independent inputs."""

    batch: int = Field(default=1, gt=0, le=4096, description="independent inputs that take turns at the multipliers")
    batch_order: Sharing = Field(
        default="shared",
        description="whether a batch shares every word of weights that is read, or takes turns product by product",
    )

    @model_validator(mode="after")
    def _has_an_order(self) -> Self:
        if self.batch_order == "side_by_side":
            raise ValueError(
                f"inputs of a batch share the multipliers of {self.name}: set `batch_order` to shared or in_turn"
            )
        return self

    @property
    def streams(self) -> int:
        """The batch."""
        return self.batch

    @property
    def sharing(self) -> Sharing:
        """As asked for."""
        return self.batch_order

    def _unbatched(self, product: Product) -> str | None:
        """Why a batch of a product has no model; None if it has."""
        if self.batch == 1 or product.convolution is None:
            return None
        return (
            f"a convolution shares its weights among output positions already, and {product.layer} is one; leave "
            "`batch` at 1"
        )

    def _for_all(self, run: Run, product: Product, pes: int, conditions: Conditions) -> Run:
        """The run of one input as that of the whole batch."""
        if self.batch == 1:
            return run
        # A vector of every input; of the words of the weights there is one for all.
        rams = [replace(ram, depth=ram.depth * self.batch) if ram.purpose == "vector" else ram for ram in run.rams]
        if self.batch_order == _SHARED:
            # A sum for every input is under way in a PE; with one input it is a register.
            rams.append(Ram("accumulators", conditions.accumulator_bits, self.batch, pes, small=True))
        is_shared = self.batch_order == _SHARED
        return replace(
            run,
            parts={name: part if name == "fill_drain" else part * self.batch for name, part in run.parts.items()},
            rams=tuple(rams),
            # Last rows of all inputs leave together, or those of one.
            last=run.last * self.batch if is_shared else run.last,
            busy=None if run.busy is None else run.busy * self.batch,
            fetches=None if is_shared else Fraction(self.batch),
            weight_reads=None if is_shared else Fraction(self.batch * product.pixels),
        )
