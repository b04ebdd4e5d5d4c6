"""Of which sizes the convolutions of an ONNX model are, as far as its graph says."""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from harness.api import Convolution
from harness.formats.onnx_constants import attribute

_MOST_KEPT = 1 << 10
"""Elements of a tensor whose numbers may be a shape; of larger ones only their shapes are handed on."""


def extents_of(onnx: ModuleType, model: Any) -> dict[str, tuple[int, ...]]:
    """The extents of every value with at least three known axes, (batch, channels, *extents), by name.

    Shapes that the file does not have are inferred by the package, from a copy without the weights.
    """
    # Shape inference takes a second on large models: only convolutions need it.
    if not any("Conv" in node.op_type for node in model.graph.node):
        return {}
    graph = _without_weights(onnx, model).graph
    found: dict[str, tuple[int, ...]] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        extents = tuple(int(dimension.dim_value) for dimension in value.type.tensor_type.shape.dim)[2:]
        if extents and min(extents) > 0:
            found[str(value.name)] = extents
    return found


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
    try:
        return onnx.shape_inference.infer_shapes(light)
    except Exception:  # errors of C++ without a class of their own; sizes can still be given by hand
        return light
