"""Load-balanced sparsity: the rows of every processing element keep equally many weights."""

from typing import ClassVar

from pydantic import Field

from harness.api import Frame, Pattern, hookimpl


class LoadBalanced(Pattern):
    """Keep equally many weights in the rows of every processing element, wherever they are in them.

    Unit 1 x 1, group = all rows r with r mod P = p. Elements do equal work in a whole product, not for every input.

    Storage: run lengths per element and column. Engines: `column_fifo`, `csr_stream`.

    Source:
        Han et al., "ESE: Efficient Speech Recognition Engine with Sparse LSTM on FPGA", FPGA 2017: load-balance-aware
        pruning; ESE has 32 elements per channel.
    """

    name: ClassVar[str] = "load_balanced"
    pes: int = Field(default=2, gt=0, description="processing elements P that the rows are dealt to, one by one")

    def frame(self, rows: int, cols: int) -> Frame:
        """Single weights, compared within the rows of one processing element."""
        return Frame(view=(self.pes, 1), row_banks=self.pes)


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return LoadBalanced
