"""Vector-wise sparsity: every short column vector keeps equally many weights."""

from typing import ClassVar

from pydantic import Field

from harness.api import Frame, Pattern, hookimpl


class Vector(Pattern):
    """Keep equally many weights in every stretch of `length` outputs of every column.

    Unit 1 x 1, group v x 1. It is N:M sparsity along the outputs.

    Storage: values and indices of ceil(log2 v) bits. Engines: `column_fifo`, `csr_stream`.

    Source:
        Zhu et al., "Sparse Tensor Core: Algorithm and Hardware Co-Design for Vector-wise Sparse Neural Networks on
        Modern GPUs", MICRO 2019 (recalled): k of v stay in every vector.
    """

    name: ClassVar[str] = "vector"
    length: int = Field(default=4, gt=1, description="outputs of a vector, v; divides the rows")

    def frame(self, rows: int, cols: int) -> Frame:
        """Single weights, compared within their vector."""
        return Frame(group=(self.length, 1))


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return Vector
