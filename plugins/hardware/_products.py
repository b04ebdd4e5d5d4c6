"""From a workload to the matrix-vector products that an engine runs one after another."""

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.api import Mask, ShapeError, SpecError, Tensor, Workload

CostedRole = Literal["lstm", "dense", "softmax", "conv"]


@dataclass(frozen=True)
class Shape:
    """One product without its masks.

    Args:
        layer: the layer's name.
        rows: outputs.
        cols: inputs; of an LSTM layer those of kernel and recurrent kernel together.
        units: units of an LSTM layer, None for other layers.
        pixels: how often the product runs per item (output positions of a convolution).
    """

    layer: str
    rows: int
    cols: int
    units: int | None = None
    pixels: int = 1

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.rows * self.cols


@dataclass(frozen=True, eq=False)
class Part:
    """One tensor of a product: some of its columns. `banks` are the equally filled banks per row, if any."""

    tensor: str
    rows: int
    cols: int
    mask: Mask | None
    banks: int | None

    @cached_property
    def nnz(self) -> int:
        """Weights kept."""
        return self.rows * self.cols if self.mask is None else int(np.count_nonzero(self.mask))

    def counts(self, starts: NDArray[np.intp]) -> NDArray[np.int32]:
        """Weights kept between these columns, row by row.

        Shapes:
            starts (stretches,), the first being 0 -> (rows, stretches).
        """
        if self.mask is None:
            return np.broadcast_to(np.diff(starts, append=self.cols).astype(np.int32), (self.rows, len(starts)))
        kept: NDArray[np.int32] = np.add.reduceat(self.mask, starts, axis=1, dtype=np.int32)
        return kept


@dataclass(frozen=True, eq=False)
class Product:
    """One matrix-vector product: a layer's matrices side by side, `[W_x | W_h]` for an LSTM layer."""

    shape: Shape
    parts: tuple[Part, ...]

    @cached_property
    def nnz(self) -> int:
        """Weights kept."""
        return sum(part.nnz for part in self.parts)

    @property
    def is_dense(self) -> bool:
        """Whether nothing is pruned."""
        return self.nnz == self.shape.size

    @property
    def offsets(self) -> tuple[int, ...]:
        """First column of every part, and the end of the last one."""
        return (0, *np.cumsum([part.cols for part in self.parts]).tolist())

    def counts(self, starts: NDArray[np.intp]) -> NDArray[np.int32]:
        """Weights kept between these columns of the whole product, engine row by engine row.

        The starts must hold the first column of every part. The rows of an LSTM layer are put unit-major (row 4u + g),
        so that the four gates of a unit leave the engine together: a property of the layout, not of the mask.

        Shapes:
            starts (stretches,) -> (rows, stretches).
        """
        pieces = []
        for part, left in zip(self.parts, self.offsets, strict=False):
            inside = starts[(starts >= left) & (starts < left + part.cols)] - left
            pieces.append(part.counts(inside))
        counts = np.hstack(pieces)
        if self.shape.units is None:
            return counts
        gates = self.shape.rows // self.shape.units
        return counts.reshape(gates, self.shape.units, -1).swapaxes(0, 1).reshape(counts.shape)


def products(workload: Workload, roles: tuple[CostedRole, ...]) -> tuple[Product, ...]:
    """The products of a workload, in network order.

    Raises:
        SpecError: nothing is left to cost, or a convolution's output positions are unknown.
        ShapeError: a mask has another shape than its tensor.
    """
    chosen = [tensor for tensor in workload.tensors if tensor.cols is not None and tensor.role in roles]
    if not chosen:
        given = ", ".join(f"{tensor.name} ({tensor.role})" for tensor in workload.tensors) or "no tensors"
        raise SpecError(
            f"hardware models cost matrices with roles {', '.join(roles)}, got {given}; widen the scope or `roles`"
        )
    return tuple(
        _product(layer, tuple(tensors), workload) for layer, tensors in groupby(chosen, key=lambda tensor: tensor.layer)
    )


def left_out(workload: Workload, roles: tuple[CostedRole, ...]) -> tuple[str, ...]:
    """Names of the matrices that are not costed."""
    return tuple(tensor.name for tensor in workload.tensors if tensor.cols is not None and tensor.role not in roles)


def _product(layer: str, tensors: tuple[Tensor, ...], workload: Workload) -> Product:
    parts = tuple(_part(tensor, workload) for tensor in tensors)
    first = tensors[0]
    if first.role == "conv" and layer not in workload.output_pixels:
        raise SpecError(
            f"hardware models need the output positions of {layer!r}, got none; give them as `output_pixels`"
        )
    shape = Shape(
        layer=layer,
        rows=parts[0].rows,
        cols=sum(part.cols for part in parts),
        units=first.rows.size // first.rows.repeat if first.role == "lstm" else None,
        pixels=workload.output_pixels[layer] if first.role == "conv" else 1,
    )
    return Product(shape, parts)


def _part(tensor: Tensor, workload: Workload) -> Part:
    rows, cols = tensor.shape
    mask = workload.masks.get(tensor.name)
    if mask is not None and mask.shape != (rows, cols):
        raise ShapeError(
            f"hardware models expect a mask of shape {(rows, cols)} for {tensor.name!r}, got {mask.shape}; "
            "masks are (outputs, inputs)"
        )
    if mask is not None and mask.all():
        mask = None
    banks = None if mask is None else workload.banks.get(tensor.name)
    return Part(tensor.name, rows, cols, mask, banks)
