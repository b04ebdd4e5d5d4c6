"""Intrinsic sparse structures: whole hidden units, through every tensor that has them."""

from typing import ClassVar

from harness.api import Frame, Pattern, hookimpl


class HiddenUnit(Pattern):
    """Remove whole hidden units: their rows, their recurrent columns and the columns of what reads them.

    Coupled units, group = all units of a layer; every layer keeps the same fraction. An LSTM's unit is its rows in four
    gates, one recurrent column, one column of the next layer. What is left are smaller dense matrices. The published
    method finds the units by group lasso; here a unit's rank is the mean score of its weights.

    Storage: dense. Engines: `dense_compact`.

    Source:
        Wen et al., "Learning Intrinsic Sparse Structures within Long Short-Term Memory", ICLR 2018.
    """

    name: ClassVar[str] = "hidden_unit"

    def frame(self, rows: int, cols: int) -> Frame:
        """Units of the axes' labels."""
        return Frame(unit=(1, None), coupling="labels")


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return HiddenUnit
