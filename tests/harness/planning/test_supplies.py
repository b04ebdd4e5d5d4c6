"""What a program asks of a backend beyond training, and why a cell is skipped."""

import pytest
from harness_plugins.backends.keras_tfmot import KerasTfmot
from harness_plugins.backends.torch_backend import TorchBackend
from harness_plugins.strategies.gradual import Gradual
from harness_plugins.strategies.movement import Movement
from harness_plugins.strategies.one_shot import OneShot
from harness_plugins.strategies.sparsegpt import SparseGPT
from harness_plugins.strategies.sr_ste import SrSte
from harness_plugins.strategies.synflow import SynFlow
from harness_plugins.strategies.wanda import Wanda
from numpy_plugins import NumpyBackend
from recipes import recipe

from harness.api import LSTM, Dense, Embedding, NativeModel, Network
from harness.planning.supplies import why_not_supplied

DENSE = Network(layers=(Dense(name="d", inputs=4, units=2, input_label="x"),), input_shape=(4,))
LANGUAGE = Network(
    layers=(
        Embedding(name="e", words=5, features=3),
        LSTM(name="l", inputs=3, units=2, input_label="e.features"),
        Dense(name="s", inputs=2, units=5, role="softmax", input_label="l.units"),
    )
)
OWN = NativeModel(framework="torch", trained=(), places=())


def why(backend, strategy, network=DENSE, scope=None):
    scope = [tensor for tensor in network.tensors() if tensor.is_prunable] if scope is None else scope
    return why_not_supplied(backend, network, strategy.program(recipe(), 0.5), recipe(), scope)


@pytest.mark.parametrize("strategy", [Wanda(), SparseGPT(), SynFlow(), Gradual(), OneShot(score="gradient")])
@pytest.mark.parametrize("backend", [TorchBackend(), KerasTfmot()], ids=lambda each: each.name)
def test_both_frameworks_supply_what_the_built_in_scores_need(backend, strategy):
    assert why(backend, strategy) is None


@pytest.mark.parametrize("strategy", [Movement(), SrSte()], ids=lambda each: each.name)
def test_straight_through_training_is_torch_s_alone(strategy):
    assert why(TorchBackend(), strategy) is None
    assert "keras_tfmot does not train models with masked weights alive" in why(KerasTfmot(), strategy)
    assert "torch does not train models of a user's own with masked" in why(TorchBackend(), strategy, OWN, [])


def test_a_backend_of_somebody_else_supplies_gradients_unless_it_says_more():
    assert why(NumpyBackend(), OneShot(score="gradient")) is None
    assert "wanda needs input norms, which numpy does not supply" in why(NumpyBackend(), Wanda())


def test_an_embedding_has_no_inputs_to_its_columns():
    assert "the columns of e.table are no inputs; leave embeddings out" in why(TorchBackend(), Wanda(), LANGUAGE)
    assert why(TorchBackend(), Wanda(), LANGUAGE, [t for t in LANGUAGE.tensors() if t.layer == "l"]) is None


def test_synaptic_flow_needs_a_network_of_dense_layers_and_convolutions():
    assert "networks of dense and convolutional layers" in why(TorchBackend(), SynFlow(), LANGUAGE, [])
    assert "torch does not supply of a model of a user's own" in why(TorchBackend(), SynFlow(), OWN, [])
