"""Two-dimensional balance: every rectangle keeps equally many weights."""

from typing import ClassVar

from pydantic import Field

from harness.api import Frame, Pattern, hookimpl


class Balanced2D(Pattern):
    """Keep equally many weights in every rectangle of `height` x `width`.

    Unit 1 x 1, group gh x gw. A rectangle of one row is a bank; one of the whole matrix is unstructured sparsity.

    Storage: values and indices of ceil(log2 (gh gw)) bits. Engines: `bank` where gh = 1; `csr_stream`, `column_fifo`.

    Source:
        Neural Network Intelligence 2.7 to 2.10, pruner mode `balance` with `balance_gran=[gh, gw]`; 32 x 32 there.
    """

    name: ClassVar[str] = "balanced_2d"
    height: int = Field(default=4, gt=0, description="rows of a rectangle, gh; divides the rows")
    width: int = Field(default=4, gt=0, description="columns of a rectangle, gw; divides the columns")

    def frame(self, rows: int, cols: int) -> Frame:
        """Single weights, compared within their rectangle."""
        return Frame(group=(self.height, self.width))


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return Balanced2D
