"""The memories of a column engine: what each PE and each group of PEs holds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.api import Conditions, Ram


@dataclass(frozen=True)
class ColumnMemory:
    """The memories, the bits that all weights take as stored, and the words of them, what pads them included."""

    rams: tuple[Ram, ...]
    stored_bits: int
    stored_words: int


@dataclass(frozen=True)
class ColumnLayout:
    """How a column engine stores one product.

    Args:
        rows, cols: of the product.
        pes, groups: the shape; column j is on group j mod groups.
        index_bits: bits of a run of zeros; None stores the row on the PE.
        has_pointers: whether a pointer finds every column, as it must where columns are skipped. Otherwise a bit ends a
            column, and a column without weights takes a word for that bit.
        fifo_depth: columns that a PE can queue.
        channels: inputs served side by side, from the same weights.
    """

    rows: int
    cols: int
    pes: int
    groups: int
    index_bits: int | None
    has_pointers: bool
    fifo_depth: int
    channels: int

    def memory(self, entries: NDArray[np.integer], conditions: Conditions) -> ColumnMemory:
        """All memories; vectors are double-buffered, since an output may be the next input.

        Shapes:
            entries (pes, cols): weights of every column on every PE, padding included.
        """
        return self.sized(*self._words(entries), conditions)

    def sized(self, fullest: int, words: int, conditions: Conditions) -> ColumnMemory:
        """The same for so many words in the fullest PE, and in all."""
        all_pes = self.pes * self.groups
        weights = Ram("weights", self._word_bits(conditions), max(1, fullest), all_pes, stacked=True)
        # Where columns are skipped a PE jumps: it needs the start of every column, and no end marks.
        pointers = Ram("pointers", fullest.bit_length(), self._broadcasts + 1, all_pes, stacked=True)
        stored = weights.width * words + self.has_pointers * pointers.width * pointers.depth * pointers.count
        rams = (weights, pointers) if self.has_pointers else (weights,)
        return ColumnMemory((*rams, *self._state(conditions)), stored, words)

    def _words(self, entries: NDArray[np.integer]) -> tuple[int, int]:
        """Words in the fullest PE, and in all."""
        # A dummy stands for every empty column that is not skipped by pointer.
        stored = entries if self.has_pointers else np.maximum(entries, 1)
        loads = [stored[:, group :: self.groups].sum(axis=1, dtype=np.int64) for group in range(self.groups)]
        return max(int(load.max()) for load in loads), sum(int(load.sum()) for load in loads)

    def _word_bits(self, conditions: Conditions) -> int:
        """A weight, where it belongs, and the end of its column."""
        row_bits = (self._rows_per_pe - 1).bit_length() if self.index_bits is None else self.index_bits
        # The end mark; pointers make it needless.
        return conditions.weight_bits + row_bits + (not self.has_pointers)

    def _state(self, conditions: Conditions) -> tuple[Ram, ...]:
        """Sums, vectors and queues. A queue holds vector elements and, to find a column by its pointer, its number."""
        activation, all_pes = conditions.activation_bits, self.pes * self.groups
        queued = activation * self.channels + self.has_pointers * (self._broadcasts - 1).bit_length()
        return (
            Ram("accumulators", conditions.accumulator_bits, self._rows_per_pe, all_pes * self.channels, small=True),
            # Twice, to be written while it is read; the sums are read out at the end, and once is enough.
            Ram("vector", activation, 2 * self._broadcasts, self.groups * self.channels, small=True),
            Ram("fifo", queued, self.fifo_depth, all_pes, small=True),
        )

    @property
    def _rows_per_pe(self) -> int:
        return -(-self.rows // self.pes)

    @property
    def _broadcasts(self) -> int:
        """Columns of the longest group."""
        return -(-self.cols // self.groups)
