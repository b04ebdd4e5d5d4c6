"""Initialisers of an ONNX model, with what its graph says of their orientation; needs the package `onnx`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

from harness.api.errors import DataError, SpecError
from harness.api.values import Array
from harness.formats.array_files import Found, Orientation, check_size, checked_file, kept

_ONNX_GATES = [0, 2, 3, 1]
"""Where i, f, g, o stand among the gates i, o, f, c of ONNX."""

_RECURRENT = ("LSTM", "GRU", "RNN")
_ELEMENT_WISE = ("Add", "Sub", "Mul", "Div", "Pow", "Where", "Clip", "PRelu")

_FLIPPED: dict[Orientation | None, Orientation | None] = {"rows_out": "rows_in", "rows_in": "rows_out", None: None}


class _Attribute(Protocol):
    """What is asked of an `AttributeProto`."""

    name: str
    i: int


class _Node(Protocol):
    """What is asked of a `NodeProto`."""

    name: str
    op_type: str
    input: Sequence[str]
    output: Sequence[str]
    attribute: Sequence[_Attribute]


class _TensorProto(Protocol):
    """What is asked of a `TensorProto`."""

    name: str
    dims: Sequence[int]
    data_location: int


@dataclass(frozen=True)
class _Use:
    """A node that takes an initialiser: at which input, and whether transposed before."""

    node: _Node
    place: int
    transposed: bool


def read_onnx(path: Path, most: int) -> tuple[list[Found], list[str]]:
    """The initialisers with two or four axes, those of recurrent operators taken apart, and the names of the others.

    Raises:
        SpecError: the package `onnx` is missing, or the file cannot be read.
        DataError: it is no ONNX model, keeps its weights in another file, or holds NaN or too large an array.
    """
    onnx = _package(path)
    checked_file(path, most)
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except import_module("google.protobuf.message").DecodeError as error:
        raise DataError(f"{path}: expected an ONNX model, got a damaged one ({error}); export it again") from None
    uses = _uses(model.graph.node)
    found: list[Found] = []
    skipped: list[str] = []
    for tensor in model.graph.initializer:
        shape = tuple(tensor.dims)
        made = []
        if len(shape) in (2, 3, 4):
            made = list(_found(str(tensor.name), _array(onnx, path, tensor, most), uses.get(tensor.name), path))
        found += made
        if not made:
            skipped.append(f"{tensor.name} {shape}")
    return found, skipped


def _package(path: Path) -> ModuleType:
    try:
        import_module("onnx.numpy_helper")
        return import_module("onnx")
    except ImportError:
        raise SpecError(
            f"{path}: ONNX models are read with the package `onnx`, which is not installed; install harness[onnx], or "
            "save the weights as .safetensors or .npz"
        ) from None


def _array(onnx: ModuleType, path: Path, tensor: _TensorProto, most: int) -> Array:
    """An initialiser as NumPy holds it; types that NumPy has no name for come as float32."""
    name, shape = tensor.name, tuple(tensor.dims)
    check_size(path, name, shape, most)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise DataError(
            f"{path}: expected weights inside the file, got {name!r} in another one; save without external data"
        )
    try:
        array: Array = onnx.numpy_helper.to_array(tensor)
        return array if array.dtype.kind in "biuf" else array.astype(np.float32)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}: expected the numbers of {name!r}, got damaged ones ({error}); export it again"
        ) from None


def _uses(nodes: Sequence[_Node]) -> dict[str, _Use]:
    """The node that decides about every initialiser; another use goes before a look-up, as of a tied embedding."""
    uses: dict[str, _Use] = {}
    behind: dict[str, tuple[str, bool]] = {}
    for node in nodes:
        for place, given in enumerate(node.input):
            name, transposed = behind.get(given, (given, False))
            if node.op_type in ("Identity", "Transpose"):
                behind |= dict.fromkeys(node.output, (name, transposed != (node.op_type == "Transpose")))
            elif name not in uses or uses[name].node.op_type == "Gather":
                uses[name] = _Use(node, place, transposed)
    return uses


def _found(name: str, array: Array, use: _Use | None, path: Path) -> Iterator[Found]:
    operator, place = ("", 0) if use is None else (use.node.op_type, use.place)
    if operator in _ELEMENT_WISE or (operator == "Gemm" and place == 2) or (operator in _RECURRENT and place > 2):
        return  # biases, however many axes they have
    mask = kept(path, name, array)
    if mask.ndim != 3:
        yield Found(name, mask, _orientation(use), is_lookup=operator == "Gather")
    elif use is not None and operator in _RECURRENT and place in (1, 2):
        for direction, matrix in enumerate(mask):
            layer = str(next(filter(None, (use.node.name, *use.node.output, name))))
            layer += ("", "_reverse")[direction] if direction < 2 else f"_{direction}"
            if operator == "LSTM" and len(matrix) % 4 == 0:
                gates = matrix.reshape(4, -1, matrix.shape[1])[_ONNX_GATES].reshape(matrix.shape)
                yield Found(f"{layer}.{'_WR'[place]}", gates, "rows_out", lstm=(layer, place == 2))
            else:
                yield Found(f"{layer}.{'_WR'[place]}", matrix, "rows_out")


def _orientation(use: _Use | None) -> Orientation | None:
    """How the node that takes a matrix reads it: (outputs, inputs), or (inputs, outputs)."""
    if use is None:
        return None
    orientation: Orientation | None = None
    if use.node.op_type == "Conv":
        orientation = "rows_out"
    elif use.node.op_type in ("MatMul", "Gemm") and use.place < 2:
        # The left matrix of a product is (outputs, inputs), the right one (inputs, outputs).
        flipped = use.place == 1
        if use.node.op_type == "Gemm":
            flipped ^= bool(_attribute(use.node, ("transA", "transB")[use.place]))
        orientation = "rows_in" if flipped else "rows_out"
    return _FLIPPED[orientation] if use.transposed else orientation


def _attribute(node: _Node, name: str) -> int:
    return next((int(found.i) for found in node.attribute if found.name == name), 0)
