"""The dense array on packed columns: columns that never need the same row share one, told apart by multiplexers."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.api import Conditions, Engine, EngineShape, Mask, Part, Product, Ram, Run, hookimpl

from .dense_mvm import DenseMvm

_SPARSE = 16
"""Words of a column for one with a bit, from which on those few are picked out: reading in order is cheaper before."""

_LOOKED_AT = 256
"""Of the sparsest columns: where no two of them can be packed, packing the others would gain next to nothing."""


class DensePacked(DenseMvm):
    """`dense_mvm` on packed matrices: what column combining gains.

    Columns of a tensor are packed as the mask has them: from the fullest on, each into the fullest of the columns made
    so far that has no weight in any of its rows and takes no more than `columns`. A weight has an index of
    ceil(log2 `columns`) bits, by which the multiplexer of its lane takes one of as many inputs; rows of a packed column
    without any weight are multiplied by zero. Which columns are packed where is one list per product.

    Assumes: the multiplexers fit between the vector memory and the multipliers at the array's clock; reading the list
    hides behind the product. A mask made by column combining may be packed tighter or wider here than when it was made.

    Source:
        Kung, McDanel and Zhang, "Packing Sparse Convolutional Neural Networks for Efficient Systolic Array
        Implementations: Column Combining Under Joint Optimization", ASPLOS 2019: packed filter matrices, cells that
        multiplex up to 8 inputs, in a bit-serial systolic array; this array is our own.
    """

    name: ClassVar[str] = "dense_packed"
    columns: int = Field(default=8, gt=1, le=64, description="inputs of a lane's multiplexer: columns packed into one")

    def refusal(self, product: Product) -> str | None:
        """Without masks nobody knows what fits together; where nothing does, nothing is gained."""
        if not product.has_masks:
            return f"it packs columns as a mask leaves them, and of {product.layer} only a number of weights is known"
        if product.groups > 1:
            return f"the rows of {product.layer} see inputs of {product.groups} groups, and it has one list of inputs"
        if product.nnz == 0:
            return f"nothing of {product.layer} is left"
        if self._packed(product).cols == sum(_used(part) for part in product.parts):
            return f"no columns of {product.layer} can share one: they need the same rows"
        return None

    def shapes(self, products: Sequence[Product], budget: int) -> Sequence[EngineShape]:
        """Those of the dense array on packed columns."""
        return super().shapes([self._packed(product) for product in products], budget)

    def lines(self, products: Sequence[Product], budget: int) -> Sequence[Sequence[EngineShape]]:
        """Those of the dense array on packed columns."""
        return super().lines([self._packed(product) for product in products], budget)

    def least_cycles(self, product: Product, shape: EngineShape) -> int:
        """Exactly the issue cycles."""
        return super().least_cycles(self._packed(product), shape)

    def simulate(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The dense array's cycles on packed columns, with an index beside every weight and inputs to choose from."""
        packed = self._packed(product)
        run = super().simulate(packed, shape, conditions)
        used, index = min(shape["lanes"], packed.cols), (self.columns - 1).bit_length()
        weights, vector = run.rams
        rams = (
            Ram("weights", weights.width + used * index, weights.depth, weights.count, stacked=True),
            # All inputs of a lane's multiplexer are read at once.
            Ram("vector", vector.width, vector.depth, vector.count * self.columns, small=True),
        )
        listed = product.cols * max(1, packed.cols * self.columns - 1).bit_length()
        note = f"{product.cols} columns are packed into {packed.cols}"
        bits = run.stored_bits + run.stored_words * index + listed
        return replace(run, rams=rams, stored_bits=Fraction(bits), notes=(*run.notes, note))

    def _packed(self, product: Product) -> Product:
        """The product on packed columns; as it is where its masks are not known."""
        if not product.has_masks or product.nnz == 0:
            return product
        known = _PACKED.setdefault(product, {})
        if self.columns not in known:
            parts = [_part(part, self.columns) for part in product.parts]
            # A part of which no column is left still stands beside the others in a row; it takes no cycle.
            known[self.columns] = replace(product, parts=tuple(part for part in parts if part.cols))
        return known[self.columns]


_PACKED: WeakKeyDictionary[Product, dict[int, Product]] = WeakKeyDictionary()
"""By product and columns: a search asks for every shape."""


def _used(part: Part) -> int:
    """Columns with a weight."""
    return part.cols if part.mask is None else int(part.mask.any(axis=0).sum())


def _part(part: Part, most: int) -> Part:
    """A tensor with packed columns, which keep as many weights as before."""
    if part.mask is None or part.is_dense:
        return part
    group = packing(part.mask, most)
    packed: Mask = np.zeros((group.max(initial=-1) + 1, part.rows), np.bool_)
    for column, mine in zip(part.mask.T, group, strict=True):
        if mine >= 0:
            packed[mine] |= column
    return Part(part.tensor, part.rows, len(packed), None if packed.all() else packed.T, part.kept)


def packing(mask: Mask, most: int) -> NDArray[np.intp]:
    """Which packed column every column goes into, -1 for those without a weight.

    Args:
        mask: True where a weight is kept.
        most: columns in a packed one.

    Shapes:
        mask (rows, cols) -> (cols,).
    """
    rows, cols = mask.shape
    bits = np.zeros((cols, -(-rows // 64) * 8), np.uint8)
    bits[:, : -(-rows // 8)] = np.packbits(mask.T, axis=1)
    words = bits.view(np.uint64)  # (cols, ceil(rows / 64)): whether two columns share a row is a few ands
    counts = np.count_nonzero(mask, axis=0)
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    group = np.full(cols, -1, np.intp)
    if not _any_apart(words[order[-_LOOKED_AT:]]):
        group[order] = np.arange(len(order))
        return group
    packed, filled, sizes = np.zeros_like(words), np.zeros(cols, np.int64), np.zeros(cols, np.int64)
    opened = 0
    for column in order.tolist():
        here = np.flatnonzero(words[column])
        if len(here) * _SPARSE < words.shape[1]:
            # Of a sparse column few words have a bit: only those can meet another column's.
            shared = (packed[:opened, here] & words[column, here]).any(axis=1)
        else:
            shared = (packed[:opened] & words[column]).any(axis=1)
        room = np.where(shared | (sizes[:opened] == most), -1, filled[:opened])
        chosen = int(room.argmax()) if opened else 0
        if not opened or room[chosen] < 0:
            chosen, opened = opened, opened + 1
        packed[chosen] |= words[column]
        filled[chosen] += counts[column]
        sizes[chosen] += 1
        group[column] = chosen
    return group


def _any_apart(words: NDArray[np.uint64]) -> bool:
    """Whether any two columns share no row."""
    return any(not (words[place + 1 :] & words[place]).any(axis=1).all() for place in range(len(words) - 1))


@hookimpl
def register_engine() -> type[Engine]:
    """Offer this engine to the harness."""
    return DensePacked
