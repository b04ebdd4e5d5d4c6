"""The dense array on what is left: rows and columns that are pruned whole are neither stored nor multiplied."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import numpy as np

from harness.api import Conditions, Engine, EngineShape, Mask, Part, Product, Run, hookimpl

from .dense_mvm import DenseMvm


class DenseCompact(DenseMvm):
    """`dense_mvm` on compacted matrices: what pruned units, filters, channels and the like gain without any index.

    Of every matrix the rows without a kept weight in any part of the product are left out, and the columns without one;
    zeros among the rest are multiplied. Which rows and columns are left is two short lists per product, stored with the
    weights and read ahead of them. Inputs are gathered and outputs scattered on their way through the vector memory.

    Assumes: reading the lists hides behind the product: a lower bound on latency. The element-wise part of an LSTM
    still visits all units.
    """

    name: ClassVar[str] = "dense_compact"

    def refusal(self, product: Product) -> str | None:
        """Without masks nobody knows what is left; without an empty row or column nothing is left out."""
        if not product.has_masks:
            return f"it leaves out what a mask prunes whole, and of {product.layer} only a number of weights is known"
        if product.groups > 1:
            return f"the rows of {product.layer} see inputs of {product.groups} groups, and it has one list of inputs"
        if product.nnz == 0:
            return f"nothing of {product.layer} is left"
        left = _compacted(product)
        # A cost that repeats the baseline's would look like a result.
        if left.size == product.size:
            return f"no row or column of {product.layer} is pruned whole: dense_mvm is the same"
        return None

    def shapes(self, products: Sequence[Product], budget: int) -> Sequence[EngineShape]:
        """Those of the dense array on what is left."""
        return super().shapes([_compacted(product) for product in products], budget)

    def lines(self, products: Sequence[Product], budget: int) -> Sequence[Sequence[EngineShape]]:
        """Those of the dense array on what is left."""
        return super().lines([_compacted(product) for product in products], budget)

    def least_cycles(self, product: Product, shape: EngineShape) -> int:
        """Exactly the issue cycles."""
        return super().least_cycles(_compacted(product), shape)

    def simulate(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """The dense array's cycles on what is left; its lists are stored with the weights."""
        left = _compacted(product)
        run = super().simulate(left, shape, conditions)
        # Its lists: which rows and which columns are left.
        bits = left.rows * _index_bits(product.rows) + left.cols * _index_bits(product.cols)
        note = f"{left.rows} of {product.rows} rows and {left.cols} of {product.cols} columns are left"
        return replace(run, stored_bits=run.stored_bits + Fraction(bits), notes=(*run.notes, note))


def _compacted(product: Product) -> Product:
    """The product on the rows and columns that keep anything; as it is where its masks are not known."""
    if not product.has_masks or product.nnz == 0:
        return product
    masks = [np.ones((p.rows, p.cols), np.bool_) if p.mask is None else p.mask for p in product.parts]
    rows = np.logical_or.reduce([mask.any(axis=1) for mask in masks])
    parts = [_part(part, mask[rows]) for part, mask in zip(product.parts, masks, strict=True)]
    units = None if product.units is None or rows.sum() % (product.rows // product.units) else _units(product, rows)
    # A part of which no column is left still stands beside the others in a row; it takes no cycle.
    return replace(product, parts=tuple(part for part in parts if part.cols), units=units)


def _part(part: Part, mask: Mask) -> Part:
    columns = mask.any(axis=0)
    left: Mask = mask[:, columns]
    kept = int(np.count_nonzero(left))
    # Without a mask where all are kept, so that it counts as dense.
    return Part(part.tensor, left.shape[0], left.shape[1], None if kept == left.size else left, kept)


def _units(product: Product, rows: Mask) -> int | None:
    """Units of an LSTM of which all gates are left; None where gates have lost different ones."""
    assert product.units is not None
    gates = rows.reshape(-1, product.units)
    return int(gates[0].sum()) if (gates == gates[0]).all() else None


def _index_bits(count: int) -> int:
    return max(1, count - 1).bit_length()


@hookimpl
def register_engine() -> type[Engine]:
    """Offer this engine to the harness."""
    return DenseCompact
