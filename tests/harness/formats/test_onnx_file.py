"""Initialisers of ONNX models, oriented as the graph reads them."""

import sys

import numpy as np
import pytest

from harness.api import DataError, SpecError
from harness.formats.weights_files import read_weights

onnx = pytest.importorskip("onnx", reason="the optional package onnx is not installed")
helper, numpy_helper = pytest.importorskip("onnx.helper"), pytest.importorskip("onnx.numpy_helper")

MASK = np.random.default_rng(0).random((5, 7)) < 0.5


def read(tmp_path, nodes, initialisers):
    tensors = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in initialisers.items()]
    given = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None)]
    result = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    model = helper.make_model(helper.make_graph(nodes, "graph", given, result, tensors))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return read_weights(tmp_path / "model.onnx")


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


def test_the_matrices_of_a_gru_are_products(tmp_path):
    node = helper.make_node("GRU", ["x", "w", "r"], ["y"], name="gru", hidden_size=2)
    found = read(tmp_path, [node], {"w": np.ones((1, 6, 5), np.float32), "r": np.ones((1, 6, 2), np.float32)})

    assert [(tensor.name, tensor.shape) for tensor in found.workload.tensors] == [("gru.W", (6, 5)), ("gru.R", (6, 2))]
    assert [layer.type for layer in found.workload.network.layers] == ["dense", "dense"]


def test_weights_in_another_file_are_refused(tmp_path):
    tensor = numpy_helper.from_array(MASK.astype(np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    model = helper.make_model(helper.make_graph([], "graph", [], [], [tensor]))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(DataError, match="another one"):
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
    monkeypatch.setitem(sys.modules, "onnx.numpy_helper", None)

    with pytest.raises(SpecError, match=r"harness\[onnx\]"):
        read_weights(tmp_path / "model.onnx")
