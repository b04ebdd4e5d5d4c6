"""The operators of ONNX that multiply by weights: where these stand among their inputs, and how they lie."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.formats.onnx_constants import attribute
from harness.formats.weight_arrays import Orientation

_GATES = [0, 2, 3, 1]
"""Where i, f, g, o stand among the gates i, o, f, c of ONNX."""

_MOST_BATCH = 4096
"""Matrices of one constant: experts, or heads."""


@dataclass(frozen=True, eq=False)
class Operand:
    """Weights as a product takes them.

    Args:
        place: the input of the node that they are.
        array: the numbers, those at their zero point being zero.
        orientation: how they lie.
        suffix: what tells this matrix from others of the same constant.
        layer: the recurrent layer it belongs to.
        lstm: whether it is the recurrent matrix, of an LSTM or a GRU.
        groups: of a convolution.
        is_transposed: whether it is of a transposed convolution.
        is_kernel: whether it is of a convolution at all.
        stack: how many matrices of the constant the node multiplies by, this one among them.
    """

    place: int
    array: Array
    orientation: Orientation
    suffix: str = ""
    layer: str = ""
    lstm: bool | None = None
    groups: int = 1
    is_transposed: bool = False
    is_kernel: bool = False
    stack: int = 1


Take = Callable[[int], Array | None]
"""The constant at an input of a node, None where it is no constant."""


def _shifted(array: Array, zero: Array | None, axis: int) -> Array:
    """The numbers less their zero point: one for all, or one for every place along an axis."""
    if zero is None or not zero.size:
        return array
    points = zero.astype(np.int64)
    if points.size > 1:
        # Along the axis of the outputs, which lies elsewhere on the left and on the right side.
        shape = [1] * array.ndim
        shape[axis] = -1
        points = points.reshape(shape) if points.ndim == 1 else points
    return np.asarray(array.astype(np.int64) - points)


def _matrices(place: int, array: Array, orientation: Orientation) -> Iterator[Operand]:
    """The matrices of a constant with two axes or more; a stack of them is one product each."""
    if array.ndim < 2:
        return
    # Leading axes are a batch: every matrix in it is a product of its own.
    stack = array.reshape(-1, *array.shape[-2:])
    if len(stack) > _MOST_BATCH:
        return
    for index, matrix in enumerate(stack):
        yield Operand(place, matrix, orientation, f"[{index}]" if len(stack) > 1 else "", stack=len(stack))


def _product(node: Any, take: Take, left: int, right: int, zeros: tuple[int, int] | None = None) -> Iterator[Operand]:
    """Left is (outputs, inputs), right (inputs, outputs); `transA` and `transB` turn them."""
    sides: tuple[tuple[int, str, int, Orientation], ...] = (
        (left, "transA", -2, "rows_out"),
        (right, "transB", -1, "rows_in"),
    )
    for side, (place, turn, axis, orientation) in enumerate(sides):
        array = take(place)
        if array is None or array.ndim < 2:
            continue
        turned = array.swapaxes(-1, -2) if attribute(node, turn, 0) else array
        # A zero point is given for every output: for every row on the left, for every column on the right.
        yield from _matrices(place, _shifted(turned, take(zeros[side]) if zeros else None, axis), orientation)


def _convolution(node: Any, take: Take, place: int, zero: int | None = None) -> Iterator[Operand]:
    array, groups = take(place), max(1, attribute(node, "group", 1))
    # Every group has outputs of its own: where they do not come out even, it is no valid convolution.
    if array is not None and array.ndim > 2 and not len(array) % groups:
        shifted = _shifted(array, None if zero is None else take(zero), 0)
        yield Operand(place, shifted, "rows_out", groups=groups, is_kernel=True)


def _transposed_convolution(node: Any, take: Take) -> Iterator[Operand]:
    """The kernel lies as (inputs, outputs of a group, *window): turned to (outputs, inputs of a group, *window)."""
    array, groups = take(1), max(1, attribute(node, "group", 1))
    # A kernel whose channels the groups do not divide is no valid one: told as a product without weights.
    if array is None or array.ndim < 3 or len(array) % groups:
        return
    # Inputs of a group first, then its outputs: the harness counts the inputs of one group per row.
    cut = array.reshape(groups, -1, *array.shape[1:]).swapaxes(1, 2)
    yield Operand(1, cut.reshape(-1, *cut.shape[2:]), "rows_out", groups=groups, is_transposed=True, is_kernel=True)


def _recurrent(node: Any, take: Take, zeros: tuple[int, int] | None = None) -> Iterator[Operand]:
    """Both matrices of every direction of an LSTM, a GRU or a plain recurrence; quantised ones are stored turned."""
    layer = next((str(name) for name in (node.name, *node.output, "recurrent") if name), "recurrent")
    if layer.startswith("node_") and (told := _layer(node)):
        # Numbered still: all layers of a stacked LSTM are calls of one module.
        layer = f"{told}.{layer.removeprefix('node_')}"
    for place in (1, 2):
        array = take(place)
        if array is None or array.ndim != 3:
            continue
        if zeros is not None:
            zero = take(zeros[place - 1])
            if zero is not None and zero.size == len(array):
                zero = zero.reshape(-1, 1, 1)
            array = _shifted(array, zero, 2).swapaxes(1, 2)
        for direction, matrix in enumerate(array):
            own = layer + (("", "_reverse")[direction] if direction < 2 else f"_{direction}")
            is_lstm = node.op_type.endswith("LSTM") and len(matrix) % 4 == 0
            # The blocks of gates in the order that the harness has, so that engines may interleave them.
            gates = matrix.reshape(4, -1, matrix.shape[1])[_GATES] if is_lstm else matrix
            yield Operand(
                place,
                gates.reshape(matrix.shape),
                "rows_out",
                f".{'_WR'[place]}",
                own,
                # The gates of a GRU are blocks as well; which of them is which decides no cycle.
                place == 2 if is_lstm or (node.op_type == "GRU" and len(matrix) % 3 == 0) else None,
            )


def _einsum(node: Any, take: Take) -> Iterator[Operand]:
    """The letters that the result lacks are inputs, the others outputs."""
    equation = attribute(node, "equation", "").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or len(terms) != len(node.input):
        return
    for place, term in enumerate(terms):
        array = take(place)
        if array is None or array.ndim != len(term) or len(set(term)) != len(term):
            continue
        others = "".join(terms[:place] + terms[place + 1 :])
        # A letter that the other operand has too, and the result keeps, runs along: a matrix for each of its places.
        batch = [axis for axis, letter in enumerate(term) if letter in result and letter in others]
        rows = [axis for axis, letter in enumerate(term) if letter in result and letter not in others]
        cols = [axis for axis, letter in enumerate(term) if letter not in result]
        if rows and cols:
            turned = array.transpose([*batch, *rows, *cols])
            shape = [array.shape[axis] for axis in batch]
            height = int(np.prod([array.shape[axis] for axis in rows]))
            yield from _matrices(place, turned.reshape(*shape, height, -1), "rows_out")


def _few_bits(node: Any, take: Take) -> Iterator[Operand]:
    """`MatMulNBits`: integers of 2, 4 or 8 bits in blocks along the inputs, the lowest bits first.

    Source:
        ONNX Runtime, ContribOperators, com.microsoft.MatMulNBits: B (N, blocks, bytes), zero points 2^(bits - 1) where
        none are given.
    """
    packed, points = take(1), take(3)
    inputs, outputs = attribute(node, "K", 0), attribute(node, "N", 0)
    bits, block = attribute(node, "bits", 4), attribute(node, "block_size", 0)
    if packed is None or packed.dtype != np.uint8 or bits not in (2, 4, 8) or not block or not inputs * outputs:
        return
    blocks = -(-inputs // block)
    # Packed in another layout by some versions: what does not come out exactly is not guessed.
    if packed.size * 8 != outputs * blocks * block * bits:
        return
    weights = _bytes_as(packed.reshape(outputs, -1), bits).reshape(outputs, blocks, block)
    zeros = np.full((outputs, blocks), 1 << (bits - 1))
    if points is not None and points.size:
        if points.dtype != np.uint8:
            return  # zero points that are no integers
        zeros = _bytes_as(points.reshape(outputs, -1), bits)[:, :blocks]
    yield Operand(1, (weights - zeros[..., None]).reshape(outputs, -1)[:, :inputs], "rows_out")


def _bytes_as(packed: Array, bits: int) -> Array:
    fields = (packed.astype(np.int64)[..., None] >> (np.arange(8 // bits) * bits)) & ((1 << bits) - 1)
    return np.asarray(fields.reshape(len(packed), -1))


PRODUCTS: Mapping[str, Callable[[Any, Take], Iterator[Operand]]] = {
    "MatMul": lambda node, take: _product(node, take, 0, 1),
    "Gemm": lambda node, take: _product(node, take, 0, 1),
    "FusedMatMul": lambda node, take: _product(node, take, 0, 1),
    "FusedGemm": lambda node, take: _product(node, take, 0, 1),
    "FusedMatMulActivation": lambda node, take: _product(node, take, 0, 1),
    "TransposeMatMul": lambda node, take: _product(node, take, 0, 1),
    "GemmFloat8": lambda node, take: _product(node, take, 0, 1),
    "GemmFastGelu": lambda node, take: _product(node, take, 0, 1),
    "MatMulInteger": lambda node, take: _product(node, take, 0, 1, (2, 3)),
    "MatMulInteger16": lambda node, take: _product(node, take, 0, 1),
    "MatMulIntegerToFloat": lambda node, take: _product(node, take, 0, 1, (4, 5)),
    "DynamicQuantizeMatMul": lambda node, take: _product(node, take, 99, 1, (99, 3)),
    "QLinearMatMul": lambda node, take: _product(node, take, 0, 3, (2, 5)),
    "QGemm": lambda node, take: _product(node, take, 0, 3, (2, 5)),
    "MatMulNBits": _few_bits,
    "Attention": lambda node, take: _product(node, take, 99, 1),
    "QAttention": lambda node, take: _product(node, take, 99, 1, (99, 7)),
    **dict.fromkeys(
        # QONNX and FINN: the matrix lies as for MatMul
        ("XnorPopcountMatMul", "MVAU", "MVAU_hls", "MVAU_rtl", "MatrixVectorActivation", "MatrixVectorActivation_hls"),
        lambda node, take: _product(node, take, 99, 1),
    ),
    "Einsum": _einsum,
    "Conv": lambda node, take: _convolution(node, take, 1),
    "FusedConv": lambda node, take: _convolution(node, take, 1),
    "DeformConv": lambda node, take: _convolution(node, take, 1),
    "ConvInteger": lambda node, take: _convolution(node, take, 1, 3),
    "QLinearConv": lambda node, take: _convolution(node, take, 3, 5),
    "ConvTranspose": _transposed_convolution,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "DynamicQuantizeLSTM": lambda node, take: _recurrent(node, take, (9, 11)),
}
"""By operator: its weights, from a node and a way to its constants."""

RECURRENT = ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM")
"""Operators that run once for every time step."""

_NUMBERED = re.compile(r"(onnx::\w+?_|val_|v_|_v_|t_|const\w*_|arg)?\d+")
"""What exporters call a constant that they made: turned or folded weights of a layer."""


def named(constant: str, node: Any) -> str:
    """What a product's weights are called: as in the file, or after their layer where an exporter numbered them.

    The layer is told by PyTorch's exporters alone: in the node's name, `/mlp/mlp.0/MatMul`, or in the scopes beside it.
    """
    if not _NUMBERED.fullmatch(constant):
        return constant
    return _layer(node) or constant


def _layer(node: Any) -> str:
    """The layer that a node is of, as PyTorch names it; empty where nothing tells."""
    path = [str(part) for part in str(node.name).split("/")[1:-1] if part]
    for entry in getattr(node, "metadata_props", ()):
        if entry.key == "pkg.torch.onnx.name_scopes":
            # "['', 'mlp', 'mlp.0', 'linear_2']": whole names, of the model, its layers and the call itself.
            scopes = re.findall(r"'([^']*)'", str(entry.value))
            path = scopes[-2:-1]
    parts: list[str] = []
    for part in path:
        # A container stands in the name of what it holds once more: downsample, downsample.0.
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts)


NO_PRODUCTS = {
    "MultiThreshold", "Thresholding", "RotaryEmbedding", "GroupQueryAttention", "MultiHeadAttention",
    "RelativePositionBias", "GatedRelativePositionBias", "SkipLayerNormalization", "BiasGelu", "BiasAdd",
    "BiasSplitGelu",
}  # fmt: skip
"""Operators beyond the standard whose arrays are thresholds, angles or biases."""

LOOK_UPS: Mapping[str, tuple[int, ...]] = {"Gather": (0,), "EmbedLayerNormalization": (2, 3, 4)}
"""Operators that read rows of a table: where the tables stand."""
