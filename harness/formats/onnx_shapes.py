"""For how many positions the convolutions of an ONNX model run, as far as its graph says."""

import math
from types import ModuleType
from typing import Any

_MOST_KEPT = 1 << 10
"""Elements of a tensor whose numbers may be a shape; of larger ones only their shapes are handed on."""


def positions_of(onnx: ModuleType, model: Any) -> dict[str, int]:
    """The number of positions of every value with at least three known axes, (batch, channels, *positions), by name.

    Shapes that the file does not have are inferred by the package, from a copy without the weights.
    """
    # Shape inference takes a second on large models: only convolutions need it.
    if not any("Conv" in node.op_type for node in model.graph.node):
        return {}
    graph = _without_weights(onnx, model).graph
    found: dict[str, int] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        extents = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim][2:]
        if extents and min(extents) > 0:
            found[str(value.name)] = math.prod(extents)
    return found


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
