"""Channel pruning: whole columns, that is inputs."""

from typing import ClassVar

from pydantic import Field

from harness.api import Frame, Pattern, Tensor, hookimpl


class Channel(Pattern):
    """Keep the input channels with the highest mean score, for all outputs alike.

    Unit R x taps, group = whole matrix: a column of a dense or recurrent matrix, all kh kw taps of one input channel of
    a convolution, all pixels of one channel behind a flattened image.

    Storage: the columns left, dense, and which they are. Engines: `dense_compact`, `block`.

    Source:
        He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017 (recalled).
    """

    name: ClassVar[str] = "channel"
    taps: int = Field(default=1, gt=0, description="columns of one channel where no tensor tells: a matrix by itself")

    def for_tensor(self, tensor: Tensor) -> Pattern:
        """With the taps of the tensor's own channels."""
        # Only where the taps of a channel lie side by side: dealt round, they are no rectangle that a unit could be.
        taps = tensor.cols.repeat if tensor.cols is not None and tensor.cols.order == "adjacent" else 1
        return self.model_copy(update={"taps": taps})

    def frame(self, rows: int, cols: int) -> Frame:
        """Channels, compared with all others of the matrix."""
        return Frame(unit=(None, self.taps))


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return Channel
