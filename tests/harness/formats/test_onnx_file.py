"""Initialisers of ONNX models, oriented as the graph reads them."""

import os
import re
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.api import Convolution, DataError, SpecError
from harness.formats.onnx_constants import evaluated
from harness.formats.weights_files import read_weights

onnx = pytest.importorskip("onnx", reason="the optional package onnx is not installed")
helper, numpy_helper = pytest.importorskip("onnx.helper"), pytest.importorskip("onnx.numpy_helper")

MASK = np.random.default_rng(0).random((5, 7)) < 0.5


def node(operator, inputs, outputs=("y",), domain="", **attributes):
    return helper.make_node(operator, list(inputs), list(outputs), domain=domain, **attributes)


def tensors(arrays):
    return [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]


def graph(nodes, initialisers, sparse=(), name="graph"):
    given = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None)]
    result = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    return helper.make_graph(nodes, name, given, result, tensors(initialisers), sparse_initializer=sparse)


def read(tmp_path, nodes, initialisers, sparse=(), opset=None, functions=()):
    opsets = [helper.make_opsetid("", opset)] if opset else None
    model = helper.make_model(graph(nodes, initialisers, sparse), opset_imports=opsets, functions=functions)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return read_weights(tmp_path / "model.onnx")


def shown(found):
    """The weights that were found: name, shape, kept."""
    kept = found.workload.masks
    return [
        (tensor.name, tensor.shape, int(kept[tensor.name].sum()) if tensor.name in kept else tensor.size)
        for tensor in found.workload.tensors
    ]


@pytest.mark.parametrize(
    ("nodes", "turned"),
    [
        ([helper.make_node("MatMul", ["x", "w"], ["y"])], True),
        ([helper.make_node("MatMul", ["w", "x"], ["y"])], False),
        ([helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], False),
        ([helper.make_node("Gemm", ["x", "w"], ["y"])], True),
        ([helper.make_node("Gemm", ["w", "x"], ["y"], transA=1)], True),
        ([helper.make_node("Transpose", ["w"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])], False),
        ([helper.make_node("Identity", ["w"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])], True),
        ([helper.make_node("Gather", ["w", "x"], ["z"]), helper.make_node("MatMul", ["z", "w"], ["y"])], True),
    ],
    ids=lambda value: "-".join(node.op_type for node in value) if isinstance(value, list) else str(value),
)
def test_the_graph_says_how_a_matrix_lies(tmp_path, nodes, turned):
    stored = (MASK.T if turned else MASK).astype(np.float32)
    found = read(tmp_path, nodes, {"w": stored, "b": np.ones(5, np.float32)})

    np.testing.assert_array_equal(found.workload.masks["w"], MASK)
    assert (found.notes, found.skipped) == ((), ("b (5,)",))


def test_a_table_that_is_only_gathered_is_a_look_up(tmp_path):
    found = read(tmp_path, [helper.make_node("Gather", ["w", "x"], ["y"])], {"w": MASK.astype(np.float32)})

    assert found.workload.tensors[0].role == "embedding"


def test_an_lstm_comes_in_the_gate_order_of_the_harness(tmp_path):
    """ONNX has i, o, f, c: the number of a row's gate is its only non-zero column."""
    units = 2
    gates = np.repeat([0, 3, 1, 2], units)  # numbers in i, f, g, o
    kernel = np.eye(4)[gates][None].repeat(2, axis=0).astype(np.float32)  # (directions, 4 units, inputs)
    recurrent = np.ones((2, 4 * units, units), np.float32)
    node = helper.make_node(
        "LSTM", ["x", "w", "r", "b"], ["y"], name="rnn", hidden_size=units, direction="bidirectional"
    )
    found = read(tmp_path, [node], {"w": kernel, "r": recurrent, "b": np.ones((2, 8 * units), np.float32)})

    layers = [(layer.name, layer.type) for layer in found.workload.network.layers]
    assert (layers, found.skipped) == ([("rnn", "lstm"), ("rnn_reverse", "lstm")], ("b (2, 16)",))
    for name in ("rnn.W", "rnn_reverse.W"):
        np.testing.assert_array_equal(found.workload.masks[name], np.eye(4)[np.repeat([0, 1, 2, 3], units)])


def test_what_is_added_is_no_matrix(tmp_path):
    nodes = [helper.make_node("Gemm", ["x", "w", "c"], ["z"], transB=1), helper.make_node("Add", ["z", "b"], ["y"])]
    bias = np.ones((1, 5), np.float32)
    found = read(tmp_path, nodes, {"w": MASK.astype(np.float32), "c": bias, "b": bias})

    assert ([tensor.name for tensor in found.workload.tensors], len(found.skipped)) == (["w"], 2)


def test_the_matrices_of_a_gru_are_one_layer_of_three_gates(tmp_path):
    node = helper.make_node("GRU", ["x", "w", "r"], ["y"], name="gru", hidden_size=2)
    found = read(tmp_path, [node], {"w": np.ones((1, 6, 5), np.float32), "r": np.ones((1, 6, 2), np.float32)})

    assert [(tensor.name, tensor.shape) for tensor in found.workload.tensors] == [("gru.W", (6, 5)), ("gru.R", (6, 2))]
    assert {(t.layer, t.role, t.rows.repeat) for t in found.workload.tensors} == {("gru", "gru", 3)}
    assert any("GRU" in note for note in found.notes)


def test_weights_in_another_folder_are_refused(tmp_path):
    tensor = numpy_helper.from_array(MASK.astype(np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    model = helper.make_model(helper.make_graph([], "graph", [], [], [tensor]))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(DataError, match=r"another one \('../../etc/passwd'\)"):
        read_weights(tmp_path / "model.onnx")


def test_absurd_extents_are_refused(tmp_path):
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[10**9, 10**9])
    model = helper.make_model(helper.make_graph([], "graph", [], [], [tensor]))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(DataError, match="at most"):
        read_weights(tmp_path / "model.onnx")


def test_a_truncated_tensor_is_refused(tmp_path):
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[3, 4], raw_data=b"1234")
    model = helper.make_model(helper.make_graph([], "graph", [], [], [tensor]))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(DataError, match="damaged"):
        read_weights(tmp_path / "model.onnx")


def test_garbage_is_no_model(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 50)

    with pytest.raises(DataError, match="ONNX model"):
        read_weights(tmp_path / "model.onnx")


def test_a_missing_package_names_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07")
    monkeypatch.setitem(sys.modules, "onnx.numpy_helper", None)

    with pytest.raises(SpecError, match=r"harness\[onnx\]"):
        read_weights(tmp_path / "model.onnx")


# --- where weights are ---

WEIGHTS = np.where(MASK, 0.5, 0).astype(np.float32)  # (outputs, inputs)


def sparse_of(array, name, coordinates):
    places = np.argwhere(array) if coordinates else np.flatnonzero(array)
    values = numpy_helper.from_array(array[array != 0], name)
    return helper.make_sparse_tensor(
        values, numpy_helper.from_array(places.astype(np.int64), f"{name}_at"), array.shape
    )


@pytest.mark.parametrize("coordinates", [False, True])
@pytest.mark.parametrize("place", ["sparse_initializer", "value", "sparse_value"])
def test_a_weight_is_found_wherever_it_stands_beside_a_dense_one(tmp_path, place, coordinates):
    dense = np.ones((3, 5), np.float32)
    nodes = [node("Gemm", ["x", "w"], ["h"], transB=1), node("Gemm", ["h", "v"], transB=1)]
    sparse = [sparse_of(WEIGHTS, "w", coordinates)] if place == "sparse_initializer" else []
    if place == "value":
        nodes.insert(0, node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHTS, "")))
    elif place == "sparse_value":
        nodes.insert(0, node("Constant", [], ["w"], sparse_value=sparse_of(WEIGHTS, "", coordinates)))

    found = read(tmp_path, nodes, {"v": dense}, sparse)

    assert shown(found) == [("w", (5, 7), int(MASK.sum())), ("v", (3, 5), 15)]
    np.testing.assert_array_equal(found.workload.masks["w"], MASK)
    assert found.notes == ()


@pytest.mark.parametrize("kind", ["If", "Loop"])
def test_weights_inside_a_branch_or_a_loop_are_found_and_said(tmp_path, kind):
    inner = helper.make_graph(
        [node("MatMul", ["x", "w"], ["z"]), node("MatMul", ["x", "outer"], ["z2"])],
        "body",
        [],
        [],
        tensors({"w": WEIGHTS.T}),
    )
    outer = (
        node("If", ["c"], then_branch=inner, else_branch=inner)
        if kind == "If"
        else node("Loop", ["n", "c"], body=inner)
    )
    found = read(tmp_path, [outer], {"c": np.array(True), "n": np.array(3), "outer": WEIGHTS.T})

    assert ("w", (5, 7), int(MASK.sum())) in shown(found) and ("outer", (5, 7), int(MASK.sum())) in shown(found)
    place = {"If": "w is in the (then|else)_branch of If", "Loop": "w is in the body of Loop"}[kind]
    assert any(re.match(place, note) for note in found.notes)


def test_weights_of_a_function_of_the_model_are_found(tmp_path):
    body = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    function = helper.make_function("own", "Layer", ["a", "b"], ["c"], body, [helper.make_opsetid("", 17)])
    model = helper.make_model(
        graph([node("Layer", ["x", "w"], domain="own")], {"w": WEIGHTS.T}),
        functions=[function],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
    )
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    assert shown(read_weights(tmp_path / "model.onnx")) == [("w", (5, 7), int(MASK.sum()))]


def external(tmp_path, location, **entries):
    tensor = numpy_helper.from_array(np.ascontiguousarray(WEIGHTS.T), "w")
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    model = helper.make_model(helper.make_graph([node("MatMul", ["x", "w"])], "graph", [], [], [tensor]))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return data


def test_weights_in_a_file_beside_the_model_are_read(tmp_path):
    data = external(tmp_path, "data/weights.bin", offset=16, length=140)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weights.bin").write_bytes(b"?" * 16 + data + b"?")

    np.testing.assert_array_equal(read_weights(tmp_path / "model.onnx").workload.masks["w"], MASK)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "gone.bin"}, "got no such file"),
        ({"location": "/etc/passwd"}, "in another one"),
        ({"location": "link.bin"}, "in another one"),
        ({"location": "pipe"}, "got a pipe"),
        ({"location": "short.bin"}, "damaged"),
        ({"location": "short.bin", "offset": 8, "length": 140}, "within the 9 bytes of short.bin"),
        ({"location": "short.bin", "offset": -8}, "within the 9 bytes"),
        ({"location": "short.bin", "length": "many"}, "within the 9 bytes"),
        ({"location": ""}, "in another one"),
    ],
    ids=str,
)
def test_weights_that_are_not_where_they_should_be_are_told(tmp_path, entries, said):
    external(tmp_path, **entries)
    (tmp_path / "short.bin").write_bytes(b"123456789")
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(DataError, match=said):
        read_weights(tmp_path / "model.onnx")


# --- how they lie, and what is zero ---

QUANTISED = np.where(MASK.T, 7, 3).astype(np.uint8)  # (inputs, outputs), zero at 3
SIGNED = np.where(MASK.T, 7, -3).astype(np.int8)
PER_OUTPUT = np.array([1, 9, 2, 4, 250], np.uint8)
ON_OUTPUTS = np.where(MASK.T, 8, PER_OUTPUT).astype(np.uint8)
SCALE, X_ZERO = np.float32(0.1), np.uint8(1)

WAYS = {
    "cast": ([node("Cast", ["w"], ["c"], to=1), node("MatMul", ["x", "c"])], {"w": WEIGHTS.T.astype(np.float16)}),
    "transpose": ([node("Transpose", ["w"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"])], {"w": WEIGHTS}),
    "transpose that does nothing": (
        [node("Transpose", ["w"], ["t"], perm=[0, 1]), node("MatMul", ["x", "t"])],
        {"w": WEIGHTS.T},
    ),
    "twice transposed": (
        [node("Transpose", ["w"], ["t"]), node("Transpose", ["t"], ["u"]), node("MatMul", ["x", "u"])],
        {"w": WEIGHTS.T},
    ),
    "reshape": (
        [node("Reshape", ["w", "s"], ["r"]), node("MatMul", ["x", "r"])],
        {"w": WEIGHTS.T.reshape(1, 35, 1), "s": np.array([7, -1])},
    ),
    "unsqueeze": (
        [node("Unsqueeze", ["w", "a"], ["r"]), node("MatMul", ["x", "r"])],
        {"w": WEIGHTS.T, "a": np.array([0])},
    ),
    "scaled": ([node("Mul", ["w", "s"], ["m"]), node("Gemm", ["x", "m"], transB=1)], {"w": WEIGHTS, "s": SCALE}),
    "scaled by channel": (
        [node("Mul", ["w", "s"], ["m"]), node("Gemm", ["x", "m"], transB=1)],
        {"w": WEIGHTS, "s": np.full((5, 1), 2, np.float32)},
    ),
    "masked": (
        [node("Mul", ["w", "k"], ["m"]), node("Gemm", ["x", "m"], transB=1)],
        {"w": np.where(MASK, 1, np.inf).astype(np.float32), "k": MASK.astype(np.float32)},
    ),
    "chosen": (
        [node("Where", ["k", "w", "o"], ["m"]), node("Gemm", ["x", "m"], transB=1)],
        {"k": MASK, "w": np.full((5, 7), 2, np.float32), "o": np.float32(0)},
    ),
    "dequantised": (
        [node("DequantizeLinear", ["w", "s", "z"], ["d"]), node("MatMul", ["x", "d"])],
        {"w": QUANTISED, "s": SCALE, "z": np.uint8(3)},
    ),
    "dequantised, signed": (
        [node("DequantizeLinear", ["w", "s", "z"], ["d"]), node("MatMul", ["x", "d"])],
        {"w": SIGNED, "s": SCALE, "z": np.int8(-3)},
    ),
    "dequantised without a zero point": (
        [node("DequantizeLinear", ["w", "s"], ["d"]), node("MatMul", ["x", "d"])],
        {"w": MASK.T.astype(np.int8), "s": SCALE},
    ),
    "dequantised by output": (
        [node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=1), node("MatMul", ["x", "d"])],
        {"w": ON_OUTPUTS, "s": np.full(5, 0.1, np.float32), "z": PER_OUTPUT},
    ),
    "dequantised by output, then transposed": (
        [
            node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0),
            node("Transpose", ["d"], ["t"]),
            node("MatMul", ["x", "t"]),
        ],
        {"w": ON_OUTPUTS.T, "s": np.full(5, 0.1, np.float32), "z": PER_OUTPUT},
    ),
    "quantised and back": (
        [
            node("QuantizeLinear", ["w", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            node("Gemm", ["x", "d"], transB=1),
        ],
        {"w": WEIGHTS, "s": SCALE, "z": np.uint8(128)},
    ),
    "quantised and back without zero points": (
        [
            node("QuantizeLinear", ["w", "s"], ["q"]),
            node("DequantizeLinear", ["q", "s"], ["d"]),
            node("Gemm", ["x", "d"], transB=1),
        ],
        {"w": WEIGHTS, "s": SCALE},
    ),
    "Quant": (
        [
            node("Quant", ["w", "s", "z", "b"], ["q"], domain="qonnx.custom_op.general"),
            node("Gemm", ["x", "q"], transB=1),
        ],
        {"w": WEIGHTS, "s": SCALE, "z": np.float32(0), "b": np.float32(4)},
    ),
    "MatMulInteger": (
        [node("MatMulInteger", ["x", "w", "xz", "z"])],
        {"w": QUANTISED, "xz": X_ZERO, "z": np.uint8(3)},
    ),
    "MatMulInteger by output": (
        [node("MatMulInteger", ["x", "w", "xz", "z"])],
        {"w": ON_OUTPUTS, "xz": X_ZERO, "z": PER_OUTPUT},
    ),
    "MatMulInteger without zero points": ([node("MatMulInteger", ["x", "w"])], {"w": MASK.T.astype(np.int8)}),
    "MatMulInteger, weights on the left": (
        [node("MatMulInteger", ["w", "x", "z"])],
        {"w": ON_OUTPUTS.T, "z": PER_OUTPUT},
    ),
    "QLinearMatMul": (
        [node("QLinearMatMul", ["x", "xs", "xz", "w", "s", "z", "ys", "yz"])],
        {"w": QUANTISED, "xs": SCALE, "xz": X_ZERO, "s": SCALE, "z": np.uint8(3), "ys": SCALE, "yz": X_ZERO},
    ),
    "QGemm": (
        [node("QGemm", ["x", "xs", "xz", "w", "s", "z"], domain="com.microsoft", transB=1)],
        {"w": ON_OUTPUTS.T, "xs": SCALE, "xz": X_ZERO, "s": SCALE, "z": PER_OUTPUT},
    ),
    "FusedMatMul": ([node("FusedMatMul", ["x", "w"], domain="com.microsoft", transB=1)], {"w": WEIGHTS}),
    "FusedMatMul, not turned": ([node("FusedMatMul", ["x", "w"], domain="com.microsoft")], {"w": WEIGHTS.T}),
    "Gemm with both turned": ([node("Gemm", ["x", "w"], transA=1, transB=1, alpha=0.5)], {"w": WEIGHTS}),
    "Einsum": ([node("Einsum", ["x", "w"], equation="bsi,oi->bso")], {"w": WEIGHTS}),
    "Einsum, turned": ([node("Einsum", ["x", "w"], equation="...i, io -> ...o".replace("...", "b"))], {"w": WEIGHTS.T}),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_weights_are_those_that_the_product_takes(tmp_path, way):
    nodes, arrays = WAYS[way]

    found = read(tmp_path, nodes, arrays)

    np.testing.assert_array_equal(found.workload.masks["w"], MASK)
    assert [tensor.name for tensor in found.workload.tensors] == ["w"]
    assert found.notes == ()


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 17, 19, 21, None])
def test_operators_of_every_version_are_followed(tmp_path, opset):
    """Squeeze and Unsqueeze have their axes as an attribute up to version 12."""
    attribute = opset is not None and opset < 13
    inputs, axes = (["w"], {"axes": [0]}) if attribute else (["w", "a"], {})
    nodes = [
        node("Squeeze", inputs, ["s"], **axes),
        node("Cast", ["s"], ["c"], to=1),
        node("Transpose", ["c"], ["t"]),
        node("Reshape", ["t", "shape"], ["r"]),
        node("MatMul", ["x", "r"]),
    ]
    arrays = {"w": WEIGHTS[None].astype(np.float64), "a": np.array([0]), "shape": np.array([7, 5])}

    found = read(tmp_path, nodes, arrays, opset=opset)

    np.testing.assert_array_equal(found.workload.masks["w"], MASK)


def test_weights_that_rounding_takes_away_are_said(tmp_path):
    weights = np.array([[0.9, 0.04, 0.0], [0.04, -0.9, 0.3]], np.float32)
    nodes = [node("Quant", ["w", "s", "z", "b"], ["q"], domain="onnx.brevitas"), node("Gemm", ["x", "q"], transB=1)]

    found = read(tmp_path, nodes, {"w": weights, "s": SCALE, "z": np.float32(0), "b": np.float32(4)})

    assert shown(found) == [("w", (2, 3), 3)]
    assert found.notes == ("Quant rounds 2 weights of w to zero: they are taken as zero",)


def test_parts_of_one_constant_are_layers_of_their_own(tmp_path):
    """Queries, keys and values in one array: all dense, so that their masks are equal and they are not."""
    fused = np.arange(1, 43, dtype=np.float32).reshape(7, 6)
    nodes = [
        node("Split", ["w"], ["q", "k", "v"], axis=1),
        *(node("MatMul", ["x", name], [name * 2]) for name in "qkv"),
    ]

    found = read(tmp_path, nodes, {"w": fused}, opset=11)

    assert [(tensor.shape, tensor.role) for tensor in found.workload.tensors] == [((2, 7), "dense")] * 3


def test_a_weight_that_is_used_twice_is_said(tmp_path):
    square = np.eye(4, dtype=np.float32)
    found = read(tmp_path, [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "w"])], {"w": square})

    assert shown(found) == [("w", (4, 4), 4)]
    assert found.notes == ("w is used by 2 products: costed once",)


def test_a_stack_of_matrices_is_one_product_each(tmp_path):
    found = read(tmp_path, [node("MatMul", ["x", "w"])], {"w": np.stack([WEIGHTS.T, np.ones((7, 5), np.float32)])})

    assert shown(found) == [("w[0]", (5, 7), int(MASK.sum())), ("w[1]", (5, 7), 35)]


def test_four_bit_blocks_of_onnx_runtime_are_decoded(tmp_path):
    mask = np.random.default_rng(1).random((3, 40)) < 0.5  # two blocks of 32, the second padded
    zeros = np.array([[8, 8], [1, 2], [15, 0]])
    fields = np.zeros((3, 2, 32), np.uint8)
    for row in range(3):
        for col in range(40):
            zero = zeros[row, col // 32]
            fields[row, col // 32, col % 32] = (zero + 5) % 16 if mask[row, col] else zero
    packed = fields[..., 0::2] | fields[..., 1::2] << 4
    points = (zeros[:, 0] | zeros[:, 1] << 4).astype(np.uint8)
    nodes = [node("MatMulNBits", ["x", "w", "s", "z"], domain="com.microsoft", K=40, N=3, bits=4, block_size=32)]

    found = read(tmp_path, nodes, {"w": packed.astype(np.uint8), "s": np.ones(6, np.float32), "z": points})

    np.testing.assert_array_equal(found.workload.masks["w"], mask)


# --- products without weights ---


def test_a_product_of_activations_is_told(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "x"], name="scores")]

    found = read(tmp_path, nodes, {"w": WEIGHTS.T})

    assert [tensor.name for tensor in found.workload.tensors] == ["w"]
    assert found.notes == ("products without weights in the file, left out: MatMul scores (no input is a constant)",)


def test_a_product_whose_weights_come_through_something_unknown_is_told_by_its_name(tmp_path):
    nodes = [
        node("Decode", ["p"], ["d"], domain="somebody"),
        node("MatMul", ["x", "d"], ["h"], name="first"),
        node("MatMul", ["h", "w"]),
    ]

    found = read(tmp_path, nodes, {"w": WEIGHTS.T, "p": np.ones(9, np.uint8)})

    assert shown(found) == [("w", (5, 7), int(MASK.sum()))]
    assert "MatMul first (its weights come through Decode, which is not followed)" in found.notes[0]


def test_a_matrix_that_goes_into_an_unknown_operator_is_taken_and_said(tmp_path):
    found = read(tmp_path, [node("Linear", ["x", "w"], domain="somebody")], {"w": WEIGHTS})

    assert shown(found) == [("w", (5, 7), int(MASK.sum()))]
    assert found.notes[0] == "w goes into somebody.Linear, which is not known: taken as a product"


def test_the_thresholds_of_an_activation_are_no_matrix(tmp_path):
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("MultiThreshold", ["h", "t"], domain="qonnx.custom_op.general"),
    ]

    found = read(tmp_path, nodes, {"w": WEIGHTS.T, "t": np.ones((5, 3), np.float32)})

    assert [name for name, _, _ in shown(found)] == ["w"]
    assert found.skipped == ("t (5, 3)",)


# --- convolutions ---

KERNEL = np.random.default_rng(2).integers(0, 2, (6, 4, 3, 2)).astype(np.float32)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_convolution_over_any_number_of_axes_runs_once_per_output_position(tmp_path, axes):
    kernel = KERNEL[..., 0] if axes == 1 else KERNEL if axes == 2 else KERNEL[..., None]
    model = helper.make_model(graph([node("Conv", ["x", "w"])], {"w": kernel}))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    found = read_weights(tmp_path / "model.onnx", output_sizes={"w": (4, 5, 6)[:axes]})

    np.testing.assert_array_equal(found.workload.masks["w"], kernel.reshape(6, -1) != 0)
    assert found.workload.output_pixels == {"w": (4, 20, 120)[axes - 1]}


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_outputs_of_a_grouped_convolution_have_the_inputs_of_their_group(tmp_path, groups):
    kernel = np.ones((6, 6 // groups, 3, 3), np.float32)
    kernel[0, 0, 0, 0] = 0

    found = read(tmp_path, [node("Conv", ["x", "w"], group=groups)], {"w": kernel})

    assert shown(found) == [("w", (6, 54 // groups), 324 // groups - 1)]
    assert any(f"in {groups} groups" in note for note in found.notes) == (groups > 1)


ONE, TALL, WIDE = np.ones((1, 1), np.float32), np.ones((4, 1), np.float32), np.ones((1, 4), np.float32)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("Expand", [ONE, np.array([4, 4])]),
        ("ConstantOfShape", [np.array([4, 4])]),
        ("MatMul", [TALL, WIDE]),
        ("Add", [TALL, WIDE]),
        ("Mul", [TALL, WIDE]),
        ("Gather", [WIDE, np.zeros(4, np.int64)]),
        ("Concat", [np.ones((2, 4), np.float32), np.ones((2, 4), np.float32)]),
    ],
)
def test_what_a_node_would_make_is_bounded_before_it_is_made(kind, given):
    made = node(kind, [f"i{place}" for place in range(len(given))], ["o"], **({"axis": 0} if kind == "Concat" else {}))
    opsets = [helper.make_opsetid("", 17)]

    assert evaluated(onnx, made, given, opsets, 16)[0].shape == (4, 4)
    assert evaluated(onnx, made, given, opsets, 15) is None


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_the_size_that_is_given_for_a_transposed_convolution_is_said_to_be_its_inputs(tmp_path, kind):
    read(tmp_path, [node(kind, ["x", "w"])], {"w": np.ones((6, 6, 3, 3), np.float32)})

    found = read_weights(tmp_path / "model.onnx", output_sizes={"w": (4, 5)})

    said = "w is a transposed convolution: 4x5 is taken as the size of its input"
    assert (said in found.notes) == (kind == "ConvTranspose")
    assert found.workload.output_pixels == {"w": 20}


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_a_convolution_whose_groups_do_not_come_out_even_is_refused_with_the_product(tmp_path, kind):
    with pytest.raises(DataError, match=rf"w \(6, 6, 3, 3\) \(products without weights.*{kind} bad"):
        read(tmp_path, [node(kind, ["x", "w"], group=4, name="bad")], {"w": np.ones((6, 6, 3, 3), np.float32)})


def test_weights_that_cannot_be_computed_are_refused_with_the_culprit(tmp_path):
    nodes = [node("DequantizeLinear", ["w", "s"], ["d"], axis=1), node("MatMul", ["x", "d"])]

    with pytest.raises(DataError, match="weights come through DequantizeLinear, which is not followed"):
        read(tmp_path, nodes, {"w": np.ones((6, 6), np.int8), "s": np.ones(5, np.float32)})


@pytest.mark.parametrize("groups", [1, 2])
def test_the_kernel_of_a_transposed_convolution_is_turned(tmp_path, groups):
    """It lies as (inputs, outputs of a group, height, width)."""
    kernel = np.zeros((4, 6 // groups, 3, 2), np.float32)
    kernel[3, 1, 2, 0] = 1  # the last input, the second output of its group

    found = read(tmp_path, [node("ConvTranspose", ["x", "w"], group=groups)], {"w": kernel})

    mask = found.workload.masks["w"].reshape(6, 4 // groups, 3, 2)
    output = 1 if groups == 1 else 4
    assert np.argwhere(mask).tolist() == [[output, 4 // groups - 1, 2, 0]]


@pytest.mark.parametrize("per_output", [False, True])
def test_the_zero_points_of_a_quantised_convolution_are_those_of_its_outputs(tmp_path, per_output):
    zero = np.array([1, 9, 2, 4, 250, 0], np.uint8) if per_output else np.full(6, 3, np.uint8)
    kernel = np.where(KERNEL != 0, 8, zero[:, None, None, None]).astype(np.uint8)
    names = ["x", "xs", "xz", "w", "s", "z", "ys", "yz"]
    scalars = {"xs": SCALE, "xz": X_ZERO, "s": SCALE, "ys": SCALE, "yz": X_ZERO}

    found = read(tmp_path, [node("QLinearConv", names)], {"w": kernel, "z": zero if per_output else zero[0], **scalars})

    np.testing.assert_array_equal(found.workload.masks["w"], KERNEL.reshape(6, -1) != 0)


def sized(tmp_path, nodes, initialisers, shape, opset=17):
    """A model whose input has a known shape."""
    made = graph(nodes, initialisers)
    made.input[0].CopyFrom(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return read_weights(tmp_path / "model.onnx")


@pytest.mark.parametrize("batch", [1, "batch"])
def test_a_graph_that_knows_its_sizes_says_how_often_a_kernel_is_used(tmp_path, batch):
    nodes = [
        node("Conv", ["x", "a"], ["h"], pads=[1, 1, 1, 1]),
        node("MaxPool", ["h"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "b"], strides=[2, 2]),
    ]
    arrays = {"a": np.ones((4, 3, 3, 3), np.float32), "b": np.ones((5, 4, 1, 1), np.float32)}

    found = sized(tmp_path, nodes, arrays, [batch, 3, 8, 12])

    assert found.workload.output_pixels == {"a": 96, "b": 6}
    assert [tensor.role for tensor in found.workload.tensors] == ["conv", "conv"] and found.notes == ()


@pytest.mark.parametrize("batch", [1, 4, "batch"])
@pytest.mark.parametrize("flat", [False, True])
def test_a_matrix_runs_at_every_token_that_the_graph_knows(tmp_path, batch, flat):
    """As exporters write attention: tokens first, or all tokens of all items as rows of one matrix."""
    nodes = [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("MatMul", ["t", "a"], ["h"])]
    nodes += [node("Reshape", ["h", "rows"], ["r"]), node("Gemm", ["r", "b"])] if flat else [node("MatMul", ["h", "b"])]
    arrays = {"a": np.ones((8, 6), np.float32), "b": np.ones((6, 5), np.float32), "rows": np.array([-1, 6])}

    found = sized(tmp_path, nodes, arrays, [batch, 12, 8])

    assert found.workload.output_pixels == {"a": 12, "b": 12}
    assert [tensor.role for tensor in found.workload.tensors] == ["dense", "dense"] and found.notes == ()


@pytest.mark.parametrize("batch", [1, 4, "batch"])
def test_a_matrix_behind_a_mean_over_all_positions_runs_once(tmp_path, batch):
    nodes = [
        node("Conv", ["x", "a"], ["h"]),
        node("GlobalAveragePool", ["h"], ["m"]),
        node("Flatten", ["m"], ["f"]),
        node("Gemm", ["f", "b"]),
    ]
    arrays = {"a": np.ones((4, 3, 1, 1), np.float32), "b": np.ones((4, 5), np.float32)}

    found = sized(tmp_path, nodes, arrays, [batch, 3, 8, 12])

    assert found.workload.output_pixels == {"a": 96} and found.notes == ()


def test_every_matrix_of_a_stack_runs_at_its_own_positions(tmp_path):
    each = sized(
        tmp_path, [node("MatMul", ["x", "w"])], {"w": np.arange(30, dtype=np.float32).reshape(2, 3, 5)}, [1, 2, 7, 3]
    )
    shared = sized(
        tmp_path, [node("MatMul", ["x", "w"])], {"w": np.arange(30, dtype=np.float32).reshape(2, 3, 5)}, [1, 1, 7, 3]
    )

    assert each.workload.output_pixels == shared.workload.output_pixels == {"w[0]": 7, "w[1]": 7}


def test_a_matrix_that_two_products_use_runs_as_often_as_both(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "w"])]

    found = sized(tmp_path, nodes, {"w": np.ones((6, 6), np.float32)}, [1, 5, 6])

    assert found.workload.output_pixels == {"w": 10}
    assert found.notes == ("w is used by 2 products: 10 positions in all",)


@pytest.mark.parametrize(("batch", "time_first"), [(1, False), (3, False), (3, True), ("batch", False)])
def test_a_recurrent_layer_runs_as_many_steps_as_its_input_has(tmp_path, batch, time_first):
    """Seven steps; the head reads them all, and which axis is the batch is what the recurrent node says."""
    nodes = [] if time_first else [node("Transpose", ["x"], ["t"], perm=[1, 0, 2])]
    first = "x" if time_first else "t"
    nodes += [
        node("LSTM", [first, "w", "r"], ["h"], hidden_size=4, name="rnn"),
        node("Squeeze", ["h", "axis"], ["s"]),
        node("MatMul", ["s", "head"]),
    ]
    arrays = {
        "w": np.ones((1, 16, 5), np.float32), "r": np.ones((1, 16, 4), np.float32), "axis": np.array([1]),
        "head": np.ones((4, 6), np.float32),
    }  # fmt: skip

    workload = sized(tmp_path, nodes, arrays, [7, batch, 5] if time_first else [batch, 7, 5]).workload

    assert workload.steps == {"rnn": 7} and workload.output_pixels == {"head": 7}


def test_a_plain_recurrence_is_two_products_in_every_step(tmp_path):
    arrays = {"w": np.ones((1, 4, 5), np.float32), "r": np.ones((1, 4, 4), np.float32)}

    found = sized(tmp_path, [node("RNN", ["x", "w", "r"], hidden_size=4, name="rnn")], arrays, [7, 1, 5])

    assert found.workload.steps == {} and set(found.workload.output_pixels.values()) == {7}


def test_a_length_that_the_graph_leaves_open_is_told(tmp_path):
    arrays = {"w": np.ones((8, 6), np.float32)}
    found = sized(tmp_path, [node("MatMul", ["x", "w"])], arrays, ["batch", "tokens", 8])
    given = read_weights(tmp_path / "model.onnx", output_sizes={"w": (12,)})

    assert found.workload.output_pixels == {}
    assert any("leaves open at how many positions (tokens) these run: w" in note for note in found.notes)
    assert given.workload.output_pixels == {"w": 12} and given.workload.tensors[0].role == "dense"


def test_a_word_table_that_is_multiplied_by_too_is_costed(tmp_path):
    nodes = [node("Gather", ["embed.weight", "x"], ["h"]), node("Gemm", ["h", "embed.weight"], transB=1)]

    found = read(tmp_path, nodes, {"embed.weight": np.ones((9, 4), np.float32)})

    assert [(tensor.role, tensor.shape) for tensor in found.workload.tensors] == [("dense", (9, 4))]


@pytest.mark.parametrize(
    ("constant", "name", "scopes", "layer"),
    [
        ("onnx::MatMul_12", "/down/down.0/MatMul", None, "down.0"),
        ("onnx::MatMul_12", "/net/blocks.1/mlp/fc1/MatMul", None, "net.blocks.1.mlp.fc1"),
        ("val_2", "node_MatMul_1", "['', 'net', 'net.fc', 'linear_3']", "net.fc"),
        ("val_2", "node_MatMul_1", "['', 'linear']", "val_2"),
        ("onnx::MatMul_12", "MatMul_4", None, "onnx::MatMul_12"),
        ("fc.weight", "/other/MatMul", None, "fc"),
    ],
)
def test_weights_that_an_exporter_numbered_have_the_name_of_their_layer(tmp_path, constant, name, scopes, layer):
    product = node("MatMul", ["x", constant], name=name)
    if scopes is not None:
        product.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)

    found = read(tmp_path, [product], {constant: np.ones((4, 3), np.float32)})

    assert [tensor.layer for tensor in found.workload.tensors] == [layer]


def test_a_size_that_is_given_goes_before_that_of_the_graph(tmp_path):
    sized(tmp_path, [node("Conv", ["x", "w"])], {"w": KERNEL}, [1, 4, 8, 8])

    found = read_weights(tmp_path / "model.onnx", output_sizes={"w": (2, 5)})

    assert found.workload.output_pixels == {"w": 10}


def test_strides_groups_and_sizes_are_those_of_the_graph(tmp_path):
    nodes = [
        node("Conv", ["x", "a"], ["h"], pads=[1, 1, 1, 1], group=6, strides=[2, 1]),
        node("Conv", ["h", "b"], dilations=[1, 2]),
    ]
    arrays = {"a": np.ones((6, 1, 3, 3), np.float32), "b": np.ones((5, 6, 3, 3), np.float32)}

    found = sized(tmp_path, nodes, arrays, ["batch", 6, 9, 12])

    depthwise = Convolution(6, (3, 3), 1, (5, 12), image=(9, 12), groups=6, stride_down=2)
    dilated = Convolution(6, (3, 3), 1, (3, 8), image=(5, 12), dilation=(1, 2))
    assert found.workload.convolutions == {"a": depthwise, "b": dilated}
    assert found.notes == ()
    again = read_weights(tmp_path / "model.onnx", output_sizes={"b": (2, 5)}).workload.convolutions["b"]
    assert (again.output, again.image, again.dilation) == ((2, 5), None, (1, 2))


def test_a_convolution_over_lines_is_one_over_images_of_one_row(tmp_path):
    found = sized(tmp_path, [node("Conv", ["x", "w"], strides=[2])], {"w": np.ones((2, 4, 3), np.float32)}, [1, 4, 9])

    assert found.workload.convolutions == {"w": Convolution(4, (1, 3), 2, (1, 4), image=(1, 9))}


def test_a_transposed_convolution_runs_once_per_input_position(tmp_path):
    nodes = [node("ConvTranspose", ["x", "w"], strides=[2, 2])]

    found = sized(tmp_path, nodes, {"w": np.ones((4, 6, 3, 3), np.float32)}, [1, 4, 5, 7])

    assert found.workload.output_pixels == {"w": 35}


def test_shapes_and_axes_are_not_listed_as_left_out(tmp_path):
    nodes = [
        node("Constant", [], ["s"], value_ints=[7, 5]),
        node("Reshape", ["w", "s"], ["r"]),
        node("MatMul", ["x", "r"], ["h"]),
        node("Add", ["h", "b"]),
    ]

    found = read(tmp_path, nodes, {"w": WEIGHTS.T.reshape(35, 1), "b": np.ones(5, np.float32)})

    assert found.skipped == ("b (5,)",)


# --- recurrent layers ---


def test_a_quantised_lstm_lies_turned(tmp_path):
    """`DynamicQuantizeLSTM` has (directions, inputs, 4 units), with a zero point for every direction."""
    gates = np.repeat([0, 3, 1, 2], 2)  # numbers in i, f, g, o, stored as i, o, f, c
    kernel = np.where(np.eye(4)[gates], 9, 3).astype(np.uint8).T[None]
    names = ["x", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"]
    arrays = {
        "w": kernel, "r": np.ones((1, 2, 8), np.uint8), "b": np.ones((1, 16), np.float32), "ws": np.ones(1, np.float32),
        "wz": np.array([3], np.uint8), "rs": np.ones(1, np.float32), "rz": np.array([0], np.uint8),
    }  # fmt: skip
    found = read(
        tmp_path, [node("DynamicQuantizeLSTM", names, domain="com.microsoft", name="rnn", hidden_size=2)], arrays
    )

    assert [layer.type for layer in found.workload.network.layers] == ["lstm"]
    np.testing.assert_array_equal(found.workload.masks["rnn.W"], np.eye(4)[np.repeat([0, 1, 2, 3], 2)])


def test_both_directions_of_a_gru_are_layers_in_order_and_the_second_is_told(tmp_path):
    layer = node("GRU", ["x", "w", "r"], name="rnn", hidden_size=2, direction="bidirectional")
    found = read(tmp_path, [layer], {"w": np.ones((2, 6, 5), np.float32), "r": np.ones((2, 6, 2), np.float32)})

    assert list(dict.fromkeys(tensor.layer for tensor in found.workload.tensors)) == ["rnn", "rnn_reverse"]
    assert any("rnn_reverse runs from the end of a sequence" in note for note in found.notes)


def test_both_directions_of_a_plain_recurrence_are_products(tmp_path):
    layer = node("RNN", ["x", "w", "r"], name="rnn", hidden_size=2, direction="bidirectional")
    found = read(tmp_path, [layer], {"w": np.ones((2, 2, 5), np.float32), "r": np.ones((2, 2, 2), np.float32)})

    assert [name for name, _, _ in shown(found)] == ["rnn.W", "rnn_reverse.W", "rnn.R", "rnn_reverse.R"]
    assert sum("is of a recurrent layer" in note for note in found.notes) == 4


# --- files that are made to do harm ---


@pytest.mark.parametrize(
    ("nodes", "arrays"),
    [
        ([node("ConstantOfShape", ["s"], ["w"]), node("MatMul", ["x", "w"])], {"s": np.array([2**40, 2**20])}),
        ([node("Expand", ["a", "s"], ["w"]), node("MatMul", ["x", "w"])], {"a": np.ones(1), "s": np.array([2**40, 9])}),
        ([node("Mul", ["a", "b"], ["w"]), node("MatMul", ["x", "w"])], {"a": np.ones((2**20, 1)), "b": np.ones(2**20)}),
        (
            [node("MatMul", ["a", "b"], ["w"]), node("MatMul", ["x", "w"])],
            {"a": np.ones((2**18, 1)), "b": np.ones((1, 2**18))},
        ),
        ([node("Reshape", ["a", "s"], ["w"]), node("MatMul", ["x", "w"])], {"a": np.ones(6), "s": np.array([4, -7])}),
    ],
    ids=["ConstantOfShape", "Expand", "Mul", "MatMul", "Reshape"],
)
def test_a_small_file_that_asks_for_much_memory_is_not_followed(tmp_path, nodes, arrays):
    arrays = {name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in arrays.items()}
    try:
        notes = read(tmp_path, nodes, {**arrays, "v": WEIGHTS}).notes
    except DataError as error:
        notes = (str(error),)

    assert any("is not followed" in note or "used by" in note for note in notes)


@pytest.mark.parametrize("places", [[99], [-1], [0, 1], [[0, 9]], [[0.5, 0.5]]], ids=str)
def test_a_sparse_tensor_whose_places_lie_outside_is_refused(tmp_path, places):
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    sparse = onnx.SparseTensorProto(values=values, indices=numpy_helper.from_array(np.array(places), "i"), dims=[2, 3])

    with pytest.raises(DataError, match="'w'"):
        read(tmp_path, [node("MatMul", ["x", "w"])], {}, [sparse])


def test_a_file_of_zeros_is_no_model_whatever_its_size(tmp_path):
    (tmp_path / "model.onnx").touch()
    os.truncate(tmp_path / "model.onnx", 3 << 30)

    with pytest.raises(DataError, match="ONNX model"):
        read_weights(tmp_path / "model.onnx")


def model_of_many_kinds():
    nodes = [
        node("Cast", ["w"], ["c"], to=1), node("MatMul", ["x", "c"], ["h"], name="first"),
        node("Conv", ["x", "k"], ["i"], group=2), node("LSTM", ["x", "l", "r"], ["j"], name="rnn", hidden_size=2),
    ]  # fmt: skip
    arrays = {
        "w": WEIGHTS.T.astype(np.float16), "k": np.ones((4, 3, 2, 2), np.float32), "l": np.ones((1, 8, 3), np.float32),
        "r": np.ones((1, 8, 2), np.float32),
    }  # fmt: skip
    return helper.make_model(graph(nodes, arrays, [sparse_of(WEIGHTS, "s", True)])).SerializeToString()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_whatever_is_more_than_one_sentence(tmp_path, data):
    content = bytearray(model_of_many_kinds())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    (tmp_path / "model.onnx").write_bytes(content)

    try:
        read_weights(tmp_path / "model.onnx")
    except (DataError, SpecError) as error:
        assert "model.onnx" in str(error)


def test_names_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(model_of_many_kinds().replace(b"MatMul", b"Mat\xfful"))

    with pytest.raises(DataError, match="expected names that are text"):
        read_weights(tmp_path / "model.onnx")
