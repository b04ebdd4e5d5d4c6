import numpy as np
import pytest
from harness_plugins.hardware._products import left_out, products

from harness.api import LSTM, Conv2D, HarnessError, Network, ShapeError, Workload

ALL = ("lstm", "conv", "dense", "softmax")


def test_kernel_and_recurrent_kernel_of_a_layer_are_one_product(make):
    (product,) = products(make.lstm_workload(8), ALL)

    assert (product.shape.rows, product.shape.cols, product.shape.units) == (32, 16, 8)
    assert [part.tensor for part in product.parts] == ["lstm_0.kernel", "lstm_0.recurrent_kernel"]
    assert product.is_dense


def test_an_embedding_is_a_look_up_and_is_left_out(make):
    network = make.language_model(8, words=11)
    workload = Workload(network, network.tensors(), {})

    assert [product.shape.layer for product in products(workload, ALL)] == ["lstm_0", "lstm_1", "softmax"]
    assert left_out(workload, ALL) == ("embedding.table",)


def test_roles_choose_what_is_costed(make):
    network = make.language_model(8, words=11)
    workload = Workload(network, network.tensors(), {})

    assert [product.shape.layer for product in products(workload, ("softmax",))] == ["softmax"]


def test_a_workload_without_a_matrix_of_the_roles_is_refused(make):
    with pytest.raises(HarnessError, match=r"cost matrices with roles softmax, got lstm_0.kernel \(lstm\), .*widen"):
        products(make.lstm_workload(8), ("softmax",))


def test_a_mask_of_another_shape_is_refused(make):
    workload = make.lstm_workload(8, lambda rows, cols: np.ones((cols, rows), bool))

    with pytest.raises(ShapeError, match=r"mask of shape \(32, 8\) for 'lstm_0.kernel', got \(8, 32\)"):
        products(workload, ALL)


def test_a_mask_that_keeps_everything_is_as_good_as_none(make):
    (product,) = products(make.lstm_workload(8, lambda rows, cols: np.ones((rows, cols), bool)), ALL)

    assert product.is_dense and product.parts[0].mask is None


def test_one_tensor_of_an_lstm_layer_can_be_costed_alone(make):
    workload = make.lstm_workload(8)
    (product,) = products(Workload(workload.network, workload.tensors[1:2], {}), ALL)

    assert (product.shape.cols, product.shape.units) == (8, 8)


def convolution():
    layer = Conv2D(name="conv", inputs=3, outputs=4, kernel=(5, 5), padding=2, input_label="image")
    return Network(layers=(layer,), input_shape=(3, 28, 28))


def test_a_convolution_runs_once_per_output_position():
    network = convolution()
    (product,) = products(Workload(network, network.tensors(), {}, output_pixels={"conv": 784}), ALL)

    assert (product.shape.rows, product.shape.cols, product.shape.pixels) == (4, 75, 784)


def test_a_convolution_of_unknown_output_size_is_refused():
    network = convolution()

    with pytest.raises(HarnessError, match="need the output positions of 'conv'"):
        products(Workload(network, network.tensors(), {}), ALL)


def test_units_follow_from_the_axis_and_not_from_the_name():
    layer = LSTM(name="cell", inputs=3, units=5, input_label="x")
    (product,) = products(Workload(Network(layers=(layer,)), layer.tensors(), {}), ALL)

    assert (product.shape.layer, product.shape.units) == ("cell", 5)
