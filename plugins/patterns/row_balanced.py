"""Row-balanced sparsity: every row keeps equally many weights."""

from typing import ClassVar

from harness.api import Frame, Pattern, hookimpl


class RowBalanced(Pattern):
    """Keep the highest scores of each row, equally many in all rows; it is bank-balanced sparsity with one bank.

    Equal rows keep the processing elements of an accelerator equally busy; within a row the weights are free.

    Source:
        BRDS, arXiv 2101.02667: rows of an LSTM's matrices are pruned to one sparsity each for inputs and recurrence
        (here: an allocation per tensor).
    """

    name: ClassVar[str] = "row_balanced"

    def frame(self, rows: int, cols: int) -> Frame:
        """Single weights, compared within their row."""
        return Frame(group=(1, None))


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return RowBalanced
