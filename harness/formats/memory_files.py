"""Packed matrices as memory files for RTL: words of exactly the bits that hardware has, for `$readmemh`.

Floats are quantised here, and only here; a manifest beside the files says by which scale and what a word is made of.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.api.component import JsonValue
from harness.arrays import Array
from harness.errors import DataError, SpecError
from harness.formats import storage
from harness.formats.packing import Packed


@dataclass(frozen=True, eq=False)
class Quantised:
    """Weights as integers: `scale` x integer is the weight that hardware has."""

    integers: NDArray[np.int64]
    scale: float


def quantised(values: Array, weight_bits: int) -> Quantised:
    """Weights as signed integers of so many bits, symmetric around zero, ties to even.

    Integers are taken as they are, with scale 1.

    Raises:
        SpecError: an integer does not fit, or the width is out of range.
        DataError: a weight is NaN or infinite.
    """
    if not 2 <= weight_bits <= 32:
        raise SpecError(
            f"memory files hold weights of 2 to 32 bits, got `weight_bits` of {weight_bits}; choose among them"
        )
    most = (1 << (weight_bits - 1)) - 1
    # Integers are what hardware holds already: they are checked, not scaled.
    if values.dtype.kind in "iub":
        integers = values.astype(np.int64)
        if integers.size and not -most - 1 <= integers.min() <= integers.max() <= most:
            raise SpecError(
                f"memory files of {weight_bits}-bit weights hold {-most - 1} to {most}, got {integers.min()} to "
                f"{integers.max()}; raise `weight_bits`"
            )
        return Quantised(integers, 1.0)
    floats = values.astype(np.float64)
    if not np.isfinite(floats).all():
        raise DataError("memory files hold finite weights, got NaN or infinity; repair the weights")
    largest = float(np.abs(floats).max(initial=0.0))
    scale = largest / most if largest else 1.0
    # Ties to even, as NumPy and most quantisers round: half up would shift the mean.
    return Quantised(np.rint(floats / scale).astype(np.int64), scale)


def memory_files(
    name: str, packed: Packed, *, weight_bits: int = 16, pes: int | None = None, lanes: int | None = None
) -> dict[str, str]:
    """Files for `$readmemh` by file name, and a manifest in JSON that says what a word is.

    Every array of the packed matrix is one file, one element per line, negative values in two's complement. With `pes`
    and `lanes`, CSB has a file per processing element too, one line per cycle of the bank engine's RTL: row r is on PE
    r mod pes, its words are ordered by wave (`lanes` neighbouring banks), then by place in the bank, and lane l takes
    the bits from l x (weight + index bits) on: the weight below, its index above. Above all lanes stand the wave and,
    on top, a bit that ends the row. Lanes without a bank hold zeros.

    Args:
        name: of the tensor; file names begin with it.
        packed: the matrix.
        weight_bits: bits of a weight.
        pes: processing elements of the bank engine.
        lanes: lanes of each.

    Raises:
        SpecError: a width or shape cannot be had, or `pes` and `lanes` are given for another format than CSB.
    """
    if (pes is None) != (lanes is None) or (pes is not None and packed.format != "csb"):
        raise SpecError(
            f"memory files per PE need format csb, `pes` and `lanes`; got {packed.format}, {pes} and {lanes}"
        )
    weights = quantised(packed.arrays["values"], weight_bits)
    words = {"values": (weights.integers, weight_bits)} | {
        part: (array.astype(np.int64), _width(packed, part))
        for part, array in packed.arrays.items()
        if part != "values"
    }
    base = re.sub(r"[^\w.-]", "_", name)
    texts = {f"{base}.{part}.hex": _hex(array.ravel().tolist(), bits) for part, (array, bits) in words.items()}
    widths: dict[str, JsonValue] = {part: bits for part, (_, bits) in words.items()}
    if pes is not None and lanes is not None:
        if min(pes, lanes) < 1:
            raise SpecError(f"memory files per PE need at least one PE and one lane, got {pes} and {lanes}")
        word = _pe_word(packed, weight_bits, lanes)
        widths["pe"] = {"word": word.bits, "wave": word.wave_bits, "index": word.index_bits, "weight": weight_bits}
        for pe, lines in enumerate(_pe_words(packed, weights.integers, word, pes)):
            texts[f"{base}.pe{pe}.hex"] = _hex(lines, word.bits)
    manifest: dict[str, JsonValue] = {
        "tensor": name,
        "format": packed.format,
        "shape": list(packed.shape),
        "sizes": dict(packed.sizes),
        "arrays": {part: list(array.shape) for part, (array, _) in words.items()},
        "word_bits": widths,
        "scale": weights.scale,
    }
    return texts | {f"{base}.json": json.dumps(manifest, indent=2) + "\n"}


def _width(packed: Packed, part: str) -> int:
    if part == "bits":
        return 8
    if part == "pointers":
        return max(1, storage.index_bits(math.prod(packed.arrays["indices"].shape) + 1))
    return max(1, packed.index_bits)


def _hex(words: Iterable[int], bits: int) -> str:
    digits, every = -(-bits // 4), (1 << bits) - 1
    # As two's complement of the width: `$readmemh` knows no sign.
    return "".join(f"{word & every:0{digits}x}\n" for word in words)


@dataclass(frozen=True)
class PeWord:
    """The word of a processing element, from its top: end of row (1 bit), wave, and index and weight of every lane."""

    lanes: int
    weight_bits: int
    index_bits: int
    wave_bits: int

    @property
    def bits(self) -> int:
        """Bits of the whole word."""
        return 1 + self.wave_bits + self.lanes * (self.index_bits + self.weight_bits)


def _pe_word(packed: Packed, weight_bits: int, lanes: int) -> PeWord:
    waves = -(-packed.sizes["banks"] // lanes)
    return PeWord(lanes, weight_bits, _width(packed, "indices"), max(1, storage.index_bits(waves)))


def _pe_words(packed: Packed, values: NDArray[np.int64], word: PeWord, pes: int) -> list[list[int]]:
    """The wide words of every processing element; a row that keeps nothing is one word of zeros."""
    rows, kept, banks = values.shape
    waves = -(-banks // word.lanes)
    fields = (values & ((1 << word.weight_bits) - 1)) | (packed.arrays["indices"].astype(np.int64) << word.weight_bits)
    padded = np.zeros((rows, kept, waves * word.lanes), dtype=np.int64)
    padded[:, :, :banks] = fields
    slots = padded.reshape(rows, kept, waves, word.lanes).swapaxes(1, 2).reshape(rows, waves * kept, word.lanes)
    if kept == 0:
        slots, kept = np.zeros((rows, 1, word.lanes), dtype=np.int64), 1
    step = word.index_bits + word.weight_bits
    tops = [(slot // kept) << word.lanes * step for slot in range(slots.shape[1])]
    # The end of a row is marked in its last word, so that rows need no lengths.
    tops[-1] |= 1 << (word.bits - 1)
    return [
        [
            top | sum(entry << lane * step for lane, entry in enumerate(entries))
            for row in slots[pe::pes].tolist()
            for top, entries in zip(tops, row, strict=True)
        ]
        for pe in range(pes)
    ]
