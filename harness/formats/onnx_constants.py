"""What an ONNX graph makes of its constants before a product takes them: followed by computing it.

Orientation, zero points and masks need no rules of their own this way: a weight behind Cast, Transpose, Reshape,
Dequantize or a product with its mask is what these operators give.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""Numbers of whatever type a model has."""


@dataclass(frozen=True, eq=False)
class Constant:
    """An array that no input of the model decides.

    Args:
        source: the name of the tensor of the file that it was made from.
        array: its numbers.
        operators: what it has gone through.
        nonzero: how many of the numbers of the source are not zero.
    """

    source: str
    array: Array
    operators: tuple[str, ...] = ()
    nonzero: int = 0


_ELEMENT_WISE = {
    "Mul", "Div", "Add", "Sub", "Pow", "Where", "And", "Or", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Mod", "Max", "Min", "PRelu",
}  # fmt: skip
"""Operators whose output is as large as their inputs broadcast together."""

_FOLLOWED = _ELEMENT_WISE | {
    "Cast", "CastLike", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Neg", "Abs", "Sqrt", "Reciprocal",
    "Exp", "Log", "Sign", "Not", "Round", "Floor", "Ceil", "Clip", "Relu", "Sigmoid", "Tanh", "ReduceSum",
    "ReduceMax", "ReduceMean", "ReduceL2", "ReduceSumSquare", "Concat", "Slice", "Split", "Gather", "Shape", "Size",
    "Trilu", "Expand", "ConstantOfShape", "MatMul", "ScatterND", "ScatterElements", "GatherElements",
}  # fmt: skip
"""Operators of the standard that are computed; none makes more numbers than `_size` knows of."""


def evaluated(
    onnx: ModuleType, node: Any, given: Sequence[Array | None], opsets: Sequence[Any], most: int
) -> list[Array] | None:
    """What a node gives for constants, or None where it is not followed.

    Args:
        onnx: the package.
        node: the node.
        given: its inputs; None for one that is left out.
        opsets: the versions of the operator sets of the model.
        most: elements that an array may have.
    """
    kind = str(node.op_type)
    own = _OWN.get(kind)
    # The size is bounded before it is computed: a few bytes may say `Expand` to terabytes.
    if (own is None and (kind not in _FOLLOWED or node.domain not in ("", "ai.onnx"))) or _size(node, given) > most:
        return None
    if own is not None:
        return [own(node, [array for array in given if array is not None])]
    names = [f"i{place}" if array is not None else "" for place, array in enumerate(given)]
    # A graph of the one node, by the standard's own reference: no operator has to be written a second time.
    single = onnx.NodeProto()
    single.CopyFrom(node)
    del single.input[:]
    single.input.extend(names)
    inputs = [onnx.ValueInfoProto(name=name) for name in names if name]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = onnx.GraphProto(node=[single], input=inputs, output=outputs, name="one")
    feeds = {name: array for name, array in zip(names, given, strict=True) if array is not None}
    results = _run(onnx, graph, feeds, opsets)
    by_name = dict(zip((name for name in node.output if name), results, strict=True))
    return [by_name[name] if name else np.zeros(0) for name in node.output]


def _run(onnx: ModuleType, graph: Any, feeds: dict[str, Array], opsets: Sequence[Any]) -> list[Array]:
    """The outputs of a graph of one node, by the reference implementation of the standard."""
    from onnx.reference import ReferenceEvaluator

    newest = [onnx.helper.make_opsetid("", onnx.defs.onnx_opset_version())]
    with np.errstate(all="ignore"):
        try:
            results = ReferenceEvaluator(_model(onnx, graph, opsets)).run(None, feeds)
        # Old operator sets are the better choice as long as they work: attributes became inputs between them.
        except RuntimeError:  # it has not every old version of every operator
            results = ReferenceEvaluator(_model(onnx, graph, newest)).run(None, feeds)
    return [np.asarray(result) for result in results]


def _model(onnx: ModuleType, graph: Any, opsets: Sequence[Any]) -> Any:
    return onnx.ModelProto(graph=graph, ir_version=onnx.IR_VERSION, opset_import=opsets)


def _size(node: Any, given: Sequence[Array | None]) -> int:
    """The most elements that a node may make, from the shapes of what it gets."""
    arrays = [array for array in given if array is not None]
    kind = node.op_type
    shape: tuple[int, ...] = (sum(array.size for array in arrays),)
    if kind in _ELEMENT_WISE or (kind in _OWN and not kind.endswith("Linear")):
        # Broadcasting may make far more than any input has.
        shape = np.broadcast_shapes(*(array.shape for array in arrays[:3]))
    elif kind == "MatMul":
        shape = (max(arrays[0].size, 1), arrays[1].shape[-1])
    elif kind == "ConstantOfShape":
        shape = tuple(max(0, int(extent)) for extent in arrays[0].ravel())
    elif kind == "Expand":
        shape = np.broadcast_shapes(arrays[0].shape, tuple(int(extent) for extent in arrays[1].ravel()))
    elif kind == "Gather":
        shape = (arrays[0].size, max(1, arrays[1].size))
    return math.prod(shape)


def _product(node: Any, given: Sequence[Array]) -> Array:
    """Element by element; zero times anything is zero, since what a mask drops need not be a number."""
    left, right = given
    with np.errstate(all="ignore"):
        product = np.multiply(left, right)
    if product.dtype.kind == "f" and not np.isfinite(product).all():
        product = np.where((left == 0) | (right == 0), product.dtype.type(0), product)
    return np.asarray(product)


def _per_axis(node: Any, array: Array, parameter: Array) -> Array:
    """Scales or zero points shaped so that they broadcast: one, one per place of an axis, or one per block of it."""
    if parameter.size == 1:
        return parameter.reshape(())
    # A negative axis counts from the end.
    axis = int(attribute(node, "axis", 1)) % array.ndim
    if parameter.ndim == 1:
        return parameter.reshape([-1 if each == axis else 1 for each in range(array.ndim)])
    block = int(attribute(node, "block_size", 0)) or -(-array.shape[axis] // parameter.shape[axis])
    return np.asarray(np.repeat(parameter, block, axis=axis).take(range(array.shape[axis]), axis=axis))


def _dequantised(node: Any, given: Sequence[Array]) -> Array:
    """(x - zero point) x scale, as float32: what counts is which numbers are zero."""
    scale = _per_axis(node, given[0], given[1].astype(np.float32))
    zero = _per_axis(node, given[0], given[2].astype(np.float32)) if len(given) > 2 else np.float32(0)
    return np.asarray((given[0].astype(np.float32) - zero) * scale)


def _quantised(node: Any, given: Sequence[Array]) -> Array:
    """round(x / scale) + zero point, clipped to eight bits or to what the zero point's type holds."""
    scale = _per_axis(node, given[0], given[1].astype(np.float32))
    kind = given[2].dtype if len(given) > 2 else np.dtype(np.uint8)
    zero = _per_axis(node, given[0], given[2].astype(np.float32)) if len(given) > 2 else np.float32(0)
    with np.errstate(all="ignore"):
        integers = np.rint(given[0].astype(np.float32) / scale) + zero
    if kind.kind not in "iu":
        # Zero points of float8 are zero by the standard.
        return np.asarray(integers)  # to float8: only far below the smallest number it has anything becomes zero
    limits = np.iinfo(kind)
    return np.asarray(np.clip(integers, limits.min, limits.max).astype(kind))


def _quant(node: Any, given: Sequence[Array]) -> Array:
    """The node `Quant` of QONNX, Brevitas and FINN: to integers of a width, and back.

    Source:
        QONNX, "Quant": round((x / scale) + zero point), clipped to the range of the width, minus zero point, times
        scale; rounding is to even unless the node says otherwise.
    """
    values, scale, zero, bits = (np.asarray(array, dtype=np.float64) for array in given)
    width = float(bits.ravel()[0])
    is_signed, is_narrow = bool(attribute(node, "signed", 1)), bool(attribute(node, "narrow", 0))
    # "Narrow" gives up one code, so that the range is symmetric.
    top = 2 ** (width - 1) - 1 if is_signed else 2**width - 1 - is_narrow
    bottom = -(2 ** (width - 1)) + is_narrow if is_signed else 0
    rounding = {"CEIL": np.ceil, "FLOOR": np.floor, "ROUND_TO_ZERO": np.trunc}.get(
        str(attribute(node, "rounding_mode", "ROUND")).upper(), np.rint
    )
    with np.errstate(all="ignore"):
        integers = np.clip(rounding(values / scale + zero), bottom, top)
        return np.asarray(((integers - zero) * scale).astype(np.float32))


def _bipolar(node: Any, given: Sequence[Array]) -> Array:
    """The node `BipolarQuant` of QONNX: plus or minus the scale, never zero."""
    values, scale = (np.asarray(array, dtype=np.float64) for array in given)
    return np.asarray(np.where(values >= 0, 1.0, -1.0) * scale, dtype=np.float32)


_OWN: Mapping[str, Callable[[Any, Sequence[Array]], Array]] = {
    "Identity": lambda node, given: given[0],
    "Mul": _product,
    "DequantizeLinear": _dequantised,
    "QuantizeLinear": _quantised,
    "Quant": _quant,
    "IntQuant": _quant,
    "BipolarQuant": _bipolar,
}


def attribute(node: Any, name: str, default: Any) -> Any:
    """The value of an attribute of a node: a number, a text, or numbers."""
    for found in node.attribute:
        if found.name == name:
            if isinstance(default, str):
                return found.s.decode("utf-8", "replace")
            if isinstance(default, tuple):
                return tuple(found.ints)
            return found.f if isinstance(default, float) else found.i
    return default
