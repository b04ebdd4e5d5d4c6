"""What the matrices of a network are multiplied with, summed up for scores that need it: the same in every backend."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from harness.api.network import LSTM, Conv2D, Dense, Layer

Values = NDArray[np.floating]


class InputSums:
    """Sums over positions of x^2, or of x x^T, x being the inputs of a matrix; in float64.

    Args:
        moments: whether the whole second moments are summed, or their diagonal alone.
    """

    def __init__(self, *, moments: bool) -> None:
        """Start with nothing seen."""
        self._moments = moments
        self._sums: dict[str, Values] = {}
        self._last: dict[str, Values] = {}
        self._is_output: dict[str, bool] = {}

    def see(self, layer: Layer, values: Values) -> None:
        """Take note of what flows into a layer during one batch; of an LSTM, then of what it gives.

        Its recurrent matrix is multiplied with the outputs of one step earlier, zero before the first batch.

        Shapes:
            values (batch, steps, features) of an LSTM; (..., inputs) of a dense layer; (batch, channels, height, width)
            of a convolution, padded; other layers are passed over.
        """
        if isinstance(layer, Dense):
            self.add(f"{layer.name}.kernel", values.reshape(-1, layer.inputs))
        elif isinstance(layer, Conv2D):
            self.add(f"{layer.name}.kernel", patches(values, layer.kernel, layer.stride))
        elif isinstance(layer, LSTM):
            # A layer of recurrent cells is seen twice per batch, first with its inputs, then with its outputs.
            is_output = self._is_output.get(layer.name, False)
            self._is_output[layer.name] = not is_output
            if not is_output:
                self.add(f"{layer.name}.kernel", values.reshape(-1, layer.inputs))
                return
            # The recurrent kernel multiplies the step before; of a batch's first step, the last one of the batch before
            # it.
            before = self._last.get(layer.name, np.zeros((len(values), 1, layer.units), values.dtype))
            earlier = np.concatenate([before, values[:, :-1]], axis=1)  # (batch, steps, units)
            self._last[layer.name] = np.array(values[:, -1:])
            self.add(f"{layer.name}.recurrent_kernel", earlier.reshape(-1, layer.units))

    def add(self, tensor: str, rows: Values) -> None:
        """Add positions of one matrix.

        Shapes:
            rows (positions, cols).
        """
        # In float64: sums over millions of positions lose digits in float32, and differently in every backend.
        rows = rows.astype(np.float64)
        found = rows.T @ rows if self._moments else np.einsum("pc,pc->c", rows, rows)
        self._sums[tensor] = self._sums[tensor] + found if tensor in self._sums else found

    def found(self) -> Mapping[str, Values]:
        """Norms (cols,), or second moments (cols, cols), by tensor name."""
        return self._sums if self._moments else {name: np.sqrt(sums) for name, sums in self._sums.items()}


def patches(images: Values, kernel: tuple[int, int], stride: int) -> Values:
    """What a convolution multiplies its kernel with, a row per output position.

    Shapes:
        images (batch, channels, height, width), padded -> (positions, channels * kh * kw).
    """
    # Windows are views: only the reshape below copies.
    windows = np.lib.stride_tricks.sliding_window_view(images, kernel, axis=(2, 3))[:, :, ::stride, ::stride]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1] * kernel[0] * kernel[1])
