"""What fits instead: the nearest values of a pattern, or of its sparsity, with which a skipped cell would run."""

from collections.abc import Callable, Iterator, Sequence

from harness.api import Pattern, SpecError, Tensor
from harness.masks.beforehand import why_skipped
from harness.masks.updates import Allocation

_TRIED = 64
"""How far from a whole number others are tried, each way."""


def nearest_fit(
    pattern: Pattern, allocation: Allocation, scope: Sequence[Tensor], target: float, tolerance: float
) -> str:
    """What to write instead, as part of a sentence; empty where nothing near fits.

    Every whole number among the pattern's parameters is tried by itself, downwards and upwards, then the sparsities
    that the groups of a tensor can have.

    Args:
        pattern: the pattern that cannot be had as it is.
        allocation: how the sparsity is shared out.
        scope: the tensors that are pruned.
        target: the cell's sparsity.
        tolerance: how far a reachable sparsity may lie from its target.
    """

    def fits(other: Pattern, sparsity: float) -> bool:
        try:
            # Where units at an edge are much smaller, what a mask reaches depends on which of them it keeps.
            is_even = all(other.layout(*tensor.shape).edge_deficit <= tolerance * tensor.size for tensor in scope)
            return is_even and why_skipped(other, allocation, scope, sparsity, tolerance) is None
        except (SpecError, ValueError):  # a changed parameter may contradict another, or not fit the shape
            return False

    found = list(_parameters(pattern, lambda other: fits(other, target)))
    # The nearest first: it is the one that changes the experiment least.
    reachable = sorted(_sparsities(pattern, scope, target), key=lambda each: abs(each - target))
    nearest = next((each for each in reachable if fits(pattern, each)), None)
    return " or ".join(found + ([] if nearest is None else [f"sparsity {nearest:.4g}"]))


def _parameters(pattern: Pattern, fits: Callable[[Pattern], bool]) -> Iterator[str]:
    """The nearest fitting values of every whole number, each with all others as they are."""
    for name in type(pattern).model_fields:
        given = getattr(pattern, name)
        if not isinstance(given, int) or isinstance(given, bool):
            continue
        # One below and one above: which way the user would rather go is not known.
        for values in (range(given - 1, max(0, given - _TRIED), -1), range(given + 1, given + _TRIED)):
            # A copy without validation: ranges are tried by the thousand, and what does not fit is refused by `fits`.
            changed = ((value, pattern.model_copy(update={name: value})) for value in values)
            value = next((value for value, other in changed if fits(other)), None)
            if value is not None:
                yield f"{name}={value}"


def _sparsities(pattern: Pattern, scope: Sequence[Tensor], target: float) -> set[float]:
    """What groups can reach that keep as much as asked for, or a little more or less."""
    found: set[float] = set()
    for tensor in scope:
        layout = pattern.layout(*tensor.shape)
        quota = layout.quota(target)
        found |= {layout.reached_with(each) for each in range(max(1, quota - 1), min(quota + 2, layout.shortest))}
    return {each for each in found if 0 < each < 1}
