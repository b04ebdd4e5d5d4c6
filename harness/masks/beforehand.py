"""Whether a cell can be pruned as it is asked for, known from shapes alone, before anything trains."""

from collections.abc import Mapping, Sequence

import numpy as np

from harness.api import Pattern, Tensor, WholeScopePattern
from harness.discovery.asking import reason_of
from harness.masks.allocation import erk_shares
from harness.masks.coupling import Coupling

# With underscores, since stages have the names of what makes masks in their keys: renamed, all would be run again.
from harness.masks.updates import (
    TOLERANCE,
    Allocation,
    _reachable,
    _why_not_spanning,
    check_allocation,
    is_coupled,
)
from harness.selection.layout import Layout


def why_skipped(
    pattern: Pattern,
    allocation: Allocation,
    scope: Sequence[Tensor],
    target: float,
    tolerance: float = TOLERANCE,
) -> str | None:
    """Why a cell cannot run as it is asked for, as a sentence; None if it can.

    Args:
        pattern: the cell's pattern.
        allocation: how the sparsity is shared out.
        scope: the tensors that are pruned.
        target: the cell's sparsity.
        tolerance: how far a tensor's reachable sparsity may lie from its target.

    Raises:
        SpecError: the pattern does not fit a tensor's shape at all, or the allocation does not fit the scope.
    """
    check_allocation(allocation, scope)
    if is_coupled(pattern, scope):
        return _why_not_coupled(pattern, allocation, scope, target, tolerance)
    if reason := reason_of(pattern, lambda: pattern.why_not_scope(scope, target), "why_not_scope"):
        return f"{pattern.label()} {reason}"
    if allocation in ("global", "lamp"):
        return _why_not_spanning(pattern, allocation)
    if isinstance(pattern, WholeScopePattern):
        return None
    shares: Mapping[str, float] = {} if isinstance(allocation, str) else allocation
    if allocation == "erk":
        shares = erk_shares(scope, target)
    for tensor in scope:
        if reason := _why_unreachable(pattern, tensor, shares.get(tensor.name, target), tolerance):
            return reason
    return None


def _why_not_coupled(
    pattern: Pattern, allocation: Allocation, scope: Sequence[Tensor], target: float, tolerance: float
) -> str | None:
    if allocation != "uniform":
        return (
            f"{pattern.label()} removes units from all tensors at once, so no sparsity is left to share out under its "
            "allocation; use 'uniform'"
        )
    coupling = Coupling.of(scope)
    names = ", ".join(tensor.name for tensor in scope)
    if not coupling.counts:
        return (
            f"{pattern.label()}: no tensor of the scope ({names}) reads what another one makes, so no unit can be "
            "removed whole; widen the scope"
        )
    reached = coupling.reached(coupling.quotas(target))
    if abs(reached - target) > tolerance + 1e-9:
        return (
            f"{pattern.label()}: {names} at sparsity {target:g} cannot be reached within the tolerance {tolerance:g}; "
            f"the nearest reachable sparsity is {reached:g}"
        )
    return None


def _why_unreachable(pattern: Pattern, tensor: Tensor, target: float, tolerance: float) -> str | None:
    rows, cols = tensor.shape
    where = f"{pattern.label()}: {tensor.name} ({rows} x {cols}) at sparsity {target:g}"
    pattern = pattern.for_tensor(tensor)
    layout = pattern.layout(rows, cols)
    if layout.quota(target) == 0:
        return f"{where} would keep nothing; the nearest reachable sparsity is {layout.reached_with(1):g}"
    reached = _reachable(pattern, tensor, target)
    if layout.edge_deficit:
        # Smaller units at an edge: which of them stay is known only then, what can be reached at all is known now.
        least, most = _possible(layout, layout.quota(target))
        reached = min(max(target, least), most)
    if abs(reached - target) > tolerance + 1e-9:
        return (
            f"{where} cannot be reached within the tolerance {tolerance:g}; the nearest reachable sparsity is "
            f"{reached:g}"
        )
    if reason := reason_of(pattern, lambda: pattern.why_not(rows, cols, target), "why_not"):
        return f"{where} {reason}"
    return None


def _possible(layout: Layout, quota: int) -> tuple[float, float]:
    """The lowest and highest sparsity of masks that keep `quota` units in every group, those at the edges smaller."""
    height, width = layout.unit
    fewest = most = 0
    for rows, cols in layout.groups():
        heights = np.diff([*range(rows.start, rows.stop, height), rows.stop])
        widths = np.diff([*range(cols.start, cols.stop, width), cols.stop])
        areas = np.sort(np.outer(heights, widths), axis=None)
        fewest, most = fewest + int(areas[:quota].sum()), most + int(areas[len(areas) - quota :].sum())
    # Which of the smaller edge units stay is not known: the extremes are, by sorting their areas.
    size = layout.rows * layout.cols
    return 1 - most / size, 1 - fewest / size
