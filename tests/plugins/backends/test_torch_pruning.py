"""Structured patterns keep what Torch-Pruning keeps, where the two overlap; where they differ, a test says how.

Its answers come from a process of its own, whose script is this file.
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from harness_plugins.patterns.channel import Channel
from harness_plugins.patterns.filter import Filter
from harness_plugins.patterns.hidden_unit import HiddenUnit

from harness.api import LSTM, Conv2D, Dense, keep_count
from harness.masks.coupling import Coupling

pytestmark = pytest.mark.skipif(find_spec("torch_pruning") is None, reason="Torch-Pruning is not installed")

SHAPES = {"conv_0": (8, 3, 3, 3), "conv_1": (6, 8, 3, 3), "output": (10, 24)}
"""Two convolutions on 6 x 6 pixels, each followed by ReLU, and a dense layer that reads the last 6 x 2 x 2 values."""


def weights():
    """Of many different magnitudes: among equals Torch-Pruning chooses as it pleases."""
    rng = np.random.default_rng(44)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def network(torch):
    nn = torch.nn
    layers = {"conv_0": nn.Conv2d(3, 8, 3), "conv_1": nn.Conv2d(8, 6, 3), "output": nn.Linear(24, 10)}
    with torch.no_grad():
        for name, values in weights().items():
            layers[name].weight.copy_(torch.tensor(values))
    model = nn.Sequential(layers["conv_0"], nn.ReLU(), layers["conv_1"], nn.ReLU(), nn.Flatten(), layers["output"])
    return model, layers


def left(count, pruned):
    return sorted(set(range(count)) - set(pruned))


def answers():
    """What Torch-Pruning keeps, as lists of units."""
    import torch
    import torch_pruning as tp

    one = torch.zeros(1, 3, 6, 6)
    summed = tp.importance.GroupMagnitudeImportance(p=1, group_reduction="sum", normalizer=None)
    first = tp.importance.GroupMagnitudeImportance(p=1, group_reduction="first", normalizer=None)
    found = {}

    def by_pruner(name, importance, ratio, *, in_turn=False):
        model, layers = network(torch)
        names = {id(layer): each for each, layer in layers.items()}
        pruner = tp.pruner.BasePruner(
            model, one, importance=importance, pruning_ratio=ratio, ignored_layers=[layers["output"]]
        )
        found[name] = {}
        for group in pruner.step(interactive=True):
            dependency, indices = group[0]
            layer = names[id(dependency.layer)]
            found[name][layer] = left(SHAPES[layer][0], indices)
            if in_turn:
                group.prune()

    by_pruner("filters", first, 0.5)
    by_pruner("units", summed, 0.5)
    by_pruner("units in turn", summed, 0.5, in_turn=True)
    by_pruner("by squares", tp.importance.GroupMagnitudeImportance(p=2, group_reduction="first", normalizer=None), 0.5)
    by_pruner("60 %", first, 0.6)

    model, layers = network(torch)
    graph = tp.DependencyGraph().build_dependency(model, one)
    group = graph.get_pruning_group(layers["conv_1"], tp.prune_conv_in_channels, list(range(8)))
    scores = first(group)
    found["inputs of conv_1"] = left(8, scores.argsort()[:4].tolist())

    wide = torch.nn.Sequential(torch.nn.Linear(4, 50), torch.nn.Linear(50, 2))
    pruner = tp.pruner.BasePruner(
        wide, torch.zeros(1, 4), importance=first, pruning_ratio=0.9, ignored_layers=[wide[1]]
    )
    pruner.step()
    found["of 50"] = wide[0].out_features

    lstm = torch.nn.LSTM(5, 6)
    try:
        tp.function.LSTMPruner().prune_out_channels(lstm, [0, 1])
        lstm(torch.zeros(3, 1, 5))
        found["lstm"] = "runs"
    except (RuntimeError, IndexError):
        found["lstm"] = "does not run"
    return found


BEFOREHAND = {"Torch-Pruning.json": (__file__, "{out}")} if find_spec("torch_pruning") else {}


@pytest.fixture(scope="module")
def theirs(ran_beforehand):
    [name] = BEFOREHAND
    done, out = ran_beforehand(name)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def tensors():
    """The same layers as the harness describes them: matrices with labelled axes."""
    layers = (
        Conv2D(name="conv_0", inputs=3, outputs=8, kernel=(3, 3), input_label="pixels"),
        Conv2D(name="conv_1", inputs=8, outputs=6, kernel=(3, 3), input_label="conv_0.channels"),
        Dense(name="output", inputs=24, units=10, input_label="conv_1.channels", input_repeat=4),
    )
    return tuple(tensor for layer in layers for tensor in layer.tensors() if tensor.is_prunable)


def scores():
    """|w| of every matrix: (outputs, inputs * kh * kw), a channel's taps side by side, as in PyTorch."""
    names = {name: f"{name}.kernel" for name in SHAPES}
    return {names[name]: np.abs(values).reshape(len(values), -1) for name, values in weights().items()}


def rows(mask):
    return np.flatnonzero(mask.any(axis=1)).tolist()


def test_filters_are_those_of_the_first_layer_of_a_group(theirs):
    for name, kept in theirs["filters"].items():
        assert rows(Filter().mask(scores()[f"{name}.kernel"], 0.5)) == kept


def test_channels_are_the_inputs_that_it_would_remove(theirs):
    [tensor] = [tensor for tensor in tensors() if tensor.name == "conv_1.kernel"]
    mask = Channel().for_tensor(tensor).mask(scores()["conv_1.kernel"], 0.5)

    assert np.flatnonzero(mask.reshape(6, 8, 9).any(axis=(0, 2))).tolist() == theirs["inputs of conv_1"]


def test_hidden_units_are_the_groups_of_its_dependency_graph(theirs):
    coupling = Coupling.of(tensors())
    half = {label: count // 2 for label, count in coupling.counts.items()}

    masks = coupling.masks(scores(), coupling.reached(half))

    assert HiddenUnit().frame(6, 72).coupling == "labels"
    assert {name: rows(masks[f"{name}.kernel"]) for name in ("conv_0", "conv_1")} == theirs["units"]
    # The readers lose the same units: inputs of the second convolution, and four values of every channel behind it.
    assert (
        np.flatnonzero(masks["conv_1.kernel"].reshape(6, 8, 9).any(axis=(0, 2))).tolist() == theirs["units"]["conv_0"]
    )
    assert (
        np.flatnonzero(masks["output.kernel"].reshape(10, 6, 4).any(axis=(0, 2))).tolist() == theirs["units"]["conv_1"]
    )


def test_it_ranks_all_layers_by_the_weights_before_any_of_them_is_pruned_as_we_do(theirs):
    assert theirs["units in turn"] == theirs["units"]


def test_its_default_ranks_by_squares_and_ours_by_absolute_values(theirs):
    kernel = scores()["conv_0.kernel"]

    assert theirs["by squares"]["conv_0"] != theirs["filters"]["conv_0"]
    assert rows(Filter().mask(kernel**2, 0.5)) == theirs["by squares"]["conv_0"]


def test_it_keeps_the_floor_of_the_units_and_we_round_half_up(theirs):
    kept = {name: len(units) for name, units in theirs["60 %"].items()}

    assert kept == {"conv_0": 3, "conv_1": 2}  # of 3.2 and 2.4
    assert (keep_count(8, 0.6), keep_count(6, 0.6)) == (3, 2)
    # 50 units times 1 - 0.9 are 4.999999999999998 of them in floats.
    assert theirs["of 50"] == 4
    assert keep_count(50, 0.9) == 5


def test_it_cannot_remove_the_units_of_an_lstm_and_we_remove_them_from_all_gates(theirs):
    kernel, recurrent = (
        tensor for tensor in LSTM(name="lstm", inputs=5, units=6, input_label="x").tensors() if tensor.is_prunable
    )
    rng = np.random.default_rng(1)
    coupling = Coupling.of((kernel, recurrent))

    masks = coupling.masks(
        {tensor.name: rng.random(tensor.shape) for tensor in (kernel, recurrent)}, coupling.reached({"lstm.units": 4})
    )

    assert theirs["lstm"] == "does not run"
    gone = np.flatnonzero(~masks[recurrent.name].any(axis=0))
    assert len(gone) == 2
    for tensor in (kernel, recurrent):
        assert np.flatnonzero(~masks[tensor.name].reshape(4, 6, -1).any(axis=(0, 2))).tolist() == gone.tolist()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(answers()))
