"""Filter pruning: whole rows, that is outputs."""

from typing import ClassVar

from harness.api import Frame, Pattern, hookimpl


class Filter(Pattern):
    """Keep the rows with the highest mean score: whole filters of a convolution, whole outputs of a dense layer.

    Unit 1 x C, group = whole matrix. By magnitude this is the L1 norm of a filter. Nothing that reads the output is
    removed with it: `hidden_unit` does that.

    Storage: the rows left, dense, and which they are. Engines: `dense_compact`, `block`.

    Source:
        Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (recalled).
    """

    name: ClassVar[str] = "filter"

    def frame(self, rows: int, cols: int) -> Frame:
        """Rows, compared with all others of the matrix."""
        return Frame(unit=(1, None))


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return Filter
