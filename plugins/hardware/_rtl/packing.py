"""The words of our Verilog's memories: weights with their places, vectors in the order of their beats."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.api import Mask

Integers = NDArray[np.int64]


def bits(value: int, width: int) -> int:
    """A signed number as two's complement."""
    return value & ((1 << width) - 1)


def lines(words: Iterable[int]) -> str:
    """Words as `$readmemh` reads them, one a line."""
    return "".join(f"{word:x}\n" for word in words)


def address_bits(count: int) -> int:
    """Bits of an address of so many places, at least one."""
    return max(1, (count - 1).bit_length())


@dataclass(frozen=True)
class BankWords:
    """A word of bank_pe.v: from the top the end of the row, the wave, and for every lane an index and a value.

    Args:
        starts: first column of every bank.
        lanes: of a processing element.
        value_bits, index_bits, wave_bits: widths.
    """

    starts: tuple[int, ...]
    lanes: int
    value_bits: int
    index_bits: int
    wave_bits: int

    @property
    def width(self) -> int:
        """Bits of a word."""
        return 1 + self.wave_bits + self.lanes * (self.index_bits + self.value_bits)

    def row(self, values: Integers, kept: Mask) -> list[int]:
        """The words of one row: wave by wave, as many as its fullest bank has weights; one word if it has none at all.

        Shapes:
            values (cols,), kept (cols,).
        """
        cols = np.flatnonzero(kept)
        banks = np.searchsorted(self.starts, cols, side="right") - 1
        # Addresses start anew in every bank, so that an index needs the bits of one bank only.
        # The columns of a bank are neighbours: a weight's slot is its distance from the first of its bank.
        slots = np.arange(len(cols)) - np.searchsorted(banks, banks)
        waves, lanes = np.divmod(banks, self.lanes)
        longest = np.zeros(-(-len(self.starts) // self.lanes), dtype=np.int64)
        np.maximum.at(longest, waves, slots + 1)
        firsts = np.cumsum(longest) - longest
        each, entry = self.lanes * (self.index_bits + self.value_bits), self.index_bits + self.value_bits
        words = [wave << each for wave, count in enumerate(longest.tolist()) for _ in range(count)] or [0]
        found = (firsts[waves] + slots, lanes, cols - np.asarray(self.starts)[banks], values[cols])
        for word, lane, index, value in zip(*(column.tolist() for column in found), strict=True):
            words[word] |= (index << self.value_bits | bits(value, self.value_bits)) << (lane * entry)
        words[-1] |= 1 << (self.width - 1)  # the end of the row
        return words

    def vector(self, values: Integers, wave_beats: int, value_bits: int) -> list[int]:
        """What the vector RAMs of all lanes hold, `wave_beats` places for every wave.

        Shapes:
            values (cols,).
        """
        words = [0] * (wave_beats * -(-len(self.starts) // self.lanes))
        for bank, piece in enumerate(np.split(values, self.starts[1:])):
            wave, lane = divmod(bank, self.lanes)
            for index, value in enumerate(piece.tolist()):
                words[wave * wave_beats + index] |= bits(value, value_bits) << (lane * value_bits)
        return words


def column_words(values: Sequence[int], rows: Sequence[int], value_bits: int, row_bits: int) -> list[int]:
    """The words of one column on one processing element of column_pe.v: its weights, or a dummy.

    Args:
        values: its kept weights, top to bottom.
        rows: their rows within the processing element.
        value_bits: width of a weight.
        row_bits: width of a row.
    """
    # A column without weights takes a word: the PE has to see where it ends.
    pairs = list(zip(rows, values, strict=True)) or [(0, 0)]
    words = [row << value_bits | bits(value, value_bits) for row, value in pairs]
    words[-1] |= 1 << (row_bits + value_bits)  # the end of the column
    return words


def column_streams(
    values: Integers, kept: Mask, pes: int, groups: int, value_bits: int, row_bits: int
) -> list[list[int]]:
    """The words of every processing element, group by group: column j is on group j mod G, row r on PE r mod P.

    Shapes:
        values (rows, cols), kept (rows, cols).
    """
    streams = []
    for group in range(groups):
        for pe in range(pes):
            words: list[int] = []
            own, mask = values[pe::pes, group::groups].T, kept[pe::pes, group::groups].T
            for column, there in zip(own, mask, strict=True):
                rows = np.flatnonzero(there)
                words += column_words(column[rows].tolist(), rows.tolist(), value_bits, row_bits)
            streams.append(words)
    return streams
