"""Checks of patterns: their masks of one matrix, of matrices at the edge of what there is, and of a whole scope."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from harness._scoring_checks import SHAPES
from harness.api import (
    LSTM,
    Dense,
    Mask,
    Matrix,
    Pattern,
    PluginContractError,
    ShapeError,
    Tensor,
    WholeScopePattern,
)
from harness.api.promises import broken, demand

_SPARSITIES = (0.0, 0.25, 0.5, 0.58, 0.75, 0.9, 0.96)
_Scalar = TypeVar("_Scalar", bound=np.generic)

_EDGES = ((0, 0), (0, 8), (8, 0), (1, 1))
"""Shapes without any weight, and with a single one."""

_OFF = 0.02
"""How far the masks of a whole scope may be from the sparsity asked for, as in a run."""


def check_pattern(
    pattern: Pattern,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    *,
    follows_frame: bool = True,
    scope: Sequence[Tensor] | None = None,
) -> None:
    """What a pattern promises of its masks, tried on matrices with many equal scores, and on the tensors of a model.

    Args:
        pattern: the pattern, with any parameters.
        shapes: (rows, cols) of the matrices; those it refuses with a `ShapeError` are left out. Matrices without a
            weight and with a single one are tried besides.
        follows_frame: whether the masks are the best units of every group of the declared frame; False for a pattern
            whose own `mask` does something that no frame can say.
        scope: tensors that a pattern which decides over several at once is asked about, by `masks` or by a coupling of
            their units; by default `pattern_scope()`.

    Raises:
        PluginContractError: the first promise it breaks.
    """
    accepted = 0
    for rows, cols in shapes:
        try:
            pattern.layout(rows, cols)
        except ShapeError:
            continue
        accepted += 1
        for scores in _tied_scores(rows, cols):
            _check_masks(pattern, scores, follows_frame=follows_frame)
    tried = ", ".join(f"{rows} x {cols}" for rows, cols in shapes)
    demand(accepted, pattern.label(), f"at least one of these shapes to be taken: {tried}; pass `shapes` that fit")
    for rows, cols in _EDGES:
        _check_edge(pattern, rows, cols, follows_frame=follows_frame)
    _check_scope(pattern, pattern_scope() if scope is None else tuple(scope))


def pattern_scope() -> tuple[Tensor, ...]:
    """The matrices of a small language model: two LSTM layers and the one that reads them, with coupled units."""
    layers = (
        LSTM(name="lstm_0", inputs=100, units=50, input_label="embedding.features"),
        LSTM(name="lstm_1", inputs=50, units=50, input_label="lstm_0.units"),
        Dense(name="output", inputs=50, units=80, role="softmax", input_label="lstm_1.units"),
    )
    return tuple(tensor for layer in layers for tensor in layer.tensors() if tensor.is_prunable)


# --- one matrix -----------------------------------------------------------------------------------------------------


def _check_edge(pattern: Pattern, rows: int, cols: int, *, follows_frame: bool) -> None:
    """A matrix that hardly is one is refused with a `ShapeError`, or masked like any other."""
    where = f"{pattern.label()} on {rows} x {cols}"
    scores = np.ones((rows, cols), np.float32)
    try:
        pattern.layout(rows, cols)
        if scores.size:
            _check_masks(pattern, scores, follows_frame=follows_frame)
            return
        mask = pattern.mask(scores, 0.5)
    except ShapeError:
        return
    except PluginContractError:
        raise
    except Exception as error:
        raise broken(where, f"a ShapeError or a mask, got {type(error).__name__}: {error}") from error
    demand(isinstance(mask, np.ndarray) and mask.shape == (rows, cols), where, f"an empty mask, got {mask!r:.60}")


def _tied_scores(rows: int, cols: int) -> Iterator[Matrix]:
    rng = np.random.default_rng([rows, cols])
    few = rng.integers(0, 4, (rows, cols)).astype(np.float64)
    yield few.astype(np.float32)
    yield np.asfortranarray(few)
    yield np.ones((rows, cols), np.float32)
    yield np.where(rng.random((rows, cols)) < 0.95, 0, few + 1)  # mostly zeros
    # Rows and columns of a larger array: neighbours in the matrix are none in memory.
    yield np.repeat(np.repeat(few, 2, axis=0), 3, axis=1)[::2, ::3]


def _check_masks(pattern: Pattern, scores: Matrix, *, follows_frame: bool) -> None:
    where = f"{pattern.label()} on {scores.shape[0]} x {scores.shape[1]}"
    before = scores.copy()
    wider: Mask = np.ones(scores.shape, dtype=np.bool_)
    for sparsity in _SPARSITIES:
        mask = pattern.mask(scores, sparsity)
        at = f"{where} at sparsity {sparsity}"
        demand(isinstance(mask, np.ndarray) and mask.dtype == np.bool_, at, "a bool array")
        demand(mask.shape == scores.shape, at, f"a mask of shape {scores.shape}, got {mask.shape}")
        demand(np.array_equal(scores, before), at, "the scores to be left as they were")
        demand(sparsity or mask.all(), at, "sparsity 0 to keep everything")
        demand(not (mask & ~wider).any(), at, "a higher sparsity to keep a subset of a lower one")
        pruned = np.where(wider, scores, -np.inf)
        again = pattern.mask(pruned, sparsity)
        if follows_frame:
            demand(np.array_equal(again, mask), at, "pruned weights (-inf) to stay pruned")
        else:  # what is left may be ranked anew
            demand(not (again & ~wider).any(), at, "pruned weights (-inf) to stay pruned")
            demand(again.sum() == mask.sum(), at, f"{mask.sum()} weights to stay of those left, got {again.sum()}")
        demand(np.array_equal(pattern.mask(scores * 4, sparsity), mask), at, "the same mask for four times the scores")
        _check_count(pattern, mask, sparsity, at)
        if follows_frame and sparsity:
            _check_groups(pattern, scores, mask, sparsity, at)
        wider = mask


def _check_count(pattern: Pattern, mask: Mask, sparsity: float, at: str) -> None:
    rows, cols = mask.shape
    found = 1 - np.count_nonzero(mask) / mask.size
    reachable = pattern.reachable(rows, cols, sparsity)
    slack = max(1e-9, pattern.layout(rows, cols).edge_deficit / mask.size)
    demand(abs(found - reachable) <= slack, at, f"the sparsity {reachable:g} that it calls reachable, got {found:g}")


def _check_groups(pattern: Pattern, scores: Matrix, mask: Mask, sparsity: float, at: str) -> None:
    """Compare every group with a stable sort of its units: slow, and independent of the selection kernel."""
    layout = pattern.layout(*_sides(scores))
    takes_max = pattern.frame(*_sides(scores)).pooling == "max"
    quota = layout.quota(sparsity)
    scores, mask = layout.viewed(scores), layout.viewed(mask)
    for rows, cols in layout.groups():
        kept = _units(mask[rows, cols], layout.unit)
        pooled = [unit.max() if takes_max else unit.mean() for unit in _units(scores[rows, cols], layout.unit)]
        best = set(np.argsort(-np.array(pooled), kind="stable")[:quota].tolist())
        stayed = {index for index, unit in enumerate(kept) if unit.all()}
        group = f"{at}, group of rows {rows.start}-{rows.stop - 1} and columns {cols.start}-{cols.stop - 1}"
        demand(all(unit.all() == unit.any() for unit in kept), group, "whole units to stay or go")
        demand(len(stayed) == quota, group, f"{quota} units to stay, got {len(stayed)}")
        demand(stayed == best, group, "its highest scores to stay, ties at the lower index")


def _units(group: NDArray[_Scalar], unit: tuple[int, int]) -> Sequence[NDArray[_Scalar]]:
    """The units of a group, row-major, those at its edges smaller."""
    if unit == (1, 1):
        return list(group.reshape(-1, 1))
    corners = ((top, left) for top in range(0, group.shape[0], unit[0]) for left in range(0, group.shape[1], unit[1]))
    return [group[top : top + unit[0], left : left + unit[1]] for top, left in corners]


def _sides(matrix: Matrix) -> tuple[int, int]:
    return matrix.shape[0], matrix.shape[1]


# --- several tensors ------------------------------------------------------------------------------------------------


def _check_scope(pattern: Pattern, scope: Sequence[Tensor]) -> None:
    for tensor in scope:
        own = pattern.for_tensor(tensor)
        where = f"{pattern.label()} for {tensor.name}"
        demand(isinstance(own, Pattern), where, f"a pattern from `for_tensor`, got {type(own).__name__}")
    _check_coupling(pattern, scope)
    if not isinstance(pattern, WholeScopePattern):
        return
    # Few different values, so that tensors tie with each other.
    rng = np.random.default_rng(5)
    scores = {tensor.name: rng.integers(0, 6, tensor.shape).astype(np.float32) for tensor in scope}
    wider: dict[str, Mask] = {tensor.name: np.ones(tensor.shape, np.bool_) for tensor in scope}
    accepted = 0
    for sparsity in _SPARSITIES:
        at = f"{pattern.label()} over {len(scope)} tensors at sparsity {sparsity}"
        reason = pattern.why_not_scope(scope, sparsity)
        demand(reason is None or (isinstance(reason, str) and reason.strip()), at, f"a reason or None, got {reason!r}")
        if reason is not None:
            continue
        accepted += 1
        masks = _asked(pattern, scores, sparsity, scope, at)
        _check_whole(masks, wider, sparsity, scope, at)
        left = {name: np.where(wider[name], values, -np.inf) for name, values in scores.items()}
        again = _asked(pattern, left, sparsity, scope, f"{at}, of those left")
        _check_whole(again, wider, sparsity, scope, f"{at}, of those left")
        wider = masks
    demand(accepted, pattern.label(), "a scope that it takes at some sparsity; pass a `scope` that fits")


def _check_coupling(pattern: Pattern, scope: Sequence[Tensor]) -> None:
    """Coupled units are chosen by the harness over all tensors: what the pattern itself would say is never asked."""
    kinds = set()
    for tensor in scope:
        try:
            kinds.add(pattern.frame(*tensor.shape).coupling)
        except ShapeError:
            continue
    demand(len(kinds) <= 1, pattern.label(), f"one coupling for all tensors of a scope, got {sorted(kinds)}")
    own = type(pattern).mask is not Pattern.mask or isinstance(pattern, WholeScopePattern)
    demand(
        kinds != {"labels"} or not own, pattern.label(),
        "no `mask` or `masks` beside a coupling by labels: units are chosen for it, and neither would be asked",
    )  # fmt: skip


def _asked(
    pattern: WholeScopePattern, scores: Mapping[str, Matrix], sparsity: float, scope: Sequence[Tensor], at: str
) -> dict[str, Mask]:
    """What `masks` answers, twice, its scores being left alone."""
    shares = {tensor.name: sparsity for tensor in scope}
    answers: list[dict[str, Mask]] = []
    for _ in range(2):
        given = {name: values.copy() for name, values in scores.items()}
        masks: object = pattern.masks(given, dict(shares), scope)
        demand(isinstance(masks, Mapping), at, f"a mapping of masks by tensor name, got {type(masks).__name__}")
        assert isinstance(masks, Mapping)
        names = sorted(scores)
        demand(sorted(masks) == names, at, f"a mask for each of {', '.join(names)}, got {', '.join(map(str, masks))}")
        for name, values in scores.items():
            mask, where = masks[name], f"{at}, {name}"
            demand(isinstance(mask, np.ndarray) and mask.dtype == np.bool_, where, "a bool array")
            demand(mask.shape == values.shape, where, f"a mask of shape {values.shape}, got {mask.shape}")
            demand(np.array_equal(given[name], values), where, "the scores to be left as they were")
        answers.append(dict(masks))
    same = all(np.array_equal(answers[0][name], answers[1][name]) for name in scores)
    demand(same, at, "the same masks when asked twice")
    return answers[0]


def _check_whole(
    masks: Mapping[str, Mask], wider: Mapping[str, Mask], sparsity: float, scope: Sequence[Tensor], at: str
) -> None:
    revived = [name for name, mask in masks.items() if (mask & ~wider[name]).any()]
    demand(not revived, at, f"a subset of what a lower sparsity keeps, got other weights in {', '.join(revived)}")
    kept = sum(int(np.count_nonzero(mask)) for mask in masks.values())
    found = 1 - kept / sum(tensor.size for tensor in scope)
    demand(abs(found - sparsity) <= _OFF, at, f"a sparsity within {_OFF} over all of them, got {found:g}")
