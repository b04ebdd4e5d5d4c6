"""Tile-wise sparsity: whole columns inside the tiles of a matrix product."""

from typing import ClassVar

from pydantic import Field

from harness.api import Frame, Pattern, ShapeError, hookimpl


class Tile(Pattern):
    """Cut the rows into tiles and keep the best columns inside the tiles, compared over the whole matrix.

    Unit t x 1, group = whole matrix; at the lower edge a tile may be lower. What stays of a tile is dense once its
    columns are moved together.

    Storage: dense tiles and a list of columns for each. Engines: `block` with blocks of one column.

    Source:
        Guo et al., "Accelerating Sparse DNN Models without Hardware-Support via Tile-Wise Sparsity", SC 2020
        (recalled).
    """

    name: ClassVar[str] = "tile"
    height: int = Field(default=4, gt=0, description="rows of a tile, t")

    def frame(self, rows: int, cols: int) -> Frame:
        """Columns of a tile, compared with all others of the matrix.

        Raises:
            ShapeError: the tile is higher than the matrix.
        """
        if self.height > rows:
            raise ShapeError(
                f"{self.name}: a tile must fit into the matrix, got height={self.height} for a matrix of "
                f"{rows} x {cols}; set `height` to at most {rows}"
            )
        return Frame(unit=(self.height, 1))


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return Tile
