"""How a sparsity is shared out among the tensors of a scope, where a rule does it."""

from collections.abc import Mapping, Sequence

import numpy as np

from harness.api.network import Axis, Tensor
from harness.arrays import Matrix, keep_count
from harness.selection.best import best


def erk_shares(scope: Sequence[Tensor], sparsity: float) -> dict[str, float]:
    """The sparsity of every tensor by Erdos-Renyi-Kernel: thin tensors stay denser than square ones.

    Density = e (n_out + n_in + kh + kw) / (n_out n_in kh kw), the taps counting for convolutions alone; e is such that
    the scope reaches its sparsity, and a tensor that would need more than all of its weights stays whole.

    Args:
        scope: the tensors that are pruned.
        sparsity: over all their weights, in [0, 1).

    Source:
        Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020, section 3 and its code.
    """
    sizes = np.array([tensor.size for tensor in scope], np.float64)
    raw = np.array([_sides(tensor) for tensor in scope]) / sizes
    whole = np.zeros(len(scope), np.bool_)
    budget = (1 - sparsity) * sizes.sum()
    # Tensors that would keep more than they have are kept whole; their surplus goes to the others, which may push one
    # of these over.
    while True:
        free = ~whole
        if not free.any():
            # Only at sparsity 0 does nothing have to give way.
            return {tensor.name: 0.0 for tensor in scope}
        scale = (budget - sizes[whole].sum()) / (raw * sizes)[free].sum()
        over = free & (raw * scale >= 1)
        if not over.any():
            break
        whole |= over
    densities = np.where(whole, 1.0, raw * scale)
    return {tensor.name: round(1 - float(part), 12) for tensor, part in zip(scope, densities, strict=True)}


def _sides(tensor: Tensor) -> float:
    assert tensor.cols is not None  # a scope holds matrices
    taps = tensor.cols.repeat if tensor.role == "conv" else 1
    # For a kernel of kh x kw, Erdos-Renyi-Kernel adds kh + kw to the channels; taps are square here, and 2 sqrt(taps)
    # is that sum.
    return tensor.rows.size + _channels(tensor.cols, taps) + (2 * taps**0.5 if taps > 1 else 0)


def _channels(axis: Axis, taps: int) -> int:
    return axis.size // taps


def lamp_shares(scores: Mapping[str, Matrix], sparsity: float) -> dict[str, float]:
    """The sparsity of every tensor by layer-adaptive magnitude: how many of its weights are among the scope's best.

    A weight is worth s^2 / (sum of s^2 of its tensor's weights that rank no lower), so that the best of every tensor is
    worth 1 and no tensor can be emptied.

    Args:
        scores: by tensor name; -inf marks weights that are already pruned.
        sparsity: over all weights of the scope, in [0, 1).

    Source:
        Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021, equation 1.
    """
    worths = [_worth(np.ravel(given)) for given in scores.values()]
    sizes = [len(worth) for worth in worths]
    # One row through the selection that patterns use: ties fall to the earlier tensor, as under `global`.
    kept = best(np.concatenate(worths)[None], keep_count(sum(sizes), sparsity))[0]
    counts = [int(np.count_nonzero(part)) for part in np.split(kept, np.cumsum(sizes)[:-1])]
    return {name: 1 - count / size for name, count, size in zip(scores, counts, sizes, strict=True)}


def _worth(scores: Matrix) -> Matrix:
    """LAMP scores of one tensor."""
    squares = np.where(np.isfinite(scores), scores, 0.0).astype(np.float64) ** 2
    order = np.argsort(-squares, kind="stable")
    above = np.cumsum(squares[order])  # of all that rank no lower, itself included
    worth: Matrix = np.empty_like(squares)
    worth[order] = np.divide(squares[order], above, out=np.zeros_like(above), where=above > 0)
    worth[~np.isfinite(scores)] = -np.inf
    return worth
