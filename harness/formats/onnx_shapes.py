"""At how many positions the products of an ONNX model run, and of which sizes they are, as far as its graph says."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from harness.api import Convolution
from harness.formats.onnx_constants import attribute
from harness.formats.onnx_products import PRODUCTS, RECURRENT, Operand

_MOST_KEPT = 1 << 10
"""Elements of a tensor whose numbers may be a shape; of larger ones only their shapes are handed on."""


@dataclass(frozen=True)
class Shapes:
    """The shapes of a graph's values, by name.

    Args:
        of: extents along every axis; 0 where the graph leaves one open.
        batch: items that the graph takes at once; 1 where it leaves that open.
        given: whether it says any shape of what it is given; else nothing of it is expected.
    """

    of: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    batch: int = 1
    given: bool = False

    def extents(self, name: str) -> tuple[int, ...] | None:
        """The extents behind batch and channels of a value (batch, channels, *extents), if all are known."""
        extents = self.of.get(name, ())[2:]
        return extents if extents and min(extents) > 0 else None

    def positions(self, node: Any, operand: Operand, constants: Collection[str]) -> int | None:
        """How often the matrix of a product runs for one item (the tokens of a transformer); None if nobody knows.

        Args:
            node: of the graph.
            operand: its matrix.
            constants: names of values that do not depend on what the graph is given.
        """
        rows, cols = operand.array.shape if operand.orientation == "rows_out" else operand.array.T.shape
        if operand.stack > 1:
            # What is multiplied may have the stack's axis or not: its result has it in any case.
            size, each = math.prod(self.of.get(str(next(iter(node.output), "")), ())), rows * operand.stack
        else:
            taken = self.taken(node, constants)
            size, each = math.prod(taken) if taken else 0, cols
        each *= self.batch
        return size // each if size and size % each == 0 else None

    def steps(self, node: Any) -> int | None:
        """How many time steps a recurrent node runs for one item; None if the graph leaves that open."""
        shape = self.of.get(str(next(iter(node.input), "")), ())
        return shape[_time(node)] or None if len(shape) == 3 else None

    def is_open(self, node: Any, constants: Collection[str]) -> bool:
        """Whether the graph tells sizes and not how often this product runs: a length that is left open."""
        return self.given and 0 in self.taken(node, constants)[:-1]

    def taken(self, node: Any, constants: Collection[str]) -> tuple[int, ...]:
        """The shape of what a product multiplies its weights with; empty where that is not known."""
        return next((self.of.get(str(name), ()) for name in node.input if name and str(name) not in constants), ())


def shapes_of(onnx: ModuleType, model: Any) -> Shapes:
    """The shapes of a model's values. What the file does not have is inferred by the package, without the weights."""
    # Shape inference takes a second on large models: only products need it.
    if not any(node.op_type in PRODUCTS for node in model.graph.node):
        return Shapes()
    weights = {str(tensor.name) for tensor in model.graph.initializer}
    given = [_shape(value) for value in model.graph.input if str(value.name) not in weights]
    graph = _without_weights(onnx, model).graph
    found = {str(value.name): _shape(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    first = next((shape[0] for shape in given if shape), None)
    # A recurrent node says which axis is the batch, where a graph takes time first.
    recurrent = (node for node in model.graph.node if node.op_type in RECURRENT)
    inner = (found.get(str(next(iter(node.input), "")), ())[1 - _time(node) :][:1] for node in recurrent)
    batch = next((shape[0] for shape in inner if shape and shape[0]), first)
    return Shapes(found, batch or 1, first is not None)


def _time(node: Any) -> int:
    """Where the time stands among the axes of what a recurrent node takes: (time, items, features), or items first."""
    return 1 if attribute(node, "layout", 0) else 0


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(max(0, int(dimension.dim_value)) for dimension in value.type.tensor_type.shape.dim)


def geometry_of(
    node: Any, kernel: tuple[int, ...], groups: int, taken: tuple[int, ...] | None, given: tuple[int, ...] | None
) -> Convolution | None:
    """The geometry of a convolution over lines or images; None where its sizes are not known, or in three directions.

    Args:
        node: of the graph.
        kernel: shape of its weights, (outputs, inputs of a group, *window).
        groups: of its outputs.
        taken: extents of its input.
        given: extents of its output.
    """
    count = len(kernel) - 2
    if given is None or count > 2 or len(given) != count:
        return None

    def both(name: str) -> tuple[int, int]:
        """An attribute down and across; a line is one row, and what a file says for no other axes is left out."""
        found = attribute(node, name, (1,) * count)
        return _both(found if len(found) == count and min(found) > 0 else (1,) * count)

    down, across = both("strides")
    return Convolution(
        inputs=kernel[1] * groups,
        kernel=_both(kernel[2:]),
        stride=across,
        output=_both(given),
        image=_both(taken) if taken is not None and len(taken) == count else None,
        groups=groups,
        dilation=both("dilations"),
        stride_down=None if count == 1 or down == across else down,
    )


def _both(sizes: Sequence[int]) -> tuple[int, int]:
    return (sizes[0], sizes[1]) if len(sizes) == 2 else (1, sizes[0])


def _without_weights(onnx: ModuleType, model: Any) -> Any:
    """A copy of a model whose large tensors have no numbers, with the shapes of its values."""
    # Without their numbers: the inference passes the model through a message of at most 2 GB.
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    for name in ("node", "input", "output", "value_info"):
        getattr(light.graph, name).extend(getattr(model.graph, name))
    light.graph.name = model.graph.name or "graph"
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _MOST_KEPT and tensor.data_location != onnx.TensorProto.EXTERNAL:
            light.graph.initializer.add().CopyFrom(tensor)
        else:
            light.graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    _one_item(light.graph)
    try:
        # With the values of shapes: a reshape to (tokens of all items, features) computes its sizes in the graph.
        return onnx.shape_inference.infer_shapes(light, data_prop=True)
    except Exception:  # errors of C++ without a class of their own; sizes can still be given by hand
        return light


def _one_item(graph: Any) -> None:
    """Where the first axis of an input is left open, it is the batch: set to 1. What was named after it is inferred."""
    weights = {str(tensor.name) for tensor in graph.initializer}
    for value in graph.input:
        first = next(iter(value.type.tensor_type.shape.dim), None)
        if first is not None and first.dim_value < 1 and str(value.name) not in weights:
            first.dim_value = 1  # in the place of its name, as either is there
    for value in (*graph.value_info, *graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.ClearField("dim_param")
