"""Where masks keep weights."""

from collections.abc import Mapping

from harness.api import Mask
from harness.report.charts import Raster

_PLACES = 60
"""Of a picture along either side, at most."""


def spy(masks: Mapping[str, Mask], title: str) -> Raster:
    """A weight is a place; in larger matrices a place is the share of a small block.

    Args:
        masks: by tensor name.
        title: of the picture.
    """
    panels = []
    for name, mask in sorted(masks.items()):
        rows, cols = mask.shape
        tall, wide = -(-rows // _PLACES), -(-cols // _PLACES)
        shares = tuple(
            tuple(float(mask[row : row + tall, col : col + wide].mean()) for col in range(0, cols, wide))
            for row in range(0, rows, tall)
        )
        block = f", a place is {tall} x {wide}" if tall * wide > 1 else ""
        panels.append((f"{name}, {rows} x {cols}{block}", shares))
    about = ("Rows are outputs, columns inputs; the darker, the more weights stay.",)
    return Raster("masks", title, tuple(panels), about)
