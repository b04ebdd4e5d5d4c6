"""How much of the dense model's quality is left, as a column of every report."""

from typing import ClassVar

from harness.api import JsonValue, ReportColumn, ReportRow, hookimpl


class QualityKept(ReportColumn):
    """The metric of a setting beside the dense model's, in percent: 100 is as good, less is worse."""

    name: ClassVar[str] = "quality_kept"
    header: ClassVar[str] = "quality\nkept %"
    about: ClassVar[str] = "quality kept: in percent of the dense model's, 100 is as good."

    def value(self, row: ReportRow) -> JsonValue:
        """The ratio of the two means, the way round that makes less be worse."""
        if not row.value or row.dense is None or not row.dense.value:
            return None
        ratio = row.value / row.dense.value
        return 100 * (ratio if row.better == "higher" else 1 / ratio)

    def shown(self, value: JsonValue) -> str:
        """One digit after the point."""
        return f"{value:.1f}"


@hookimpl
def register_column() -> type[ReportColumn]:
    """Offer this column to the harness."""
    return QualityKept
