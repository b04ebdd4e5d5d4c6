"""Multi-column bank-balanced sparsity: clusters of adjacent weights share an index."""

from typing import ClassVar

from pydantic import Field

from harness.api import Frame, Pattern, hookimpl


class MCBBS(Pattern):
    """Keep the best clusters of `cluster` adjacent weights in every range of `range_clusters` clusters of a row.

    Unit 1 x c, group 1 x (c r). With c = 1 it is bank-balanced sparsity with banks of r.

    Storage: values and one index of ceil(log2 r) bits per cluster. Engines: `mcbbs_systolic`; `bank` where c = 1.

    Source:
        Liu and Brown, "Leveraging Fine-grained Structured Sparsity for CNN Inference on Systolic Array
        Architectures", FPL 2021: equal sparsity per range, clusters ranked by their L1 norm.
    """

    name: ClassVar[str] = "mcbbs"
    cluster: int = Field(default=2, gt=0, description="adjacent weights that share one index, c")
    range_clusters: int = Field(default=4, gt=1, description="clusters of a range, r; c * r divides the columns")

    def frame(self, rows: int, cols: int) -> Frame:
        """Clusters, compared within their range."""
        return Frame(unit=(1, self.cluster), group=(1, self.cluster * self.range_clusters))


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return MCBBS
