"""Units that live or die in every tensor that has their label."""

import numpy as np
import pytest
from harness_plugins.patterns.hidden_unit import HiddenUnit
from harness_plugins.patterns.two_ratio import TwoRatio
from harness_plugins.patterns.unstructured import Unstructured
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import LSTM, Conv2D, Dense, Magnitude, MaskUpdate, Network
from harness.masks.beforehand import why_skipped
from harness.masks.coupling import Coupling
from harness.masks.updates import MaskMaker


def matrices(*layers):
    return tuple(tensor for tensor in Network(layers=layers).tensors() if tensor.is_prunable)


LANGUAGE = matrices(
    LSTM(name="lstm_0", inputs=6, units=8, input_label="embedding.features"),
    LSTM(name="lstm_1", inputs=8, units=8, input_label="lstm_0.units"),
    Dense(name="softmax", inputs=8, units=20, role="softmax", input_label="lstm_1.units"),
)
IMAGES = matrices(
    Conv2D(name="conv", inputs=1, outputs=4, kernel=(3, 3), input_label="grey"),
    Dense(name="dense", inputs=4 * 9, units=5, input_label="conv.channels", input_repeat=9),
)


class Standing:
    """A session of which only weights and masks are asked for."""

    def __init__(self, weights, masks=None):
        self._weights, self._masks = weights, masks or {}

    def weights(self):
        return self._weights

    def masks(self):
        return self._masks


def drawn(scope, seed=0):
    rng = np.random.default_rng(seed)
    return {tensor.name: rng.normal(size=tensor.shape).astype(np.float32) for tensor in scope}


def units_kept(scope, masks, label):
    """Every unit's places, all alive or all dead wherever no dead unit of the other axis crosses them."""
    found = set()
    for tensor in scope:
        for axis, across in ((tensor.rows, 1), (tensor.cols, 0)):
            if axis.label == label:
                found.add(tuple(sorted(set(axis.units()[masks[tensor.name].any(axis=across)].tolist()))))
    assert len(found) == 1, found
    return found.pop()


@pytest.mark.parametrize("scope", [LANGUAGE, IMAGES], ids=["language", "images"])
@given(seed=st.integers(0, 99), sparsity=st.sampled_from([0.25, 0.5, 0.75, 0.9]))
@settings(deadline=None, max_examples=20)
def test_a_unit_is_gone_from_every_tensor_or_from_none(scope, seed, sparsity):
    coupling = Coupling.of(scope)
    quotas = coupling.quotas(sparsity)

    masks = coupling.masks({name: np.abs(w) for name, w in drawn(scope, seed).items()}, sparsity)

    for label, quota in quotas.items():
        assert len(units_kept(scope, masks, label)) == quota
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert 1 - kept / sum(tensor.size for tensor in scope) == pytest.approx(coupling.reached(quotas))
    smaller = {name: len(set(mask.any(axis=1).nonzero()[0])) * len(set(mask.any(axis=0).nonzero()[0]))
               for name, mask in masks.items()}  # fmt: skip
    assert {name: int(mask.sum()) for name, mask in masks.items()} == smaller  # what is left is dense


def test_only_what_one_tensor_makes_and_another_reads_can_be_removed():
    assert dict(Coupling.of(LANGUAGE).counts) == {"lstm_0.units": 8, "lstm_1.units": 8}
    assert dict(Coupling.of(IMAGES).counts) == {"conv.channels": 4}


def test_the_four_gates_of_a_unit_go_together():
    masks = Coupling.of(LANGUAGE[:2]).masks({t.name: np.ones(t.shape) for t in LANGUAGE[:2]}, 0.5)

    rows = masks["lstm_0.kernel"].any(axis=1).reshape(4, 8)
    assert (rows == rows[0]).all()


@given(seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_units_that_are_gone_stay_gone_at_a_higher_sparsity(seed):
    update = [MaskUpdate(step=0, sparsity=sparsity, score=Magnitude()) for sparsity in (0.3, 0.6, 0.9)]
    maker = MaskMaker(HiddenUnit(), "uniform", LANGUAGE, seed=0, target=0.9)
    weights, masks = drawn(LANGUAGE, seed), {}

    for each in update:
        before, masks = masks, maker(each, 0, Standing(weights, masks))
        assert all(not (masks[name] & ~before[name]).any() for name in before)


def test_what_cannot_be_coupled_is_skipped_with_its_reason():
    assert why_skipped(HiddenUnit(), "uniform", LANGUAGE, 0.75, 0.05) is None
    assert "remove" in why_skipped(HiddenUnit(), "global", LANGUAGE, 0.75)
    lonely = why_skipped(HiddenUnit(), "uniform", IMAGES[:1], 0.75)
    assert lonely.endswith("reads what another one makes, so no unit can be removed whole; widen the scope")
    coarse = why_skipped(HiddenUnit(), "uniform", IMAGES, 0.9)
    assert "cannot be reached within the tolerance 0.02; the nearest reachable sparsity is 0.75" in coarse


def test_two_ratios_reach_the_sparsity_together():
    pattern, weights = TwoRatio(recurrent=2.0), drawn(LANGUAGE)
    masks = MaskMaker(pattern, "uniform", LANGUAGE, seed=0)(MaskUpdate(step=0, sparsity=0.7), 0, Standing(weights))

    density = {name: mask.mean() for name, mask in masks.items()}
    assert density["lstm_1.recurrent_kernel"] == pytest.approx(2 * density["lstm_1.kernel"], abs=1 / 8)
    rows = {int(count) for count in masks["lstm_0.recurrent_kernel"].sum(axis=1)}
    assert len(rows) == 1
    assert "holds one sort alone" in why_skipped(pattern, "uniform", IMAGES, 0.5)


def test_a_pattern_without_coupling_is_asked_tensor_by_tensor():
    assert why_skipped(Unstructured(), "uniform", IMAGES, 0.5) is None
