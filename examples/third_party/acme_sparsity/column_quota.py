"""A quota for columns: every column of a matrix keeps equally many weights."""

from typing import ClassVar

from harness.api import Frame, Pattern, hookimpl


class ColumnQuota(Pattern):
    """Keep the same number of weights in every column, so that every input feeds equally many outputs."""

    name: ClassVar[str] = "column_quota"

    def frame(self, rows: int, cols: int) -> Frame:
        """Single weights, compared within one column."""
        return Frame(unit=(1, 1), group=(None, 1))


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return ColumnQuota
