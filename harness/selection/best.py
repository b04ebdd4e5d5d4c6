"""Which scores are the highest of each group, exactly, ties at the lower index; in cache-sized pieces.

Three ways, by the size of the groups: a handful of units are compared in all pairs, banks and rows are sorted, and the
threshold of a whole matrix is bracketed by a sample, so that only the few scores near it are sorted. All give the same
answer; `harness.selection.layout` knows what units and groups mean.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.arrays import Mask, Matrix

PIECE = 1 << 17
"""Scores worked on at a time: with their masks they stay in the cache while they are worked on."""

_COMPARED_UP_TO = 16
"""Groups of at most so many scores are compared in all pairs, larger ones sorted (measured break-even)."""

_SORTED_UP_TO = 512
"""Groups of at most so many scores are sorted whole, larger ones only partitioned (measured break-even)."""

_SAMPLED_FROM = 1 << 13
"""From this size on, a group's threshold is bracketed by a sample (measured break-even)."""


def best(scores: Matrix, quota: int, out: Mask | None = None) -> Mask:
    """The `quota` highest of each row, ties at the lower column.

    Args:
        scores: finite or -inf; not modified.
        quota: how many to keep of each row, at most its length.
        out: where to write the mask, C-contiguous; a new one by default.

    Shapes:
        scores (groups, size) -> mask (groups, size).
    """
    size = scores.shape[1]
    mask: Mask = np.empty(scores.shape, dtype=np.bool_) if out is None else out
    # Nothing to compare; the ways below rely on a threshold between two scores.
    if quota in (0, size):
        mask[...] = quota == size
        return mask
    if scores.dtype == np.float16:
        scores = scores.astype(np.float32)  # same order, and compared many times faster
    if size <= _COMPARED_UP_TO:
        return _by_pairs(np.ascontiguousarray(scores), quota, mask)
    if size < _SAMPLED_FROM:
        return _by_sorting(scores, quota, mask)
    for group, kept in zip(np.ascontiguousarray(scores), mask, strict=True):
        if not _within(_bracket(group, quota), group, quota, kept):
            # The sample misled, which is rare: one exact threshold, and the same pass over it.
            threshold = np.partition(group, size - quota)[size - quota]
            _within((threshold, threshold), group, quota, kept)
    return mask


def _by_pairs(scores: Matrix, quota: int, mask: Mask) -> Mask:
    """As `best`, by counting how many others beat each score: a few passes, and nothing is moved.

    Scores `distance` apart are neighbours in memory for all groups at once; pairs that straddle two groups are blanked.
    """
    groups, size = scores.shape
    flat = scores.reshape(-1)
    start, same_group = _pairs(size, len(flat))
    beaten_by = start.copy()
    for distance in range(1, min(size, len(flat))):
        lower_wins = np.greater_equal(flat[:-distance], flat[distance:])  # on a tie too
        won = lower_wins.view(np.uint8)
        # Pairs over a border between groups count for nobody.
        won &= same_group[distance - 1, :-distance]
        beaten_by[distance:] += won
        beaten_by[:-distance] -= won
    return np.less(beaten_by.reshape(groups, size), quota, out=mask)


@lru_cache(maxsize=4)
def _pairs(size: int, length: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Constants of `_by_pairs` for groups laid end to end: rivals to the right, and which pairs are of one group.

    Shapes:
        (length,) and (size - 1, length); entry (d - 1, i) is 1 where i and i + d are in one group.
    """
    place = np.resize(np.arange(size), length)
    right = (size - 1 - place).astype(np.uint8)
    same_group = (np.arange(1, size)[:, None] <= right).astype(np.uint8)
    return right, same_group


def _by_sorting(scores: Matrix, quota: int, mask: Mask) -> Mask:
    """As `best`, by a sorted copy, which has the threshold of each group in one place and what comes next below it."""
    size = scores.shape[1]
    ordered = scores.copy()
    if size <= _SORTED_UP_TO:
        ordered.sort(axis=1)
        below = ordered[:, size - quota - 1]
    else:
        ordered.partition(size - quota, axis=1)  # one place only: NumPy 2.4 is five times slower with two
        below = ordered[:, : size - quota].max(axis=1)
    threshold = ordered[:, size - quota, None].copy()
    # Only where the first dropped score equals the last kept one do ties have to be told apart.
    surplus = np.flatnonzero(below == threshold[:, 0])
    ordered[...] = threshold  # one long comparison is quicker than one per group
    np.greater_equal(scores, ordered, out=mask)
    if len(surplus):
        mask[surplus] = _without_late_ties(scores[surplus], threshold[surplus], quota)
    return mask


def _without_late_ties(scores: Matrix, threshold: Matrix, quota: int) -> Mask:
    """What lies above the threshold, and the first of the scores equal to it, `quota` of each row."""
    above, ties = scores > threshold, scores == threshold
    wanted = quota - np.count_nonzero(above, axis=1, keepdims=True)
    seen = np.cumsum(ties, axis=1, dtype=np.int32)
    kept: Mask = above | (ties & (seen <= wanted))
    return kept


def _bracket(scores: Matrix, quota: int) -> tuple[np.floating, np.floating]:
    """Two values that hold the quota-th highest score between them, judged by a sample: most likely, not certainly.

    Shapes:
        scores (size,).
    """
    step = max(1, round(len(scores) ** 0.5 / 80)) | 1  # odd, so that columns of an even matrix are met in turn
    sample = np.sort(scores[::step])
    share = 1 - quota / len(scores)
    position = share * len(sample)
    slack = 4 * (share * (1 - share) * len(sample)) ** 0.5 + 8  # four standard deviations of the sample's quantile
    # The quantile of a sample may leave it on either side; then that side of the bracket is open.
    low, high = int(position - slack), int(position + slack)
    bottom, top = scores.dtype.type(-np.inf), scores.dtype.type(np.inf)
    return (sample[low] if low >= 0 else bottom), (sample[high] if high < len(sample) else top)


def _within(bracket: tuple[np.floating, np.floating], scores: Matrix, quota: int, mask: Mask) -> bool:
    """Keep the `quota` highest scores, if the threshold lies within the bracket: then in one pass over most of them.

    Args:
        bracket: (low, high), not above it; equal if the threshold is known.
        scores: of one group.
        quota: how many to keep.
        mask: written; right only where the answer is true.

    Returns:
        Whether the threshold lies within the bracket.

    Shapes:
        scores (size,), mask (size,).
    """
    low, high = bracket
    between: list[NDArray[np.intp]] = []
    missing = quota
    flags = np.empty(min(PIECE, len(scores)), np.bool_)
    for start in range(0, len(scores), PIECE):
        part, kept = scores[start : start + PIECE], mask[start : start + PIECE]
        np.greater_equal(part, high, out=kept)
        missing -= int(np.count_nonzero(kept))
        if low < high:
            near = np.greater(part, low, out=flags[: len(part)])
            between.append(np.flatnonzero(np.not_equal(near, kept, out=near)) + start)
    # More lie at or above the upper end than wanted: it is the threshold itself, met several times.
    if missing < 0:
        return _settle_ties(scores, mask, high, -missing, keep=False)
    if low == high:
        return missing == 0
    places = np.concatenate(between)
    # All in between stay, and the rest are ties at the lower end.
    if missing >= len(places):
        mask[places] = True
        return _settle_ties(scores, mask, low, missing - len(places), keep=True)
    if missing:
        near = scores[places].reshape(1, -1)
        mask[places] = _by_sorting(near, missing, np.empty(near.shape, np.bool_))[0]
    return True


def _settle_ties(scores: Matrix, mask: Mask, value: np.floating, count: int, *, keep: bool) -> bool:
    """Keep the first, or drop the last, `count` scores equal to a value; False if there are not so many."""
    starts = range(0, len(scores), PIECE)
    for start in starts if keep else reversed(starts):
        if not count:
            break
        kept = mask[start : start + PIECE]
        ties = scores[start : start + PIECE] == value
        found = int(np.count_nonzero(ties))
        if found > count:
            places = np.flatnonzero(ties)
            ties[places[count:] if keep else places[:-count]] = False
            found = count
        kept[ties] = keep
        count -= found
    return not count
