from dataclasses import replace

import numpy as np
import pytest
from harness_plugins.hardware._design.products import dense, left_out, products, recurrent

from harness.api import LSTM, Conv2D, Convolution, Dense, HarnessError, Network, Pool2D, ShapeError, SpecError, Workload
from harness.discovery.finding import discover

ALL = ("lstm", "conv", "dense", "softmax")


def test_kernel_and_recurrent_kernel_of_a_layer_are_one_product(make):
    (product,) = products(make.lstm_workload(8), ALL)

    assert (product.rows, product.cols, product.units) == (32, 16, 8)
    assert [part.tensor for part in product.parts] == ["lstm_0.kernel", "lstm_0.recurrent_kernel"]
    assert product.is_dense


def test_an_embedding_is_a_look_up_and_is_left_out(make):
    network = make.language_model(8, words=11)
    workload = Workload(network, network.tensors(), {})

    assert [product.layer for product in products(workload, ALL)] == ["lstm_0", "lstm_1", "softmax"]
    assert left_out(workload, ALL) == ("embedding.table",)


def test_roles_choose_what_is_costed(make):
    network = make.language_model(8, words=11)
    workload = Workload(network, network.tensors(), {})

    assert [product.layer for product in products(workload, ("softmax",))] == ["softmax"]


@pytest.mark.parametrize("roles", ["lstm", "lstm,softmax", ["lstm", "softmax"], ("lstm", "softmax")])
def test_roles_are_a_list_or_the_words_of_one(roles):
    found = discover().create("hardware", {"name": "cycle_simulator", "engine": {"name": "bank"}, "roles": roles})

    assert list(found.roles) == (roles.split(",") if isinstance(roles, str) else list(roles))


def test_a_workload_without_a_matrix_of_the_roles_is_refused(make):
    with pytest.raises(HarnessError, match=r"cost matrices with roles softmax, got lstm_0.kernel \(lstm\), .*widen"):
        products(make.lstm_workload(8), ("softmax",))


def test_a_mask_of_another_shape_is_refused(make):
    workload = make.lstm_workload(8, lambda rows, cols: np.ones((cols, rows), bool))

    with pytest.raises(ShapeError, match=r"mask of shape \(32, 8\) for 'lstm_0.kernel', got \(8, 32\)"):
        products(workload, ALL)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_weights_in_place_of_a_mask_are_refused(make, kind):
    workload = make.lstm_workload(8, lambda rows, cols: np.eye(rows, cols, dtype=kind))

    with pytest.raises(SpecError, match=f"boolean mask for 'lstm_0.kernel', got {kind}; compare weights with 0"):
        products(workload, ALL)


def test_a_mask_that_keeps_everything_is_as_good_as_none(make):
    (product,) = products(make.lstm_workload(8, lambda rows, cols: np.ones((rows, cols), bool)), ALL)

    assert product.is_dense and product.parts[0].mask is None


def test_one_tensor_of_an_lstm_layer_can_be_costed_alone(make):
    workload = make.lstm_workload(8)
    (product,) = products(Workload(workload.network, workload.tensors[1:2], {}), ALL)

    assert (product.cols, product.units) == (8, 8)


def convolutions(input_shape=(3, 28, 28)):
    layers = (
        Conv2D(name="first", inputs=3, outputs=4, kernel=(5, 5), padding=2, input_label="image"),
        Pool2D(size=2),
        Conv2D(name="second", inputs=4, outputs=6, kernel=(3, 5), stride=2, input_label="first.channels"),
    )
    return Network(layers=layers, input_shape=input_shape)


def test_a_convolution_runs_once_per_output_position_of_its_network():
    network = convolutions()
    first, second = products(Workload(network, network.tensors(), {}), ALL)

    assert (first.rows, first.cols, first.pixels) == (4, 75, 784)
    assert first.convolution == Convolution(inputs=3, kernel=(5, 5), stride=1, output=(28, 28), image=(28, 28))
    assert (second.rows, second.cols, second.pixels) == (6, 60, 6 * 5)  # 14 x 14 behind the pool
    assert second.convolution == Convolution(inputs=4, kernel=(3, 5), stride=2, output=(6, 5), image=(14, 14))


def test_output_positions_may_be_given_where_the_network_does_not_tell_them():
    network = convolutions(input_shape=())
    pixels = {"first": 784, "second": 30}
    first, second = products(Workload(network, network.tensors(), {}, output_pixels=pixels), ALL)

    assert (first.pixels, second.pixels) == (784, 30)
    assert first.convolution is None


def test_geometry_may_be_given_and_tells_the_positions():
    network = convolutions(input_shape=())
    given = {"first": Convolution(3, (5, 5), 2, (7, 9)), "second": Convolution(4, (3, 5), 1, (4, 4))}
    first, second = products(Workload(network, network.tensors(), {}, convolutions=given), ALL)

    assert (first.pixels, second.pixels) == (63, 16)
    assert first.convolution is given["first"]


def test_matrices_of_one_layer_with_different_outputs_are_products_of_their_own():
    first, second = (
        Conv2D(name="separable", inputs=n, outputs=m, kernel=(1, 1), input_label="x").tensors()[0]
        for n, m in ((1, 4), (4, 6))
    )
    network = convolutions(input_shape=())
    found = products(Workload(network, (first, second), {}, output_pixels={"separable": 9}), ALL)

    assert [(product.rows, product.cols, product.pixels) for product in found] == [(4, 1, 9), (6, 4, 9)]


def test_a_convolution_of_unknown_output_size_is_refused():
    network = convolutions(input_shape=())

    with pytest.raises(HarnessError, match="need the output positions of 'first'"):
        products(Workload(network, network.tensors(), {}), ALL)


def test_units_follow_from_the_axis_and_not_from_the_name():
    layer = LSTM(name="cell", inputs=3, units=5, input_label="x")
    (product,) = products(Workload(Network(layers=(layer,)), layer.tensors(), {}), ALL)

    assert (product.layer, product.units) == ("cell", 5)


def test_the_number_of_weights_kept_is_enough_where_there_is_no_mask(make):
    workload = make.lstm_workload(8)
    told = {"lstm_0.kernel": 40}
    (product,) = products(Workload(workload.network, workload.tensors, {}, kept=told, banks={"lstm_0.kernel": 2}), ALL)

    assert (product.nnz, product.has_masks) == (40 + 32 * 8, False)
    assert [part.banks for part in product.parts] == [2, None]


def test_a_recorded_activation_density_reaches_the_product(make):
    workload = make.lstm_workload(8)
    told = Workload(workload.network, workload.tensors, {}, activation_density={"lstm_0": 0.25})
    (product,) = products(told, ALL)

    assert product.activation_density == dense(product).activation_density == 0.25


def test_the_recurrent_part_of_a_layer_is_its_last_tensor(make):
    (product,) = products(make.lstm_workload(8, lambda rows, cols: np.eye(rows, cols, dtype=bool)), ALL)
    waiting = recurrent(product)

    assert (waiting.rows, waiting.cols, waiting.units, waiting.nnz) == (32, 8, 8, 8)
    assert [part.tensor for part in waiting.parts] == ["lstm_0.recurrent_kernel"]


def test_the_mask_of_a_product_is_unit_major_with_its_tensors_side_by_side(make):
    rng = np.random.default_rng(0)
    (product,) = products(make.lstm_workload(3, lambda rows, cols: rng.random((rows, cols)) < 0.5), ALL)
    kernel, recurrent_kernel = (part.mask for part in product.parts)

    for unit in range(3):
        for gate in range(4):
            expected = np.concatenate([kernel[gate * 3 + unit], recurrent_kernel[gate * 3 + unit]])
            assert (product.mask[4 * unit + gate] == expected).all()
    assert (product.counts(np.array([0, 3])).sum(axis=0) == [kernel.sum(), recurrent_kernel.sum()]).all()


# --- recurrent layers beside others ---------------------------------------------------------------------------------


def sequence(make, roles=("lstm", "softmax"), **positions):
    """A language model whose layers were seen at so many positions of an item."""
    network = make.language_model(8, words=11)
    tensors = tuple(tensor for tensor in network.tensors() if tensor.role in roles)
    return Workload(network, tensors, {}, output_pixels=positions)


def test_layers_beside_a_recurrent_one_are_costed_for_one_step_as_it_is(make):
    seen = products(sequence(make, softmax=20), ALL)

    assert [product.pixels for product in seen] == [1, 1, 1]
    # As the shipped task, whose layers were never sent through a framework.
    assert [(each.layer, each.nnz) for each in seen] == [
        (each.layer, each.nnz) for each in products(sequence(make), ALL) if each.pixels == 1
    ]


def test_a_layer_alone_is_costed_at_all_positions_of_an_item(make):
    (alone,) = products(sequence(make, roles=("softmax",), softmax=20), ALL)

    assert alone.pixels == 20


def test_layers_of_which_nobody_knows_how_often_they_run_in_a_step_are_not_added_up(make):
    network = Network(
        layers=(
            Dense(name="patch", inputs=8, units=8, input_label="input"),
            LSTM(name="lstm", inputs=8, units=8, input_label="patch.units"),
            Dense(name="out", inputs=8, units=4, input_label="lstm.units", role="softmax"),
        ),
        input_shape=(8,),
    )
    workload = Workload(network, matrices(network), {}, output_pixels={"patch": 49, "out": 7})

    with pytest.raises(SpecError, match=r"one time step of 'lstm', and 'out' at 7 and 'patch' at 49 positions"):
        products(workload, ALL)
    assert [each.pixels for each in products(workload, ("lstm",))] == [1]
    assert [each.pixels for each in products(workload, ("dense", "softmax"))] == [49, 7]


def test_convolutions_over_an_item_are_not_added_to_one_step(make):
    network = Network(
        layers=(
            Conv2D(name="conv", inputs=1, outputs=4, kernel=(3, 3), input_label="input"),
            LSTM(name="lstm", inputs=4, units=8, input_label="conv.channels"),
        ),
        input_shape=(1, 8, 8),
    )
    workload = Workload(network, matrices(network), {})

    with pytest.raises(SpecError, match=r"of 'lstm', and 'conv' at 36 positions of an item"):
        products(workload, ALL)


def counted(make, steps, **positions):
    """Positions and steps of a language model's products, its LSTM layers known to run so often for an item."""
    given = sequence(make, **positions)
    known = dict(zip(("lstm_0", "lstm_1"), steps, strict=True))
    return [(each.pixels, each.steps) for each in products(replace(given, steps=known), ALL)]


def test_items_of_equal_steps_are_costed_for_one_of_them(make):
    assert counted(make, (20, 20), softmax=20) == [(1, 1), (1, 1), (1, 1)]
    assert counted(make, (20, 20), softmax=60) == [(1, 1), (1, 1), (3, 1)]
    assert counted(make, (1, 1), softmax=4) == [(1, 1), (1, 1), (4, 1)]


def test_items_whose_layers_run_unequally_often_are_costed_whole(make):
    assert counted(make, (20, 20), softmax=1) == [(1, 20), (1, 20), (1, 1)]
    assert counted(make, (20, 10), softmax=10) == [(1, 20), (1, 10), (10, 1)]
    assert counted(make, (20, 20), softmax=30) == [(1, 20), (1, 20), (30, 1)]


def test_a_projection_runs_in_every_step_of_its_layer():
    network = Network(
        layers=(
            Dense(name="rnn", inputs=5, units=16, input_label="x"),
            Dense(name="rnn.projection", inputs=4, units=2, input_label="y"),
            Dense(name="out", inputs=2, units=3, input_label="z"),
        )
    )
    steps = {"rnn": 7, "rnn.projection": 7}
    tensors = list(matrices(network))
    rows = tensors[0].rows.model_copy(update={"repeat": 4, "order": "blocks"})
    tensors[0] = tensors[0].model_copy(update={"role": "lstm", "rows": rows})

    whole = products(Workload(network, tuple(tensors), {}, steps=steps), ALL)
    step = products(Workload(network, tuple(tensors[:2]), {}, steps=steps), ALL)

    assert [(each.pixels, each.steps) for each in whole] == [(1, 7), (1, 7), (1, 1)]
    assert [(each.pixels, each.steps) for each in step] == [(1, 1), (1, 1)]  # one of seven equal steps


def test_a_convolution_before_known_steps_is_costed_with_them():
    network = Network(
        layers=(
            Conv2D(name="conv", inputs=1, outputs=4, kernel=(3, 3), input_label="input"),
            LSTM(name="lstm", inputs=4, units=8, input_label="conv.channels"),
        ),
        input_shape=(1, 8, 8),
    )
    workload = Workload(network, matrices(network), {}, steps={"lstm": 5})

    assert [(each.pixels, each.steps, each.runs) for each in products(workload, ALL)] == [(36, 1, 36), (1, 5, 5)]


def matrices(network):
    return tuple(tensor for tensor in network.tensors() if tensor.is_prunable)


def test_a_plain_recurrent_layer_is_costed_for_one_step_too(make):
    """By the matrix of its own outputs: frameworks' plain layers have the role of dense ones."""
    network = make.language_model(8, words=11, layers=1)
    tensors = tuple(
        replace_axes(tensor) if tensor.role == "lstm" else tensor
        for tensor in network.tensors()
        if tensor.role in ("lstm", "softmax")
    )
    workload = Workload(network, tensors, {}, output_pixels={"lstm_0": 20, "softmax": 20})

    found = products(workload, ALL)

    assert [(each.layer, each.units, each.pixels) for each in found] == [("lstm_0", None, 1), ("softmax", None, 1)]


def replace_axes(tensor):
    """A matrix of an LSTM as that of a layer without gates."""
    rows = tensor.rows.model_copy(update={"size": tensor.rows.size // 4, "repeat": 1})
    return tensor.model_copy(update={"role": "dense", "rows": rows})
