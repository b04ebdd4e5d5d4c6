"""Array types and the one rounding rule."""

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
"""True where a weight is kept."""

Matrix = NDArray[np.floating]
"""A weight or score matrix, (rows, cols) = (outputs, inputs)."""

Array = NDArray[np.generic]
"""Any array that crosses a boundary."""


def keep_count(size: int, sparsity: float) -> int:
    """How many of `size` weights stay at a sparsity: half up of size x (1 - sparsity), in exact decimals.

    The sparsity is taken as the shortest decimal that reads back as the same float, so 0.58 of 50 drops 29 weights,
    not 28.

    Args:
        size: number of weights (or cells) that share one quota.
        sparsity: fraction of zeros, in [0, 1).
    """
    # By its shortest decimal: 0.58 is 58 in 100, not the binary number just below it.
    kept = Decimal(size) * (1 - Decimal(repr(float(sparsity))))
    return int(kept.quantize(Decimal(1), rounding=ROUND_HALF_UP))
