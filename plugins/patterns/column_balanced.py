"""Column-balanced sparsity: every column gives every processing element equally many weights."""

from typing import ClassVar

from pydantic import Field

from harness.api import Frame, Pattern, hookimpl


class ColumnBalanced(Pattern):
    """Keep equally many weights of every column in the rows of every processing element.

    Unit 1 x 1, group (the rows r with r mod P = p) x 1: so every input gives all P elements the same work.

    Storage: values and row indices per column. Engines: `column_fifo`, which waits for its busiest element.

    Source:
        Column-balanced targeted dropout (CBTD) of Spartus, arXiv 2108.02297.
    """

    name: ClassVar[str] = "column_balanced"
    pes: int = Field(default=1, gt=0, description="processing elements P that the rows are dealt to, one by one")

    def frame(self, rows: int, cols: int) -> Frame:
        """Single weights, compared within one column of one processing element."""
        # The view deals the rows to the elements, so that what is a stretch of rows in it is one element's rows in the
        # matrix.
        return Frame(view=(self.pes, 1), row_banks=self.pes, group=(None, 1))


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return ColumnBalanced
