"""What came out of a cell's mask updates: whether the masks that are there are the ones that were asked for."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from harness.api import Mask, MaskUpdate, Pattern, PluginContractError, Tensor, WholeScopePattern
from harness.discovery.guard import calling
from harness.masks.allocation import erk_shares
from harness.masks.updates import TOLERANCE, Allocation, MaskMaker, is_coupled

_ROUNDING = 1e-9
"""Of fractions that are equal in exact arithmetic."""


class Achieved(NamedTuple):
    """Sparsity counted on masks.

    Args:
        tensors: by name, for every tensor that has a mask.
        scope: over the weights of those tensors together.
        model: over all parameters of the model, biases and unpruned tensors included.
    """

    tensors: dict[str, float]
    scope: float
    model: float


def why_missed(
    masks: Mapping[str, Mask],
    pattern: Pattern,
    allocation: Allocation,
    scope: Sequence[Tensor],
    target: float,
    tolerance: float = TOLERANCE,
) -> str | None:
    """Why finished masks are not the result that was asked for, as a sentence; None if they are.

    What can be told from shapes alone is refused before anything trains (`updates.why_skipped`). The rest is told only
    by masks: whether a ranking across tensors left one of them empty, how many weights the smaller units at an edge
    kept, and where a strategy ended.

    Args:
        masks: by tensor name, at the end of the chain; a tensor without one has kept everything.
        pattern: the cell's pattern.
        allocation: how its sparsity was shared out.
        scope: the tensors that it prunes.
        target: its sparsity.
        tolerance: largest distance of a counted sparsity from its target.
    """
    kept = {tensor.name: _kept(tensor, masks) for tensor in scope}
    for tensor in scope:
        if not kept[tensor.name]:
            return (
                f"every weight of {tensor.name} ({tensor.shape[0]} x {tensor.shape[1]}) was pruned at sparsity "
                f"{target:g} under {_named(allocation)}, which cuts the network; ask for a lower sparsity, or "
                f"{'`uniform`, or ' if allocation == 'global' else ''}a sparsity of its own for this tensor"
            )
    shares: Mapping[str, float] = {} if isinstance(allocation, str) else allocation
    if allocation == "erk":
        shares = erk_shares(scope, target)
    size = sum(tensor.size for tensor in scope)
    asked = sum(shares.get(tensor.name, target) * tensor.size for tensor in scope) / size
    over_all = 1 - sum(kept.values()) / size
    # One ranking over all tensors keeps a whole number of weights: half a weight off is none too few.
    if abs(over_all - asked) > tolerance + 0.5 / size + _ROUNDING:
        return _off("the scope", asked, over_all, tolerance)
    # There the tensors' shares follow from the scores: only the whole has a target.
    if allocation in ("global", "lamp") or isinstance(pattern, WholeScopePattern) or is_coupled(pattern, scope):
        return None
    for tensor in scope:
        share, found = shares.get(tensor.name, target), 1 - kept[tensor.name] / tensor.size
        if abs(found - share) > tolerance + _ROUNDING:
            return _off(f"{tensor.name} ({tensor.shape[0]} x {tensor.shape[1]})", share, found, tolerance)
    return None


def why_not_made(masks: Mapping[str, Mask], maker: MaskMaker, update: MaskUpdate) -> str | None:
    """Why masks cannot be those that an update made, as a sentence; None if they can.

    Every answer of a pattern was held to its counts when it was given; what lies in a store is held to them again.

    Args:
        masks: by tensor name, after the update.
        maker: what the update was made with.
        update: the last one before.
    """
    if maker.allocation == "lamp":
        return None  # its shares follow from scores, which are gone
    try:
        with calling(maker.pattern):
            # Without the masks before: that none came back is the business of whoever compares two stages.
            maker._check(masks, maker._shares(update.sparsity, {}), {}, update)
    except PluginContractError as error:
        return str(error)
    return None


def _kept(tensor: Tensor, masks: Mapping[str, Mask]) -> int:
    mask = masks.get(tensor.name)
    return tensor.size if mask is None else int(np.count_nonzero(mask))


def _named(allocation: Allocation) -> str:
    return f"allocation {allocation!r}" if isinstance(allocation, str) else "its allocation"


def _off(where: str, asked: float, found: float, tolerance: float) -> str:
    return (
        f"{where} ended at a counted sparsity of {found:.4g} where {asked:g} was asked for, further off than the "
        f"tolerance {tolerance:g}; choose sizes that divide the matrix, a strategy that ends at its target, or a wider "
        "`tolerance`"
    )


def achieved(masks: Mapping[str, Mask], tensors: Sequence[Tensor]) -> Achieved:
    """The sparsity that masks really have.

    Args:
        masks: by tensor name, for the pruned tensors only.
        tensors: every trainable tensor of the model, biases included.
    """
    # In the order of the model: files keep masks in none, and records of equal cells are to be equal.
    masks = {tensor.name: masks[tensor.name] for tensor in tensors if tensor.name in masks}
    zeros = {name: int(mask.size - np.count_nonzero(mask)) for name, mask in masks.items()}
    pruned = sum(mask.size for mask in masks.values())
    return Achieved(
        tensors={name: zeros[name] / mask.size for name, mask in masks.items()},
        scope=sum(zeros.values()) / pruned if pruned else 0.0,
        model=sum(zeros.values()) / sum(tensor.size for tensor in tensors),
    )
