"""Masks drawn from statistics: what a mask with so many weights kept, or so many per bank, looks like on average.

Drawn rather than computed where a cost has no closed form. The random numbers have 16 bits, so that a chance is off by
at most 2^-16; the number of weights kept is exact.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.api import Mask, Part, Product, Run

_ENOUGH_WEIGHTS = 6_000_000
_MOST_DRAWS = 8
_STEPS = 1 << 16

Statistics = tuple[int, tuple[tuple[int, int, int | None], ...]]
"""Rows, and of every part its columns, weights kept and banks."""


def statistics(product: Product) -> Statistics:
    """All that a drawn product shares with the real one."""
    return product.rows, tuple((part.cols, part.kept, part.banks) for part in product.parts)


def draws(given: Statistics) -> int:
    """How many masks give a steady mean: one of a large matrix, several of a small one."""
    rows, parts = given
    size = rows * sum(cols for cols, _, _ in parts)
    # All kept or none: there is nothing to draw.
    if all(kept in (0, rows * cols) for cols, kept, _ in parts):
        return 1
    return max(1, min(_MOST_DRAWS, _ENOUGH_WEIGHTS // size))


@lru_cache(maxsize=16)
def drawn(given: Statistics, seed: int) -> Product:
    """A product of one part whose mask is random but has these statistics; the same for the same seed.

    A tensor with banks keeps equally many weights in every bank of every row; any other keeps its weights anywhere.
    """
    rows, parts = given
    if all(kept == rows * cols for cols, kept, _ in parts):
        # A mask of nothing but kept weights would only take memory.
        return Product("drawn", (_dense("drawn", rows, sum(cols for cols, _, _ in parts)),))
    rng = np.random.default_rng(seed)
    masks = [_mask(rng, rows, cols, kept, banks) for cols, kept, banks in parts]
    mask = masks[0] if len(masks) == 1 else np.hstack(masks)  # side by side once, not whenever the mask is looked at
    return Product("drawn", (Part("drawn", rows, mask.shape[1], mask, sum(kept for _, kept, _ in parts)),))


def _dense(name: str, rows: int, cols: int) -> Part:
    """A tensor that keeps every weight."""
    return Part(name, rows, cols, None, rows * cols)


def mean_of(runs: Sequence[Run]) -> Run:
    """The mean of the same product's runs on one shape; its memories are those of the first."""
    first = runs[0]
    return Run(
        parts={name: _mean([run.parts[name] for run in runs]) for name in first.parts},
        # Memories have whole words, so that theirs is no mean; those of the draws differ by little.
        rams=first.rams,
        last=_mean([run.last for run in runs]),
        last_rows=first.last_rows,
        stored_bits=_mean([run.stored_bits for run in runs]),
        stored_words=_mean([run.stored_words for run in runs]),
        notes=first.notes,
    )


def _mean(values: Sequence[Fraction]) -> Fraction:
    return sum(values, Fraction(0)) / len(values)


def _mask(rng: np.random.Generator, rows: int, cols: int, kept: int, banks: int | None) -> Mask:
    # Banks that no whole number of weights fills cannot be equal: such a mask is drawn as if it had none.
    if banks is None or kept % (rows * banks) or kept == rows * cols:
        return _anywhere(rng, rows * cols, kept).reshape(rows, cols)
    short, longer = divmod(cols, banks)
    quota = kept // (rows * banks)
    # The longer banks stand first, as `split` of the bank engine cuts them.
    left = _balanced(rng, rows, longer, short + 1, quota)
    right = _balanced(rng, rows, banks - longer, short, quota)
    return np.hstack([left, right])


def _words(rng: np.random.Generator, size: int) -> NDArray[np.uint16]:
    whole = rng.integers(0, 1 << 64, size=-(-size // 4), dtype=np.uint64)  # four at a time: three times as fast
    return whole.view(np.uint16)[:size]


def _anywhere(rng: np.random.Generator, size: int, kept: int) -> Mask:
    """So many of `size`, every choice equally likely."""
    # 16 random bits decide one weight: enough, since the excess is put right afterwards.
    mask: Mask = _words(rng, size) < round(kept / size * _STEPS)
    while excess := int(np.count_nonzero(mask)) - kept:
        wrong = excess > 0  # too many are kept, or too many are not: turn some of them
        places = np.unique(rng.integers(0, size, size=2 * abs(excess) + 8))
        turned = places[mask[places] == wrong]
        mask[rng.permutation(turned)[: abs(excess)]] = not wrong
    return mask


def _balanced(rng: np.random.Generator, rows: int, banks: int, length: int, quota: int) -> Mask:
    """So many of every bank: column by column, each kept with the chance of what its bank still needs."""
    need = np.full(rows * banks, quota, dtype=np.uint32)
    # A column of all banks at a time: the loop is as long as a bank, not as the matrix.
    mask = np.empty((length, rows * banks), dtype=np.bool_)
    for column, kept in enumerate(mask):
        np.less(_words(rng, rows * banks) * np.uint32(length - column), need * np.uint32(_STEPS), out=kept)
        need -= kept
    # In rows of that layout a bank is a column; back in the mask it is a stretch of its row.
    return np.ascontiguousarray(mask.T).reshape(rows, banks * length)
