"""How many bits a pruned matrix takes in each storage format, and which format is the smallest.

Bits are counted on the mask itself, with indices of exactly the bits they need; headers (sizes, k, N:M) are not counted
and real memories round widths up. A format that cannot hold a mask is listed with the reason.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.arrays import Mask
from harness.errors import ShapeError, SpecError

_PROBE_ROWS = 16
"""Rows looked at before a whole mask is: most guesses fail in the first few."""

_LARGEST_GROUP = 64
"""The largest M that is looked for in an N:M mask."""


@dataclass(frozen=True)
class FormatSize:
    """One format for one matrix.

    Args:
        name: the format.
        bits: what it takes; None where it cannot hold the matrix.
        fraction: of the dense bits; None likewise.
        detail: what was found in the mask, or the rule that was applied.
        reason: why it cannot hold the matrix, as the end of a sentence; empty if it can.
    """

    name: str
    bits: int | None
    fraction: float | None
    detail: str = ""
    reason: str = ""


def sizes(
    mask: Mask,
    *,
    weight_bits: int = 16,
    banks: int | None = None,
    block: tuple[int, int] | None = None,
    n_m: tuple[int, int] | None = None,
    run_bits: int = 4,
) -> tuple[FormatSize, ...]:
    """The bits of every format, in a fixed order, `dense` first.

    Args:
        mask: True where a weight is kept.
        weight_bits: bits of a weight.
        banks: banks per row for CSB; None takes the largest number that are filled equally.
        block: rows and columns of a block; None takes the largest that is kept or dropped whole.
        n_m: N and M; None takes the M (a power of two that divides the columns) with the fewest bits.
        run_bits: bits of a run length.

    Shapes:
        mask (rows, cols).

    Raises:
        ShapeError: the mask is no matrix, or has no weight.
        SpecError: a width is out of range.

    Source:
        the formulas are those of Compressed Sparse Banks (Cao et al., FPGA 2019), EIE (run lengths) and the usual ones
        of CSR, COO, BSR and bitmaps; `docs/storage.md` writes them down.
    """
    if not 1 <= weight_bits <= 64 or not 1 <= run_bits <= 16:
        raise SpecError(
            f"storage expects `weight_bits` of 1 to 64 and `run_bits` of 1 to 16, got {weight_bits} and {run_bits}"
        )
    view = _View(checked(mask), weight_bits, banks, block, n_m, run_bits)
    return tuple(_size(name, bits_of, view) for name, bits_of in _FORMATS.items())


def best(table: Sequence[FormatSize]) -> FormatSize:
    """The format with the fewest bits; at a tie the earlier one."""
    # Every mask has at least the dense format, so there is a smallest.
    return min((size for size in table if size.bits is not None), key=lambda size: size.bits or 0)


def index_bits(count: int) -> int:
    """Bits that tell `count` places apart: ceil(log2(count)), 0 for a single one."""
    return max(count - 1, 0).bit_length()


def csr_bits(rows: int, nnz: int, weight_bits: int, *, column_bits: int, pointer_bits: int) -> int:
    """Bits of CSR: every weight with its column, and rows + 1 pointers."""
    return nnz * (weight_bits + column_bits) + (rows + 1) * pointer_bits


def csb_bits(nnz: int, weight_bits: int, longest_bank: int) -> int:
    """Bits of CSB: every weight with its place in its bank, no pointers."""
    return nnz * (weight_bits + index_bits(longest_bank))


def split(cols: int, banks: int) -> NDArray[np.intp]:
    """First column of each of `banks` stretches whose lengths differ by at most one, the longer ones first."""
    # The longer banks come first, as the pattern deals them.
    short, longer = divmod(cols, banks)
    bank = np.arange(banks, dtype=np.intp)
    return bank * short + np.minimum(bank, longer)


def bank_counts(mask: Mask, banks: int) -> NDArray[np.int32]:
    """Weights kept in every bank of every row.

    Shapes:
        mask (rows, cols) -> (rows, banks).

    Raises:
        SpecError: there are more banks than columns, or none.
    """
    cols = mask.shape[1]
    if not 1 <= banks <= cols:
        raise SpecError(f"`banks` must be 1 to {cols}, the columns of the matrix, got {banks}")
    counts: NDArray[np.int32] = np.add.reduceat(mask, split(cols, banks), axis=1, dtype=np.int32)
    return counts


def even_banks(mask: Mask) -> int | None:
    """The largest number of banks per row that all keep equally many weights; None if rows already differ."""
    totals = np.count_nonzero(mask, axis=1)
    kept = int(totals[0])
    if (totals != kept).any():
        return None
    # A dense matrix fills any number of banks; each weight its own is the finest.
    if kept == mask.shape[1]:
        return kept
    # Only divisors of what a row keeps can fill banks equally, the largest first: more banks have shorter indices.
    fits = (banks for banks in range(kept, 1, -1) if kept % banks == 0 and _is_even(mask, banks, kept // banks))
    return next(fits, 1)


def uneven(mask: Mask, banks: int) -> str | None:
    """Where banks keep different numbers of weights, as a clause; None if they keep equally many."""
    counts = bank_counts(mask, banks)
    usual = int(np.bincount(counts.ravel()).argmax())
    odd = np.argwhere(counts != usual)
    if not len(odd):
        return None
    row, bank = odd[0].tolist()
    return (
        f"bank {bank} of row {row} keeps {int(counts[row, bank])} weights, most of the {counts.size} banks keep "
        f"{usual} ({len(odd)} differ)"
    )


def whole_block(mask: Mask) -> tuple[int, int]:
    """Rows and columns of the largest aligned block that is everywhere kept or dropped whole."""
    return _repeat(mask.T), _repeat(mask)


def most_per_group(mask: Mask) -> dict[int, int]:
    """The most weights kept in M neighbouring columns, by M: the powers of two up to 64 that divide the columns."""
    found: dict[int, int] = {}
    counts: NDArray[np.uint8] = mask.view(np.uint8)
    group = 1
    while group < _LARGEST_GROUP and counts.shape[1] % 2 == 0:
        # Neighbours are added up, level by level: each doubling needs half the additions of the one before.
        counts = counts[:, ::2] + counts[:, 1::2]  # (rows, cols / group)
        group *= 2
        found[group] = int(counts.max())
    return found


def smallest_n_m(mask: Mask, weight_bits: int) -> tuple[int, int] | None:
    """N and M with the fewest bits among those that a mask obeys with N < M; None if it obeys none."""
    worth = [(kept, group) for group, kept in most_per_group(mask).items() if kept < group]
    # As fractions, since two choices may need equally many bits per weight: the earlier group then wins on any machine.
    return min(worth, key=lambda pair: Fraction(pair[0] * (weight_bits + index_bits(pair[1])), pair[1]), default=None)


def check_groups(mask: Mask, kept: int, group: int) -> None:
    """Pass if every `group` neighbouring columns keep at most `kept` weights.

    Raises:
        ShapeError: the groups do not divide the columns, or one keeps more.
    """
    rows, cols = mask.shape
    if group < 1 or cols % group or not 0 <= kept <= group:
        raise ShapeError(f"n_m: M must divide the {cols} columns and be at least N, got {kept}:{group}; choose others")
    counts = mask.reshape(rows, cols // group, group).sum(axis=2)
    if counts.max() > kept:
        row, place = np.argwhere(counts > kept)[0].tolist()
        raise ShapeError(
            f"n_m: every {group} columns may keep {kept} weights, but group {place} of row {row} keeps "
            f"{int(counts[row, place])}; choose a larger N or another format"
        )


def kept_blocks(mask: Mask, height: int, width: int) -> Mask:
    """Which blocks keep a weight.

    Shapes:
        mask (rows, cols) -> (rows / height, cols / width).
    """
    rows, cols = mask.shape
    return np.asarray(mask.reshape(rows // height, height, cols // width, width).any(axis=(1, 3)))


def padding_entries(mask: Mask, run_bits: int) -> int:
    """Zeros that run-length coding stores, because a run of 2^run_bits zeros does not fit one length.

    Columns are read from the top; runs restart at every column and a run at the end of a column is not padded.
    """
    if mask.all():  # the slowest mask, and the one whose answer is known
        return 0
    columns = np.ascontiguousarray(mask.T)  # (cols, rows)
    kept = np.flatnonzero(columns)  # (nnz,) column * rows + row
    zeros = np.diff(kept, prepend=0) - 1
    counts = np.count_nonzero(columns, axis=1)
    used = np.flatnonzero(counts)
    first = (np.cumsum(counts) - counts)[used]
    # Before the first weight of a column its zeros count from the column's own beginning.
    zeros[first] = kept[first] - used * mask.shape[0]
    return int((zeros >> run_bits).sum())


def checked(mask: Mask) -> Mask:
    """A mask that is one.

    Raises:
        ShapeError: it is no matrix of booleans, or has no weight.
    """
    if mask.ndim != 2 or mask.size == 0 or mask.dtype != np.bool_:
        raise ShapeError(
            f"storage expects a mask of booleans with rows and columns, got {mask.dtype} of shape {mask.shape}; give a "
            "matrix (outputs, inputs)"
        )
    return mask


def _is_even(mask: Mask, banks: int, kept: int) -> bool:
    probe = bank_counts(mask[:_PROBE_ROWS], banks)
    # The first rows refute most guesses, so that few have to be held against the whole mask.
    return bool((probe == kept).all()) and bool((bank_counts(mask, banks) == kept).all())


def _repeat(mask: Mask) -> int:
    """The longest aligned stretch of columns that are equal: it divides every column where something changes."""
    cols: int = mask.shape[1]
    stretch = cols
    for part in (mask[:_PROBE_ROWS], mask):
        changes = np.flatnonzero((part[:, 1:] != part[:, :-1]).any(axis=0)) + 1
        stretch = math.gcd(cols, *changes.tolist())
        if stretch == 1:
            break
    return stretch


@dataclass(frozen=True, eq=False)
class _View:
    """A mask with what several formats want to know of it."""

    mask: Mask
    weight_bits: int
    banks: int | None
    block: tuple[int, int] | None
    n_m: tuple[int, int] | None
    run_bits: int

    @property
    def rows(self) -> int:
        return int(self.mask.shape[0])

    @property
    def cols(self) -> int:
        return int(self.mask.shape[1])

    @property
    def size(self) -> int:
        return self.mask.size

    @cached_property
    def nnz(self) -> int:
        return int(np.count_nonzero(self.mask))

    @cached_property
    def whole(self) -> tuple[int, int]:
        return whole_block(self.mask)


_Answer = tuple[int, str] | str
"""Bits and what was found, or why the format cannot hold the mask."""


def _size(name: str, format_: Callable[[_View], _Answer], view: _View) -> FormatSize:
    try:
        answer = format_(view)
    except SpecError as error:
        answer = str(error)
    if isinstance(answer, str):
        return FormatSize(name, None, None, reason=answer)
    bits, detail = answer
    return FormatSize(name, bits, bits / (view.size * view.weight_bits), detail)


def _dense(view: _View) -> _Answer:
    return view.size * view.weight_bits, ""


def _coo(view: _View) -> _Answer:
    place = index_bits(view.rows) + index_bits(view.cols)
    return view.nnz * (view.weight_bits + place), f"{place} bits of row and column"


def _csr16(view: _View) -> _Answer:
    if view.cols > 1 << 16 or view.nnz >= 1 << 32:
        return f"16-bit columns and 32-bit pointers do not reach {view.cols} columns and {view.nnz} weights"
    bits = csr_bits(view.rows, view.nnz, view.weight_bits, column_bits=16, pointer_bits=32)
    return bits, "16-bit columns, 32-bit pointers"


def _csr(view: _View) -> _Answer:
    column, pointer = index_bits(view.cols), index_bits(view.nnz + 1)
    bits = csr_bits(view.rows, view.nnz, view.weight_bits, column_bits=column, pointer_bits=pointer)
    return bits, f"{column}-bit columns, {pointer}-bit pointers"


def _bitmap(view: _View) -> _Answer:
    return view.size + view.nnz * view.weight_bits, "one bit per weight"


def _csb(view: _View) -> _Answer:
    banks = even_banks(view.mask) if view.banks is None else view.banks
    if banks is None:
        totals = np.count_nonzero(view.mask, axis=1)
        return f"rows keep {totals.min()} to {totals.max()} weights, so no banks are filled equally"
    where = None if view.banks is None else uneven(view.mask, banks)
    if where is not None:
        return where
    longest = -(-view.cols // banks)
    kept = view.nnz // (view.rows * banks)
    return csb_bits(view.nnz, view.weight_bits, longest), f"{banks} banks of up to {longest}, {kept} kept in each"


def _n_m(view: _View) -> _Answer:
    found = smallest_n_m(view.mask, view.weight_bits) if view.n_m is None else view.n_m
    if found is None:
        return f"no group of a power of two that divides {view.cols} columns always drops a weight"
    kept, group = found
    if view.n_m is not None:
        check_groups(view.mask, kept, group)
    slots = view.size // group * kept
    padding = "" if slots == view.nnz else f", {slots - view.nnz} of {slots} slots are padding"
    return slots * (view.weight_bits + index_bits(group)), f"{kept}:{group}{padding}"


def _mcbbs(view: _View) -> _Answer:
    return _clustered(view, view.mask, view.whole[1], "weights of a row")


def _sibbs(view: _View) -> _Answer:
    return _clustered(view, view.mask.T, view.whole[0], "neighbouring rows")


def _clustered(view: _View, mask: Mask, width: int, what: str) -> _Answer:
    """One index per cluster of so many weights along the columns of this mask (or of a transposed one)."""
    answers = []
    # Clusters may be any divisor of what repeats: a shorter one has longer banks, and either may be smaller.
    for size in (size for size in range(2, width + 1) if width % size == 0):
        clusters = mask[:, ::size] if mask is view.mask else mask[:, ::size].T
        banks = even_banks(clusters)
        if banks is not None:
            longest = -(-clusters.shape[1] // banks)
            bits = view.nnz * view.weight_bits + view.nnz // size * index_bits(longest)
            answers.append((bits, f"clusters of {size} {what}, {banks} banks of up to {longest} clusters"))
    return min(answers) if answers else f"no clusters of {what} fill banks equally"


def _block(view: _View) -> _Answer:
    height, width = view.whole if view.block is None else view.block
    if min(height, width) < 1 or view.rows % height or view.cols % width:
        raise ShapeError(f"block: {height} x {width} must divide {view.rows} x {view.cols}; choose divisors")
    if height * width == 1:
        return "no block larger than one weight is kept or dropped whole"
    blocks = kept_blocks(view.mask, height, width)
    count = int(np.count_nonzero(blocks))
    pointers = (view.rows // height + 1) * index_bits(count + 1)
    bits = count * (height * width * view.weight_bits + index_bits(view.cols // width)) + pointers
    padding = count * height * width - view.nnz
    return bits, f"{height} x {width}" + (
        f", {padding} of {count * height * width} slots are padding" if padding else ""
    )


def _compact(view: _View) -> _Answer:
    rows, cols = (int(view.mask.any(axis=axis).sum()) for axis in (1, 0))
    if (rows, cols) == (view.rows, view.cols):
        return "no row or column is pruned whole"
    listed = rows * index_bits(view.rows) + cols * index_bits(view.cols)
    padding = rows * cols - view.nnz
    found = f"{rows} of {view.rows} rows and {cols} of {view.cols} columns"
    return rows * cols * view.weight_bits + listed, found + (f", {padding} zeros among them" if padding else "")


def _run_length(view: _View) -> _Answer:
    entries = view.nnz + padding_entries(view.mask, view.run_bits)
    bits = entries * (view.weight_bits + view.run_bits) + (view.cols + 1) * index_bits(entries + 1)
    rule = "runs restart at every column, the last run of a column is not padded"
    return bits, f"{view.run_bits}-bit runs down the columns, {entries - view.nnz} padding zeros; {rule}"


_FORMATS: Mapping[str, Callable[[_View], _Answer]] = {
    "dense": _dense,
    "coo": _coo,
    "csr16": _csr16,
    "csr": _csr,
    "bitmap": _bitmap,
    "csb": _csb,
    "n_m": _n_m,
    "mcbbs": _mcbbs,
    "sibbs": _sibbs,
    "block": _block,
    "compact": _compact,
    "run_length": _run_length,
}
