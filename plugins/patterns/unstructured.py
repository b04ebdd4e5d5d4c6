"""Unstructured sparsity: the best weights of the whole matrix stay, wherever they are."""

from typing import ClassVar

from harness.api import Frame, Pattern, hookimpl


class Unstructured(Pattern):
    """Keep the highest scores of the whole matrix; under allocation `global`, of all matrices of the scope together.

    Source:
        Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015: weights are
        removed one by one by their magnitude.
    """

    name: ClassVar[str] = "unstructured"
    spans_tensors: ClassVar[bool] = True  # a single weight is the same unit in every matrix

    def frame(self, rows: int, cols: int) -> Frame:
        """Single weights, compared with all others of the matrix."""
        return Frame()


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return Unstructured
