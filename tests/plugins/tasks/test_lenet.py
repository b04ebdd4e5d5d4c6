"""LeNet: networks, initial weights, batches, metric, and what records say of the data."""

import os
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from harness_plugins.tasks.lenet import EVALUATION_BATCH, Lenet
from pydantic import ValidationError

from harness.api import DataError, Evaluation, PluginContractError


def load(**parameters):
    return Lenet(**parameters).load(None)


def batches(problem, split, seed=0):
    return list(problem.batches(split, 0, np.random.default_rng(seed)))


@pytest.fixture(scope="module")
def mnist_folder():
    folder = Path(os.environ.get("HARNESS_DATA") or Path(__file__).parents[4] / "shared" / "data")
    if not any(place.glob("t10k-images*") for place in (folder, folder / "mnist")):
        pytest.skip("MNIST is not beside the repository")
    return folder


def shape_after(network):
    """The shape of one item after every layer, worked out from the layers' descriptions."""
    shape = network.input_shape
    for layer in network.layers:
        if layer.type == "conv2d":
            assert shape[0] == layer.inputs
            shape = (
                layer.outputs,
                *(s + 2 * layer.padding - k + 1 for s, k in zip(shape[1:], layer.kernel, strict=True)),
            )
        elif layer.type == "pool2d":
            shape = (shape[0], *(s // layer.size for s in shape[1:]))
        elif layer.type == "flatten":
            shape = (int(np.prod(shape)),)
        elif layer.type == "dense":
            assert shape == (layer.inputs,)
            shape = (layer.units,)
    return shape


# LeNet-300-100 has 266,610 parameters and this LeNet-5 61,706, by their layers' sizes on 28 x 28 pixels.
@pytest.mark.parametrize(("model", "parameters"), [("lenet_300_100", 266_610), ("lenet_5", 61_706)])
def test_on_mnist_the_networks_have_their_known_sizes(mnist_folder, model, parameters):
    problem = Lenet(model=model, data="mnist").load(mnist_folder)

    assert sum(tensor.size for tensor in problem.tensors()) == parameters
    assert shape_after(problem.network) == (10,)
    assert sum(problem.facts["items"].values()) in (10_000, 70_000)


@pytest.mark.parametrize("model", ["lenet_300_100", "lenet_5"])
def test_on_digits_every_layer_fits_the_one_before(model):
    problem = load(model=model)

    assert shape_after(problem.network) == (10,)
    assert "adapted to 8 x 8 pixels" in problem.facts["model"]


# As recorded when the digits came from scikit-learn: the data that the package brings are the same, bit for bit.
@pytest.mark.parametrize(
    ("model", "fingerprint"), [("lenet_300_100", "306882b2dc52c460"), ("lenet_5", "68f4a7088ba6340f")]
)
def test_the_digits_have_the_fingerprint_they_always_had(model, fingerprint):
    assert load(model=model).fingerprint.startswith(fingerprint)


def test_fashion_mnist_is_a_data_set_of_its_own(mnist_folder):
    if not (mnist_folder / "fashion_mnist").is_dir():
        pytest.skip("Fashion-MNIST is not beside the repository")
    facts = Lenet(model="lenet_5", data="fashion_mnist").load(mnist_folder).facts

    assert facts["items"] == {"train": 55_000, "valid": 5_000, "test": 10_000}
    assert (facts["data"], facts["classes"]) == ("fashion_mnist", 10)


def test_units_that_meet_have_the_same_label():
    tensors = {tensor.name: tensor for tensor in load(model="lenet_5").tensors()}

    assert tensors["conv_1.kernel"].cols.label == tensors["conv_0.kernel"].rows.label
    assert tensors["conv_1.kernel"].cols.repeat == 9
    assert tensors["dense_0.kernel"].cols.label == tensors["conv_1.kernel"].rows.label
    assert tensors["dense_0.kernel"].cols.repeat == 4
    assert tensors["softmax.kernel"].cols.label == tensors["dense_1.kernel"].rows.label
    assert tensors["softmax.kernel"].role == "softmax"


def test_kernels_are_within_glorots_limits_and_biases_zero():
    weights = load(model="lenet_5").initial_weights(seed=1)

    limits = {
        "conv_0.kernel": sqrt(6 / (25 + 6 * 25)),
        "conv_1.kernel": sqrt(6 / (6 * 9 + 16 * 9)),
        "dense_0.kernel": sqrt(6 / (64 + 120)),
        "softmax.kernel": sqrt(6 / (84 + 10)),
    }
    for name, limit in limits.items():
        assert 0.9 * limit < np.abs(weights[name]).max() <= limit * (1 + 1e-6)
        assert weights[name].dtype == np.float32
    assert not any(weights[name].any() for name in weights if name.endswith("bias"))


def test_initial_weights_depend_on_the_seed_and_nothing_else():
    first, again, other = (load().initial_weights(seed)["dense_0.kernel"] for seed in (1, 1, 2))

    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize(("model", "shape"), [("lenet_300_100", (64,)), ("lenet_5", (1, 8, 8))])
def test_batches_have_the_shape_of_the_network_and_values_up_to_one(model, shape):
    first = batches(load(model=model, batch=50), "train")[0]

    assert first.inputs.shape == (50, *shape) and first.inputs.dtype == np.float32
    assert first.inputs.min() == 0 and first.inputs.max() == 1
    assert first.targets.shape == (50,) and first.targets.dtype == np.int32


def test_training_batches_are_full_distinct_items_and_as_many_as_the_recipe_says():
    problem = load(batch=100)

    train = batches(problem, "train")

    assert len(train) == problem.recipe.steps_per_epoch == 12
    assert {batch.inputs.shape[0] for batch in train} == {100}
    whole = {image.tobytes() for image in np.concatenate([b.inputs for b in batches(load(batch=1), "train")])}
    seen = [image.tobytes() for image in np.concatenate([batch.inputs for batch in train])]
    assert set(seen) <= whole and len(set(seen)) > 1150  # a few digits of the set are equal


def test_the_generator_alone_decides_the_order_of_training():
    problem = load()

    first, again, other = (batches(problem, "train", seed)[0].targets for seed in (1, 1, 2))

    assert (first == again).all() and (first != other).any()


def test_evaluation_sees_every_item_once_in_order():
    problem = load(eval_items=150)

    test = batches(problem, "test", seed=3)

    assert sum(len(batch.targets) for batch in test) == problem.facts["items"]["test"] == 150
    assert (test[0].inputs == batches(problem, "test", seed=4)[0].inputs).all()


def test_the_last_evaluation_batch_is_smaller_rather_than_dropped(mnist_folder):
    problem = Lenet(data="mnist", eval_items=EVALUATION_BATCH + 7).load(mnist_folder)

    assert [len(batch.targets) for batch in batches(problem, "valid")] == [EVALUATION_BATCH, 7]


def test_test_files_alone_are_said_to_be_an_unusual_protocol(mnist_folder):
    facts = Lenet(data="mnist").load(mnist_folder).facts

    usual = {"train": 55_000, "valid": 5_000, "test": 10_000}
    small = {"train": 8_000, "valid": 1_000, "test": 1_000}
    assert facts["items"] in (usual, small)
    assert ("not MNIST's usual protocol" in facts["protocol"]) == (facts["items"] == small)


def test_accuracy_is_over_items_and_in_percent():
    problem = load()

    assert problem.value(Evaluation(nats=0.0, items=300, correct=291)) == pytest.approx(97.0)
    assert (problem.metric.better, problem.metric.unit, problem.metric.needs_correct) == ("higher", "%", True)


def test_an_evaluation_without_correct_items_breaks_the_contract():
    with pytest.raises(PluginContractError, match="expects an evaluation that counts correct items, got None"):
        load().value(Evaluation(nats=1.0, items=3))


@pytest.mark.parametrize(
    "parameters", [{"train_items": 1000}, {"eval_items": 99}, {"batch": 16}, {"model": "lenet_5"}], ids=str
)
def test_whatever_changes_data_batches_or_network_changes_the_fingerprint(parameters):
    assert load(**parameters).fingerprint != load().fingerprint


def test_the_recipe_carries_the_parameters_and_leaves_the_fingerprint():
    changed = load(epochs=3, learning_rate=0.5, full_epochs=1, decay=0.1, momentum=0.5, weight_decay=0.01)

    assert changed.fingerprint == load().fingerprint
    assert changed.recipe.epochs == 3
    assert [changed.recipe.learning_rate.at(epoch) for epoch in range(3)] == pytest.approx([0.5, 0.05, 0.005])
    assert (changed.recipe.optimiser.momentum, changed.recipe.optimiser.weight_decay) == (0.5, 0.01)
    assert changed.recipe.clip_norm is None


@pytest.mark.parametrize(("field", "there"), [("train_items", 1297), ("eval_items", 200)])
def test_more_items_than_there_are_is_refused(field, there):
    with pytest.raises(DataError, match=f"{field}=5000 asks for more than the {there}"):
        load(**{field: 5000})


def test_a_batch_larger_than_the_training_split_is_refused():
    with pytest.raises(DataError, match="needs 2000 train images for one batch, got 1297"):
        load(batch=2000)


@pytest.mark.parametrize("parameters", [{"model": "lenet_4"}, {"data": "cifar"}, {"momentum": 1.0}], ids=str)
def test_parameters_out_of_range_are_refused(parameters):
    with pytest.raises(ValidationError):
        Lenet(**parameters)


@pytest.mark.parametrize("model", ["lenet_300_100", "lenet_5"])
def test_smoke_keeps_the_model_and_is_short(model):
    problem = Lenet(model=model).smoke().load(None)

    assert problem.recipe.epochs == load(model=model).recipe.epochs
    assert problem.recipe.steps_per_epoch == 2
    assert problem.network == load(model=model).network
    assert problem.facts["is_cut"] is True
