"""Block sparsity: rectangles of weights stay or go as a whole."""

from typing import ClassVar, Literal

from pydantic import Field

from harness.api import Frame, Pattern, ShapeError, hookimpl


class Block(Pattern):
    """Keep the blocks with the highest pooled scores of the whole matrix.

    Where the block does not divide the matrix, the blocks at its lower and right edge are smaller and pool over the
    weights they have. The quota counts blocks, so the sparsity reached may then differ a little from the one asked for,
    by no more than the edge's share of the matrix; it is counted on the mask like any other.

    Source:
        Narang et al., "Block-Sparse Recurrent Neural Networks", arXiv 1711.02782.
    """

    name: ClassVar[str] = "block"
    height: int = Field(default=4, gt=0, description="rows (outputs) of a block")
    width: int = Field(default=4, gt=0, description="columns (inputs) of a block")
    pooling: Literal["mean", "max"] = Field(default="mean", description="how a block's score is made of its weights'")

    def frame(self, rows: int, cols: int) -> Frame:
        """Blocks, compared with all others of the matrix.

        Raises:
            ShapeError: the block is larger than the matrix.
        """
        if self.height > rows or self.width > cols:
            raise ShapeError(
                f"{self.name}: a block must fit into the matrix, got blocks of {self.height} x {self.width} for a "
                f"matrix of {rows} x {cols}; set `height` to at most {rows} and `width` to at most {cols}"
            )
        return Frame(unit=(self.height, self.width), pooling=self.pooling)


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return Block
