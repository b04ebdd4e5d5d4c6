"""Shared-index bank-balanced sparsity: neighbouring rows keep the same columns of every bank."""

from typing import ClassVar

from pydantic import Field

from harness.api import Frame, Pattern, hookimpl


class SharedIndexBanks(Pattern):
    """Let `rows_sharing` neighbouring rows keep the same columns, equally many in every bank.

    Unit c x 1, group c x b. With c = 1 it is bank-balanced sparsity.

    Storage: values and one index of ceil(log2 b) bits per c values. Engines: `bank`.

    Source:
        Shared-index bank-balanced sparsity (SIBBS): index cost 2 to 8 times below that of bank-balanced sparsity.
    """

    name: ClassVar[str] = "shared_index_banks"
    rows_sharing: int = Field(default=2, gt=0, description="neighbouring rows that share indices, c; divides the rows")
    banks: int = Field(default=10, gt=0, description="banks per row, of sizes that differ by at most one")

    def frame(self, rows: int, cols: int) -> Frame:
        """Short columns, compared within the bank of their rows."""
        return Frame(unit=(self.rows_sharing, 1), group=(self.rows_sharing, None), banks=self.banks)


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return SharedIndexBanks
